"""Which neurons an output can see, and which an input can reach, through weights that are not zero."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..elements import Projection
from ..snn_graph import SNNGraph


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


def driven_elements(graph: SNNGraph) -> dict[str, np.ndarray]:
    """By population and output, flat: whether the values of an input can reach the element."""
    driven = {name: np.zeros(node.size, bool) for name, node in graph.nodes.items()}
    for name, node in graph.inputs.items():
        driven[name] = np.ones(node.size, bool)
    matrices = {p.name: _matrix(graph, p) for p in graph.projections.values()}
    waiting = list(graph.inputs)
    while waiting:
        source = waiting.pop()
        for projection in graph.out_of(source):
            target = projection.target
            sources = driven[source]
            if not _is_by_position(graph, source):
                sources = np.ones(prod(graph.source_shape(projection)), bool)
            reaching = _reached_by(matrices[projection.name], sources)
            reached = driven[target] | (reaching if _is_by_position(graph, target) else reaching.any())
            if np.any(reached != driven[target]):
                driven[target] = reached
                if target in graph.populations and target not in waiting:
                    waiting.append(target)
    return {name: driven[name] for name in (*graph.populations, *graph.outputs)}


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


def _reached_by(matrix: Any, sources: np.ndarray) -> np.ndarray:
    """The targets that some sources reach with a weight that is not zero."""
    if sparse.issparse(matrix):
        return (matrix.T @ sources.astype(np.int64)) > 0
    return matrix.any(axis=1) if sources.all() else matrix[:, sources].any(axis=1)
