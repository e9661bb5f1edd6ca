"""Taking neurons out of populations, and their rows and columns out of operations."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..ir.graph.elements import Activity, Population
from ..ir.graph.operations import Identity, Linear, Operation, Scale
from ..ir.graph.snn_graph import SNNGraph

TAKEN = (Linear, Identity, Scale)
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
    operation: Operation, source: tuple[int, ...], rows: np.ndarray | None, columns: np.ndarray | None
) -> Operation:
    """An operation with some rows (targets) and columns (sources) only.

    Args:
        operation: one of :data:`TAKEN`.
        source: shape of the source before columns are taken.
        rows, columns: what is kept; None for all.
    """
    if isinstance(operation, Linear):
        weight = operation.weight if rows is None else operation.weight[rows]
        weight = weight if columns is None else weight[:, columns]
        bias = operation.bias
        return Linear(weight, bias if bias is None or rows is None or not bias.ndim else bias[rows])
    if rows is not None and columns is not None and np.array_equal(rows, columns):
        return Scale(operation.scale[rows]) if isinstance(operation, Scale) and operation.scale.ndim else operation
    matrix = operation.rows(source)
    matrix = matrix if rows is None else matrix[rows]
    return Linear(matrix if columns is None else matrix[:, columns])


def summed_columns(operation: Operation, source: tuple[int, ...], kept: np.ndarray, into: np.ndarray) -> Linear:
    """An operation whose columns ``kept`` are sums of those that are merged into them; the others are zero."""
    weight, bias = (
        (operation.weight, operation.bias) if isinstance(operation, Linear) else (operation.rows(source), None)
    )
    ones = np.ones(into.size, weight.dtype)
    gather = sparse.csr_array((ones, (np.arange(into.size), kept[into])), shape=(into.size, into.size))
    found = weight @ gather
    return Linear(found if sparse.issparse(weight) else np.asarray(found), bias)
