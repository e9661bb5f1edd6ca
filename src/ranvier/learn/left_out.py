"""What a rule leaves out of the temporal part: what parameters do to later steps, minus what the rule carries.

It is computed from the program and from what the kernel carries; no rule declares it. Influence passes from a parameter
to a later loss in hops: from a use of the parameter to new states, then from old states to new ones, step by step, and
from there to the loss of the same step, which is always exact. Only hops into states that last
(:mod:`ranvier.program.analysis.lasting`) count. A rule with eligibility traces carries a hop if

- the use has a trace, and reaches the state position by position, or
- a trace follows the old state, and D has the entry that leads to the new one;

every other hop is listed once, at the equation where the trace stops. For ``y = x @ w; a' = 0.8 a + y; b' = 0.9 b +
tanh(y) @ u`` D_RTRL carries w -> a, a -> a, u -> b and b -> b, and lists w -> b through ``@ u``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, size_of
from ..program.analysis.detours import Detour, detours
from ..program.analysis.explanations import mixing_text
from ..program.analysis.hidden_groups import HiddenGroup, analyse_groups, element_positions
from ..program.analysis.lasting import lasting_states
from ..program.analysis.position_map import Maps
from ..program.analysis.reachability import bits_of, feeds_of, is_mixed, reach_by_gradient
from ..program.bodies import has_derivative
from ..program.paths import path_text
from ..program.program import ModuleInfo
from ..program.remade import Recipe, Remade
from .carried import Carried, EligibilityTrace, Everything, Influence, Traces
from .sensitivity.lost_elements import lost_elements
from .sensitivity.stepwise import StepFunctions
from .step.stages import stages_of
from .uses.traced_uses import entering_variables, slots_of

Cut = tuple[tuple[Equation, Var], ...]
"""Equations, each with an operand of it."""


@dataclass(frozen=True)
class LeftOut(Remade):
    """One path in time that a rule leaves out; pickled without its ``cut``, which belongs to a program.

    Attributes:
        kind: ``"untraced-parameter"``, ``"indirect-parameter"``, ``"mixed-path"``, ``"recurrent-projection"``,
            ``"projection"``, ``"positions-move"``, ``"state-broadcast"``, ``"state-through-other"``,
            ``"other-state-parameter"``, ``"dropped-entry"`` or ``"approximation"``.
        text: the path, for a person.
        parameters: indices of the parameters whose gradient lacks it.
        cut: the equations, with their operands, at which the path leaves what is carried; empty where there are none.
    """

    kind: str
    text: str
    parameters: frozenset[int]
    cut: Cut = field(default=(), compare=False, repr=False)

    def recipe(self) -> Recipe:
        return LeftOut, (self.kind, self.text, self.parameters)

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def left_out(info: ModuleInfo, carried: Carried) -> tuple[LeftOut, ...]:
    """The paths in time that are not carried, each once.

    Args:
        info: the program the rule learns with.
        carried: what the rule carries from step to step.
    """
    if isinstance(carried, Everything):
        return ()
    paths = _by_element(info, carried) if isinstance(carried, Influence) else _ByTrace(info, carried).paths()
    return merged(paths)


def merged(paths: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Every path once, for all the parameters that lack it."""
    once: dict[tuple[str, str], LeftOut] = {}
    for path in paths:
        known = once.setdefault((path.kind, path.text), path)
        cut = tuple(dict.fromkeys((*known.cut, *path.cut)))
        once[path.kind, path.text] = replace(known, parameters=known.parameters | path.parameters, cut=cut)
    return tuple(once.values())


