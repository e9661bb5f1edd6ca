"""Why each parameter is, or is not, related to each group."""

# An example: h = tanh(x @ w + h @ r) and y = softmax(h @ u). The parameters w and r are related to the group of h. For
# u the explanation of the group says that there is no path within the step, and then that u reaches the outputs.

from __future__ import annotations

from collections.abc import Sequence

from ..program._jax import Literal, Var
from ..program.analysis.explanations import equation_text, opaque_diagnostics
from ..program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ..program.analysis.reachability import Reaches, reach_by_any, reach_by_gradient, reach_onward
from ..program.analysis.relations import Connection, HiddenParamOpRelation, analyse_relations
from ..program.nested import classify
from ..program.paths import Path, path_text
from ..program.primitives import Kind
from ..program.program import ModuleInfo, Slot


def explain_program(info: ModuleInfo) -> str:
    """A text with one entry per parameter, and in each one line per group: whether they are related, and why."""
    groups = analyse_groups(info).groups
    explainer = _Explainer(info, groups)
    lines = [_group_line(group) for group in groups]
    for slot in info.parameters:
        lines += ["", f"{path_text(slot.path)} {slot.shapes_text}"]
        lines += [f"  group {group.index}: {explainer.line(slot, group)}" for group in groups]
        lines += [f"  {line}" for line in explainer.results(slot)]
    notes = [*info.notes, *analyse_groups(info).diagnostics, *opaque_diagnostics(info)]
    if notes:
        lines += ["", *(str(note) for note in notes)]
    return "\n".join(lines)


def _group_line(group: HiddenGroup) -> str:
    return f"group {group.index}: {', '.join(map(path_text, group.hidden_paths))}"


class _Explainer:
    def __init__(self, info: ModuleInfo, groups: Sequence[HiddenGroup]) -> None:
        self.info = info
        self.groups = groups
        self.analysis = analyse_relations(info)
        self.connections: dict[tuple[Path, int], list[tuple[HiddenParamOpRelation, Connection]]] = {}
        for relation in self.analysis.relations:
            for connection in relation.connections:
                key = relation.path, connection.group.index
                self.connections.setdefault(key, []).append((relation, connection))
        self.direct = reach_by_gradient(info)
        self.onward = reach_onward(info)
        self.anyhow = reach_by_any(info)

    def line(self, slot: Slot, group: HiddenGroup) -> str:
        """Whether a parameter is related to a group, and why. Each answer is tried before the next weaker one."""
        related = self.connections.get((slot.path, group.index))
        if related:
            parts = [
                f"{relation.kind} ({relation.reason}), drives {', '.join(map(path_text, connection.hidden_paths))}"
                for relation, connection in related
            ]
            return "related: " + "; ".join(parts)
        leaves = self.info.weight_path_to_invars[slot.path]
        if self._reaches(self.direct, leaves, group):
            between = self._last_mixing(leaves, group)
            through = f", {between}," if between else ""
            return f"no trace: a mixing operation{through} is in between; same-step gradient only"
        if self._reaches(self.onward, leaves, group):
            others = [g for g in self.groups if g is not group and self._reaches(self.direct, leaves, g)]
            names = ", ".join(f"group {g.index}" for g in others)
            return f"not related: reached only through the new states of {names}, whose learning signal holds it"
        if self._reaches(self.anyhow, leaves, group):
            return "not related: every path ends in stop_gradient, a comparison, an integer or an opaque equation"
        return "not related: no path within the step"

    def results(self, slot: Slot) -> list[str]:
        """What a parameter reaches besides groups, and diagnostics about it."""
        leaves = self.info.weight_path_to_invars[slot.path]
        lines = []
        if any(self.direct.outputs(var) for var in leaves):
            lines.append("outputs: reached in the same step, not through a hidden state")
        lines += [f"{d.kind.value}: {d.message}" for d in self.analysis.diagnostics if slot.path in d.paths]
        return lines

    @staticmethod
    def _reaches(reached: Reaches, leaves: Sequence[Var], group: HiddenGroup) -> bool:
        wanted = set(group.state_indices)
        return any(wanted & set(reached.hidden(var)) for var in leaves)

    def _last_mixing(self, leaves: Sequence[Var], group: HiddenGroup) -> str | None:
        """The last mixing equation on the way to the group, as text; None if there is none."""
        influenced, text = set(leaves), None
        for eqn in self.info.equations:
            if any(not isinstance(a, Literal) and a in influenced for a in eqn.invars):
                influenced.update(eqn.outvars)
                if classify(eqn) is Kind.MIXING and self._reaches(self.direct, eqn.outvars, group):
                    text = equation_text(eqn)
        return text
