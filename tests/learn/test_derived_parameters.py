"""Parameters that enter a step both as they are and through values that are made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few

Step = Callable[[Any, Any, Any], Any]


def _leaky(p: Any, v: Any, x: Any) -> Any:
    decay = jnp.exp(-1 / p["tau"])
    return decay * v + (1 - decay) * (x @ p["w"])


STEPS: dict[str, Step] = {
    "decay and one minus decay": _leaky,
    "decay and gain": lambda p, v, x: jnp.exp(-1 / p["tau"]) * v + x @ p["w"] / p["tau"],
    "decay, gain and bias": lambda p, v, x: p["tau"] / 10 * v + x @ p["w"] + p["tau"],
    "decay twice": lambda p, v, x: p["tau"] / 10 * v * (1 - p["tau"] / 10) + x @ p["w"] + p["tau"],
    "normalized weights": lambda p, v, x: 0.9 * v + (x @ p["w"]) / jnp.linalg.norm(p["w"], axis=0),
    "weights and their size": lambda p, v, x: 0.9 * v + x @ p["w"] + x**2 @ jnp.abs(p["w"]),
    "weights and their row": lambda p, v, x: 0.9 * v + x @ p["w"] + p["w"][0] * v / 10,
}


def learner(step: Step, rule: Any) -> ranvier.types.Learner:
    keys = jax.random.split(jax.random.key(3), 2)
    params = {
        "w": jax.random.normal(keys[0], (3, 4)),
        "out": jax.random.normal(keys[1], (4, 2)),
        "tau": jnp.array([3.0, 4.0, 5.0, 6.0]),
    }

    def whole(p: Any, s: Any, x: Any) -> Any:
        v = step(p, s["v"], x)
        return {"v": v}, v @ p["out"]

    return ranvier.compile(ranvier.step_function(whole, params, {"v": jnp.zeros(4)}), rule, jnp.ones(3))


def gradient(step: Step, rule: Any, steps: int = 12) -> dict[Any, np.ndarray]:
    keys = jax.random.split(jax.random.key(4), 2)
    xs, ys = jax.random.normal(keys[0], (steps, 3)), jax.random.normal(keys[1], (steps, 2))
    grads, _ = learner(step, rule).grad(lambda o, t: ((o - t) ** 2).sum(), xs, ys)
    return {path: np.asarray(found) for path, found in grads.items()}


@pytest.mark.parametrize("rule", [ranvier.RTRL(), ranvier.D_RTRL(), ranvier.SnAp(9), ranvier.OSTL()])
@few("name", STEPS)
def test_rules_that_are_exact_equal_bptt(name: str, rule: Any) -> None:
    with jax.enable_x64(True):
        meant, found = gradient(STEPS[name], ranvier.BPTT()), gradient(STEPS[name], rule)
    for path, value in meant.items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(found[path], value, rtol=1e-10, atol=1e-10 * (scale + 1))


@few("name", STEPS)
def test_without_memory_the_same_step_gradient_is_exact(name: str) -> None:
    """ES_D_RTRL with decay 0 has the gradient of single steps, each from the state that the sequence has come to."""

    def cut(p: Any, v: Any, x: Any) -> Any:
        return STEPS[name](p, jax.lax.stop_gradient(v), x)

    with jax.enable_x64(True):
        meant, found = gradient(cut, ranvier.BPTT()), gradient(STEPS[name], ranvier.ES_D_RTRL(decay=0.0))
    for path, value in meant.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-9, atol=1e-9 * (np.abs(value).max() + 1))
