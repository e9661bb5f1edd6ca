"""Which neurons an output can see, and which an input can reach, through weights that are not zero."""

# An example: an input x drives the neurons a, b, c with weights 1, 0, 2; the synapses a -> b and b -> c have weight 1;
# the output reads a with weight 3, b and c with weight 0.
#
#   backward from the output   a; then x, since a reads x. b and c are never seen: a reads neither of them.
#   forward from the input     a and c; then b through a. All three are driven.

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..elements import Projection
from ..snn_graph import SNNGraph


def observable_neurons(graph: SNNGraph) -> dict[str, np.ndarray]:
    """By input and population, bool ``[size]``: whether the values of the element can reach an output."""
    reached = _reached(graph, graph.outputs, _Direction.BACKWARD)
    return {name: reached[name] for name in (*graph.inputs, *graph.populations)}


def driven_elements(graph: SNNGraph) -> dict[str, np.ndarray]:
    """By population and output, bool ``[size]``: whether the values of an input can reach the element."""
    reached = _reached(graph, graph.inputs, _Direction.FORWARD)
    return {name: reached[name] for name in (*graph.populations, *graph.outputs)}


class _Direction(Enum):
    """The way in which projections are followed."""

    FORWARD = "from source to target"
    BACKWARD = "from target to source"

    def ends(self, projection: Projection) -> tuple[str, str]:
        """The near and the far end of a projection."""
        source, target = projection.source, projection.target
        return (source, target) if self is _Direction.FORWARD else (target, source)

    def near_size(self, graph: SNNGraph, projection: Projection) -> int:
        """The number of elements that the projection has at its near end."""
        return prod((graph.source_shape if self is _Direction.FORWARD else graph.target_shape)(projection))

    def matrix(self, graph: SNNGraph, projection: Projection) -> Any:
        """``[far, near]``: where the weights are not zero; a dense matrix is left as it is."""
        matrix = projection.operation.matrix(graph.source_shape(projection))
        matrix = matrix if self is _Direction.FORWARD else matrix.T
        return matrix.tocsr() != 0 if sparse.issparse(matrix) else matrix


def _reached(graph: SNNGraph, start: Collection[str], direction: _Direction) -> dict[str, np.ndarray]:
    """Of every node, flat: the elements that are connected with the start nodes, these included.

    The least fixed point: elements are only ever added, so the loop ends, and it does not matter in which order.
    """
    reached = {name: np.full(node.size, name in start) for name, node in graph.nodes.items()}
    leading: dict[str, list[Projection]] = {name: [] for name in graph.nodes}
    for projection in graph.projections.values():
        leading[direction.ends(projection)[0]].append(projection)
    # A node is visited again whenever elements of it are added, so matrices are made before the loop.
    matrices = {p.name: direction.matrix(graph, p) for p in graph.projections.values()}
    waiting = list(start)
    while waiting:
        near = waiting.pop()
        for projection in leading[near]:
            _, far = direction.ends(projection)
            elements = reached[near]
            if not _is_by_position(graph, near):
                # Such a node has been reached as a whole, and its ports may have other sizes than the node.
                elements = np.ones(direction.near_size(graph, projection), bool)
            arriving = _through(matrices[projection.name], elements)
            # Dynamics over whole arrays may bring any element to any other, so one element stands for all of them.
            united = reached[far] | (arriving if _is_by_position(graph, far) else arriving.any())
            if np.any(united != reached[far]):
                reached[far] = united
                if far in graph.populations and far not in waiting:
                    waiting.append(far)
    return reached


def _is_by_position(graph: SNNGraph, name: str) -> bool:
    """Whether the elements of a node do not affect each other within the node."""
    return name not in graph.populations or graph.populations[name].neuron.by_position


def _through(matrix: Any, elements: np.ndarray) -> np.ndarray:
    """The far elements that have a weight other than zero with some near elements."""
    if sparse.issparse(matrix):
        return (matrix @ elements.astype(np.int64)) > 0
    return matrix.any(axis=1) if elements.all() else matrix[:, elements].any(axis=1)
