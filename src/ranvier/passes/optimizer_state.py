"""Where the numbers of trained arrays come from, so that an optimizer's state can go along with them."""

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
"""By path as in ``lower(graph).params``, of every number of a trained array, as it is stored, the number of what it
comes from; -1 for nothing."""


@dataclass(frozen=True, eq=False)
class OptimizerStateMap:
    """Takes what belongs to parameters over to the parameters of the optimized model.

    Attributes:
        shapes: of the leaves of the parameters before, by path.
        index: of every number of the parameters after, by path, the number of that before: leaves one after the other,
            flat; -1 where it is of no single one.
    """

    shapes: Mapping[Path, tuple[tuple[int, ...], ...]]
    index: Index

    def __call__(self, tree: Any) -> Any:
        """A pytree with values for the optimized model's parameters wherever it has values for those before.

        Args:
            tree: such as an optax state, or parameters; parts that are dictionaries by path, as learners and
                :func:`ranvier.fit` have them, are carried over. What has no origin becomes zero.

        Raises:
            InputError: nothing in the tree has values for the parameters.
        """
        found = [0]

        def carried(part: Any) -> Any:
            if not self._is_of_parameters(part):
                return part
            found[0] += 1
            return self._carried(part)

        result = jax.tree.map(carried, tree, is_leaf=self._is_of_parameters)
        if not found[0]:
            names = ", ".join(map(path_text, self.shapes))
            raise InputError(
                f"carry: the tree has no dictionary of values for the parameters {names}; pass the state of an optax "
                "optimizer that was made for parameters by path, such as FitResult.optimizer_state."
            )
        return result

    @property
    def new(self) -> dict[Path, int]:
        """How many numbers of each parameter come from none before."""
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
    """From parameters to the arrays of a graph, and from those to the arrays of an optimized graph.

    Args:
        shapes: of the parameters' leaves.
        first: where the numbers of the graph's arrays are in the parameters.
        then: where those of the optimized graph's arrays are in the graph's, one array after the other as ``first``
            has them.
    """
    flat = np.concatenate([index.ravel() for index in first.values()]) if first else np.zeros(0, np.int64)
    found = {name: np.where(index >= 0, flat[np.maximum(index, 0)], -1) for name, index in then.items()}
    return OptimizerStateMap(dict(shapes), found)


def own_index(graph: SNNGraph) -> Index:
    """Of every number of a graph's arrays its own number."""
    index, start = {}, 0
    for name, value in trained_arrays(graph).items():
        index[name] = start + np.arange(value.size).reshape(value.shape)
        start += value.size
    return index


def _with_made(graph: SNNGraph, own: Index) -> Index:
    """Likewise of arrays that are made of parameters: the numbers of these; -1 where a function makes them."""
    index = dict(own)
    for array, use in graph.bindings.items():
        if use.function is not None:
            index[array] = np.full(numbers_of(array_at(graph, array)).shape, -1)
        elif use.parameters:
            numbers = own[use.parameters]
            index[array] = numbers if use.index is None else numbers.ravel()[use.index]
    return index


def moved_index(before: SNNGraph, after: SNNGraph, origins: Provenance) -> Index:
    """Where the numbers of an optimized graph's arrays are in the graph that it was made of."""
    own = _with_made(before, own_index(before))
    return {array: _moved(before, after, origins, array, value, own) for array, value in trained_arrays(after).items()}


def _moved(
    before: SNNGraph, after: SNNGraph, origins: Provenance, array: Path, value: np.ndarray, own: Index
) -> np.ndarray:
    nothing = np.full(value.shape, -1)
    if len(array) == 1:
        numbers = origins.parameters.get(array[0])
        if array not in own or numbers is None:
            return nothing
        return _picked(own[array].ravel(), numbers).reshape(value.shape)
    name, key = array
    if name in after.populations and key in after.populations[name].neuron.parameters:
        if array not in own or own[array].ndim == 0:
            return own.get(array, nothing)
        numbers = _numbers(before, after, origins, name, name)
        return nothing if numbers is None else _picked(own[array].ravel(), numbers).reshape(value.shape)
    old, new = before.projections.get(name), after.projections[name]
    if old is None or not old.trained:
        return nothing
    rows = _numbers(before, after, origins, old.target, new.target)
    columns = _numbers(before, after, origins, old.source, new.source)
    if rows is None or columns is None:
        return nothing
    found = _of_operation(before, old, after, new, key, rows, columns, own)
    return nothing if found is None or found.shape != value.shape else found


def _numbers(before: SNNGraph, after: SNNGraph, origins: Provenance, old: str, new: str) -> np.ndarray | None:
    """Of every element of a node the number of the one it was, the first where there are several; -1 for none."""
    if old not in before.populations:
        return np.arange(before.nodes[old].size) if old == new else None
    place = origins.places[old]
    if place.population != new:
        return None
    found = np.full(after.populations[new].size, -1)
    kept = np.flatnonzero(place.numbers >= 0)[::-1]
    found[place.numbers[kept]] = kept
    return found


def _of_operation(
    before: SNNGraph,
    old: Projection,
    after: SNNGraph,
    new: Projection,
    key: str,
    rows: np.ndarray,
    columns: np.ndarray,
    own: Index,
) -> np.ndarray | None:
    a, b = old.operation, new.operation
    known = own.get((old.name, key))
    if key == "bias" and isinstance(b, (Linear, Constant)) and isinstance(a, (Linear, Constant)):
        return (
            None if known is None else known if known.ndim == 0 else _picked(known.ravel(), rows).reshape(b.bias.shape)
        )
    if isinstance(a, Linear) and isinstance(b, (Linear, Scale)):
        return _of_matrix(a, b, rows, columns, own[old.name, "weight"])
    if isinstance(a, Conv) and isinstance(b, Conv) and known is not None:
        return _of_kernel(a, b, key, rows, columns, known, before.source_shape(old), after.source_shape(new))
    if isinstance(a, Scale) and isinstance(b, Scale) and known is not None:
        return known if known.ndim == 0 else _picked(known.ravel(), rows).reshape(b.scale.shape)
    return known


def _of_matrix(a: Linear, b: Linear | Scale, rows: np.ndarray, columns: np.ndarray, own: np.ndarray) -> np.ndarray:
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
        numbers = np.arange(1, a.weight.nnz + 1)
        stored = sparse.csr_array((numbers, a.weight.indices, a.weight.indptr), shape=a.weight.shape)
        at = stored[row, column].toarray().ravel() - 1 if row.size else np.zeros(0, np.int64)
    else:
        at = row * a.weight.shape[1] + column
    found = np.where(inside & (at >= 0), own.ravel()[np.maximum(at, 0)], -1)
    return found.reshape(shape)


def _of_kernel(
    a: Conv,
    b: Conv,
    key: str,
    rows: np.ndarray,
    columns: np.ndarray,
    own: np.ndarray,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> np.ndarray | None:
    pixels = prod(a.target_shape(before)[1:]), prod(before[1:])
    kept = prod(b.target_shape(after)[1:]), prod(after[1:])
    if pixels != kept:
        return None
    out, into = rows[:: pixels[0]] // pixels[0], columns[:: pixels[1]] // pixels[1]
    if key == "bias":
        return _picked(own, out)
    if a.groups > 1 or np.any(out < 0) or np.any(into < 0):
        return own if own.shape == b.weight.shape else None
    return own[np.ix_(out, into)]


def _picked(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return np.where(numbers >= 0, values[np.maximum(numbers, 0)], -1)
