"""The order in which the changing part of a step runs over many steps: phases, each a loop or all steps at once.

What a state of an earlier step leads back to must run step after step: the strongly connected components of the step's
equations and states. Everything else runs for all steps at once, so that a product is one large one: of the inputs
before a loop, or of a population's spikes after the population's own loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ...program._jax import Equation, Literal, Var, variables_of
from ...program.analysis.binding_time import BindingTimes
from ...program.bodies import bodies
from ...program.nested import classify
from ...program.primitives import Kind
from .sparse_products import sparse_product
from .tasks import Key, PartialProduct, Task


@dataclass(frozen=True, eq=False)
class Phase:
    """Tasks that run together.

    Attributes:
        tasks: in order.
        states: numbers of the states that are carried from step to step; where there are some, the phase is a loop.
        kept: what later phases read or what is recorded.
        is_loop: whether it runs step after step.
    """

    tasks: tuple[Task, ...]
    states: tuple[int, ...]
    kept: tuple[Key, ...]
    is_loop: bool

    def run(self, values: dict[Any, Any]) -> None:
        for task in self.tasks:
            task.run(values)


def is_costly(eqn: Equation) -> bool:
    """Whether to keep a result rather than compute it again: products, sums, random numbers."""
    return bool(eqn.effects) or eqn.primitive.name == "scatter-add" or classify(eqn) in (Kind.MIXING, Kind.OPAQUE)


def schedule(
    equations: Sequence[Equation],
    states: Sequence[tuple[Var, Any]],
    recorded: Sequence[Var],
    levels: BindingTimes,
) -> list[Phase]:
    """Phases for the changing equations of a step.

    Args:
        equations: in program order.
        states: of every state the variable that holds the old value and what holds the new one.
        recorded: results that are wanted at every step, beside the states.
        levels: what is known of variables.
    """
    level, state_level = _levels(equations, states)
    made = {var: level[n] for n, eqn in enumerate(equations) for var in eqn.outvars}
    made.update({var: state_level[s] for s, (var, _) in enumerate(states)})
    producer = {var: eqn for eqn in equations for var in eqn.outvars}
    placed = [part for n, eqn in enumerate(equations) for part in _tasks(eqn, level[n], made, producer, levels)]
    placed = _needed(placed, [*recorded, *variables_of(new for _, new in states)])
    placed = _later(placed, states, state_level)
    numbers = sorted({at for _, at in placed} | set(state_level))
    phases = []
    for at in numbers:
        tasks = tuple(task for task, where in placed if where == at)
        carried = tuple(s for s, where in enumerate(state_level) if where == at)
        read_later = {key for task, where in placed if where > at for key in task.reads}
        read_later |= {new for s, (_, new) in enumerate(states) if state_level[s] > at and not isinstance(new, Literal)}
        wanted = read_later | set(recorded)
        kept = [key for task in tasks for key in task.writes if key in wanted]
        phases.append(Phase(tasks, carried, tuple(kept), at % 2 == 1))
    return phases


def _levels(equations: Sequence[Equation], states: Sequence[tuple[Var, Any]]) -> tuple[list[int], list[int]]:
    """Number of the phase of every equation and state: even ones take all steps at once, odd ones are loops.

    An equation is at least as late as what it reads. A product after a loop leaves the loop; what is cheap stays.
    """
    count = len(equations)
    producer = {var: n for n, eqn in enumerate(equations) for var in eqn.outvars}
    producer.update({var: count + s for s, (var, _) in enumerate(states)})
    edges = [(producer[v], n) for n, eqn in enumerate(equations) for v in variables_of(eqn.invars) if v in producer]
    edges += [
        (producer[v], count + s) for s, (_, new) in enumerate(states) for v in variables_of([new]) if v in producer
    ]
    acting = [n for n, eqn in enumerate(equations) if eqn.effects]
    edges += [pair for a, b in pairwise(acting) for pair in ((a, b), (b, a))]
    size = count + len(states)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(size, size))
    _, component = connected_components(graph, connection="strong")
    loops = {int(component[n]) for n in (*acting, *range(count, size))}
    leaves = {int(component[n]) for n, eqn in enumerate(equations) if is_costly(eqn) and not bodies(eqn)} - loops
    before: dict[int, set[int]] = {int(c): set() for c in component}
    for a, b in component[ends] if len(ends) else ():
        if a != b:
            before[int(b)].add(int(a))
    level: dict[int, int] = {}
    for c in TopologicalSorter(before).static_order():
        last = max((level[b] for b in before[c]), default=0)
        moves_on = (c in loops and last % 2 == 0) or (c in leaves and last % 2 == 1)
        level[c] = last + 1 if moves_on else last
    numbers = [level[int(c)] for c in component]
    return numbers[:count], numbers[count:]


def _tasks(
    eqn: Equation,
    at: int,
    made: Mapping[Var, int],
    producer: Mapping[Var, Equation],
    levels: BindingTimes,
) -> Iterator[tuple[Task, int]]:
    """The tasks of an equation and their phases: a product in a loop leaves early pieces to an earlier phase."""
    found = _concatenated(eqn, producer, levels) if at % 2 == 1 else None
    if found is not None:
        operand, pieces = found
        phases = [made.get(piece, 0) if not isinstance(piece, Literal) else 0 for piece in pieces]
        early = tuple(k for k, where in enumerate(phases) if where < at)
        late = tuple(k for k, where in enumerate(phases) if where == at)
        if early and late:
            first = PartialProduct(eqn, operand, pieces, early, None)
            yield first, max(where + where % 2 for where in phases if where < at)
            yield PartialProduct(eqn, operand, pieces, late, first.writes[0]), at
            return
    yield sparse_product(eqn, producer, levels, in_loop=at % 2 == 1) or Task(eqn), at


def _concatenated(
    eqn: Equation, producer: Mapping[Var, Equation], levels: BindingTimes
) -> tuple[int, tuple[Any, ...]] | None:
    """Number of the operand of a product that is a concatenation along the summed axis, and its pieces; None where the
    other operand changes, and may not be there when early pieces are."""
    if eqn.primitive.name != "dot_general":
        return None
    (contracted, _) = eqn.params["dimension_numbers"]
    for operand, atom in enumerate(eqn.invars):
        source = None if isinstance(atom, Literal) else producer.get(atom)
        if source is None or source.primitive.name != "concatenate":
            continue
        other = eqn.invars[1 - operand]
        if contracted[operand] == (source.params["dimension"],) and (
            isinstance(other, Literal) or levels.is_static(other)
        ):
            return operand, tuple(source.invars)
    return None


def _needed(placed: list[tuple[Task, int]], wanted: Sequence[Key]) -> list[tuple[Task, int]]:
    """The tasks that lead to what is wanted, or act on the outside."""
    keys, found = set(wanted), []
    for task, at in reversed(placed):
        if task.equation.effects or keys.intersection(task.writes):
            keys.update(task.reads)
            found.append((task, at))
    return found[::-1]


def _later(
    placed: list[tuple[Task, int]], states: Sequence[tuple[Var, Any]], state_level: Sequence[int]
) -> list[tuple[Task, int]]:
    """Moves what a loop computes for later phases alone out of the loop."""
    used: dict[Key, int] = {}

    def use(keys: Sequence[Key], at: int) -> None:
        for key in keys:
            used[key] = min(used.get(key, at), at)

    for s, (_, new) in enumerate(states):
        use(variables_of([new]), state_level[s])
    found = []
    for task, at in reversed(placed):
        first_use = min((used[key] for key in task.writes if key in used), default=at)
        stays = at % 2 == 0 or first_use == at or task.equation.effects or is_costly(task.equation)
        at = at if stays else at + 1
        use(task.reads, at)
        found.append((task, at))
    return found[::-1]
