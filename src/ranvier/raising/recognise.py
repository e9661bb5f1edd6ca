"""Traced populations as neurons with names, where running both shows that they are the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..analyses.graph.blame import curved_equation, result_equation, whole_array_equation
from ..ir.graph.elements import Input, Output, Population, Projection
from ..ir.graph.interpreter import interpret
from ..ir.graph.names import free_name
from ..ir.graph.neurons import ALIF, IF, IN, LI, LIF, OUT, CubaLI, CubaLIF, I, Neuron, Relay, Threshold
from ..ir.graph.operations import Constant, Identity, Linear, Scale
from ..ir.graph.snn_graph import SNNGraph
from ..ir.graph.traced import Traced
from .probe import Curved, Probe, Unlike, is_close, simple

POINTS = 16
"""Random points at every scale."""
STEPS, SAMPLES = 60, 32
"""Of the run that compares a neuron with what it was recognised in."""
ROUNDED, ROUNDED_OF_ONE = 2e-4, 5e-3
"""Part of the spikes of all neurons, and of one of them, that may differ because a potential is at the threshold."""
TIE = 1e-7
"""Part of the threshold within which rounding may decide a spike."""
RESETS = "after a spike, set the potential to v_reset or take v_threshold off it"
PLAIN = "neurons with a name have no bounds, refractory times or other cases"
ALONE = "neurons"
"""Name of a population that is run by itself."""


@dataclass(frozen=True, eq=False)
class Synapse:
    """A current in front of a neuron.

    Attributes:
        neuron: leaks.
        state: the traced population's name for it.
        initial: its value before the first step.
        delay: 1 where the neuron is driven by the current of the step before.
    """

    neuron: LI
    state: str
    initial: np.ndarray
    delay: int


@dataclass(frozen=True, eq=False)
class Match:
    """A neuron that does what a traced population does.

    Attributes:
        neuron: with its parameters.
        spike: the output that is its spike; None where it has none.
        states: by its own names those of the traced population that it has as they are.
        initial: its states before the first step.
        weights: by input of the traced population what it is multiplied by in the sum.
        bias: what is added to the sum.
        values: outputs of the traced population that are the neuron's output.
        synapse: what the sum goes through first, where no neuron with a name has it inside.
        found: what was seen of its spikes.
    """

    neuron: Neuron
    spike: str | None
    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    bias: np.ndarray | None = None
    values: tuple[str, ...] = ()
    synapse: Synapse | None = None
    found: _Spike | None = None


@dataclass(frozen=True)
class Finding:
    """What became of a traced population.

    Attributes:
        population: its name.
        neuron: the kind of neuron it is; None where it stays as it was.
        reason: why it stays.
        equation: primitive and source line of the equation that is in the way, where one is.
        remedy: what would help.
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
        return f"{self.population}: {self.neuron or 'stays as traced, ' + self.diagnosis}"


def recognise(graph: SNNGraph) -> tuple[SNNGraph, list[Finding]]:
    """Traced populations as named neurons where they are such.

    The dynamics are run: where nothing fires they must be affine, which gives time constants, resistances and
    leaks; the input at which a spike comes gives the threshold, what a spike does gives the reset. The neuron found
    must then do the same on random input, step by step; else the population stays as it is, and the finding says why.

    A neuron's surrogate derivative is not part of this: the graph computes the same, but what is learned further on it
    follows the surrogate of :func:`ranvier.lower`.

    Args:
        graph: from :func:`ranvier.SNNGraph.from_module`.

    Returns:
        A new graph and a finding for every traced population.
    """
    found, findings = graph.copy(), []
    for name, population in graph.populations.items():
        if not isinstance(population.neuron, Traced):
            continue
        try:
            match = match_of(population, graph.dt)
            _check_uses(graph, name, match)
            found = _replaced(found, name, match)
            findings.append(Finding(name, type(match.neuron).__name__))
        except Unlike as unlike:
            findings.append(Finding(name, None, str(unlike), _equation(population.neuron, unlike), unlike.remedy))
    return found, findings


def _equation(neuron: Traced, unlike: Unlike) -> str | None:
    """The equation that is in the way of a name."""
    if not neuron.by_position:
        return whole_array_equation(neuron)
    if isinstance(unlike, Curved):
        return curved_equation(neuron)
    results = [unlike.about] if unlike.about else [*neuron.states, *neuron.outputs]
    return next((text for name in results if (text := result_equation(neuron, name))), None)


