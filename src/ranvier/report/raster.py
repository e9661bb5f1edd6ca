"""Spike rasters of two graphs as one picture: spikes that both graphs have, and spikes of only one of them."""

# An example: neuron 0 fires at steps 0 and 1 before, and at steps 1 and 2 after. Its row has a mark of "both" at step
# 1, one of "before only" at step 0 and one of "after only" at step 2.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..util.counting import counted

WIDTH = 720
"""Of a raster, in pixels."""
HIGHEST = 360
"""The largest height of a raster, in pixels."""
NEURONS = 240
"""The largest number of neurons in a raster."""
COLORS = {"both": "#35506b", "before only": "#b4543a", "after only": "#2c8a57"}


@dataclass(frozen=True)
class Marks:
    """The marks of one color.

    Attributes:
        outline: the ``d`` of an SVG path.
        color: of the path.
        size: width and height of a mark in pixels.
    """

    outline: str
    color: str
    size: float


@dataclass(frozen=True)
class Raster:
    """The spikes of one population in two graphs, ready to be drawn.

    Attributes:
        name: of the population.
        neurons: how many neurons are shown, in words.
        steps: number of steps.
        width, height: in pixels.
        marks: by color.
    """

    name: str
    neurons: str
    steps: int
    width: int
    height: int
    marks: tuple[Marks, ...]

    @classmethod
    def of(cls, name: str, before: np.ndarray, after: np.ndarray) -> Raster:
        """From spike trains ``[T, neurons]`` of the neurons that both graphs have."""
        steps, neurons = before.shape
        shown = min(neurons, NEURONS)
        a, b = before[:, :shown] != 0, after[:, :shown] != 0
        height = int(min(HIGHEST, max(60, 4 * shown)))
        dx, dy = WIDTH / steps, height / max(shown, 1)
        spikes = {"both": a & b, "before only": a & ~b, "after only": ~a & b}
        marks = tuple(_marks(which, dx, dy, COLORS[kind]) for kind, which in spikes.items() if which.any())
        text = f"{shown} of {neurons} neurons" if shown < neurons else counted(neurons, "neuron")
        return cls(name, text, steps, WIDTH, height, marks)


def _marks(spikes: np.ndarray, dx: float, dy: float, color: str) -> Marks:
    """All marks of one color as one path: a path per spike would make the page slow."""
    times, numbers = np.nonzero(spikes)
    size = max(1.0, min(dx, dy) * 0.8)
    outline = "".join(f"M{t * dx:.1f} {n * dy + dy / 2:.1f}h{size:.1f}" for t, n in zip(times, numbers, strict=True))
    return Marks(outline, color, size)
