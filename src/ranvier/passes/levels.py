"""Optimization levels: pipelines by name."""

from __future__ import annotations

from ..errors import PassError
from .base import Pass
from .pipeline import parse_pipeline

EXACT = "canonicalize,fold-constants,dead-code,dead-neurons,connections,merge-neurons,fuse,common-projections"
MEASURED = EXACT.replace("dead-neurons", "dead-neurons{threshold=0}")
LEVELS = {
    "O0": "",
    "O1": EXACT,
    "O2": MEASURED,
    "O3": f"{MEASURED},merge-neurons{{similarity=auto}},prune{{sparsity=auto,method=saliency,scope=global}}",
}
"""O1: bitwise and algebraic passes. O2: also profiled ones, if the graph has been profiled. O3: also approximate ones,
as strong as a budget allows."""


def level_passes(level: str) -> list[Pass]:
    """The passes of a level.

    Raises:
        PassError: there is no such level; the message lists the levels.
    """
    if level not in LEVELS:
        raise PassError(f"there is no level {level!r}; the levels are {', '.join(LEVELS)}.")
    return parse_pipeline(LEVELS[level]) if LEVELS[level] else []
