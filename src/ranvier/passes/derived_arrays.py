"""Arrays that are made of shared parameters, while passes remove elements of them."""

# An example: a weight [2, 2] is made of a parameter p = [5 0 7 9]. It is replaced by [[1 2] [3 4]]. Column 0 is removed
# and [[2] [4]] remains: the new weight consists of the elements 1 and 3 of p, the values [[0] [9]].

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.elements import Projection
from ..graph.operations import Operation
from ..graph.shared import numbers_of, with_numbers
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Mapped


def change_derived(graph: SNNGraph, projection: Projection, change: Callable[[Operation], Any]) -> Any:
    """An operation after a change that removes elements of its arrays; bindings to shared parameters are updated.

    If an array is made of parameters, the change is applied to an operation whose values are consecutive numbers. They
    show where each element went.
    """
    operation, name = projection.operation, projection.name
    uses = {label: use for label in operation.arrays if (use := graph.bindings.pop((name, label), None)) is not None}
    if not uses or isinstance(operation, Mapped):
        return change(operation)
    old = {label: numbers_of(value) for label, value in operation.arrays.items()}
    # From 1, because operations may drop elements that are zero.
    starts = dict(zip(old, np.cumsum([1, *(value.size for value in old.values())]), strict=False))
    counted = {k: (starts[k] + np.arange(v.size, dtype=np.float64)).reshape(v.shape) for k, v in old.items()}
    places = {k: with_numbers(operation.arrays[k], v) for k, v in counted.items()}
    changed: Any = change(operation.replace(**places))
    values = np.concatenate([value.ravel() for value in old.values()])
    numbers: dict[str, Any] = {}
    for label, place in changed.arrays.items():
        at = numbers_of(place).astype(np.int64)
        numbers[label] = with_numbers(place, values[at - 1])
        source = next(k for k in reversed(old) if at.size == 0 or at.ravel()[0] >= starts[k])
        if source in uses:
            graph.bindings[name, label] = uses[source].taken(at - starts[source], old[source].shape)
    return changed.replace(**numbers)


def take_derived(graph: SNNGraph, population: str, remaining: np.ndarray) -> None:
    """Updates the bindings of a population's parameters after only some neurons, flat numbers, remain."""
    shape = graph.populations[population].shape
    rest = (-1, *shape[1:])
    for label, value in graph.populations[population].neuron.parameters.items():
        use = graph.bindings.get((population, label))
        if use is not None and value.ndim:
            graph.bindings[population, label] = use.taken(remaining.reshape(rest), shape)


def narrow(graph: SNNGraph, name: str) -> np.ndarray | None:
    """Removes the elements of a parameter that no array is made of.

    If the remaining elements are whole rows and columns, the parameter keeps its axes; otherwise it becomes flat. A
    parameter that is an argument of a function stays as it is.

    Returns:
        The flat numbers of the remaining elements; None if all remain.
    """
    uses = {array: use for array, use in graph.bindings.items() if name in use.parameters}
    value = graph.parameters[name]
    if any(use.function is not None or use.index is None for use in uses.values()):
        return None
    used = np.zeros(value.size, bool)
    for use in uses.values():
        used[use.index] = True
    if used.all():
        return None
    block = np.ix_(*_axes(used.reshape(value.shape)))
    whole = used.reshape(value.shape)[block].all()
    numbers = np.arange(value.size).reshape(value.shape)[block] if whole else np.flatnonzero(used)
    graph.parameters[name] = value.ravel()[numbers]
    place = np.full(value.size, -1)
    place[numbers.ravel()] = np.arange(numbers.size)
    graph.bindings.update({array: use.moved(place) for array, use in uses.items()})
    return numbers.ravel()


def _axes(used: np.ndarray) -> list[np.ndarray]:
    """Along every axis, the positions at which anything is used."""
    return [
        np.flatnonzero(used.any(axis=tuple(other for other in range(used.ndim) if other != axis)))
        for axis in range(used.ndim)
    ]
