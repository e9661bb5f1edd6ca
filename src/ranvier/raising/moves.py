"""Equations that only move values: every element of the result is one element of an operand, a sum of such, or zero."""

from __future__ import annotations

import numpy as np

from ..program._jax import Equation, Literal
from ..program.primitives import rule_of
from .step import StepView

MOVES = frozenset(
    [
        "reshape",
        "squeeze",
        "expand_dims",
        "broadcast_in_dim",
        "slice",
        "concatenate",
        "transpose",
        "rev",
        "pad",
        "split",
        "stack",
        "unstack",
        "tile",
        "dynamic_slice",
        "gather",
        "dynamic_update_slice",
        "scatter",
        "scatter-add",
        "sharding_constraint",
        "device_put",
    ]
)
"""Primitives that only move values, where the places are known."""


def only_moves(step: StepView, eqn: Equation) -> bool:
    """Whether an equation moves values from and to places that are the same in every step."""
    name = eqn.primitive.name
    if name not in MOVES:
        return False
    numbers = _numbers_of_values(eqn)
    values = [eqn.invars[k] for k in numbers]
    # A literal that is not zero, as the padding of a pad can be, is no element of any root.
    if any(isinstance(a, Literal) and np.any(np.asarray(a.val) != 0) for a in values):
        return False
    indices = [a for k, a in enumerate(eqn.invars) if k not in numbers]
    # Indices made of parameters are fixed as well, but training could change them.
    if any(step.binding_times.constant_value(a) is None for a in indices):
        return False
    # Elements out of range are zero for a graph, so a gather that fills with anything else, as NaN, is no move.
    if name == "gather" and eqn.params.get("fill_value") not in (None, 0):
        return False
    dependences = step.dependences(eqn)
    if name == "scatter-add":
        reached = {operand for of_result in dependences for operand, _ in of_result}
        return all(k in reached for k in numbers if not isinstance(eqn.invars[k], Literal))
    return bool(dependences)


def _numbers_of_values(eqn: Equation) -> list[int]:
    """Numbers of the operands that bring values; the others say where to."""
    first_index = rule_of(eqn.primitive).index_operands
    if first_index is None:
        return list(range(len(eqn.invars)))
    if eqn.primitive.name.startswith("scatter"):
        return [0, 2]
    return list(range(first_index))
