"""Elements whose value is one and the same at every step, whatever the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ..elements import Input, Population, Projection
from ..neurons import OUT, Relay
from ..order import update_order
from ..snn_graph import SNNGraph


@dataclass(frozen=True, eq=False)
class Constants:
    """Of one input or population.

    Attributes:
        known: ``[size]``, whether an element's value is known.
        values: ``[size]``, the value; zero where it is not known.
    """

    known: np.ndarray
    values: np.ndarray


def constants(graph: SNNGraph) -> dict[str, Constants]:
    """Constant elements of inputs and relays: inputs whose range is one value, and sums of constants.

    Delayed projections are first assumed to bring zero from every relay, then from those that this assumption leaves at
    zero, until it bears itself out: it holds at the first step, and at each step that follows steps at which it holds.
    """
    inputs = {name: _of_input(node) for name, node in graph.inputs.items()}
    order = update_order(graph)
    found = {name: _zeros(population) for name, population in graph.populations.items()}
    while True:
        before = {**inputs, **found}
        found = dict(inputs)
        for name in order:
            found[name] = _of_population(graph, name, found, before)
        if all(np.array_equal(_is_zero(found[name]), _is_zero(before[name])) for name in order):
            return found


def _of_input(node: Input) -> Constants:
    fixed = node.low is not None and node.low == node.high
    value = float(node.low) if fixed and node.low is not None else 0.0
    return Constants(np.full(node.size, fixed), np.full(node.size, value))


def _zeros(population: Population) -> Constants:
    return Constants(np.full(population.size, isinstance(population.neuron, Relay)), np.zeros(population.size))


def _is_zero(found: Constants) -> np.ndarray:
    return found.known & (found.values == 0)


def _of_population(
    graph: SNNGraph, name: str, found: Mapping[str, Constants], before: Mapping[str, Constants]
) -> Constants:
    """Elements of a relay that sum constants of this step, or zeros of steps before."""
    population = graph.populations[name]
    unknown, values = np.zeros(population.size), np.zeros(population.size)
    for projection in graph.into(name) if isinstance(population.neuron, Relay) else ():
        rows, offset = graph.affine_map(projection)
        source = constant_sources(graph, projection, before if projection.delay else found)
        unknown = unknown + abs(rows) @ (~source.known).astype(np.float64)
        values = values + offset + rows @ source.values
    known = (unknown == 0) & isinstance(population.neuron, Relay)
    return Constants(known, np.where(known, values, 0.0))


def constant_sources(graph: SNNGraph, projection: Projection, found: Mapping[str, Constants]) -> Constants:
    """Elements of a projection's source of which it brings one and the same value from the first step on.

    A delayed projection begins with what its source gave before the first step, so of its constants only zeros count,
    where the source begins with zero.

    Args:
        graph: of the projection.
        projection: reads an input or population.
        found: the constants of inputs and populations.
    """
    size = prod(graph.source_shape(projection))
    source = found[projection.source]
    if projection.source_port != OUT or source.known.size != size:
        return Constants(np.zeros(size, bool), np.zeros(size))
    known = source.known
    if projection.delay:
        known = known & (source.values == 0) & (_before_the_first_step(graph, projection.source) == 0)
    return Constants(known, np.where(known, source.values, 0.0))


def _before_the_first_step(graph: SNNGraph, name: str) -> np.ndarray:
    population = graph.populations.get(name)
    return np.zeros(graph.inputs[name].size) if population is None else population.initial_value(OUT).ravel()
