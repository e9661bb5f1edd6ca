"""What a rewriting of a graph promises."""

from __future__ import annotations

import enum


class Promise(enum.IntEnum):
    """What a rewriting preserves, the strongest promise first."""

    BITWISE = 0
    """The same bits on every input."""
    ALGEBRAIC = 1
    """The same in real arithmetic; rounding may differ."""
    PROFILED = 2
    """The same on the calibration data."""
    APPROXIMATE = 3
    """Results may differ; the error is measured."""

    def __str__(self) -> str:
        return self.name.lower()
