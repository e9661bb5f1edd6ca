"""A graph as a picture."""

from __future__ import annotations

from typing import Any

from ..graph.elements import Population
from ..graph.printer import to_text
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..program.analysis.wiring import Node, Wire
from ..program.program import shape_text
from ..util.counting import counted
from .drawing import COLORS, Box, figure_of, page_of


def graph_figure(graph: SNNGraph) -> Any:
    """A matplotlib figure with populations as boxes and projections as arrows."""
    size = GraphSize.of(graph)
    legend = (
        f"{graph.name}: {counted(size.neurons, 'neuron')}, {counted(size.synapses, 'synapse')}, dt = {graph.dt:g} s\n"
        "blue: value of this step; red: of an earlier step"
    )
    numbers: dict[str, Node] = {}
    boxes: dict[Node, Box] = {}
    for kind, nodes in (("input", graph.inputs), ("group", graph.populations), ("output", graph.outputs)):
        for k, (name, node) in enumerate(nodes.items()):
            numbers[name] = (kind, k)
            boxes[kind, k] = Box([f"{name} {shape_text(node.shape)}", *_details(node)], COLORS[kind])
    wires = [
        Wire(numbers[p.source], numbers[p.target], _kind(p.operation), (), _shapes(p.operation), min(p.delay, 1), False)
        for p in graph.projections.values()
    ]
    return figure_of(boxes, wires, legend)


def graph_page(graph: SNNGraph, figure: Any) -> bytes:
    """One self-contained page with the picture and the text of a graph."""
    return page_of(graph.name, figure, {"": to_text(graph)[0]})


def _details(node: Any) -> list[str]:
    """Kind and firing rate of a population, one per line."""
    if not isinstance(node, Population):
        return []
    lines = [type(node.neuron).__name__]
    if node.activity is not None:
        lines.append(f"{float(node.activity.rates.mean()):.3g} per step")
    return lines


def _kind(operation: Any) -> str:
    return type(operation).__name__


def _shapes(operation: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(value.shape for value in operation.arrays.values())[:1]
