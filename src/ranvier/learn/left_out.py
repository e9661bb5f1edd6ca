"""What a rule leaves out of the temporal part: what parameters do to later steps, minus what the rule carries.

It is computed from the program and from what the kernel carries; no rule declares it. The path from a parameter to a
later loss is made up of paths within one step: from a use of the parameter to new states, then from old states to new
ones, step by step, and from there to the loss of the same step, which is always exact. Only paths into states that last
(:mod:`ranvier.program.analysis.lasting`) count. A rule with eligibility traces carries a path within a step if

- the use has a trace, and reaches the state position by position, or
- a trace follows the old state, and D has the entry that leads to the new one;

every other path is listed once, at the equation where the trace stops. For ``y = x @ w; a' = 0.8 a + y; b' = 0.9 b +
tanh(y) @ u`` D_RTRL carries w -> a, a -> a, u -> b and b -> b, and lists w -> b through ``@ u``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..program._jax import Equation, Literal, Var, size_of
from ..program.analysis.explanations import mixing_text
from ..program.analysis.hidden_groups import HiddenGroup, analyse_groups, element_positions
from ..program.analysis.lasting import lasting_states
from ..program.analysis.mixed_paths import MixedPath, mixed_paths
from ..program.analysis.position_map import Maps
from ..program.analysis.reachability import bits_of, feeds_of, reach_by_gradient
from ..program.paths import path_text
from ..program.program import ModuleInfo
from ..program.remade import Recipe, Remade
from .carried import Carried, Everything, Influence, Traces
from .followed import Followed, FollowedUse, enters, followed_by, state_of
from .sensitivity.lost_elements import lost_elements
from .sensitivity.stepwise import StepFunctions
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
    """The paths in time that a rule does not carry, each once.

    Args:
        info: the program the rule learns with.
        carried: what the rule carries from step to step.
    """
    if isinstance(carried, Everything):
        return ()
    paths = _by_element(info, carried) if isinstance(carried, Influence) else _by_trace(info, carried)
    return merged(paths)


def merged(paths: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """The paths without duplicates, each with all the parameters whose gradients lack it."""
    once: dict[tuple[str, str], LeftOut] = {}
    for path in paths:
        known = once.setdefault((path.kind, path.text), path)
        cut = tuple(dict.fromkeys((*known.cut, *path.cut)))
        once[path.kind, path.text] = replace(known, parameters=known.parameters | path.parameters, cut=cut)
    return tuple(once.values())


# Rules with eligibility traces ------------------------------------------------------------------------------------


def _by_trace(info: ModuleInfo, carried: Traces) -> Iterator[LeftOut]:
    """The paths that eligibility traces do not carry."""
    followed = followed_by(info, carried)
    yield from _past_traces(followed)
    yield from _through_mixing(followed)
    yield from _to_other_positions(followed)
    yield from _dropped_entries(followed)
    yield from _through_other_states(followed)


def _past_traces(followed: Followed) -> Iterator[LeftOut]:
    """States that a use reaches position by position, but that no trace of it follows."""
    info = followed.info
    for use in followed.uses:
        missed = 0
        for var in use.starts:
            for (j, gradient), maps in feeds_of(info).of(var).items():
                # Without maps the path goes through a mixing operation, which no f covers.
                if gradient and (maps is None or not any(enters(trace, j) for trace in use.traces)):
                    missed |= 1 << j
        # A state that the next step does not read takes nothing on, so nothing is lost in it.
        missed &= lasting_states(info)
        if missed:
            text = f"{_names(info, use.slots)}: no trace follows it into {_states(info, bits_of(missed))}"
            cut = () if use.equation is None else ((use.equation, use.variable),)
            yield LeftOut("untraced-parameter", f"{text}; same-step gradient only", use.slots, cut)


def _through_mixing(followed: Followed) -> Iterator[LeftOut]:
    """Paths from uses and followed states into lasting states through a mixing operation."""
    info = followed.info
    num_hidden = len(info.hidden)
    new_states = set(info.hidden_outvars)
    states = list(zip(info.hidden_invars, info.hidden_outvars, strict=True))
    # A use that is the new value of a state acts on later steps through that state.
    starts = [tuple(var for var in use.starts if var not in new_states) for use in followed.uses]
    # One search for all: sources below num_hidden are states, the others are uses.
    for path in mixed_paths(info, [*states, *starts], followed.carried.readouts):
        targets = bits_of(path.targets & lasting_states(info) & (1 << num_hidden) - 1)
        if not targets:
            continue
        sources = bits_of(path.sources)
        # One line for all followed states that pass the same equation, and one for each use: a use may lack more than
        # what its state lacks.
        if entering := [j for j in sources if j < num_hidden and j in followed.states]:
            yield _projection(followed, path, entering, targets)
        for k in sources:
            if k >= num_hidden:
                yield _second_mixing(info, followed.uses[k - num_hidden], path, targets)


def _second_mixing(info: ModuleInfo, use: FollowedUse, path: MixedPath, targets: Sequence[int]) -> LeftOut:
    names, states = _names(info, use.slots), _states(info, targets)
    if use.traces:
        kind = "mixed-path"
        text = f"{names}: its trace covers the direct path, not the one into {states} through"
    else:
        kind = "indirect-parameter"
        text = f"{names}: reaches {states} only through another mixing operation,"
    text += f" {mixing_text(path.equation)}; that path is in the same-step gradient only"
    return LeftOut(kind, text, use.slots, path.cut)


def _projection(followed: Followed, path: MixedPath, sources: Sequence[int], targets: Sequence[int]) -> LeftOut:
    info = followed.info
    into = sorted({_group_of(info, j).index for j in targets})
    # Within a group it is the recurrent projection, by name the best-known approximation of rules by position.
    recurrent = any(_group_of(info, j).index in into for j in sources)
    by = _names(info, _parameters_of(info, path.equation)) or mixing_text(path.equation)
    groups = ", ".join(map(str, into))
    text = f"{_states(info, sources)} into group {groups} through {by} (and what follows it in time)"
    kind = "recurrent-projection" if recurrent else "projection"
    return LeftOut(kind, text, followed.parameters_at(sources), path.cut)


def _parameters_of(info: ModuleInfo, eqn: Equation) -> frozenset[int]:
    """The parameters of the projection that an equation belongs to."""
    entering = set(entering_variables(info))
    operands = [a for a in eqn.invars if not isinstance(a, Literal) and a in entering]
    return frozenset(k for var in operands for k in slots_of(info, var))


def _to_other_positions(followed: Followed) -> Iterator[LeftOut]:
    """Paths of followed states, position by position, to positions that D does not cover."""
    info = followed.info
    lasting = lasting_states(info)
    for source in sorted(followed.states):
        for (target, gradient), maps in feeds_of(info).of(info.hidden_invars[source]).items():
            # A roll of the neurons, say, is elementwise to JAX, but D has entries from a position to itself only.
            if gradient and lasting >> target & 1 and not _stays_in_place(info, source, target, maps):
                yield _moved(followed, source, target, maps)


def _moved(followed: Followed, source: int, target: int, maps: Maps) -> LeftOut:
    info = followed.info
    differ = size_of(info.hidden_outvars[target]) != size_of(info.hidden_invars[source])
    spread = maps is not None and differ
    kind = "state-broadcast" if spread else "positions-move"
    verb = "feeds many positions of" if spread else "moves to other positions of"
    text = f"{_states(info, [source])} {verb} {_states(info, [target])}, which D does not cover"
    return LeftOut(kind, text, followed.parameters_at([source]))


def _dropped_entries(followed: Followed) -> Iterator[LeftOut]:
    """Entries of D that a rule's dynamics drop."""
    lasting = lasting_states(followed.info)
    for trace in followed.carried.traces:
        group, dynamics = trace.lanes.connection.group, trace.dynamics
        reached = set(dynamics.reached(trace.lanes))
        entries = group.transition.entries
        for a, b in sorted(group.transition.nonzero):
            # D of the model minus D of the rule: a three-factor rule has its filter's entry only.
            missing = entries[a][b] is not None and (a, b) not in dynamics.entries
            if b in reached and missing and lasting >> state_of(trace, a) & 1:
                names = group.component_names
                text = f"{names[b]} to {names[a]}, an entry of D that the rule drops"
                yield LeftOut("dropped-entry", text, frozenset(trace.use.slots))


