"""The order of operations inside a time step.

1. Inputs have their values.
2. One population after the other, each after the sources of its projections without delay: the projections into it are
   summed in the order of the graph, the neurons update their states and give their output. A projection with delay d
   brings what its source gave d steps ago.
3. Outputs sum what their projections bring.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from .snn_graph import SNNGraph


def update_order(graph: SNNGraph) -> list[str]:
    """Names of the populations in the order in which they are updated.

    Raises:
        graphlib.CycleError: projections without delay form a cycle.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(graph.populations, ()))
    for projection in graph.projections.values():
        ends = (projection.target, projection.source)
        if projection.delay == 0 and all(end in graph.populations for end in ends):
            sorter.add(*ends)
    return list(sorter.static_order())


def instant_cycle(graph: SNNGraph) -> list[str] | None:
    """Names along a cycle of projections without delay, in the direction of the projections; None if there is none."""
    try:
        update_order(graph)
    except CycleError as error:
        return list(error.args[1])
    return None
