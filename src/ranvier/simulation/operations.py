"""Operations of projections in JAX, for one sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Operation, Scale, Select, SumPool
from ..graph.traced import Mapped
from ..program.gather_scatter import added_at, picked

Params = Mapping[str, Any]
Apply = Callable[[Params, jax.Array], jax.Array]


def parameters_of(operation: Operation, dtype: Any) -> dict[str, np.ndarray]:
    """The arrays that can be trained: of sparse rows their values."""
    return {
        name: np.asarray(value.data if sparse.issparse(value) else value, dtype)
        for name, value in operation.arrays.items()
    }


def function_of(operation: Operation) -> Apply:
    """``apply(parameters, values of the source) -> values for the target``."""
    return FUNCTIONS[type(operation)](operation)


def _identity(operation: Identity) -> Apply:
    return lambda params, x: x


def _linear(operation: Linear) -> Apply:
    product = _sparse_product(operation.weight) if sparse.issparse(operation.weight) else _dense_product
    return lambda params, x: _shifted(product(params["weight"], x), params, ())


def _dense_product(weight: jax.Array, x: jax.Array) -> jax.Array:
    return weight @ x


def _sparse_product(rows: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    count = rows.shape[0]
    row = np.repeat(np.arange(count, dtype=np.int32), np.diff(rows.indptr))
    column = rows.indices.astype(np.int32)

    def product(values: jax.Array, x: jax.Array) -> jax.Array:
        return added_at(values * picked(x, column), row, count)

    return product


def _scale(operation: Scale) -> Apply:
    return lambda params, x: params["scale"] * x


def _conv(operation: Conv) -> Apply:
    letters = "HW"[: operation.axes]
    # With channels last XLA has fast code for the CPU also inside loops, which it has not with channels first.
    layout = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    kernel_axes = tuple(range(2, 2 + operation.axes))

    def apply(params: Params, x: jax.Array) -> jax.Array:
        (y,) = jax.lax.conv_general_dilated(
            jnp.moveaxis(x, 0, -1)[None],
            jnp.transpose(params["weight"], (*kernel_axes, 1, 0)),
            operation.stride,
            operation.window().padding,
            rhs_dilation=operation.dilation,
            dimension_numbers=layout,
            feature_group_count=operation.groups,
        )
        return _shifted(jnp.moveaxis(y, -1, 0), params, (1,) * operation.axes)

    return apply


def _pool(operation: SumPool) -> Apply:
    window = operation.window()
    sizes, strides = (1, *window.size), (1, *window.stride)
    padding = ((0, 0), *window.padding)

    def apply(params: Params, x: jax.Array) -> jax.Array:
        if prod(sizes) > MOST_SLICES:
            summed = jax.lax.reduce_window(x, jnp.zeros((), x.dtype), jax.lax.add, sizes, strides, padding)
        else:
            summed = _sum_of_slices(jnp.pad(x, padding), sizes, strides)
        return summed * jnp.asarray(operation.weight, x.dtype)

    return apply


MOST_SLICES = 64
"""Windows of up to so many elements are added up as slices, which XLA does several times faster than windows."""


def _sum_of_slices(x: jax.Array, sizes: tuple[int, ...], strides: tuple[int, ...]) -> jax.Array:
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape, sizes, strides, strict=True)]
    total = None
    for start in np.ndindex(*sizes):
        end = [a + (c - 1) * s + 1 for a, c, s in zip(start, counts, strides, strict=True)]
        part = jax.lax.slice(x, start, end, strides)
        total = part if total is None else total + part
    assert total is not None
    return total


def _flatten(operation: Flatten) -> Apply:
    return lambda params, x: x.reshape(operation.target_shape(x.shape))


def _constant(operation: Constant) -> Apply:
    return lambda params, x: params["bias"]


def _shifted(y: jax.Array, params: Params, behind: tuple[int, ...]) -> jax.Array:
    return y + params["bias"].reshape(-1, *behind) if "bias" in params else y


def _select(operation: Select) -> Apply:
    index = operation.index
    whole = bool(np.all(index >= 0))

    def apply(params: Params, x: jax.Array) -> jax.Array:
        taken = x.reshape(-1)[np.maximum(index, 0)]
        return taken if whole else jnp.where(index >= 0, taken, jnp.zeros((), x.dtype))

    return apply


def _mapped(operation: Mapped) -> Apply:
    return lambda params, x: operation(params, x, x.dtype)


FUNCTIONS: dict[type[Operation], Callable[[Any], Apply]] = {
    Identity: _identity,
    Linear: _linear,
    Scale: _scale,
    Conv: _conv,
    SumPool: _pool,
    AvgPool: _pool,
    Flatten: _flatten,
    Constant: _constant,
    Select: _select,
    Mapped: _mapped,
}
