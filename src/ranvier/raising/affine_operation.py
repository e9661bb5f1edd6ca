"""The operation of a projection before its arrays are computed, and how to take parts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..graph.operations import Linear, Operation
from ..program._jax import Var

StaticValues = Mapping[Var, Any]
"""Values of what does not change."""
Derived = Callable[[StaticValues], Any]
"""An array of a graph from what does not change, in JAX."""
Make = Callable[[Mapping[str, np.ndarray]], Operation]
"""The operation from its arrays."""
LARGEST_PROBED = 4096
"""Sources up to this size are probed element by element."""


@dataclass(frozen=True, eq=False)
class AffineOperation:
    """An operation, and where its arrays come from.

    Attributes:
        source, target: shapes.
        arrays: by name how an array is made.
        make: the operation from arrays.
        learned: whether any array has a derivative by a parameter.
        name: for the projection.
        taking: of a sparse matrix, gives the operation that reads elements of a larger source itself, from their
            numbers and its size; None where two weights would meet at one place.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    arrays: Mapping[str, Derived]
    make: Make
    learned: bool
    name: str = field(default="map")
    taking: Callable[[np.ndarray, int], AffineOperation | None] | None = None

    @property
    def is_dense(self) -> bool:
        """Whether rows and columns of a dense matrix can be taken."""
        return self.make is linear_of

    def part(self, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> AffineOperation:
        """Some rows and columns of a dense matrix, in their order."""
        weight, bias = self.arrays["weight"], self.arrays.get("bias")
        arrays: dict[str, Derived] = {"weight": lambda static: _taken(weight(static), rows, columns)}
        if bias is not None:
            arrays["bias"] = lambda static: _taken(bias(static), rows, None)
        source = self.source if columns is None else (columns.size,)
        target = self.target if rows is None else (rows.size,)
        return replace(self, arrays=arrays, source=source, target=target)

    def without_bias(self) -> AffineOperation:
        return replace(self, arrays={k: v for k, v in self.arrays.items() if k != "bias"})

    def with_bias(self, bias: Derived) -> AffineOperation:
        return replace(self, arrays={**self.arrays, "bias": bias})


def linear_of(arrays: Mapping[str, np.ndarray]) -> Operation:
    """A dense matrix from its weight, and its bias if it has one."""
    return Linear(**arrays)


def _taken(values: Any, rows: np.ndarray | None, columns: np.ndarray | None) -> Any:
    values = values if rows is None else values[rows]
    return values if columns is None else values[:, columns]