def _through_other_states(followed: Followed) -> Iterator[LeftOut]:
    """Paths from uses and followed states into states that are not hidden."""
    info = followed.info
    reached = reach_by_gradient(info)
    # In the masks the other states come after the hidden ones and one bit for the outputs.
    lasting = lasting_states(info) >> len(info.hidden) + 1
    slot_of_leaf = [slot for slot in info.other for _ in slot.leaves]
    for slots, kind, name, variables in _sources_of_other_states(followed):
        leaves = sorted({k for var in variables for k in reached.other(var) if lasting >> k & 1})
        if leaves:
            others = ", ".join(dict.fromkeys(path_text(slot_of_leaf[k].path) for k in leaves))
            text = (
                f"{name} acts on later steps through {others}, which is not a hidden state, so no trace follows it "
                "there; make it one, or accept a gradient without this path"
            )
            yield LeftOut(kind, text, slots)


def _sources_of_other_states(followed: Followed) -> Iterator[tuple[frozenset[int], str, str, tuple[Var, ...]]]:
    info = followed.info
    for j in sorted(followed.states):
        variables = (info.hidden_invars[j], info.hidden_outvars[j])
        yield followed.parameters_at([j]), "state-through-other", _states(info, [j]), variables
    for use in followed.uses:
        yield use.slots, "other-state-parameter", _names(info, use.slots), use.starts


def _group_of(info: ModuleInfo, state: int) -> HiddenGroup:
    return analyse_groups(info).group_of[info.hidden[state].path]


def _states(info: ModuleInfo, states: Iterable[int]) -> str:
    return ", ".join(path_text(info.hidden[j].path) for j in states)


def _names(info: ModuleInfo, slots: Iterable[int]) -> str:
    return ", ".join(path_text(info.parameters[k].path) for k in sorted(slots))


def _stays_in_place(info: ModuleInfo, source: int, target: int, maps: Maps) -> bool:
    """Whether elements of one state feed elements of another at their own position of one group."""
    source_group, target_group = _group_of(info, source), _group_of(info, target)
    # Position 3 of one group and position 3 of another are not the same neuron.
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


# Rules that carry the whole influence ------------------------------------------------------------------------------


def _by_element(info: ModuleInfo, influence: Influence) -> Iterator[LeftOut]:
    """Effects of weights on elements of the state that the rule does not follow for them, by parameter."""
    functions = StepFunctions(info)
    if not influence.rows.size:
        return
    lost = lost_elements(info, functions, influence)
    for var, part in zip(functions.variables, np.split(lost, np.cumsum(functions.variable_sizes)[:-1]), strict=True):
        if elements := np.flatnonzero(part.any(axis=0)).tolist():
            slots = slots_of(info, var)
            names = _names(info, slots)
            states = ", ".join(dict.fromkeys(functions.state_names[k] for k in elements))
            text = f"the effect of {names} on {states} through elements that the rule does not follow for it"
            yield LeftOut("approximation", text, frozenset(slots))
