"""``while`` with derivatives in both modes.

JAX differentiates a loop whose number of turns the data decide in forward mode only. Its Jacobian, once forward mode
has computed it, is an array like any other and can be applied in either direction. Where the loop keeps positions
apart, one product along the loop computes the Jacobian by an operand for all positions at once; elsewhere it takes a
product for every element of the operand.

``x = [1, 1.1, 0.5]`` squared in three turns gives x^8. The loop keeps positions apart, so one tangent of ones, pushed
along it, comes out as the diagonal of the Jacobian, 8 x^7 = [8, 15.59, 0.0625]. A cotangent is multiplied by it element
by element. Had a turn multiplied x by a matrix, three tangents would be pushed, one for every element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from ..errors import AnalysisError
from ._jax import Equation, bind, dtype_of, is_complex, is_floating, size_of, source_line
from .bodies import loop_of
from .derivatives import as_function
from .interpret import apply_with_bodies
from .nested import classify_derivative, contains, on_derivative_path
from .primitives import Kind

MAX_JACOBIAN = 2**24
"""The Jacobian of a loop that mixes positions may have this many elements, 64 MiB in float32."""

ORDER_KEPT = frozenset(["reshape", "squeeze", "expand_dims", "broadcast_in_dim"])
"""Structural primitives that leave elements in their order where they leave their number."""


def bind_both_ways(eqn: Equation, operands: Sequence[Any]) -> list[Any]:
    """Applies an equation, as :func:`bind` does, so that derivatives pass in both modes."""
    if eqn.primitive.name == "while":
        return _apply_while(eqn, operands)
    if eqn.primitive.name in ("scan", "cond") and contains(eqn, "while"):
        return list(apply_with_bodies(eqn, list(operands), bind_both_ways))
    return bind(eqn, operands)


def _apply_while(eqn: Equation, operands: Sequence[Any]) -> list[Any]:
    """Applies a ``while``.

    Raises:
        AnalysisError: when differentiated, where the loop mixes positions and its Jacobian would be too large.
    """

    def loop(*operands: Any) -> tuple[Any, ...]:
        return tuple(bind(eqn, operands))

    def pushed(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        first = loop_of(eqn).first
        # The operands of the condition decide how many turns there are, which has no derivative.
        moving = {k: t for k, t in enumerate(tangents) if k >= first and not isinstance(t, SymbolicZero)}
        return _pushed(eqn, primals, {k: t for k, t in moving.items() if is_floating(t.dtype)})

    with_rule = jax.custom_jvp(loop)
    with_rule.defjvp(pushed, symbolic_zeros=True)
    return list(with_rule(*operands))


def _pushed(eqn: Equation, primals: Sequence[Any], tangents: dict[int, Any]) -> tuple[Any, Any]:
    """Results of the loop, and their tangents as products with its Jacobian."""
    _check(eqn, tangents)
    apart = {k: keeps_positions(eqn, k) for k in tangents}
    results, jacobian = _jacobian(eqn, primals, apart)
    moved: list[Any] = [_no_tangent(x) for x in results]
    for k, tangent in tangents.items():
        for number, columns in jacobian[k].items():
            moved[number] += _product(columns, tangent, results[number].shape, apart[k])
    return tuple(results), tuple(moved)


def _jacobian(
    eqn: Equation, primals: Sequence[Any], apart: dict[int, bool]
) -> tuple[tuple[Any, ...], dict[int, dict[int, jax.Array]]]:
    """Results of the loop; by operand and floating-point result the derivatives, ``[seeds, *result]``.

    There is one seed for an operand whose positions stay apart, else one for every element. All are pushed along one
    run of the loop.
    """
    moving = list(apart)
    widths = [1 if apart[k] else size_of(eqn.invars[k]) for k in moving]
    starts = np.cumsum([0, *widths])
    seeds = []
    for k, width, start in zip(moving, widths, starts, strict=False):
        # Ones for all positions at once: what stays apart cannot add up on the way.
        of_operand = np.ones((1, size_of(eqn.invars[k]))) if apart[k] else np.eye(width)
        rows = np.zeros((starts[-1], of_operand.shape[1]))
        rows[start : start + width] = of_operand
        seeds.append(jnp.asarray(rows, primals[k].dtype).reshape(-1, *primals[k].shape))
    function = as_function(eqn, primals, moving, bind)

    def push(*tangents: Any) -> tuple[Any, Any]:
        return jax.jvp(function, [primals[k] for k in moving], list(tangents))

    if not moving:
        return function(), {}
    results, columns = jax.vmap(push, out_axes=(None, 0))(*seeds)
    floating = [number for number, x in enumerate(results) if is_floating(x.dtype)]
    parts = zip(moving, starts[:-1], starts[1:], strict=True)
    return results, {k: {number: columns[number][start:end] for number in floating} for k, start, end in parts}


def _product(columns: jax.Array, tangent: jax.Array, shape: tuple[int, ...], apart: bool) -> jax.Array:
    """The part of a result's tangent that comes from an operand's."""
    if not apart:
        return jnp.tensordot(tangent.reshape(-1).astype(columns.dtype), columns, 1)
    if columns[0].size != tangent.size:
        return jnp.zeros(shape, columns.dtype)  # not made of this operand, which keeps its size all the way
    return columns[0] * tangent.reshape(shape).astype(columns.dtype)


def _no_tangent(result: jax.Array) -> Any:
    floating = is_floating(result.dtype)
    return jnp.zeros(result.shape, result.dtype) if floating else np.zeros(result.shape, jax.dtypes.float0)


def keeps_positions(eqn: Equation, operand: int) -> bool:
    """Whether element i of everything that the loop makes of an operand is made of element i of it."""
    loop, size = loop_of(eqn), size_of(eqn.invars[operand])
    for inner, _ in on_derivative_path(loop.body, operand - loop.first, loop):
        in_place = classify_derivative(inner) is Kind.ELEMENTWISE or inner.primitive.name in ORDER_KEPT
        if not in_place or any(size_of(var) != size for var in inner.outvars if is_floating(dtype_of(var))):
            return False
    return True


def _check(eqn: Equation, tangents: dict[int, Any]) -> None:
    """Raises where the Jacobian cannot be computed this way."""
    size = sum(size_of(var) for var in eqn.outvars if is_floating(dtype_of(var)))
    wide = [k for k in tangents if not keeps_positions(eqn, k)]
    elements = size * sum(size_of(eqn.invars[k]) for k in wide)
    if elements > MAX_JACOBIAN:
        raise AnalysisError(
            f"the while loop at {source_line(eqn)} mixes positions, and JAX cannot differentiate a while loop in "
            f"reverse mode; its Jacobian by forward mode has {elements} elements, more than {MAX_JACOBIAN}. Write it "
            "as lax.scan or lax.fori_loop with a fixed number of iterations."
        )
    if any(is_complex(tangent.dtype) for tangent in tangents.values()):
        raise AnalysisError(
            f"the while loop at {source_line(eqn)} takes complex values, and JAX cannot differentiate a while loop in "
            "reverse mode. Write it as lax.scan or lax.fori_loop with a fixed number of iterations, or keep the real "
            "and imaginary parts as separate values."
        )
