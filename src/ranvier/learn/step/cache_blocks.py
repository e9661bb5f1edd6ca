"""Blocks of steps whose values fit the processor's cache, and passes over a chunk block by block.

For example, 100 steps, of which 30 fit at a time: ``even_part`` gives 25, four equal blocks, in place of three of 30
and one of 10 that would be compiled by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

CACHE_BYTES = 10 * 2**20
"""About what the values of a block may take."""
UNROLLED = 4
"""Up to this many steps are not worth a loop."""


def block_length(length: int, step_bytes: int) -> int:
    """The number of steps in a block whose values fit the cache."""
    return even_part(length, max(1, CACHE_BYTES // max(step_bytes, 1)))


def even_part(length: int, most: int) -> int:
    """The length of parts, at most ``most``: a divisor of ``length`` if one is near, else as equal as possible."""
    if length <= most:
        return length
    # Equal blocks are one loop, whose body is compiled once; a block of another length is compiled by itself.
    even = max(n for n in range(1, most + 1) if length % n == 0)
    return even if 2 * even > most else -(-length // -(-length // most))


def backward(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, data: Any, length: int, block: int
) -> tuple[Any, Any]:
    """Processes ``length`` steps in blocks, the last block first.

    Args:
        body: ``body(carry, data) -> (carry, results)`` for one block, with leaves ``[steps of the block, ...]``.
        carry: what the last block starts from.
        data: pytree with leaves ``[length, ...]``.
        length: number of steps.
        block: steps of a block; the first block has what is left over.

    Returns:
        The carry after the first block, and all results in the order of time, ``[length, ...]``.
    """
    if block >= length:
        return body(carry, data)
    # The short block is the first in time, so the last to be taken: the loop can then start from the chunk's end.
    rest = length % block
    later = jax.tree.map(lambda x: x[rest:].reshape(-1, block, *x.shape[1:]), data)
    carry, results = jax.lax.scan(body, carry, later, reverse=True)
    results = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)
    if not rest:
        return carry, results
    carry, first = body(carry, jax.tree.map(lambda x: x[:rest], data))
    return carry, jax.tree.map(lambda *parts: jnp.concatenate(parts), first, results)


def reversed_scan(step: Callable[[Any, Any], tuple[Any, Any]], start: Any, data: Any, length: int) -> tuple[Any, Any]:
    """``lax.scan`` from the last step to the first; a few steps are written out."""
    if length > UNROLLED:
        return jax.lax.scan(step, start, data, length, reverse=True)
    carry, results = start, []
    for s in reversed(range(length)):
        carry, result = step(carry, jax.tree.map(lambda x, s=s: x[s], data))
        results.append(result)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts[::-1]), *results)
