"""Finds out by running it how a sparse operation joins data, weights and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program._jax import Literal, Var, dtype_of, is_floating, shape_of, size_of
from ...program.analysis.binding_time import BindingTime, binding_times_of
from ...program.analysis.parameter_use import ParameterUse
from ...program.analysis.uniformity import all_equal
from ...program.program import ModuleInfo
from .bilinear import Sparse

EXACT = 2**24
"""Whole numbers up to here are exact in float32, so they can stand for indices."""


def sparse_map(info: ModuleInfo, operation: ParameterUse, number: int, static: Sequence[Any]) -> Sparse | None:
    """The sparse form of an operation in one operand, or None where it has none.

    The operation is pulled back with whole numbers in place of data and cotangents: where every weight joins one
    element of x to one of y, the gradient of a weight is the product of the two, so it tells their indices. A second
    pull-back with random numbers checks the answer.

    Args:
        info: the program.
        operation: the projection.
        number: of w among its operands.
        static: values of all its operands.
    """
    if len(operation.xs) != 1 or not is_floating(dtype_of(operation.xs[0])):
        return None
    before = _before_picking(info, operation)
    found = None if before is operation else _form(before, number, static)
    return found or _form(operation, number, static)


def _form(operation: ParameterUse, number: int, static: Sequence[Any]) -> Sparse | None:
    (source,) = operation.xs
    x_shape, y_shape = shape_of(source), shape_of(operation.y)
    if max(size_of(source), size_of(operation.y)) >= EXACT:
        return None

    @jax.jit
    def gradient(x: jax.Array, c: jax.Array) -> jax.Array:
        def result(w: Any) -> Any:
            return operation([x], [*static[:number], w, *static[number + 1 :]])

        w = static[number]
        y, pull = jax.vjp(result, jnp.zeros_like(w))
        return pull(c.astype(y.dtype).reshape(y.shape))[0].reshape(-1)

    samples = _samples(x_shape, y_shape)
    if samples is None:
        return None
    copies, x_parts, y_parts = samples
    dtype = dtype_of(source)
    trials: list[tuple[np.ndarray, ...]] = []
    for k in range(copies):
        ones_x, ones_y = x_parts == k, y_parts == k

        def probe(x: np.ndarray, c: np.ndarray, on: Any = (ones_x, ones_y)) -> np.ndarray:
            at_x = jnp.asarray(np.where(on[0], x, 0).reshape(x_shape), dtype)
            return np.asarray(gradient(at_x, jnp.asarray(np.where(on[1], c, 0).reshape(y_shape), dtype)), np.float64)

        one_x, one_y = np.ones(size_of(source)), np.ones(size_of(operation.y))
        scale = probe(one_x, one_y)
        if (scale == 0).any():
            return None
        x_index = probe(np.arange(one_x.size), one_y) / scale
        y_index = probe(one_x, np.arange(one_y.size)) / scale
        rounded = np.rint(x_index).astype(np.int64), np.rint(y_index).astype(np.int64)
        inside = all(((r >= 0) & (r < n)).all() for r, n in zip(rounded, (one_x.size, one_y.size), strict=True))
        if not inside:
            return None
        random = np.random.default_rng(k)
        x, c = random.normal(size=one_x.size), random.normal(size=one_y.size)
        expected = scale * np.where(ones_x, x, 0)[rounded[0]] * np.where(ones_y, c, 0)[rounded[1]]
        if not np.allclose(probe(x, c), expected, rtol=1e-4, atol=1e-5):
            return None
        trials.append((*rounded, scale))
    x_index, y_index, scale = (np.stack(part) for part in zip(*trials, strict=True))
    scale = (scale[0, 0] if all_equal(scale) else scale).astype(dtype_of(operation.y))
    x_index, y_index = x_index.astype(np.int32), y_index.astype(np.int32)
    return Sparse(operation.operands[number], operation.y, source, x_index, y_index, scale)


def _before_picking(info: ModuleInfo, operation: ParameterUse) -> ParameterUse:
    """The operation from the data that its own is picked from at places that never change, where that is smaller.

    So a trace has one number per neuron, not one per synapse.
    """
    levels = binding_times_of(info)
    while (eqn := levels.producers.get(operation.xs[0])) is not None and eqn.primitive.name == "gather":
        data, places = eqn.invars
        still = isinstance(places, Literal) or levels.of(places) is BindingTime.CONSTANT
        if not still or not isinstance(data, Var) or size_of(data) > size_of(operation.xs[0]):
            break
        operation = replace(operation, xs=(data,), equations=(eqn, *operation.equations))
    return operation


def _samples(x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, np.ndarray, np.ndarray] | None:
    """Number of samples, and for every element of x and y its sample: one, or along an axis that both share."""
    if len(x) <= 1 or len(y) <= 1:
        return 1, np.zeros(int(np.prod(x)), int), np.zeros(int(np.prod(y)), int)
    for axis in (0, -1):
        if x[axis] == y[axis] and len(x) == 2 and len(y) == 2:
            parts = [
                np.moveaxis(np.broadcast_to(np.arange(s[axis]), (s[1 - axis % 2], s[axis])), -1, axis % 2).reshape(-1)
                for s in (x, y)
            ]
            return x[axis], parts[0], parts[1]
    return None
