"""A graph of only what NIR has: everything else is composed of NIR's neurons and operations, with the same behavior."""

# An example, with decays of 0.75 and 0.5 and a gain of 1: v' = 0.75 v + x, a spike z if v' is above 1 + 0.2 a, which
# subtracts 1 from v', and a' = 0.5 a + z. NIR has no such neuron, but it has
#
#   n.v   LI           v' = 0.75 v + x - 0.75 z, with the spikes z of the step before: subtracting 1 after the last step
#                      or 0.75 in this one is the same
#   n.a   LI           a' = 0.5 a + z, with r = 2 against the factor 1 - 0.5 that LI multiplies its input with
#   n     Threshold    z if v' - 0.2 a is above 1, with the a of the step before

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
"""Operations that NIR does not have; they can be written as matrices."""


def in_nir_words(graph: SNNGraph) -> SNNGraph:
    """A graph that behaves the same, with neurons and operations that NIR has.

    An adaptive threshold becomes a leaky integrator of spikes that is subtracted from the potential, and its reset a
    projection from the spikes back to the potential. Selections and other linear maps that NIR does not have become
    matrices, for which images are flattened.

    Raises:
        GraphError: a population cannot be composed of NIR's neurons; the message names it and says why.
    """
    _check_named(graph)
    legal = graph.copy()
    for name, population in graph.populations.items():
        if isinstance(population.neuron, ALIF):
            _part_adaptive(legal, name, population, population.neuron)
    _flatten_images(legal)
    _join_delays(legal)
    _keep_initial_relays(legal)
    _tell_double_edges_apart(legal)
    return legal


def _tell_double_edges_apart(graph: SNNGraph) -> None:
    """Gives an identity projection a scale of ones where another one between the same nodes has another delay.

    An identity is written as an edge, also one that waits a step within a loop, and NIR has no double edges; a scale is
    written as a node. Two with the same delay are left: the pass 'connections' joins them.
    """
    delays: dict[tuple[str, str], int] = {}
    for name, projection in graph.projections.items():
        if not isinstance(projection.operation, Identity):
            continue
        if delays.setdefault((projection.source, projection.target), projection.delay) != projection.delay:
            ones = Scale(np.ones(graph.source_shape(projection)))
            graph.projections[name] = projection.replace(operation=ones)


def _check_named(graph: SNNGraph) -> None:
    """Raises :class:`GraphError` if there are traced populations, or projections that read a state."""
    traced = [name for name, p in graph.populations.items() if isinstance(p.neuron, Traced)]
    if traced:
        raise GraphError(
            f"{', '.join(map(repr, traced))} of {graph.name} have dynamics that no NIR neuron has; "
            "ranvier.recognise(graph) reports why for each."
        )
    for projection in graph.projections.values():
        if projection.source_port != OUT:
            raise GraphError(
                f"projection {projection.name!r} reads {projection.source_port!r} of {projection.source!r}, but in "
                "NIR only the output of a neuron can be read; read its spikes, or compute the potential in a "
                "separate population."
            )


# Adaptive thresholds ----------------------------------------------------------------------------------------------


