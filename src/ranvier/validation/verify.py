"""Translation validation: two graphs are run on the same inputs, and what differs is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import GraphError
from ..ir.graph.interpreter import interpret
from ..ir.graph.neurons import ALIF
from ..ir.graph.recording import Simulation, batched_inputs
from ..ir.graph.snn_graph import SNNGraph
from .counterexample import Counterexample
from .difference import (
    Divergence,
    OutputDifference,
    SpikeDifference,
    compared_trains,
    first_divergence,
    spiking,
)
from .origins import Origins
from .promise import Promise

Run = Callable[..., Simulation]
"""``run(graph, inputs, record=names)``: :func:`ranvier.interpret` or :func:`ranvier.simulate`."""

CLOSE = 1e-6
"""Relative difference of outputs up to which two graphs do the same but for rounding."""
TIE = 1e-7
"""Part of the threshold within which a potential is so near that rounding decides whether a spike comes."""


@dataclass(frozen=True, eq=False)
class Verification:
    """What came out of running two graphs.

    Attributes:
        inputs: what they were run on, in words.
        steps, samples: how many.
        outputs: by output.
        spikes: by population of the original that gives spikes, as far as its neurons are in both graphs.
        divergence: the first spike that only one of them has; None if there is none.
        counterexample: both graphs and the inputs of the sample that differs most; None where nothing differs.
    """

    inputs: str
    steps: int
    samples: int
    outputs: dict[str, OutputDifference]
    spikes: dict[str, SpikeDifference]
    divergence: Divergence | None
    counterexample: Counterexample | None

    @property
    def identical(self) -> bool:
        """Whether all bits of outputs and all spikes are the same."""
        return self.divergence is None and all(found.identical for found in self.outputs.values())

    @property
    def close(self) -> bool:
        """Whether outputs and spikes are the same but for rounding; a tie that rounding decides counts as that."""
        if self.divergence is not None:
            return self.divergence.is_tie
        return all(found.largest <= CLOSE * max(found.scale, 1.0) for found in self.outputs.values())

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
        verdict = "identical" if self.identical else "the same but for rounding" if self.close else "different"
        lines = [f"{verdict} on {self.inputs}, {self.steps} steps x {self.samples} samples"]
        for name, found in self.outputs.items():
            lines.append(f"  output {name}: largest difference {found.largest:.3g} of {found.scale:.3g}")
        for name, found in self.spikes.items():
            lines.append(
                f"  {name}: {found.identical:.1%} of the spike trains of {found.neurons} neurons (of {found.of}) are "
                f"the same; {found.rate_before:.4g} spikes per step before, {found.rate_after:.4g} after"
            )
        if self.divergence is not None:
            lines.append(f"  first divergence: {self.divergence}")
        return "\n".join(lines)


def verify(
    original: SNNGraph,
    optimized: SNNGraph,
    inputs: Any,
    *,
    origins: Origins | None = None,
    told: str = "the inputs given",
    runs: tuple[Run, Run] = (interpret, interpret),
    tie: float = TIE,
) -> Verification:
    """Runs two graphs on the same inputs and compares outputs, spike trains and rates.

    Args:
        original, optimized: valid graphs with the same inputs and outputs.
        inputs: as for :func:`ranvier.simulate`.
        origins: where the neurons of the original are in the other graph; by default those of populations that have
            the same name and size there are compared.
        told: the inputs in words, for reports.
        runs: what runs each of them; by default the interpreter, in float64.
        tie: part of the threshold within which a missing spike counts as rounding.

    Raises:
        GraphError: a graph is not valid, or the two have not the same inputs and outputs.
        InputError: the inputs do not fit.
    """
    check_interface(original, optimized)
    origins = same_names(original, optimized) if origins is None else origins
    given, samples = batched_inputs(original, inputs)
    before = runs[0](original, given, record=spiking(original))
    after = runs[1](optimized, given, record=spiking(optimized))
    outputs = {name: OutputDifference.of(before.outputs[name], after.outputs[name]) for name in before.outputs}
    trains = compared_trains(original, origins, before, after, samples is not None)
    spikes = {
        name: SpikeDifference.of_trains(a, b, original.populations[name].size) for name, (_, a, b) in trains.items()
    }
    divergence = first_divergence(trains)
    if divergence is not None:
        divergence = _with_margin(divergence, original, optimized, given, origins, runs, samples is not None, tie)
    found = Verification(told, len(next(iter(given.values()))), samples or 1, outputs, spikes, divergence, None)
    if found.identical:
        return found
    worst = _worst_sample(before, after, divergence, samples)
    shown = {name: values if worst is None else values[:, worst] for name, values in given.items()}
    return replace(found, counterexample=Counterexample(original, optimized, shown))


def check_interface(original: SNNGraph, optimized: SNNGraph) -> None:
    """Raises :class:`GraphError` unless both graphs have the same inputs, outputs and time step."""
    for what in ("inputs", "outputs"):
        a, b = ({n: list(x.shape) for n, x in getattr(g, what).items()} for g in (original, optimized))
        if a != b:
            raise GraphError(f"the graphs have not the same {what}: {a} and {b}; such graphs cannot be compared.")
    if original.dt != optimized.dt:
        raise GraphError(f"the graphs have different time steps, {original.dt:g} s and {optimized.dt:g} s.")


def same_names(original: SNNGraph, optimized: SNNGraph) -> Origins:
    """Neurons are taken for the same where their populations have one name and size."""
    origins = Origins.of(original)
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


def _with_margin(
    found: Divergence,
    original: SNNGraph,
    optimized: SNNGraph,
    given: Mapping[str, np.ndarray],
    origins: Origins,
    runs: tuple[Run, Run],
    samples: bool,
    tie: float,
) -> Divergence:
    """The divergence with the distance from the threshold in the graph without the spike."""
    place = origins.places[found.population]
    graph, run, name, number = original, runs[0], found.population, found.neuron
    if found.fired:
        assert place.population is not None
        graph, run, name, number = optimized, runs[1], place.population, int(place.numbers[found.neuron])
    neuron = graph.populations[name].neuron
    if "v" not in neuron.states:
        return found
    shown = {n: (x[:, found.sample] if samples else x)[: found.step + 1] for n, x in given.items()}
    states = run(graph, shown, record=[f"{name}.{state}" for state in neuron.states])
    at = {state: states[f"{name}.{state}"].reshape(found.step + 1, -1)[:, number] for state in neuron.states}
    size = graph.populations[name].size
    threshold = _threshold(neuron, at, found.step, number, size, graph.populations[name].initial_state())
    margin = float(threshold - at["v"][found.step])
    return replace(found, margin=margin, is_tie=abs(margin) <= tie * max(abs(threshold), 1e-30))


def _threshold(
    neuron: Any, states: Mapping[str, np.ndarray], step: int, number: int, size: int, initial: Mapping[str, np.ndarray]
) -> float:
    """The threshold of one neuron at a step."""

    def of(value: np.ndarray) -> float:
        return float(np.broadcast_to(value.ravel() if value.ndim else value, (size,))[number])

    level = of(neuron.v_threshold)
    if isinstance(neuron, ALIF):
        a = states["a"][step - 1] if step else of(initial["a"])
        level += of(neuron.beta) * float(a)
    return level


def replay(path: str | os.PathLike[str]) -> Verification:
    """Runs a saved counterexample again.

    Raises:
        GraphError: the file holds none.
    """
    found = Counterexample.load(path)
    return verify(found.original, found.optimized, found.inputs, told=f"the counterexample {os.fspath(path)}")
