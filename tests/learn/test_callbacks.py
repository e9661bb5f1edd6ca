"""Calls of the host within a step: allowed where no derivative passes them, also for several steps at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.learning import learning

pytestmark = learning
N, STEPS = 3, 7
XS = np.random.default_rng(1).normal(size=(STEPS, N))


def on_host(function: Callable[[Any], Any], value: Any, **options: Any) -> Any:
    shape = jax.ShapeDtypeStruct(value.shape, value.dtype)
    return jax.pure_callback(lambda x: np.asarray(function(np.asarray(x))), shape, value, **options)


def monitored(p: Any, s: Any, x: Any) -> Any:
    v = 0.8 * s["v"] + x @ p["w"]
    return {"v": v}, v * on_host(np.cos, jax.lax.stop_gradient(v))


def encoded(p: Any, s: Any, x: Any) -> Any:
    v = 0.8 * s["v"] + (x + on_host(np.cos, x)) @ p["w"]
    return {"v": v}, v


def model_of(step: Any) -> ranvier.types.StepFunction:
    return ranvier.step_function(step, {"w": jnp.asarray(XS[:N])}, {"v": jnp.zeros(N)}, name=step.__name__)


def loss(output: Any, _: Any) -> Any:
    return jnp.sin(output).sum()


def by_hand(step: Any, xs: Any) -> Any:
    """JAX's own gradient of the sequence written out, with numpy's cosine in JAX."""

    def total(w: Any) -> Any:
        v, losses = jnp.zeros(N), 0.0
        for x in xs:
            v = 0.8 * v + (x + jnp.cos(x) if step is encoded else x) @ w
            losses += loss(v if step is encoded else v * jnp.cos(jax.lax.stop_gradient(v)), None)
        return losses

    return jax.grad(total)(jnp.asarray(XS[:N]))


@pytest.mark.parametrize("step", [monitored, encoded])
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.RTRL(), ranvier.BPTT()], ids=str)
def test_what_no_derivative_passes_may_be_computed_by_the_host(step: Any, rule: ranvier.Rule) -> None:
    learner = ranvier.compile(model_of(step), rule, XS[0], chunk=3, batch_size=2)
    found, _ = learner.grad(loss, np.stack([XS, 0.5 * XS], axis=1))
    np.testing.assert_allclose(found["w",], by_hand(step, XS) + by_hand(step, 0.5 * XS), rtol=1e-10)


def test_what_a_derivative_passes_may_not() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.8 * s["v"] + x @ p["w"]
        return {"v": v}, on_host(np.cos, v)

    with pytest.raises(ranvier.RuleError, match=r"no derivative passes through pure_callback"):
        ranvier.compile(model_of(step), ranvier.D_RTRL(), XS[0])


def declared(**options: Any) -> ranvier.types.StepFunction:
    @jax.custom_jvp
    def squashed(v: Any) -> Any:
        return on_host(np.tanh, v, **options)

    @squashed.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return squashed(*primals), (1 - jnp.tanh(primals[0]) ** 2) * tangents[0]

    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.8 * s["v"] + squashed(x @ p["w"])
        return {"v": v}, v

    return model_of(step)


def test_inside_a_declared_function_the_call_must_say_how_it_runs_for_several() -> None:
    with pytest.raises(ranvier.RuleError, match=r"pure_callback at .*test_callbacks.*vmap_method='sequential'"):
        ranvier.compile(declared(), ranvier.D_RTRL(), XS[0])
    ranvier.compile(declared(), ranvier.BPTT(), XS[0]).grad(loss, XS)
    found, exact = (
        ranvier.compile(declared(vmap_method="sequential"), rule, XS[0], chunk=chunk).grad(loss, XS)[0]
        for rule, chunk in ((ranvier.D_RTRL(), 3), (ranvier.BPTT(), None))
    )
    np.testing.assert_allclose(found["w",], exact["w",], rtol=1e-10)
