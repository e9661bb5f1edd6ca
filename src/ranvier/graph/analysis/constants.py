"""Elements whose value is the same at every step, whatever the input."""

# An example: the input c is declared to be 1 at every step. Relay a sums c and 2 times relay b of the step before;
# relay b is a copy of a.
#
#   assumed zero before   a      b
#   a and b               1      1      a = c + 2 * 0. Neither is zero, so the assumption is false for both.
#   neither               -      -      a is 1 at the first step and 3 at the second. The same assumption again: done.
#
# Without c, a = 2 * 0 and b = a are both zero, and the first assumption is confirmed.

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
    """The constant elements of one input or population.

    Attributes:
        known: bool ``[size]``, whether the value of an element is known.
        values: float64 ``[size]``, the value; zero where it is not known.
    """

    known: np.ndarray
    values: np.ndarray


def constants(graph: SNNGraph) -> dict[str, Constants]:
    """By input and population, the constant elements: inputs whose range is one value, and relays that sum constants.

    Delayed projections are first assumed to bring zero from every relay, then from those relays that are zero under
    this assumption, until the assumption confirms itself. It then holds at the first step, and at every step after
    steps at which it holds.
    """
    inputs = {name: _of_input(node) for name, node in graph.inputs.items()}
    order = update_order(graph)
    # The greatest fixed point: from below, no relay in a cycle would ever be found constant, since each would wait for
    # the others. Zeros are only ever lost, so the loop ends.
    current = {name: _zeros(population) for name, population in graph.populations.items()}
    while True:
        before = {**inputs, **current}
        current = dict(inputs)
        for name in order:
            current[name] = _of_population(graph, name, current, before)
        # Only zeros are compared: constants other than zero are not used across steps (see constant_sources).
        if all(np.array_equal(_is_zero(current[name]), _is_zero(before[name])) for name in order):
            return current


def _of_input(node: Input) -> Constants:
    fixed = node.low is not None and node.low == node.high
    value = float(node.low) if fixed and node.low is not None else 0.0
    return Constants(np.full(node.size, fixed), np.full(node.size, value))


def _zeros(population: Population) -> Constants:
    return Constants(np.full(population.size, isinstance(population.neuron, Relay)), np.zeros(population.size))


def _is_zero(elements: Constants) -> np.ndarray:
    return elements.known & (elements.values == 0)


def _of_population(
    graph: SNNGraph, name: str, current: Mapping[str, Constants], before: Mapping[str, Constants]
) -> Constants:
    """The elements of a relay that sum constants of the current step and zeros of earlier steps."""
    population = graph.populations[name]
    unknown, values = np.zeros(population.size), np.zeros(population.size)
    for projection in graph.into(name) if isinstance(population.neuron, Relay) else ():
        rows, offset = graph.affine_map(projection)
        source = constant_sources(graph, projection, before if projection.delay else current)
        # Counts weights other than zero from unknown elements; absolute values, so that weights cannot cancel.
        unknown = unknown + abs(rows) @ (~source.known).astype(np.float64)
        values = values + offset + rows @ source.values
    known = (unknown == 0) & isinstance(population.neuron, Relay)
    return Constants(known, np.where(known, values, 0.0))


def constant_sources(graph: SNNGraph, projection: Projection, known_constants: Mapping[str, Constants]) -> Constants:
    """The source elements of which a projection brings the same value from the first step on.

    A delayed projection starts with the values of its source before the first step. Of the constants of its source,
    it therefore brings only zeros, and only from elements that are initially zero.

    Args:
        graph: the graph of the projection.
        projection: reads an input or population.
        known_constants: the constants of inputs and populations, from :func:`constants`.

    Returns:
        ``[size of the source port]``. Other ports than the main output are unknown.
    """
    size = prod(graph.source_shape(projection))
    source = known_constants[projection.source]
    if projection.source_port != OUT or source.known.size != size:
        return Constants(np.zeros(size, bool), np.zeros(size))
    known = source.known
    if projection.delay:
        known = known & (source.values == 0) & (_initial_output(graph, projection.source) == 0)
    return Constants(known, np.where(known, source.values, 0.0))


def _initial_output(graph: SNNGraph, name: str) -> np.ndarray:
    """What an input or population gives before the first step, flat."""
    population = graph.populations.get(name)
    return np.zeros(graph.inputs[name].size) if population is None else population.initial_value(OUT).ravel()
