"""Elements picked from, and added up at, places that are known when a program is traced.

As :mod:`jax.lax` has them: the indices of ``x[index]`` would be checked for negative numbers by the compiler, one by
one, which takes it a minute for the synapses of a large network.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

MANY = 8
"""Samples from which on a batch is computed with the samples side by side."""
_PICK = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
_ADD = lax.ScatterDimensionNumbers(update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,))
_PICK_ROWS = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))
_ADD_ROWS = lax.ScatterDimensionNumbers(
    update_window_dims=(1,), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,)
)
_MODE = lax.GatherScatterMode.PROMISE_IN_BOUNDS


def picked(x: jax.Array, index: Any) -> jax.Array:
    """``x[index]`` for ``x [n]`` and an index of whole numbers from 0 to n - 1."""
    return lax.gather(x, index[..., None], _PICK, slice_sizes=(1,), mode=_MODE)


def added_at(values: jax.Array, index: Any, count: int) -> jax.Array:
    """``[count]``: the sum of the values ``[n]`` at every place of an index in ascending order, ``[n]``."""
    zeros = jnp.zeros(count, values.dtype)
    return lax.scatter_add(zeros, index[:, None], values, _ADD, indices_are_sorted=True, mode=_MODE)


def total_of_synapses(weights: jax.Array, sources: Any, targets: Any, count: int, x: jax.Array) -> jax.Array:
    """What synapses bring from a batch: ``y[b, i]``, the sum of ``w[k] x[b, sources[k]]`` over the k with target i.

    Args:
        weights: of the synapses, ``[n]``.
        sources, targets: their ends, int32 ``[n]``, targets in ascending order.
        count: number of targets.
        x: values of the sources, ``[samples, sources]``.
    """
    if x.shape[0] < MANY:
        return jax.vmap(lambda one: added_at(weights * picked(one, sources), targets, count))(x)
    # With the samples side by side, every synapse is one vector operation: several times as fast as sample by sample.
    seen = lax.gather(x.T, sources[:, None], _PICK_ROWS, slice_sizes=(1, x.shape[0]), mode=_MODE)
    zeros = jnp.zeros((count, x.shape[0]), x.dtype)
    places = targets[:, None]
    return lax.scatter_add(zeros, places, weights[:, None] * seen, _ADD_ROWS, indices_are_sorted=True, mode=_MODE).T