# Rules with eligibility traces ------------------------------------------------------------------------------------


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
class _ByTrace:
    """The hops that eligibility traces do not carry."""

    info: ModuleInfo
    carried: Traces

    def paths(self) -> Iterator[LeftOut]:
        yield from self._of_uses()
        yield from self._through_mixing()
        yield from self._to_other_positions()
        yield from self._dropped_entries()
        yield from self._through_other_states()

    # What is followed

    @cached_property
    def uses(self) -> tuple[FollowedUse, ...]:
        """All uses of all parameters, in program order."""
        entering = set(entering_variables(self.info))
        uses = [
            self._use(atom, eqn, k)
            for eqn in stages_of(self.info).changing
            if has_derivative(eqn)
            for k, atom in enumerate(eqn.invars)
            if not isinstance(atom, Literal) and atom in entering and is_floating(dtype_of(atom))
        ]
        uses += [self._use(var, None, 0) for var in self.info.hidden_outvars if var in entering]
        return tuple(uses)

    def _use(self, variable: Var, eqn: Equation | None, operand: int) -> FollowedUse:
        applied = [t for t in self.carried.traces if t.term.operand is variable and eqn in t.term.equations]
        traces = applied or [t for t in self.carried.traces if t.term.operand is variable and not t.term.equations]
        # A trace by position does not follow what the reading equation itself mixes.
        if not applied and eqn is not None and is_mixed(feeds_of(self.info), eqn, operand):
            traces = []
        results = (variable,) if eqn is None else tuple(eqn.outvars)
        starts = (applied[0].term.y,) if applied else results
        return FollowedUse(variable, eqn, starts, tuple(traces), frozenset(slots_of(self.info, variable)))

    @cached_property
    def followed(self) -> dict[int, frozenset[int]]:
        """Index of every hidden state that traces follow to the parameters for which they do."""
        followed: dict[int, frozenset[int]] = {}
        for trace in self.carried.traces:
            for state in {state_of(trace, a) for a in trace.dynamics.reached(trace.lanes)}:
                followed[state] = followed.get(state, frozenset()) | frozenset(trace.term.slots)
        return followed

    def _parameters_at(self, states: Iterable[int]) -> frozenset[int]:
        return frozenset().union(*(self.followed.get(j, frozenset()) for j in states))

    # What is not

    def _of_uses(self) -> Iterator[LeftOut]:
        """States that a use reaches position by position, but that no trace of it follows."""
        for use in self.uses:
            missed = 0
            for var in use.starts:
                for (j, gradient), maps in feeds_of(self.info).of(var).items():
                    if gradient and (maps is None or not any(_enters(trace, j) for trace in use.traces)):
                        missed |= 1 << j
            missed &= lasting_states(self.info)
            if missed:
                text = f"{self._names(use.slots)}: no trace follows it into {self._states(missed)}"
                cut = () if use.equation is None else ((use.equation, use.variable),)
                yield LeftOut("untraced-parameter", f"{text}; same-step gradient only", use.slots, cut)

    def _through_mixing(self) -> Iterator[LeftOut]:
        """Ways of uses and of followed states into lasting states that pass a mixing operation."""
        hidden = len(self.info.hidden)
        own = set(self.info.hidden_outvars)
        states = list(zip(self.info.hidden_invars, self.info.hidden_outvars, strict=True))
        # A use that is itself the new value of a state goes on as a way of that state.
        starts = [tuple(var for var in use.starts if var not in own) for use in self.uses]
        for detour in detours(self.info, [*states, *starts], self.carried.readouts):
            targets = detour.targets & lasting_states(self.info) & (1 << hidden) - 1
            if not targets:
                continue
            numbers = bits_of(detour.sources)
            if entering := [j for j in numbers if j < hidden and j in self.followed]:
                yield self._projection(detour, entering, bits_of(targets))
            for n in numbers:
                if n >= hidden:
                    yield self._second_mixing(self.uses[n - hidden], detour, targets)

    def _second_mixing(self, use: FollowedUse, detour: Detour, targets: int) -> LeftOut:
        names, states = self._names(use.slots), self._states(targets)
        if use.traces:
            kind, text = "mixed-path", f"{names}: its trace holds the direct way, not the one into {states} through"
        else:
            kind, text = "indirect-parameter", f"{names}: between it and {states} stands another mixing operation,"
        text += f" {mixing_text(detour.equation)}; that way is in the same-step gradient only"
        return LeftOut(kind, text, use.slots, detour.cut)

    def _projection(self, detour: Detour, sources: Sequence[int], targets: Sequence[int]) -> LeftOut:
        group_of = [analyse_groups(self.info).group_of[slot.path].index for slot in self.info.hidden]
        into = sorted({group_of[j] for j in targets})
        recurrent = any(group_of[j] in into for j in sources)
        by = self._names(self._parameters_of(detour.equation)) or mixing_text(detour.equation)
        text = (
            f"{self._list(sources)} into group {', '.join(map(str, into))} through {by} (and what follows it in time)"
        )
        kind = "recurrent-projection" if recurrent else "projection"
        return LeftOut(kind, text, self._parameters_at(sources), detour.cut)

    def _parameters_of(self, eqn: Equation) -> frozenset[int]:
        """The parameters of the projection that an equation belongs to."""
        entering = set(entering_variables(self.info))
        operands = [a for a in eqn.invars if not isinstance(a, Literal) and a in entering]
        return frozenset(k for var in operands for k in slots_of(self.info, var))

    def _to_other_positions(self) -> Iterator[LeftOut]:
        """Ways of followed states, position by position, to positions that D does not hold."""
        lasting = lasting_states(self.info)
        for source in sorted(self.followed):
            for (target, gradient), maps in feeds_of(self.info).of(self.info.hidden_invars[source]).items():
                if not gradient or not lasting >> target & 1:
                    continue
                if not _stays_in_place(self._group(source), source, self._group(target), target, maps):
                    yield self._moved(source, target, maps)

    def _moved(self, source: int, target: int, maps: Maps) -> LeftOut:
        spread = maps is not None and size_of(self.info.hidden_outvars[target]) != size_of(
            self.info.hidden_invars[source]
        )
        kind = "state-broadcast" if spread else "positions-move"
        what = "feeds many positions of" if spread else "moves to other positions of"
        text = f"{self._list([source])} {what} {self._list([target])}, which D does not hold"
        return LeftOut(kind, text, self._parameters_at([source]))

    def _dropped_entries(self) -> Iterator[LeftOut]:
        """Entries of D that a rule's dynamics do without."""
        lasting = lasting_states(self.info)
        for trace in self.carried.traces:
            group, dynamics = trace.lanes.connection.group, trace.dynamics
            reached = set(dynamics.reached(trace.lanes))
            for a, b in sorted(group.transition.nonzero):
                if b in reached and (a, b) not in dynamics.entries and lasting >> state_of(trace, a) & 1:
                    names = group.component_names
                    text = f"{names[b]} to {names[a]}, an entry of D that the rule does without"
                    yield LeftOut("dropped-entry", text, frozenset(trace.term.slots))

    def _through_other_states(self) -> Iterator[LeftOut]:
        """Ways of uses and followed states into states that are not hidden."""
        reached, lasting = reach_by_gradient(self.info), lasting_states(self.info)
        for slots, kind, name, variables in self._sources_of_other_states():
            into = [k for k in self._others(variables, reached) if lasting >> len(self.info.hidden) + 1 + k & 1]
            if into:
                slot_of = [slot for slot in self.info.other for _ in slot.leaves]
                others = ", ".join(dict.fromkeys(path_text(slot_of[k].path) for k in into))
                text = (
                    f"{name} acts on later steps through {others}, which is no hidden state, so no trace follows it "
                    "there; make it one, or take the gradient to be without this path"
                )
                yield LeftOut(kind, text, slots)

    def _sources_of_other_states(self) -> Iterator[tuple[frozenset[int], str, str, tuple[Var, ...]]]:
        for j in sorted(self.followed):
            variables = (self.info.hidden_invars[j], self.info.hidden_outvars[j])
            yield self._parameters_at([j]), "state-through-other", self._list([j]), variables
        for use in self.uses:
            yield use.slots, "other-state-parameter", self._names(use.slots), use.starts

    @staticmethod
    def _others(variables: Iterable[Var], reached) -> list[int]:
        return sorted({k for var in variables for k in reached.other(var)})

    # Words

    def _group(self, state: int) -> HiddenGroup:
        return analyse_groups(self.info).group_of[self.info.hidden[state].path]

    def _states(self, mask: int) -> str:
        return self._list(bits_of(mask))

    def _list(self, states: Iterable[int]) -> str:
        return ", ".join(path_text(self.info.hidden[j].path) for j in states)

    def _names(self, slots: Iterable[int]) -> str:
        return ", ".join(path_text(self.info.parameters[k].path) for k in sorted(slots))


