"""Aligned plain text tables, which are the same on every terminal and in every file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], indent: str = "  ") -> list[str]:
    """The lines of a table with left-aligned columns, without columns that are empty in every row."""
    cells = [[str(cell) for cell in row] for row in rows]
    shown = [k for k in range(len(header)) if any(row[k] for row in cells)]
    lines = [[header[k] for k in shown], *([row[k] for k in shown] for row in cells)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(shown))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]
