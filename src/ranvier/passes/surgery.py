"""Taking neurons out of populations, and their rows and columns out of operations."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.elements import Activity, Population
from ..graph.operations import Constant, Conv, Flatten, Identity, Linear, Operation, Scale, Shape, SumPool


def taken_population(population: Population, remaining: np.ndarray) -> Population:
    """Some neurons of a population, of an image those of whole channels, by their flat numbers."""
    block = prod(population.shape[1:])
    shape = (remaining.size // block, *population.shape[1:])

    def take(value: np.ndarray) -> np.ndarray:
        return value.ravel()[remaining].reshape(shape) if value.ndim else value

    activity = population.activity
    if activity is not None:
        activity = _taken_activity(activity, take, remaining, population.size)
    initial = {name: take(value) for name, value in population.initial.items()}
    return population.replace(shape=shape, neuron=population.neuron.map(take), initial=initial, activity=activity)


def _taken_activity(
    activity: Activity, take: Callable[[np.ndarray], np.ndarray], remaining: np.ndarray, size: int
) -> Activity:
    taken = {name: take(value) for name, value in activity.arrays.items()}
    if activity.partner is not None:
        place = np.full(size + 1, -1.0)
        place[remaining] = np.arange(remaining.size)
        taken["partner"] = place[np.broadcast_to(activity.partner, (size,))[remaining].astype(np.int64)]
    return Activity(**taken, steps=activity.steps, data=activity.data)


def taken_operation(
    operation: Operation,
    source: Shape,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
) -> Operation:
    """An operation with some rows (targets) and columns (sources) only, of images those of whole channels.

    Args:
        operation: any; one that brings channel to channel keeps the same of both.
        source: shape of the source before columns are taken.
        rows, columns: flat numbers of what is kept; None for all.
    """
    if isinstance(operation, Conv):
        return _taken_conv(operation, source, rows, columns)
    if isinstance(operation, Constant):
        return operation if rows is None else Constant(_taken_image(operation.bias, rows))
    if isinstance(operation, (SumPool, Flatten)):
        return operation
    if isinstance(operation, (Identity, Scale)) and rows is not None and _same(rows, columns):
        scaled = isinstance(operation, Scale) and operation.scale.ndim
        return Scale(_taken_image(operation.arrays["scale"], rows)) if scaled else operation
    linear = _as_linear(operation, source)
    return Linear(_taken(_taken(linear.weight, rows, 0), columns, 1), _taken(linear.bias, rows, 0))


def summed_operation(
    operation: Operation, source: Shape, remaining: np.ndarray, into: np.ndarray, rows: np.ndarray | None = None
) -> Operation:
    """An operation with some rows only, and with the columns of merged neurons added up.

    Args:
        operation: any; one that brings channel to channel keeps the same of both.
        source: shape of the source before neurons are merged.
        remaining: flat numbers of the columns that stay.
        into: of every column, which of these it is added to.
        rows: flat numbers of what is kept; None for all.
    """
    by_channel = isinstance(operation, (SumPool, Flatten)) or (isinstance(operation, Conv) and operation.groups > 1)
    if by_channel or (len(source) > 1 and isinstance(operation, (Identity, Scale))):
        return taken_operation(operation, source, rows, remaining)
    if isinstance(operation, Conv):
        return _summed_conv(_taken_conv(operation, source, rows, None), source, remaining, into)
    linear = _as_linear(operation, source)
    summed = _sparse_sums if sparse.issparse(linear.weight) else _dense_sums
    return Linear(summed(_taken(linear.weight, rows, 0), remaining, into), _taken(linear.bias, rows, 0))


def _same(rows: np.ndarray, columns: np.ndarray | None) -> bool:
    return columns is not None and np.array_equal(rows, columns)


def _channels(neurons: np.ndarray, shape: Shape) -> np.ndarray:
    """Numbers of the channels that neurons make up."""
    block = prod(shape[1:])
    return neurons[::block] // block


def _taken_image(values: np.ndarray, neurons: np.ndarray) -> np.ndarray:
    return values.ravel()[neurons].reshape(-1, *values.shape[1:])


def _taken_conv(conv: Conv, source: Shape, rows: np.ndarray | None, columns: np.ndarray | None) -> Conv:
    out = None if rows is None else _channels(rows, conv.target_shape(source))
    weight, bias = _taken(conv.weight, out, 0), _taken(conv.bias, out, 0)
    if conv.groups > 1:
        return conv.replace(weight=weight, bias=bias, groups=len(weight))
    inner = None if columns is None else _channels(columns, source)
    return conv.replace(weight=_taken(weight, inner, 1), bias=bias)


def _summed_conv(conv: Conv, source: Shape, remaining: np.ndarray, into: np.ndarray) -> Conv:
    channels, led = _channels(remaining, source), _channels(into, source)
    weight = np.zeros((len(channels), conv.weight.shape[0], *conv.weight.shape[2:]), conv.weight.dtype)
    np.add.at(weight, led, np.swapaxes(conv.weight, 0, 1))
    return conv.replace(weight=np.swapaxes(weight, 0, 1))


def _as_linear(operation: Operation, source: Shape) -> Linear:
    return operation if isinstance(operation, Linear) else Linear(operation.rows(source), operation.offset(source))


def _taken(values: Any, remaining: np.ndarray | None, axis: int) -> Any:
    """Rows or columns of a dense or sparse matrix or of a bias; None and one number stay as they are."""
    if remaining is None or values is None or not values.ndim:
        return values
    if sparse.issparse(values):
        return values[remaining] if axis == 0 else values[:, remaining]
    return values.take(remaining, axis)


def _sparse_sums(weight: Any, remaining: np.ndarray, into: np.ndarray) -> Any:
    ones = np.ones(into.size, weight.dtype)
    return weight @ sparse.csr_array((ones, (np.arange(into.size), into)), shape=(into.size, remaining.size))


def _dense_sums(weight: np.ndarray, remaining: np.ndarray, into: np.ndarray) -> np.ndarray:
    sums = weight.take(remaining, axis=1)
    members = np.flatnonzero(np.bincount(into)[into] > 1)
    members = members[np.argsort(into[members], kind="stable")]
    starts = np.flatnonzero(np.diff(into[members], prepend=-1))
    if members.size:
        sums[:, into[members[starts]]] = np.add.reduceat(weight.take(members, axis=1), starts, axis=1)
    return sums
