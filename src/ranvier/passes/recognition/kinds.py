"""The named neurons by their number of states, and how measured slopes give their parameters."""

# Examples, with a time step of 1 ms:
#
#   v' = 0.75 v + x, fires above 1                      LIF: tau = 4 ms = 1 ms / (1 - 0.75), r = 4 = 1 / (1 - 0.75)
#   i' = 0.5 i + x, v' = 0.75 v + 0.5 i'                CubaLIF: tau_syn = 2 ms, w_in = 2, tau_mem = 4 ms, r = 2. The
#                                                       slopes of v' are 0.25 by i and 0.5 by x, 0.5 times those of i',
#                                                       so v is driven by the new current
#   v' = 0.75 v + x, fires above 1 + 0.2 a,             ALIF: beta = 0.2, tau_a = 2 ms. The threshold is measured at
#   a' = 0.5 a + spike                                  a = 0, 1 and 2, where it is 1, 1.2 and 1.4

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ...graph.neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, I, Relay, Threshold
from .case import Case
from .match import Match, Synapse
from .probe import Probe, Unlike, is_close, simple
from .spiking import Adaptation, Spike


def _nothing(case: Case) -> Match:
    """No state: a threshold, or a sum."""
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
    # The slopes of a spike are zero and say nothing about weights. Each input alone is raised until the neuron fires;
    # those inputs are inversely proportional to the weights.
    main = probe.inputs[0]
    onset = {}
    for k in probe.inputs:
        onset[k] = simple(probe.onset(case.spike, k, np.ones(probe.size), {}))
    weights = {k: simple(onset[main] / onset[k]) for k in probe.inputs}
    return Match(Threshold(onset[main]), case.spike, weights=weights)


def _one(case: Case) -> Match:
    """One state: LI, I, LIF, IF."""
    probe = case.probe
    (v,) = probe.states
    row = case.row(v)
    weights, (gain,) = case.drive([row])
    decay, constant = row[v], row[""]
    if case.spike is None:
        neuron, bias = _leak(decay, gain, constant, case.dt)
        return Match(neuron, None, {"v": v}, {"v": probe.population.initial_state()[v].ravel()}, weights, bias)
    spike = Spike.of(case, v, main=_main(probe, weights))
    leak, bias = _leak(decay, gain, constant - spike.shift * (1 - decay), case.dt)
    return _spiking(case, leak, spike, v, weights, bias, {})


def _two(case: Case) -> Match:
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


def _current(case: Case, i: str, v: str) -> Match:
    """A current that drives a potential: CubaLI, CubaLIF."""
    probe = case.probe
    synapse, membrane = case.row(i), case.row(v)
    weights, (gain, direct) = case.drive([synapse, membrane])
    if np.any(synapse[""]):
        raise Unlike(f"its current {i!r} changes without input", about=i, remedy="let it fade to zero without input")
    # If the input reaches the potential in the same step, it does so through the new current: its slope is then that of
    # the current times what the potential takes of the current.
    taken, current = membrane[i], "old"
    if np.any(direct):
        taken, current = membrane[i] / synapse[i], "new"
        if not is_close(direct, taken * gain):
            raise Unlike(
                f"its input reaches {v!r} without passing through {i!r}", about=v, remedy=f"let it act only on {i!r}"
            )
    main = _main(probe, weights)
    spike = None if case.spike is None else Spike.of(case, v, main=main if current == "new" else i)
    shift = spike.shift if spike is not None else 0.0
    decay = membrane[v]
    if np.any(decay >= 1):
        raise Unlike(
            f"its potential {v!r} does not leak, unlike that of neurons with a current",
            about=v,
            remedy="give it a time constant",
        )
    integration = _integration([synapse[i], decay], case.dt)
    tau_syn, tau_mem = (_tau(d, integration, case.dt) for d in (synapse[i], decay))
    values = {
        "tau_syn": tau_syn,
        "tau_mem": tau_mem,
        "w_in": simple(gain / (1 - synapse[i])),
        "r": simple(taken / (1 - decay)),
        "v_leak": simple((membrane[""] - shift * (1 - decay)) / (1 - decay)),
    }
    choices = {"integration": integration, "current": current}
    initial = {k: x.ravel() for k, x in probe.population.initial_state().items()}
    if spike is None:
        neuron = CubaLI(**values, **choices)
        return Match(neuron, None, {"i": i, "v": v}, {"i": initial[i], "v": initial[v]}, weights)
    neuron = CubaLIF(**values, **choices, **spike.fields)
    states = {"i": i, **({"v": v} if spike.is_plain else {})}
    return Match(neuron, case.spike, states, {"i": initial[i], "v": spike.start(initial[v])}, weights, firing=spike)


