"""A program without one path in time, to measure what leaving that path out costs.

The step runs twice: outputs come from the step as it is, new states from one whose derivative does not pass the path.
So the loss of a step still feels the path within that step, as it does under every rule, and later steps do not. The
exact gradient of this program, beside that of the whole one, says what the path is worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ...program._jax import Equation, Literal, bind
from ...program.interpret import Environment, read, run_equations
from ...program.normalize import normalize
from ...program.program import ModuleInfo
from ..left_out import Cut


def without_path(info: ModuleInfo, cut: Cut) -> ModuleInfo:
    """The program without the effect of one path on its new states.

    Args:
        info: the program.
        cut: the equations with the operands through which the path enters them.
    """
    closed_operands = {(id(eqn), var) for eqn, var in cut}
    outputs, hidden = len(info.output_outvars), len(info.hidden)

    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        # The operand keeps its value, so that all states and losses are those of the model; only the derivative ends
        # here. Taking the equation out would change the network instead of the gradient.
        stopped = [
            jax.lax.stop_gradient(x) if not isinstance(atom, Literal) and (id(eqn), atom) in closed_operands else x
            for atom, x in zip(eqn.invars, operands, strict=True)
        ]
        return bind(eqn, stopped)

    def step(*operands: Any) -> list[Any]:
        results = []
        # Two runs, because one path serves both: to this step's loss it has to stay open, into the new states it is
        # closed. XLA merges what both compute alike.
        for how in (bind, apply):
            values: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
            values.update(zip(info.jaxpr.invars, operands, strict=True))
            run_equations(info.equations, values, how)
            results.append([jnp.asarray(read(values, atom)) for atom in info.jaxpr.outvars])
        whole, cut_off = results
        return [*whole[:outputs], *cut_off[outputs:]]

    avals = [var.aval for var in info.jaxpr.invars]
    return replace(info, closed_jaxpr=normalize(step, avals, slice(outputs, outputs + hidden)))
