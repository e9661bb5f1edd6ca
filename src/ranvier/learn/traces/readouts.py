"""Leaky readouts: states that integrate what others emit, by a linear map that does not change.

A low-pass filter of the emission then has the same effect as the readout's own memory of it: filter and map commute.
For example, ``y_t = 0.9 y_{t-1} + 2 z_t`` with a spike at the first of two steps: y is 2, then 1.8. The filter ``m_t =
0.9 m_{t-1} + z_t`` is 1, then 0.9, and 2 m is the same. With weights that change between the steps, it would not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...program._jax import Equation, Literal, Var, dtype_of, is_floating
from ...program.analysis.binding_time import BindingTime, BindingTimes, binding_times_of
from ...program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ...program.analysis.lasting import lasting_states
from ...program.analysis.reachability import feeds_of, reach_by_gradient, reach_onward
from ...program.analysis.relations import connections_of
from ...program.bodies import has_derivative
from ...program.nested import classify_derivative
from ...program.primitives import Kind, rule_of
from ...program.program import ModuleInfo

SUMS = frozenset(["reduce_sum", "reduce_window_sum", "cumsum"])
PRODUCTS = frozenset(["mul", "dot_general", "conv_general_dilated"])


@dataclass(frozen=True)
class Readout:
    """A component of a group that feeds no other state."""

    group: HiddenGroup
    component: int

    @property
    def decays(self) -> np.ndarray | None:
        """What is left of it after a step, by position; None where that is not constant."""
        return self.group.transition.constant_entry(self.component, self.component)


def readouts_of(info: ModuleInfo, var: Var, eqn: Equation) -> tuple[Readout, ...]:
    """The leaky readouts that an equation carries a variable into; none where it also leads elsewhere.

    All that the step computes feels the variable past this equation, and the readouts' old states, through their new
    states only, and these feed no further state: after a second integrator one filter of the variable is not enough.
    """
    reached = reach_by_gradient(info)
    indices = {j for out in eqn.outvars for j in reached.hidden(out)}
    felt = [*eqn.outvars, *(info.hidden_invars[j] for j in indices)]
    # Whatever else feels the emission or the old readout would see m, with a memory that it does not have.
    if any(reached.outputs(v) or reached.other(v) or set(reached.hidden(v)) - indices for v in felt):
        return ()
    if any(_feeds_other_states(info, j) for j in indices):
        return ()
    readouts = []
    for group in analyse_groups(info).groups:
        components = [a for a, c in enumerate(group.positions.components) if group.state_indices[c.state] in indices]
        # With two states a readout is a filter of second order, which no single decay stands for.
        if len(components) > 1:
            return ()
        readouts += [Readout(group, a) for a in components]
    binding_times = binding_times_of(info)
    path = path_out(info, var, eqn)
    # Filter and path commute where the whole path is linear; or where only the projection has to be, since what follows
    # acts on each readout by one gain that does not change.
    linear = all(is_linear(e, operands, binding_times) for e, operands in path)
    steady = _has_steady_gain(info, eqn) and all(
        is_linear(e, operands, binding_times) for e, operands in path if e is eqn
    )
    return tuple(readouts) if linear or steady else ()


def _feeds_other_states(info: ModuleInfo, state: int) -> bool:
    """Whether the new value of a hidden state acts within the step on the new values of other states that last."""
    output = 1 << len(info.hidden)
    # Its own old value is its memory, and outputs feel its new one: neither is a second integrator.
    others = lasting_states(info) & ~(output | 1 << state)
    return bool(reach_onward(info).mask(info.hidden_outvars[state]) & others)


def path_out(info: ModuleInfo, var: Var, eqn: Equation) -> list[tuple[Equation, list[int]]]:
    """The equations through which a derivative passes from a variable, past this equation, up to new hidden states,
    each with the numbers of the operands that carry it."""
    made_of_it, ends = set[Var](), set(info.hidden_outvars)
    path = []
    for e in info.equations:
        sources = {var} if e is eqn else made_of_it
        operands = [k for k, atom in enumerate(e.invars) if not isinstance(atom, Literal) and atom in sources]
        if operands and has_derivative(e):
            path.append((e, operands))
            made_of_it.update(out for out in e.outvars if is_floating(dtype_of(out)) and out not in ends)
    return path


def is_linear(eqn: Equation, operands: Sequence[int], binding_times: BindingTimes) -> bool:
    """Whether the results are linear in these operands, with coefficients that do not depend on data."""
    rule, name = rule_of(eqn.primitive), eqn.primitive.name
    steady = all(k in operands or binding_times.is_static(atom) for k, atom in enumerate(eqn.invars))
    if name in PRODUCTS or (rule.kind is Kind.MIXING and rule.operation == "sparse"):
        return steady and len(operands) == 1
    if name == "div":
        return steady and list(operands) == [0]
    if name == "select_n":
        return 0 not in operands and binding_times.is_static(eqn.invars[0])
    if rule.kind is Kind.STRUCTURAL and rule.index_operands is not None:
        return steady and all(k < rule.index_operands for k in operands)
    return rule.linear or name in SUMS or rule.kind is Kind.STRUCTURAL


def is_plain_move(eqn: Equation) -> bool:
    """Whether the equation moves elements to places that do not depend on any operand."""
    rule = rule_of(eqn.primitive)
    return rule.kind is Kind.STRUCTURAL and rule.index_operands is None and eqn.primitive.name != "concatenate"


def _has_steady_gain(info: ModuleInfo, eqn: Equation) -> bool:
    """Whether a projection acts on readouts position by position with a gain that does not change."""
    connections = [c for out in eqn.outvars for c in connections_of(info, out, feeds_of(info))]
    steady = all(fact.binding_time is not BindingTime.DYNAMIC for c in connections for fact in c.facts.values())
    return bool(connections) and classify_derivative(eqn) is Kind.MIXING and steady
