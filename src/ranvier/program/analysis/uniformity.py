"""Which results of a jaxpr are constant, fixed by parameters, and the same at every position.

An entry of D that is 0.9 at all three positions, ``full(3, 0.9)``, is constant, uniform and 0.9. ``0.9 * ones(3) * a``
with a single parameter a is static and uniform, of a value that is not known; ``sigmoid(w)`` with w of shape [3] is
static and not uniform; and ``arange(3)`` is constant and not uniform.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._jax import Atom, Equation, Literal, Var, open_jaxpr, size_of
from ..folding import run_known
from ..interpret import needed_equations
from ..nested import classify
from ..primitives import Kind
from .binding_time import BindingTime

Fact = tuple[BindingTime, bool, float | None]
"""Binding time, whether all positions are equal, and the value where it is one known number."""


def jaxpr_facts(
    closed: Any, operand_binding_times: Sequence[BindingTime], operand_values: Sequence[np.ndarray | None]
) -> list[Fact]:
    """Facts about the results of a jaxpr.

    Args:
        closed: the closed jaxpr.
        operand_binding_times: binding time of each operand.
        operand_values: value of each constant operand, None for the rest.
    """
    jaxpr, consts = open_jaxpr(closed)
    binding_time: dict[Var, BindingTime] = dict(zip(jaxpr.invars, operand_binding_times, strict=True))
    binding_time.update(dict.fromkeys(jaxpr.constvars, BindingTime.CONSTANT))
    known = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update({v: x for v, x in zip(jaxpr.invars, operand_values, strict=True) if x is not None})
    uniform: dict[Var, bool] = {var: size_of(var) == 1 for var in jaxpr.invars}
    uniform.update({var: all_equal(value) for var, value in known.items()})

    for eqn in jaxpr.eqns:
        made_of = max((_binding_time(binding_time, atom) for atom in eqn.invars), default=BindingTime.CONSTANT)
        even = _stays_uniform(eqn) and all(_uniform(uniform, atom) for atom in eqn.invars)
        for var in eqn.outvars:
            binding_time[var], uniform[var] = made_of, even or size_of(var) == 1

    # Values of constants decide in the end: a sum over equal columns is uniform, which no rule above says.
    constant = [a for a in jaxpr.outvars if not isinstance(a, Literal) and binding_time[a] is BindingTime.CONSTANT]
    if constant:
        run_known(needed_equations([e for e in jaxpr.eqns if _is_constant(e, binding_time)], constant), known)
    return [_fact(atom, binding_time, uniform, known) for atom in jaxpr.outvars]


def _fact(atom: Atom, binding_time: dict[Var, BindingTime], uniform: dict[Var, bool], known: dict[Var, Any]) -> Fact:
    if isinstance(atom, Literal):
        value = np.asarray(atom.val)
        return BindingTime.CONSTANT, True, None if np.iscomplexobj(value) else float(value)
    if binding_time[atom] is not BindingTime.CONSTANT:
        return binding_time[atom], uniform[atom], None
    value = np.asarray(known[atom])
    even = all_equal(value)
    real = even and not np.iscomplexobj(value)
    return BindingTime.CONSTANT, even, float(value.reshape(-1)[0]) if real else None


def _is_constant(eqn: Equation, binding_time: dict[Var, BindingTime]) -> bool:
    return all(binding_time[var] is BindingTime.CONSTANT for var in eqn.outvars)


def _binding_time(binding_time: dict[Var, BindingTime], atom: Atom) -> BindingTime:
    return BindingTime.CONSTANT if isinstance(atom, Literal) else binding_time[atom]


def _uniform(uniform: dict[Var, bool], atom: Atom) -> bool:
    return all_equal(atom.val) if isinstance(atom, Literal) else uniform[atom]


def _stays_uniform(eqn: Equation) -> bool:
    """Whether equal elements in give equal elements out; padding and the like may bring in others."""
    simple = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim", "transpose", "slice", "rev", "copy")
    return eqn.primitive.name in simple or classify(eqn) is Kind.ELEMENTWISE


def all_equal(value: Any) -> bool:
    """Whether an array has elements, all of one value."""
    array = np.asarray(value)
    return array.size > 0 and bool((array == array.reshape(-1)[0]).all())
