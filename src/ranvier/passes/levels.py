"""Optimization levels: pipelines by name."""

from __future__ import annotations

from ..errors import PassError
from .base import Pass
from .pipeline import parse_pipeline

EXACT = "canonicalize,fold-constants,dead-code,dead-neurons,connections,merge-neurons,fuse,common-projections"
MEASURED = EXACT.replace("dead-neurons", "dead-neurons{threshold=0}")
MERGED = f"{MEASURED},merge-neurons{{similarity=auto}}"
APPROXIMATE = "O3"
"""The level with approximate passes."""
SIZE = f"{MERGED},prune{{sparsity=auto,method=saliency,scope=global}}"
LEVELS = {"O0": "", "O1": EXACT, "O2": MEASURED, APPROXIMATE: SIZE}
"""O1: bitwise and algebraic passes. O2: also profiled ones, if the graph has been profiled. O3: also approximate ones,
as strong as a budget allows."""
GOALS = {
    # Products are the time, and a matrix with holes is not multiplied faster until hardly anything is left of it. A
    # smaller matrix is. So whole neurons go.
    "time": f"{MERGED},prune{{sparsity=auto,method=saliency,scope=global,structured=true}}",
    "size": SIZE,
    "synops": f"{MERGED},prune{{sparsity=auto,method=saliency,scope=global,per=synops}}",
}
"""What O3 spends the budget on: the time of products, the bytes of weights, or the number of synaptic operations, which
event-driven hardware counts."""


def level_passes(level: str, goal: str | None = None) -> list[Pass]:
    """The passes of a level, and of what it spends a budget on.

    Raises:
        PassError: there is no such level or goal, or the level has no budget to spend.
    """
    if level not in LEVELS:
        raise PassError(f"there is no level {level!r}; the levels are {', '.join(LEVELS)}.")
    if goal is not None and goal not in GOALS:
        raise PassError(f"there is no goal {goal!r}; the goals are {', '.join(GOALS)}.")
    if goal is not None and level != APPROXIMATE:
        raise PassError(f"goal={goal!r} is what {APPROXIMATE} spends its budget on; level {level} has none.")
    text = LEVELS[level] if goal is None else GOALS[goal]
    return parse_pipeline(text) if text else []
