"""EProp against the published formulas (Bellec et al., Nature Communications 2020), written step by step in numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import T, difference, learning, part, zoo_gradient
from tests.support.zoo.model import normal, spike, uniform, zeros

pytestmark = learning

ROUNDING = 1e-11
N_IN, N_REC, N_OUT = 3, 5, 2
ALPHA, RHO, BETA, THRESHOLD = 0.8, 0.95, 0.3, 0.6


def error_loss(output, target):
    return 0.5 * ((output - target) ** 2).sum()


@dataclass(frozen=True)
class Network:
    """Recurrent LIF or ALIF neurons with a leaky readout.

    The reset passes no gradient; ``z_t`` is a function of the new potential and adaptation.
    """

    adaptive: bool = False
    kappa: float = 0.7

    @property
    def params(self):
        shapes = {"w_in": (N_IN, N_REC), "w_rec": (N_REC, N_REC), "w_out": (N_REC, N_OUT)}
        return {name: normal(k, *shape, dtype=jnp.float64, scale=0.8) for k, (name, shape) in enumerate(shapes.items())}

    def model(self, cut_recurrence: bool = False, readout=None) -> ranvier.types.StepFunction:
        """The step function.

        Args:
            cut_recurrence: whether recurrent spikes pass no gradient.
            readout: ``readout(old, current)``, leaky by default.
        """

        def spikes(state):
            return spike(state["v"] - THRESHOLD - (BETA * state["a"] if self.adaptive else 0.0))

        def step(params, state, x):
            z = spikes(state)
            sent = jax.lax.stop_gradient(z) if cut_recurrence else z
            current = x @ params["w_in"] + sent @ params["w_rec"]
            new = {"v": ALPHA * state["v"] + current - THRESHOLD * jax.lax.stop_gradient(z)}
            if self.adaptive:
                new["a"] = RHO * state["a"] + z
            current = spikes(new) @ params["w_out"]
            new["r"] = self.kappa * state["r"] + current if readout is None else readout(state["r"], current)
            return new, new["r"]

        names = ("v", "a") if self.adaptive else ("v",)
        state = zeros(jnp.float64, **dict.fromkeys(names, (N_REC,)), r=(N_OUT,))
        return ranvier.step_function(step, self.params, state)

    def eprop(self, xs, ys, *, kappa: float, feedback: np.ndarray | None = None, spikes: list | None = None) -> dict:
        """``dE/dW_ji = sum_t L_j^t F_kappa(e_ji^t)`` with ``e = psi (eps_v - beta eps_a)``, and the readout's gradient.

        Args:
            kappa: decay of the filter.
            feedback: B ``[N_REC, N_OUT]``; the readout's weights by default.
            spikes: gets the spikes of every step.
        """
        w_in, w_rec, w_out = (np.asarray(self.params[name]) for name in ("w_in", "w_rec", "w_out"))
        b = w_out if feedback is None else feedback
        beta = BETA if self.adaptive else 0.0
        rows = N_IN + N_REC
        v, a, z, r, z_bar = np.zeros(N_REC), np.zeros(N_REC), np.zeros(N_REC), np.zeros(N_OUT), np.zeros(N_REC)
        psi, eps_v, eps_a = np.zeros(N_REC), np.zeros(rows), np.zeros((rows, N_REC))
        filtered, total, total_out = np.zeros((rows, N_REC)), np.zeros((rows, N_REC)), np.zeros_like(w_out)
        for x, y in zip(np.asarray(xs), np.asarray(ys)):
            eps_a = psi * eps_v[:, None] + (RHO - psi * beta) * eps_a
            eps_v = ALPHA * eps_v + np.concatenate([x, z])
            v, a = ALPHA * v + x @ w_in + z @ w_rec - THRESHOLD * z, RHO * a + z
            excess = v - THRESHOLD - beta * a
            z, psi = (excess >= 0).astype(float), 1 / (1 + 2 * np.abs(excess)) ** 2
            r, z_bar = self.kappa * r + z @ w_out, self.kappa * z_bar + z
            filtered = kappa * filtered + psi * (eps_v[:, None] - beta * eps_a)
            total += (b @ (r - y)) * filtered
            total_out += z_bar[:, None] * (r - y)
            if spikes is not None:
                spikes.append(z)
        return {("w_in",): total[:N_IN], ("w_rec",): total[N_IN:], ("w_out",): total_out}


STEPS = 14
LIF, ALIF = Network(), Network(adaptive=True)
networks = pytest.mark.parametrize("network", [LIF, ALIF], ids=["LIF", "ALIF"])


def data() -> tuple[jax.Array, jax.Array]:
    xs = uniform(5, STEPS, N_IN, dtype=jnp.float64, low=-0.5, high=1.5)
    return xs, normal(6, STEPS, N_OUT, dtype=jnp.float64)


def learner_of(model, rule, chunk: int | None = None) -> ranvier.types.Learner:
    return ranvier.compile(model, rule, jnp.ones(N_IN), chunk=chunk)


def gradient(model, rule, chunk: int | None = None) -> dict:
    return learner_of(model, rule, chunk).grad(error_loss, *data())[0]


@networks
def test_the_network_is_alive(network: Network) -> None:
    spikes: list = []
    expected = network.eprop(*data(), kappa=network.kappa, spikes=spikes)
    assert 0.1 < np.mean(spikes) < 0.9
    assert all((np.abs(g) > 1e-6).any(axis=0).all() for g in expected.values())
    outputs = learner_of(network.model(), ranvier.EProp()).grad(error_loss, *data())[1].outputs
    r = np.zeros(N_OUT)
    for z, found in zip(spikes, np.asarray(outputs)):
        r = network.kappa * r + z @ np.asarray(network.params["w_out"])
        np.testing.assert_allclose(found, r, atol=1e-12)


@networks
@few("chunk", [1, 4, None])
def test_symmetric_feedback(network: Network, chunk: int | None) -> None:
    expected = network.eprop(*data(), kappa=network.kappa)
    assert difference(gradient(network.model(), ranvier.EProp(), chunk), expected) < ROUNDING


@pytest.mark.slow
@networks
def test_symmetric_is_bptt_without_gradient_through_recurrent_spikes(network: Network) -> None:
    found = gradient(network.model(), ranvier.EProp(), 3)
    assert difference(found, gradient(network.model(cut_recurrence=True), ranvier.BPTT())) < ROUNDING
    assert difference(found, gradient(network.model(), ranvier.BPTT())) > 1e-3
    assert difference(found, gradient(network.model(), ranvier.D_RTRL(), 3)) > 1e-3


@networks
@few("chunk", [1, 5, None])
def test_random_feedback(network: Network, chunk: int | None) -> None:
    learner = learner_of(network.model(), ranvier.EProp(feedback="random", seed=3), chunk)
    (b,) = learner.init().memory.feedback
    assert b.shape == (N_REC, N_OUT)
    found, aux = learner.grad(error_loss, *data())
    expected = network.eprop(*data(), kappa=network.kappa, feedback=np.asarray(b))
    assert difference(found, expected) < ROUNDING
    assert difference(found, network.eprop(*data(), kappa=network.kappa)) > 1e-2
    np.testing.assert_array_equal(aux.state.memory.feedback[0], b)


def test_random_feedback_is_of_the_seed() -> None:
    first, again, other = (
        learner_of(LIF.model(), ranvier.EProp(feedback="random", seed=seed)).init().memory.feedback[0]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_feedback_that_equals_the_readout_is_symmetric() -> None:
    learner = learner_of(LIF.model(), ranvier.EProp(feedback="random"), 4)
    state = learner.init()
    state = replace(state, memory=replace(state.memory, feedback=[LIF.params["w_out"]]))
    found, _ = learner.grad(error_loss, *data(), state=state)
    assert difference(found, gradient(LIF.model(), ranvier.EProp(), 4)) < ROUNDING


def test_adaptive_feedback_follows_the_readout() -> None:
    """After every chunk B loses a fraction and moves against the gradient of the readout."""
    rate, decay, chunk = 0.1, 0.02, 7
    adaptive = learner_of(LIF.model(), ranvier.EProp("adaptive", feedback_rate=rate, feedback_decay=decay), chunk)
    fixed = learner_of(LIF.model(), ranvier.EProp("random"), chunk)
    xs, ys = data()
    state, total, b = adaptive.init(), None, adaptive.init().memory.feedback[0]
    for start in range(0, STEPS, chunk):
        assert state.memory.feedback[0].shape == b.shape
        xs_part, ys_part = part(xs, start, start + chunk), part(ys, start, start + chunk)
        expected, expected_aux = fixed.grad(error_loss, xs_part, ys_part, state=state)
        found, aux = adaptive.grad(error_loss, xs_part, ys_part, state=state)
        assert difference(found, expected) < ROUNDING
        b = (1 - decay) * b - rate * found[("w_out",)]
        np.testing.assert_allclose(aux.state.memory.feedback[0], b, rtol=1e-12)
        np.testing.assert_allclose(aux.state.hidden[0], expected_aux.state.hidden[0])
        state, total = aux.state, found if total is None else jax.tree.map(jnp.add, total, found)
    whole, aux = adaptive.grad(error_loss, xs, ys)
    assert difference(whole, total) < ROUNDING
    np.testing.assert_allclose(aux.state.memory.feedback[0], b, rtol=1e-12)
    assert difference(whole, fixed.grad(error_loss, xs, ys)[0]) > 1e-4


@few("kappa", [0.0, 0.5, 0.7, 0.9])
@networks
def test_a_filter_given(network: Network, kappa: float) -> None:
    found = gradient(network.model(), ranvier.EProp(filter=kappa), 4)
    assert difference(found, network.eprop(*data(), kappa=kappa)) < ROUNDING
    assert (difference(found, network.eprop(*data(), kappa=network.kappa)) > 1e-2) == (kappa != network.kappa)


@pytest.mark.slow
@networks
def test_without_a_filter_it_is_d_rtrl(network: Network) -> None:
    found = gradient(network.model(), ranvier.EProp(filter=None), 4)
    assert difference(found, gradient(network.model(), ranvier.D_RTRL(), 4)) < ROUNDING
    assert difference(found, network.eprop(*data(), kappa=0.0)) < ROUNDING


def test_a_readout_without_memory_has_no_filter() -> None:
    model = replace(LIF, kappa=0.0).model()
    found = gradient(model, ranvier.EProp(), 4)
    assert difference(found, replace(LIF, kappa=0.0).eprop(*data(), kappa=0.0)) < ROUNDING
    assert difference(found, gradient(model, ranvier.D_RTRL(), 4)) < ROUNDING


@pytest.mark.parametrize("name", ["gru", "recurrent_lif_with_readout", "adaptive_threshold", "dense"])
def test_models_whose_output_has_no_leak(name: str) -> None:
    assert (
        difference(zoo_gradient(name, ranvier.EProp(), chunk=3), zoo_gradient(name, ranvier.D_RTRL(), chunk=T)) < 1e-11
    )


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.EProp(), ranvier.EProp("random")], ids=["symmetric", "random"])
def test_calls_go_on_where_the_last_one_ended(rule) -> None:
    learner, (xs, ys) = learner_of(LIF.model(), rule, 7), data()
    whole, _ = learner.grad(error_loss, xs, ys)
    first, aux = learner.grad(error_loss, part(xs, 0, 6), part(ys, 0, 6))
    second, _ = learner.grad(error_loss, part(xs, 6, STEPS), part(ys, 6, STEPS), state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < ROUNDING


# What lies between the spikes and the readout ---------------------------------------------------------------------

N_POOLED = 3


def drive(w_out, spikes, old, before) -> dict[str, tuple]:
    """By name what drives the readout, from the spikes of this step and the last one, and the new delay line."""
    mask = jnp.asarray([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    pooled = w_out[:N_POOLED]
    line = jnp.concatenate([spikes[None], before[:-1]])
    window = jax.lax.reduce_window(spikes, 0.0, jax.lax.add, (2,), (2,), "VALID")
    return {
        "mean of pairs": spikes.reshape(N_POOLED, 2).mean(-1) @ pooled,
        "sum over windows": window @ pooled,
        "constant mask": (spikes * mask) @ w_out,
        "random mask": jnp.where(jax.random.bernoulli(jax.random.key(3), 0.5, spikes.shape), 2 * spikes, 0) @ w_out,
        "spikes of the last step": old @ w_out,
        "end of a delay line": before[-1] @ w_out,
        "two delays": line[0] @ w_out - 0.5 * line[2] @ w_out,
        "two projections": spikes @ w_out + (0.3 * spikes) @ w_out[::-1],
        "scaled, biased and reshaped": 0.3 * (2 * spikes.reshape(2, 3).T.reshape(-1) @ w_out + 0.1).reshape(N_OUT),
        "a part of the spikes": spikes[:N_POOLED] @ pooled,
        "beside others": jnp.concatenate([spikes, 0.1 * jnp.ones(2)]) @ jnp.concatenate([w_out, w_out[:2]]),
    }


def with_drive(what: str, spare: bool = False) -> ranvier.types.StepFunction:
    """LIF neurons without recurrence and a leaky readout, driven as ``what`` has it."""

    def step(params, state, x):
        old = spike(state["v"] - THRESHOLD)
        v = ALPHA * state["v"] + x @ params["w_in"] - THRESHOLD * jax.lax.stop_gradient(old)
        z = spike(v - THRESHOLD)
        r = 0.7 * state["r"] + drive(params["w_out"], z, old, state["line"])[what]
        new = {"v": v, "r": r, "line": jnp.concatenate([z[None], state["line"][:-1]])}
        return (new | {"spare": state["spare"]}, r + state["spare"]) if spare else (new, r)

    params = {"w_in": normal(0, N_IN, 6, dtype=jnp.float64), "w_out": normal(2, 6, N_OUT, dtype=jnp.float64)}
    state = zeros(jnp.float64, v=(6,), r=(N_OUT,), line=(3, 6)) | ({"spare": jnp.ones(N_OUT)} if spare else {})
    return ranvier.step_function(step, params, state)


@few("what", drive(jnp.ones((6, N_OUT)), jnp.ones(6), jnp.ones(6), jnp.ones((3, 6))))
def test_what_lies_between_spikes_and_readout_is_filtered_with_them(what: str) -> None:
    """Without recurrence e-prop with the readout's filter is BPTT; without the filter it is not."""
    model = with_drive(what)
    learner = learner_of(model, ranvier.EProp(), 4)
    assert not learner.plan.dropped
    expected = gradient(model, ranvier.BPTT())
    assert difference(learner.grad(error_loss, *data())[0], expected) < ROUNDING
    assert difference(gradient(model, ranvier.EProp(filter=None), 4), expected) > 1e-3


