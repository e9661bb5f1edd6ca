"""Matrix products of a projection for a batch of samples: all weights, or those of the sources that are active.

What is stored and how it is computed are two decisions: a matrix of which few elements are not zero is computed with
its synapses, and many synapses are computed as a matrix, as costs on this machine say. So a pruned network is not
slower than it was.

With 1,000 sources of which 20 are active, a product that adds up 20 rows reads a fiftieth of the matrix. Looking for
them costs as much as reading about a seventh of it for one sample, so it pays below 15 % of active sources, and below
10 % in a batch, where a whole product reads the matrix once for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import jax
import numpy as np
from scipy import sparse

from ..graph.arrays import as_rows, row_numbers
from ..graph.elements import Projection
from ..graph.operations import Conv, Linear, Operation
from ..graph.shared import with_numbers
from ..program.costs import AT_ONCE, Costs, costs
from ..program.gather_scatter import total_of_synapses
from ..util.active_sources import SMALLEST, WORTH, SourceBlocks, total_of_rows, whichever
from .convolutions import TiledConvolution, tiled
from .jax_ops import applied

Arrays = Mapping[str, Any]
Apply = Callable[[Arrays, Any], Any]
"""From arrays and the values of the source, ``[samples, *shape]``, to what the projection brings."""

WORTH_IN_BATCH = 0.1
"""Part of the sources that may be active at most in many samples, for which a whole product reads the matrix once in
all."""
MANY = 8
"""Samples from which on they are many."""
WORTH_MEASURING = 2**14
"""Elements of a matrix from which on its costs are measured."""
LARGEST_DENSE = 2**24
"""Elements of a matrix that synapses may be turned into."""
VALUES_AT_ONCE = 2**24
"""Products of weights and values that are in memory at once, for sparse rows."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A projection ready to be applied.

    Attributes:
        arrays: as ``apply`` takes them.
        apply: the projection.
    """

    arrays: Arrays
    apply: Apply


def layout_of(
    projection: Projection, arrays: Arrays, image: tuple[int, ...], samples: int, rate: float | None, *, in_loop: bool
) -> Layout:
    """How a projection is applied many times to one batch, with its arrays as that needs them.

    Args:
        projection: its operation and name.
        arrays: of the operation.
        image: shape of the source.
        samples: in the batch.
        rate: part of the sources that is active in a step, measured; None where it is not known.
        in_loop: whether it is applied step by step, and not to all steps at once, for which a dense matrix is best read
            once.
    """
    operation = projection.operation
    if isinstance(operation, Conv) and (tiles := tiled(operation, image)) is not None:
        return _by_tiles(tiles, arrays)
    if not isinstance(operation, Linear):
        return Layout(dict(arrays), _one_by_one(operation))
    layout = _product(operation, arrays, samples, rate, in_loop=in_loop)
    return layout if len(image) == 1 else Layout(layout.arrays, _of_rows(layout.apply))


def _product(operation: Linear, arrays: Arrays, samples: int, rate: float | None, *, in_loop: bool) -> Layout:
    """A matrix, for sources ``[samples, in]``."""
    looking = _is_worth_looking(operation, samples, rate)
    operation, arrays = _in_fastest_form(operation, arrays, samples if in_loop else AT_ONCE, looking)
    if sparse.issparse(operation.weight):
        if looking:
            return _active_sparse(operation, arrays, samples)
        return Layout(dict(arrays), _whole_sparse(operation))
    transposed = {**arrays, "weight": np.ascontiguousarray(np.asarray(arrays["weight"]).T)}
    return Layout(transposed, _whichever(_whole_dense, _active_dense, samples) if looking and in_loop else _whole_dense)


def _in_fastest_form(operation: Linear, arrays: Arrays, samples: int, looking: bool) -> tuple[Linear, dict[str, Any]]:
    """A matrix as it is computed fastest, dense or as synapses, with its arrays in that form."""
    weight, numbers = operation.weight, np.asarray(arrays["weight"])
    is_sparse = sparse.issparse(weight)
    synapses = weight.nnz if is_sparse else int(np.count_nonzero(numbers))
    elements = prod(weight.shape)
    # A measurement takes a second, which no simulation of small or full matrices would win back.
    half_empty = 2 * synapses <= elements
    known = costs() if half_empty and elements >= WORTH_MEASURING else Costs()
    sparse_is_faster = half_empty and known.is_sparse_faster(synapses, weight.shape, samples)
    # Synapses of active sources are cheaper than rows of them, however dense the matrix; and a large matrix of few
    # synapses may not fit in memory.
    if is_sparse and not sparse_is_faster and not looking and elements <= LARGEST_DENSE:
        dense = with_numbers(weight, numbers).toarray()
        return operation.replace(weight=dense), {**arrays, "weight": dense}
    if not is_sparse and sparse_is_faster and not looking:
        rows = as_rows(numbers)
        return operation.replace(weight=rows), {**arrays, "weight": rows.data}
    return operation, dict(arrays)


def _of_rows(apply: Apply) -> Apply:
    """The same for images, which a matrix reads as rows."""
    return lambda arrays, x: apply(arrays, x.reshape(x.shape[0], -1))


def _is_worth_looking(operation: Linear, samples: int, rate: float | None) -> bool:
    """Whether activity may be so low that single sources are worth looking for."""
    count = operation.weight.nnz if sparse.issparse(operation.weight) else operation.weight.size
    return count >= SMALLEST and (rate is None or rate < 1.5 * _worth(samples))


def _worth(samples: int) -> float:
    return WORTH_IN_BATCH if samples >= MANY else WORTH


def _one_by_one(operation: Operation) -> Apply:
    return jax.vmap(partial(applied, operation), in_axes=(None, 0))


def _by_tiles(tiles: TiledConvolution, arrays: Arrays) -> Layout:
    as_tiles = {**arrays, "weight": tiles.matrix(np.asarray(arrays["weight"]))}

    def apply(arrays: Arrays, x: Any) -> Any:
        y = tiles(arrays["weight"], x)
        return y + arrays["bias"].reshape(-1, 1, 1) if "bias" in arrays else y

    return Layout(as_tiles, apply)


def _with_bias(y: Any, arrays: Arrays) -> Any:
    return y + arrays["bias"] if "bias" in arrays else y


def _whole_dense(arrays: Arrays, x: Any) -> Any:
    """With a row for every source, as XLA multiplies fastest in loops."""
    return _with_bias(x @ arrays["weight"], arrays)


def _whole_sparse(operation: Linear) -> Apply:
    rows = operation.weight
    sources, targets = rows.indices.astype(np.int32), row_numbers(rows)
    at_once = max(1, VALUES_AT_ONCE // max(rows.nnz, 1))

    def some(arrays: Arrays, x: Any) -> Any:
        return total_of_synapses(arrays["weight"], sources, targets, rows.shape[0], x)

    def apply(arrays: Arrays, x: Any) -> Any:
        if x.shape[0] <= at_once:
            return _with_bias(some(arrays, x), arrays)
        # Batches that take too much memory at once go part by part.
        total = jax.lax.map(lambda one: some(arrays, one[None])[0], x, batch_size=at_once)
        return _with_bias(total, arrays)

    return apply


def _whichever(whole: Apply, active: Apply, samples: int) -> Apply:
    """The whole product where more is active than single sources are worth."""

    def apply(arrays: Arrays, x: Any) -> Any:
        return whichever(lambda x: active(arrays, x), lambda x: whole(arrays, x), x, worth=_worth(samples))

    return apply


def _active_dense(arrays: Arrays, x: Any) -> Any:
    """Adds up the rows of the sources that are active."""
    return _with_bias(total_of_rows(x, arrays["weight"]), arrays)


def _active_sparse(operation: Linear, arrays: Arrays, samples: int) -> Layout:
    """Adds up the synapses of the sources that are active, a block of one source after the other."""
    rows = operation.weight.tocoo()
    blocks = SourceBlocks.of(rows.col, rows.row, rows.shape[1], rows.shape[0])
    stored = np.concatenate([np.asarray(arrays["weight"]), np.zeros(1, arrays["weight"].dtype)])
    with_blocks = {**arrays, "blocks": stored[blocks.synapses]}
    whole = _whole_sparse(operation)

    def active(arrays: Arrays, x: Any) -> Any:
        return _with_bias(blocks.total(x, lambda number: arrays["blocks"][number]), arrays)

    return Layout(with_blocks, _whichever(whole, active, samples))
