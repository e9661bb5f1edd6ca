"""Which neurons an output can see, through weights that are not zero."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ...ir.graph.elements import Projection
from ...ir.graph.snn_graph import SNNGraph


def observable_neurons(graph: SNNGraph) -> dict[str, np.ndarray]:
    """By input and population, flat: whether the element's values can reach an output."""
    seen = {name: np.zeros(node.size, bool) for name, node in graph.nodes.items()}
    for name, node in graph.outputs.items():
        seen[name] = np.ones(node.size, bool)
    matrices = {p.name: _matrix(graph, p) for p in graph.projections.values()}
    waiting = list(graph.outputs)
    while waiting:
        target = waiting.pop()
        for projection in graph.into(target):
            source = projection.source
            targets = seen[target]
            if not _is_by_position(graph, target):
                targets = np.ones(prod(graph.target_shape(projection)), bool)
            read = _read_by(matrices[projection.name], targets)
            reached = seen[source] | (read if _is_by_position(graph, source) else read.any())
            if np.any(reached != seen[source]):
                seen[source] = reached
                if source in graph.populations and source not in waiting:
                    waiting.append(source)
    return {name: seen[name] for name in (*graph.inputs, *graph.populations)}


def _is_by_position(graph: SNNGraph, name: str) -> bool:
    """Whether the elements of a node are on their own; where not, all are seen if one is."""
    return name not in graph.populations or graph.populations[name].neuron.by_position


def _matrix(graph: SNNGraph, projection: Projection) -> Any:
    """A dense matrix as it is, others as sparse columns."""
    found = projection.operation.matrix(graph.source_shape(projection))
    return found.T.tocsr() != 0 if sparse.issparse(found) else found


def _read_by(matrix: Any, targets: np.ndarray) -> np.ndarray:
    """The sources that some targets read with a weight that is not zero."""
    if sparse.issparse(matrix):
        return (matrix @ targets.astype(np.int64)) > 0
    return matrix.any(axis=0) if targets.all() else matrix[targets].any(axis=0)
