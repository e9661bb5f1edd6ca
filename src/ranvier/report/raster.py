"""Spike rasters of two graphs as one picture: what both fire, and what only one of them does."""

from __future__ import annotations

import html

import numpy as np

from ..util.counting import counted

WIDTH = 720
"""Of a raster, in pixels."""
HIGHEST = 360
NEURONS = 240
"""So many neurons are shown at most."""
COLOURS = {"both": "#35506b", "before only": "#b4543a", "after only": "#2c8a57"}


def raster(name: str, before: np.ndarray, after: np.ndarray) -> str:
    """An SVG of spike trains ``[T, neurons]`` of neurons that two graphs have in common."""
    steps, neurons = before.shape
    shown = min(neurons, NEURONS)
    a, b = before[:, :shown] != 0, after[:, :shown] != 0
    height = int(min(HIGHEST, max(60, 4 * shown)))
    dx, dy = WIDTH / steps, height / max(shown, 1)
    marks = {"both": a & b, "before only": a & ~b, "after only": ~a & b}
    paths = "".join(_path(found, dx, dy, COLOURS[kind]) for kind, found in marks.items() if found.any())
    told = f"{shown} of {neurons} neurons" if shown < neurons else counted(neurons, "neuron")
    return (
        f'<figure class="raster"><figcaption>{html.escape(name)}: {told}, {counted(steps, "step")}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="spikes of {html.escape(name, quote=True)}">'
        f'<rect width="{WIDTH}" height="{height}" fill="#fbfbfa" stroke="#d5d8db"/>{paths}</svg></figure>'
    )


def raster_legend() -> str:
    """What the colours of a raster mean."""
    parts = (f'<span class="swatch" style="background:{colour}"></span>{kind}' for kind, colour in COLOURS.items())
    return f'<p class="legend">{" ".join(parts)}</p>'


def _path(found: np.ndarray, dx: float, dy: float, colour: str) -> str:
    times, numbers = np.nonzero(found)
    size = max(1.0, min(dx, dy) * 0.8)
    d = "".join(f"M{t * dx:.1f} {n * dy + dy / 2:.1f}h{size:.1f}" for t, n in zip(times, numbers, strict=True))
    return f'<path d="{d}" stroke="{colour}" stroke-width="{size:.1f}" fill="none"/>'
