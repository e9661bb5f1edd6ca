"""Where the neurons of a graph have gone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.graph.snn_graph import SNNGraph


@dataclass(frozen=True, eq=False)
class Place:
    """Where the neurons of a population are.

    Attributes:
        population: the population they are in now; None where none is left.
        numbers: of each original neuron its number there; -1 where it is gone.
    """

    population: str | None
    numbers: np.ndarray


@dataclass(frozen=True, eq=False)
class Origins:
    """Of every population of the original graph the place of its neurons."""

    places: dict[str, Place]

    @classmethod
    def of(cls, graph: SNNGraph) -> Origins:
        """Everything where it is."""
        return cls({name: Place(name, np.arange(p.size)) for name, p in graph.populations.items()})

    def without(self, name: str) -> Origins:
        """A present population is removed."""
        return self._moved(name, None, None)

    def taken(self, name: str, kept: np.ndarray) -> Origins:
        """Of a present population, only the neurons ``kept`` are there still."""
        size = 1 + max(
            (int(p.numbers.max(initial=-1)) for p in self.places.values() if p.population == name), default=-1
        )
        moved = np.full(max(size, int(kept.max(initial=-1)) + 1), -1)
        moved[kept] = np.arange(kept.size)
        return self._moved(name, name, moved)

    def merged(self, name: str, into: np.ndarray) -> Origins:
        """The neurons of a present population are those ``into`` says."""
        return self._moved(name, name, into)

    def _moved(self, name: str, population: str | None, numbers: np.ndarray | None) -> Origins:
        found = dict(self.places)
        for original, place in self.places.items():
            if place.population == name:
                gone = np.full_like(place.numbers, -1)
                found[original] = Place(population, gone if numbers is None else _through(place.numbers, numbers))
        return Origins(found)


def _through(numbers: np.ndarray, onward: np.ndarray) -> np.ndarray:
    """Numbers after they were mapped onward; -1 stays."""
    return np.where(numbers < 0, -1, onward[np.maximum(numbers, 0)]) if onward.size else np.full_like(numbers, -1)
