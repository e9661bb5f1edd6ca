"""A learner for a batch gives the sum over the samples, by every rule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import difference, flat, learning, part
from tests.support.zoo.model import normal, spike, uniform, zeros

pytestmark = learning

ROUNDING = 1e-11
STEPS, SIZE, N_IN, N_REC, N_OUT = 8, 3, 3, 4, 2


def network() -> ranvier.types.StepFunction:
    """Recurrent adaptive LIF neurons and a leaky readout with a bias."""

    def step(params, state, x):
        z = spike(state["v"] - 0.6 - 0.3 * state["a"])
        v = 0.8 * state["v"] + x @ params["w_in"] + z @ params["w_rec"] - 0.6 * jax.lax.stop_gradient(z)
        a = 0.9 * state["a"] + z
        r = 0.7 * state["r"] + spike(v - 0.6 - 0.3 * a) @ params["w_out"]
        return {"v": v, "a": a, "r": r}, r + params["b"]

    shapes = {"w_in": (N_IN, N_REC), "w_rec": (N_REC, N_REC), "w_out": (N_REC, N_OUT), "b": (N_OUT,)}
    params = {name: normal(k, *shape, dtype=jnp.float64, scale=0.8) for k, (name, shape) in enumerate(shapes.items())}
    return ranvier.step_function(step, params, zeros(jnp.float64, v=(N_REC,), a=(N_REC,), r=(N_OUT,)))


def loss(output, target):
    return 0.5 * ((output - target) ** 2).sum()


def data() -> tuple[jax.Array, jax.Array]:
    xs = uniform(5, STEPS, SIZE, N_IN, dtype=jnp.float64, low=-0.5, high=1.5)
    return xs, normal(6, STEPS, SIZE, N_OUT, dtype=jnp.float64)


def learner_of(rule, batch_size=None, chunk=None, **options) -> ranvier.types.Learner:
    return ranvier.compile(network(), rule, jnp.ones(N_IN), batch_size=batch_size, chunk=chunk, **options)


def by_sample(rule, chunk=None, **options) -> tuple[dict, ranvier.types.Aux]:
    """Gradients of the samples, ``[SIZE, ...]``."""
    learner = learner_of(rule, chunk=chunk, **options)
    return jax.vmap(lambda xs, ys: learner.grad(loss, xs, ys), in_axes=1)(*data())


def summed(gradients: dict) -> dict:
    return jax.tree.map(lambda g: g.sum(0), gradients)


RULES = [
    *(ranvier.BPTT(), ranvier.RTRL(), ranvier.D_RTRL(), ranvier.ES_D_RTRL(decay=0.8)),
    *(ranvier.OTTT(0.8), ranvier.EProp(), ranvier.EProp("random"), ranvier.ThreeFactor()),
    *(ranvier.SnAp(1), ranvier.SnAp(2), ranvier.OSTL()),
]


@few("rule", RULES, ids=str)
def test_a_batch_is_the_sum_of_its_samples(rule) -> None:
    found, aux = learner_of(rule, SIZE, 4).grad(loss, *data())
    gradients, aux_by_sample = by_sample(rule, 4)
    expected = summed(gradients)
    assert difference(found, expected) < ROUNDING
    assert all((np.abs(g) > 1e-6).any() for g in expected.values())
    assert difference(jax.tree.map(lambda g: g[0], gradients), jax.tree.map(lambda g: g[1], gradients)) > 1e-2
    np.testing.assert_allclose(aux.losses, aux_by_sample.losses.sum(0))
    np.testing.assert_allclose(aux.outputs, jnp.moveaxis(aux_by_sample.outputs, 0, 1), atol=1e-12)


def test_one_sample_is_a_batch() -> None:
    xs, ys = (x[:, :1] for x in data())
    found, _ = learner_of(ranvier.ThreeFactor(), 1, 4).grad(loss, xs, ys)
    expected, _ = learner_of(ranvier.ThreeFactor(), None, 4).grad(loss, xs[:, 0], ys[:, 0])
    assert difference(found, expected) < ROUNDING


def test_adaptive_feedback_is_shared_by_the_samples() -> None:
    """It moves against the gradient of the whole batch."""
    rule = ranvier.EProp("adaptive", feedback_rate=0.05, feedback_decay=0.01)
    learner, single = learner_of(rule, SIZE, STEPS), learner_of(rule, None, STEPS)
    (before,), (same,) = learner.init().memory.feedback, single.init().memory.feedback
    np.testing.assert_array_equal(before, same)
    found, aux = learner.grad(loss, *data())
    assert difference(found, summed(by_sample(rule, STEPS)[0])) < ROUNDING
    np.testing.assert_allclose(aux.state.memory.feedback[0], 0.99 * before - 0.05 * found["w_out",], rtol=1e-10)


def test_uoro_is_unbiased_for_a_batch() -> None:
    samples, steps, learner = 3000, 4, learner_of(ranvier.UORO(), SIZE)
    xs, ys = (part(x, 0, steps) for x in data())

    def one(seed):
        grads, _ = learner.grad(loss, xs, ys, state=learner.restart(None, None, seed), keep_state=False)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(grads)])

    found = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(samples)))
    expected = flat(learner_of(ranvier.BPTT(), SIZE).grad(loss, xs, ys)[0])
    error = found.std(0) / np.sqrt(samples)
    assert (np.abs(found.mean(0) - expected) <= 4 * error + 1e-10 * np.abs(expected).max()).all()
    assert np.abs(found - expected).max(1).min() > 1e-3 * np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.BPTT(), ranvier.SnAp(1)], ids=str)
def test_the_mean_is_over_the_steps(rule) -> None:
    """The samples are still summed by the loss."""
    found, aux = learner_of(rule, SIZE, 4, reduction="mean").grad(loss, *data())
    expected = jax.tree.map(lambda g: g / STEPS, summed(by_sample(rule, 4)[0]))
    assert difference(found, expected) < ROUNDING
    np.testing.assert_allclose(aux.loss, aux.losses.sum())


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp("random"), ranvier.OSTL()], ids=str)
def test_calls_go_on_where_the_last_one_ended(rule) -> None:
    learner, (xs, ys) = learner_of(rule, SIZE, 2), data()
    whole, _ = learner.grad(loss, xs, ys)
    first, aux = learner.grad(loss, part(xs, 0, 5), part(ys, 0, 5))
    second, _ = learner.grad(loss, part(xs, 5, STEPS), part(ys, 5, STEPS), state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < ROUNDING


def test_inputs_without_the_batch_axis_are_refused() -> None:
    xs, ys = data()
    with pytest.raises(ranvier.InputError, match=rf"\[T,{SIZE},{N_IN}\]"):
        learner_of(ranvier.D_RTRL(), SIZE).grad(loss, xs[:, 0], ys[:, 0])