def match_of(population: Population, dt: float) -> Match:
    """The named neuron that does what a traced population does.

    Raises:
        Unlike: there is none.
    """
    neuron = population.neuron
    assert isinstance(neuron, Traced)
    if not neuron.by_position:
        raise Unlike(
            "it works on whole arrays, so it is no population of neurons",
            remedy="compute every neuron from its own numbers, without norms, sorts or random numbers over all",
        )
    if len(neuron.states) not in KINDS:
        raise Unlike(
            f"it has {len(neuron.states)} states {list(neuron.states)}; neurons with a name have fewer",
            remedy="neurons with a name have a current, a potential and an adaptation at most",
        )
    probe = Probe(population)
    spikes = [o for o in neuron.outputs if _is_spike(probe, o)]
    if len(spikes) > 1:
        raise Unlike(f"it has several spikes, {spikes}", about=spikes[1], remedy="give every spike its own neurons")
    spike = spikes[0] if spikes else None
    match = KINDS[len(neuron.states)](_Case(probe, spike, dt))
    rest = [o for o in neuron.outputs if o != spike]
    match = replace(match, values=tuple(_own_values(probe, match, rest)))
    _try_points(probe, match)
    match = replace(match, neuron=match.neuron.map(_shared))
    _verify(population, match, dt)
    return match


def _is_spike(probe: Probe, output: str) -> bool:
    """Whether an output is zero at rest whatever is moved a little, and one somewhere."""
    row = probe.affine[output]
    if any(np.any(v) for v in row.values()):
        return False
    far = [{v: np.full(probe.size, s * 10.0**k)} for v in probe.variables for s in (1, -1) for k in range(-1, 18, 2)]
    values = probe(far).outputs[output]
    return bool(np.any(values)) and bool(np.all((values == 0) | (values == 1)))


