"""Where the boxes of a picture go: layers from inputs to outputs, few crossings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ..analyses.wiring import Node, Wire

SWEEPS = 8


def layers_of(nodes: Sequence[Node], wires: Iterable[Wire]) -> list[list[Node]]:
    """Nodes by layer; a wire that closes a cycle does not push its target further.

    Args:
        nodes: all nodes of the picture.
        wires: the wires between them.
    """
    import networkx as nx

    graph = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((w.source, w.target) for w in wires if w.source != w.target and w.delay == 0)
    for wire in wires:
        backward = wire.source == wire.target or nx.has_path(graph, wire.target, wire.source)
        if wire.delay and not backward:
            graph.add_edge(wire.source, wire.target)
    condensed = nx.condensation(graph)
    rank: dict[Node, int] = {}
    for level, components in enumerate(nx.topological_generations(condensed)):
        for component in components:
            rank.update(dict.fromkeys(condensed.nodes[component]["members"], level))
    last = max(rank.values(), default=0)
    for node in nodes:
        if node[0] == "output":
            rank[node] = max(last, 1)
    used = sorted(set(rank.values()))
    layers = [[node for node in nodes if rank[node] == level] for level in used]
    return _fewer_crossings(layers, graph)


def _fewer_crossings(layers: list[list[Node]], graph: Any) -> list[list[Node]]:
    """Barycentre sweeps (Sugiyama, Tagawa and Toda 1981) down and up."""
    undirected = graph.to_undirected()
    for sweep in range(SWEEPS):
        place = {node: k / max(len(layer) - 1, 1) for layer in layers for k, node in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(key=lambda node: _barycentre(node, undirected, place))
            place.update({node: k / max(len(layer) - 1, 1) for k, node in enumerate(layer)})
    return layers


def _barycentre(node: Node, graph: Any, place: dict[Node, float]) -> float:
    neighbours = [place[other] for other in graph[node] if other in place]
    return sum(neighbours) / len(neighbours) if neighbours else place[node]