@pytest.mark.slow
def test_a_state_that_never_changes_is_no_part_of_the_readout() -> None:
    model = with_drive("mean of pairs", spare=True)
    assert difference(gradient(model, ranvier.EProp(), 4), gradient(model, ranvier.BPTT())) < ROUNDING


def test_a_pool_that_spikes_decide_is_listed() -> None:
    """The largest of each window is another neuron from step to step: no filter of the spikes stands for that."""

    def step(params, state, x):
        v = ALPHA * state["v"] + x @ params["w_in"]
        r = 0.7 * state["r"] + spike(v - THRESHOLD).reshape(N_POOLED, 2).max(-1) @ params["w_out"][:N_POOLED]
        return {"v": v, "r": r}, r

    model = replace(with_drive("constant mask"), step=step, state=zeros(jnp.float64, v=(6,), r=(N_OUT,)))
    (line,) = learner_of(model, ranvier.EProp(), 4).plan.dropped
    assert "reduce_max" in line


# Readouts that are none -------------------------------------------------------------------------------------------


def second_layer(z, state, params):
    b = 0.7 * state["b"] + z @ params["u"]
    return b, 0.7 * state["r"] + jnp.tanh(b) @ params["w_out"]


def linear_cascade(z, state, params):
    b = 0.7 * state["b"] + z @ params["u"]
    return b, 0.7 * state["r"] + b @ params["w_out"]


