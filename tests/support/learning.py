"""Helpers for tests of learning: inputs over time, a loss that feels every output, comparison of gradients."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.learn.rule import Rule
from tests.support.examples import few

from .zoo import MODELS, ZooModel

T = 10

learning = pytest.mark.usefixtures("float64", "quick_compilation")
"""Double precision, and no time spent on optimizing code that runs once."""


def random_values(rng: np.random.Generator, shape: Sequence[int], dtype: Any) -> jax.Array:
    """Uniform numbers for a float dtype, small integers for an integer one."""
    if jnp.issubdtype(dtype, jnp.integer):
        return jnp.asarray(rng.integers(0, 3, shape), dtype)
    return jnp.asarray(rng.uniform(0.0, 2.0, shape), dtype)


def sequence(inputs: Sequence[Any], steps: int = T, *, seed: int = 0, lead: tuple[int, ...] = ()) -> Any:
    """Random inputs over time as a learner takes them: ``[steps, *lead, *shape]``, a tuple where there are several."""
    rng = np.random.default_rng(seed)
    arrays = [jnp.asarray(x) for x in inputs]
    xs = tuple(random_values(rng, (steps, *lead, *x.shape), x.dtype) for x in arrays)
    return xs[0] if len(xs) == 1 else xs


def phases(steps: int = T) -> jax.Array:
    """A target for every step, so that no two steps have the same loss."""
    return jnp.linspace(0.0, 3.0, steps)


def loss(output: Any, phase: Any) -> jax.Array:
    """Feels every element of every output leaf, each in its own way."""
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(output)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum((jnp.sin(leaf + phase + numbered(leaf)).sum() for leaf in leaves), jnp.zeros(()))


def numbered(leaf: jax.Array) -> jax.Array:
    return jnp.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape)


def loss_slope(output: np.ndarray, phase: float) -> np.ndarray:
    """The derivative of :func:`loss` for a single output array."""
    return np.cos(output + phase + np.arange(output.size).reshape(output.shape))


def batch_loss(output: Any, phase: Any) -> jax.Array:
    """The sum of :func:`loss` over the samples of a batch."""
    return jax.vmap(loss, in_axes=(0, None))(output, phase).sum()


def observed(model: Any) -> Any:
    """A step function whose output holds its new floating-point states too; other models as they are."""
    if not isinstance(model, ranvier.types.StepFunction):
        return model

    def step(params: Any, state: Any, *inputs: Any) -> Any:
        state, output = model.step(params, state, *inputs)
        seen = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return state, (output, seen)

    return replace(model, step=step)


@functools.cache
def zoo_program(name: str) -> tuple[ranvier.ModuleInfo, Any]:
    """The program of an observed zoo model in double precision, and inputs over time."""
    model, inputs = MODELS[name].build(jnp.float64)
    return ranvier.extract_module_info(observed(model), *inputs), sequence(inputs)


def gradient(model: Any, rule: Rule, xs: Any, inputs: Sequence[Any] = (), **options: Any) -> dict:
    """Gradient of the summed :func:`loss` over the whole sequence."""
    learner = ranvier.compile(model, rule, *inputs, **options)
    grads, _ = learner.grad(loss, xs, phases(steps_of(xs)))
    return grads


@functools.cache
def zoo_gradient(name: str, rule: Rule, chunk: int | None = None) -> dict:
    """:func:`gradient` of an observed zoo model."""
    info, xs = zoo_program(name)
    return gradient(info, rule, xs, chunk=chunk)


def steps_of(xs: Any) -> int:
    return jax.tree.leaves(xs)[0].shape[0]


def part(xs: Any, start: int, end: int) -> Any:
    return jax.tree.map(lambda x: x[start:end], xs)


def flat(gradients: Any) -> np.ndarray:
    """All numbers of a pytree in one vector."""
    leaves = [np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(gradients)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def difference(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest of the expected numbers."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    a, b = flat(found), flat(expected)
    assert a.shape == b.shape
    assert np.isfinite(a).all()
    assert np.isfinite(b).all()
    return float(np.abs(a - b).max(initial=0.0) / max(np.abs(b).max(initial=0.0), 1e-300))


def differentiable(models: Sequence[ZooModel]) -> list[ZooModel]:
    return [model for model in models if model.differentiable]


every_differentiable_model = few("name", [m.name for m in differentiable(list(MODELS.values()))], quick=5)
