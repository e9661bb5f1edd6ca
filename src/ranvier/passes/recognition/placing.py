"""A recognized neuron takes the place of a traced population."""

# An example: the traced population n has the inputs x and y, and its neuron has one input, x + 0.5 y + 0.25. A
# dense projection into y gets half its weights. A convolution into y leads to a new relay instead, and a Scale by 0.5
# from there to n. The 0.25 becomes the constant projection n.bias.

from __future__ import annotations

import numpy as np

from ...graph.elements import Population, Projection
from ...graph.names import free_name
from ...graph.neurons import IN, OUT, Neuron, Relay
from ...graph.operations import Constant, Identity, Linear, Scale
from ...graph.shared import parameters_of
from ...graph.snn_graph import SNNGraph
from .kinds import shared
from .match import Match
from .probe import Unlike


def check_uses(graph: SNNGraph, name: str, match: Match) -> None:
    """Raises :class:`Unlike` if a projection reads a state that the neuron does not have."""
    readable = {match.spike, *match.states.values(), *match.values}
    for projection in graph.out_of(name):
        if projection.source_port not in readable:
            raise Unlike(
                f"{projection.name!r} reads {projection.source_port!r}, which {type(match.neuron).__name__} lacks",
                about=projection.source_port,
                remedy="read the spike or a state that the neuron has",
            )


def put_in_place(graph: SNNGraph, name: str, match: Match) -> SNNGraph:
    """Replaces a traced population and adjusts the projections around it; changes the graph that it returns."""
    old = graph.populations[name]
    initial = initial_states(match, old.shape)
    # A delayed projection reads an output from before the first step: it must stay what the traced one was.
    delayed = match.spike or (match.values[0] if match.values else None)
    if delayed is not None and delayed in old.initial:
        initial[OUT] = old.initial[delayed]
    if match.spike is None and "v" in initial:
        initial.setdefault(OUT, initial["v"])
    graph.populations[name] = Population(name, old.shape, shaped(match.neuron, old.shape), initial, old.activity)
    port_of = {state: port for port, state in match.states.items()}
    for key, projection in list(graph.projections.items()):
        if projection.source == name:
            port = OUT if projection.source_port in (match.spike, *match.values) else port_of[projection.source_port]
            # A neuron that does not fire emits its potential, so a reader of the potential reads its output.
            is_output = match.spike is None and port == "v"
            projection = projection.replace(source_port=OUT if is_output else port)
        if projection.target == name:
            projection = _weighted(graph, projection, match.weights[projection.target_port], old.shape)
        graph.projections[key] = projection
    if match.bias is not None:
        key = free_name(graph.projections, f"{name}.bias")
        source = next(iter(graph.inputs))
        # A constant reads nothing; any source will do.
        constant = Constant(np.broadcast_to(match.bias, (old.size,)).reshape(old.shape))
        graph.projections[key] = Projection(key, source, name, constant, trained=False)
    put_synapse(graph, name, match)
    graph.forget_unused()
    return graph


def put_synapse(graph: SNNGraph, name: str, match: Match) -> None:
    """Inserts a population for the current between a neuron and the projections that lead to it."""
    if match.synapse is None:
        return
    population, synapse = graph.populations[name], match.synapse
    current = free_name(graph.nodes, f"{name}.{synapse.state}")
    neuron = shaped(synapse.neuron.map(shared), population.shape)
    start = in_shape(synapse.initial, population.shape)
    initial = {"v": start, OUT: start} if np.any(start) else {}
    for key, projection in list(graph.projections.items()):
        if projection.target == name:
            graph.projections[key] = projection.replace(target=current)
    graph.populations[current] = Population(current, population.shape, neuron, initial)
    key = free_name(graph.projections, f"{current}->{name}")
    graph.projections[key] = Projection(key, current, name, Identity(), synapse.delay, trained=False)


def _weighted(graph: SNNGraph, projection: Projection, weight: np.ndarray, shape: tuple[int, ...]) -> Projection:
    """A projection into the neuron's only input, with its result multiplied by weights, ``[size]``."""
    if np.all(weight == 1):
        return projection.replace(target_port=IN)
    operation = projection.operation
    parameters = parameters_of(graph, projection.name)
    # The weights of a Linear take the factor, unless they are computed from parameters and have to stay as computed.
    if isinstance(operation, Linear) and not parameters:
        rows = (
            operation.weight.multiply(weight[:, None])
            if hasattr(operation.weight, "multiply")
            else (operation.weight * weight[:, None])
        )
        bias = None if operation.bias is None else operation.bias * weight
        return projection.replace(operation=Linear(rows, bias), target_port=IN)
    if isinstance(operation, Identity):
        return projection.replace(operation=Scale(weight.reshape(shape)), target_port=IN)
    # No other operation has a factor per target, so the multiplication becomes an operation of its own.
    relay = free_name(graph.nodes, f"{projection.name}.scaled")
    graph.populations[relay] = Population(relay, shape, Relay())
    key = free_name(graph.projections, f"{relay}->")
    graph.projections[key] = Projection(key, relay, projection.target, Scale(weight.reshape(shape)), trained=False)
    return projection.replace(target=relay, target_port=IN)


def in_shape(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values by neuron in the shape of the population; a single number stays one."""
    return values.reshape(shape) if np.ndim(values) else values


def shaped(neuron: Neuron, shape: tuple[int, ...]) -> Neuron:
    """A neuron whose parameters have the shape of the population."""
    return neuron.map(lambda value: in_shape(value, shape))


def initial_states(match: Match, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Initial states in the shape of the population, without those that are zero, which is the default."""
    initial = {k: np.broadcast_to(v, (int(np.prod(shape)),)).reshape(shape) for k, v in match.initial.items()}
    return {k: v for k, v in initial.items() if np.any(v)}
