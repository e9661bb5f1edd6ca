"""A graph in the words that NIR has: what NIR lacks is put together from what it has, without changing what is done."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph.elements import Output, Population, Projection
from ..graph.names import free_name
from ..graph.neurons import ALIF, LI, OUT, Delay, Relay, Threshold
from ..graph.operations import Flatten, Identity, Linear, Operation, Scale, Select
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Mapped, Traced

NAMELESS = (Select, Mapped)
"""Operations that NIR has no name for; as matrices they can be written."""


def in_nir_words(graph: SNNGraph) -> SNNGraph:
    """A graph that does the same with neurons and operations that NIR has.

    An adaptive threshold becomes a leaky integrator of spikes that is taken off the potential, and its reset a
    projection from the spikes back to the potential. Moves and maps without a name become matrices, for which images
    are flattened.

    Raises:
        GraphError: a population can not be put so; the message names it and says why.
    """
    _check_named(graph)
    found = graph.copy()
    for name, population in graph.populations.items():
        if isinstance(population.neuron, ALIF):
            _part_adaptive(found, name, population, population.neuron)
    _flatten_images(found)
    _join_delays(found)
    _keep_initial_relays(found)
    return found


def _check_named(graph: SNNGraph) -> None:
    traced = [name for name, p in graph.populations.items() if isinstance(p.neuron, Traced)]
    if traced:
        raise GraphError(
            f"{', '.join(map(repr, traced))} of {graph.name} have dynamics that no neuron of NIR has; "
            "ranvier.recognise(graph) says of each why."
        )
    for projection in graph.projections.values():
        if projection.source_port != OUT:
            raise GraphError(
                f"projection {projection.name!r} reads {projection.source_port!r} of {projection.source!r}; in NIR "
                "only the output of a neuron can be read. Read its spikes, or give the potential a population of its "
                "own."
            )


# Adaptive thresholds ----------------------------------------------------------------------------------------------


def _part_adaptive(graph: SNNGraph, name: str, population: Population, neuron: ALIF) -> None:
    """A potential, an adaptation and a threshold in place of a neuron that has all three."""
    if neuron.reset != "subtract":
        raise GraphError(
            f"population {name!r} is ALIF with reset 'zero', which NIR has not and which no sum of its neurons gives; "
            "a reset that subtracts the threshold can be written (spk_reset='soft' in brainpy)."
        )
    shape, v, a = population.shape, free_name(graph.nodes, f"{name}.v"), free_name(graph.nodes, f"{name}.a")
    decay, fade = (_decay(tau, neuron.integration, graph.dt) for tau in (neuron.tau, neuron.tau_a))
    membrane = LI(neuron.tau, neuron.r, neuron.v_leak, neuron.integration)
    adaptation = LI(neuron.tau_a, 1 / (1 - fade), integration=neuron.integration)
    initial = population.initial
    graph.populations[v] = Population(v, shape, membrane, _with_output({"v": initial.get("v")}))
    graph.populations[a] = Population(a, shape, adaptation, _with_output({"v": initial.get("a")}))
    spikes = {OUT: initial[OUT]} if OUT in initial else {}
    graph.populations[name] = Population(name, shape, Threshold(neuron.v_threshold, neuron.fires), spikes)
    for key, projection in list(graph.projections.items()):
        if projection.target == name:
            graph.projections[key] = projection.replace(target=v)
    taken = neuron.v_threshold * decay / ((1 - decay) * neuron.r)
    for source, target, operation, delay in (
        (v, name, Identity(), 0),
        (a, name, Scale(-neuron.beta), 1),
        (name, a, Identity(), 0),
        (name, v, Scale(-taken), 1),
    ):
        key = free_name(graph.projections, f"{source}->{target}")
        graph.projections[key] = Projection(key, source, target, operation, delay, trained=False)


def _with_output(initial: dict[str, Any]) -> dict[str, Any]:
    """Initial states that are also what was given before the first step."""
    known = {key: value for key, value in initial.items() if value is not None}
    return {**known, OUT: known["v"]} if "v" in known else known


def _decay(tau: Any, integration: str, dt: float) -> Any:
    return 1 - dt / tau if integration == "euler" else np.exp(-dt / tau)


# Delays in loops ---------------------------------------------------------------------------------------------------


def _join_delays(graph: SNNGraph) -> None:
    """Delays whose projections wait as well, as a loop needs it, wait for both."""
    for name, population in graph.populations.items():
        into = graph.into(name)
        waits = {projection.delay for projection in into}
        if isinstance(population.neuron, Delay) and len(waits) == 1 and all(_only_waits(graph, p) for p in into):
            steps = Delay(population.neuron.steps + waits.pop())
            graph.populations[name] = population.replace(neuron=steps)
            graph.projections.update({p.name: p.replace(delay=0) for p in into})


def _only_waits(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection passes on what came some steps ago, and zero before."""
    population = graph.populations.get(projection.source)
    starts_with_zero = population is None or not np.any(population.initial_value(OUT))
    return isinstance(projection.operation, Identity) and projection.delay > 0 and starts_with_zero


