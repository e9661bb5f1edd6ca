"""Translation validation: two graphs are run on the same inputs, and what differs is reported."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import GraphError, printable
from ..graph.interpreter import interpret
from ..graph.provenance import Provenance
from ..graph.recording import Simulation, batched_inputs
from ..graph.snn_graph import SNNGraph, check_is_graph
from ..util.counting import counted
from .counterexample import Counterexample
from .difference import Divergence, OutputDifference, SpikeDifference, spiking
from .promise import Promise
from .ties import Run, followed

CLOSE = 1e-6
"""Relative difference of outputs up to which two graphs do the same but for rounding."""
TIE = 1e-7
"""Part of the threshold, or of the potential, within which rounding decides whether a spike comes."""
UNITS = 32
"""Of the rounding of weights, where that is more: what sums of a few of them are off by."""


@dataclass(frozen=True, eq=False)
class Verification:
    """What came out of running two graphs.

    Attributes:
        inputs: what they were run on, in words.
        steps, samples: how many.
        outputs: by output.
        spikes: by population of the original that gives spikes, as far as its neurons are in both graphs.
        divergence: the first spike that only one of them has; None if there is none.
        ties: spikes that only one of them had before that, because rounding decided; the original was made to follow
            the other graph there, so that what comes after them is compared too.
        tolerance: relative difference of outputs that counts as rounding.
        counterexample: both graphs and the inputs of the sample that differs most; None where nothing differs.
    """

    inputs: str
    steps: int
    samples: int
    outputs: dict[str, OutputDifference]
    spikes: dict[str, SpikeDifference]
    divergence: Divergence | None
    counterexample: Counterexample | None
    ties: tuple[Divergence, ...] = ()
    tolerance: float = CLOSE

    @property
    def identical(self) -> bool:
        """Whether all bits of outputs and all spikes are the same."""
        spikes_same = self.divergence is None and not self.ties
        return spikes_same and all(found.identical for found in self.outputs.values())

    @property
    def close(self) -> bool:
        """Whether outputs and spikes are the same but for rounding; a tie that rounding decides counts as that."""
        return self.divergence is None and all(
            found.largest <= self.tolerance * found.scale for found in self.outputs.values()
        )

    @property
    def verdict(self) -> str:
        """What was found, in words."""
        return "identical" if self.identical else "equal but for rounding" if self.close else "different"

    @property
    def untested(self) -> tuple[str, ...]:
        """Outputs that stayed at zero in both graphs, and populations that never fired: nothing was seen of them."""
        outputs = [name for name, found in self.outputs.items() if found.scale == found.largest == 0]
        silent = [name for name, found in self.spikes.items() if found.rate_before == found.rate_after == 0]
        return (*outputs, *silent)

    @property
    def largest(self) -> float:
        """The largest difference of an output."""
        return max((found.largest for found in self.outputs.values()), default=0.0)

    def keeps(self, promise: Promise) -> bool:
        """Whether what was seen is in line with a promise."""
        if promise is Promise.BITWISE:
            return self.identical
        return promise is Promise.APPROXIMATE or self.close

    def __str__(self) -> str:
        lines = [f"{self.verdict} on {self.inputs}, {counted(self.steps, 'step')} x {counted(self.samples, 'sample')}"]
        for name, found in self.outputs.items():
            lines.append(f"  output {name}: largest difference {found.largest:.3g} of {found.scale:.3g}")
        for name, found in self.spikes.items():
            lines.append(
                f"  {name}: {found.identical:.1%} of the spike trains of {found.neurons} neurons (of {found.of}) are "
                f"the same; {found.rate_before:.4g} spikes per step before, {found.rate_after:.4g} after"
            )
        lines += [f"  tie: {tie}, a tie that rounding decides" for tie in self.ties]
        if self.divergence is not None:
            lines.append(f"  first divergence: {self.divergence}")
        if self.untested:
            lines.append(f"  not tested, because it stayed at zero: {', '.join(self.untested)}")
        return printable("\n".join(lines))


def verify(
    original: SNNGraph,
    optimized: SNNGraph,
    inputs: Any,
    *,
    origins: Provenance | None = None,
    description: str = "the inputs given",
    runs: tuple[Run, Run] = (interpret, interpret),
    tie: float | None = None,
) -> Verification:
    """Runs two graphs on the same inputs and compares outputs, spike trains and rates.

    Args:
        original: a valid graph.
        optimized: another one, with the same inputs and outputs.
        inputs: as for :func:`ranvier.simulate`.
        origins: where the neurons of the original are in the other graph; by default those of populations that have
            the same name and size there are compared.
        description: the inputs in words, for reports.
        runs: what runs each of them; by default the interpreter, in float64.
        tie: part of the threshold or of the potential within which a missing spike counts as rounding: by default 1e-7,
            or some units of the weights' own rounding where that is more. Such ties are followed if what runs the
            original takes ``nudges``, as the interpreter does.

    Raises:
        GraphError: a graph is not valid, or the two have not the same inputs and outputs.
        InputError: the inputs do not fit.
    """
    check_interface(original, optimized)
    origins = same_names(original, optimized) if origins is None else origins
    given, samples = batched_inputs(original, inputs)
    batched = samples is not None
    rounding = UNITS * max(_rounding(original), _rounding(optimized))
    tie = max(TIE, rounding) if tie is None else tie
    after = runs[1](optimized, given, record=spiking(optimized))
    before, trains, divergence, ties = followed(original, optimized, given, origins, after, runs, tie, batched)
    outputs = {name: OutputDifference.of(before.outputs[name], after.outputs[name]) for name in before.outputs}
    spikes = {
        name: SpikeDifference.of_trains(a, b, original.populations[name].size) for name, (_, a, b) in trains.items()
    }
    steps = len(next(iter(given.values())))
    result = Verification(
        description, steps, samples or 1, outputs, spikes, divergence, None, ties, max(CLOSE, rounding)
    )
    if result.identical:
        return result
    worst = _worst_sample(before, after, divergence or next(iter(ties), None), samples)
    shown = {name: values if worst is None else values[:, worst] for name, values in given.items()}
    return replace(result, counterexample=Counterexample(original, optimized, shown, origins))


def _rounding(graph: SNNGraph) -> float:
    """The relative rounding of the coarsest weights of a graph, which passes compute in."""
    dtypes = {array.dtype for p in graph.projections.values() for array in p.operation.arrays.values()}
    return max((float(np.finfo(dtype).eps) for dtype in dtypes), default=0.0)


def check_interface(original: SNNGraph, optimized: SNNGraph) -> None:
    """Raises :class:`GraphError` unless both are graphs with the same inputs, outputs and time step."""
    for graph in (original, optimized):
        check_is_graph(graph)
    for what in ("inputs", "outputs"):
        a, b = ({n: list(x.shape) for n, x in getattr(g, what).items()} for g in (original, optimized))
        if a != b:
            raise GraphError(f"the graphs have not the same {what}: {a} and {b}; such graphs cannot be compared.")
    if original.dt != optimized.dt:
        raise GraphError(f"the graphs have different time steps, {original.dt:g} s and {optimized.dt:g} s.")


def same_names(original: SNNGraph, optimized: SNNGraph) -> Provenance:
    """Neurons are taken for the same where their populations have one name and size."""
    origins = Provenance.of(original)
    for name, population in original.populations.items():
        other = optimized.populations.get(name)
        if other is None or other.shape != population.shape:
            origins = origins.without(name)
    return origins


def _worst_sample(before: Simulation, after: Simulation, found: Divergence | None, samples: int | None) -> int | None:
    if samples is None:
        return None
    if found is not None:
        return found.sample
    apart = [np.abs(before.outputs[n] - after.outputs[n]).reshape(-1, samples, 1).max((0, 2)) for n in before.outputs]
    return int(np.argmax(np.nan_to_num(np.max(apart, axis=0), nan=np.inf)))


def replay(path: str | os.PathLike[str]) -> Verification:
    """Runs a saved counterexample again; the promise that was broken is in its counterexample.

    Raises:
        GraphError: the file holds none.
    """
    found = Counterexample.load(path)
    description = f"the counterexample {os.fspath(path)}"
    again = verify(found.original, found.optimized, found.inputs, origins=found.origins, description=description)
    kept = again.counterexample
    return again if kept is None else replace(again, counterexample=replace(kept, promise=found.promise))
