"""ThreeFactor against its formula, written step by step in numpy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.learning import difference, learning, part
from tests.support.zoo.model import normal, spike, uniform, zeros

pytestmark = learning

ROUNDING = 1e-11
STEPS, N_IN, N_REC, N_OUT = 12, 3, 5, 2
LEAK, KAPPA, THRESHOLD, DECAY = 0.8, 0.7, 0.6, 0.85
SHAPES = {"w_in": (N_IN, N_REC), "w_rec": (N_REC, N_REC), "w_out": (N_REC, N_OUT), "b_out": (N_OUT,)}
PARAMS = {name: np.random.default_rng(k).normal(0.0, 0.8, shape) for k, (name, shape) in enumerate(SHAPES.items())}


def error_loss(output, target):
    return 0.5 * ((output - target) ** 2).sum()


def network() -> ranvier.types.StepFunction:
    """Recurrent LIF neurons and a leaky readout with a bias."""

    def step(params, state, x):
        z = spike(state["v"] - THRESHOLD)
        v = LEAK * state["v"] + x @ params["w_in"] + z @ params["w_rec"] - THRESHOLD * z
        r = KAPPA * state["r"] + spike(v - THRESHOLD) @ params["w_out"]
        return {"v": v, "r": r}, r + params["b_out"]

    return ranvier.step_function(
        step, {name: jnp.asarray(w) for name, w in PARAMS.items()}, zeros(jnp.float64, v=(N_REC,), r=(N_OUT,))
    )


def summed_errors(output, target):
    return (output - target).sum()


def reward(output, target):
    """Signed by the target, and no gradient of anything."""
    return np.tanh(target[0]) * output[1] if isinstance(output, np.ndarray) else jnp.tanh(target[0]) * output[1]


def three_factor(xs, ys, modulator=summed_errors, weights=None) -> tuple[dict, np.ndarray]:
    """The gradient of one sample, and its spikes ``[STEPS, N_REC]``."""
    w_in, w_rec, w_out, b_out = PARAMS.values()
    xs, ys = np.asarray(xs), np.asarray(ys)
    v, z, r = np.zeros(N_REC), np.zeros(N_REC), np.zeros(N_OUT)
    e = np.zeros((N_IN + N_REC, N_REC))
    total = {("b_out",): np.zeros_like(b_out), ("w_out",): np.zeros_like(w_out)}
    recurrent, spikes = np.zeros_like(e), []
    for x, y, weight in zip(xs, ys, np.ones(len(xs)) if weights is None else np.asarray(weights)):
        pre = np.concatenate([x, z])
        v = LEAK * v + x @ w_in + z @ w_rec - THRESHOLD * z
        z = (v >= THRESHOLD).astype(float)
        psi = 1 / (1 + 2 * np.abs(v - THRESHOLD)) ** 2
        r = KAPPA * r + z @ w_out
        e = DECAY * e + psi * pre[:, None]
        error = weight * (r + b_out - y)
        m = weight * modulator(r + b_out, y) if modulator is summed_errors else modulator(r + b_out, y)
        recurrent += m * e
        total["w_out",] += z[:, None] * error
        total["b_out",] += error
        spikes.append(z)
    return {**total, ("w_in",): recurrent[:N_IN], ("w_rec",): recurrent[N_IN:]}, np.array(spikes)


def data(*lead: int) -> tuple[jax.Array, jax.Array]:
    xs = uniform(5, STEPS, *lead, N_IN, dtype=jnp.float64, low=-0.5, high=1.5)
    return xs, normal(6, STEPS, *lead, N_OUT, dtype=jnp.float64)


def learner_of(rule=ranvier.ThreeFactor(DECAY), **options) -> ranvier.types.Learner:  # noqa: B008
    return ranvier.compile(network(), rule, jnp.ones(N_IN), **options)


def test_the_network_is_alive() -> None:
    expected, spikes = three_factor(*data())
    assert 0.1 < spikes.mean() < 0.9
    assert all((np.abs(g) > 1e-6).any(axis=0).all() for g in expected.values())


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, None])
def test_the_formula(chunk: int | None) -> None:
    found, _ = learner_of(chunk=chunk).grad(error_loss, *data())
    assert difference(found, three_factor(*data())[0]) < ROUNDING


def test_the_decay_matters() -> None:
    expected = three_factor(*data())[0]
    for decay in (0.0, 0.5):
        found, _ = learner_of(ranvier.ThreeFactor(decay)).grad(error_loss, *data())
        assert difference(found, expected) > 1e-2
        for path in (("w_out",), ("b_out",)):
            assert difference(found[path], expected[path]) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, None])
def test_a_modulator_given(chunk: int | None) -> None:
    found, _ = learner_of(ranvier.ThreeFactor(DECAY, reward), chunk=chunk).grad(error_loss, *data())
    assert difference(found, three_factor(*data(), reward)[0]) < ROUNDING
    assert difference(found, three_factor(*data())[0]) > 1e-2


@pytest.mark.slow
def test_errors_are_those_of_the_mask() -> None:
    mask = uniform(7, STEPS, dtype=jnp.float64)
    found, _ = learner_of(chunk=5).grad(error_loss, *data(), mask=mask)
    assert difference(found, three_factor(*data(), weights=mask)[0]) < ROUNDING


@pytest.mark.slow
def test_the_readout_has_its_same_step_gradient() -> None:
    """A leaky readout's memory is left out; BPTT has it."""
    found, _ = learner_of().grad(error_loss, *data())
    bptt = ranvier.compile(network(), ranvier.BPTT(), jnp.ones(N_IN))
    expected, _ = bptt.grad(error_loss, *data())
    assert difference(found["b_out",], expected["b_out",]) < ROUNDING
    assert difference(found["w_out",], expected["w_out",]) > 1e-2
    state, total = bptt.init(), jnp.zeros((N_REC, N_OUT))
    xs, ys = data()
    for t in range(STEPS):
        grads, aux = bptt.grad(error_loss, part(xs, t, t + 1), part(ys, t, t + 1), state=state)
        state, total = aux.state, total + grads["w_out",]
    assert difference(found["w_out",], total) < ROUNDING