def state_of(trace: EligibilityTrace, component: int) -> int:
    """Index of the hidden state that a component of a trace's group belongs to."""
    group = trace.lanes.connection.group
    return group.state_indices[group.positions.components[component].state]


def _enters(trace: EligibilityTrace, state: int) -> bool:
    """Whether the trace has all of f into a state."""
    group = trace.lanes.connection.group
    if state not in group.state_indices:
        return False
    components = [a for a in range(group.num_state) if state_of(trace, a) == state]
    return set(components) <= set(trace.dynamics.uniform_f(trace.lanes))


def _stays_in_place(source_group: HiddenGroup, source: int, target_group: HiddenGroup, target: int, maps: Maps) -> bool:
    """Whether elements of one state feed elements of another at their own position of one group."""
    if source_group is not target_group or maps is None:
        return False
    from_position = element_positions(source_group, source_group.state_indices.index(source))
    to_position = element_positions(target_group, target_group.state_indices.index(target))
    for position_map in maps:
        index = position_map.indices(to_position.size)
        used = index >= 0
        if not np.array_equal(to_position[used], from_position[index[used]]):
            return False
    return True


def _by_element(info: ModuleInfo, influence: Influence) -> Iterator[LeftOut]:
    """What weights do to elements of the state that are not followed for them, by parameter."""
    functions = StepFunctions(info)
    if not influence.rows.size:
        return
    lost = lost_elements(info, functions, influence)
    for var, part in zip(functions.variables, np.split(lost, np.cumsum(functions.variable_sizes)[:-1]), strict=True):
        if elements := np.flatnonzero(part.any(axis=0)).tolist():
            slots = slots_of(info, var)
            names = ", ".join(path_text(info.parameters[k].path) for k in slots)
            states = ", ".join(dict.fromkeys(functions.state_names[k] for k in elements))
            text = f"what {names} does to {states} by way of elements that are not followed for it"
            yield LeftOut("approximation", text, frozenset(slots))
