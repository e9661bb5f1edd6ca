"""Taking neurons out of populations, and their rows and columns out of operations."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..ir.graph.elements import Activity, Population
from ..ir.graph.operations import Constant, Identity, Linear, Operation, Scale
from ..ir.graph.snn_graph import SNNGraph

TAKEN = (Linear, Identity, Scale, Constant)
"""Operations that rows and columns can be taken from."""


def can_take(graph: SNNGraph, name: str) -> str | None:
    """Why no neurons can be taken out of a population; None where they can."""
    population = graph.populations[name]
    if len(population.shape) != 1:
        return f"has shape {list(population.shape)}; neurons are taken out of one-dimensional populations only"
    for projection in (*graph.into(name), *graph.out_of(name)):
        if not isinstance(projection.operation, TAKEN):
            return f"{projection.name!r} is {type(projection.operation).__name__}, which keeps its shape"
    return None


def taken_population(population: Population, kept: np.ndarray) -> Population:
    """The neurons ``kept`` of a one-dimensional population."""

    def take(value: np.ndarray) -> np.ndarray:
        return value[kept] if value.ndim else value

    activity = population.activity
    if activity is not None:
        activity = _taken_activity(activity, kept, population.size)
    initial = {name: take(value) for name, value in population.initial.items()}
    neuron = population.neuron.take(kept)
    return population.replace(shape=(kept.size,), neuron=neuron, initial=initial, activity=activity)


def _taken_activity(activity: Activity, kept: np.ndarray, size: int) -> Activity:
    found = {name: value[kept] if value.ndim else value for name, value in activity.arrays.items()}
    if activity.partner is not None:
        place = np.full(size + 1, -1.0)
        place[kept] = np.arange(kept.size)
        found["partner"] = place[np.broadcast_to(activity.partner, (size,))[kept].astype(np.int64)]
    return Activity(**found, steps=activity.steps, data=activity.data)


def taken_operation(
    operation: Operation,
    source: tuple[int, ...],
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
) -> Operation:
    """An operation with some rows (targets) and columns (sources) only.

    Args:
        operation: one of :data:`TAKEN`.
        source: shape of the source before columns are taken.
        rows, columns: what is kept; None for all.
    """
    if isinstance(operation, Constant):
        return Constant(_taken(operation.bias, rows, 0))
    same = rows is not None and columns is not None and np.array_equal(rows, columns)
    if same and not isinstance(operation, Linear):
        return Scale(operation.scale[rows]) if isinstance(operation, Scale) and operation.scale.ndim else operation
    linear = _as_linear(operation, source)
    return Linear(_taken(_taken(linear.weight, rows, 0), columns, 1), _taken(linear.bias, rows, 0))


def summed_operation(
    operation: Operation, source: tuple[int, ...], kept: np.ndarray, into: np.ndarray, rows: np.ndarray | None = None
) -> Linear:
    """An operation with some rows only, and with the columns of merged neurons added up.

    Args:
        operation: one of :data:`TAKEN`.
        source: shape of the source before neurons are merged.
        kept: numbers of the columns that stay.
        into: of every column, which of these it is added to.
        rows: what is kept; None for all.
    """
    linear = _as_linear(operation, source)
    summed = _sparse_sums if sparse.issparse(linear.weight) else _dense_sums
    return Linear(summed(_taken(linear.weight, rows, 0), kept, into), _taken(linear.bias, rows, 0))


def _as_linear(operation: Operation, source: tuple[int, ...]) -> Linear:
    return operation if isinstance(operation, Linear) else Linear(operation.rows(source), operation.offset(source))


def _taken(values: Any, kept: np.ndarray | None, axis: int) -> Any:
    """Rows or columns of a dense or sparse matrix or of a bias; None and one number stay as they are."""
    if kept is None or values is None or not values.ndim:
        return values
    if sparse.issparse(values):
        return values[kept] if axis == 0 else values[:, kept]
    return values.take(kept, axis)


def _sparse_sums(weight: Any, kept: np.ndarray, into: np.ndarray) -> Any:
    ones = np.ones(into.size, weight.dtype)
    return weight @ sparse.csr_array((ones, (np.arange(into.size), into)), shape=(into.size, kept.size))


def _dense_sums(weight: np.ndarray, kept: np.ndarray, into: np.ndarray) -> np.ndarray:
    found = weight.take(kept, axis=1)
    members = np.flatnonzero(np.bincount(into)[into] > 1)
    members = members[np.argsort(into[members], kind="stable")]
    starts = np.flatnonzero(np.diff(into[members], prepend=-1))
    if members.size:
        found[:, into[members[starts]]] = np.add.reduceat(weight.take(members, axis=1), starts, axis=1)
    return found
