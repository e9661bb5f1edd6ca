"""Boxes and arrows, the parts of pictures of programs and graphs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from ..errors import PictureError, printable
from ..program.analysis.wiring import Node, Wire
from ..program.paths import path_text
from ..program.program import shape_text
from ..util.extras import require
from .layout import layers_of
from .templates import render

FORMATS = (".svg", ".png", ".html")

LINE = 0.21
"""Height of a line of text, and all other lengths, in inches."""
BOX_WIDTH = 2.6
LAYER_GAP = 0.85
COLUMN_GAP = 1.5
MARGIN = 1.6
COLORS = {"input": "#e8eef7", "group": "#fdf3e1", "output": "#e9f4ea"}
EDGE_COLORS = {0: "#35506b", 1: "#b4543a"}


@dataclass
class Box:
    """A rectangle with lines of text; ``x`` and ``y`` are its center."""

    lines: list[str]
    color: str
    x: float = 0.0
    y: float = 0.0

    @property
    def height(self) -> float:
        return LINE * (len(self.lines) + 1)


def check_can_draw() -> None:
    """Raises :class:`PictureError` unless matplotlib is installed."""
    require("a picture", "picture", "matplotlib", error=PictureError)


def check_target(target: FilePath) -> None:
    """Raises :class:`PictureError` unless a picture can be drawn and the target can be its file."""
    check_can_draw()
    if target.suffix.lower() not in FORMATS:
        raise PictureError(
            f"{target.name}: pictures end in {', '.join(FORMATS)}, not {target.suffix or 'nothing'}; write, for "
            f"example, {target.with_suffix('.svg').name}."
        )
    if not target.parent.is_dir():
        raise PictureError(f"the folder {target.parent} does not exist; make it first or choose another.")


def figure_of(boxes: dict[Node, Box], wires: Sequence[Wire], legend: str) -> Any:
    """A matplotlib figure of boxes in layers, with wires between them."""
    from matplotlib.figure import Figure

    layers = layers_of(list(boxes), wires)
    width, height = _place(boxes, layers)
    figure = Figure(figsize=(width, height + 0.7))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(-0.7, height)
    axes.axis("off")
    _draw_wires(axes, boxes, list(wires), layers)
    for box in boxes.values():
        _draw_box(axes, box)
    _write(axes, (0.1, -0.1), legend, fontsize=7, color="#444444", ha="left", va="top", linespacing=1.5)
    return figure


def _place(boxes: dict[Node, Box], layers: list[list[Node]]) -> tuple[float, float]:
    """Sets the centers of the boxes, layer by layer from top to bottom. Returns width and height of the picture."""
    widths = [len(layer) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP for layer in layers]
    heights = [max(boxes[node].height for node in layer) for layer in layers]
    width = max(widths, default=BOX_WIDTH) + 2 * MARGIN
    height = sum(heights) + (len(layers) - 1) * LAYER_GAP + 0.4
    top = height - 0.2
    for layer, layer_width, layer_height in zip(layers, widths, heights, strict=True):
        for k, node in enumerate(layer):
            boxes[node].x = width / 2 - layer_width / 2 + BOX_WIDTH / 2 + k * (BOX_WIDTH + COLUMN_GAP)
            boxes[node].y = top - layer_height / 2
        top -= layer_height + LAYER_GAP
    return width, height


def _draw_box(axes: Any, box: Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, bottom = box.x - BOX_WIDTH / 2, box.y - box.height / 2
    shape = FancyBboxPatch(
        (left, bottom), BOX_WIDTH, box.height, boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=box.color, edgecolor="#5b6570", linewidth=1.0, zorder=3,
    )  # fmt: skip
    axes.add_patch(shape)
    for k, line in enumerate(box.lines):
        place = box.x, box.y + box.height / 2 - LINE * (k + 1)
        _write(
            axes, place, _fitted(" ".join(line.splitlines()), 36), ha="center", va="center",
            fontsize=9 if k == 0 else 8, fontweight="bold" if k == 0 else "normal", zorder=4,
        )  # fmt: skip


def _write(axes: Any, place: Point, text: str, **options: Any) -> None:
    """Writes a text in which a dollar sign does not start a formula."""
    axes.text(*place, printable(text), parse_math=False, **options)


def _fitted(text: str, length: int) -> str:
    """A text with its middle left out if it is too long: names that start alike often differ at the end."""
    return text if len(text) <= length else text[: length // 2 - 1] + "…" + text[-length // 2 :]


def _draw_wires(axes: Any, boxes: dict[Node, Box], wires: list[Wire], layers: list[list[Node]]) -> None:
    layer_of = {node: k for k, layer in enumerate(layers) for node in layer}
    by_ends: dict[tuple[Node, Node], list[Wire]] = {}
    for wire in wires:
        by_ends.setdefault((wire.source, wire.target), []).append(wire)
    lanes = _Lanes(boxes, layers)
    for (source, target), parallel in by_ends.items():
        step = layer_of[target] - layer_of[source]
        if source == target:
            route = _loop(boxes[source])
        elif step == 1:
            route = _straight(boxes[source], boxes[target])
        else:
            route = lanes.around(source, target, layer_of)
        _draw_arrow(axes, route, parallel)


Point = tuple[float, float]


@dataclass(frozen=True)
class Route:
    """The corners of an arrow and where its label goes."""

    points: list[Point]
    label: Point
    align: str = "center"


def _loop(box: Box) -> Route:
    edge = box.x + BOX_WIDTH / 2
    low, high = box.y - 0.12, box.y + 0.12
    points = [(edge, low), (edge + 0.28, low), (edge + 0.28, high), (edge, high)]
    return Route(points, (edge + 0.34, box.y), "left")


def _straight(source: Box, target: Box) -> Route:
    start, end = (source.x, source.y - source.height / 2), (target.x, target.y + target.height / 2)
    return Route([start, end], (start[0] + 0.55 * (end[0] - start[0]), start[1] + 0.55 * (end[1] - start[1])))


class _Lanes:
    """Vertical lanes beside the boxes, for arrows that skip layers or lead back."""

    def __init__(self, boxes: dict[Node, Box], layers: list[list[Node]]) -> None:
        self.boxes, self.layers = boxes, layers
        self.used = {-1: 0, 1: 0}

    def around(self, source: Node, target: Node, layer_of: dict[Node, int]) -> Route:
        """A route around the boxes: on the left if it leads forward, on the right if it leads back."""
        first, last = sorted((layer_of[source], layer_of[target]))
        side = -1 if layer_of[target] > layer_of[source] else 1
        passed = [self.boxes[node].x for layer in self.layers[first : last + 1] for node in layer]
        outermost = side * max(side * x for x in passed)
        room = 0.35 if side < 0 else 1.35  # loops and their labels are on the right
        lane = outermost + side * (BOX_WIDTH / 2 + room + 0.3 * self.used[side])
        self.used[side] += 1
        a, b = self.boxes[source], self.boxes[target]
        leave, enter = a.y - 0.06 * self.used[side], b.y + 0.06 * self.used[side]
        edge = side * BOX_WIDTH / 2
        points = [(a.x + edge, leave), (lane, leave), (lane, enter), (b.x + edge, enter)]
        return Route(points, (lane, (leave + enter) / 2))


def _draw_arrow(axes: Any, route: Route, wires: list[Wire]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Outline

    delays = [wire.delay for wire in wires]
    is_loop = wires[0].source == wires[0].target
    corners, codes = _rounded(route.points)
    arrow = FancyArrowPatch(
        path=Outline(corners, codes), arrowstyle="-|>", mutation_scale=11, linewidth=1.2, zorder=2, fill=False,
        color=EDGE_COLORS[max(delays) if is_loop else min(delays)],
        linestyle="--" if all(wire.gated for wire in wires) else "-",
    )  # fmt: skip
    axes.add_patch(arrow)
    text = "\n".join(dict.fromkeys(_fitted(_wire_text(w), 30) for w in wires if w.kind != "direct"))
    if text:
        _write(
            axes, route.label, text, fontsize=7, ha=route.align, va="center", zorder=5,
            bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.9},
        )  # fmt: skip


def _rounded(points: list[Point], radius: float = 0.12) -> tuple[list[Point], list[int]]:
    """A polyline with round corners, as vertices and codes of a matplotlib path."""
    from matplotlib.path import Path as Outline

    corners, codes = [points[0]], [int(Outline.MOVETO)]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        corners += [_toward(corner, before, radius), corner, _toward(corner, after, radius)]
        codes += [int(Outline.LINETO), int(Outline.CURVE3), int(Outline.CURVE3)]
    return [*corners, points[-1]], [*codes, int(Outline.LINETO)]


def _toward(start: Point, end: Point, distance: float) -> Point:
    """The point at some distance from the start, but no further than halfway to the end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    part = min(distance, length / 2) / length
    return start[0] + dx * part, start[1] + dy * part


def _wire_text(wire: Wire) -> str:
    names = " ".join(path_text(p) for p in wire.parameters)
    shapes = " ".join(shape_text(shape) for shape in wire.shapes[:2])
    return " ".join(part for part in (names or wire.kind, shapes) if part)


def image_of(figure: Any, kind: str) -> bytes:
    """A figure as a file, ``"svg"`` or ``"png"``."""
    import matplotlib

    buffer = io.BytesIO()
    # A fixed salt and no date: the same picture is the same file. Text stays text, so that it can be searched.
    with matplotlib.rc_context({"svg.hashsalt": "ranvier", "svg.fonttype": "none"}):
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, dpi=130, bbox_inches="tight", pad_inches=0.15, metadata=metadata)
    return buffer.getvalue()


def inline_svg(figure: Any) -> str:
    """A figure as an SVG element for a page."""
    svg = image_of(figure, "svg").decode()
    return svg[svg.index("<svg") :]


def page_of(name: str, figure: Any, texts: Mapping[str, str]) -> bytes:
    """One self-contained page with a figure, and below it texts with their titles; an empty title is left out."""
    return render("picture.html.jinja", name=name, picture=inline_svg(figure), texts=texts).encode()
