"""Sums over the sources that are active: as much work as there are spikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 2**20
"""Products with fewer weights are always taken whole; so small ones stay in the cache."""
WORTH = 0.15
"""Part of the sources that may be active at most for their weights to be taken one source after the other: that takes
about as long as this part of a product that reads all weights once."""
GROUP = 128
"""Sources that are looked at together for active ones."""
BLOCK = 32
"""Synapses of one source that are added at once."""
AT_ONCE = 4
"""Sources of every sample whose rows are added in one round."""


def whichever(active: Callable[..., Any], whole: Callable[..., Any], x: Any, *others: Any, worth: float = WORTH) -> Any:
    """``active(x, *others)`` where few of the sources are active, ``whole(x, *others)`` where more are than it is
    worth."""
    return jax.lax.cond(jnp.count_nonzero(x) <= worth * x.size, active, whole, x, *others)


def over_active(x: Any, out: int, add: Callable[[Any, Any, Any], Any]) -> Any:
    """For every sample ``add(total, source, value)`` over the sources that are not zero, from zeros ``[out]``.

    Sources are looked at in groups; within one, running counts say where the next active one is.

    Args:
        x: values of the sources, ``[samples, sources]``.
        out: size of the total.
        add: gives the total with what one source brings.

    Returns:
        Totals, ``[samples, out]``.
    """
    samples, groups = x.shape[0], -(-x.shape[1] // GROUP)
    grouped, running = _counted(x)
    counts = running[..., -1].astype(jnp.int32)

    def of_sample(sample: Any) -> Any:
        def of_group(group: Any, total: Any) -> Any:
            reached = running[sample, group]

            def one(k: Any, total: Any) -> Any:
                place = jnp.argmax(reached > k)
                return add(total, group * GROUP + place, grouped[sample, group, place])

            return jax.lax.fori_loop(0, counts[sample, group], one, total)

        return jax.lax.fori_loop(0, groups, of_group, jnp.zeros(out, x.dtype))

    return of_sample(0)[None] if samples == 1 else jax.lax.map(of_sample, jnp.arange(samples))


def _counted(x: Any) -> tuple[Any, Any]:
    """Values in groups, ``[samples, groups, GROUP]``, and how many are active up to each of them within its group."""
    samples, size = x.shape
    groups = -(-size // GROUP)
    grouped = jnp.pad(x, ((0, 0), (0, groups * GROUP - size))).reshape(samples, groups, GROUP)
    return grouped, (grouped != 0).astype(jnp.float32) @ jnp.triu(jnp.ones((GROUP, GROUP), jnp.float32))


def total_of_rows(x: Any, rows: Any) -> Any:
    """``x @ rows``, from the rows of the sources that are active.

    Of many samples the first active source of each is taken, then the second of each, and so on: additions long enough
    for all cores.

    Args:
        x: values of the sources, ``[samples, sources]``.
        rows: ``[sources, out]``.
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
        """The nth active source of every sample and its value, zero where there is none."""
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
    """Of every row the value at its own index."""
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]


@dataclass(frozen=True, eq=False)
class SourceBlocks:
    """Synapses by source, in blocks of equal length.

    Attributes:
        first: of every source where its blocks start, int32 ``[sources + 1]``.
        targets: int32 ``[blocks, BLOCK]``; ``out`` where there is no synapse.
        synapses: numbers of the synapses, int32 ``[blocks, BLOCK]``; their number where there is none.
        out: number of targets.
    """

    first: np.ndarray
    targets: np.ndarray
    synapses: np.ndarray
    out: int

    @classmethod
    def of(cls, source: np.ndarray, target: np.ndarray, sources: int, out: int) -> SourceBlocks:
        """From source and target of every synapse, whole numbers ``[n]``."""
        order = np.argsort(source, kind="stable")
        counts = np.bincount(source, minlength=sources)
        blocks = -(-counts // BLOCK)
        first = np.concatenate([[0], np.cumsum(blocks)])
        targets = np.full((max(int(first[-1]), 1), BLOCK), out, np.int32)
        synapses = np.full(targets.shape, source.size, np.int32)
        within = np.arange(source.size) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(first[:-1], counts) + within // BLOCK, within % BLOCK
        targets[at], synapses[at] = target[order], order
        return cls(first.astype(np.int32), targets, synapses, out)

    def total(self, x: Any, weights: Callable[[Any], Any]) -> Any:
        """What the active ones among the sources bring.

        Args:
            x: values of the sources, ``[samples, sources]``.
            weights: gives the weights ``[BLOCK]`` of the block of a number.
        """
        first, targets = jnp.asarray(self.first), jnp.asarray(self.targets)

        def add(total: Any, source: Any, value: Any) -> Any:
            def block(b: Any, total: Any) -> Any:
                return total.at[targets[b]].add(value * weights(b), mode="drop")

            return jax.lax.fori_loop(first[source], first[source + 1], block, total)

        return over_active(x, self.out, add)
