"""dead-neurons: neurons that never fire, that no output can see, or that fire at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..analyses.graph.bounds import bounds
from ..analyses.graph.observability import observable_neurons
from ..analyses.graph.reach import exposed
from ..errors import PassError
from ..ir.graph.operations import Linear
from ..validation.promise import Promise
from .base import Pass, Rewriting
from .surgery import can_take

Finding = tuple[np.ndarray, str, Promise]
"""Neurons of a population, what is said of them, and what their removal promises."""


@dataclass(frozen=True)
class DeadNeurons(Pass):
    """Removes neurons that do nothing for any output.

    Proved silent: bounds show that the potential cannot reach the threshold for any input in the declared range
    (bitwise). Unobservable: no path of weights that are not zero leads from the neuron to an output (bitwise). Always
    on: bounds show a spike at every step; the neuron's weights go into biases (algebraic). With a threshold, also
    neurons whose measured rate is at most that: with 0 those that never fired on the calibration data (profiled), above
    0 live neurons too (approximate).

    Attributes:
        threshold: spikes per step; None to use no measured rates.
    """

    name = "dead-neurons"
    promise = Promise.ALGEBRAIC
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise PassError(
                f"dead-neurons: threshold={self.threshold!r} is no rate; 0 to 1 spikes per step are expected."
            )

    def run(self, rewriting: Rewriting) -> None:
        populations = rewriting.graph.populations
        if self.threshold is not None and not any(p.activity for p in populations.values()):
            told = "no measured rates; measure them with ranvier.profile(graph, data), or give --calibration data.npz"
            rewriting.missed(rewriting.graph.name, told)
        rewriting.repeat(self._once)

    def _once(self, rewriting: Rewriting) -> None:
        for name in list(rewriting.graph.populations):
            found = [finding for finding in self._findings(rewriting, name) if finding[0].any()]
            if found:
                self._remove(rewriting, name, found)

    def _findings(self, rewriting: Rewriting, name: str) -> Iterator[Finding]:
        """Neurons that can go, each told once."""
        graph = rewriting.graph
        population, known = graph.populations[name], rewriting.fact(bounds)
        values = known.values[name]
        silent = (values.low == 0) & (values.high == 0)
        yield silent, "never fire" if population.neuron.spikes else "stay at zero", Promise.BITWISE
        told = silent | ~rewriting.fact(observable_neurons)[name]
        yield told & ~silent, "reach no output", Promise.BITWISE
        if all(isinstance(p.operation, Linear) and p.delay == 0 for p in graph.out_of(name)):
            constant = known.constant.get(name, np.zeros_like(told)) & ~told
            yield constant, "fire at every step, and are biases now", Promise.ALGEBRAIC
            told = told | constant
        if self.threshold is not None and population.activity is not None and population.neuron.spikes:
            rare = np.broadcast_to(population.activity.rates, population.shape).ravel() <= self.threshold
            promise = Promise.PROFILED if self.threshold == 0 else Promise.APPROXIMATE
            yield rare & ~told, f"fired at most {self.threshold:g} times per step on the data", promise

    def _remove(self, rewriting: Rewriting, name: str, found: list[Finding]) -> None:
        graph = rewriting.graph
        gone = np.any([neurons for neurons, _, _ in found], axis=0)
        reason = "an output shows them one by one" if name in exposed(graph) else can_take(graph, name)
        if reason is not None:
            rewriting.missed(name, f"{np.count_nonzero(gone)} neurons could go, but {reason}", np.flatnonzero(gone))
            return
        on = [neurons for neurons, _, promise in found if promise is Promise.ALGEBRAIC]
        for projection in graph.out_of(name) if on else ():
            rewriting.add_bias(projection.target, _sum_of_columns(projection.operation, on[0]))
        for neurons, text, promise in found:
            numbers = np.flatnonzero(neurons)
            rewriting.did(name, f"removed {numbers.size} of {gone.size} neurons that {text}", promise, numbers)
        rewriting.keep(name, np.flatnonzero(~gone))


def _sum_of_columns(linear: Any, chosen: np.ndarray) -> np.ndarray:
    return np.asarray(linear.weight[:, chosen].sum(axis=1)).ravel()
