"""The test of a recognized neuron: it is compared with the traced population at random points and on random input."""

# An example: the neuron keeps 0.75 of v, adds x and fires above 1, with a reset to 0. At the random point v = 0.4 and
# x = 0.9 the potential before the reset is 1.2, so a spike and v' = 0 are expected. Dynamics that also clip v at -1
# agree there. At v = -2, x = 0.1 they give -1 instead of -1.4, and are refused.

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...graph.elements import Input, Output, Population, Projection
from ...graph.interpreter import interpret
from ...graph.neurons import ALIF, IF, IN, LIF, CubaLIF, Threshold
from ...graph.operations import Constant, Identity, Scale
from ...graph.snn_graph import SNNGraph
from .match import Match
from .placing import in_shape, initial_states, put_synapse, shaped
from .probe import Probe, Unlike, is_close

POINTS = 16
"""Random points for each scale."""
STEPS, SAMPLES = 60, 32
"""Of the run in which the neuron is compared with the traced population."""
ROUNDED, ROUNDED_OF_ONE = 2e-4, 5e-3
"""Fractions of the spikes of all neurons, and of a single one, that rounding at the threshold may change."""
TIE = 1e-7
"""Fraction of the threshold within which rounding may decide whether a neuron fires."""
PLAIN = "named neurons have no bounds, refractory times or other cases"
ALONE = "neurons"
"""Name of a population that is run by itself."""


def try_points(probe: Probe, match: Match) -> None:
    """Compares one step from random states on random inputs, near rest and far from it.

    Raises:
        Unlike: the dynamics do more than the measurements around rest and at the threshold say.
    """
    generator = np.random.default_rng(1)
    reach = 1 + (np.abs(match.firing.threshold) if match.firing is not None else np.zeros(probe.size))
    points = [
        {k: probe.rest[k] + generator.normal(size=probe.size) * reach * scale for k in probe.variables}
        for scale in (0.1, 1.0, 3.0, 10.0, 100.0)
        for _ in range(POINTS)
    ]
    response = probe.run(points)
    expected, clear = _expected(probe, match, {k: np.stack([p[k] for p in points]) for k in probe.variables})
    for name, values in {**response.states, **response.outputs}.items():
        apart = np.abs(values - expected[name]) > 1e-7 * np.maximum(np.abs(values), reach)
        if np.any(apart & clear):
            kind = type(match.neuron).__name__
            raise Unlike(
                f"on {np.mean(apart & clear):.1%} of random points {name!r} differs from that of {kind}",
                about=name,
                remedy=PLAIN,
            )


