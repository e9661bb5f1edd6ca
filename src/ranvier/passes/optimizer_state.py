"""Where the numbers of trained arrays come from, so that an optimizer's state can be carried over."""

# An example: a matrix [2, 3] has the numbers [[0 1 2] [3 4 5]]. Its source loses neuron 1, so the optimized matrix has
# the index [[0 2] [3 5]]: an optimizer's momentum m becomes m.ravel()[[0 2 3 5]], as [2, 2]. If the two rows are merged
# instead, the index is [[0 1 2]], the numbers of the neuron that stays.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..errors import InputError
from ..graph.elements import Projection
from ..graph.operations import Constant, Conv, Linear, Scale
from ..graph.provenance import Provenance
from ..graph.shared import array_at, numbers_of, trained_arrays
from ..graph.snn_graph import SNNGraph
from ..program.paths import Path, path_text

Index = dict[Path, np.ndarray]
"""By path as in ``lower(graph).params``, in the shape in which an array is stored: for each element, the number of the
element that it comes from; -1 for none."""


@dataclass(frozen=True, eq=False)
class OptimizerStateMap:
    """Carries values that belong to parameters over to the parameters of the optimized model.

    Attributes:
        shapes: by path, the shapes of the leaves of the original parameters.
        index: by path, for each element of the optimized parameters, the number of the original element, counted over
            all leaves in order; -1 if it comes from no single one.
    """

    shapes: Mapping[Path, tuple[tuple[int, ...], ...]]
    index: Index

    def __call__(self, tree: Any) -> Any:
        """A pytree in which values for the original parameters are replaced by values for the optimized ones.

        Args:
            tree: such as an optax state, or parameters. Dictionaries by path, as learners and :func:`ranvier.fit` have
                them, are carried over. Elements without an origin become zero.

        Raises:
            InputError: nothing in the tree has values for the parameters.
        """
        carried_parts = 0

        def carried(part: Any) -> Any:
            nonlocal carried_parts
            if not self._is_of_parameters(part):
                return part
            carried_parts += 1
            return self._carried(part)

        result = jax.tree.map(carried, tree, is_leaf=self._is_of_parameters)
        # A state for other parameters has the same form. Returned unchanged, it would only fail at the next update.
        if not carried_parts:
            names = ", ".join(map(path_text, self.shapes))
            raise InputError(
                f"carry: the tree has no dictionary of values for the parameters {names}; pass the state of an optax "
                "optimizer that was made for parameters by path, such as FitResult.optimizer_state."
            )
        return result

    @property
    def new(self) -> dict[Path, int]:
        """By path, how many elements have no origin."""
        return {name: int(np.count_nonzero(index < 0)) for name, index in self.index.items() if np.any(index < 0)}

    def _is_of_parameters(self, part: Any) -> bool:
        return isinstance(part, dict) and bool(part) and set(part) == set(self.shapes)

    def _carried(self, values: Mapping[Path, Any]) -> dict[Path, Any]:
        leaves = [jnp.ravel(leaf) for path in self.shapes for leaf in jax.tree.leaves(values[path])]
        flat = jnp.concatenate(leaves) if leaves else jnp.zeros(0)
        return {
            name: jnp.where(index >= 0, flat[np.maximum(index, 0)], jnp.zeros((), flat.dtype))
            for name, index in self.index.items()
        }


def optimizer_state_map(
    shapes: Mapping[Path, tuple[tuple[int, ...], ...]], first: Index, then: Index
) -> OptimizerStateMap:
    """Composes the way from parameters to the arrays of a graph with that to the arrays of an optimized graph.

    Args:
        shapes: by path, the shapes of the parameters' leaves.
        first: for the graph's arrays, numbers of elements of the parameters.
        then: for the optimized graph's arrays, numbers of elements of the graph's arrays, in the order of ``first``.
    """
    flat = np.concatenate([index.ravel() for index in first.values()]) if first else np.zeros(0, np.int64)
    composed = {name: np.where(index >= 0, flat[np.maximum(index, 0)], -1) for name, index in then.items()}
    return OptimizerStateMap(dict(shapes), composed)


def own_index(graph: SNNGraph) -> Index:
    """Consecutive numbers for the elements of a graph's trained arrays."""
    index, start = {}, 0
    for name, value in trained_arrays(graph).items():
        index[name] = start + np.arange(value.size).reshape(value.shape)
        start += value.size
    return index


def _with_derived_arrays(graph: SNNGraph, numbering: Index) -> Index:
    """An index extended to arrays made of shared parameters: the numbers of these, or -1 if a function makes them."""
    index = dict(numbering)
    for array, use in graph.bindings.items():
        if use.function is not None:
            index[array] = np.full(numbers_of(array_at(graph, array)).shape, -1)
        elif use.parameters:
            numbers = numbering[use.parameters]
            index[array] = numbers if use.index is None else numbers.ravel()[use.index]
    return index


def moved_index(before: SNNGraph, after: SNNGraph, origins: Provenance) -> Index:
    """For the arrays of an optimized graph, the numbers of their elements in the original graph."""
    numbering = _with_derived_arrays(before, own_index(before))
    arrays = trained_arrays(after)
    return {a: _moved(before, after, origins, a, value, numbering) for a, value in arrays.items()}


