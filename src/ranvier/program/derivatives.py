"""Derivatives of a single equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._jax import Equation, bind


def as_function(
    eqn: Equation,
    operands: Sequence[Any],
    moving: Sequence[int],
    apply: Callable[[Equation, list[Any]], Sequence[Any]] = bind,
) -> Callable[..., tuple[Any, ...]]:
    """The equation as a function of the operands ``moving``, with the others fixed."""

    def function(*values: Any) -> tuple[Any, ...]:
        changed = list(operands)
        for k, value in zip(moving, values, strict=True):
            changed[k] = value
        return tuple(apply(eqn, changed))

    return function
