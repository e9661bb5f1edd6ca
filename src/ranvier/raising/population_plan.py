"""The planned populations of a graph: which equations and states go into each, and what is read one step later.

In the example of ``step.py`` there is one population, with the state v. The new z is a result that only waits to be
read in the next step: a *memory*, which is no state of the population but a delay of one step on the projection that
reads it. Had the step computed its spikes from the old potential, ``z = state["v"] > 1``, z would be *retimed*: the
population computes it from the new potential, at the end of the step before, and its readers see it one step later.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ..program._jax import Equation, Var, dtype_of, is_floating, variables_of
from .arithmetic import Arithmetic, Member
from .clusters import Clusters
from .references import Earlier, OldState, Root, Terms, base
from .stages import PlannedPopulation, assign_stages


@dataclass(frozen=True, eq=False)
class PopulationPlan:
    """The population that computes each equation and state.

    Attributes:
        arithmetic: of the step.
        population: of every equation of arithmetic, by ``id``, and of every part of a state.
        crossing: results that are read outside of their cluster, or moved.
        retimed: results that old states alone decide, with the population of these; what they are in the next step is
            known at the end of this one, so they are an output that is read one step later.
        memories: parts of states that only keep a result of the step for others to read in the next one.
    """

    arithmetic: Arithmetic
    population: Mapping[Member, PlannedPopulation]
    crossing: AbstractSet[Var]
    retimed: Mapping[Var, PlannedPopulation]
    memories: AbstractSet[OldState]


def plan_populations(clusters: Clusters) -> PopulationPlan:
    """Plans the populations that clusters become."""
    arithmetic = clusters.arithmetic
    crossing = arithmetic.crossing()
    deciding = _deciding_states(arithmetic)
    retimed = _retimable(arithmetic, crossing, deciding)
    # What is retimed lets clusters be one population that would otherwise wait for themselves; but if its states then
    # stand in two populations, no single one can compute it from their new values. So the two are settled in turn.
    while True:
        population = assign_stages(clusters, crossing, retimed.keys())
        homes = {var: {population[part] for part in parts} for var, parts in retimed.items()}
        if all(len(home) == 1 for home in homes.values()):
            break
        retimed = {var: parts for var, parts in retimed.items() if len(homes[var]) == 1}
    home_of = {var: next(iter(home)) for var, home in homes.items()}
    return PopulationPlan(arithmetic, population, crossing, home_of, _memories(arithmetic, home_of.keys()))


def _retimable(
    arithmetic: Arithmetic, crossing: AbstractSet[Var], deciding: Mapping[int, AbstractSet[OldState] | None]
) -> dict[Var, AbstractSet[OldState]]:
    """Results that others read and that old states alone decide, with these states."""
    kinds = arithmetic.kinds
    # A register already reads a result some steps later, and counts these from the step that it is computed in.
    passed_on = {base(t.root) for terms in kinds.terms.values() for t in terms if isinstance(t.root, Earlier)}
    states = {var: deciding[id(arithmetic.maker[var])] for var in crossing - passed_on}
    return {var: parts for var, parts in states.items() if parts and is_floating(dtype_of(var))}


def _deciding_states(arithmetic: Arithmetic) -> dict[int, set[OldState] | None]:
    """Of every equation, by ``id``, the old states that decide its results; None where something else does too."""
    deciding: dict[int, set[OldState] | None] = {}
    for eqn in arithmetic.equations:
        parts = [_deciding_operand(arithmetic, eqn, atom, deciding) for atom in variables_of(eqn.invars)]
        deciding[id(eqn)] = None if any(part is None for part in parts) else set().union(*filter(None, parts))
    return deciding


def _deciding_operand(
    arithmetic: Arithmetic, eqn: Equation, atom: Var, deciding: Mapping[int, set[OldState] | None]
) -> set[OldState] | None:
    step = arithmetic.kinds.step
    if step.is_static(atom):
        return None if step.is_learned(atom) else set()
    root = arithmetic.inner(eqn, atom)
    if root is None or isinstance(root, OldState):
        return None if root is None else {root}
    return deciding[id(arithmetic.maker[root])]


def _memories(arithmetic: Arithmetic, retimed: AbstractSet[Var]) -> set[OldState]:
    """Parts of states that only keep a result of the step for others to read in the next one.

    They are no states of a population, but a delay on the path to their readers.
    """
    parts = arithmetic.kinds.parts
    results: list[Root | None] = [
        arithmetic.new_value(part) if arithmetic.own_result(part) is not None else None for part in parts
    ]
    inner = {arithmetic.inner(eqn, atom) for eqn in arithmetic.equations for atom in variables_of(eqn.invars)}
    reads: list[Terms] = [terms for eqn in arithmetic.equations for terms in arithmetic.brought(eqn)]
    outer = {base(term.root) for terms in (*reads, *arithmetic.outer_reads()) for term in terms}
    memories = set()
    for part, result in zip(parts, results, strict=True):
        # A result that two states keep, or that is read a step later itself, is one port with one delay.
        is_single = result is not None and results.count(result) == 1 and result not in retimed
        if is_single and part in outer and part not in inner:
            memories.add(part)
    return memories
