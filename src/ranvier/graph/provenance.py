"""Where the neurons of a graph have gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from .snn_graph import SNNGraph


@dataclass(frozen=True, eq=False)
class NeuronPlace:
    """Where the neurons of a population are.

    Attributes:
        population: the population they are in now; None where none is left.
        numbers: of each original neuron its number there; -1 where it is gone.
    """

    population: str | None
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Provenance:
    """Where the neurons of the original graph are, and what its shared parameters have become.

    Attributes:
        places: of every population of the original graph the place of its neurons.
        parameters: of every number of a parameter that arrays are made of now, its number in the original one, which is
            of that name.
    """

    places: dict[str, NeuronPlace]
    parameters: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: SNNGraph) -> Provenance:
        """Everything where it is."""
        places = {name: NeuronPlace(name, np.arange(p.size)) for name, p in graph.populations.items()}
        return cls(places, {name: np.arange(value.size) for name, value in graph.parameters.items()})

    def without(self, name: str) -> Provenance:
        """A present population is removed."""
        return self._moved(name, None, lambda numbers: np.full_like(numbers, -1))

    def taken(self, name: str, kept: np.ndarray) -> Provenance:
        """Of a present population, only the neurons ``kept`` are there still."""

        def place(numbers: np.ndarray) -> np.ndarray:
            moved = np.full(max(int(numbers.max(initial=-1)), int(kept.max(initial=-1))) + 1, -1)
            moved[kept] = np.arange(kept.size)
            return _through(numbers, moved)

        return self._moved(name, name, place)

    def merged(self, name: str, into: np.ndarray) -> Provenance:
        """The neurons of a present population are those ``into`` says."""
        return self._moved(name, name, lambda numbers: _through(numbers, into))

    def joined(self, name: str, population: str, start: int) -> Provenance:
        """A present population is a part of another one, from the neuron ``start`` on."""
        return self._moved(name, population, lambda numbers: np.where(numbers < 0, -1, numbers + start))

    def then(self, later: Provenance) -> Provenance:
        """Places after further changes; ``later`` starts from the graph in which these places are."""
        found = {}
        for original, place in self.places.items():
            onward = later.places.get(place.population) if place.population is not None else None
            gone = NeuronPlace(None, np.full_like(place.numbers, -1))
            found[original] = (
                gone if onward is None else NeuronPlace(onward.population, _through(place.numbers, onward.numbers))
            )
        numbers = {n: self.parameters[n][index] for n, index in later.parameters.items() if n in self.parameters}
        return Provenance(found, numbers)

    def with_numbers(self, name: str, numbers: np.ndarray) -> Provenance:
        """Of a present parameter, only the numbers given are there still, by their places in it."""
        return replace(self, parameters={**self.parameters, name: self.parameters[name][numbers]})

    def _moved(self, name: str, population: str | None, change: Callable[[np.ndarray], np.ndarray]) -> Provenance:
        found = dict(self.places)
        for original, place in self.places.items():
            if place.population == name:
                found[original] = NeuronPlace(population, change(place.numbers))
        return replace(self, places=found)


def _through(numbers: np.ndarray, onward: np.ndarray) -> np.ndarray:
    """Numbers after they were mapped onward; -1 stays."""
    return np.where(numbers < 0, -1, onward[np.maximum(numbers, 0)]) if onward.size else np.full_like(numbers, -1)
