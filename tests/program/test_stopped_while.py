"""A ``while`` that ``stop_gradient`` cuts off needs no derivative: every rule learns, as JAX's reverse mode does."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import ranvier
from ranvier import BPTT, D_RTRL, RTRL, Rule
from tests.support.examples import few
from tests.support.learning import difference

XS = jax.random.normal(jax.random.key(0), (5, 3))
W = 0.3 * jax.random.normal(jax.random.key(1), (3, 4))


def settled(x: Any) -> Any:
    return jax.lax.while_loop(lambda x: jnp.abs(x).sum() > 1, lambda x: 0.5 * x, x)


def stopped(x: Any) -> Any:
    return jax.lax.stop_gradient(settled(x))


WHILES = {
    "result": stopped,
    "operand": lambda u: settled(jax.lax.stop_gradient(u)),
    "compared": lambda u: (settled(u) > 0.1).astype(u.dtype),
    "in a branch": lambda u: jax.lax.cond(u[0] > 0, lambda u: u + stopped(u), jnp.tanh, u),
    "in a loop": lambda u: jax.lax.scan(lambda c, _: (0.9 * c + stopped(c), None), u, length=100)[0],
}


def model(of: Any) -> ranvier.types.StepFunction:
    def step(params: Any, state: Any, x: Any) -> Any:
        current = state["v"] + x @ params["w"]
        v = 0.9 * current + of(current)
        return {"v": v}, v

    return ranvier.step_function(step, {"w": W}, {"v": jnp.zeros(4)})


def loss(output: Any, target: Any) -> Any:
    return (output**2).sum()


def by_jax(of: Any) -> Any:
    made = model(of)

    def total(params: Any) -> Any:
        def one(state: Any, x: Any) -> Any:
            state, output = made.step(params, state, x)
            return state, loss(output, None)

        return jax.lax.scan(one, made.state, XS)[1].sum()

    return {("w",): jax.grad(total)(made.params)["w"]}


@few("kind", WHILES, quick=1)
@pytest.mark.parametrize("rule", [BPTT(), RTRL(), D_RTRL()], ids=lambda rule: rule.name)
def test_a_stopped_while_needs_no_derivative(rule: Rule, kind: str) -> None:
    learner = ranvier.compile(model(WHILES[kind]), rule, XS[0])
    assert difference(learner.grad(loss, XS, jnp.zeros(5))[0], by_jax(WHILES[kind])) < 1e-5


@pytest.mark.parametrize(
    "of", [settled, lambda u: jax.lax.cond(u[0] > 0, settled, lambda u: u, u)], ids=["step", "branch"]
)
def test_backpropagation_refuses_a_while_whose_derivative_it_needs(of: Any) -> None:
    with pytest.raises(ranvier.RuleError, match="BPTT differentiates the steps in reverse mode"):
        ranvier.compile(model(of), BPTT(), XS[0])
