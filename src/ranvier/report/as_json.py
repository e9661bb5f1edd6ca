"""The analyses of a program as plain dictionaries, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..program._jax import Var, dtype_of, shape_of
from ..program.analysis.explanations import opaque_diagnostics
from ..program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ..program.analysis.memory import RuleMemory
from ..program.analysis.relations import HiddenParamOpRelation, analyse_relations
from ..program.diagnostic import Diagnostic
from ..program.paths import Path
from ..program.program import ModuleInfo, Slot


def program_as_dict(info: ModuleInfo, memory: Sequence[RuleMemory]) -> dict[str, Any]:
    """Slots, groups, relations, diagnostics and the memory of rules, as dictionaries, lists, texts and numbers."""
    groups, relations = analyse_groups(info), analyse_relations(info)
    notes = [*info.notes, *groups.diagnostics, *relations.diagnostics, *opaque_diagnostics(info)]
    return {
        "name": info.name,
        "equations": len(info.equations),
        "inputs": [_aval(aval) for aval in info.input_avals],
        "outputs": [_aval(aval) for aval in info.output_avals],
        "hidden": [_slot(slot) for slot in info.hidden],
        "other": [_slot(slot) for slot in info.other],
        "parameters": [_slot(slot) for slot in info.parameters],
        "groups": [_group(group) for group in groups.groups],
        "relations": [_relation(relation) for relation in relations.relations],
        "diagnostics": [_diagnostic(note) for note in notes],
        "memory": [asdict(row) for row in memory],
    }


def _path(path: Path) -> list[str]:
    return [str(part) for part in path]


def _aval(aval: Any) -> dict[str, Any]:
    return {"shape": list(aval.shape), "dtype": str(aval.dtype)}


def _slot(slot: Slot) -> dict[str, Any]:
    return {
        "path": _path(slot.path),
        "kind": slot.label,
        "unit": slot.unit,
        "arrays": [_aval(leaf) for leaf in slot.leaves],
    }


def _group(group: HiddenGroup) -> dict[str, Any]:
    entries = group.transition.entries
    return {
        "index": group.index,
        "hidden_paths": [_path(path) for path in group.hidden_paths],
        "varshape": list(group.varshape),
        "num_state": group.num_state,
        "components": list(group.component_names),
        "D": [["0" if entry is None else str(entry) for entry in row] for row in entries],
    }


def _variable(info: ModuleInfo, var: Var) -> dict[str, Any]:
    return {"name": info.variable_names[var], "shape": list(shape_of(var)), "dtype": str(dtype_of(var))}


def _relation(relation: HiddenParamOpRelation) -> dict[str, Any]:
    info = relation._info
    return {
        "path": _path(relation.path),
        "kind": relation.kind,
        "reason": relation.reason,
        "x": [_variable(info, x) for x in relation.operation.xs],
        "y": _variable(info, relation.y),
        "hidden_groups": [group.index for group in relation.hidden_groups],
        "connected_hidden_paths": [_path(path) for path in relation.connected_hidden_paths],
        "indirect_groups": [group.index for group in relation.indirect_groups],
    }


def _diagnostic(note: Diagnostic) -> dict[str, Any]:
    return {
        "kind": note.kind.value,
        "message": note.message,
        "equation": note.equation,
        "paths": [_path(path) for path in note.paths],
    }
