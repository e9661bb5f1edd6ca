"""Which populations an output can see."""

from __future__ import annotations

from ..snn_graph import SNNGraph


def observable(graph: SNNGraph) -> frozenset[str]:
    """Names of the inputs and populations from which projections lead to an output."""
    sources: dict[str, list[str]] = {}
    for projection in graph.projections.values():
        sources.setdefault(projection.target, []).append(projection.source)
    reached: set[str] = set()
    waiting = list(graph.outputs)
    while waiting:
        for source in sources.get(waiting.pop(), []):
            if source not in reached:
                reached.add(source)
                waiting.append(source)
    return frozenset(reached)
