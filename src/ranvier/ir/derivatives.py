"""Derivatives of a single equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Equation, bind, is_floating

Slopes = list[tuple[Any, ...]]


def floating_operands(operands: Sequence[Any]) -> list[int]:
    """Numbers of the operands for which a derivative exists."""
    return [k for k, x in enumerate(operands) if is_floating(jax.typeof(x).dtype)]


def as_function(
    eqn: Equation,
    operands: Sequence[Any],
    moving: Sequence[int],
    apply: Callable[[Equation, list[Any]], Sequence[Any]] = bind,
) -> Callable[..., tuple[Any, ...]]:
    """The equation as a function of the operands ``moving``, with the others fixed."""

    def function(*values: Any) -> tuple[Any, ...]:
        given = list(operands)
        for k, value in zip(moving, values, strict=True):
            given[k] = value
        return tuple(apply(eqn, given))

    return function


def results_and_slopes(function: Callable[..., tuple[Any, ...]], *values: Any) -> tuple[tuple[Any, ...], Slopes]:
    """Results of an elementwise function and, for each, its derivative by each operand.

    The Jacobian is diagonal, so pulling back ones gives all of it.
    """
    results, pull = jax.vjp(function, *values)
    return results, [pull(_one_at(results, k)) for k in range(len(results))]


def _one_at(results: Sequence[Any], chosen: int) -> tuple[Any, ...]:
    return tuple((jnp.ones_like if k == chosen else jnp.zeros_like)(result) for k, result in enumerate(results))
