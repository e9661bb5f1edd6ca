"""Convolutions of many images as products of tiles with one matrix, several times faster on a CPU than XLA's own.

A tile is what a few neighboring results of a row see: ``[kernel height, width of the tile, channels]``. The matrix has
the kernel once for each of these results, with zeros beside it. Tiles of a few images at a time stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.operations import Conv
from ..graph.windows import Window

COLUMNS = 48
"""About how many columns the matrix should have: enough for fast products, few enough for few zeros."""
AT_ONCE = 2**20
"""About how many numbers the tiles that are made at once have."""


@dataclass(frozen=True, eq=False)
class TiledConvolution:
    """A convolution over two axes, without groups.

    Attributes:
        operation: the convolution.
        image: shape of its source, ``[channels, height, width]``.
    """

    operation: Conv
    image: tuple[int, int, int]

    @cached_property
    def _window(self) -> Window:
        return self.operation.window()

    @cached_property
    def _counts(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = self._window.counts(self.image[1:])
        return height, width

    @cached_property
    def _results(self) -> int:
        """Neighboring results that one tile is for."""
        return int(np.clip(round(COLUMNS / self.operation.weight.shape[0]), 1, self._counts[1]))

    @cached_property
    def _tiles(self) -> int:
        """Tiles of a row."""
        return -(-self._counts[1] // self._results)

    @cached_property
    def _width(self) -> int:
        (_, stride), (_, dilation), (_, kernel) = self._window.stride, self._window.dilation, self._window.size
        return (self._results - 1) * stride + (kernel - 1) * dilation + 1

    @cached_property
    def images_at_once(self) -> int:
        """Images whose tiles are made together."""
        tiles = self._counts[0] * self._tiles * self._window.size[0] * self._width * self.image[0]
        return max(1, AT_ONCE // tiles)

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """``[elements of a tile, results x channels]`` from a kernel ``[out, in, height, width]``."""
        out, channels, height, width = weight.shape
        matrix = np.zeros((height, self._width, channels, self._results, out), weight.dtype)
        for result in range(self._results):
            for column in range(width):
                at = result * self._window.stride[1] + column * self._window.dilation[1]
                matrix[:, at, :, result, :] = weight[:, :, :, column].transpose(2, 1, 0)
        return matrix.reshape(-1, self._results * out)

    def __call__(self, matrix: Any, x: Any) -> Any:
        """Results ``[images, out, height, width]`` without bias, of images ``[images, channels, height, width]``."""
        images, most = x.shape[0], self.images_at_once
        if images <= most:
            return self._of_some(matrix, x)
        rounds, rest = divmod(images, most)
        whole = x[: rounds * most].reshape(rounds, most, *x.shape[1:])
        results = jax.lax.map(lambda some: self._of_some(matrix, some), whole)
        results = results.reshape(rounds * most, *results.shape[2:])
        return jnp.concatenate([results, self._of_some(matrix, x[-rest:])]) if rest else results

    def _of_some(self, matrix: Any, x: Any) -> Any:
        (height, width), out = self._counts, self.operation.weight.shape[0]
        (down, across), (apart, _) = self._window.stride, self._window.dilation
        (top, bottom), (left, right) = self._window.padding
        missing = (self._tiles - 1) * self._results * across + self._width - x.shape[3] - left
        x = jnp.pad(jnp.moveaxis(x, 1, -1), ((0, 0), (top, bottom), (left, max(missing, right)), (0, 0)))
        starts = [tile * self._results * across for tile in range(self._tiles)]
        columns = jnp.stack([x[:, :, start : start + self._width] for start in starts], axis=2)
        columns = columns.reshape(*columns.shape[:3], -1)
        last = (height - 1) * down + 1
        rows = [columns[:, k * apart : k * apart + last : down] for k in range(self._window.size[0])]
        y = jnp.concatenate(rows, axis=-1).reshape(prod(rows[0].shape[:3]), -1) @ matrix
        y = y.reshape(x.shape[0], height, self._tiles * self._results, out)
        return jnp.moveaxis(y[:, :, :width], -1, 1)


def tiled(operation: Conv, image: tuple[int, ...]) -> TiledConvolution | None:
    """How to convolve images of a shape by tiles; None for one axis, for groups of channels, or on a GPU."""
    if operation.axes != 2 or operation.groups != 1 or len(image) != 3 or not operation.weight.size:
        return None
    if jax.default_backend() != "cpu":
        return None
    channels, height, width = image
    return TiledConvolution(operation, (channels, height, width))
