"""Which neurons an output can see, through weights that are not zero."""

from __future__ import annotations

import numpy as np

from ...ir.graph.snn_graph import SNNGraph


def observable_neurons(graph: SNNGraph) -> dict[str, np.ndarray]:
    """By input and population, flat: whether the element's values can reach an output."""
    seen = {name: np.zeros(node.size, bool) for name, node in graph.nodes.items()}
    for name, node in graph.outputs.items():
        seen[name] = np.ones(node.size, bool)
    matrices = {p.name: p.operation.rows(graph.nodes[p.source].shape) for p in graph.projections.values()}
    columns = {name: rows.T.tocsr() for name, rows in matrices.items()}
    waiting = list(graph.outputs)
    while waiting:
        target = waiting.pop()
        for projection in graph.into(target):
            source = projection.source
            links = columns[projection.name] != 0
            reached = seen[source] | ((links @ seen[target].astype(np.int64)) > 0)
            if np.any(reached != seen[source]):
                seen[source] = reached
                if source in graph.populations and source not in waiting:
                    waiting.append(source)
    return {name: seen[name] for name in (*graph.inputs, *graph.populations)}
