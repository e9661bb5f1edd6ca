"""Elements picked from, and added up at, places that are known when a program is traced.

As :mod:`jax.lax` has them: the indices of ``x[index]`` would be checked for negative numbers by the compiler, one by
one, which takes it a minute for the synapses of a large network.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_PICK = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))
_ADD = lax.ScatterDimensionNumbers(update_window_dims=(), inserted_window_dims=(0,), scatter_dims_to_operand_dims=(0,))
_MODE = lax.GatherScatterMode.PROMISE_IN_BOUNDS


def picked(x: jax.Array, index: Any) -> jax.Array:
    """``x[index]`` for ``x [n]`` and an index of whole numbers from 0 to n - 1."""
    return lax.gather(x, index[..., None], _PICK, slice_sizes=(1,), mode=_MODE)


def added_at(values: jax.Array, index: Any, count: int) -> jax.Array:
    """``[count]``: the sum of the values ``[n]`` at every place of an index in ascending order, ``[n]``."""
    zeros = jnp.zeros(count, values.dtype)
    return lax.scatter_add(zeros, index[:, None], values, _ADD, indices_are_sorted=True, mode=_MODE)
