"""Spikes that rounding decides: they are recognized and followed, so that what comes after them is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature

import numpy as np

from ..graph.elements import Population
from ..graph.interpreter import Nudge
from ..graph.provenance import Provenance
from ..graph.recording import SUMMED, Simulation
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced
from .difference import Divergence, Trains, compared_trains, first_divergence, spiking

Run = Callable[..., Simulation]
"""``run(graph, inputs, record=names)``: :func:`ranvier.interpret` or :func:`ranvier.simulate`."""
MOST = 100
"""So many ties are followed in a run."""


def followed(
    original: SNNGraph,
    optimized: SNNGraph,
    inputs: Mapping[str, np.ndarray],
    origins: Provenance,
    after: Simulation,
    runs: tuple[Run, Run],
    tie: float,
    batched: bool,
) -> tuple[Simulation, Trains, Divergence | None, tuple[Divergence, ...]]:
    """Runs the original, and again with thresholds moved at ties, until it does what the other graph did, or parts from
    it for another reason.

    Returns:
        What the original did, the spike trains of both, the first spike that only one has, and the ties before that.
    """
    ties: list[Divergence] = []
    nudges: list[Nudge] = []
    while True:
        moved = {"nudges": tuple(nudges)} if nudges else {}
        before = runs[0](original, inputs, record=spiking(original), **moved)
        trains = compared_trains(original, origins, before, after, batched)
        divergence = first_divergence(trains)
        if divergence is None:
            return before, trains, None, tuple(ties)
        if isinstance(original.populations[divergence.population].neuron, Traced):
            return before, trains, divergence, tuple(ties)
        place = _Place.of(divergence, original, optimized, origins, inputs, batched, nudges)
        margin, scale = place.margin(runs)
        divergence = replace(divergence, margin=margin)
        near = abs(margin) <= tie * scale and not place.fires_above(2 * tie * scale, runs)
        if not near or len(ties) == MOST or not _takes_nudges(runs[0]):
            return before, trains, divergence, tuple(ties)
        ties.append(divergence)
        amount = 2 * tie * scale * (1 if divergence.fired else -1)
        nudges.append(Nudge(divergence.population, divergence.neuron, divergence.step, divergence.sample, amount))


def _takes_nudges(run: Run) -> bool:
    return "nudges" in signature(run).parameters


@dataclass(frozen=True, eq=False)
class _Place:
    """The neuron and the step of a divergence in both graphs.

    Attributes:
        silent: the graph without the spike: 0 the original, 1 the other.
        graphs, names, numbers: by graph, the population's name and the neuron's number in it.
        step: of the divergence.
        inputs: of the sample concerned, up to that step.
        nudges: what made the original follow the other graph until then.
    """

    silent: int
    graphs: tuple[SNNGraph, SNNGraph]
    names: tuple[str, str]
    numbers: tuple[int, int]
    step: int
    inputs: dict[str, np.ndarray]
    nudges: tuple[Nudge, ...]

    @classmethod
    def of(
        cls,
        divergence: Divergence,
        original: SNNGraph,
        optimized: SNNGraph,
        origins: Provenance,
        inputs: Mapping[str, np.ndarray],
        batched: bool,
        nudges: Sequence[Nudge],
    ) -> _Place:
        place = origins.places[divergence.population]
        assert place.population is not None
        sample, step = divergence.sample, divergence.step
        until = {n: (x[:, sample] if batched else x)[: step + 1] for n, x in inputs.items()}
        numbers = divergence.neuron, int(place.numbers[divergence.neuron])
        names = divergence.population, place.population
        followed = tuple(replace(nudge, sample=0) for nudge in nudges if nudge.sample == sample)
        return cls(int(divergence.fired), (original, optimized), names, numbers, step, until, followed)

    def _run(self, runs: tuple[Run, Run], which: int, record: list[str], nudges: tuple[Nudge, ...] = ()) -> Simulation:
        nudges = nudges + (self.nudges if which == 0 else ())
        return runs[which](self.graphs[which], self.inputs, record=record, **({"nudges": nudges} if nudges else {}))

    def margin(self, runs: tuple[Run, Run]) -> tuple[float, float]:
        """The distance from the threshold in the graph without the spike, and the size of what is compared there."""
        graph, name, number = self.graphs[self.silent], self.names[self.silent], self.numbers[self.silent]
        population = graph.populations[name]
        neuron = population.neuron
        recorded = neuron.states or (SUMMED,)
        states = self._run(runs, self.silent, [f"{name}.{state}" for state in recorded])
        courses = {state: states[f"{name}.{state}"].reshape(self.step + 1, -1)[:, number] for state in recorded}
        compared = courses[neuron.potential if neuron.states else SUMMED]
        threshold = _threshold(population, courses, self.step, number)
        return float(threshold - compared[self.step]), max(abs(threshold), float(np.abs(compared).max()))

    def fires_above(self, amount: float, runs: tuple[Run, Run]) -> bool:
        """Whether the graph with the spike has it also with a threshold higher by some amount; False if not known."""
        firing = 1 - self.silent
        if not _takes_nudges(runs[firing]):
            return False
        name, number = self.names[firing], self.numbers[firing]
        found = self._run(runs, firing, [name], (Nudge(name, number, self.step, 0, amount),))
        return bool(found[name].reshape(self.step + 1, -1)[self.step, number])


def _threshold(population: Population, courses: Mapping[str, np.ndarray], step: int, number: int) -> float:
    """The threshold of one neuron at a step, from the courses of its states."""
    initial = population.initial_state()
    before = {
        state: courses[state][step - 1] if step else initial[state].ravel()[number]
        for state in population.neuron.states
    }
    neuron = population.neuron.map(lambda value: (value.ravel()[number] if value.ndim else value).astype(np.float64))
    return float(neuron.firing_threshold(before))