def _keep_initial_relays(graph: SNNGraph) -> None:
    """Relays disappear from NIR, and with them what delayed projections from them bring before the first step: those
    that begin with something else than zero become the scale 1.
    """
    for name, population in list(graph.populations.items()):
        begins_with_zero = not np.any(population.initial_value(OUT))
        if not isinstance(population.neuron, Relay) or begins_with_zero or _is_named_like_its_source(graph, name):
            continue
        before = free_name(graph.nodes, f"{name}.sum")
        graph.populations[before] = Population(before, population.shape, Relay())
        graph.projections.update({p.name: p.replace(target=before) for p in graph.into(name)})
        key = free_name(graph.projections, name)
        graph.projections[key] = Projection(key, before, name, Scale(1.0), trained=False)


def _is_named_like_its_source(graph: SNNGraph, relay: str) -> bool:
    """Whether the only operation that leads to a relay has its name, so that both come back."""
    into = graph.into(relay)
    return len(into) == 1 and into[0].name == relay and not isinstance(into[0].operation, Identity)


# Moves and maps without a name ------------------------------------------------------------------------------------


def _flatten_images(graph: SNNGraph) -> None:
    flat = _flattened(graph)
    shapes = {p.name: (graph.source_shape(p), graph.target_shape(p)) for p in graph.projections.values()}
    for name in flat:
        node = graph.nodes[name]
        if isinstance(node, Output):
            graph.outputs[name] = Output(name, (node.size,))
            graph.metadata[f"{name}/shape"] = str(list(node.shape))
        elif isinstance(node, Population):
            graph.populations[name] = _flat(node)
    for key, projection in list(graph.projections.items()):
        source, target = shapes[key]
        operation = projection.operation
        if isinstance(operation, NAMELESS) or projection.source in flat or projection.target in flat:
            graph.projections[key] = _flat_projection(graph, projection, source, target, flat)


def _flattened(graph: SNNGraph) -> set[str]:
    """Populations and outputs with several axes that must do with one."""
    found: set[str] = set()
    while True:
        before = len(found)
        for projection in graph.projections.values():
            ends = [projection.source, projection.target]
            nameless = isinstance(projection.operation, NAMELESS)
            touched = ends if nameless else ends[1:] if projection.source in found else []
            found |= {n for n in touched if n not in graph.inputs and len(graph.nodes[n].shape) > 1}
        if len(found) == before:
            return found


def _flat(population: Population) -> Population:
    def flat(value: np.ndarray) -> np.ndarray:
        return value.ravel() if value.ndim else value

    initial = {key: flat(value) for key, value in population.initial.items()}
    neuron = population.neuron.map(flat)
    return Population(population.name, (population.size,), neuron, initial)


def _flat_projection(
    graph: SNNGraph, projection: Projection, source: tuple[int, ...], target: tuple[int, ...], flat: set[str]
) -> Projection:
    operation: Operation = projection.operation
    plain = isinstance(operation, (Identity, Scale, Flatten)) and projection.source in flat
    if plain:
        scale = operation.arrays.get("scale")
        return projection.replace(
            operation=operation if scale is None else Scale(np.ravel(scale) if scale.ndim else scale)
        )
    if not isinstance(operation, NAMELESS) and projection.source not in flat:
        return _by_relay(graph, projection, Flatten(), target)
    rows, offset = operation.rows(source), operation.offset(source)
    bias = None if offset is None else np.broadcast_to(offset, target).ravel()
    linear = projection.replace(operation=Linear(rows, bias))
    if len(source) == 1 or projection.source in flat:
        return linear
    return _by_relay(graph, projection.replace(operation=Flatten()), linear.operation, (prod(source),))


def _by_relay(graph: SNNGraph, projection: Projection, then: Operation, shape: tuple[int, ...]) -> Projection:
    """A projection that ends at a relay, from which another operation goes on."""
    relay = free_name(graph.nodes, f"{projection.name}.flat")
    graph.populations[relay] = Population(relay, shape, Relay())
    key = free_name(graph.projections, f"{relay}->{projection.target}")
    graph.projections[key] = Projection(key, relay, projection.target, then, trained=projection.trained)
    return projection.replace(target=relay)
