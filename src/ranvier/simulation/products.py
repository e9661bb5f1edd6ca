"""Matrix products of a projection for a batch of samples: all weights, or those of the sources that are active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..ir.graph.elements import Projection
from ..ir.graph.operations import Linear, Operation
from .operations import function_of

Arrays = Mapping[str, Any]
Apply = Callable[[Arrays, Any], Any]
"""From arrays and the values of the source, ``[samples, *shape]``, to what the projection brings."""

SMALLEST = 2**20
"""Matrices with fewer weights are always multiplied whole; so small ones stay in the cache."""
WORTH = 0.15
"""Part of the sources that may be active at most for their weights to be taken one by one: rows that are added up one
after the other take about as long as this part of a product that reads the matrix once."""
WORTH_IN_BATCH = 0.04
"""Likewise for many samples, for which a whole product reads the matrix once in all."""
MANY = 8
"""Samples from which on they are many."""
GROUP = 128
"""Sources that are looked at together for active ones."""
BLOCK = 32
"""Synapses of one source that are added at once, in sparse rows."""
VALUES_AT_ONCE = 2**24
"""Products with sparse rows that are kept at once."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A projection ready to be applied.

    Attributes:
        arrays: as ``apply`` takes them.
        apply: the projection.
    """

    arrays: Arrays
    apply: Apply


def layout_of(projection: Projection, arrays: Arrays, samples: int, rate: float | None, *, in_loop: bool) -> Layout:
    """How a projection is applied many times to one batch, with its arrays as that needs them.

    Args:
        projection: its operation and name.
        arrays: of the operation.
        samples: in the batch.
        rate: part of the sources that is active in a step, measured; None where it is not known.
        in_loop: whether it is applied step by step, and not to all steps at once, for which a dense matrix is best read
            once.
    """
    operation = projection.operation
    if not isinstance(operation, Linear):
        return Layout(dict(arrays), _one_by_one(operation))
    looking = _is_worth_looking(operation, samples, rate)
    if sparse.issparse(operation.weight):
        if looking:
            return _active_sparse(operation, arrays, samples)
        return Layout(dict(arrays), _whole_sparse(operation))
    kept = {**arrays, "weight": np.ascontiguousarray(np.asarray(arrays["weight"]).T)}
    return Layout(kept, _whichever(_whole_dense, _active_dense, samples) if looking and in_loop else _whole_dense)


def _is_worth_looking(operation: Linear, samples: int, rate: float | None) -> bool:
    """Whether activity may be so low that single sources are worth looking for."""
    count = operation.weight.nnz if sparse.issparse(operation.weight) else operation.weight.size
    return count >= SMALLEST and (rate is None or rate < 1.5 * _worth(samples))


def _worth(samples: int) -> float:
    return WORTH_IN_BATCH if samples >= MANY else WORTH


def _one_by_one(operation: Operation) -> Apply:
    return jax.vmap(function_of(operation), in_axes=(None, 0))


def _with_bias(y: Any, arrays: Arrays) -> Any:
    return y + arrays["bias"] if "bias" in arrays else y


def _whole_dense(arrays: Arrays, x: Any) -> Any:
    """With a row for every source, as XLA multiplies fastest in loops."""
    return _with_bias(x @ arrays["weight"], arrays)


def _whole_sparse(operation: Linear) -> Apply:
    one = function_of(operation)
    count = operation.weight.nnz

    def apply(arrays: Arrays, x: Any) -> Any:
        if count * x.shape[0] <= VALUES_AT_ONCE:
            return jax.vmap(one, in_axes=(None, 0))(arrays, x)
        return jax.lax.map(lambda values: one(arrays, values), x)

    return apply


def _whichever(whole: Apply, active: Apply, samples: int) -> Apply:
    """The whole product where more is active than single sources are worth."""
    worth = _worth(samples)

    def apply(arrays: Arrays, x: Any) -> Any:
        few = jnp.count_nonzero(x) <= worth * x.size
        return jax.lax.cond(few, lambda: active(arrays, x), lambda: whole(arrays, x))

    return apply


def _active_dense(arrays: Arrays, x: Any) -> Any:
    """Adds up the rows of the sources that are active."""
    rows = arrays["weight"]

    def add(total: Any, source: Any, value: Any) -> Any:
        return total + value * jax.lax.dynamic_index_in_dim(rows, source, keepdims=False)

    return _with_bias(_over_active(x, rows.shape[1], add), arrays)


def _active_sparse(operation: Linear, arrays: Arrays, samples: int) -> Layout:
    """Adds up the synapses of the sources that are active, a block of one source after the other."""
    first, targets, order = _blocks(operation.weight)
    stored = np.concatenate([np.asarray(arrays["weight"]), np.zeros(1, arrays["weight"].dtype)])
    kept = {**arrays, "first": first, "targets": targets, "blocks": stored[order]}
    whole, out = _whole_sparse(operation), operation.weight.shape[0]

    def active(arrays: Arrays, x: Any) -> Any:
        first, targets, blocks = arrays["first"], arrays["targets"], arrays["blocks"]

        def add(total: Any, source: Any, value: Any) -> Any:
            def block(b: Any, total: Any) -> Any:
                return total.at[targets[b]].add(value * blocks[b], mode="drop")

            return jax.lax.fori_loop(first[source], first[source + 1], block, total)

        return _with_bias(_over_active(x, out, add), arrays)

    return Layout(kept, _whichever(whole, active, samples))


def _over_active(x: Any, out: int, add: Callable[[Any, Any, Any], Any]) -> Any:
    """For every sample ``add(total, source, value)`` over the sources that are not zero, from zeros ``[out]``.

    Sources are looked at in groups; within one, running counts say where the next active one is.
    """
    samples, size = x.shape
    groups = -(-size // GROUP)
    grouped = jnp.pad(x, ((0, 0), (0, groups * GROUP - size))).reshape(samples, groups, GROUP)
    running = (grouped != 0).astype(x.dtype) @ jnp.triu(jnp.ones((GROUP, GROUP), x.dtype))
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


def _blocks(rows: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Synapses by source in blocks of equal length.

    Returns:
        Of every source where its blocks start, ``[sources + 1]``; targets ``[blocks, BLOCK]``, past the last target
        where there is no synapse; and the place of every synapse's weight among those that are stored, the number of
        stored weights where there is none.
    """
    numbered = sparse.csr_array((np.arange(rows.nnz), rows.indices, rows.indptr), shape=rows.shape).tocsc()
    counts = np.diff(numbered.indptr)
    blocks = -(-counts // BLOCK)
    first = np.concatenate([[0], np.cumsum(blocks)])
    targets = np.full((max(int(first[-1]), 1), BLOCK), rows.shape[0], np.int32)
    order = np.full(targets.shape, rows.nnz, np.int32)
    within = np.arange(rows.nnz) - np.repeat(numbered.indptr[:-1], counts)
    at = np.repeat(first[:-1], counts) + within // BLOCK, within % BLOCK
    targets[at], order[at] = numbered.indices, numbered.data
    return first.astype(np.int32), targets, order
