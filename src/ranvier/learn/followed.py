"""What eligibility traces follow: the uses of parameters, each with its traces, and the states that the traces reach.

For ``y = x @ w; a' = 0.8 a + y; b' = 0.9 b + tanh(y) @ u`` with one group of states a and another of b, D_RTRL has a
trace of w in the group of a and a trace of u in that of b. The uses are (w, at its product) and (u, at its product),
each with one trace; a is followed for w, and b for u. What w does to b through u is on neither list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..program._jax import Equation, Literal, Var, dtype_of, is_floating
from ..program.analysis.reachability import feeds_of, is_mixed
from ..program.bodies import has_derivative
from ..program.program import ModuleInfo
from .carried import EligibilityTrace, Traces
from .step.stages import stages_of
from .uses.traced_uses import entering_variables, slots_of


@dataclass(frozen=True, eq=False)
class FollowedUse:
    """One place where a static variable made of parameters meets the changing part of a step.

    Attributes:
        variable: the static variable.
        equation: the equation that reads it; None where it is itself the new value of a state.
        starts: variables from which the use acts on: the result of the traced projection, or of the equation.
        traces: the traces that follow it.
        slots: indices of the parameters that the variable is made of.
    """

    variable: Var
    equation: Equation | None
    starts: tuple[Var, ...]
    traces: tuple[EligibilityTrace, ...]
    slots: frozenset[int]


@dataclass(frozen=True, eq=False)
class Followed:
    """What the traces of a rule follow in a program.

    Attributes:
        info: the program.
        carried: the traces.
        uses: all uses of all parameters, in program order.
        states: index of every hidden state that traces follow, to the parameters for which they do.
    """

    info: ModuleInfo
    carried: Traces
    uses: tuple[FollowedUse, ...]
    states: Mapping[int, frozenset[int]]

    def parameters_at(self, states: Iterable[int]) -> frozenset[int]:
        """The parameters for which traces follow any of these states."""
        return frozenset().union(*(self.states.get(j, frozenset()) for j in states))


def followed_by(info: ModuleInfo, carried: Traces) -> Followed:
    """What these traces follow."""
    return Followed(info, carried, tuple(_uses(info, carried)), _states(carried))


def _uses(info: ModuleInfo, carried: Traces) -> list[FollowedUse]:
    entering = set(entering_variables(info))
    read = [
        _use(info, carried, atom, eqn, k)
        for eqn in stages_of(info).changing
        if has_derivative(eqn)
        for k, atom in enumerate(eqn.invars)
        if not isinstance(atom, Literal) and atom in entering and is_floating(dtype_of(atom))
    ]
    # A new state that is made only of parameters is read by the next step, but by no equation of this one.
    return read + [_use(info, carried, var, None, 0) for var in info.hidden_outvars if var in entering]


def _use(info: ModuleInfo, carried: Traces, variable: Var, eqn: Equation | None, operand: int) -> FollowedUse:
    of_variable = [t for t in carried.traces if t.use.operand is variable]
    # A variable that two equations read has a trace at each. The one at this equation counts; else one that starts from
    # the variable itself, as that of an elementwise parameter does.
    applied = [t for t in of_variable if eqn in t.use.equations]
    traces = applied or [t for t in of_variable if not t.use.equations]
    # A trace by position does not follow what the reading equation itself mixes.
    if not applied and eqn is not None and is_mixed(feeds_of(info), eqn, operand):
        traces = []
    results = (variable,) if eqn is None else tuple(eqn.outvars)
    starts = (applied[0].use.y,) if applied else results
    return FollowedUse(variable, eqn, starts, tuple(traces), frozenset(slots_of(info, variable)))


def _states(carried: Traces) -> dict[int, frozenset[int]]:
    states: dict[int, frozenset[int]] = {}
    for trace in carried.traces:
        for state in {state_of(trace, a) for a in trace.dynamics.reached(trace.lanes)}:
            states[state] = states.get(state, frozenset()) | frozenset(trace.use.slots)
    return states


def state_of(trace: EligibilityTrace, component: int) -> int:
    """Index of the hidden state that a component of a trace's group belongs to."""
    group = trace.lanes.connection.group
    return group.state_indices[group.positions.components[component].state]


def enters(trace: EligibilityTrace, state: int) -> bool:
    """Whether a trace includes all of f into a state."""
    group = trace.lanes.connection.group
    if state not in group.state_indices:
        return False
    # All components of the state: a delay line whose first element has a trace is not followed in the others.
    components = [a for a in range(group.num_state) if state_of(trace, a) == state]
    return set(components) <= set(trace.dynamics.uniform_f(trace.lanes))
