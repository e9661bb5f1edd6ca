"""Where the neurons of the original graph are after rewriting."""

# An example: a population n of 5 neurons, numbers [0 1 2 3 4].
#
#   n merged, 1 into 0 and 3 into 2   merged into [0 0 1 1 2]     numbers [0 0 1 1 2]
#   neuron 1 of the 3 removed         taken [0 2]                 numbers [0 0 -1 -1 1]
#   n placed after 4 neurons of m     joined to m from 4          numbers [4 4 -1 -1 5], in population m
#
# Each change is stated in the numbers that are current at the time, and composed with all changes before it.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .snn_graph import SNNGraph


@dataclass(frozen=True, eq=False)
class NeuronPlace:
    """Where the neurons of a population are.

    Attributes:
        population: the population that contains them now; None if none is left.
        numbers: int ``[size]``, the number of each original neuron there; -1 if it was removed.
    """

    population: str | None
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where the neurons of the original graph are, and which elements of its shared parameters are left.

    Attributes:
        places: by population of the original graph, the place of its neurons.
        parameters: by shared parameter, int ``[elements]``: for each element of the present array, its flat number in
            the original array.
    """

    places: dict[str, NeuronPlace]
    parameters: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: SNNGraph) -> Provenance:
        """The provenance of an unchanged graph."""
        places = {name: NeuronPlace(name, np.arange(p.size)) for name, p in graph.populations.items()}
        return cls(places, {name: np.arange(value.size) for name, value in graph.parameters.items()})

    def without(self, name: str) -> Provenance:
        """After a current population was removed."""
        return self._moved(name, None, lambda numbers: np.full_like(numbers, -1))

    def taken(self, name: str, remaining: np.ndarray) -> Provenance:
        """After only the neurons with the numbers ``remaining`` were left of a current population."""

        def place(numbers: np.ndarray) -> np.ndarray:
            moved = np.full(max(int(numbers.max(initial=-1)), int(remaining.max(initial=-1))) + 1, -1)
            moved[remaining] = np.arange(remaining.size)
            return _through(numbers, moved)

        return self._moved(name, name, place)

    def merged(self, name: str, into: np.ndarray) -> Provenance:
        """After each neuron of a current population became the neuron ``into[number]``."""
        return self._moved(name, name, lambda numbers: _through(numbers, into))

    def joined(self, name: str, population: str, start: int) -> Provenance:
        """After a current population became a part of another one, starting at its neuron ``start``."""
        return self._moved(name, population, lambda numbers: np.where(numbers < 0, -1, numbers + start))

    def then(self, later: Provenance) -> Provenance:
        """The composition with later changes, whose original graph is the current graph of these places."""
        places = {}
        for original, place in self.places.items():
            onward = later.places.get(place.population) if place.population is not None else None
            gone = NeuronPlace(None, np.full_like(place.numbers, -1))
            places[original] = (
                gone if onward is None else NeuronPlace(onward.population, _through(place.numbers, onward.numbers))
            )
        numbers = {n: self.parameters[n][index] for n, index in later.parameters.items() if n in self.parameters}
        return Provenance(places, numbers)

    def with_numbers(self, name: str, numbers: np.ndarray) -> Provenance:
        """After only the elements with these flat numbers were left of a current shared parameter."""
        return replace(self, parameters={**self.parameters, name: self.parameters[name][numbers]})

    def _moved(self, name: str, population: str | None, change: Callable[[np.ndarray], np.ndarray]) -> Provenance:
        places = dict(self.places)
        for original, place in self.places.items():
            if place.population == name:
                # Several original populations may be parts of this one by now, so the loop does not stop here.
                places[original] = NeuronPlace(population, change(place.numbers))
        return replace(self, places=places)


def _through(numbers: np.ndarray, onward: np.ndarray) -> np.ndarray:
    """Numbers mapped by ``onward``; -1 stays -1."""
    return np.where(numbers < 0, -1, onward[np.maximum(numbers, 0)]) if onward.size else np.full_like(numbers, -1)
