"""Traced populations as named neurons, if running both shows that they do the same."""

# An example, with a time step of 1 ms: v' = 0.75 v + x; if v' is above 1, the neuron fires and 1 is taken off v'.
#
#   where nothing fires   v' is affine, and keeps 0.75 of v: a LIF neuron with tau = 1 ms / (1 - 0.75) = 4 ms
#   the slope by x is 1   r (1 - 0.75) = 1, so r = 4
#   the onset is x = 1    v' = 1 there: the threshold
#   x = 1.25 and 1.5      v' is 0.25 and 0.5, both less by 1: the reset subtracts the threshold
#   16 points per scale   the LIF neuron and the traced one agree, also far from rest
#   60 random steps       their spikes agree

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...graph.analysis.blame import curved_equation, result_equation, whole_array_equation
from ...graph.elements import Population
from ...graph.snn_graph import SNNGraph, check_is_graph
from ...graph.traced import Traced
from .case import Case
from .kinds import KINDS, own_values, shared
from .match import Match
from .placing import check_uses, put_in_place
from .probe import Curved, Probe, Unlike
from .trial import try_points, verified


@dataclass(frozen=True)
class Finding:
    """The result for one traced population.

    Attributes:
        population: its name.
        neuron: the kind of neuron that it became; None if it stays as it was.
        reason: why it stays.
        equation: primitive and source line of the equation that prevents recognition, if there is one.
        remedy: a change of the model that would help.
    """

    population: str
    neuron: str | None
    reason: str = ""
    equation: str | None = None
    remedy: str = ""

    @property
    def diagnosis(self) -> str:
        """Reason, equation and remedy."""
        place = f" [{self.equation}]" if self.equation else ""
        return f"{self.reason}{place}{'; ' if self.remedy else ''}{self.remedy}"

    def __str__(self) -> str:
        return f"{self.population}: {self.neuron or 'remains traced: ' + self.diagnosis}"


def recognise(graph: SNNGraph) -> tuple[SNNGraph, list[Finding]]:
    """Replaces traced populations by named neurons that behave the same.

    The dynamics are run. Where nothing fires they must be affine, which gives time constants, resistances and leaks.
    The input at which the population starts to fire gives the threshold, and the effect of a spike gives the reset. The
    named neuron must then do the same on random input, step by step; otherwise the population stays as it is, and the
    finding says why.

    Surrogate derivatives are not compared: the graph computes the same, but training it further uses the surrogate of
    :func:`ranvier.lower`.

    Args:
        graph: from :func:`ranvier.to_graph`.

    Returns:
        A new graph, and a finding for every traced population.

    Raises:
        GraphError: the graph is not valid.
    """
    check_is_graph(graph)
    recognized, findings = graph.copy(), []
    for name, population in graph.populations.items():
        if not isinstance(population.neuron, Traced):
            continue
        try:
            match = match_of(population, graph.dt)
            check_uses(graph, name, match)
            recognized = put_in_place(recognized, name, match)
            findings.append(Finding(name, type(match.neuron).__name__))
        except Unlike as unlike:
            findings.append(Finding(name, None, str(unlike), _equation(population.neuron, unlike), unlike.remedy))
    return recognized, findings


def _equation(neuron: Traced, unlike: Unlike) -> str | None:
    """The equation that prevents recognition; None if no single one does."""
    if not neuron.by_position:
        return whole_array_equation(neuron)
    if isinstance(unlike, Curved):
        return curved_equation(neuron)
    results = [unlike.about] if unlike.about else [*neuron.states, *neuron.outputs]
    return next((text for name in results if (text := result_equation(neuron, name))), None)


def match_of(population: Population, dt: float) -> Match:
    """The named neuron that behaves like a traced population.

    Raises:
        Unlike: no named neuron does.
    """
    neuron = population.neuron
    assert isinstance(neuron, Traced)
    if not neuron.by_position:
        raise Unlike(
            "it works on whole arrays, so it is not a population of neurons",
            remedy="compute every neuron from its own numbers, without norms, sorts or random numbers across the "
            "population",
        )
    if len(neuron.states) not in KINDS:
        raise Unlike(
            f"it has {len(neuron.states)} states {list(neuron.states)}; named neurons have fewer",
            remedy="named neurons have at most a current, a potential and an adaptation",
        )
    probe = Probe(population)
    spikes = [o for o in neuron.outputs if _is_spike(probe, o)]
    if len(spikes) > 1:
        raise Unlike(f"it has several spikes, {spikes}", about=spikes[1], remedy="give every spike its own population")
    spike = spikes[0] if spikes else None
    match = KINDS[len(neuron.states)](Case(probe, spike, dt))
    others = [o for o in neuron.outputs if o != spike]
    match = replace(match, values=tuple(own_values(probe, match, others)))
    # The parameters were measured around rest and at the threshold. Bounds, refractory times and other branches show
    # only elsewhere, so both are compared at random points and over many steps.
    try_points(probe, match)
    match = replace(match, neuron=match.neuron.map(shared))
    return verified(population, match, dt)


def _is_spike(probe: Probe, output: str) -> bool:
    """Whether an output is zero around rest, and one or zero far from it, with at least a one."""
    # By measurement and not by type: spikes are computed as comparisons, steps, custom derivatives and in other ways.
    row = probe.affine[output]
    if any(np.any(v) for v in row.values()):
        return False
    far = [{v: np.full(probe.size, s * 10.0**k)} for v in probe.variables for s in (1, -1) for k in range(-1, 18, 2)]
    values = probe(far).outputs[output]
    return bool(np.any(values)) and bool(np.all((values == 0) | (values == 1)))
