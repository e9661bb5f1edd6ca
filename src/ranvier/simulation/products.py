"""Matrix products of a projection for a batch of samples: all weights, or those of the sources that are active."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..ir.graph.elements import Projection
from ..ir.graph.operations import Linear, Operation
from .operations import function_of

Apply = Callable[[Any], Any]
"""From the values of the source, ``[samples, *shape]``, to what the projection brings."""
Arrays = Mapping[str, Any]

SMALLEST = 2**16
"""Matrices with fewer weights are always multiplied whole."""
WORTH = 0.15
"""Part of the sources that may be active at most for their weights to be taken one by one: rows that are added up one
after the other take about as long as this part of a product that reads the matrix once."""
WORTH_IN_BATCH = 0.04
"""Likewise for many samples, for which a whole product reads the matrix once in all."""
MANY = 8
"""Samples from which on they are many."""
BLOCK = 32
"""Synapses of one source that are added at once, in sparse rows."""
VALUES_AT_ONCE = 2**24
"""Products with sparse rows that are kept at once."""


def prepared(projection: Projection, arrays: Arrays, samples: int, rate: float | None) -> Apply:
    """A projection ready to be applied many times to one batch.

    Args:
        projection: its operation and name.
        arrays: of the operation.
        samples: in the batch.
        rate: part of the sources that is active in a step, measured; None where it is not known.
    """
    operation = projection.operation
    if isinstance(operation, Linear):
        whole = _whole_sparse(operation, arrays) if sparse.issparse(operation.weight) else _whole_dense(arrays)
        if _is_worth_looking(operation, samples, rate):
            active = _active_sparse if sparse.issparse(operation.weight) else _active_dense
            return _whichever(whole, active(operation, arrays), samples)
        return whole
    return _one_by_one(operation, arrays)


def _is_worth_looking(operation: Linear, samples: int, rate: float | None) -> bool:
    """Whether activity may be so low that single sources are worth looking for."""
    count = operation.weight.nnz if sparse.issparse(operation.weight) else operation.weight.size
    return count >= SMALLEST and (rate is None or rate < 1.5 * _worth(samples))


def _worth(samples: int) -> float:
    return WORTH_IN_BATCH if samples >= MANY else WORTH


def _one_by_one(operation: Operation, arrays: Arrays) -> Apply:
    apply = jax.vmap(function_of(operation), in_axes=(None, 0))
    return lambda x: apply(arrays, x)


def _with_bias(y: Any, arrays: Arrays) -> Any:
    return y + arrays["bias"] if "bias" in arrays else y


def _whole_dense(arrays: Arrays) -> Apply:
    weight = arrays["weight"]
    return lambda x: _with_bias(jax.lax.dot_general(x, weight, (((1,), (1,)), ((), ()))), arrays)


def _whole_sparse(operation: Linear, arrays: Arrays) -> Apply:
    one = function_of(operation)
    count = operation.weight.nnz

    def apply(x: Any) -> Any:
        if count * x.shape[0] <= VALUES_AT_ONCE:
            return jax.vmap(one, in_axes=(None, 0))(arrays, x)
        return jax.lax.map(lambda values: one(arrays, values), x)

    return apply


def _whichever(whole: Apply, active: Apply, samples: int) -> Apply:
    """The whole product where more is active than single sources are worth."""
    worth = _worth(samples)

    def apply(x: Any) -> Any:
        few = jnp.count_nonzero(x) <= worth * x.size
        return jax.lax.cond(few, active, whole, x)

    return apply


def _active_dense(operation: Linear, arrays: Arrays) -> Apply:
    """Adds up the columns of the sources that are active."""
    columns = jnp.asarray(arrays["weight"]).T
    inner, out = columns.shape

    def apply(x: Any) -> Any:
        places, count = _active(x)

        def add(k: Any, total: Any) -> Any:
            sample, source = places[k] // inner, places[k] % inner
            row = jax.lax.dynamic_index_in_dim(total, sample, keepdims=True)
            column = jax.lax.dynamic_index_in_dim(columns, source, keepdims=True)
            return jax.lax.dynamic_update_index_in_dim(total, row + x[sample, source] * column, sample, 0)

        total = jax.lax.fori_loop(0, count, add, jnp.zeros((x.shape[0], out), x.dtype))
        return _with_bias(total, arrays)

    return apply


def _active_sparse(operation: Linear, arrays: Arrays) -> Apply:
    """Adds up the synapses of the sources that are active, a block of one source after the other."""
    first, targets, order = _blocks(operation.weight)
    stored = jnp.concatenate([jnp.asarray(arrays["weight"]), jnp.zeros(1, arrays["weight"].dtype)])
    weights = stored[order]
    out, inner = operation.weight.shape

    def apply(x: Any) -> Any:
        places, count = _active(x)

        def add(k: Any, total: Any) -> Any:
            sample, source = places[k] // inner, places[k] % inner
            value = x[sample, source]

            def block(b: Any, total: Any) -> Any:
                return total.at[sample, targets[b]].add(value * weights[b], mode="drop")

            return jax.lax.fori_loop(first[source], first[source + 1], block, total)

        total = jax.lax.fori_loop(0, count, add, jnp.zeros((x.shape[0], out), x.dtype))
        return _with_bias(total, arrays)

    return apply


def _active(x: Any) -> tuple[Any, Any]:
    """Flat numbers of the elements that are not zero, first in a full-length array, and how many there are."""
    flat = x.reshape(-1)
    (places,) = jnp.nonzero(flat, size=flat.size, fill_value=0)
    return places, jnp.count_nonzero(flat)


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
