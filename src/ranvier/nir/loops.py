"""Loops of a NIR graph that no delay of the file breaks: the projections that close them get the caller's delay."""

# An example: x -> lif, lif -> rec, rec -> lif and rec -> y, where rec is an affine map with the bias 0.5, at whose end
# is a relay. Depth first from x, the path is lif, rec, and then lif again: rec -> lif closes the loop. With a delay of
# one step it brings zero to the first step. But silent neurons give 0.5 through the map, so the relay starts with 0.5.

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..graph.elements import Population, Projection
from ..graph.names import free_name
from ..graph.neurons import OUT, Relay
from ..graph.operations import Identity
from ..graph.order import strong_components, update_order
from ..graph.snn_graph import SNNGraph


def closing_projections(graph: SNNGraph, undelayed: Collection[str]) -> list[Projection]:
    """Projections without delay that close loops. With a delay on each of them, no loop without a delay is left.

    Args:
        graph: may have loops.
        undelayed: names of the projections for the elements of a delay that do not wait. They are chosen first: a delay
            elsewhere in the loop would add to that of the elements that do wait.
    """
    populations = graph.populations
    instant = [p for p in graph.projections.values() if p.delay == 0 and p.target in populations]
    component = strong_components(populations, ((p.source, p.target) for p in instant if p.source in populations))
    first = [p for p in instant if p.name in undelayed and component.get(p.source) == component[p.target]]
    return first + _leading_back(graph, [p for p in instant if p not in first])


def _leading_back(graph: SNNGraph, projections: Sequence[Projection]) -> list[Projection]:
    """Projections that lead back to a population on the current path, depth first from the inputs."""
    after: dict[str, list[Projection]] = {name: [] for name in (*graph.inputs, *graph.populations)}
    for projection in projections:
        after[projection.source].append(projection)
    back, done, active = [], set(), set()
    for start in after:
        stack = [(start, iter(after[start]))] if start not in done else []
        active.update(name for name, _ in stack)
        while stack:
            # With a stack of iterators: recursion would fail on graphs that are deeper than Python's limit.
            name, rest = stack[-1]
            projection = next(rest, None)
            if projection is None:
                stack.pop()
                active.discard(name)
                done.add(name)
            elif projection.target in active:
                back.append(projection)
            elif projection.target not in done:
                active.add(projection.target)
                stack.append((projection.target, iter(after[projection.target])))
    return back


def start_from_silence(graph: SNNGraph, closing: Collection[str]) -> None:
    """Sets what projections that close loops bring before the first step: what silent neurons give through the
    operations between, which is their biases.

    Args:
        graph: a valid graph, which is changed.
        closing: names of the projections that close loops, with their delays.
    """
    silence = _silence(graph)
    for source in dict.fromkeys(graph.projections[name].source for name in closing):
        if np.any(silence[source]) and isinstance(graph.populations[source].neuron, Relay):
            _start_from(graph, source, silence[source], closing)


def _silence(graph: SNNGraph) -> dict[str, np.ndarray]:
    """What inputs and populations emit while nothing fires; for relays, sums of biases. ``[size]`` by name."""
    values: dict[str, np.ndarray] = {name: np.zeros(node.size) for name, node in graph.inputs.items()}
    for name in update_order(graph):
        population = graph.populations[name]
        values[name] = population.initial_value(OUT).ravel().astype(np.float64)
        if isinstance(population.neuron, Relay) and OUT not in population.initial:
            values[name] = np.zeros(population.size)
            for projection in graph.into(name):
                rows, offset = graph.affine_map(projection)
                arriving = np.zeros(rows.shape[1]) if projection.delay else values[projection.source]
                values[name] = values[name] + rows @ arriving + offset
    return values


def _start_from(graph: SNNGraph, relay: str, value: np.ndarray, closing: Collection[str]) -> None:
    """Sets what closing projections from a relay bring at first; the file's own delays begin with zero."""
    population = graph.populations[relay]
    initial = {OUT: value.reshape(population.shape)}
    if all(p.name in closing for p in graph.out_of(relay) if p.delay):
        graph.populations[relay] = population.replace(initial=initial)
        return
    # Other delayed projections read the same relay, so the closing ones read a copy of it.
    name = free_name(graph.nodes, f"{relay}.loop")
    graph.populations[name] = Population(name, population.shape, Relay(), initial)
    to = free_name(graph.projections, f"{relay}->{name}")
    graph.projections[to] = Projection(to, relay, name, Identity())
    for projection in graph.out_of(relay):
        if projection.name in closing:
            graph.projections[projection.name] = projection.replace(source=name)