def _part_adaptive(graph: SNNGraph, name: str, population: Population, neuron: ALIF) -> None:
    """Replaces an adaptive neuron by a potential, an adaptation and a threshold, each a population."""
    if neuron.reset != "subtract":
        raise GraphError(
            f"population {name!r} is ALIF with reset 'zero', which NIR does not have and no combination of its neurons "
            "reproduces; a reset that subtracts the threshold can be written (spk_reset='soft' in brainpy)."
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
    # A reset happens after the step's leak, a projection of the spikes before the next one: hence times the decay.
    # Division by the potential's own gain keeps it out of the subtracted amount.
    drop = neuron.v_threshold * decay / ((1 - decay) * neuron.r)
    for source, target, operation, delay in (
        (v, name, Identity(), 0),
        (a, name, Scale(-neuron.beta), 1),
        (name, a, Identity(), 0),
        (name, v, Scale(-drop), 1),
    ):
        key = free_name(graph.projections, f"{source}->{target}")
        graph.projections[key] = Projection(key, source, target, operation, delay, trained=False)


def _with_output(initial: dict[str, Any]) -> dict[str, Any]:
    """Initial states, with the potential also as what was emitted before the first step."""
    initial = {key: value for key, value in initial.items() if value is not None}
    return {**initial, OUT: initial["v"]} if "v" in initial else initial


def _decay(tau: Any, integration: str, dt: float) -> Any:
    """The fraction of a leaky state that is left after one step."""
    return 1 - dt / tau if integration == "euler" else np.exp(-dt / tau)


# Delays in loops ---------------------------------------------------------------------------------------------------


def _join_delays(graph: SNNGraph) -> None:
    """Moves the delay of projections to a ``Delay`` into its steps. Reading the file splits it again if a loop needs
    it."""
    for name, population in graph.populations.items():
        into = graph.into(name)
        waits = {projection.delay for projection in into}
        if isinstance(population.neuron, Delay) and len(waits) == 1 and all(_only_waits(graph, p) for p in into):
            steps = Delay(population.neuron.steps + waits.pop())
            graph.populations[name] = population.replace(neuron=steps)
            graph.projections.update({p.name: p.replace(delay=0) for p in into})


def _only_waits(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection only delays values, with zeros before the first step."""
    population = graph.populations.get(projection.source)
    starts_with_zero = population is None or not np.any(population.initial_value(OUT))
    return isinstance(projection.operation, Identity) and projection.delay > 0 and starts_with_zero


def _keep_initial_relays(graph: SNNGraph) -> None:
    """Turns relays with an initial value other than zero into a Scale by 1.

    Relays disappear from NIR, and with them what delayed projections from them bring before the first step.
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
    """Whether the only operation that leads to a relay has its name, so that reading the file restores both."""
    into = graph.into(relay)
    return len(into) == 1 and into[0].name == relay and not isinstance(into[0].operation, Identity)


# Moves and maps without a name ------------------------------------------------------------------------------------


def _flatten_images(graph: SNNGraph) -> None:
    """Flattens what is next to an operation that is or becomes a matrix, since NIR's matrices are for vectors."""
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
        if isinstance(operation, Linear) and len(source) > 1 and projection.source not in flat:
            graph.projections[key] = _by_relay(
                graph, projection.replace(operation=Flatten()), operation, (prod(source),)
            )
        elif isinstance(operation, NAMELESS) or projection.source in flat or projection.target in flat:
            graph.projections[key] = _flat_projection(graph, projection, source, target, flat)


def _flattened(graph: SNNGraph) -> set[str]:
    """Populations and outputs with several axes that have to be flattened."""
    flat: set[str] = set()
    while True:
        before = len(flat)
        # Downstream of a flattened population everything is flat as well: no operation of NIR restores axes.
        for projection in graph.projections.values():
            ends = [projection.source, projection.target]
            nameless = isinstance(projection.operation, NAMELESS)
            affected = ends if nameless else ends[1:] if projection.source in flat else []
            flat |= {n for n in affected if n not in graph.inputs and len(graph.nodes[n].shape) > 1}
        if len(flat) == before:
            return flat


def _flat(population: Population) -> Population:
    """A population with one axis."""

    def flat(value: np.ndarray) -> np.ndarray:
        return value.ravel() if value.ndim else value

    initial = {key: flat(value) for key, value in population.initial.items()}
    neuron = population.neuron.map(flat)
    return Population(population.name, (population.size,), neuron, initial)


def _flat_projection(
    graph: SNNGraph, projection: Projection, source: tuple[int, ...], target: tuple[int, ...], flat: set[str]
) -> Projection:
    """A projection between populations of which at least one is flat now, or with an operation that NIR lacks."""
    operation: Operation = projection.operation
    keeps_order = isinstance(operation, (Identity, Scale, Flatten)) and projection.source in flat
    if keeps_order:
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
    """Leads a projection to a new relay, and from there by another operation to its target."""
    relay = free_name(graph.nodes, f"{projection.name}.flat")
    graph.populations[relay] = Population(relay, shape, Relay())
    key = free_name(graph.projections, f"{relay}->{projection.target}")
    graph.projections[key] = Projection(key, relay, projection.target, then, trained=projection.trained)
    return projection.replace(target=relay)
