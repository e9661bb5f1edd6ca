"""Pruning in stages, with training in between.

What is pruned at once takes with it what the remaining weights could have learned to make up for. So each stage removes
a part, fewer at the end when each weight counts more, and the network is trained before the next one, with what is gone
held at zero.

For example, 1,000 weights, a sparsity of 0.9 in 3 stages on the cubic schedule:

    stage 1    0.9 (1 - (2/3)^3) = 0.633    633 weights removed, then trained
    stage 2    0.9 (1 - (1/3)^3) = 0.867    867
    stage 3    0.9                          900

With ``sparsity=auto`` the stages go on towards the largest sparsity there is, and each is judged after its training.
Two stages in a row that cost too much end the search, since one may fail by chance; then the gap above the last one
that holds is halved a few times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..graph.snn_graph import SNNGraph
from ..util.schedule import cubic
from ..verification.calibration import Calibration
from ..verification.judge import Judge
from ..verification.promise import Promise
from .base import Rewriting
from .prune import Prune
from .search import Attempt, chosen_attempt

FAILURES = 2
"""Stages in a row that cost too much, after which no stronger one is tried."""
REFINEMENTS = 2


@dataclass(frozen=True, eq=False)
class TrainedGraph:
    """A graph after training.

    Attributes:
        graph: with the weights that were learned.
        memory: what the next training continues with, such as the state of an optimizer.
        message: what the training did.
    """

    graph: SNNGraph
    memory: Any
    message: str


class Training(Protocol):
    """Trains graphs between the stages.

    Attributes:
        stages: how many there are on the way to a sparsity.
    """

    @property
    def stages(self) -> int: ...

    def train(self, before: SNNGraph, rewriting: Rewriting, memory: Any) -> TrainedGraph:
        """Trains what a rewriting has left, with absent synapses held at zero.

        Args:
            before: the graph before the rewriting.
            rewriting: its graph is trained, and not changed.
            memory: of the training before; None for the first one.
        """
        ...


@dataclass(frozen=True, eq=False)
class Stage:
    """A network that was pruned and trained, perhaps several times.

    Attributes:
        rewriting: all of it, as one rewriting of the first graph.
        memory: of the last training.
    """

    rewriting: Rewriting
    memory: Any = None


@dataclass(frozen=True, eq=False)
class StagedPruning:
    """How a graph is pruned in stages.

    Attributes:
        one: the pass; its sparsity is that of the last stage.
        graph: before all stages.
        calibration: data that the pass measures on; None for none.
        training: between the stages.
        on_progress: called with what is done next.
    """

    one: Prune
    graph: SNNGraph
    calibration: Calibration | None
    training: Training
    on_progress: Callable[[str], None]

    def to(self, sparsity: float) -> Rewriting:
        """Prunes to a sparsity."""
        stage, count = self.first(), self.training.stages
        for number in range(1, count + 1):
            stage = self.next(stage, cubic(sparsity, number / count))
        return stage.rewriting

    def as_far_as(self, judge: Judge) -> tuple[Prune, Rewriting]:
        """Prunes as far as a budget allows: the pass with the sparsity that was reached, and the network."""
        _, largest = self.one.search["sparsity"]
        count = self.training.stages
        tried, failed = list[Attempt](), list[float]()
        reached, best = 0.0, self.first()
        stage = best
        for sparsity in (cubic(largest, number / count) for number in range(1, count + 1)):
            stage = self.next(stage, sparsity)
            tried.append(self._attempt(judge, sparsity, stage))
            if tried[-1].holds:
                reached, best, failed = sparsity, stage, []
            else:
                failed.append(sparsity)
            if len(failed) == FAILURES:
                break
        for _ in range(REFINEMENTS if failed else 0):
            middle = (reached + failed[0]) / 2
            stage = self.next(best, middle)
            tried.append(self._attempt(judge, middle, stage))
            if tried[-1].holds:
                reached, best = middle, stage
            else:
                failed = [middle]
        why = f"{FAILURES} stages in a row cost too much" if failed else f"{largest:g} is the strongest value"
        chosen, rewriting = chosen_attempt(self.one, "sparsity", self.graph, tried, judge, why)
        assert isinstance(chosen, Prune)
        return chosen, rewriting

    def first(self) -> Stage:
        """The graph as it is."""
        return Stage(Rewriting.unchanged(self.graph, self.one.name, self.calibration))

    def next(self, stage: Stage, sparsity: float) -> Stage:
        """Prunes a stage further, to a part of the weights or neurons of the first graph, and trains it."""
        self.on_progress(f"{self.one.name}: pruning to a sparsity of {sparsity:.4g} and training")
        current = stage.rewriting.graph
        # Removed neurons, and removed entries of sparse rows, no longer count among those that a part is taken of.
        left = (1 - sparsity) * self.one.size(self.graph)
        part = max(0.0, 1 - left / max(self.one.size(current), 1))
        pruned = replace(self.one, sparsity=part).rewritten(current, self.calibration)
        trained = self.training.train(current, pruned, stage.memory)
        together = stage.rewriting.followed_by(pruned, trained.graph)
        together.did(self.graph.name, trained.message, Promise.APPROXIMATE)
        return Stage(together, trained.memory)

    def _attempt(self, judge: Judge, sparsity: float, stage: Stage) -> Attempt:
        judgement = judge.judge(stage.rewriting.graph)
        return Attempt(sparsity, replace(self.one, sparsity=sparsity), stage.rewriting, judgement)