@dataclass(frozen=True, eq=False)
class _Case:
    """What is to be told: dynamics, their spike and the time step."""

    probe: Probe
    spike: str | None
    dt: float

    def row(self, name: str) -> dict[str, np.ndarray]:
        return self.probe.affine[name]

    def drive(self, rows: list[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """The weight of every input in one sum, and what each row takes of the sum.

        Raises:
            Unlike: inputs do different things.
        """
        inputs = self.probe.inputs
        if not inputs:
            raise Unlike("it has no input", remedy="give it one, if only of zeros")
        main = max(inputs, key=lambda k: sum(float(np.abs(row[k]).sum()) for row in rows))
        gains = [row[main] for row in rows]
        total = np.sum([np.abs(g) for g in gains], axis=0)
        if np.any(total == 0):
            raise Unlike("its input does nothing", remedy="let the input drive a state of the neuron")
        which = np.argmax([np.abs(g) for g in gains], axis=0)
        at = np.arange(self.probe.size)
        weights = {k: np.stack([row[k] for row in rows])[which, at] / np.stack(gains)[which, at] for k in inputs}
        for k in inputs:
            if not all(is_close(row[k], weights[k] * gain, total) for row, gain in zip(rows, gains, strict=True)):
                raise Unlike(
                    f"its inputs {list(inputs)} do different things",
                    remedy="sum them, each times one factor, before they reach the neuron",
                )
        return {k: simple(w) for k, w in weights.items()}, gains


def _nothing(case: _Case) -> Match:
    """Without a state: a threshold, or a sum."""
    probe = case.probe
    if case.spike is None:
        values = list(probe.outputs)
        rows = [case.row(o) for o in values]
        weights, gains = case.drive(rows)
        if not all(is_close(g, np.ones(probe.size)) for g in gains):
            weights = {k: w * gains[0] for k, w in weights.items()}
        if any(not is_close(row[""], rows[0][""]) or not is_close(row[k], rows[0][k]) for row in rows for k in row):
            raise Unlike(
                "its outputs are different functions of its inputs",
                about=values[-1],
                remedy="give every output its own population",
            )
        bias = rows[0][""]
        return Match(Relay(), None, weights=weights, bias=bias if np.any(bias) else None)
    main = probe.inputs[0]
    level = {}
    for k in probe.inputs:
        level[k] = simple(probe.onset(case.spike, k, np.ones(probe.size), {}))
    weights = {k: simple(level[main] / level[k]) for k in probe.inputs}
    return Match(Threshold(level[main]), case.spike, weights=weights)


def _one(case: _Case) -> Match:
    """One state: LI, I, LIF, IF."""
    probe = case.probe
    (v,) = probe.states
    row = case.row(v)
    weights, (gain,) = case.drive([row])
    decay, constant = row[v], row[""]
    if case.spike is None:
        neuron, bias = _leak(decay, gain, constant, case.dt)
        return Match(neuron, None, {"v": v}, {"v": probe.population.initial_state()[v].ravel()}, weights, bias)
    spike = _Spike.of(case, v, main=_main(probe, weights))
    leak, bias = _leak(decay, gain, constant - spike.shift * (1 - decay), case.dt)
    return _spiking(case, leak, spike, v, weights, bias, {})


def _two(case: _Case) -> Match:
    """Two states: a current and a potential, or a potential and an adaptation."""
    probe = case.probe
    a, b = probe.states
    rows = {k: case.row(k) for k in (a, b)}
    if not np.any(rows[a][b]) and not np.any(rows[b][a]):
        return _adaptive(case, probe.states)
    i, v = (a, b) if not np.any(rows[a][b]) else (b, a)
    if np.any(rows[i][v]):
        raise Unlike(f"its states {a!r} and {b!r} act on one another", about=i, remedy=f"let {v!r} not act on {i!r}")
    return _current(case, i, v)


def _current(case: _Case, i: str, v: str) -> Match:
    probe = case.probe
    synapse, membrane = case.row(i), case.row(v)
    weights, (gain, direct) = case.drive([synapse, membrane])
    if np.any(synapse[""]):
        raise Unlike(f"its current {i!r} moves on its own", about=i, remedy="let it fade to zero without input")
    taken, current = membrane[i], "old"
    if np.any(direct):
        taken, current = membrane[i] / synapse[i], "new"
        if not is_close(direct, taken * gain):
            raise Unlike(f"its input reaches {v!r} past {i!r}", about=v, remedy=f"let it act on {i!r} alone")
    main = _main(probe, weights)
    spike = None if case.spike is None else _Spike.of(case, v, main=main if current == "new" else i)
    shift = spike.shift if spike is not None else 0.0
    decay = membrane[v]
    if np.any(decay >= 1):
        raise Unlike(
            f"its potential {v!r} does not leak, which neurons with a current do",
            about=v,
            remedy="give it a time constant",
        )
    way = _way([synapse[i], decay], case.dt)
    tau_syn, tau_mem = (_tau(d, way, case.dt) for d in (synapse[i], decay))
    values = {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "w_in": simple(gain / (1 - synapse[i])),
        "r": simple(taken / (1 - decay)),
        "v_leak": simple((membrane[""] - shift * (1 - decay)) / (1 - decay)),
    }
    choices = {"integration": way, "current": current}
    initial = {k: x.ravel() for k, x in probe.population.initial_state().items()}
    if spike is None:
        neuron = CubaLI(**values, **choices)
        return Match(neuron, None, {"i": i, "v": v}, {"i": initial[i], "v": initial[v]}, weights)
    neuron = CubaLIF(**values, **choices, **spike.fields)
    states = {"i": i, **({"v": v} if spike.is_plain else {})}
    return Match(neuron, case.spike, states, {"i": initial[i], "v": spike.start(initial[v])}, weights, found=spike)


def _three(case: _Case) -> Match:
    """A current in front of a potential with adaptation."""
    probe = case.probe
    for i in probe.states:
        rest = tuple(s for s in probe.states if s != i)
        alone = not any(np.any(case.row(i)[s]) for s in rest)
        fed = [s for s in rest if np.any(case.row(s)[i])]
        if alone and len(fed) == 1 and any(np.any(case.row(i)[k]) for k in probe.inputs):
            return _adaptive(case, rest, i)
    raise Unlike(
        f"its states {list(probe.states)} are no current, potential and adaptation",
        remedy="let input drive a current, the current a potential, and spikes an adaptation",
    )


def _adaptive(case: _Case, states: tuple[str, ...], i: str | None = None) -> Match:
    """A potential and an adaptation that raises its threshold, maybe with a current in front."""
    probe = case.probe
    if case.spike is None:
        raise Unlike(
            f"none of its outputs is a spike, and between its states {list(states)} there is one at most",
            remedy="let the spike itself be read; a synapse behind a neuron is found where a projection, if only an "
            "identity matrix, stands between them; no neuron with a name has a refractory time",
        )
    drives = probe.inputs if i is None else (*probe.inputs, i)
    driven = [s for s in states if any(np.any(case.row(s)[k]) for k in drives)]
    if len(driven) != 1:
        raise Unlike(
            f"its states {list(states)} are both driven by the input",
            about=states[-1],
            remedy="let it drive one of them",
        )
    (v,) = driven
    (a,) = (s for s in states if s != v)
    fade, row = case.row(a)[a], case.row(v)
    synapse, weights, gain = _synapse(case, i, v)
    if np.any(case.row(a)[""]):
        raise Unlike(f"its state {a!r} does not fade to zero", about=a, remedy="take what it fades to off it")
    main = _main(probe, weights) if i is None or not synapse.delay else i
    spike = _Spike.of(case, v, main=main, at={a: np.zeros(probe.size)})
    raised = [_raised(case, v, main, a, level) for level in (1.0, 2.0)]
    slope = raised[0] - spike.threshold
    if not is_close(raised[1] - raised[0], slope, np.abs(raised[1])):
        raise Unlike(
            f"its threshold is no straight function of {a!r}",
            about=case.spike,
            remedy=f"compare with a threshold plus a factor times {a!r}",
        )
    jump = spike.jump(a)
    if np.any(jump == 0):
        raise Unlike(
            f"a spike does not change {a!r} in its own step", about=a, remedy="let every spike add something to it"
        )
    beta = simple(slope * jump / (fade if spike.resets_later else 1.0))
    leak, bias = _leak(row[v], gain, row[""] - spike.shift * (1 - row[v]), case.dt)
    if not isinstance(leak, LI):
        raise Unlike("its potential does not leak, which ALIF does", about=v, remedy="give it a time constant")
    spike = replace(spike, adaptation=_Adaptation(a, slope, jump, fade))
    if not np.any(beta):
        return replace(_spiking(case, leak, spike, v, weights, bias, {}), synapse=synapse)
    tau_a = _tau(fade, leak.integration, case.dt)
    match = _spiking(case, leak, spike, v, weights, bias, {"tau_a": tau_a, "beta": beta})
    start = np.broadcast_to(probe.population.initial_state()[a].ravel(), (probe.size,))
    if spike.resets_later:
        start = fade * start + np.where(spike.is_due, jump, 0.0)
    return replace(match, initial={**match.initial, "a": start / jump}, synapse=synapse)


def _raised(case: _Case, v: str, main: str, a: str, level: float) -> np.ndarray:
    """The threshold where a state has some value."""
    try:
        return _Spike.of(case, v, main=main, at={a: np.full(case.probe.size, level)}).threshold
    except Unlike as unlike:
        raise Unlike(
            f"where {a!r} is {level:g}, {unlike}: it is no adaptation, but maybe a refractory time",
            about=a,
            remedy="neurons with a name have no refractory time",
        ) from unlike


def _synapse(case: _Case, i: str | None, v: str) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    """The current in front of a potential, the weights of the inputs, and what the potential takes of the current."""
    probe, membrane = case.probe, case.row(v)
    if i is None:
        weights, (gain,) = case.drive([membrane])
        return None, weights, gain
    row = case.row(i)
    weights, (gain, direct) = case.drive([row, membrane])
    taken, delay = membrane[i], 1
    if np.any(direct):
        taken, delay = membrane[i] / row[i], 0
        if not is_close(direct, taken * gain):
            raise Unlike(f"its input reaches {v!r} past {i!r}", about=v, remedy=f"let it act on {i!r} alone")
    leak, _ = _leak(row[i], gain, np.zeros(probe.size), case.dt)
    if np.any(row[""]) or not isinstance(leak, LI):
        raise Unlike(f"its current {i!r} does not fade to zero", about=i, remedy="give it a time constant and no rest")
    initial = np.broadcast_to(probe.population.initial_state()[i].ravel(), (probe.size,))
    return Synapse(leak, i, initial, delay), weights, taken


@dataclass(frozen=True, eq=False)
class _Spike:
    """Where a spike comes and what it does.

    Attributes:
        case: whose.
        v: the potential.
        main: the variable that was moved to make it fire.
        threshold: of the potential before the reset.
        resets_later: whether the reset is done at the beginning of the next step.
        subtract: what is taken away; None where the potential is set.
        reset: what the potential is set to.
        adaptation: what raises the threshold, if anything does.
    """

    case: _Case
    v: str
    main: str
    threshold: np.ndarray
    resets_later: bool
    subtract: np.ndarray | None
    reset: np.ndarray
    adaptation: _Adaptation | None = None

    @classmethod
    def of(cls, case: _Case, v: str, *, main: str, at: dict[str, np.ndarray] | None = None) -> _Spike:
        probe, at = case.probe, at or {}
        assert case.spike is not None
        row = case.row(v)
        onset = probe.onset(case.spike, main, np.sign(row[main]), at)

        def before_reset(point: dict[str, np.ndarray]) -> np.ndarray:
            full = {**probe.rest, **at, **point}
            return row[""] + sum((row[k] * full[k] for k in probe.variables if k != ""), np.zeros(probe.size))

        threshold = simple(before_reset({main: onset}))
        margin = np.maximum(np.abs(threshold - before_reset({})), 1e-3) / np.abs(row[main])
        beyond = [{**at, main: onset + np.sign(row[main]) * k * margin} for k in (0.25, 0.5)]
        after = probe(beyond).states[v]
        change = after - np.stack([before_reset(p) for p in beyond])
        scale = np.abs(after) + np.abs(threshold)
        if is_close(change, np.zeros(()), scale):
            return cls._later(case, v, main, threshold, at)
        subtract, reset = _reset_of(after, change, scale)
        return cls(case, v, main, threshold, False, subtract, reset)

    @classmethod
    def _later(cls, case: _Case, v: str, main: str, threshold: np.ndarray, at: dict[str, np.ndarray]) -> _Spike:
        """The reset is seen in a step that starts above the threshold."""
        probe, row = case.probe, case.row(v)
        if np.any(row[v] == 0):
            raise Unlike(
                "its potential does not last, so that there is nothing to reset",
                about=v,
                remedy="make it no state: a threshold of the input does the same",
            )
        margin = 0.25 * np.maximum(np.abs(threshold), 1e-3)
        starts = [threshold + k * margin for k in (1.0, 2.0)]
        after = probe([{**at, v: start} for start in starts]).states[v]
        rest = sum((row[k] * {**probe.rest, **at}[k] for k in probe.variables if k != v), row[""])
        began = (after - rest) / row[v]
        change = began - np.stack(starts)
        scale = np.abs(began) + np.abs(threshold)
        if is_close(change, np.zeros(()), scale):
            raise Unlike("a spike does not reset its potential", about=v, remedy=RESETS)
        subtract, reset = _reset_of(began, change, scale)
        return cls(case, v, main, threshold, True, subtract, reset)

    def jump(self, state: str) -> np.ndarray:
        """What a spike adds to another state."""
        probe = self.case.probe
        if self.resets_later:
            margin = 0.25 * np.maximum(np.abs(self.threshold), 1e-3)
            found = probe([{}, {self.v: self.threshold + margin}]).states[state]
        else:
            assert self.case.spike is not None
            direction = np.sign(self.case.row(self.v)[self.main])
            onset = probe.onset(self.case.spike, self.main, direction, {})
            found = probe([{}, {self.main: onset + direction * np.maximum(np.abs(onset), 1e-3)}]).states[state]
        return simple(found[1] - found[0])

    @property
    def shift(self) -> np.ndarray | float:
        """What is taken off the potential, so that a reset takes away as much as the threshold is."""
        return 0.0 if self.subtract is None else simple(self.threshold - self.subtract)

    @property
    def is_plain(self) -> bool:
        """Whether the neuron's potential is the traced one."""
        return not self.resets_later and not np.any(self.shift)

    @property
    def fields(self) -> dict[str, Any]:
        """Of the neuron."""
        level = simple(self.threshold - self.shift)
        if self.subtract is None:
            return {"v_threshold": level, "v_reset": simple(self.reset), "reset": "zero"}
        return {"v_threshold": level, "reset": "subtract"}

    def start(self, v: np.ndarray) -> np.ndarray:
        """The neuron's potential before the first step."""
        v = np.broadcast_to(v, self.threshold.shape)
        if self.resets_later:
            v = np.where(self.is_due, self.reset if self.subtract is None else v - self.subtract, v)
        return v - self.shift

    @property
    def is_due(self) -> np.ndarray:
        """Of which neurons the first step begins with a reset, where it is done at the beginning of a step."""
        initial = self.case.probe.population.initial_state()
        above = initial[self.v].ravel() - self.threshold
        if self.adaptation is None:
            return above > 0
        return above > self.adaptation.slope / self.adaptation.fade * initial[self.adaptation.state].ravel()


@dataclass(frozen=True, eq=False)
class _Adaptation:
    """A state that raises the threshold.

    Attributes:
        state: its name.
        slope: of the threshold by the state before the step.
        jump: what a spike adds to the state.
        fade: what is left of it after a step.
    """

    state: str
    slope: np.ndarray
    jump: np.ndarray
    fade: np.ndarray


def _reset_of(after: np.ndarray, change: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """What is taken away by a reset, or None and what is set; from two values after it and their changes."""
    if is_close(change[0], change[1], scale[0]):
        return simple(-change[0]), np.zeros(after.shape[1:])
    if is_close(after[0], after[1], scale[0]):
        return None, simple(after[0])
    raise Unlike("a spike neither sets its potential nor takes a fixed amount away", remedy=RESETS)


def _main(probe: Probe, weights: dict[str, np.ndarray]) -> str:
    return next(k for k in probe.inputs if is_close(weights[k], np.ones(probe.size)))


def _spiking(
    case: _Case,
    leak: LI | I,
    spike: _Spike,
    v: str,
    weights: dict[str, np.ndarray],
    bias: np.ndarray | None,
    adaptation: dict[str, np.ndarray],
) -> Match:
    """A neuron that leaks and fires."""
    fields = {**leak.parameters, **leak.choices, **adaptation, **spike.fields}
    kind = ALIF if adaptation else LIF if isinstance(leak, LI) else IF
    initial = {"v": spike.start(case.probe.population.initial_state()[v].ravel())}
    states = {"v": v} if spike.is_plain else {}
    return Match(kind(**fields), case.spike, states, initial, weights, bias, found=spike)


def _leak(decay: np.ndarray, gain: np.ndarray, constant: np.ndarray, dt: float) -> tuple[LI | I, np.ndarray | None]:
    """``v' = decay v + gain I + constant`` as a neuron without a spike, and what must be added to its input."""
    if np.all(decay == 1):
        return I(simple(gain / dt)), simple(constant / gain) if np.any(constant) else None
    if np.any(decay == 1):
        raise Unlike("some of its potentials leak and others do not", remedy="make two populations of it")
    way = _way([decay], dt)
    return (
        LI(_tau(decay, way, dt), simple(gain / (1 - decay)), simple(constant / (1 - decay)), integration=way),
        None,
    )


def _way(decays: list[np.ndarray], dt: float) -> Any:
    """The integration that makes time constants simple numbers."""
    if any(np.any((d <= 0) | (d >= 1)) for d in decays):
        if any(np.any((d <= -1) | (d >= 1)) for d in decays):
            raise Unlike(
                "a state grows or alternates, which no leak does", remedy="keep its decay in a step between 0 and 1"
            )
        return "euler"

    def digits(way: Any) -> float:
        found = np.concatenate([np.ravel(_tau(d, way, dt)) for d in decays])
        return float(np.mean([len(f"{x:.12g}") for x in found]))

    return min(("exponential", "euler"), key=digits)


def _tau(decay: np.ndarray, way: str, dt: float) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return simple(dt / (1 - decay) if way == "euler" else -dt / np.log(decay))


KINDS: dict[int, Callable[[_Case], Match]] = {0: _nothing, 1: _one, 2: _two, 3: _three}
"""By the number of states."""


def _own_values(probe: Probe, match: Match, outputs: list[str]) -> list[str]:
    """Outputs that are the neuron's output as well.

    Raises:
        Unlike: an output is something else.
    """
    for output in outputs:
        row = probe.affine[output]
        if isinstance(match.neuron, Relay):
            continue
        v = match.states.get("v")
        if match.spike is not None or v is None or not all(is_close(row[k], probe.affine[v][k]) for k in row):
            raise Unlike(
                f"its output {output!r} is neither its spike nor its potential",
                about=output,
                remedy="return the spike, and compute what else is wanted from it",
            )
    return outputs


def _shared(values: np.ndarray) -> np.ndarray:
    """One number where all neurons have the same."""
    flat = np.ravel(values)
    return flat[0] if flat.size and np.all(flat == flat[0]) else values


# Putting it to the test --------------------------------------------------------------------------------------------


def _try_points(probe: Probe, match: Match) -> None:
    """One step from random states on random inputs, near rest and far from it.

    Raises:
        Unlike: what was seen around rest and at the threshold is not all that the dynamics do.
    """
    generator = np.random.default_rng(1)
    reach = 1 + (np.abs(match.found.threshold) if match.found is not None else np.zeros(probe.size))
    points = [
        {k: probe.rest[k] + generator.normal(size=probe.size) * reach * scale for k in probe.variables}
        for scale in (0.1, 1.0, 3.0, 10.0, 100.0)
        for _ in range(POINTS)
    ]
    given = probe.run(points)
    expected, clear = _expected(probe, match, {k: np.stack([p[k] for p in points]) for k in probe.variables})
    for name, values in {**given.states, **given.outputs}.items():
        apart = np.abs(values - expected[name]) > 1e-7 * np.maximum(np.abs(values), reach)
        if np.any(apart & clear):
            kind = type(match.neuron).__name__
            raise Unlike(
                f"on {np.mean(apart & clear):.1%} of random points {name!r} differs from that of {kind}",
                about=name,
                remedy=PLAIN,
            )


def _expected(probe: Probe, match: Match, at: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """New states and outputs as affine maps, threshold and reset have them, and where rounding does not decide."""
    spike, start, clear = match.found, dict(at), np.ones(at[probe.variables[0]].shape, bool)

    def affine(name: str) -> np.ndarray:
        row = probe.affine[name]
        return row[""] + sum((row[k] * start[k] for k in probe.variables), np.zeros(clear.shape))

    def reset(v: np.ndarray, fired: np.ndarray) -> np.ndarray:
        assert spike is not None
        return np.where(fired, spike.reset if spike.subtract is None else v - spike.subtract, v)

    if spike is None:
        found = {name: affine(name) for name in (*probe.states, *probe.outputs)}
        if isinstance(match.neuron, Threshold):
            total = sum((match.weights[k] * at[k] for k in probe.inputs), np.zeros(clear.shape))
            level = match.neuron.threshold
            found[str(match.spike)], clear = (total > level) * 1.0, np.abs(total - level) > TIE * (1 + np.abs(level))
        return found, clear
    adaptation = spike.adaptation
    if spike.resets_later:
        raised = 0.0 if adaptation is None else adaptation.slope / adaptation.fade * at[adaptation.state]
        before = at[spike.v] - spike.threshold - raised
        start[spike.v] = reset(at[spike.v], before > 0)
        clear = clear & (np.abs(before) > TIE * (np.abs(at[spike.v]) + np.abs(spike.threshold)))
        if adaptation is not None:
            more = np.where(before > 0, adaptation.jump / adaptation.fade, 0.0)
            start[adaptation.state] = at[adaptation.state] + more
    found = {name: affine(name) for name in (*probe.states, *probe.outputs)}
    level = spike.threshold + (0.0 if adaptation is None else adaptation.slope * start[adaptation.state])
    above = found[spike.v] - level
    clear = clear & (np.abs(above) > TIE * (np.abs(found[spike.v]) + np.abs(level)))
    found[str(match.spike)] = (above > 0) * 1.0
    if not spike.resets_later:
        found[spike.v] = reset(found[spike.v], above > 0)
        if adaptation is not None:
            found[adaptation.state] = found[adaptation.state] + np.where(above > 0, adaptation.jump, 0.0)
    return found, clear


def _verify(population: Population, match: Match, dt: float) -> None:
    """Both on the same random input, with spikes.

    Raises:
        Unlike: they differ.
    """
    difference: str | None = None
    for fires in (">=", ">") if match.spike is not None else (None,):
        tried = match if fires is None else replace(match, neuron=match.neuron.replace(fires=fires))
        difference = _difference(population, tried, dt)
        if difference is None:
            object.__setattr__(match, "neuron", tried.neuron)
            return
    raise Unlike(difference or "it differs", about=match.spike, remedy=PLAIN)


def _difference(population: Population, match: Match, dt: float) -> str | None:
    traced = _alone(population, None, dt)
    inputs = {_input_name(port): values for port, values in _inputs(population, match).items()}
    output = match.spike or (match.values[0] if match.values else None) or match.states.get("v", "")
    shape = population.shape
    named = Population(population.name, shape, _shaped(match.neuron, shape), _initial(match, shape))
    a = interpret(_read(traced, output), inputs).outputs["out"]
    b = interpret(_alone(named, match, dt, population.neuron.inputs), inputs).outputs["out"]
    if match.spike is None:
        kind = type(match.neuron).__name__
        same = is_close(a, b, np.abs(a).max(initial=1e-12))
        return None if same else f"on random input its values differ from those of {kind}"
    if not a.any():
        return "it did not fire on random input"
    apart = (a != b).reshape(-1, population.size)
    kind = type(match.neuron).__name__
    if apart.mean() <= ROUNDED and apart.mean(axis=0).max() <= ROUNDED_OF_ONE:
        return None
    return f"on random input {apart.mean():.1%} of its spikes differ from those of {kind}"


def _inputs(population: Population, match: Match) -> dict[str, np.ndarray]:
    """Random input that makes the neurons fire now and then."""
    generator = np.random.default_rng(0)
    scale = np.ones(population.size)
    if match.spike is not None and isinstance(match.neuron, (LIF, ALIF, IF, CubaLIF, Threshold)):
        scale = _firing_input(match.neuron, population.size)
    found = {}
    for port in population.neuron.inputs:
        weight = np.broadcast_to(match.weights.get(port, np.ones(population.size)), (population.size,))
        weight = np.where(weight == 0, 1.0, weight)
        level = generator.uniform(0.2, 3.0, (1, SAMPLES, 1)) / len(population.neuron.inputs)
        drawn = generator.uniform(-0.5, 1.5, (STEPS, SAMPLES, population.size)) * level * scale / weight
        found[port] = drawn.reshape(STEPS, SAMPLES, *population.shape)
    return found


def _firing_input(neuron: Any, size: int) -> np.ndarray:
    """An input that, if it stood, would bring the neuron to its threshold."""
    if isinstance(neuron, Threshold):
        level = neuron.threshold
    elif isinstance(neuron, IF):
        level = neuron.v_threshold / (neuron.r * 1e-2)
    else:
        level = (neuron.v_threshold - neuron.v_leak) / neuron.r / getattr(neuron, "w_in", 1.0)
    found = np.broadcast_to(np.ravel(level), (size,)) if np.ndim(level) else np.full(size, float(level))
    return np.where(found == 0, 1.0, found)


def _alone(population: Population, match: Match | None, dt: float, ports: tuple[str, ...] | None = None) -> SNNGraph:
    """A population with nothing but inputs, under names that cannot be those of its states and ports."""
    ports = ports or population.neuron.inputs
    graph = SNNGraph(
        name="alone",
        dt=dt,
        inputs=[Input(_input_name(port), population.shape) for port in ports],
        populations=[population.replace(name=ALONE)],
        outputs=[Output("out", population.shape)],
    )
    for port in ports:
        operation = Identity() if match is None else Scale(_in_shape(match.weights[port], population.shape))
        projection = Projection(f"{port}->", _input_name(port), ALONE, operation)
        graph.projections[projection.name] = projection.replace(target_port=port if match is None else IN)
    if match is not None and match.bias is not None:
        bias = Constant(_in_shape(match.bias, population.shape))
        graph.projections["bias"] = Projection("bias", _input_name(ports[0]), ALONE, bias)
    if match is not None:
        graph.projections["read"] = Projection("read", ALONE, "out", Identity())
        _put_synapse(graph, ALONE, match)
    return graph


def _input_name(port: str) -> str:
    return f"into {port}"


def _read(graph: SNNGraph, port: str) -> SNNGraph:
    graph.projections["read"] = Projection("read", ALONE, "out", Identity(), source_port=port)
    return graph


def _in_shape(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values.reshape(shape) if np.ndim(values) else values


def _shaped(neuron: Neuron, shape: tuple[int, ...]) -> Neuron:
    return neuron.map(lambda value: _in_shape(value, shape))


def _initial(match: Match, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    found = {k: np.broadcast_to(v, (int(np.prod(shape)),)).reshape(shape) for k, v in match.initial.items()}
    return {k: v for k, v in found.items() if np.any(v)}


# Putting it in place -----------------------------------------------------------------------------------------------


def _check_uses(graph: SNNGraph, name: str, match: Match) -> None:
    """Raises Unlike where something reads a state that the neuron does not have."""
    known = {match.spike, *match.states.values(), *match.values}
    for projection in graph.out_of(name):
        if projection.source_port not in known:
            raise Unlike(
                f"{projection.name!r} reads {projection.source_port!r}, which {type(match.neuron).__name__} lacks",
                about=projection.source_port,
                remedy="read the spike or a state that the neuron has",
            )


def _replaced(graph: SNNGraph, name: str, match: Match) -> SNNGraph:
    old = graph.populations[name]
    initial = _initial(match, old.shape)
    delayed = match.spike or (match.values[0] if match.values else None)
    if delayed is not None and delayed in old.initial:
        initial[OUT] = old.initial[delayed]
    if match.spike is None and "v" in initial:
        initial.setdefault(OUT, initial["v"])
    graph.populations[name] = Population(name, old.shape, _shaped(match.neuron, old.shape), initial, old.activity)
    own = {state: ours for ours, state in match.states.items()}
    for key, projection in list(graph.projections.items()):
        if projection.source == name:
            port = OUT if projection.source_port in (match.spike, *match.values) else own[projection.source_port]
            is_output = match.spike is None and port == "v"
            projection = projection.replace(source_port=OUT if is_output else port)
        if projection.target == name:
            projection = _weighted(graph, projection, match.weights[projection.target_port], old.shape)
        graph.projections[key] = projection
    if match.bias is not None:
        key = free_name(graph.projections, f"{name}.bias")
        source = next(iter(graph.inputs))
        constant = Constant(np.broadcast_to(match.bias, (old.size,)).reshape(old.shape))
        graph.projections[key] = Projection(key, source, name, constant, trained=False)
    _put_synapse(graph, name, match)
    return graph


def _put_synapse(graph: SNNGraph, name: str, match: Match) -> None:
    """Puts a current between what a neuron gets and the neuron."""
    if match.synapse is None:
        return
    population, synapse = graph.populations[name], match.synapse
    own = free_name(graph.nodes, f"{name}.{synapse.state}")
    neuron = _shaped(synapse.neuron.map(_shared), population.shape)
    start = _in_shape(synapse.initial, population.shape)
    initial = {"v": start, OUT: start} if np.any(start) else {}
    for key, projection in list(graph.projections.items()):
        if projection.target == name:
            graph.projections[key] = projection.replace(target=own)
    graph.populations[own] = Population(own, population.shape, neuron, initial)
    key = free_name(graph.projections, f"{own}->{name}")
    graph.projections[key] = Projection(key, own, name, Identity(), synapse.delay, trained=False)


def _weighted(graph: SNNGraph, projection: Projection, weight: np.ndarray, shape: tuple[int, ...]) -> Projection:
    """A projection into the one input, its result multiplied."""
    if np.all(weight == 1):
        return projection.replace(target_port=IN)
    operation = projection.operation
    if isinstance(operation, Linear):
        rows = (
            operation.weight.multiply(weight[:, None])
            if hasattr(operation.weight, "multiply")
            else (operation.weight * weight[:, None])
        )
        bias = None if operation.bias is None else operation.bias * weight
        return projection.replace(operation=Linear(rows, bias), target_port=IN)
    if isinstance(operation, Identity):
        return projection.replace(operation=Scale(weight.reshape(shape)), target_port=IN)
    relay = free_name(graph.nodes, f"{projection.name}.scaled")
    graph.populations[relay] = Population(relay, shape, Relay())
    key = free_name(graph.projections, f"{relay}->")
    graph.projections[key] = Projection(key, relay, projection.target, Scale(weight.reshape(shape)), trained=False)
    return projection.replace(target=relay, target_port=IN)
