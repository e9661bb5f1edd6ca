"""How far the results of two graphs are apart."""

# An example: two populations a and b of two neurons each, one sample, and spikes of three steps, one row per step:
#
#              a before   a after   b before   b after
#   step 0       1 0        1 0       0 0        0 0
#   step 1       0 0        0 0       0 1        0 0
#   step 2       1 0        0 0       0 1        0 1
#
# Half of the spike trains are the same in each population. In a, the rate of neuron 0 falls by a third. The first
# divergence is in b, at step 1: its neuron 1 fires before, and not after.

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..graph.order import update_order
from ..graph.provenance import Provenance
from ..graph.recording import Simulation
from ..graph.snn_graph import SNNGraph


@dataclass(frozen=True)
class OutputDifference:
    """The difference of one output, over all steps and samples.

    Attributes:
        largest: the largest absolute difference; infinite if only one of two values is not a number.
        scale: the largest absolute value in the original graph.
        identical: whether all values are equal.
    """

    largest: float
    scale: float
    identical: bool

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> OutputDifference:
        identical = np.array_equal(before, after, equal_nan=True)
        if identical:
            return cls(0.0, _largest(before), True)
        # The difference of equal infinities is not a number, and that of two values that are not numbers neither; both
        # agree. Without this they would count as infinitely far apart.
        apart = np.where((before == after) | (np.isnan(before) & np.isnan(after)), 0.0, np.abs(before - after))
        return cls(float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0)), _largest(before), False)


@dataclass(frozen=True)
class SpikeDifference:
    """The difference of the spike trains of one population, for the neurons that both graphs have.

    Attributes:
        neurons: number of neurons compared.
        of: number of neurons in the original graph.
        identical: fraction of the compared neurons whose spike trains are the same.
        rate_before, rate_after: mean spikes per step of the compared neurons.
        largest_rate_change: the largest change of a single neuron's rate, in spikes per step.
    """

    neurons: int
    of: int
    identical: float
    rate_before: float
    rate_after: float
    largest_rate_change: float

    @classmethod
    def of_trains(cls, before: np.ndarray, after: np.ndarray, of: int) -> SpikeDifference:
        """From spike trains ``[T, samples, neurons]``."""
        same = (before == after).all(axis=(0, 1))
        rates = before.mean(axis=(0, 1)), after.mean(axis=(0, 1))
        change = np.abs(rates[0] - rates[1]).max(initial=0.0)
        return cls(same.size, of, float(same.mean()), float(rates[0].mean()), float(rates[1].mean()), float(change))


@dataclass(frozen=True)
class Divergence:
    """The first spike that only one of the two graphs has.

    Attributes:
        step: from zero.
        sample: from zero.
        population: of the original graph.
        neuron: its number there.
        fired: whether it fired in the original graph.
        margin: how far the potential was below the threshold in the graph in which the neuron did not fire; None if
            not known.
    """

    step: int
    sample: int
    population: str
    neuron: int
    fired: bool
    margin: float | None = None

    def __str__(self) -> str:
        which = "before, and not after" if self.fired else "after, and not before"
        near = "" if self.margin is None else f", {self.margin:.3g} from the threshold"
        return (
            f"step {self.step}, sample {self.sample}: neuron {self.neuron} of {self.population!r} fires {which}{near}"
        )


Trains = Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""By population of the original graph: numbers of its neurons, their spike trains before and after, ``[T, S, n]``."""


def compared_trains(
    graph: SNNGraph, origins: Provenance, before: Simulation, after: Simulation, samples: bool
) -> Trains:
    """The spike trains of all neurons that both graphs have."""
    by_population = {}
    for name in spiking(graph):
        place = origins.places[name]
        numbers = np.flatnonzero(place.numbers >= 0)
        if place.population is None or not numbers.size or place.population not in after.recorded:
            continue
        trains = before[name], after[place.population]
        flat = [train.reshape(len(train), train.shape[1] if samples else 1, -1) for train in trains]
        by_population[name] = (numbers, flat[0][:, :, numbers], flat[1][:, :, place.numbers[numbers]])
    return by_population


def spiking(graph: SNNGraph) -> list[str]:
    """The populations that emit spikes, in the order in which a step updates them."""
    return [name for name in update_order(graph) if graph.populations[name].neuron.spikes]


def first_divergence(trains: Trains) -> Divergence | None:
    """The first difference in time, then in the order of a step."""
    earliest: tuple[int, str, np.ndarray] | None = None
    for name, (_, before, after) in trains.items():
        steps = np.flatnonzero((before != after).any(axis=(1, 2)))
        if steps.size and (earliest is None or steps[0] < earliest[0]):
            earliest = (int(steps[0]), name, (before != after)[steps[0]])
    if earliest is None:
        return None
    # Among equal steps the population that is updated first: an earlier spike may be the cause of the later ones.
    step, name, different = earliest
    sample, neuron = (int(n) for n in np.argwhere(different)[0])
    numbers, before, _ = trains[name]
    return Divergence(step, sample, name, int(numbers[neuron]), bool(before[step, sample, neuron]))


def _largest(values: np.ndarray) -> float:
    finite: Iterable[float] = np.abs(values[np.isfinite(values)])
    return float(np.max(finite, initial=0.0))