def _three(case: Case) -> Match:
    """A current in front of a potential with adaptation."""
    probe = case.probe
    for i in probe.states:
        rest = tuple(s for s in probe.states if s != i)
        alone = not any(np.any(case.row(i)[s]) for s in rest)
        fed = [s for s in rest if np.any(case.row(s)[i])]
        if alone and len(fed) == 1 and any(np.any(case.row(i)[k]) for k in probe.inputs):
            return _adaptive(case, rest, i)
    raise Unlike(
        f"its states {list(probe.states)} are not a current, a potential and an adaptation",
        remedy="let input drive a current, the current a potential, and spikes an adaptation",
    )


def _adaptive(case: Case, states: tuple[str, ...], i: str | None = None) -> Match:
    """A potential and an adaptation that raises its threshold, maybe with a current in front."""
    v, a = _potential_and_adaptation(case, states, i)
    synapse, weights, gain = _synapse(case, i, v)
    if np.any(case.row(a)[""]):
        raise Unlike(f"its state {a!r} does not fade to zero", about=a, remedy="subtract the value that it fades to")
    # A potential that is driven by the current of the step before does not feel this step's input.
    main = _main(case.probe, weights) if i is None or not synapse.delay else i
    spike, adaptation = _spike_with_adaptation(case, v, a, main)
    row = case.row(v)
    leak, bias = _leak(row[v], gain, row[""] - spike.shift * (1 - row[v]), case.dt)
    if not isinstance(leak, LI):
        raise Unlike("its potential does not leak, unlike that of ALIF", about=v, remedy="give it a time constant")
    # ALIF raises its threshold by beta a, and a spike adds 1 to its a: the traced state in units of its jump.
    beta = simple(adaptation.slope * adaptation.jump / (adaptation.fade if spike.resets_later else 1.0))
    if not np.any(beta):
        return replace(_spiking(case, leak, spike, v, weights, bias, {}), synapse=synapse)
    tau_a = _tau(adaptation.fade, leak.integration, case.dt)
    match = _spiking(case, leak, spike, v, weights, bias, {"tau_a": tau_a, "beta": beta})
    initial = {**match.initial, "a": _initial_adaptation(spike, adaptation)}
    return replace(match, initial=initial, synapse=synapse)


def _potential_and_adaptation(case: Case, states: tuple[str, ...], i: str | None) -> tuple[str, str]:
    """Which of two states is the potential, which input (or the current ``i``) drives, and which the adaptation."""
    if case.spike is None:
        raise Unlike(
            f"none of its outputs is a spike, and it has spikes at most between its states {list(states)}",
            remedy="make the spike itself an output; a synapse after a neuron is recognized if there is a projection "
            "between them, even an identity matrix; no named neuron has a refractory time",
        )
    drives = case.probe.inputs if i is None else (*case.probe.inputs, i)
    driven = [s for s in states if any(np.any(case.row(s)[k]) for k in drives)]
    if len(driven) != 1:
        raise Unlike(
            f"its states {list(states)} are both driven by the input",
            about=states[-1],
            remedy="let it drive only one of them",
        )
    (v,) = driven
    (a,) = (s for s in states if s != v)
    return v, a


def _spike_with_adaptation(case: Case, v: str, a: str, main: str) -> tuple[Spike, Adaptation]:
    """The spike of a potential whose threshold a state raises, and how that state does it."""
    spike = Spike.of(case, v, main=main, at={a: np.zeros(case.probe.size)})
    # Two values of the state besides zero: a threshold that is straight in it rises by the same amount twice.
    raised = [_raised(case, v, main, a, value) for value in (1.0, 2.0)]
    slope = raised[0] - spike.threshold
    if not is_close(raised[1] - raised[0], slope, np.abs(raised[1])):
        raise Unlike(
            f"its threshold is not a linear function of {a!r}",
            about=case.spike,
            remedy=f"compare with a threshold plus a factor times {a!r}",
        )
    jump = spike.jump(a)
    if np.any(jump == 0):
        raise Unlike(
            f"a spike does not change {a!r} in its own step", about=a, remedy="let every spike add something to it"
        )
    adaptation = Adaptation(a, slope, jump, case.row(a)[a])
    return replace(spike, adaptation=adaptation), adaptation


