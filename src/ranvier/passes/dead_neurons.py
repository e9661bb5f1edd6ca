"""dead-neurons: neurons that never fire, that no output can see, or that fire at every step."""

# An example: inputs in [0, 1] drive three LIF neurons (r = 1, threshold 1) with the weights [0.4 0.5], [2 0], [0 2];
# the output reads them with [1 1 0].
#
#   neuron 0   its potential stays below 0.4 + 0.5 = 0.9: it never fires
#   neuron 2   has no weight to the output, and there is no other path: it reaches no output
#   neuron 1   remains

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import PassError
from ..graph.analysis.bounds import bounds
from ..graph.analysis.bundles import Bundle, bundles
from ..graph.analysis.observability import observable_neurons
from ..graph.neurons import OUT, Relay
from ..graph.operations import Linear
from ..graph.snn_graph import SNNGraph
from ..verification.promise import Promise
from .base import Pass, Rewriting


class DeadUnits(NamedTuple):
    """Units of a bundle that can be removed.

    Attributes:
        units: bool ``[units]``.
        reason: why they are dead.
        promise: of their removal.
    """

    units: np.ndarray
    reason: str
    promise: Promise


@dataclass(frozen=True)
class DeadNeurons(Pass):
    """Removes neurons, and channels of images, that have no effect on any output.

    Proved silent: bounds show that the potential cannot reach the threshold for any input in the declared range
    (bitwise). Unobservable: no path of weights that are not zero leads from the neuron to an output (bitwise). Always
    on: bounds show a spike at every step; the neuron's weights go into biases (algebraic). With a threshold, also
    neurons whose measured rate is at most that: with 0 those that never fired on the calibration data (profiled), above
    0 live neurons too (approximate).

    Attributes:
        threshold: rate in spikes per step, 0 to 1; None to use no measured rates.

    Raises:
        PassError: the threshold is not a rate.
    """

    name = "dead-neurons"
    promise = Promise.ALGEBRAIC
    threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise PassError(
                f"dead-neurons: threshold={self.threshold!r} is not a rate; expected 0 to 1 spikes per step."
            )

    def run(self, rewriting: Rewriting) -> None:
        populations = rewriting.graph.populations
        if self.threshold is not None and not any(p.activity for p in populations.values()):
            reason = "no measured rates; measure them with ranvier.profile(graph, data), or pass --calibration data.npz"
            if not any(p.neuron.spikes for p in populations.values()):
                reason = (
                    "no population has spikes as its output, so there are no rates; if the model also stores spikes "
                    "in a state, read the spikes of the last step from that state, or do not store them"
                )
            rewriting.missed(rewriting.graph.name, reason)
        rewriting.repeat(self._once)

    def _once(self, rewriting: Rewriting) -> None:
        # All findings come from one analysis of the graph before the first removal. Analyzing anew after every removal
        # would make the cost of a chain of populations quadratic in its length. The findings hold together: the bounds
        # of a neuron that is not proved to fire at every step include zero, so they hold without it as well. The caller
        # repeats this, since removals expose more dead neurons.
        findings = [(bundle, list(self._findings(rewriting, bundle))) for bundle in bundles(rewriting.graph)]
        for bundle, of_bundle in findings:
            applicable = [finding for finding in of_bundle if finding.units.any()]
            if applicable and all(name in rewriting.graph.populations for name in bundle.names):
                self._remove(rewriting, bundle, applicable)

    def _findings(self, rewriting: Rewriting, bundle: Bundle) -> Iterator[DeadUnits]:
        """Units that can be removed, each in one finding.

        A unit is removed if it is dead in every population of the bundle, apart from relays of these.
        """
        leading = [name for name in bundle.names if not _only_passes_on(rewriting.graph, name, bundle)]
        silent = self._units(bundle, leading, lambda name: self._is_silent(rewriting, name))
        spikes = any(rewriting.graph.populations[name].neuron.spikes for name in bundle.names)
        yield DeadUnits(silent, "never fire" if spikes else "stay at zero", Promise.BITWISE)
        dead = self._units(bundle, leading, lambda name: self._is_dead(rewriting, name))
        yield DeadUnits(dead & ~silent, "reach no output", Promise.BITWISE)
        # Reasons are tried from the strongest promise to the weakest, and a unit counts for the first that applies.
        covered = dead
        if len(bundle.names) == 1 and not bundle.images:
            constant = self._is_constant(rewriting, bundle.names[0]) & ~covered
            yield DeadUnits(constant, "fire at every step and are now biases", Promise.ALGEBRAIC)
            covered = covered | constant
        if self.threshold is not None:
            promise = Promise.PROFILED if self.threshold == 0 else Promise.APPROXIMATE
            rare = self._units(
                bundle, leading, lambda name: self._is_dead(rewriting, name) | self._is_rare(rewriting, name)
            )
            yield DeadUnits(rare & ~covered, f"fired at most {self.threshold:g} times per step on the data", promise)

    @staticmethod
    def _units(bundle: Bundle, names: list[str], is_dead: Callable[[str], np.ndarray]) -> np.ndarray:
        """The units whose neurons are all dead, in each of some populations."""
        return np.all([bundle.by_unit(is_dead(name)).all(axis=1) for name in names or bundle.names], axis=0)

    @staticmethod
    def _is_silent(rewriting: Rewriting, name: str) -> np.ndarray:
        if not _only_output_is_read(rewriting.graph, name):
            return np.zeros(rewriting.graph.populations[name].size, bool)
        values = rewriting.fact(bounds).values[name]
        return (values.low == 0) & (values.high == 0)

    def _is_dead(self, rewriting: Rewriting, name: str) -> np.ndarray:
        return self._is_silent(rewriting, name) | ~rewriting.fact(observable_neurons)[name]

    @staticmethod
    def _is_constant(rewriting: Rewriting, name: str) -> np.ndarray:
        size = rewriting.graph.populations[name].size
        # A delay would bring the initial value first, so the constant would not hold from the first step on.
        after = rewriting.graph.out_of(name)
        if any(not isinstance(p.operation, Linear) or p.delay or p.source_port != OUT for p in after):
            return np.zeros(size, bool)
        if rewriting.shared(*(p.name for p in after)) is not None:
            return np.zeros(size, bool)
        return rewriting.fact(bounds).constant.get(name, np.zeros(size, bool))

    def _is_rare(self, rewriting: Rewriting, name: str) -> np.ndarray:
        population = rewriting.graph.populations[name]
        state_is_read = not _only_output_is_read(rewriting.graph, name)
        if population.activity is None or not population.neuron.spikes or state_is_read:
            return np.zeros(population.size, bool)
        return np.broadcast_to(population.activity.rates, population.shape).ravel() <= self.threshold

    def _remove(self, rewriting: Rewriting, bundle: Bundle, findings: list[DeadUnits]) -> None:
        graph, about = rewriting.graph, ", ".join(bundle.names)
        gone = np.any([finding.units for finding in findings], axis=0)
        if bundle.fixed is not None:
            reason = f"{np.count_nonzero(gone)} {bundle.kind} could be removed, but {bundle.fixed}"
            rewriting.missed(about, reason, np.flatnonzero(gone))
            return
        always_on = [finding.units for finding in findings if finding.promise is Promise.ALGEBRAIC]
        for projection in graph.out_of(bundle.names[0]) if always_on else ():
            amount = _sum_of_columns(projection.operation, always_on[0])
            rewriting.add_bias(projection.target, amount, projection.target_port)
        for units, reason, promise in findings:
            numbers = np.flatnonzero(units)
            rewriting.did(about, f"removed {numbers.size} of {gone.size} {bundle.kind} that {reason}", promise, numbers)
        rewriting.keep({name: bundle.neurons(graph.populations[name].size, ~gone) for name in bundle.names})


def _only_output_is_read(graph: SNNGraph, name: str) -> bool:
    """Whether projections read only the main output, and it starts from zero."""
    initial = graph.populations[name].initial
    return all(p.source_port == OUT for p in graph.out_of(name)) and not np.any(initial.get(OUT, 0.0))


def _only_passes_on(graph: SNNGraph, name: str, bundle: Bundle) -> bool:
    """Whether a population is a relay that receives input only from others of its bundle."""
    into = graph.into(name)
    relay = isinstance(graph.populations[name].neuron, Relay) and bool(into)
    return relay and all(
        p.source in bundle.names and p.source != name and p.operation.offset(graph.source_shape(p)) is None
        for p in into
    )


def _sum_of_columns(linear: Any, chosen: np.ndarray) -> np.ndarray:
    return np.asarray(linear.weight[:, chosen].sum(axis=1)).ravel()
