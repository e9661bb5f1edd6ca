"""Options found by search: the strongest value of a pass that a budget allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ..errors import PassError
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration
from .base import Pass, Rewriting

AUTO = "auto"
"""The value of an option that is to be searched."""
TRIES = 8


@dataclass(frozen=True)
class AccuracyBudget:
    """How much a network may change.

    Attributes:
        limit: the largest loss of accuracy on the calibration data, in parts of one, where that has labels; otherwise
            the largest change of the outputs, root mean square, as a part of the outputs' own.
    """

    limit: float

    def cost(self, original: SNNGraph, calibration: Calibration) -> Callable[[SNNGraph], float]:
        """What a graph has lost against the original."""
        if calibration.labels is not None:
            accuracy = calibration.accuracy(original)
            return lambda graph: accuracy - calibration.accuracy(graph)
        before = calibration.simulation(original)
        return lambda graph: calibration.divergence(before, graph)


def is_searched(one: Pass) -> bool:
    """Whether an option of a pass is to be searched."""
    return any(isinstance(value, str) and value == AUTO for value in one.options.values())


def searched(
    one: Pass, graph: SNNGraph, original: SNNGraph, budget: AccuracyBudget | None, calibration: Calibration | None
) -> tuple[Pass, Rewriting]:
    """The pass with the strongest value that the budget allows, and what it made of the graph.

    The value is found by bisection, on the assumption that a stronger one costs more; what is returned was measured.

    Raises:
        PassError: the option cannot be searched, or there is no budget or no data to measure it on.
    """
    (option,) = (name for name, value in one.options.items() if isinstance(value, str) and value == AUTO)
    if option not in one.search:
        raise PassError(f"{one.name}: {option} cannot be searched; give it a value.")
    if budget is None or calibration is None:
        raise PassError(
            f"{one.name}{{{option}=auto}} needs data and a budget to search with: give calibration data, and a budget "
            "of 0.01, say (--calibration data.npz --budget 0.01)."
        )
    cost = budget.cost(original, calibration)
    weak, strong = one.search[option]
    best, tried = _attempt(one, option, weak, graph, calibration), []
    for _ in range(TRIES):
        value: Any = (weak + strong) / 2
        attempt = _attempt(one, option, value, graph, calibration)
        lost = cost(attempt[1].graph)
        tried.append((value, lost))
        if lost <= budget.limit:
            best, weak = attempt, value
        else:
            strong = value
    told = ", ".join(f"{value:.4g} costs {lost:.3g}" for value, lost in tried)
    best[1].missed(graph.name, f"searched {option} within a budget of {budget.limit:g}: {told}")
    return best


def _attempt(one: Pass, option: str, value: float, graph: SNNGraph, calibration: Calibration) -> tuple[Pass, Rewriting]:
    chosen = replace(one, **{option: value})
    return chosen, chosen.rewritten(graph, calibration)
