"""A function of arrays that works position by position, as a function of the numbers at one position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ._jax import Equation, bind, dtype_of, is_floating, open_jaxpr, trace
from .derivatives import as_function, results_and_slopes
from .interpret import Apply, apply_with_bodies, evaluate
from .nested import bodies, called_body, carries_all, has_own_derivative, is_call, is_loop
from .primitives import Kind, rule_of

MOVES = frozenset(["broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "sharding_constraint"])
"""Equations that do nothing to the number at a position where all arrays have the same positions."""


def is_scalable(eqn: Equation) -> bool:
    """Whether an equation whose results depend on each position alone can be applied to single numbers.

    It is elementwise, or its bodies are, with constants that are the same at every position.
    """
    kind = rule_of(eqn.primitive).kind
    if kind is not Kind.NESTED:
        return kind is Kind.ELEMENTWISE or eqn.primitive.name in MOVES
    inner = bodies(eqn)
    if is_loop(eqn) and not carries_all(eqn):
        return False
    return bool(inner) and all(_is_scalable_body(body) for body in inner)


def _is_scalable_body(body: Any) -> bool:
    jaxpr, consts = open_jaxpr(body)
    return all(_is_uniform(np.asarray(c)) for c in consts) and all(is_scalable(eqn) for eqn in jaxpr.eqns)


def _is_uniform(value: np.ndarray) -> bool:
    return value.size == 1 or (value.size > 0 and bool(np.all(value == value.flat[0])))


def apply_to_numbers(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
    """Applies an equation for which :func:`is_scalable` holds to the numbers at one position."""
    if eqn.primitive.name in MOVES:
        return [operands[0]]
    if has_own_derivative(eqn) and called_body(eqn) is not None:
        return with_own_derivative(eqn, operands, apply_to_numbers, _at_one_position)
    if is_call(eqn):
        return evaluate(_at_one_position(called_body(eqn)), operands, apply_to_numbers)
    if eqn.primitive.name in ("cond", "scan"):
        return apply_with_bodies(_with_bodies_at_one_position(eqn), operands, apply_to_numbers)
    return bind(eqn, operands)


def _at_one_position(closed: Any) -> Any:
    """A closed jaxpr whose constants are single numbers; to be run by :func:`apply_to_numbers`."""
    return _Open(*open_jaxpr(closed))


class _Open:
    """What :func:`.interpret.evaluate` reads of a closed jaxpr."""

    def __init__(self, jaxpr: Any, consts: Sequence[Any]) -> None:
        self.jaxpr = jaxpr
        self.consts = [c if np.ndim(c) == 0 else np.asarray(c).flat[0] for c in consts]


def _with_bodies_at_one_position(eqn: Equation) -> Equation:
    if eqn.primitive.name == "cond":
        return eqn.replace(params={**eqn.params, "branches": tuple(map(_at_one_position, eqn.params["branches"]))})
    return eqn.replace(params={**eqn.params, "jaxpr": _at_one_position(eqn.params["jaxpr"])})


def with_own_derivative(
    eqn: Equation, operands: Sequence[Any], apply: Apply, opened: Callable[[Any], Any] = lambda closed: closed
) -> Sequence[Any]:
    """Applies an equation that has a declared derivative by another apply, which the derivative goes through as well.

    Args:
        eqn: with a body, such as a spike with its surrogate.
        operands: arrays or numbers.
        apply: for every equation of function and derivative.
        opened: what to do to a closed jaxpr before it is evaluated.
    """
    moving = _moving(eqn)
    pushed, body = opened(forward_of(eqn)), opened(called_body(eqn))

    @jax.custom_jvp
    def function(*given: Any) -> tuple[Any, ...]:
        return tuple(evaluate(body, given, apply))

    @function.defjvp
    def rule(given: Any, tangents: Any) -> tuple[Any, Any]:
        results = evaluate(pushed, [*given, *(tangents[k] for k in moving)], apply)
        count = len(eqn.outvars)
        return tuple(results[:count]), tuple(results[count:])

    return function(*operands)


def _moving(eqn: Equation) -> list[int]:
    return [k for k, atom in enumerate(eqn.invars) if is_floating(dtype_of(atom))]


def forward_of(eqn: Equation) -> Any:
    """Results and their tangents, as a closed jaxpr of operands and tangents."""
    moving, avals = _moving(eqn), [atom.aval for atom in eqn.invars]
    return trace(_forward(eqn, moving), [*avals, *(avals[k] for k in moving)])


def _forward(eqn: Equation, moving: Sequence[int]) -> Callable[..., tuple[Any, ...]]:
    """Results and their tangents from operands and tangents."""

    def pushed(*flat: Any) -> tuple[Any, ...]:
        given, tangents = flat[: len(eqn.invars)], flat[len(eqn.invars) :]
        values = [given[k] for k in moving]
        function = as_function(eqn, given, moving)
        if eqn.primitive.name != "custom_vjp_call":
            results, found = jax.jvp(function, values, list(tangents))
            return (*results, *found)
        results, slopes = results_and_slopes(function, *values)
        found = [sum(d * t for d, t in zip(slope, tangents, strict=True)) for slope in slopes]
        return (*results, *found)

    return pushed