def synapse_and_membrane(z, state, params):
    b = 0.7 * state["b"] + z @ params["w_out"]
    return b, 0.7 * state["r"] + b


@pytest.mark.parametrize("onward", [second_layer, linear_cascade, synapse_and_membrane])
def test_what_integrates_and_feeds_another_state_is_no_readout(onward) -> None:
    """Both integrators have one decay, but one filter of the spikes does not stand for two of them in a row."""

    def step(params, state, x):
        v = ALPHA * state["v"] + x @ params["w_in"]
        b, r = onward(jnp.tanh(v), state, params)
        return {"v": v, "b": b, "r": r}, r

    width = N_OUT if onward is synapse_and_membrane else N_REC
    params = LIF.params | {"u": normal(7, N_REC, N_REC, dtype=jnp.float64)}
    state = zeros(jnp.float64, v=(N_REC,), b=(width,), r=(N_OUT,))
    model = ranvier.step_function(step, params, state)
    (line,) = learner_of(model, ranvier.EProp(), 4).plan.dropped
    assert line.startswith("projection: v into group")
    assert difference(gradient(model, ranvier.EProp(), 4), gradient(model, ranvier.BPTT())) > 1e-2


def largest_of_pairs(z, state, params):
    """Which of two neurons the readout sees changes with the data."""
    return jax.lax.stop_gradient(state["b"]), 0.7 * state["r"] + z[: 2 * N_OUT].reshape(N_OUT, 2).max(-1)


