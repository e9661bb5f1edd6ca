"""Elements whose value is one and the same at every step, whatever the input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.graph.neurons import OUT, Relay
from ...ir.graph.order import update_order
from ...ir.graph.snn_graph import SNNGraph


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
    """Constant elements of inputs and relays: inputs whose range is one value, and sums of constants without delay."""
    found = {}
    for name, node in graph.inputs.items():
        fixed = node.low is not None and node.low == node.high
        value = float(node.low) if fixed and node.low is not None else 0.0
        found[name] = Constants(np.full(node.size, fixed), np.full(node.size, value))
    for name in update_order(graph):
        population = graph.populations[name]
        known, values = np.zeros(population.size, bool), np.zeros(population.size)
        if isinstance(population.neuron, Relay):
            known, values = _sum(graph, name, found)
        found[name] = Constants(known, np.where(known, values, 0.0))
    return found


def _starts_apart(graph: SNNGraph, name: str) -> np.ndarray | bool:
    """Whether what a node gave before the first step is not zero."""
    population = graph.populations.get(name)
    return False if population is None else population.initial_value(OUT).ravel() != 0


def _sum(graph: SNNGraph, name: str, found: dict[str, Constants]) -> tuple[np.ndarray, np.ndarray]:
    size = graph.populations[name].size
    unknown, values = np.zeros(size), np.zeros(size)
    for projection in graph.into(name):
        rows, offset = graph.affine_map(projection)
        source = found.get(projection.source) if projection.source_port == OUT else None
        if source is not None and source.known.size != rows.shape[1]:
            source = None
        sure = source.known if source is not None else np.zeros(rows.shape[1], bool)
        if projection.delay and source is not None:
            sure = sure & (source.values == 0) & ~_starts_apart(graph, projection.source)
        unknown = unknown + abs(rows) @ (~sure).astype(np.float64)
        values = values + offset + (rows @ source.values if source is not None and not projection.delay else 0.0)
    return unknown == 0, values