def _expected(probe: Probe, match: Match, at: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """New states and outputs according to the affine maps, the threshold and the reset, ``[points, size]`` by name, and
    where rounding cannot decide a spike."""
    spike, start, clear = match.firing, dict(at), np.ones(at[probe.variables[0]].shape, bool)

    def affine(name: str) -> np.ndarray:
        row = probe.affine[name]
        return row[""] + sum((row[k] * start[k] for k in probe.variables), np.zeros(clear.shape))

    if spike is None:
        expected = {name: affine(name) for name in (*probe.states, *probe.outputs)}
        if isinstance(match.neuron, Threshold):
            total = sum((match.weights[k] * at[k] for k in probe.inputs), np.zeros(clear.shape))
            threshold = match.neuron.threshold
            expected[str(match.spike)] = (total > threshold) * 1.0
            clear = np.abs(total - threshold) > TIE * (1 + np.abs(threshold))
        return expected, clear
    adaptation = spike.adaptation
    # A late reset changes the states from which the step starts. In the last step, the threshold was raised by the
    # adaptation from before it faded.
    if spike.resets_later:
        raised = 0.0 if adaptation is None else adaptation.slope / adaptation.fade * at[adaptation.state]
        before = at[spike.v] - spike.threshold - raised
        start[spike.v] = spike.after(at[spike.v], before > 0)
        clear = clear & (np.abs(before) > TIE * (np.abs(at[spike.v]) + np.abs(spike.threshold)))
        if adaptation is not None:
            more = np.where(before > 0, adaptation.jump / adaptation.fade, 0.0)
            start[adaptation.state] = at[adaptation.state] + more
    expected = {name: affine(name) for name in (*probe.states, *probe.outputs)}
    threshold = spike.threshold + (0.0 if adaptation is None else adaptation.slope * start[adaptation.state])
    above = expected[spike.v] - threshold
    clear = clear & (np.abs(above) > TIE * (np.abs(expected[spike.v]) + np.abs(threshold)))
    expected[str(match.spike)] = (above > 0) * 1.0
    if not spike.resets_later:
        expected[spike.v] = spike.after(expected[spike.v], above > 0)
        if adaptation is not None:
            expected[adaptation.state] = expected[adaptation.state] + np.where(above > 0, adaptation.jump, 0.0)
    return expected, clear


def verified(population: Population, match: Match, dt: float) -> Match:
    """The match, with the comparison ``>=`` or ``>`` with which the neuron behaves like the population on random input.

    Raises:
        Unlike: it does not with either, or the population never fired.
    """
    difference: str | None = None
    for fires in (">=", ">") if match.spike is not None else (None,):
        tried = match if fires is None else replace(match, neuron=match.neuron.replace(fires=fires))
        difference = _difference(population, tried, dt)
        if difference is None:
            return tried
    raise Unlike(difference or "it differs", about=match.spike, remedy=PLAIN)


def _difference(population: Population, match: Match, dt: float) -> str | None:
    """How the two differ on random input, in words; None if they do not."""
    traced = _alone(population, None, dt)
    inputs = {_input_name(port): values for port, values in _inputs(population, match).items()}
    output = match.spike or (match.values[0] if match.values else None) or match.states.get("v", "")
    shape = population.shape
    named = Population(population.name, shape, shaped(match.neuron, shape), initial_states(match, shape))
    a = interpret(_read(traced, output), inputs).outputs["out"]
    b = interpret(_alone(named, match, dt, population.neuron.inputs), inputs).outputs["out"]
    if match.spike is None:
        kind = type(match.neuron).__name__
        same = is_close(a, b, np.abs(a).max(initial=1e-12))
        return None if same else f"on random input its values differ from those of {kind}"
    if not a.any():
        return "it did not fire on random input"
    # A potential that rounding brings to the other side of the threshold changes a few spikes, wrong parameters many.
    apart = (a != b).reshape(-1, population.size)
    kind = type(match.neuron).__name__
    if apart.mean() <= ROUNDED and apart.mean(axis=0).max() <= ROUNDED_OF_ONE:
        return None
    return f"on random input {apart.mean():.1%} of its spikes differ from those of {kind}"


def _inputs(population: Population, match: Match) -> dict[str, np.ndarray]:
    """Random input on which the neurons fire now and then, ``[T, samples, *shape]`` by port."""
    generator = np.random.default_rng(0)
    scale = np.ones(population.size)
    if match.spike is not None and isinstance(match.neuron, (LIF, ALIF, IF, CubaLIF, Threshold)):
        scale = _firing_input(match.neuron, population.size)
    inputs = {}
    for port in population.neuron.inputs:
        weight = np.broadcast_to(match.weights.get(port, np.ones(population.size)), (population.size,))
        weight = np.where(weight == 0, 1.0, weight)
        strength = generator.uniform(0.2, 3.0, (1, SAMPLES, 1)) / len(population.neuron.inputs)
        drawn = generator.uniform(-0.5, 1.5, (STEPS, SAMPLES, population.size)) * strength * scale / weight
        inputs[port] = drawn.reshape(STEPS, SAMPLES, *population.shape)
    return inputs


def _firing_input(neuron: Any, size: int) -> np.ndarray:
    """A constant input that would bring the neuron to its threshold, ``[size]``; for IF neurons, within 10 ms."""
    if isinstance(neuron, Threshold):
        drive = neuron.threshold
    elif isinstance(neuron, IF):
        drive = neuron.v_threshold / (neuron.r * 1e-2)
    else:
        drive = (neuron.v_threshold - neuron.v_leak) / neuron.r / getattr(neuron, "w_in", 1.0)
    inputs = np.broadcast_to(np.ravel(drive), (size,)) if np.ndim(drive) else np.full(size, float(drive))
    return np.where(inputs == 0, 1.0, inputs)


def _alone(population: Population, match: Match | None, dt: float, ports: tuple[str, ...] | None = None) -> SNNGraph:
    """A graph of one population and its inputs, under names that its states and ports cannot have."""
    ports = ports or population.neuron.inputs
    graph = SNNGraph(
        name="alone",
        dt=dt,
        inputs=[Input(_input_name(port), population.shape) for port in ports],
        populations=[population.replace(name=ALONE)],
        outputs=[Output("out", population.shape)],
    )
    for port in ports:
        operation = Identity() if match is None else Scale(in_shape(match.weights[port], population.shape))
        projection = Projection(f"{port}->", _input_name(port), ALONE, operation)
        graph.projections[projection.name] = projection.replace(target_port=port if match is None else IN)
    if match is not None and match.bias is not None:
        bias = Constant(in_shape(match.bias, population.shape))
        graph.projections["bias"] = Projection("bias", _input_name(ports[0]), ALONE, bias)
    if match is not None:
        graph.projections["read"] = Projection("read", ALONE, "out", Identity())
        put_synapse(graph, ALONE, match)
    return graph


def _input_name(port: str) -> str:
    return f"into {port}"


def _read(graph: SNNGraph, port: str) -> SNNGraph:
    graph.projections["read"] = Projection("read", ALONE, "out", Identity(), source_port=port)
    return graph
