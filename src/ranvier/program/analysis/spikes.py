"""Which results of a function are spikes: zero or one, whatever its operands.

``z = convert(v > 1, float32)`` is a spike, since a comparison is true or false, and so is ``z * mask`` with a mask of
zeros and ones. ``0.5 * z`` is none: 0.5 is neither.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._jax import Equation, Literal, Var, dtype_of, open_jaxpr
from ..bodies import branches_of, called_body

PASSED_ON = frozenset(["copy", "stop_gradient", "convert_element_type", "reshape", "squeeze", "broadcast_in_dim"])
HEAVISIDE = frozenset(["heaviside_surrogate_gradient"])
"""Primitives of other libraries that give spikes."""


def binary_results(closed: Any, binary_operands: frozenset[int] = frozenset()) -> list[bool]:
    """For every result whether all its elements are zero or one.

    Args:
        closed: a jaxpr.
        binary_operands: numbers of the operands whose elements are zero or one.
    """
    jaxpr, _ = open_jaxpr(closed)
    known = {var for k, var in enumerate(jaxpr.invars) if k in binary_operands}
    for eqn in jaxpr.eqns:
        known.update(out for out, binary in zip(eqn.outvars, _results(eqn, known), strict=True) if binary)
    return [_is_binary(atom, known) for atom in jaxpr.outvars]


def _is_binary(atom: Any, known: set[Var]) -> bool:
    if isinstance(atom, Literal):
        return bool(np.all((np.asarray(atom.val) == 0) | (np.asarray(atom.val) == 1)))
    return atom in known or dtype_of(atom) == np.bool_


def _results(eqn: Equation, known: set[Var]) -> list[bool]:
    name, binary = eqn.primitive.name, [_is_binary(a, known) for a in eqn.invars]
    if name in HEAVISIDE:
        return [True]
    if name in PASSED_ON:
        return [binary[0]]
    if name in ("mul", "max", "min", "and", "or"):
        return [all(binary)]
    if name == "select_n":
        return [all(binary[1:])]
    if name == "cond":
        inner = frozenset(k - 1 for k in range(1, len(binary)) if binary[k])
        return [all(cases) for cases in zip(*(binary_results(b, inner) for b in branches_of(eqn)), strict=True)]
    body = called_body(eqn)
    if body is None:
        return [False for _ in eqn.outvars]
    return binary_results(body, frozenset(k for k, is_binary in enumerate(binary) if is_binary))
