"""Removing neurons from populations, and their rows and columns from operations."""

# An example: a population of 3 neurons. Removing neuron 1 leaves the rows [0 2] of each matrix into the population and
# the columns [0 2] of each matrix out of it. Merging neuron 1 into 0 leaves the same rows, and an outgoing [1 2 4]
# becomes [1 + 2, 4].
#
# Of images, whole channels are removed. In a population of shape (2, 4, 4), the neurons 16 to 31 are channel 1, and a
# convolution loses the corresponding kernels instead of rows.

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.elements import Activity, Population
from ..graph.operations import Constant, Conv, Flatten, Identity, Linear, Operation, Scale, Shape, SumPool


def taken_population(population: Population, remaining: np.ndarray) -> Population:
    """A population with only the neurons ``remaining``, flat numbers; of an image, those of whole channels."""
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
    # The partner of a neuron is the number of another one, so it is renumbered; -1 if the partner was removed.
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
    """An operation with only some rows (targets) and columns (sources); of images, those of whole channels.

    Args:
        operation: any; of one that maps each channel to one channel, rows and columns are the same channels.
        source: shape of the source before columns are removed.
        rows, columns: flat numbers of the targets and sources that remain; None for all.
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
    # Anything else becomes a matrix, the only form in which single neurons can be removed from it.
    linear = _as_linear(operation, source)
    return Linear(_taken(_taken(linear.weight, rows, 0), columns, 1), _taken(linear.bias, rows, 0))


def summed_operation(
    operation: Operation, source: Shape, remaining: np.ndarray, into: np.ndarray, rows: np.ndarray | None = None
) -> Operation:
    """An operation with only some rows, and with the columns of merged neurons added up.

    Args:
        operation: any; of one that maps each channel to one channel, rows and columns are the same channels.
        source: shape of the source before neurons are merged.
        remaining: flat numbers of the columns that stay.
        into: for each column, the position in ``remaining`` of the column that it is added to.
        rows: flat numbers of the targets that remain; None for all.
    """
    by_channel = isinstance(operation, (SumPool, Flatten)) or (isinstance(operation, Conv) and operation.groups > 1)
    # Merged channels are merged on the far side too, so each remaining channel still maps to its own: nothing is added.
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
    """Numbers of the channels that consist of these neurons."""
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
    """Some rows or columns of a matrix or bias; None and scalars stay as they are."""
    if remaining is None or values is None or not values.ndim:
        return values
    if sparse.issparse(values):
        return values[remaining] if axis == 0 else values[:, remaining]
    return values.take(remaining, axis)


def _sparse_sums(weight: Any, remaining: np.ndarray, into: np.ndarray) -> Any:
    ones = np.ones(into.size, weight.dtype)
    return weight @ sparse.csr_array((ones, (np.arange(into.size), into)), shape=(into.size, remaining.size))


def _dense_sums(weight: np.ndarray, remaining: np.ndarray, into: np.ndarray) -> np.ndarray:
    # Most classes have one member, so only the columns of larger classes are sorted by class and summed.
    sums = weight.take(remaining, axis=1)
    members = np.flatnonzero(np.bincount(into)[into] > 1)
    members = members[np.argsort(into[members], kind="stable")]
    starts = np.flatnonzero(np.diff(into[members], prepend=-1))
    if members.size:
        sums[:, into[members[starts]]] = np.add.reduceat(weight.take(members, axis=1), starts, axis=1)
    return sums