def _initial_adaptation(spike: Spike, adaptation: Adaptation) -> np.ndarray:
    """ALIF's adaptation before the first step."""
    probe = spike.case.probe
    start = np.broadcast_to(probe.population.initial_state()[adaptation.state].ravel(), (probe.size,))
    # ALIF does at the end of a step what the traced neuron does at the beginning of the next.
    if spike.resets_later:
        start = adaptation.fade * start + np.where(spike.is_due, adaptation.jump, 0.0)
    return start / adaptation.jump


def _raised(case: Case, v: str, main: str, a: str, value: float) -> np.ndarray:
    """The threshold if the state ``a`` has some value."""
    try:
        return Spike.of(case, v, main=main, at={a: np.full(case.probe.size, value)}).threshold
    except Unlike as unlike:
        raise Unlike(
            f"where {a!r} is {value:g}, {unlike}: it is not an adaptation, but may be a refractory time",
            about=a,
            remedy="named neurons have no refractory time",
        ) from unlike


def _synapse(case: Case, i: str | None, v: str) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    """The current in front of a potential, the weights of the inputs, and the gain with which the potential takes the
    current."""
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
            raise Unlike(
                f"its input reaches {v!r} without passing through {i!r}", about=v, remedy=f"let it act only on {i!r}"
            )
    leak, _ = _leak(row[i], gain, np.zeros(probe.size), case.dt)
    if np.any(row[""]) or not isinstance(leak, LI):
        raise Unlike(
            f"its current {i!r} does not fade to zero",
            about=i,
            remedy="give it a time constant, and zero as its resting value",
        )
    initial = np.broadcast_to(probe.population.initial_state()[i].ravel(), (probe.size,))
    return Synapse(leak, i, initial, delay), weights, taken


def _main(probe: Probe, weights: dict[str, np.ndarray]) -> str:
    """The input whose weight in the sum is one."""
    return next(k for k in probe.inputs if is_close(weights[k], np.ones(probe.size)))


def _spiking(
    case: Case,
    leak: LI | I,
    spike: Spike,
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
    return Match(kind(**fields), case.spike, states, initial, weights, bias, firing=spike)


def _leak(decay: np.ndarray, gain: np.ndarray, constant: np.ndarray, dt: float) -> tuple[LI | I, np.ndarray | None]:
    """``v' = decay v + gain I + constant`` as a neuron without a spike, and the bias that its input needs."""
    if np.all(decay == 1):
        return I(simple(gain / dt)), simple(constant / gain) if np.any(constant) else None
    if np.any(decay == 1):
        raise Unlike("some of its potentials leak and others do not", remedy="split it into two populations")
    integration = _integration([decay], dt)
    return (
        LI(
            _tau(decay, integration, dt),
            simple(gain / (1 - decay)),
            simple(constant / (1 - decay)),
            integration=integration,
        ),
        None,
    )


def _integration(decays: list[np.ndarray], dt: float) -> Any:
    """The integration for which the time constants have the fewest digits.

    A decay of 0.75 is tau = 4 steps with Euler integration, and 3.47605949678 steps exactly integrated: the former was
    meant.
    """
    if any(np.any((d <= 0) | (d >= 1)) for d in decays):
        if any(np.any((d <= -1) | (d >= 1)) for d in decays):
            raise Unlike(
                "a state grows or alternates, unlike any leak", remedy="keep its decay per step between 0 and 1"
            )
        return "euler"

    def digits(integration: Any) -> float:
        constants = np.concatenate([np.ravel(_tau(d, integration, dt)) for d in decays])
        return float(np.mean([len(f"{x:.12g}") for x in constants]))

    return min(("exponential", "euler"), key=digits)


def _tau(decay: np.ndarray, integration: str, dt: float) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return simple(dt / (1 - decay) if integration == "euler" else -dt / np.log(decay))


KINDS: dict[int, Callable[[Case], Match]] = {0: _nothing, 1: _one, 2: _two, 3: _three}
"""What makes a match, by the number of states."""


def own_values(probe: Probe, match: Match, outputs: list[str]) -> list[str]:
    """Checks that outputs besides the spike are the neuron's output.

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
                remedy="return the spike, and compute anything else from it",
            )
    return outputs


def shared(values: np.ndarray) -> np.ndarray:
    """A single number if it is the same for all neurons."""
    flat = np.ravel(values)
    return flat[0] if flat.size and np.all(flat == flat[0]) else values
