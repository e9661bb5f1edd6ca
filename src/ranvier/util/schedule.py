"""How a strength rises over a training."""

from __future__ import annotations


def cubic(final: float, progress: float) -> float:
    """A part that rises to ``final`` as ``final (1 - (1 - progress)^3)``, for a progress from 0 to 1: fast at first and
    slowly at the end (Zhu and Gupta 2017, arXiv 1710.01878).

    >>> [round(cubic(0.9, k / 3), 3) for k in range(4)]
    [0.0, 0.633, 0.867, 0.9]
    """
    return final * (1 - (1 - progress) ** 3)
