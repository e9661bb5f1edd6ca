"""Where the states of a program are in its graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.snn_graph import SNNGraph
from ..simulation.lower import PAST, past_key


@dataclass(frozen=True, eq=False)
class StateLocation:
    """Where a part of a state is in the graph.

    Attributes:
        population, state: names; empty where nothing reads it.
        elements: which elements of the program's state it is, in order; None for all.
        past: how many steps ago it was an output; 0 for a state.
        taken: which elements of that it is; None for all.
    """

    population: str
    state: str
    elements: np.ndarray | None
    past: int = 0
    taken: np.ndarray | None = None


def by_state(locations: Iterable[tuple[int, StateLocation]]) -> dict[int, tuple[StateLocation, ...]]:
    """The locations of each state, by its number."""
    grouped: dict[int, tuple[StateLocation, ...]] = {}
    for number, location in locations:
        grouped[number] = (*grouped.get(number, ()), location)
    return grouped


def read_location(graph: SNNGraph, state: Mapping[str, Mapping[str, Any]], location: StateLocation) -> Any:
    """Reads a part of a state from the states of populations; None if it is not there."""
    of_population = state.get(location.population, {})
    if not location.past:
        return of_population.get(location.state)
    population = graph.populations.get(location.population)
    is_state = population is not None and location.state in population.neuron.states
    if is_state and location.past == 1:
        value = of_population.get(location.state)
    else:
        # What delayed projections have still to bring, the newest first. Of a state the newest is the state itself.
        past = of_population.get(PAST if population is None else past_key(population.neuron, location.state))
        number = location.past - 1 - is_state
        value = None if past is None or len(past) <= number else past[number]
    return value if value is None or location.taken is None else value.reshape(-1)[location.taken]
