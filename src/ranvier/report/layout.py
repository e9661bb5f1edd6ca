"""The layout of a picture: layers from inputs to outputs, with few crossings."""

# An example: wires x -> a, x -> b, a -> c, b -> d, c -> y and d -> y, and c -> a of the step before. The delayed wire
# would close a cycle and is left out. The layers are [x], [a b], [d c] and [y] in the order of the nodes. The wires
# a -> c and b -> d cross there; ordering each layer by the mean place of its neighbors gives [x], [b a], [d c] and [y].

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter

from ..graph.order import strong_components
from ..program.analysis.wiring import Node, Wire

SWEEPS = 8
"""After this many sweeps, down and up in turn, orders hardly change any more."""

Edges = dict[Node, set[Node]]


def layers_of(nodes: Sequence[Node], wires: Sequence[Wire]) -> list[list[Node]]:
    """Nodes by layer. Delayed wires that close a cycle do not count.

    Args:
        nodes: all nodes of the picture.
        wires: the wires between them.
    """
    edges = _forward_edges(wires)
    rank = _ranks(nodes, edges)
    # Outputs are all in the last layer, wherever their sources are.
    last = max(rank.values(), default=0)
    for node in nodes:
        if node[0] == "output":
            rank[node] = max(last, 1)
    used = sorted(set(rank.values()))
    layers = [[node for node in nodes if rank[node] == number] for number in used]
    return _fewer_crossings(layers, edges)


def _forward_edges(wires: Sequence[Wire]) -> Edges:
    """The targets of every source: by wires within a step, then by delayed wires that close no cycle."""
    edges: Edges = defaultdict(set)
    for wire in wires:
        if wire.source != wire.target and wire.delay == 0:
            edges[wire.source].add(wire.target)
    for wire in wires:
        if wire.delay and wire.source != wire.target and not _leads_to(edges, wire.target, wire.source):
            edges[wire.source].add(wire.target)
    return edges


def _leads_to(edges: Edges, start: Node, end: Node) -> bool:
    """Whether there is a path between two nodes."""
    seen, queue = {start}, [start]
    while queue:
        node = queue.pop()
        if node == end:
            return True
        following = edges.get(node, set()) - seen
        seen |= following
        queue += following
    return False


def _ranks(nodes: Sequence[Node], edges: Edges) -> dict[Node, int]:
    """The length of the longest path to every node; the nodes of a cycle count as one."""
    pairs = [(source, target) for source, targets in edges.items() for target in targets]
    component = strong_components(nodes, pairs)
    sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(component.values(), ()))
    for source, target in pairs:
        if component[source] != component[target]:
            sorter.add(component[target], component[source])
    sorter.prepare()
    rank: dict[int, int] = {}
    while sorter.is_active():
        ready = sorter.get_ready()
        rank.update(dict.fromkeys(ready, max(rank.values(), default=-1) + 1))
        sorter.done(*ready)
    return {node: rank[number] for node, number in component.items()}


def _fewer_crossings(layers: list[list[Node]], edges: Edges) -> list[list[Node]]:
    """Orders each layer by the barycenters of its neighbors, down and up in turn (Sugiyama, Tagawa and Toda 1981)."""
    beside: Edges = defaultdict(set)
    for source, targets in edges.items():
        for target in targets:
            beside[source].add(target)
            beside[target].add(source)
    for sweep in range(SWEEPS):
        place = {node: k / max(len(layer) - 1, 1) for layer in layers for k, node in enumerate(layer)}
        for layer in layers if sweep % 2 == 0 else layers[::-1]:
            layer.sort(key=lambda node: _barycenter(node, beside, place))
            place.update({node: k / max(len(layer) - 1, 1) for k, node in enumerate(layer)})
    return layers


def _barycenter(node: Node, beside: Edges, place: dict[Node, float]) -> float:
    neighbors = sorted(place[other] for other in beside.get(node, ()) if other in place)
    return sum(neighbors) / len(neighbors) if neighbors else place[node]
