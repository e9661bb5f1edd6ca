"""dead-code: populations and projections that no output can see."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.analysis.live_populations import observable
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes populations from which no projections lead to an output, whatever their weights (bitwise).

    Unused inputs stay, because they are part of the graph's interface.
    """

    name = "dead-code"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        seen = observable(graph)
        for name in [name for name in graph.populations if name not in seen]:
            size = graph.populations[name].size
            rewriting.remove_population(name)
            rewriting.did(name, f"removed the population, {size} neurons: no output can see it", Promise.BITWISE)
