"""NIR's nodes: which are neurons, which are operations, and what they are in a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text
from ..graph.neurons import NEURONS, Neuron
from ..graph.operations import AvgPool, Conv, Flatten, Linear, Operation, Scale, SumPool

Nodes = dict[str, Any]
Edges = list[tuple[str, str]]


TYPES = ("input_type", "output_type")
"""Shapes that nodes say by port; None where they do not."""
LARGEST = 2.0**62
"""No axis has more elements."""


def kind_of(node: Any) -> str:
    return type(node).__name__


def _by_axis(value: Any, axes: int) -> tuple[int, ...]:
    found = np.ravel(value)
    return tuple(int(n) for n in (np.repeat(found, axes) if found.size == 1 else found))


def _conv(node: Any) -> Operation:
    axes = np.ndim(node.weight) - 2
    padding = node.padding if isinstance(node.padding, str) else _by_axis(node.padding, axes)
    return Conv(
        weight=node.weight,
        bias=node.bias,
        stride=_by_axis(node.stride, axes),
        padding=padding,
        dilation=_by_axis(node.dilation, axes),
        groups=int(node.groups),
    )


def _pool(kind: type[SumPool]) -> Callable[[Any], Operation]:
    return lambda node: kind(*(_by_axis(value, 2) for value in (node.kernel_size, node.stride, node.padding)))


OPERATIONS: dict[str, Callable[[Any], Operation]] = {
    "Affine": lambda node: Linear(node.weight, node.bias),
    "Linear": lambda node: Linear(node.weight),
    "Scale": lambda node: Scale(node.scale),
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool(SumPool),
    "AvgPool2d": _pool(AvgPool),
    "Flatten": lambda node: Flatten(int(node.start_dim), int(node.end_dim)),
}
KINDS: dict[str, type[Neuron]] = {name: kind for name, kind in NEURONS.items() if kind.in_nir}
"""Neurons that NIR has under the same name and with the same parameters."""
PARAMETERS: dict[str, tuple[str, ...]] = {
    "Delay": ("delay",),
    **{name: kind.parameter_names() for name, kind in KINDS.items()},
}
"""By NIR's name, the parameters of every neuron that is read from a file."""


def check_values(name: str, node: Any) -> None:
    """Passes for a node whose values are numbers, but for a padding that is a text, and whose shapes are whole numbers.

    Raises:
        GraphError: something else is there; the message names the node and the value.
    """
    for key, value in vars(node).items():
        if key in TYPES:
            shapes = value.items() if isinstance(value, Mapping) else [("", value)]
            wrong = [shape for _, shape in shapes if shape is not None and not _is_shape(shape)]
        else:
            named = key == "metadata" or (key == "padding" and isinstance(value, str))
            wrong = [] if named or value is None or _is_numbers(value) else [value]
        if wrong:
            raise GraphError(f"node {name!r} ({kind_of(node)}): {key} is {wrong[0]!r:.60}; expected numbers.")


def _is_numbers(value: Any) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:  # lists of different lengths
        return False


def _is_shape(value: Any) -> bool:
    return _is_numbers(value) and bool(np.all((np.abs(value) < LARGEST) & (np.mod(value, 1) == 0)))


def operation_of(name: str, node: Any) -> Operation:
    """A node as an operation.

    Raises:
        GraphError: its values make none; the message names the node.
    """
    try:
        return OPERATIONS[kind_of(node)](node)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise GraphError(f"node {name!r} ({kind_of(node)}): {reason_text(error)}") from error
