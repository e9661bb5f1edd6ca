"""Which passes ``ranvier.optimize`` runs: those of a level, of a pipeline as text, or a list of passes and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..errors import PassError
from ..passes.base import Pass
from ..passes.canonicalize import Canonicalize
from ..passes.levels import level_passes
from ..passes.pipeline import parse_pipeline, pipeline_text
from ..passes.prune import Prune
from ..passes.search import is_searched
from ..verification.promise import Promise

SC_NEUROCORE = {
    "dead_neuron_elimination": "dead-neurons{threshold=0}",
    "redundancy_elimination": "merge-neurons",
    "layer_fusion": "fuse",
    "weight_pruning": "prune{threshold=0.001}",
    "redundant_connection_removal": "connections",
}
"""Names of sc-neurocore's passes, and the pipelines that they stand for."""

Passes = str | Iterable[str | Pass] | None


@dataclass(frozen=True)
class ChosenPasses:
    """Passes in the order in which they run.

    Attributes:
        passes: in order.
        result_names: names of results by the name of a pass, for passes chosen by sc-neurocore's names.
    """

    passes: tuple[Pass, ...]
    result_names: Mapping[str, str]

    def __str__(self) -> str:
        return pipeline_text(self.passes)

    @property
    def searched(self) -> bool:
        """Whether the strength of a pass is to be searched."""
        return any(map(is_searched, self.passes))

    @property
    def approximate(self) -> bool:
        """Whether a pass may change what the network does."""
        return any(one.promise is Promise.APPROXIMATE for one in self.passes)

    @property
    def gradual(self) -> bool:
        """Whether a pass can be run in stages, with training in between."""
        return any(isinstance(one, Prune) and one.sparsity is not None for one in self.passes)

    def with_zero_biases(self) -> ChosenPasses:
        """The same passes for a model that keeps learning: a bias of zeros stays, because training may change it."""
        passes = (replace(p, biases=False) if isinstance(p, Canonicalize) else p for p in self.passes)
        return replace(self, passes=tuple(passes))


def chosen_passes(passes: Passes, level: str, goal: str | None = None) -> ChosenPasses:
    """The chosen passes, or those of the level and goal if ``passes`` is None.

    Raises:
        PassError: a pass, an option, the level or the goal is not known, or there is a goal for chosen passes.
    """
    if passes is None:
        return ChosenPasses(tuple(level_passes(level, goal)), {})
    if goal is not None:
        raise PassError(f"goal={goal!r} chooses passes of level='O3'; leave out one of goal= and passes.")
    if isinstance(passes, str):
        return ChosenPasses(tuple(parse_pipeline(passes)), {})
    if not isinstance(passes, Iterable):
        raise PassError(f"passes={passes!r}: expected a pipeline as text or a list of passes.")
    chosen: list[Pass] = []
    result_names: dict[str, str] = {}
    for one in passes:
        if not isinstance(one, (str, Pass)):
            raise PassError(f"{one!r} is not a pass; pass a pass or its name, as in passes=['dead-neurons', 'fuse'].")
        if isinstance(one, Pass):
            chosen.append(one)
            continue
        chosen += parse_pipeline(SC_NEUROCORE.get(one, one))
        if one in SC_NEUROCORE:
            result_names[SC_NEUROCORE[one].split("{")[0]] = one
    return ChosenPasses(tuple(chosen), result_names)
