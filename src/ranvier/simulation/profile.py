"""Measured activity, stored in the graph.

Two neurons that spike in the steps 1, 4, 7 and 1, 4, 8 of 10 have rates of 0.3 and a correlation of
(0.2 - 0.3 * 0.3) / (0.3 * 0.7) = 0.52: each is the other's partner. Sums over the samples are enough for all of this,
so data of any size is measured in parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.elements import Activity, Population
from ..graph.neurons import OUT
from ..graph.snn_graph import SNNGraph, check_is_graph
from ..verification.calibration import Calibration
from .simulate import simulate

LARGEST = 8192
"""Populations up to this size have their correlations measured; the cost is quadratic."""
BYTES = 2**28
"""Recorded values that are in memory at once, about."""


def profile(graph: SNNGraph, data: Any) -> SNNGraph:
    """Measures what every population does on data.

    Args:
        graph: a valid graph.
        data: inputs as :func:`ranvier.simulate` takes them, or :class:`Calibration`.

    Returns:
        A copy whose populations have an :class:`Activity`: rates, the part of the samples in which a neuron was active,
        for every neuron of a spiking population the one whose spikes are most like its own, and the data's fingerprint.

    Raises:
        GraphError: the graph is not valid.
        InputError: the data does not fit.
    """
    check_is_graph(graph)
    calibration = Calibration.of(graph, data, run=simulate)
    names = [name for name, p in graph.populations.items() if _has_rates(p)]
    sums = {name: _Sums.of(graph, name) for name in names}
    neurons = max(1, sum(graph.populations[name].size for name in names))
    at_once = max(1, BYTES // (4 * calibration.steps * neurons))
    for start in range(0, calibration.samples, at_once):
        part = {name: values[:, start : start + at_once] for name, values in calibration.inputs.items()}
        simulation = simulate(graph, part, record=names)
        for name in names:
            sums[name].add(simulation[name])
    copy = graph.copy()
    for name in names:
        copy.populations[name] = graph.populations[name].replace(activity=sums[name].activity(calibration))
    return copy


def _has_rates(population: Population) -> bool:
    """Whether a population has one output, with a value for every neuron."""
    neuron = population.neuron
    return OUT in neuron.outputs and neuron.shape_of(OUT, population.shape) == population.shape


class _Sums:
    """What is added up of one population."""

    def __init__(self, shape: tuple[int, ...], correlated: bool) -> None:
        size = int(np.prod(shape))
        self.shape = shape
        self.count, self.samples = 0, 0
        self.total, self.active = np.zeros(size), np.zeros(size)
        self.products = np.zeros((size, size), np.float64) if correlated else None

    @classmethod
    def of(cls, graph: SNNGraph, name: str) -> _Sums:
        population = graph.populations[name]
        correlated = population.neuron.spikes and len(population.shape) == 1 and population.size <= LARGEST
        return cls(population.shape, correlated)

    def add(self, values: np.ndarray) -> None:
        flat = values.reshape(*values.shape[:2], -1)
        self.count += flat.shape[0] * flat.shape[1]
        self.samples += flat.shape[1]
        self.total += flat.sum((0, 1), dtype=np.float64)
        self.active += (flat != 0).any(0).sum(0)
        if self.products is not None:
            spikes = flat.reshape(-1, flat.shape[-1]).astype(np.float32)
            self.products += spikes.T @ spikes

    def activity(self, calibration: Calibration) -> Activity:
        rates = self.total / self.count
        partner, correlation = self._partners(rates)
        active = (self.active / self.samples).reshape(self.shape)
        return Activity(rates.reshape(self.shape), active, self.count, calibration.fingerprint, partner, correlation)

    def _partners(self, rates: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Of every neuron the most correlated other one, and how much."""
        if self.products is None:
            return None, None
        covariance = self.products / self.count - rates[:, None] * rates[None, :]
        spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = covariance / (spread[:, None] * spread[None, :])
        correlation = np.where(np.isfinite(correlation), correlation, -np.inf)
        np.fill_diagonal(correlation, -np.inf)
        if len(correlation) < 2:
            return np.full(len(correlation), -1.0), np.zeros(len(correlation))
        partner = correlation.argmax(axis=1)
        best = correlation[np.arange(len(partner)), partner]
        known = np.isfinite(best)
        return np.where(known, partner, -1).astype(np.float64), np.where(known, np.clip(best, -1, 1), 0.0)