def weights_by_data(z, state, params):
    return 0.9 * state["b"], 0.7 * state["r"] + z @ (params["w_out"] * state["b"][:N_OUT])


@pytest.mark.parametrize("onward", [largest_of_pairs, weights_by_data])
def test_what_data_change_between_neurons_and_readout_is_not_filtered(onward) -> None:
    def step(params, state, x):
        v = ALPHA * state["v"] + x @ params["w_in"]
        b, r = onward(jnp.tanh(v), state, params)
        return {"v": v, "b": b, "r": r}, r

    state = {"v": jnp.zeros(N_REC), "b": normal(7, N_REC, dtype=jnp.float64), "r": jnp.zeros(N_OUT)}
    model = ranvier.step_function(step, LIF.params, state)
    dropped = learner_of(model, ranvier.EProp(), 4).plan.dropped
    assert any(line.startswith("projection: v into group") for line in dropped)
    assert difference(gradient(model, ranvier.EProp(), 4), gradient(model, ranvier.BPTT())) > 1e-2


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"feedback": "none"}, "symmetric, random, adaptive"),
        ({"filter": 1.0}, "from 0 to 1, less than 1"),
        ({"filter": -0.1}, "from 0 to 1, less than 1"),
        ({"filter": "kappa"}, "from 0 to 1, less than 1"),
        ({"filter": float("nan")}, "from 0 to 1, less than 1"),
    ],
)
def test_bad_options(options, what: str) -> None:
    with pytest.raises(ranvier.RuleError, match=what):
        ranvier.EProp(**options)


