"""Neurons and operations in JAX: spikes with a surrogate derivative, and forms of operations that XLA runs fast."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.arrays import row_numbers
from ..graph.operations import Operation
from ..graph.ops import Array
from ..graph.traced import Mapped
from ..graph.windows import Window
from ..program.gather_scatter import added_at, picked

MOST_SLICES = 64
"""Windows of up to so many elements are added up as slices, which XLA does several times faster than windows."""


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def spike(v: Array, threshold: Array, fires: str) -> Array:
    """One where v is above the threshold (or at it, where ``fires`` is ``">="``), else zero.

    The surrogate derivative is a triangle around the threshold that is as wide as the threshold on either side (Bellec
    et al. 2018, with dampening 1).
    """
    return (v > threshold if fires == ">" else v >= threshold).astype(v.dtype)


@spike.defjvp
def _spike_derivative(fires: str, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (v, threshold), (dv, dthreshold) = primals, tangents
    width = jnp.where(threshold == 0, 1, jnp.abs(threshold))
    slope = jnp.maximum(0, 1 - jnp.abs(v - threshold) / width) / width
    return spike(v, threshold, fires), slope * (dv - dthreshold)


class JaxOps:
    """JAX, for one sample, in the dtype of the arrays; everything can be differentiated."""

    def exp(self, x: Array) -> Array:
        return jnp.exp(x)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return jnp.where(condition, x, y)

    def spike(self, v: Array, threshold: Array, fires: str) -> Array:
        # A function with its own derivative takes operands of one shape, so that each tangent has its operand's.
        return spike(v, jnp.broadcast_to(threshold, v.shape), fires)

    def push(self, queue: Array, newest: Array) -> Array:
        return jnp.concatenate([newest[None], queue])

    def drop_last(self, queue: Array) -> Array:
        return queue[:-1]

    def look_back(self, queue: Array, steps: Array) -> Array:
        entry = jnp.broadcast_to(steps, queue.shape[1:]).astype(jnp.int32)
        return jnp.take_along_axis(queue, entry[None], 0)[0]

    def product(self, weight: Array, x: Array) -> Array:
        return weight @ x

    def sparse_product(self, values: Array, rows: Any, x: Array) -> Array:
        return added_at(values * picked(x, rows.indices.astype(np.int32)), row_numbers(rows), rows.shape[0])

    def convolve(self, x: Array, weight: Array, window: Window, groups: int) -> Array:
        axes = len(window.size)
        letters = "HW"[:axes]
        # With channels last XLA has fast code for the CPU also inside loops, which it has not with channels first.
        (y,) = jax.lax.conv_general_dilated(
            jnp.moveaxis(x, 0, -1)[None],
            jnp.transpose(weight, (*range(2, 2 + axes), 1, 0)),
            window.stride,
            window.padding,
            rhs_dilation=window.dilation,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=groups,
        )
        return jnp.moveaxis(y, -1, 0)

    def sum_windows(self, x: Array, window: Window) -> Array:
        sizes, strides = (1, *window.size), (1, *window.stride)
        padding = ((0, 0), *window.padding)
        if prod(sizes) > MOST_SLICES:
            return jax.lax.reduce_window(x, jnp.zeros((), x.dtype), jax.lax.add, sizes, strides, padding)
        return _sum_of_slices(jnp.pad(x, padding), sizes, strides)

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return x.reshape(shape)

    def pick(self, x: Array, index: np.ndarray) -> Array:
        taken = x.reshape(-1)[np.maximum(index, 0)]
        return taken if np.all(index >= 0) else jnp.where(index >= 0, taken, jnp.zeros((), x.dtype))

    def call(self, function: Mapped, arrays: Mapping[str, Array], x: Array) -> Array:
        return function(arrays, x, x.dtype)


JAX = JaxOps()
"""The arithmetic of simulation and learning."""


def applied(operation: Operation, arrays: Mapping[str, Array], x: Array) -> Array:
    """An operation in JAX, for one sample."""
    return operation.apply(JAX, arrays, x)


def _sum_of_slices(x: Array, sizes: tuple[int, ...], strides: tuple[int, ...]) -> Array:
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape, sizes, strides, strict=True)]
    total = None
    for start in np.ndindex(*sizes):
        end = [a + (c - 1) * s + 1 for a, c, s in zip(start, counts, strides, strict=True)]
        part = jax.lax.slice(x, start, end, strides)
        total = part if total is None else total + part
    assert total is not None
    return total