def _moved(
    before: SNNGraph, after: SNNGraph, origins: Provenance, array: Path, value: np.ndarray, numbering: Index
) -> np.ndarray:
    # No origin is always safe: a fresh optimizer state is zero. A wrong origin would not be.
    nothing = np.full(value.shape, -1)
    if len(array) == 1:
        numbers = origins.parameters.get(array[0])
        if array not in numbering or numbers is None:
            return nothing
        return _picked(numbering[array].ravel(), numbers).reshape(value.shape)
    name, key = array
    if name in after.populations and key in after.populations[name].neuron.parameters:
        if array not in numbering or numbering[array].ndim == 0:
            return numbering.get(array, nothing)
        numbers = _numbers(before, after, origins, name, name)
        return nothing if numbers is None else _picked(numbering[array].ravel(), numbers).reshape(value.shape)
    old, new = before.projections.get(name), after.projections[name]
    if old is None or not old.trained:
        return nothing
    rows = _numbers(before, after, origins, old.target, new.target)
    columns = _numbers(before, after, origins, old.source, new.source)
    if rows is None or columns is None:
        return nothing
    numbers = _of_operation(before, old, after, new, key, rows, columns, numbering)
    if numbers is None or numbers.shape != value.shape:
        return nothing
    # What an optimizer knows of a synapse that is absent now would only move a weight that nobody reads.
    return numbers if key != "weight" or new.mask is None else np.where(new.mask, numbers, -1)


def _numbers(before: SNNGraph, after: SNNGraph, origins: Provenance, old: str, new: str) -> np.ndarray | None:
    """For each element of a node, the number of its original, the first if several were merged; -1 for none."""
    if old not in before.populations:
        return np.arange(before.nodes[old].size) if old == new else None
    place = origins.places[old]
    if place.population != new:
        return None
    # Backward, so that of several originals the first is written last.
    originals = np.full(after.populations[new].size, -1)
    remaining = np.flatnonzero(place.numbers >= 0)[::-1]
    originals[place.numbers[remaining]] = remaining
    return originals


def _of_operation(
    before: SNNGraph,
    old: Projection,
    after: SNNGraph,
    new: Projection,
    key: str,
    rows: np.ndarray,
    columns: np.ndarray,
    numbering: Index,
) -> np.ndarray | None:
    """For an array of a projection's operation, the numbers of its elements; None where they cannot be known."""
    a, b = old.operation, new.operation
    known = numbering.get((old.name, key))
    if key == "bias" and isinstance(b, (Linear, Constant)) and isinstance(a, (Linear, Constant)):
        return (
            None if known is None else known if known.ndim == 0 else _picked(known.ravel(), rows).reshape(b.bias.shape)
        )
    if isinstance(a, Linear) and isinstance(b, (Linear, Scale)):
        return _of_matrix(a, b, rows, columns, numbering[old.name, "weight"])
    if isinstance(a, Conv) and isinstance(b, Conv) and known is not None:
        return _of_kernel(a, b, key, rows, columns, known, before.source_shape(old), after.source_shape(new))
    if isinstance(a, Scale) and isinstance(b, Scale) and known is not None:
        return known if known.ndim == 0 else _picked(known.ravel(), rows).reshape(b.scale.shape)
    return known


def _of_matrix(
    a: Linear, b: Linear | Scale, rows: np.ndarray, columns: np.ndarray, numbering: np.ndarray
) -> np.ndarray:
    """For the weights of a matrix, or of the scale that it became, the numbers of the original matrix's weights."""
    if isinstance(b, Scale):
        at = np.arange(rows.size) if b.scale.ndim else np.zeros(1, np.int64)
        row, column, shape = rows[at], columns[at], b.scale.shape
    elif sparse.issparse(b.weight):
        places = sparse.coo_array(b.weight)
        row, column, shape = rows[places.coords[0]], columns[places.coords[1]], b.weight.data.shape
    else:
        row, column = np.broadcast_arrays(rows[:, None], columns[None, :])
        row, column, shape = row.ravel(), column.ravel(), b.weight.shape
    inside = (row >= 0) & (column >= 0)
    row, column = np.maximum(row, 0), np.maximum(column, 0)
    if sparse.issparse(a.weight):
        # Counted from 1, because looking up a weight that is not stored gives 0.
        numbers = np.arange(1, a.weight.nnz + 1)
        stored = sparse.csr_array((numbers, a.weight.indices, a.weight.indptr), shape=a.weight.shape)
        at = stored[row, column].toarray().ravel() - 1 if row.size else np.zeros(0, np.int64)
    else:
        at = row * a.weight.shape[1] + column
    return np.where(inside & (at >= 0), numbering.ravel()[np.maximum(at, 0)], -1).reshape(shape)


def _of_kernel(
    a: Conv,
    b: Conv,
    key: str,
    rows: np.ndarray,
    columns: np.ndarray,
    numbering: np.ndarray,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> np.ndarray | None:
    """For the kernels or the bias of a convolution, the numbers of the original ones."""
    # Rows and columns count pixels, so they show channels only if images have the same number of pixels as before.
    pixels = prod(a.target_shape(before)[1:]), prod(before[1:])
    if pixels != (prod(b.target_shape(after)[1:]), prod(after[1:])):
        return None
    out, into = rows[:: pixels[0]] // pixels[0], columns[:: pixels[1]] // pixels[1]
    if key == "bias":
        return _picked(numbering, out)
    if a.groups > 1 or np.any(out < 0) or np.any(into < 0):
        return numbering if numbering.shape == b.weight.shape else None
    return numbering[np.ix_(out, into)]


def _picked(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.where(numbers >= 0, values[np.maximum(numbers, 0)], -1)
