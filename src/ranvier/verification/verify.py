"""Translation validation: two graphs are run on the same inputs, and differences are reported."""

# An example: a neuron that sums up its input and fires above 1. The original graph drives it with weight 0.6, the other
# with 0.4, and the input is 1 for three steps. The potential is 0.6 and 1.2 before, and 0.4, 0.8 and 1.2 after: a spike
# at step 1 and one at step 2. Verification says that the graphs are different: at step 1 the neuron fires before, and
# not after, where it is 0.2 from the threshold.
#
# With the weights 0.5 and 0.500000001, the potentials of step 1 are 1 and 1.000000002. Again only one graph fires, but
# rounding decides it. It is reported as a tie, and the original is run again with that spike.

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
"""Relative difference of outputs up to which two graphs count as equal up to rounding."""
TIE = 1e-7
"""Fraction of the threshold, or of the potential, within which rounding decides whether a neuron fires."""
UNITS = 32
"""Multiple of the weights' relative rounding that sums of a few weights may be off by, if that is more."""


@dataclass(frozen=True, eq=False)
class Verification:
    """The result of running two graphs on the same inputs.

    Attributes:
        inputs: the inputs, in words.
        steps, samples: their numbers.
        outputs: differences by output.
        spikes: differences by population of the original that emits spikes, for the neurons that both graphs have.
        divergence: the first spike that only one of the graphs has; None if there is none.
        ties: earlier spikes that only one of the graphs had because rounding decided. The original followed the other
            graph there, so that what comes after a tie is compared as well.
        tolerance: relative difference of outputs that counts as rounding.
        counterexample: both graphs and the inputs of the sample that differs most; None if nothing differs.
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
        """Whether all outputs and all spikes are equal."""
        spikes_same = self.divergence is None and not self.ties
        return spikes_same and all(output.identical for output in self.outputs.values())

    @property
    def close(self) -> bool:
        """Whether outputs and spikes are equal up to rounding, which includes ties."""
        return self.divergence is None and all(
            output.largest <= self.tolerance * output.scale for output in self.outputs.values()
        )

    @property
    def verdict(self) -> str:
        """The result in words."""
        return "identical" if self.identical else "equal up to rounding" if self.close else "different"

    @property
    def untested(self) -> tuple[str, ...]:
        """Outputs that stayed at zero in both graphs, and populations that never fired: these say nothing."""
        outputs = [name for name, output in self.outputs.items() if output.scale == output.largest == 0]
        silent = [name for name, train in self.spikes.items() if train.rate_before == train.rate_after == 0]
        return (*outputs, *silent)

    @property
    def largest(self) -> float:
        """The largest absolute difference of an output."""
        return max((output.largest for output in self.outputs.values()), default=0.0)

    def keeps(self, promise: Promise) -> bool:
        """Whether the result is in line with a promise."""
        if promise is Promise.BITWISE:
            return self.identical
        return promise is Promise.APPROXIMATE or self.close

    def __str__(self) -> str:
        lines = [f"{self.verdict} on {self.inputs}, {counted(self.steps, 'step')} x {counted(self.samples, 'sample')}"]
        for name, output in self.outputs.items():
            lines.append(f"  output {name}: largest difference {output.largest:.3g} of {output.scale:.3g}")
        for name, train in self.spikes.items():
            lines.append(
                f"  {name}: {train.identical:.1%} of the spike trains of {train.neurons} neurons (of {train.of}) are "
                f"the same; {train.rate_before:.4g} spikes per step before, {train.rate_after:.4g} after"
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
    description: str = "the given inputs",
    runs: tuple[Run, Run] = (interpret, interpret),
    tie: float | None = None,
) -> Verification:
    """Runs two graphs on the same inputs and compares outputs, spike trains and rates.

    Args:
        original: a valid graph.
        optimized: another one, with the same inputs and outputs.
        inputs: as for :func:`ranvier.simulate`.
        origins: where the neurons of the original are in the other graph; by default, neurons of populations with the
            same name and shape are compared.
        description: the inputs in words, for reports.
        runs: the functions that run the two graphs; by default the interpreter, in float64.
        tie: fraction of the threshold or of the potential within which a missing spike counts as rounding: by default
            1e-7, or 32 times the relative rounding of the weights if that is more. Ties are followed if the function
            that runs the original takes ``nudges``, as the interpreter does.

    Raises:
        GraphError: a graph is not valid, or the two differ in their inputs, outputs or time steps.
        InputError: the inputs do not fit the graphs.
    """
    check_interface(original, optimized)
    origins = same_names(original, optimized) if origins is None else origins
    arrays, samples = batched_inputs(original, inputs)
    batched = samples is not None
    rounding = UNITS * max(_rounding(original), _rounding(optimized))
    tie = max(TIE, rounding) if tie is None else tie
    # The optimized graph runs once, as it is; only the original is run again, where rounding decides.
    after = runs[1](optimized, arrays, record=spiking(optimized))
    before, trains, divergence, ties = followed(original, optimized, arrays, origins, after, runs, tie, batched)
    outputs = {name: OutputDifference.of(before.outputs[name], after.outputs[name]) for name in before.outputs}
    spikes = {
        name: SpikeDifference.of_trains(a, b, original.populations[name].size) for name, (_, a, b) in trains.items()
    }
    steps = len(next(iter(arrays.values())))
    result = Verification(
        description, steps, samples or 1, outputs, spikes, divergence, None, ties, max(CLOSE, rounding)
    )
    if result.identical:
        return result
    worst = _worst_sample(before, after, divergence or next(iter(ties), None), samples)
    shown = {name: values if worst is None else values[:, worst] for name, values in arrays.items()}
    return replace(result, counterexample=Counterexample(original, optimized, shown, origins))


def _rounding(graph: SNNGraph) -> float:
    """The relative rounding of the coarsest weights of a graph: passes compute in the dtypes of the weights."""
    dtypes = {array.dtype for p in graph.projections.values() for array in p.operation.arrays.values()}
    return max((float(np.finfo(dtype).eps) for dtype in dtypes), default=0.0)


def check_interface(original: SNNGraph, optimized: SNNGraph) -> None:
    """Raises :class:`GraphError` unless both are valid graphs with the same inputs, outputs and time step."""
    for graph in (original, optimized):
        check_is_graph(graph)
    for part in ("inputs", "outputs"):
        a, b = ({n: list(x.shape) for n, x in getattr(g, part).items()} for g in (original, optimized))
        if a != b:
            raise GraphError(f"the graphs do not have the same {part}: {a} and {b}; such graphs cannot be compared.")
    if original.dt != optimized.dt:
        raise GraphError(f"the graphs have different time steps, {original.dt:g} s and {optimized.dt:g} s.")


def same_names(original: SNNGraph, optimized: SNNGraph) -> Provenance:
    """Provenance by name: neurons of populations with the same name and shape correspond."""
    origins = Provenance.of(original)
    for name, population in original.populations.items():
        other = optimized.populations.get(name)
        if other is None or other.shape != population.shape:
            origins = origins.without(name)
    return origins


def _worst_sample(
    before: Simulation, after: Simulation, divergence: Divergence | None, samples: int | None
) -> int | None:
    """The sample of a divergence, or the one whose outputs differ most; None if the inputs have no samples."""
    if samples is None:
        return None
    if divergence is not None:
        return divergence.sample
    apart = [np.abs(before.outputs[n] - after.outputs[n]).reshape(-1, samples, 1).max((0, 2)) for n in before.outputs]
    return int(np.argmax(np.nan_to_num(np.max(apart, axis=0), nan=np.inf)))


def replay(path: str | os.PathLike[str]) -> Verification:
    """Runs a saved counterexample again. The new result's counterexample names the promise that was broken.

    Raises:
        GraphError: the file cannot be read or holds no counterexample.
    """
    saved = Counterexample.load(path)
    description = f"the counterexample {os.fspath(path)}"
    again = verify(saved.original, saved.optimized, saved.inputs, origins=saved.origins, description=description)
    counterexample = again.counterexample
    return (
        again
        if counterexample is None
        else replace(again, counterexample=replace(counterexample, promise=saved.promise))
    )
