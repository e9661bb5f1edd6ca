"""Windows over images: what convolutions and pools read for each of their results.

A window of size 3 with stride 2 and one zero of padding on either side, over an axis of 5, is placed 3 times: at -1, 1
and 3. Results 0, 1 and 2 read the elements (0, 1), (1, 2, 3) and (3, 4); what lies outside the axis reads zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..util.limits import MATRIX

Shape = tuple[int, ...]
Padding = str | tuple[int, ...]
BYTES_PER_PAIR = 48
"""What finding out where windows lie takes."""
FARTHEST = 2**40
"""Positions are computed in 64 bits."""


class ShapeError(ValueError):
    """A source of this shape does not fit the operation; the message says what would."""


@dataclass(frozen=True)
class Window:
    """Windows over the axes of an image, of one channel.

    Attributes:
        size, stride, dilation: by axis.
        padding: zeros before and after, by axis.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]

    def counts(self, image: Shape) -> Shape:
        """Number of windows by axis.

        Raises:
            ShapeError: there are none, or the options are for another number of axes.
        """
        options = (self.size, self.stride, self.padding, self.dilation)
        if any(len(option) != len(image) for option in options):
            raise ShapeError(f"{len(image)} axes, but the options are {[list(option) for option in options]}")
        if max((*self.size, *self.stride, *self.dilation, *(p for pair in self.padding for p in pair))) > FARTHEST:
            raise ShapeError(f"kernel, stride, dilation and padding must be at most {FARTHEST}")
        if min((*self.size, *self.stride, *self.dilation)) < 1 or min(p for pair in self.padding for p in pair) < 0:
            raise ShapeError("kernel, stride and dilation must be at least 1, and padding at least 0")
        counts = tuple(
            (n + before + after - d * (k - 1) - 1) // s + 1
            for n, k, s, (before, after), d in zip(image, self.size, self.stride, self.padding, self.dilation)
        )
        if min(counts) < 1:
            raise ShapeError(f"an image {list(image)} is smaller than the window {list(self.size)}")
        return counts

    def pairs(self, image: Shape) -> tuple[Any, Any, Any]:
        """All (number of a window, pixel in it, number of the window's element), leaving out what is padding."""
        count = prod(self.counts(image)) * prod(self.size)
        MATRIX.check(BYTES_PER_PAIR * count, f"windows {list(self.size)} over an image {list(image)}")
        windows = np.indices(self.counts(image)).reshape(len(image), -1, 1)
        elements = np.indices(self.size).reshape(len(image), 1, -1)
        by_axis = (np.array(option).reshape(-1, 1, 1) for option in (self.stride, self.dilation, image))
        stride, dilation, limit = by_axis
        before = np.array([pair[0] for pair in self.padding]).reshape(-1, 1, 1)
        at = windows * stride + elements * dilation - before
        inside = ((at >= 0) & (at < limit)).all(0)
        window, element = np.nonzero(inside)
        return window, np.ravel_multi_index(tuple(at[:, inside]), image), element


def both_sides(padding: Padding, size: Shape, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each axis.

    Raises:
        ShapeError: the padding is an unknown text.
    """
    if padding == "valid":
        return tuple((0, 0) for _ in size)
    if padding == "same":
        missing = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)
    if isinstance(padding, str):
        raise ShapeError(f"padding is {padding!r}; expected 'valid', 'same' or numbers")
    return tuple((p, p) for p in padding)
