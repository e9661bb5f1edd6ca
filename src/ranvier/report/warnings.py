"""What makes the result of an optimization doubtful: data on which nothing fired, and outputs that became constant."""

# An example: weights were trained with inputs around 1, and the calibration data was scaled to 0.001 by mistake. No
# neuron fires on it, so dead-neurons removes all of them, and the output is constant. Both are reported as warnings.

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..graph.analysis.observability import driven_elements, observable_neurons
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration


def warnings_of(measured: SNNGraph, optimized: SNNGraph, data: Calibration | None) -> tuple[str, ...]:
    """Sentences at the beginning of a report; none if nothing is wrong.

    Args:
        measured: the graph before, with its measured activity if there is any.
        optimized: the graph after.
        data: the calibration data, if there is any.
    """
    return (*_silence(measured, data), *_constant_outputs(measured, optimized))


def _silence(graph: SNNGraph, data: Calibration | None) -> Iterator[str]:
    """A warning about spiking populations in which no neuron fired while activity was measured."""
    rates = {
        name: population.activity.rates
        for name, population in graph.populations.items()
        if population.neuron.spikes and population.activity is not None
    }
    silent = [name for name, rate in rates.items() if not np.any(rate)]
    if not silent:
        return
    source = "the activity measured earlier" if data is None else "the calibration data"
    zeros = ", zero everywhere," if data is not None and not any(map(np.any, data.inputs.values())) else ""
    remedy = f"check their scale and the time step, dt = {graph.dt:g} s"
    if len(silent) < len(rates):
        yield f"in {', '.join(map(repr, silent))} no neuron fired on {source}; {remedy}."
    elif data is None:
        yield f"no neuron fired in {source}; measure it again with ranvier.profile(graph, data)."
    else:
        yield f"the calibration data{zeros} made no neuron fire; {remedy}."


def _constant_outputs(before: SNNGraph, after: SNNGraph) -> Iterator[str]:
    """Warnings about outputs, or elements of them, that inputs reached before and no longer reach."""
    was, now = driven_elements(before), driven_elements(after)
    for name, node in after.outputs.items():
        lost = np.count_nonzero(was[name] & ~now[name])
        if lost == 0:
            continue
        whole = not np.any(now[name])
        which = f"output {name!r}" if whole else f"{lost} of {node.size} elements of output {name!r}"
        # Neurons with states may change by themselves, so an output that only they reach need not be constant.
        if any(observable.any() for observable in _with_states(after, name)):
            yield f"no input reaches {which} any more."
        else:
            be, them = ("is", "it") if whole else ("are", "them")
            yield f"{which} {be} now constant: no input reaches {them} any more."


def _with_states(graph: SNNGraph, output: str) -> Iterator[np.ndarray]:
    """By population with states, which neurons an output depends on although no input drives them."""
    only = graph.copy()
    only.outputs = {output: graph.outputs[output]}
    only.projections = {k: p for k, p in graph.projections.items() if p.target in only.nodes}
    seen, driven = observable_neurons(only), driven_elements(only)
    for name, population in graph.populations.items():
        if population.neuron.states:
            yield seen[name] & ~driven[name]
