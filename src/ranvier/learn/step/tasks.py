"""What runs in a phase of a step: an equation, or a part of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ...program._jax import Equation, Literal, bind, located_at, shape_of, variables_of
from ...program.interpret import read, run_equations

Key = Any
"""A variable, or what stands for a part of one."""


@dataclass(frozen=True, eq=False)
class Task:
    """An equation."""

    equation: Equation

    @property
    def reads(self) -> tuple[Key, ...]:
        return tuple(variables_of(self.equation.invars))

    @property
    def writes(self) -> tuple[Key, ...]:
        return tuple(self.equation.outvars)

    def fixed(self, static: Mapping[Any, Any]) -> dict[Key, Any]:
        """What the task can compute before any step from static values."""
        return {}

    def run(self, values: dict[Any, Any]) -> None:
        run_equations([self.equation], values)


@dataclass(frozen=True, eq=False)
class PartialProduct(Task):
    """A product of a concatenation, with some of its pieces only; the whole is the sum of two.

    Attributes:
        equation: the ``dot_general``.
        operand: number of the operand that is a concatenation.
        pieces: the pieces of the concatenation.
        chosen: numbers of the pieces that take part.
        rest: what stands for the sum over the other pieces, to be added; None where that is left to another task.
    """

    operand: int
    pieces: tuple[Any, ...]
    chosen: tuple[int, ...]
    rest: Key | None

    @property
    def reads(self) -> tuple[Key, ...]:
        chosen = [self.pieces[k] for k in self.chosen if not isinstance(self.pieces[k], Literal)]
        return (*chosen, *variables_of([self._weight]), *([] if self.rest is None else [self.rest]))

    @property
    def writes(self) -> tuple[Key, ...]:
        return ((self.equation, "rest"),) if self.rest is None else tuple(self.equation.outvars)

    @property
    def _weight(self) -> Any:
        return self.equation.invars[1 - self.operand]

    def fixed(self, static: Mapping[Any, Any]) -> dict[Key, Any]:
        return (
            {(self, "rows"): self._rows(static)} if isinstance(self._weight, Literal) or self._weight in static else {}
        )

    def _rows(self, values: Mapping[Any, Any]) -> Any:
        """The part of the other operand that the chosen pieces meet."""
        axis = self._axis(1 - self.operand)
        sizes = [shape_of(piece)[self._axis(self.operand)] for piece in self.pieces]
        ends = np.cumsum([0, *sizes])
        weight = read(values, self._weight)
        return jnp.concatenate([lax.slice_in_dim(weight, ends[k], ends[k + 1], axis=axis) for k in self.chosen], axis)

    def _axis(self, operand: int) -> int:
        (contracted, _) = self.equation.params["dimension_numbers"]
        return contracted[operand][0]

    def run(self, values: dict[Any, Any]) -> None:
        # A weight that is static was cut once, before all steps; in a loop, cutting copies a part of it at every step.
        rows = values[self, "rows"] if (self, "rows") in values else self._rows(values)
        pieces = [jnp.asarray(read(values, self.pieces[k])) for k in self.chosen]
        operands = [jnp.concatenate(pieces, self._axis(self.operand)), rows]
        with located_at(self.equation):
            (result,) = bind(self.equation, operands if self.operand == 0 else operands[::-1])
        values[self.writes[0]] = result if self.rest is None else result + values[self.rest]
