"""Summaries of what a pass did to a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..verification.promise import Promise
from .base import Remark
from .fuse import Fuse
from .manager import PassRun


@dataclass(frozen=True)
class PassResult:
    """What a pass did to a graph.

    Attributes:
        name: name of the pass.
        neurons_removed: number of neurons removed or merged.
        layers_fused: number of projections removed by fusing.
        params_before, params_after: numbers of stored weights and biases.
        promise: the weakest promise of all changes.
        remarks: what was done, and what was not and why.
    """

    name: str
    neurons_removed: int = 0
    layers_fused: int = 0
    params_before: int = 0
    params_after: int = 0
    promise: Promise = Promise.BITWISE
    remarks: tuple[Remark, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, name: str, runs: Sequence[PassRun]) -> PassResult:
        """The sum of one or more runs of a pass, or of passes that share a name."""
        fusing = [run for run in runs if _pass_name(run) == Fuse.name]
        return cls(
            name,
            sum(run.before.neurons - run.after.neurons for run in runs),
            max(0, sum(run.before.projections - run.after.projections for run in fusing)),
            runs[0].before.parameters,
            runs[-1].after.parameters,
            max(run.promise for run in runs),
            tuple(remark for run in runs for remark in run.remarks),
        )


def pass_results(runs: Sequence[PassRun], names: Mapping[str, str]) -> list[PassResult]:
    """One result for each pass of a pipeline, over all rounds.

    Args:
        runs: the runs of a pipeline.
        names: other names for passes in the results, by name of the pass.
    """
    by_pass: dict[str, list[PassRun]] = {}
    for run in runs:
        by_pass.setdefault(_pass_name(run), []).append(run)
    return [PassResult.of(names.get(name, name), of_pass) for name, of_pass in by_pass.items()]


def _pass_name(run: PassRun) -> str:
    return run.text.split("{")[0]
