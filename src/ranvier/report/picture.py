"""Pictures of models: populations as boxes with their states, projections as arrows with shapes."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from ..graph.snn_graph import SNNGraph
from ..program.analysis.hidden_groups import analyse_groups
from ..program.analysis.relations import analyse_relations
from ..program.analysis.wiring import Node, wiring_of
from ..program.paths import path_text
from ..program.program import ModuleInfo, shape_text
from ..util.counting import counted
from ..util.files import write_atomically
from .drawing import COLORS, Box, check_target, figure_of, image_of, page_of
from .explain import explain_program
from .graph_picture import graph_figure, graph_page


def draw(info: ModuleInfo | SNNGraph, path: str | FilePath) -> FilePath:
    """Draws a program or a graph and writes the picture.

    Args:
        info: from :func:`ranvier.extract_module_info`, or a graph.
        path: of the picture. Its ending selects the format: ``.svg``, ``.png``, or ``.html`` for one self-contained
            page with the picture and the explanation of every relation, or the text of the graph.

    Returns:
        The path written.

    Raises:
        PictureError: unknown ending, missing folder, or the extra ``picture`` is not installed.
    """
    target = FilePath(path)
    check_target(target)
    is_graph = isinstance(info, SNNGraph)
    figure = graph_figure(info) if is_graph else _figure(info)
    if target.suffix.lower() != ".html":
        content = image_of(figure, target.suffix[1:].lower())
    else:
        content = graph_page(info, figure) if is_graph else _page(info, figure)
    write_atomically(target, content)
    return target


def _figure(info: ModuleInfo) -> Any:
    relations = len(analyse_relations(info).relations)
    legend = (
        f"{info.name}: {counted(len(info.hidden), 'hidden state')}, {counted(relations, 'relation')}\n"
        "blue: value of this step; red: of the previous step\n"
        "dashed: through another projection of the same step"
    )
    return figure_of(_boxes(info), wiring_of(info), legend)


def _boxes(info: ModuleInfo) -> dict[Node, Box]:
    boxes: dict[Node, Box] = {}
    for k, aval in enumerate(info.input_avals):
        boxes["input", k] = Box([f"input x{k}", shape_text(aval.shape)], COLORS["input"])
    for group in analyse_groups(info).groups:
        states = [f"{path_text(s.path)} {s.shapes_text}{' ' + s.unit if s.unit else ''}" for s in group.hidden_states]
        title = f"population {group.index} {shape_text(group.varshape)}"
        boxes["group", group.index] = Box([title, *states], COLORS["group"])
    for k, aval in enumerate(info.output_avals):
        boxes["output", k] = Box([f"output y{k}", shape_text(aval.shape)], COLORS["output"])
    return boxes


def _page(info: ModuleInfo, figure: Any) -> bytes:
    texts = {
        "Groups": "\n".join(map(str, analyse_groups(info).groups)),
        "Relations": "\n".join(map(str, analyse_relations(info).relations)),
        "Why each parameter is, or is not, related to each group": explain_program(info),
    }
    return page_of(info.name, figure, texts)
