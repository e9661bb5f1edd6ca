"""How inputs, populations and outputs are wired: the model as a graph of projections.

In ``v' = 0.9 v + x @ w + (v > 1) @ u; out = v' @ o`` with v as group 0 there are three wires: input 0 to group 0
through w, group 0 to itself through u with a delay of one step, and group 0 to output 0 through o without delay, for
the output reads the new value. The decay 0.9 v is no wire; it happens inside the group.

Wires are walked backward from a group's new values, or from an output, until an input, an old state or another group's
new state is met. A walk remembers the last projection it has come through, and whether there was another one before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from .._jax import Equation, Literal, Var, shape_of
from ..nested import classify
from ..paths import Path
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from .binding_time import binding_times_of
from .cache import cached_by_program
from .hidden_groups import analyse_groups
from .parameter_use import ParameterUse, UseKind
from .parameter_uses import parameter_uses_of

Node = tuple[str, int]
"""("input", k), ("group", k) or ("output", k)."""


@dataclass(frozen=True)
class Wire:
    """A connection between two nodes.

    Attributes:
        source: where it starts.
        target: where it ends.
        kind: the projection's kind, ``"direct"`` where nothing mixes in between.
        parameters: names of the parameters of the projection, empty for a fixed one.
        shapes: shapes of what the projection applies to the data.
        delay: 0 where the source's value of this step is used, 1 for that of the previous step.
        gated: True where another mixing operation of the same step stands between source and target.
    """

    source: Node
    target: Node
    kind: str
    parameters: tuple[Path, ...]
    shapes: tuple[tuple[int, ...], ...]
    delay: int
    gated: bool


@cached_by_program
def wiring_of(info: ModuleInfo) -> list[Wire]:
    """All wires of a program, without repetition, targets in order."""
    ends = _Ends(info)
    wires: dict[Wire, None] = {}
    for group in analyse_groups(info).groups:
        wires.update(dict.fromkeys(_wires_into(ends, ("group", group.index), group.hidden_outvars)))
    for k, atom in enumerate(info.output_outvars):
        if not isinstance(atom, Literal):
            wires.update(dict.fromkeys(_wires_into(ends, ("output", k), [atom])))
    return list(wires)


Mixing = ParameterUse | Equation
"""A use of parameters, or a mixing equation without any."""


@dataclass(frozen=True, eq=False)
class _Walk:
    """Where a walk backward stands.

    Attributes:
        var: the variable that it has come to.
        through: the projection that it came through, the one nearest to the target; None so far.
        gated: whether it came through another projection as well.
    """

    var: Var
    through: Mixing | None = None
    gated: bool = False


class _Ends:
    """The nodes of a program's variables, and the projections of its equations."""

    def __init__(self, info: ModuleInfo) -> None:
        self.info = info
        self.binding_times = binding_times_of(info)
        groups = analyse_groups(info).groups
        self.old: dict[Var, Node] = {var: ("group", g.index) for g in groups for var in g.hidden_invars}
        self.new: dict[Var, Node] = {var: ("group", g.index) for g in groups for var in g.hidden_outvars}
        self.inputs: dict[Var, Node] = {var: ("input", k) for k, var in enumerate(info.input_invars)}
        self.use_at = {id(eqn): use for use in parameter_uses_of(info) for eqn in use.equations}

    def source(self, walk: _Walk, starts: Collection[Var]) -> tuple[Node, int] | None:
        """The node that a walk ends at, with its delay in steps; None where it goes on."""
        if walk.var in self.inputs:
            return self.inputs[walk.var], 0
        if walk.var in self.old:
            return self.old[walk.var], 1
        # A walk starts at the new values of its target and leaves them first; later it may come back to them.
        if walk.var in self.new and (walk.through is not None or walk.var not in starts):
            return self.new[walk.var], 0
        return None

    def projection(self, eqn: Equation) -> Mixing | None:
        """The projection that an equation is part of; all equations of one use, such as its bias, are one."""
        if id(eqn) in self.use_at:
            return self.use_at[id(eqn)]
        return eqn if classify(eqn) in (Kind.MIXING, Kind.OPAQUE) else None


def _wires_into(ends: _Ends, target: Node, variables: Sequence[Var]) -> Iterator[Wire]:
    """Wires that end in the node which computes these variables."""
    starts = set(variables) if target[0] == "group" else set()
    queue = deque(map(_Walk, variables))
    seen: set[tuple[Var, int, bool]] = set()
    while queue:
        walk = queue.popleft()
        key = (walk.var, id(walk.through), walk.gated)
        if key in seen:
            continue
        seen.add(key)
        source = ends.source(walk, starts)
        if source is None:
            queue.extend(_steps_back(ends, walk))
        # What a group does to itself without a projection is its dynamics.
        elif source[0] != target or walk.through is not None:
            yield _wire(ends.info, *source, target, walk)


def _steps_back(ends: _Ends, walk: _Walk) -> list[_Walk]:
    """The walk, gone on to every operand that changes of the equation that computes its variable."""
    eqn = ends.binding_times.producers.get(walk.var)
    if eqn is None:
        return []
    here = ends.projection(eqn)
    # The wire is named for the projection at its target; a second one farther back only gates it.
    gated = walk.gated or (here is not None and walk.through is not None and here is not walk.through)
    through = here if walk.through is None else walk.through
    changing = [a for a in eqn.invars if not isinstance(a, Literal) and not ends.binding_times.is_static(a)]
    return [_Walk(var, through, gated) for var in changing]


def _wire(info: ModuleInfo, source: Node, delay: int, target: Node, walk: _Walk) -> Wire:
    through, gated = walk.through, walk.gated
    if through is None:
        return Wire(source, target, "direct", (), (), delay, gated)
    if isinstance(through, ParameterUse):
        paths = tuple(info.parameters[slot].path for slot in sorted(through.slots))
        shapes = tuple(map(shape_of, through.operands))
        # The shapes of weights say more than those of their biases.
        matrices = tuple(shape for shape in shapes if len(shape) > 1)
        return Wire(source, target, through.kind.value, paths, matrices or shapes, delay, gated)
    label = rule_of(through.primitive).operation or UseKind.OTHER.value
    return Wire(source, target, f"fixed {label}", (), (), delay, gated)
