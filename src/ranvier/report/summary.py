"""What ``ranvier show`` prints: an overview of a model, as sections of aligned text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..program.analysis.explanations import opaque_diagnostics
from ..program.analysis.hidden_groups import analyse_groups
from ..program.analysis.memory import SYMBOLS, RuleMemory, batch_size, size_text
from ..program.analysis.relations import HiddenParamOpRelation, analyse_relations
from ..program.diagnostic import Diagnostic
from ..program.paths import path_text
from ..program.program import ModuleInfo, Slot
from ..util.table import table

Section = tuple[str, list[str]]


def summary(info: ModuleInfo, memory: Sequence[RuleMemory]) -> Iterator[Section]:
    """Titles and lines of the sections, in the order in which a newcomer reads them.

    Args:
        info: the program.
        memory: what each learning rule would store for it.
    """
    groups = analyse_groups(info)
    relations = analyse_relations(info)
    yield "Hidden states", _slots(info.hidden, {p: f"group {g.index}" for p, g in groups.group_of.items()})
    if info.other:
        yield "Other states, carried but not hidden", _slots(info.other, {})
    yield "Groups", "\n\n".join(str(group) for group in groups.groups).splitlines()
    yield "Relations", _relations(info, relations.relations)
    yield "Parameters without a relation", _diagnostics(relations.diagnostics)
    notes = [*info.notes, *groups.diagnostics, *opaque_diagnostics(info)]
    if notes:
        yield "Notes", _diagnostics(notes)
    batch = batch_size(info)
    per = f", for one sample of the batch of {batch}" if batch > 1 else ""
    yield f"Memory of each learning rule{per}", memory_lines(memory)


def _slots(slots: Sequence[Slot], belongs: dict) -> list[str]:
    rows = [
        (path_text(s.path), " ".join(str(leaf.dtype) for leaf in s.leaves), s.shapes_text, s.unit, s.label,
         belongs.get(s.path, ""))
        for s in slots
    ]  # fmt: skip
    return table(("name", "dtype", "shape", "unit", "kind", "group"), rows)


def _relations(info: ModuleInfo, relations: Sequence[HiddenParamOpRelation]) -> list[str]:
    if not relations:
        return ["  none: no parameter drives a hidden state"]
    rows = []
    for relation in relations:
        xs = " ".join(info.text(x) for x in relation.operation.xs)
        driven = ", ".join(map(path_text, relation.connected_hidden_paths)) or "same-step gradient only"
        rows.append((path_text(relation.path), relation.kind, xs, info.text(relation.y), driven))
    return table(("parameter", "kind", "x", "y", "drives"), rows)


def _diagnostics(diagnostics: Sequence[Diagnostic]) -> list[str]:
    if not diagnostics:
        return ["  none"]
    return [f"  {diagnostic}" for diagnostic in diagnostics]


def memory_lines(rows: Sequence[RuleMemory]) -> list[str]:
    """The table of memory, followed by the meaning of its symbols."""
    cells = [
        (row.rule, row.formula, row.numbers if len(row.numbers) <= 48 else row.numbers[:45] + "...",
         size_text(row.bytes) + (" · T" if row.grows else ""), f"{row.bytes / 2**20:.6f}")
        for row in rows
    ]  # fmt: skip
    lines = table(("rule", "keeps", "elements", "bytes per sample", "MiB"), cells)
    legend = [f"  {symbol}: {meaning}" for symbol, meaning in SYMBOLS.items()]
    return [*lines, "", *legend]
