"""What a pass did to a graph, in a few numbers."""

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
        name: of the pass.
        neurons_removed: how many.
        layers_fused: how many projections less there are.
        params_before, params_after: weights and biases that are stored.
        promise: the weakest of what was done.
        remarks: what was done, and what not and why.
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
        """What runs of one pass did, or of several under one name; there is at least one."""
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
    """One result for every pass of a pipeline, over all rounds.

    Args:
        runs: of a pipeline.
        names: what passes are to be called, by their own names; those that are left out keep theirs.
    """
    by_pass: dict[str, list[PassRun]] = {}
    for run in runs:
        by_pass.setdefault(_pass_name(run), []).append(run)
    return [PassResult.of(names.get(name, name), of_pass) for name, of_pass in by_pass.items()]


def _pass_name(run: PassRun) -> str:
    return run.text.split("{")[0]
