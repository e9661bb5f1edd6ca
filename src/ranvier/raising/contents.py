"""What each planned population computes: its equations, its states, and the results that others read.

In the example of ``step.py`` the one population has all four equations of arithmetic, the state v and the result z. A
result that nobody reads is left out, with the equations that only it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from ..program._jax import Equation, Var, variables_of
from .arithmetic import Arithmetic
from .population_plan import PopulationPlan
from .references import OldState, Terms
from .stages import PlannedPopulation


@dataclass(frozen=True, eq=False)
class Contents:
    """What a population computes.

    Attributes:
        population: which.
        equations: in order.
        states: parts of states whose new values it holds.
        outputs: results that are read elsewhere and are no new state.
    """

    population: PlannedPopulation
    equations: tuple[Equation, ...]
    states: tuple[OldState, ...]
    outputs: tuple[Var, ...]


def fill_populations(plan: PopulationPlan) -> list[Contents]:
    """The contents of every population, without anything that nobody reads."""
    arithmetic = plan.arithmetic
    states: dict[PlannedPopulation, list[OldState]] = {}
    for part in arithmetic.kinds.parts:
        if arithmetic.member_of(part) is not None and part not in plan.memories:
            states.setdefault(plan.population[part], []).append(part)
    equations: dict[PlannedPopulation, list[Equation]] = {}
    for eqn in arithmetic.equations:
        equations.setdefault(plan.population[id(eqn)], []).append(eqn)
    read = _read_from_elsewhere(plan)
    retimed = [var for eqn in arithmetic.equations for var in eqn.outvars if var in plan.retimed and var in read]
    contents = []
    for population in dict.fromkeys([*states, *equations]):
        own_equations, own_states = equations.get(population, []), states.get(population, [])
        outputs = [v for eqn in own_equations for v in eqn.outvars if v in read and v not in plan.retimed]
        outputs += [var for var in retimed if plan.retimed[var] == population]
        new = [arithmetic.kinds.new_terms(part) for part in own_states]
        needed = _needed(arithmetic, own_equations, outputs, new)
        if own_states or outputs:
            contents.append(Contents(population, tuple(needed), tuple(own_states), tuple(outputs)))
    return contents


def _needed(
    arithmetic: Arithmetic, equations: Sequence[Equation], outputs: Sequence[Var], new: Sequence[Terms]
) -> list[Equation]:
    """The equations of a population that results and new states need, in order."""
    wanted: set[Any] = {*outputs, *(term.root for terms in new for term in terms)}
    needed = []
    # Backward, so that what an equation reads is wanted before the equation that makes it comes up.
    for eqn in reversed(equations):
        if any(out in wanted for out in eqn.outvars):
            needed.append(eqn)
            for atom in variables_of(eqn.invars):
                wanted.update((atom, arithmetic.inner(eqn, atom)))
    return needed[::-1]


def _read_from_elsewhere(plan: PopulationPlan) -> AbstractSet[Var]:
    """Results that are read outside of their population."""
    arithmetic = plan.arithmetic
    read = set(plan.crossing) | {arithmetic.new_value(part) for part in plan.memories}
    # Stages of one cluster read one another as they stand, which does not count as leaving the cluster.
    for eqn in arithmetic.equations:
        for atom in eqn.invars:
            root = arithmetic.inner(eqn, atom)
            if root is None or isinstance(root, OldState):
                continue
            if plan.population[id(arithmetic.maker[root])] != plan.population[id(eqn)]:
                read.add(root)
    return read
