"""The order in which the changing part of a step runs over many steps: phases, each a loop or all steps at once.

What a state of an earlier step leads back to must run step after step: the strongly connected components of the step's
equations and states. Everything else runs for all steps at once, so that a product is one large one: of the inputs
before a loop, or of a population's spikes after the population's own loop.

For example, a step of four equations, whose only state is ``v``, over 100 steps:

    i = x @ w1          at once 0   [100, 20] times [20, 50] in one product
    v' = 0.9 v + i      loop 0      leads back to itself: 100 times [50]
    z = v' > 1          at once 1   moved out of the loop: no state reads it, and one comparison of [100, 50] is faster
    y = z @ w2          at once 1   [100, 50] times [50, 3]; a product leaves the loop that it reads

With ``z @ w_rec`` in ``v'``, ``z`` and that product lead back to ``v`` too, so they are in its component and stay in
the loop. The phases are at once 0, loop 0, at once 1, loop 1 and so on; ``PhaseName`` orders them.
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


@dataclass(frozen=True, order=True)
class PhaseName:
    """When a phase runs: in every round, first what runs for all steps at once, then what runs step by step.

    Attributes:
        round: from 0.
        is_loop: whether it runs step after step.
    """

    round: int
    is_loop: bool

    @property
    def next(self) -> PhaseName:
        return PhaseName(self.round + self.is_loop, not self.is_loop)

    @property
    def outside_loops(self) -> PhaseName:
        """The first phase from here on that takes all steps at once."""
        return self.next if self.is_loop else self


FIRST = PhaseName(0, is_loop=False)


@dataclass(frozen=True, eq=False)
class Phase:
    """Tasks that run together.

    Attributes:
        name: when they run, and how.
        tasks: in order.
        states: numbers of the states that are carried from step to step; only a loop has some.
        recorded: what later phases read or what is wanted of every step.
    """

    name: PhaseName
    tasks: tuple[Task, ...]
    states: tuple[int, ...]
    recorded: tuple[Key, ...]

    @property
    def is_loop(self) -> bool:
        return self.name.is_loop

    def run(self, values: dict[Any, Any]) -> None:
        for task in self.tasks:
            task.run(values)


@dataclass(frozen=True, eq=False)
class StatePair:
    """A state that changes.

    Attributes:
        before: the variable that holds the old value.
        after: what holds the new one: a variable or a literal.
    """

    before: Var
    after: Any


Placed = tuple[Task, PhaseName]


def schedule(
    equations: Sequence[Equation], states: Sequence[StatePair], recorded: Sequence[Var], times: BindingTimes
) -> list[Phase]:
    """Phases for the changing equations of a step.

    Args:
        equations: in program order.
        states: all states that change.
        recorded: results that are wanted at every step, beside the states.
        times: what is known of variables.
    """
    phase_of = find_phases(equations, states)
    placed = place_tasks(equations, phase_of, times)
    placed = drop_unneeded(placed, [*recorded, *variables_of(state.after for state in states)])
    placed = move_out_of_loops(placed, phase_of)
    return make_phases(placed, phase_of, recorded)


@dataclass(frozen=True, eq=False)
class PhaseOf:
    """When equations run and states are updated.

    Attributes:
        equations: of every equation, in program order.
        states: the states, and of every one its loop.
    """

    equations: tuple[PhaseName, ...]
    states: tuple[tuple[StatePair, PhaseName], ...]


def find_phases(equations: Sequence[Equation], states: Sequence[StatePair]) -> PhaseOf:
    """Strong components first, then for each of them the earliest phase that its kind allows.

    An equation is at least as late as what it reads. A product after a loop leaves the loop; what is cheap stays, since
    moving it out would have its operands recorded at every step.
    """
    graph = _dependences(equations, states)
    _, component = connected_components(graph.tocsr(), connection="strong")
    count = len(equations)
    acting = [n for n, eqn in enumerate(equations) if eqn.effects]
    # Every state is a loop of its own even where nothing leads back to it: its old value is the step before's new one.
    loops = {int(component[n]) for n in (*acting, *range(count, count + len(states)))}
    # An equation with a body, a ``cond``, say, stays where it is: over all steps at once, both branches would be run.
    products = {int(component[n]) for n, eqn in enumerate(equations) if is_costly(eqn) and not bodies(eqn)} - loops
    before: dict[int, set[int]] = {int(c): set() for c in component}
    for a, b in zip(component[graph.row], component[graph.col], strict=True):
        if a != b:
            before[int(b)].add(int(a))
    phase: dict[int, PhaseName] = {}
    # What a component reads is placed before it, so its own phase is the first that is late enough.
    for c in TopologicalSorter(before).static_order():
        last = max((phase[b] for b in before[c]), default=FIRST)
        moves_on = (c in loops and not last.is_loop) or (c in products and last.is_loop)
        phase[c] = last.next if moves_on else last
    phases = [phase[int(c)] for c in component]
    return PhaseOf(tuple(phases[:count]), tuple(zip(states, phases[count:], strict=True)))


def _dependences(equations: Sequence[Equation], states: Sequence[StatePair]) -> coo_array:
    """Which equation or state reads which: equations by their numbers, then states."""
    count = len(equations)
    producer = {var: n for n, eqn in enumerate(equations) for var in eqn.outvars}
    producer.update({state.before: count + s for s, state in enumerate(states)})
    edges = [(producer[v], n) for n, eqn in enumerate(equations) for v in variables_of(eqn.invars) if v in producer]
    edges += [
        (producer[v], count + s) for s, state in enumerate(states) for v in variables_of([state.after]) if v in producer
    ]
    # What acts on the outside, such as a print, must do so step by step and in the program's order: one component.
    acting = [n for n, eqn in enumerate(equations) if eqn.effects]
    edges += [pair for a, b in pairwise(acting) for pair in ((a, b), (b, a))]
    size = count + len(states)
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    return coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(size, size))


def is_costly(eqn: Equation) -> bool:
    """Whether to keep a result rather than compute it again: products, sums, random numbers."""
    return bool(eqn.effects) or eqn.primitive.name == "scatter-add" or classify(eqn) in (Kind.MIXING, Kind.OPAQUE)


def place_tasks(equations: Sequence[Equation], phase_of: PhaseOf, times: BindingTimes) -> list[Placed]:
    """The tasks of all equations: one for each, or two for a product of a concatenation in a loop."""
    made = {v: phase for eqn, phase in zip(equations, phase_of.equations, strict=True) for v in eqn.outvars}
    made.update({state.before: phase for state, phase in phase_of.states})
    producer = {var: eqn for eqn in equations for var in eqn.outvars}
    return [
        placed
        for eqn, phase in zip(equations, phase_of.equations, strict=True)
        for placed in _tasks(eqn, phase, made, producer, times)
    ]


def _tasks(
    eqn: Equation,
    phase: PhaseName,
    made: Mapping[Var, PhaseName],
    producer: Mapping[Var, Equation],
    times: BindingTimes,
) -> Iterator[Placed]:
    """The tasks of an equation and their phases: a product in a loop leaves early pieces to an earlier phase.

    Without that, ``concatenate(x, z) @ w`` of inputs x and recurrent spikes z would multiply x in the loop too, one
    step at a time.
    """
    split = _concatenated(eqn, producer, times) if phase.is_loop else None
    if split is not None:
        operand, pieces = split
        phases = [FIRST if isinstance(piece, Literal) else made.get(piece, FIRST) for piece in pieces]
        early = tuple(k for k, where in enumerate(phases) if where < phase)
        late = tuple(k for k, where in enumerate(phases) if where == phase)
        # The early pieces of all steps are one product before the loop; inside it only their sum is added.
        if early and late:
            first = PartialProduct(eqn, operand, pieces, early, None)
            yield first, max(where.outside_loops for where in phases if where < phase)
            yield PartialProduct(eqn, operand, pieces, late, first.writes[0]), phase
            return
    yield sparse_product(eqn, producer, times, in_loop=phase.is_loop) or Task(eqn), phase


def _concatenated(
    eqn: Equation, producer: Mapping[Var, Equation], times: BindingTimes
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
            isinstance(other, Literal) or times.is_static(other)
        ):
            return operand, tuple(source.invars)
    return None


def drop_unneeded(placed: Sequence[Placed], wanted: Sequence[Key]) -> list[Placed]:
    """The tasks that the wanted values depend on, and those with side effects.

    A concatenation whose product was split is read by nobody; run all the same, it would copy its pieces at every step.
    """
    keys, needed = set(wanted), []
    # Backward, so that a task whose only reader is dropped is dropped as well.
    for task, phase in reversed(placed):
        if task.equation.effects or keys.intersection(task.writes):
            keys.update(task.reads)
            needed.append((task, phase))
    return needed[::-1]


def move_out_of_loops(placed: Sequence[Placed], phase_of: PhaseOf) -> list[Placed]:
    """Moves what a loop computes only for later phases out of the loop: for all steps at once it is faster."""
    first_use: dict[Key, PhaseName] = {}

    def use(keys: Sequence[Key], phase: PhaseName) -> None:
        for key in keys:
            first_use[key] = min(first_use.get(key, phase), phase)

    for state, phase in phase_of.states:
        use(variables_of([state.after]), phase)
    moved = []
    # From the last task to the first, so that a task is seen after all that reads it.
    for task, phase in reversed(placed):
        earliest = min((first_use[key] for key in task.writes if key in first_use), default=phase)
        # A costly result is recorded in any case, so it gains nothing; moved, its operands would be recorded too.
        stays = not phase.is_loop or earliest == phase or task.equation.effects or is_costly(task.equation)
        phase = phase if stays else phase.next
        use(task.reads, phase)
        moved.append((task, phase))
    return moved[::-1]


def make_phases(placed: Sequence[Placed], phase_of: PhaseOf, recorded: Sequence[Var]) -> list[Phase]:
    """The phases in order, each with the values to keep of it at every step."""
    phases = []
    for name in sorted({name for _, name in placed} | {name for _, name in phase_of.states}):
        tasks = tuple(task for task, where in placed if where == name)
        carried = tuple(s for s, (_, where) in enumerate(phase_of.states) if where == name)
        # Only this is stored for every step. What a phase needs for itself lives for one step, in registers or cache.
        wanted = {key for task, where in placed if where > name for key in task.reads} | set(recorded)
        wanted |= {
            state.after for state, where in phase_of.states if where > name and not isinstance(state.after, Literal)
        }
        phases.append(Phase(name, tasks, carried, tuple(key for task in tasks for key in task.writes if key in wanted)))
    return phases
