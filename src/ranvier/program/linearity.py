"""Whether a function that JAX can transpose is linear, or adds a constant: a backward rule that adds noise, say.

JAX transposes ``c -> 2 c + 1`` as it does ``c -> 2 c``, and the 1 is lost. What tells the two apart is their value at
c = 0, followed through the equations as a mark: of ``2 * c`` the product is zero where c is, so the second vanishes;
of ``2 c + 1`` the sum is zero only where both are, and 1 is not.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from ._jax import Atom, Literal, Tracer, Var, dtype_of, is_floating, is_key, open_jaxpr

ADDITIVE = frozenset(
    ["add", "sub", "add_any", "concatenate", "pad", "select_n", "dynamic_update_slice", "scatter", "scatter-add"]
)
"""Equations whose result is zero only where all their operands are; that of others through which a transpose passes is
where one is."""
PASSED = frozenset(["broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "copy", "transpose", "neg"])


def vanishes(closed: Any, arguments: Collection[int]) -> bool:
    """Whether all results are zero where these arguments are.

    Args:
        closed: closed jaxpr without calls, which JAX can transpose in the arguments.
        arguments: numbers of the arguments.
    """
    jaxpr, consts = open_jaxpr(closed)
    varying: set[Var] = {jaxpr.invars[k] for k in arguments}
    zero = varying | {var for var, value in zip(jaxpr.constvars, consts, strict=True) if _is_zero_array(value)}

    def is_zero(atom: Atom) -> bool:
        return _is_zero_array(atom.val) if isinstance(atom, Literal) else atom in zero

    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        linear = [a for a in eqn.invars if not isinstance(a, Literal) and a in varying]
        if not linear:
            # Made of constants: only a zero that is moved or converted is sure to stay one.
            if name in PASSED and is_zero(eqn.invars[0]):
                zero.update(eqn.outvars)
            continue
        varying.update(eqn.outvars)
        # A transpose passes through other equations only where they are linear in one operand, as in 2 * c.
        counted = [a for a in eqn.invars if is_floating(dtype_of(a))] if name in ADDITIVE else linear
        if all(map(is_zero, counted)):
            zero.update(eqn.outvars)
    return all(map(is_zero, jaxpr.outvars))


def _is_zero_array(value: Any) -> bool:
    return not isinstance(value, Tracer) and not is_key(jax.typeof(value).dtype) and not np.any(value)
