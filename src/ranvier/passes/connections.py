"""connections: removes projections without effect, and joins parallel ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import PassError
from ..graph.analysis.bounds import bounds, source_bounds
from ..graph.arrays import as_rows
from ..graph.elements import Projection
from ..graph.operations import Constant, Identity, Linear, Operation, Scale
from ..verification.promise import Promise
from .base import Pass, Rewriting

SPARSE_BELOW = 0.3
"""The fraction of weights other than zero below which a matrix is stored as sparse rows. With its index, a weight takes
up to twice the bytes, and a product with sparse rows accesses memory in an order that caches handle badly."""


@dataclass(frozen=True)
class Connections(Pass):
    """Removes and joins projections, and stores sparse matrices as such.

    Without effect: all weights are zero, or bounds show that the source is always zero, and there is no bias (bitwise).
    Parallel: two matrices, scales or constants with the same source, target and delay become their sum (algebraic).
    Sparse: a dense matrix with few weights other than zero becomes sparse rows (bitwise).

    Attributes:
        sparse_below: fraction of weights other than zero below which a matrix becomes sparse rows; 0 for never.

    Raises:
        PassError: ``sparse_below`` is not between 0 and 1.
    """

    name = "connections"
    promise = Promise.ALGEBRAIC
    sparse_below: float = SPARSE_BELOW

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sparse_below <= 1:
            raise PassError(f"connections: sparse_below={self.sparse_below!r} is not a fraction; expected 0 to 1.")

    def run(self, rewriting: Rewriting) -> None:
        for name in list(rewriting.graph.projections):
            self._without_effect(rewriting, rewriting.graph.projections[name])
        self._parallel(rewriting)
        for name in list(rewriting.graph.projections):
            self._stored(rewriting, rewriting.graph.projections[name])

    def _without_effect(self, rewriting: Rewriting, projection: Projection) -> None:
        graph, operation = rewriting.graph, projection.operation
        source = graph.source_shape(projection)
        offset = operation.offset(source)
        if offset is not None and np.any(offset != 0):
            return
        values = source_bounds(rewriting.fact(bounds), graph, projection)
        count = operation.synapses(source)
        if not count:
            reason = "all its weights are zero"
            if rewriting.leaves(projection.name, f"not removed, though {reason}", projection.name):
                return
        elif not np.any(values.low) and not np.any(values.high):
            reason = "its source is always zero"
        else:
            return
        rewriting.remove_projection(projection.name)
        rewriting.did(projection.name, f"removed, {count} synapses: {reason}", Promise.BITWISE)

    def _parallel(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        first: dict[Any, str] = {}
        for name, projection in list(graph.projections.items()):
            kind = next((k for k in SUMS if isinstance(projection.operation, k)), None)
            if kind is None:
                continue
            ports = projection.source_port, projection.target_port, projection.trained
            # Trained and fixed weights do not join: the sum would be trained or fixed as a whole.
            ends = (projection.source, projection.target, projection.delay, *ports, SUMS[kind])
            if ends not in first:
                first[ends] = name
                continue
            if rewriting.leaves(name, f"not joined with {first[ends]!r}", name, first[ends]):
                continue
            other = graph.projections[first[ends]]
            joined = SUMS[kind](other.operation, projection.operation)
            rewriting.set_projection(other.replace(operation=joined, masked=other.masked and projection.masked))
            rewriting.remove_projection(name)
            rewriting.did(name, f"joined with {other.name!r}, which has the same ends and delay", Promise.ALGEBRAIC)

    def _stored(self, rewriting: Rewriting, projection: Projection) -> None:
        operation = projection.operation
        if not isinstance(operation, Linear) or sparse.issparse(operation.weight):
            return
        count = operation.synapses(operation.weight.shape[1:])
        few = count < self.sparse_below * operation.weight.size
        if few and not rewriting.leaves(projection.name, "not stored as sparse rows", projection.name):
            rewriting.set_projection(projection.replace(operation=Linear(as_rows(operation.weight), operation.bias)))
            message = f"stored as sparse rows: {count} of {operation.weight.size} weights are not zero"
            rewriting.did(projection.name, message, Promise.BITWISE)


def _sum_of_scales(a: Any, b: Any) -> Scale:
    return Scale(sum(getattr(operation, "scale", 1.0) for operation in (a, b)))


def _sum(a: Any, b: Any) -> Linear:
    weight = a.weight + b.weight
    biases = [bias for bias in (a.bias, b.bias) if bias is not None]
    bias = sum(biases[1:], biases[0]) if biases else None
    return Linear(weight if sparse.issparse(weight) else np.asarray(weight), bias)


def _sum_of_constants(a: Any, b: Any) -> Constant:
    return Constant(a.bias + b.bias)


SUMS: dict[type[Operation], Callable[[Any, Any], Operation]] = {
    Linear: _sum,
    Identity: _sum_of_scales,
    Scale: _sum_of_scales,
    Constant: _sum_of_constants,
}
"""The sum of two operations, by kind."""