def batch_loss(output, target):
    return jax.vmap(error_loss)(output, target).sum()


@pytest.mark.slow
@pytest.mark.parametrize("modulator", [None, reward], ids=["errors", "given"])
@pytest.mark.parametrize("chunk", [1, 5])
def test_every_sample_of_a_batch_has_a_modulator_of_its_own(modulator, chunk: int) -> None:
    size, (xs, ys) = 3, data(3)
    rule = ranvier.ThreeFactor(DECAY, None if modulator is None else jax.vmap(modulator))
    found, _ = learner_of(rule, batch_size=size, chunk=chunk).grad(batch_loss, xs, ys)
    by_sample = [three_factor(xs[:, b], ys[:, b], modulator or summed_errors)[0] for b in range(size)]
    assert difference(found, jax.tree.map(lambda *g: sum(g), *by_sample)) < ROUNDING


@pytest.mark.slow
def test_one_modulator_for_a_whole_batch() -> None:
    """A scalar is the signal of all samples."""
    (xs, ys), size = data(2), 2

    def shared(output, target):
        return jnp.asarray(0.7)

    found, _ = learner_of(ranvier.ThreeFactor(DECAY, shared), batch_size=size, chunk=5).grad(batch_loss, xs, ys)
    by_sample = [three_factor(xs[:, b], ys[:, b], lambda output, target: 0.7)[0] for b in range(size)]
    assert difference(found, jax.tree.map(lambda *g: sum(g), *by_sample)) < ROUNDING


@pytest.mark.slow
def test_calls_go_on_where_the_last_one_ended() -> None:
    learner, (xs, ys) = learner_of(chunk=3), data()
    first, aux = learner.grad(error_loss, part(xs, 0, 7), part(ys, 0, 7))
    second, _ = learner.grad(error_loss, part(xs, 7, STEPS), part(ys, 7, STEPS), state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), three_factor(xs, ys)[0]) < ROUNDING


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_bad_decay(decay: float) -> None:
    with pytest.raises(ranvier.RuleError, match="decay"):
        ranvier.ThreeFactor(decay)


@pytest.mark.parametrize("addressed", [False, True], ids=["line", "ring"])
def test_outputs_that_read_a_delay_only_are_refused_with_the_reason(addressed: bool) -> None:
    def step(params, state, x):
        v = 0.9 * state["v"] + x @ params["w"]
        z, k = spike(v - 1.0), state["k"]
        late = state["line"][(k + 1) % 3] if addressed else state["line"][-1]
        line = state["line"].at[k % 3].set(z) if addressed else jnp.concatenate([z[None], state["line"][:-1]])
        return {"v": v, "line": line, "k": k + 1}, late @ params["o"]

    state = {**zeros(jnp.float64, v=(4,), line=(3, 4)), "k": jnp.zeros((), jnp.int32)}
    model = ranvier.step_function(step, {"w": jnp.ones((3, 4)), "o": jnp.ones((4, 2))}, state)
    with pytest.raises(ranvier.RuleError, match=r"read line of an earlier step.*delay line.*D_RTRL or EProp"):
        ranvier.compile(model, ranvier.ThreeFactor(), jnp.zeros(3))


def test_a_model_without_an_emitting_population_is_refused() -> None:
    def step(params, state, x):
        v = 0.8 * state["v"] + x @ params["w"]
        return {"v": v}, spike(v - 1.0)

    model = ranvier.step_function(step, {"w": jnp.ones((N_IN, N_REC))}, zeros(jnp.float64, v=(N_REC,)))
    with pytest.raises(ranvier.RuleError, match=r"no population.*D_RTRL"):
        ranvier.compile(model, ranvier.ThreeFactor(), jnp.ones(N_IN))
