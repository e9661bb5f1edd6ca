"""Finds out, by running it, how a sparse operation joins data, weights and results.

For example, ``y_0 = 2 w_0 x_1; y_1 = 2 w_1 x_1 + 2 w_2 x_0``. A weight's gradient is the factor times an element of x
times an element of the cotangent c of y:

    x = (1, 1), c = (1, 1)    gradient (2, 2, 2)    the factors
    x = (0, 1), c = (1, 1)    gradient (2, 2, 0)    over the factors (1, 1, 0): the elements of x
    x = (1, 1), c = (0, 1)    gradient (0, 2, 2)    over the factors (0, 1, 1): the elements of y
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    form = None if before is operation else _form(before, number, static)
    return form or _form(operation, number, static)


def _form(operation: ParameterUse, number: int, static: Sequence[Any]) -> Sparse | None:
    (source,) = operation.xs
    if max(size_of(source), size_of(operation.y)) >= EXACT:
        return None
    samples = _samples(shape_of(source), shape_of(operation.y))
    if samples is None:
        return None
    copies, x_parts, y_parts = samples
    gradient = _gradient_of(operation, number, static)
    by_sample: list[tuple[np.ndarray, ...]] = []
    for k in range(copies):
        # With data in one sample only, a weight that every sample uses still has one element of x and one of y.
        if (joined := _joined(gradient, x_parts == k, y_parts == k, seed=k)) is None:
            return None
        by_sample.append(joined)
    x_index, y_index, scale = (np.stack(part) for part in zip(*by_sample, strict=True))
    # One number where all factors are equal: otherwise they take as much memory as the synapses.
    scale = (scale[0, 0] if all_equal(scale) else scale).astype(dtype_of(operation.y))
    x_index, y_index = x_index.astype(np.int32), y_index.astype(np.int32)
    return Sparse(operation.operands[number], operation.y, source, x_index, y_index, scale)


Gradient = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""The gradient of w, ``[w.size]``, from data ``[x.size]`` and cotangents ``[y.size]``."""


def _gradient_of(operation: ParameterUse, number: int, static: Sequence[Any]) -> Gradient:
    (source,) = operation.xs
    x_shape, y_shape, dtype = shape_of(source), shape_of(operation.y), dtype_of(source)

    # Compiled once for all probes.
    @jax.jit
    def pulled(x: jax.Array, c: jax.Array) -> jax.Array:
        def result(w: Any) -> Any:
            return operation([x], [*static[:number], w, *static[number + 1 :]])

        w = static[number]
        y, pull = jax.vjp(result, jnp.zeros_like(w))
        return pull(c.astype(y.dtype).reshape(y.shape))[0].reshape(-1)

    def gradient(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        at_x, at_y = jnp.asarray(x.reshape(x_shape), dtype), jnp.asarray(c.reshape(y_shape), dtype)
        return np.asarray(pulled(at_x, at_y), np.float64)

    return gradient


def _joined(gradient: Gradient, of_x: np.ndarray, of_y: np.ndarray, seed: int) -> tuple[np.ndarray, ...] | None:
    """For every weight its element of x, its element of y, and its factor; None where it has not one of each.

    Args:
        gradient: of the operation.
        of_x, of_y: the elements that belong to the sample.
        seed: of the check.
    """

    def probe(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        return gradient(np.where(of_x, x, 0), np.where(of_y, c, 0))

    one_x, one_y = np.ones(of_x.size), np.ones(of_y.size)
    scale = probe(one_x, one_y)
    # A weight without effect on this sample has no place there.
    if (scale == 0).any():
        return None
    x_index = probe(np.arange(one_x.size), one_y) / scale
    y_index = probe(one_x, np.arange(one_y.size)) / scale
    rounded = np.rint(x_index).astype(np.int64), np.rint(y_index).astype(np.int64)
    inside = all(((r >= 0) & (r < n)).all() for r, n in zip(rounded, (one_x.size, one_y.size), strict=True))
    if not inside:
        return None
    # A weight that joins elements 1 and 3 has the mean, 2, for its index. On random numbers it is not like element 2.
    random = np.random.default_rng(seed)
    x, c = random.normal(size=one_x.size), random.normal(size=one_y.size)
    expected = scale * np.where(of_x, x, 0)[rounded[0]] * np.where(of_y, c, 0)[rounded[1]]
    if not np.allclose(probe(x, c), expected, rtol=1e-4, atol=1e-5):
        return None
    return (*rounded, scale)


def _before_picking(info: ModuleInfo, operation: ParameterUse) -> ParameterUse:
    """The operation from the data that its own is picked from at places that never change, where that is smaller.

    So a trace has one number per neuron, not one per synapse.
    """
    binding_times = binding_times_of(info)
    while (eqn := binding_times.producers.get(operation.xs[0])) is not None and eqn.primitive.name == "gather":
        data, places = eqn.invars
        # Places that data decide would have the trace follow another neuron at every step.
        still = isinstance(places, Literal) or binding_times.of(places) is BindingTime.CONSTANT
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
