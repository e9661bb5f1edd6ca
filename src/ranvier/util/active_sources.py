"""Sums over only the active sources, so that the work grows with the number of spikes."""

# An example: of 300 sources, 5, 7 and 200 fire. They are in three groups of 128, with 2, 1 and 0 active ones. In the
# first group the running counts are 0 up to source 4, 1 from source 5 and 2 from source 7 on: the active source number
# k is the first whose count is above k, source 5 for k = 0 and source 7 for k = 1. Three rows are added, not 300.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 2**20
"""Products with fewer weights are always computed whole: they stay in the cache."""
WORTH = 0.15
"""The largest fraction of active sources for which their weights are added source by source. At this fraction it takes
about as long as a product that reads all weights once."""
GROUP = 128
"""Number of sources among which active ones are sought together."""
BLOCK = 32
"""Number of synapses of one source that are added at once."""
AT_ONCE = 4
"""Number of sources of every sample whose rows are added in one iteration."""


def whichever(active: Callable[..., Any], whole: Callable[..., Any], x: Any, *others: Any, worth: float = WORTH) -> Any:
    """``active(x, *others)`` if few sources are active, else ``whole(x, *others)``; ``worth`` is the largest fraction
    of active sources for the former."""
    return jax.lax.cond(jnp.count_nonzero(x) <= worth * x.size, active, whole, x, *others)


def over_active(x: Any, out: int, add: Callable[[Any, Any, Any], Any]) -> Any:
    """For every sample, applies ``add(total, source, value)`` for each source that is not zero, from zeros ``[out]``.

    Args:
        x: values of the sources, ``[samples, sources]``.
        out: size of the total.
        add: the total with the contribution of one source.

    Returns:
        Totals, ``[samples, out]``.
    """
    samples, groups = x.shape[0], -(-x.shape[1] // GROUP)
    grouped, running = _counted(x)
    counts = running[..., -1].astype(jnp.int32)

    def of_sample(sample: Any) -> Any:
        def of_group(group: Any, total: Any) -> Any:
            counts_so_far = running[sample, group]

            def one(k: Any, total: Any) -> Any:
                place = jnp.argmax(counts_so_far > k)
                return add(total, group * GROUP + place, grouped[sample, group, place])

            return jax.lax.fori_loop(0, counts[sample, group], one, total)

        return jax.lax.fori_loop(0, groups, of_group, jnp.zeros(out, x.dtype))

    return of_sample(0)[None] if samples == 1 else jax.lax.map(of_sample, jnp.arange(samples))


def _counted(x: Any) -> tuple[Any, Any]:
    """Values in groups, ``[samples, groups, GROUP]``, and the number of active ones up to each within its group."""
    samples, size = x.shape
    groups = -(-size // GROUP)
    grouped = jnp.pad(x, ((0, 0), (0, groups * GROUP - size))).reshape(samples, groups, GROUP)
    # Running sums as a product with a triangular matrix: much faster than a cumulative sum, and exact up to 2^24.
    return grouped, (grouped != 0).astype(jnp.float32) @ jnp.triu(jnp.ones((GROUP, GROUP), jnp.float32))


def total_of_rows(x: Any, rows: Any) -> Any:
    """``x @ rows``, computed from the rows of the active sources.

    With many samples, the first active source of each is added, then the second of each, and so on. These additions are
    large enough to use all cores.

    Args:
        x: values of the sources, ``[samples, sources]``.
        rows: ``[sources, out]``.

    Returns:
        ``[samples, out]``.
    """
    samples, sources = x.shape
    if samples == 1:

        def add_row(total: Any, source: Any, value: Any) -> Any:
            return total + value * jax.lax.dynamic_index_in_dim(rows, source, keepdims=False)

        return over_active(x, rows.shape[1], add_row)
    grouped, running = _counted(x)
    upto = jnp.cumsum(running[..., -1], axis=1)
    number = upto[:, -1]

    def nth(n: Any) -> tuple[Any, Any]:
        """The nth active source of every sample and its value, which is zero if there are fewer."""
        group = jnp.minimum((upto <= n).sum(axis=1), grouped.shape[1] - 1)
        before = jnp.where(group > 0, _at(upto, jnp.maximum(group - 1, 0)), 0)
        within = jnp.take_along_axis(running, group[:, None, None], axis=1)[:, 0]
        source = jnp.minimum(group * GROUP + jnp.argmax(within > (n - before)[:, None], axis=1), sources - 1)
        return source, jnp.where(n < number, _at(x, source), 0)

    def add(carry: tuple[Any, Any]) -> tuple[Any, Any]:
        n, total = carry
        for _ in range(AT_ONCE):
            source, value = nth(n)
            total = total + value[:, None] * rows.at[source].get(mode="promise_in_bounds")
            n = n + 1
        return n, total

    start = jnp.zeros((), upto.dtype), jnp.zeros((samples, rows.shape[1]), x.dtype)
    return jax.lax.while_loop(lambda carry: carry[0] < number.max(), add, start)[1]


def _at(values: Any, index: Any) -> Any:
    """The value of every row at an index of its own."""
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]


@dataclass(frozen=True, eq=False)
class SourceBlocks:
    """Synapses by source, in blocks of equal length.

    Attributes:
        first: number of the first block of every source, int32 ``[sources + 1]``.
        targets: int32 ``[blocks, BLOCK]``; ``out`` stands for no synapse.
        synapses: numbers of the synapses, int32 ``[blocks, BLOCK]``; the number of all synapses stands for none.
        out: number of targets.
    """

    first: np.ndarray
    targets: np.ndarray
    synapses: np.ndarray
    out: int

    @classmethod
    def of(cls, source: np.ndarray, target: np.ndarray, sources: int, out: int) -> SourceBlocks:
        """From the source and target of every synapse, integers ``[n]``."""
        order = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=sources)
        blocks = -(-counts // BLOCK)
        first = np.concatenate([[0], np.cumsum(blocks)])
        targets = np.full((max(int(first[-1]), 1), BLOCK), out, np.int32)
        synapses = np.full(targets.shape, source.size, np.int32)
        # The place of every synapse among those of its source, which is split into a block and a place in the block.
        within = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(first[:-1], counts) + within // BLOCK, within % BLOCK
        targets[at], synapses[at] = target[order], order
        return cls(first.astype(np.int32), targets, synapses, out)

    def total(self, x: Any, weights: Callable[[Any], Any]) -> Any:
        """The sum over the synapses of active sources, ``[samples, out]``.

        Args:
            x: values of the sources, ``[samples, sources]``.
            weights: the weights ``[BLOCK]`` of a block, by its number.
        """
        first, targets = jnp.asarray(self.first), jnp.asarray(self.targets)

        def add(total: Any, source: Any, value: Any) -> Any:
            def block(b: Any, total: Any) -> Any:
                return total.at[targets[b]].add(value * weights(b), mode="drop")

            return jax.lax.fori_loop(first[source], first[source + 1], block, total)

        return over_active(x, self.out, add)