def decay_by_state(old, current):
    return jnp.tanh(old) + current


@pytest.mark.slow
@pytest.mark.parametrize("readout", [decay_by_state])
def test_a_readout_without_one_constant_decay(readout) -> None:
    model = LIF.model(readout=readout)
    with pytest.raises(ranvier.RuleError, match=r"one constant decay.*filter=") as caught:
        learner_of(model, ranvier.EProp())
    assert "v" in str(caught.value)
    expected = gradient(model, ranvier.EProp(filter=None), 4)
    assert difference(gradient(model, ranvier.EProp(filter=0.7), 4), expected) > 1e-3


def with_decays(decays, to_readout=lambda current: current, bias: float = 0.0) -> ranvier.types.StepFunction:
    """LIF neurons without recurrence, and leaky readouts with decays of their own."""
    decays, n = jnp.asarray(decays), len(decays)

    def step(params, state, x):
        v = ALPHA * state["v"] + x @ params["w_in"]
        z = spike(v - THRESHOLD)
        r = decays * state["r"] + to_readout(z @ params["w_out"]) + bias
        return {"v": v, "r": r}, r

    params = {"w_in": normal(0, N_IN, N_REC, dtype=jnp.float64), "w_out": normal(2, N_REC, n, dtype=jnp.float64)}
    return ranvier.step_function(step, params, zeros(jnp.float64, v=(N_REC,), r=(n,)))


def by_backpropagation(model) -> dict:
    """The gradient by JAX's reverse mode through the whole sequence."""

    def total(params):
        def one(state, given):
            state, output = model.step(params, state, given[0])
            return state, error_loss(output, given[1])

        return jax.lax.scan(one, model.state, data_for(model))[1].sum()

    return {(name,): g for name, g in jax.grad(total)(model.params).items()}


def data_for(model) -> tuple[jax.Array, jax.Array]:
    """Inputs, and targets for as many readouts as the model has."""
    xs, ys = data()
    return xs, jnp.tile(ys, (1, 9))[:, : model.state["r"].size]


