"""A function of arrays that works position by position, as a function of the numbers at one position.

``v' = 0.9 * v + broadcast(b, [4])`` of four neurons becomes ``0.9 * v + b`` of one: arithmetic is applied to numbers as
it is, and what only moves them to other shapes, such as the broadcast, is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ._jax import Equation, bind, dtype_of, is_floating, open_jaxpr, trace
from .bodies import bodies, called_body, has_own_derivative, is_call, is_loop
from .declared import BACKWARD, backward_of, declared_operands, placed, pushed
from .interpret import Apply, apply_with_bodies, evaluate
from .nested import carries_all
from .primitives import Kind, rule_of

MOVES = frozenset(["broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "sharding_constraint"])
"""Equations that do nothing to the number at a position where all arrays have the same positions."""


def is_scalable(eqn: Equation) -> bool:
    """Whether an equation whose results depend only on their own position can be applied to single numbers.

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
    body = opened(called_body(eqn))

    def function(*primals: Any) -> tuple[Any, ...]:
        return tuple(evaluate(body, primals, apply))

    if eqn.primitive.name == BACKWARD:
        return _with_backward_rule(eqn, function, opened(backward_of(eqn)), apply)(*operands)
    moving, forward = declared_operands(eqn), opened(forward_of(eqn))
    with_rule = jax.custom_jvp(function)

    @with_rule.defjvp
    def rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
        results = evaluate(forward, [*primals, *(tangents[k] for k in moving)], apply)
        count = len(eqn.outvars)
        return tuple(results[:count]), placed(eqn.outvars, results[count:])

    return with_rule(*operands)


def _with_backward_rule(
    eqn: Equation, function: Callable[..., Any], backward_rule: Any, apply: Apply
) -> Callable[..., Sequence[Any]]:
    varying = [k for k, out in enumerate(eqn.outvars) if is_floating(dtype_of(out))]
    moving = declared_operands(eqn)
    with_rule = jax.custom_vjp(function)

    def backward(primals: Any, cotangents: Any) -> tuple[Any, ...]:
        pulled = evaluate(backward_rule, [*primals, *(cotangents[k] for k in varying)], apply)
        by_operand = dict(zip(moving, pulled, strict=True))
        return tuple(by_operand.get(k) for k in range(len(primals)))

    with_rule.defvjp(lambda *primals: (function(*primals), primals), backward)
    return with_rule


def forward_of(eqn: Equation) -> Any:
    """Results and the tangents of those that have one, as a closed jaxpr of operands and tangents."""
    moving, avals, count = declared_operands(eqn), [atom.aval for atom in eqn.invars], len(eqn.invars)

    def forward(*flat: Any) -> list[Any]:
        results, tangents = pushed(eqn, flat[:count], moving, flat[count:])
        return [*results, *(t for t, out in zip(tangents, eqn.outvars, strict=True) if is_floating(dtype_of(out)))]

    return trace(forward, [*avals, *(avals[k] for k in moving)])
