"""How inputs, populations and outputs are wired: the model as a graph of projections.

In ``v' = 0.9 v + x @ w + (v > 1) @ u; out = v' @ o`` with v as group 0 there are three wires: input 0 to group 0
through w, group 0 to itself through u with a delay of one step, and group 0 to output 0 through o without delay, for
the output reads the new value. The decay 0.9 v is no wire; it happens inside the group.

Wires are walked backward from a group's new values, or from an output, until an input, an old state or another group's
new state is met. A walk remembers the last projection it has come through, and whether there was another one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    finder = _WireFinder(info)
    wires: dict[Wire, None] = {}
    for group in analyse_groups(info).groups:
        wires.update(dict.fromkeys(finder.into(("group", group.index), group.hidden_outvars)))
    for k, atom in enumerate(info.output_outvars):
        if not isinstance(atom, Literal):
            wires.update(dict.fromkeys(finder.into(("output", k), [atom])))
    return list(wires)


class _WireFinder:
    def __init__(self, info: ModuleInfo) -> None:
        self.info = info
        self.levels = binding_times_of(info)
        groups = analyse_groups(info).groups
        self.old = {var: ("group", g.index) for g in groups for var in g.hidden_invars}
        self.new = {var: ("group", g.index) for g in groups for var in g.hidden_outvars}
        self.inputs = {var: ("input", k) for k, var in enumerate(info.input_invars)}
        self.operation_at = {id(eqn): op for op in parameter_uses_of(info) for eqn in op.equations}

    def into(self, target: Node, variables: Sequence[Var]) -> Iterable[Wire]:
        """Wires that end in the node which computes these variables."""
        starts = set(variables) if target[0] == "group" else set()
        queue: list[tuple[Var, ParameterUse | Equation | None, bool]] = [(var, None, False) for var in variables]
        seen: set[tuple[Var, int, bool]] = set()
        while queue:
            var, through, gated = queue.pop(0)
            key = (var, id(through), gated)
            if key in seen:
                continue
            seen.add(key)
            source = self._source(var, var in starts and through is None)
            if source is not None:
                # What a group does to itself without a projection is its dynamics.
                if source[0] != target or through is not None:
                    yield self._wire(source, target, through, gated)
                continue
            eqn = self.levels.producers.get(var)
            if eqn is not None:
                queue += self._operands(eqn, through, gated)

    def _source(self, var: Var, is_start: bool) -> tuple[Node, int] | None:
        if var in self.inputs:
            return self.inputs[var], 0
        if var in self.old:
            return self.old[var], 1
        if var in self.new and not is_start:
            return self.new[var], 0
        return None

    def _operands(
        self, eqn: Equation, through: ParameterUse | Equation | None, gated: bool
    ) -> list[tuple[Var, ParameterUse | Equation | None, bool]]:
        # The equations of one use are one projection: its bias, and the parts of a low-rank product.
        mixing = classify(eqn) in (Kind.MIXING, Kind.OPAQUE) or id(eqn) in self.operation_at
        here = self.operation_at.get(id(eqn), eqn) if mixing else None
        # The wire is named for the projection at its target; a second one farther back only gates it.
        if here is not None and through is not None and here is not through:
            following, gated = through, True
        else:
            following = through if through is not None else here
        return [
            (atom, following, gated)
            for atom in eqn.invars
            if not isinstance(atom, Literal) and not self.levels.is_static(atom)
        ]

    def _wire(
        self, source: tuple[Node, int], target: Node, through: ParameterUse | Equation | None, gated: bool
    ) -> Wire:
        node, delay = source
        if through is None:
            return Wire(node, target, "direct", (), (), delay, gated)
        if isinstance(through, ParameterUse):
            paths = tuple(self.info.parameters[slot].path for slot in sorted(through.slots))
            shapes = tuple(shape_of(var) for var in through.operands if len(shape_of(var)) > 1) or tuple(
                shape_of(var) for var in through.operands
            )
            return Wire(node, target, through.kind.value, paths, shapes, delay, gated)
        label = rule_of(through.primitive).operation or UseKind.OTHER.value
        return Wire(node, target, f"fixed {label}", (), (), delay, gated)
