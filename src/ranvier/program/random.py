"""Random keys among a model's states."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._jax import is_key
from .program import Slot


def is_random(slot: Slot) -> bool:
    """Whether a state holds random keys: JAX's own, or the raw ones of brainstate's generator."""
    raw = slot.label == "RandomState" and slot.leaves[0].dtype == jnp.uint32
    return raw or is_key(slot.leaves[0].dtype)


def fold_in(keys: jax.Array, number: Any) -> jax.Array:
    """Keys for one of many runs, of the shape of ``keys``."""
    one = 0 if is_key(keys.dtype) else 1
    if keys.ndim == one:
        return jax.random.fold_in(keys, number)
    return jax.vmap(lambda key: fold_in(key, number))(keys)