@pytest.mark.parametrize(
    ("decays", "filters"),
    [
        pytest.param((0.5, 0.9), 2, id="two", marks=pytest.mark.slow),
        pytest.param((0.9, 0.5, 0.9, 0.0, 0.5), 3, id="some alike"),
        pytest.param(tuple(np.linspace(0.1, 0.9, 16)), 16, id="sixteen", marks=pytest.mark.slow),
    ],
)
def test_every_decay_of_the_readouts_has_a_filter(decays, filters: int) -> None:
    """Without recurrence e-prop with the readouts' filters is BPTT; with one filter for all it is not."""
    model = with_decays(decays)
    expected, (xs, ys) = by_backpropagation(model), data_for(model)
    for chunk in (1, 3, None) if filters == 3 else (3,):
        learner = learner_of(model, ranvier.EProp(), chunk)
        assert not learner.plan.dropped
        assert difference(learner.grad(error_loss, xs, ys)[0], expected) < ROUNDING
    assert sum("filter" in name for trace in learner.info.hidden for name in map(str, trace.path)) == filters
    for rule in (ranvier.EProp(filter=None), ranvier.EProp(filter=0.7)):
        assert difference(learner_of(model, rule, 3).grad(error_loss, xs, ys)[0], expected) > 1e-3


def test_a_filter_for_every_readout_behind_a_permutation() -> None:
    model = with_decays((0.5, 0.9, 0.7), lambda current: 0.3 * current[::-1], 0.1)
    xs, ys = data_for(model)
    found = learner_of(model, ranvier.EProp(), 3).grad(error_loss, xs, ys)[0]
    assert difference(found, by_backpropagation(model)) < ROUNDING


@pytest.mark.slow
def test_a_projection_to_a_readout_and_to_an_output_has_a_filter_for_the_readout_only() -> None:
    def step(params, state, x):
        v = ALPHA * state["v"] + x @ params["w_in"]
        z = spike(v - THRESHOLD)
        r = 0.8 * state["r"] + z @ params["w_out"]
        return {"v": v, "r": r}, (r, z @ params["w_now"])

    params = {
        name: normal(k, *shape, dtype=jnp.float64)
        for k, (name, shape) in enumerate({"w_in": (N_IN, 6), "w_out": (6, 2), "w_now": (6, 2)}.items())
    }
    model = ranvier.step_function(step, params, zeros(jnp.float64, v=(6,), r=(2,)))

    def both(output, target):
        return error_loss(output[0], target) + (output[1] * target).sum()

    xs, ys = data()
    ys = ys[:, :1] * jnp.ones(2)

    def total(params):
        def one(state, given):
            state, output = step(params, state, given[0])
            return state, both(output, given[1])

        return jax.lax.scan(one, model.state, (xs, ys))[1].sum()

    expected = {(name,): g for name, g in jax.grad(total)(params).items()}
    learner = learner_of(model, ranvier.EProp(), 3)
    assert not learner.plan.dropped
    assert difference(learner.grad(both, xs, ys)[0], expected) < ROUNDING


@pytest.mark.parametrize(
    ("decays", "to_readout", "what"),
    [
        (np.linspace(0.1, 0.9, 17), lambda current: current, "17 different decays.*at most 16"),
        ((0.5, 0.9), lambda current: current.sum() * jnp.ones(2), "one result of the projection feeds several"),
    ],
)
def test_readouts_whose_decays_allow_no_filter(decays, to_readout, what: str) -> None:
    with pytest.raises(ranvier.RuleError, match=rf"{what}.*filter="):
        learner_of(with_decays(decays, to_readout), ranvier.EProp())


@pytest.mark.parametrize("feedback", ["random", "adaptive"])
def test_feedback_needs_a_readout(feedback: str) -> None:
    def step(params, state, x):
        v = 0.8 * state["v"] + x @ params["w"]
        return {"v": v}, spike(v - 1.0)

    model = ranvier.step_function(step, {"w": jnp.ones((N_IN, N_REC))}, {"v": jnp.zeros(N_REC)})
    with pytest.raises(ranvier.RuleError, match=r"readout.*symmetric"):
        learner_of(model, ranvier.EProp(feedback))
