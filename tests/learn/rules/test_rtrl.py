"""The exact rules: RTRL and BPTT are the same gradient, that of finite differences and of a loop written out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.learning import (
    T,
    difference,
    every_differentiable_model,
    flat,
    gradient,
    learning,
    loss,
    part,
    phases,
    sequence,
    zoo_gradient,
    zoo_program,
)
from tests.support.zoo import MODELS

pytestmark = learning


@every_differentiable_model
def test_rtrl_is_bptt(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.RTRL(), chunk=3), zoo_gradient(name, ranvier.BPTT())) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lru", "gru", "lstm"])
def test_bptt_is_the_finite_difference(name: str) -> None:
    """For every parameter, the derivative of the total loss along a random direction."""
    info, xs = zoo_program(name)
    learner = ranvier.compile(info, ranvier.BPTT())
    grads, _ = learner.grad(loss, xs, phases())
    rng = np.random.default_rng(0)

    def total(path, shift):
        return float(learner.grad(loss, xs, phases(), params={path: learner.params[path] + shift})[1].loss)

    for path, value in learner.params.items():
        direction = 1e-5 * jnp.asarray(rng.normal(size=value.shape))
        measured = (total(path, direction) - total(path, -direction)) / 2
        np.testing.assert_allclose(measured, (grads[path] * direction).sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["recurrent_lif_with_readout", "ring_buffer_with_counter", "three_layers"])
def test_bptt_is_the_gradient_of_the_loop_written_out(name: str) -> None:
    model, inputs = MODELS[name].build(jnp.float64)
    xs = sequence(inputs)

    def total(params):
        state, losses = model.state, []
        for t in range(T):
            state, output = model.step(params, state, xs[t])
            losses.append(loss(output, phases()[t]))
        return sum(losses)

    expected = jax.jit(jax.grad(total))(model.params)
    found = gradient(model, ranvier.BPTT(), xs, inputs)
    assert difference(found, {(name,): value for name, value in expected.items()}) < 1e-12
    assert flat(expected).any()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gru", "lif_network"])
def test_rtrl_goes_on_where_bptt_is_truncated(name: str) -> None:
    """Over two calls, RTRL sums to the whole gradient; BPTT takes the state of the first call as given."""
    info, xs = zoo_program(name)

    def in_two_calls(rule):
        learner = ranvier.compile(info, rule)
        first, aux = learner.grad(loss, part(xs, 0, T // 2), phases()[: T // 2])
        second, _ = learner.grad(loss, part(xs, T // 2, T), phases()[T // 2 :], state=aux.state)
        return jax.tree.map(jnp.add, first, second)

    whole = zoo_gradient(name, ranvier.BPTT())
    assert difference(in_two_calls(ranvier.RTRL()), whole) < 1e-10
    assert difference(in_two_calls(ranvier.BPTT()), whole) > 1e-3
