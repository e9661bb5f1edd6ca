"""Derivatives that are declared beside their function, by ``jax.custom_jvp`` or ``jax.custom_vjp``: one form for both.

A declared backward rule is a linear map of cotangents, and its transpose is the forward rule that it implies. So in a
program in normal form a ``custom_vjp`` is a ``custom_jvp`` with that rule, and derivatives of either mode pass through
it; its reverse-mode derivative, the transpose of the transpose, is the declared one. A backward rule that JAX cannot
transpose, because it is not linear or calls foreign code, has no forward mode, and its function stays as it is.

A spike ``z = (v > 1)`` with the backward rule ``c -> c * s(v)`` gets the forward rule ``t -> s(v) * t``: at s(v) = 0.25
a tangent of 2 becomes 0.5, and so does a cotangent of 2. A rule ``c -> c + 0.1``, which adds noise to gradients, is not
linear, so it is the transpose of no forward rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ..errors import RuleError, reason_text
from ._jax import Equation, Tracer, dtype_of, is_floating, num_closed_over, shape_of, source_line, trace
from .derivatives import as_function

BACKWARD = "custom_vjp_call"
"""The primitive of a function whose reverse-mode derivative is declared."""


def with_forward_rule(eqn: Equation, operands: Sequence[Any], body: Callable[..., Sequence[Any]]) -> Sequence[Any]:
    """A ``custom_vjp`` applied as the ``custom_jvp`` that its backward rule implies.

    Args:
        eqn: the call, with a backward rule that can be transposed.
        operands: arrays; those that it closes over have no derivative here (see :func:`closed_over`).
        body: the function itself, of all operands.
    """

    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        # Only operands with a tangent: pushing zeros along the others would transpose the rule for nothing.
        moving = [k for k in declared_operands(eqn) if not _is_zero(tangents[k])]
        return pushed(eqn, primals, moving, [tangents[k] for k in moving])

    function = jax.custom_jvp(lambda *values: tuple(body(*values)))
    function.defjvp(rule, symbolic_zeros=True)
    return function(*operands)


def closed_over(eqn: Equation, value: Any) -> Any:
    """A value that a function with a declared derivative closes over, which cannot be differentiated.

    Raises:
        RuleError: when a derivative by the value is taken.
    """
    # A concrete value never changes, so only a tracer can turn out to be learned.
    if not isinstance(value, Tracer) or not is_floating(value.dtype):
        return value

    def refuse(*_: Any) -> Any:
        raise RuleError(
            "a function with a declared derivative closes over a value that learning changes; pass the value as an "
            f"argument [{source_line(eqn)}]."
        )

    function = jax.custom_jvp(lambda x: x)
    function.defjvp(refuse)
    return function(value)


def pushed(
    eqn: Equation, operands: Sequence[Any], moving: Sequence[int], tangents: Sequence[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Results of a function with a declared derivative, and their tangents.

    Args:
        eqn: the call.
        operands: arrays.
        moving: the operands that have a tangent, by number.
        tangents: tangents of these operands, in the same order.
    """
    function, values = as_function(eqn, operands, moving), tuple(operands[k] for k in moving)
    if not moving:
        results = function()
        return results, tuple(map(_zero_tangent, results))
    if eqn.primitive.name != BACKWARD:
        return jax.jvp(function, values, tuple(tangents))
    results, pull = jax.vjp(function, *values)
    return results, _transposed(pull, results)(tangents)


def _transposed(pull: Callable[[Any], Any], results: Sequence[Any]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """The transpose of a backward rule, from tangents of operands to tangents of the results."""
    forward = jax.linear_transpose(
        lambda *cotangents: pull(placed(results, cotangents)), *(x for x in results if is_floating(dtype_of(x)))
    )
    return lambda tangents: placed(results, forward(tuple(tangents)))


def placed(results: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
    """Tangents or cotangents of all results, from those of the floating-point ones.

    Args:
        results: arrays or variables.
        values: of the floating-point ones in order.
    """
    rest = iter(values)
    return tuple(next(rest) if is_floating(dtype_of(result)) else _zero_tangent(result) for result in results)


def _zero_tangent(result: Any) -> Any:
    if is_floating(dtype_of(result)):
        return jax.numpy.zeros_like(result)
    return np.zeros(shape_of(result), jax.dtypes.float0)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, jax.custom_derivatives.SymbolicZero)


def declared_operands(eqn: Equation) -> list[int]:
    """Numbers of the operands by which a derivative is declared."""
    return [k for k, atom in enumerate(eqn.invars) if is_floating(dtype_of(atom)) and k >= num_closed_over(eqn)]


def why_not_forward(eqn: Equation, moving: Sequence[int]) -> str | None:
    """Why a declared derivative by these operands has no forward mode; None where it has one."""
    avals, count = [atom.aval for atom in eqn.invars], len(eqn.invars)
    try:
        trace(lambda *flat: pushed(eqn, flat[:count], moving, flat[count:])[0], [*avals, *(avals[k] for k in moving)])
    except Exception as error:  # JAX has no one type for what it cannot transpose, and the rule is anyone's code
        return reason_text(error)
    return None


def backward_of(eqn: Equation) -> Any:
    """Cotangents of operands, as a closed jaxpr of operands and of cotangents of the results that have one."""
    moving, avals, count = declared_operands(eqn), [atom.aval for atom in eqn.invars], len(eqn.invars)

    def backward(*flat: Any) -> tuple[Any, ...]:
        operands = flat[:count]
        _, pull = jax.vjp(as_function(eqn, operands, moving), *(operands[k] for k in moving))
        return pull(placed(eqn.outvars, flat[count:]))

    return trace(backward, [*avals, *(out.aval for out in eqn.outvars if is_floating(dtype_of(out)))])
