"""What a projection does to the values of its source: always linear, plus a constant.

Every operation is the affine map ``y = A x + b`` of the flattened source, and can say its A as sparse rows: analyses
and the reference interpreter read that, so an operation means the same everywhere. Layouts are those of PyTorch and
NIR: images are ``[channels, height, width]``, kernels ``[out channels, in channels / groups, height, width]``.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np
from scipy import sparse

from ..util.limits import MATRIX
from .arrays import Matrix, as_rows, constant, matrix

Shape = tuple[int, ...]
Padding = str | tuple[int, ...]


class ShapeError(ValueError):
    """A source of this shape does not fit the operation; the message says what would."""


BYTES_PER_PAIR, BYTES_PER_SYNAPSE = 48, 40
"""What finding out where windows lie takes, and making rows of that."""
FARTHEST = 2**40
"""Positions are computed in 64 bits."""
ARRAYS = ("weight", "bias", "scale")
"""Fields that hold arrays."""


@dataclass(frozen=True, eq=False)
class Operation(abc.ABC):
    """An affine map."""

    @abc.abstractmethod
    def target_shape(self, source: Shape) -> Shape:
        """Shape of the result.

        Raises:
            ShapeError: a source of this shape does not fit.
        """

    @abc.abstractmethod
    def rows(self, source: Shape) -> Matrix:
        """A, ``[size of the target, size of the source]``."""

    def matrix(self, source: Shape) -> Matrix:
        """A as it is stored: dense for a dense weight, else :meth:`rows`."""
        return self.rows(source)

    def offset(self, source: Shape) -> np.ndarray | None:
        """b, of the target's shape or broadcasting to it; None for zero."""
        return None

    def synapses(self, source: Shape) -> int:
        """Number of elements of A that are not zero."""
        return int(self.rows(source).count_nonzero())

    def replace(self, **changes: Any) -> Self:
        return replace(self, **changes)

    @property
    def arrays(self) -> dict[str, Matrix]:
        """The fields that hold arrays, without those that are None."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name in ARRAYS}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def options(self) -> dict[str, Any]:
        """The other fields."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ARRAYS}


@dataclass(frozen=True, eq=False)
class Identity(Operation):
    """``y = x``."""

    def target_shape(self, source: Shape) -> Shape:
        return source

    def rows(self, source: Shape) -> Matrix:
        return sparse.eye_array(prod(source), format="csr")


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """``y = weight x + bias`` for a one-dimensional source.

    Attributes:
        weight: ``[out, in]``, dense or sparse rows.
        bias: ``[out]`` or None.
    """

    weight: Matrix
    bias: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", matrix(self.weight))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias))

    def target_shape(self, source: Shape) -> Shape:
        if self.weight.ndim != 2:
            raise ShapeError(f"weight has shape {list(self.weight.shape)}, a matrix [out, in] is expected")
        out, inner = self.weight.shape
        if source != (inner,):
            raise ShapeError(f"weight {[out, inner]} needs a source of shape {[inner]}, not {list(source)}")
        if self.bias is not None and self.bias.shape not in ((out,), ()):
            raise ShapeError(f"bias has shape {list(self.bias.shape)}, {[out]} is expected")
        return (out,)

    def rows(self, source: Shape) -> Matrix:
        return as_rows(self.weight)

    def matrix(self, source: Shape) -> Matrix:
        return self.rows(source) if sparse.issparse(self.weight) else self.weight

    def synapses(self, source: Shape) -> int:
        return self._synapses

    @cached_property
    def _synapses(self) -> int:
        return int(self.weight.count_nonzero() if sparse.issparse(self.weight) else np.count_nonzero(self.weight))

    def offset(self, source: Shape) -> np.ndarray | None:
        return self.bias


@dataclass(frozen=True, eq=False)
class Scale(Operation):
    """``y = scale * x``, element by element; the scale has the source's shape or is one number."""

    scale: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", constant(self.scale))

    def target_shape(self, source: Shape) -> Shape:
        if self.scale.shape not in (source, ()):
            raise ShapeError(f"scale has shape {list(self.scale.shape)}, {list(source)} is expected")
        return source

    def rows(self, source: Shape) -> Matrix:
        return as_rows(sparse.diags_array(np.broadcast_to(self.scale, source).ravel(), format="csr"))


@dataclass(frozen=True, eq=False)
class Conv(Operation):
    """A convolution over one or two axes, as in PyTorch: no flip of the kernel.

    Attributes:
        weight: ``[out channels, in channels / groups, *kernel]``.
        bias: ``[out channels]`` or None.
        stride, dilation: by axis.
        padding: zeros on both sides by axis, ``"valid"`` for none, ``"same"`` for as many as keep the shape.
        groups: number of groups of channels.
    """

    weight: Any
    bias: Any = None
    stride: tuple[int, ...] = (1, 1)
    padding: Padding = "valid"
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", constant(self.weight))
        if self.bias is not None:
            object.__setattr__(self, "bias", constant(self.bias))

    @property
    def axes(self) -> int:
        """Number of axes the kernel runs over."""
        return self.weight.ndim - 2

    def window(self) -> Window:
        """The positions a result is made of."""
        size = self.weight.shape[2:]
        return Window(size, self.stride, _both_sides(self.padding, size, self.dilation), self.dilation)

    def target_shape(self, source: Shape) -> Shape:
        channels = self.weight.shape[1] * self.groups if self.axes > 0 else 0
        if self.axes not in (1, 2) or self.groups < 1 or self.weight.shape[0] % max(self.groups, 1):
            raise ShapeError(
                f"weight has shape {list(self.weight.shape)} with {self.groups} groups; [out channels, in channels / "
                "groups, *kernel] with one or two kernel axes is expected"
            )
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise ShapeError(f"padding 'same' is defined for stride 1 only, not {list(self.stride)}")
        if len(source) != self.axes + 1 or source[0] != channels:
            expected = ["channels", *("height", "width")[-self.axes :]]
            raise ShapeError(
                f"a source [{', '.join(expected)}] with {channels} channels is expected, not {list(source)}"
            )
        if self.bias is not None and self.bias.shape not in ((self.weight.shape[0],), ()):
            raise ShapeError(f"bias has shape {list(self.bias.shape)}, {[self.weight.shape[0]]} is expected")
        return (self.weight.shape[0], *self.window().counts(source[1:]))

    def rows(self, source: Shape) -> Matrix:
        out, inner, *_ = self.weight.shape
        target, pixel, taken = self.window().pairs(source[1:])
        counts = prod(self.window().counts(source[1:]))
        MATRIX.check(BYTES_PER_SYNAPSE * out * inner * taken.size, f"a convolution of a source {list(source)}")
        o, i = np.divmod(np.arange(out * inner), inner)
        source_channel = o // (out // self.groups) * inner + i
        values = self.weight.reshape(out * inner, -1)[:, taken]
        row = o[:, None] * counts + target
        column = source_channel[:, None] * prod(source[1:]) + pixel
        shape = (out * counts, prod(source))
        return as_rows(_rows(values, row, column, shape))

    def offset(self, source: Shape) -> np.ndarray | None:
        return None if self.bias is None else self.bias.reshape(-1, *(1 for _ in range(self.axes)))


@dataclass(frozen=True, eq=False)
class SumPool(Operation):
    """Sums over windows of ``[channels, height, width]``.

    Attributes:
        kernel, stride, padding: by axis.
    """

    kernel: tuple[int, ...] = (2, 2)
    stride: tuple[int, ...] = (2, 2)
    padding: tuple[int, ...] = (0, 0)

    @property
    def weight(self) -> float:
        """Of every element of a window."""
        return 1.0

    def window(self) -> Window:
        """The positions a result is made of."""
        return Window(self.kernel, self.stride, tuple((p, p) for p in self.padding), tuple(1 for _ in self.kernel))

    def target_shape(self, source: Shape) -> Shape:
        if len(source) != len(self.kernel) + 1:
            raise ShapeError(f"a source [channels, height, width] is expected, not {list(source)}")
        if any(k > 2 * n + 1 for k, n in zip(self.kernel, source[1:])):
            raise ShapeError(
                f"windows {list(self.kernel)} over an image {list(source[1:])}; at most twice as large and one more "
                "is expected, as padding is at most half of a window"
            )
        return (source[0], *self.window().counts(source[1:]))

    def rows(self, source: Shape) -> Matrix:
        target, pixel, _ = self.window().pairs(source[1:])
        counts, size, channel = prod(self.window().counts(source[1:])), prod(source[1:]), np.arange(source[0])[:, None]
        row, column = channel * counts + target, channel * size + pixel
        return _rows(np.full(row.shape, self.weight), row, column, (source[0] * counts, prod(source)))


@dataclass(frozen=True, eq=False)
class AvgPool(SumPool):
    """Means over windows; padding counts as zeros."""

    @property
    def weight(self) -> float:
        return 1.0 / prod(self.kernel)


@dataclass(frozen=True, eq=False)
class Flatten(Operation):
    """Axes ``start`` to ``end`` as one, in C order; negative numbers count from the last axis."""

    start: int = 0
    end: int = -1

    def target_shape(self, source: Shape) -> Shape:
        axes = len(source)
        first, last = (k + axes if k < 0 else k for k in (self.start, self.end))
        if not 0 <= first <= last < axes:
            raise ShapeError(f"axes {self.start} to {self.end} of a source {list(source)} are no range of its axes")
        return (*source[:first], prod(source[first : last + 1]), *source[last + 1 :])

    def rows(self, source: Shape) -> Matrix:
        return sparse.eye_array(prod(source), format="csr")


@dataclass(frozen=True, eq=False)
class Select(Operation):
    """``y = x[index]``: elements of the flattened source, moved, repeated or left out.

    Attributes:
        index: for every element of the target the number of an element of the source; -1 for zero. Of the target's
            shape.
    """

    index: Any

    def __post_init__(self) -> None:
        index = np.asarray(self.index, np.int64)
        index.flags.writeable = False
        object.__setattr__(self, "index", index)

    def target_shape(self, source: Shape) -> Shape:
        if self.index.size and (self.index.max() >= prod(source) or self.index.min() < -1):
            raise ShapeError(f"elements up to {self.index.max()} of a source {list(source)} are selected")
        return self.index.shape

    def rows(self, source: Shape) -> Matrix:
        row = np.flatnonzero(self.index.ravel() >= 0)
        shape = (self.index.size, prod(source))
        return sparse.coo_array((np.ones(row.size), (row, self.index.ravel()[row])), shape=shape).tocsr()


@dataclass(frozen=True, eq=False)
class Constant(Operation):
    """``y = bias`` at every step, whatever the source gives; the bias has the target's shape."""

    bias: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", constant(self.bias))

    def target_shape(self, source: Shape) -> Shape:
        return self.bias.shape

    def rows(self, source: Shape) -> Matrix:
        return sparse.csr_array((self.bias.size, prod(source)), dtype=self.bias.dtype)

    def offset(self, source: Shape) -> np.ndarray | None:
        return self.bias


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
            raise ShapeError(f"kernel, stride, dilation and padding are at most {FARTHEST}")
        if min((*self.size, *self.stride, *self.dilation)) < 1 or min(p for pair in self.padding for p in pair) < 0:
            raise ShapeError("kernel, stride and dilation are at least 1, padding at least 0")
        found = tuple(
            (n + before + after - d * (k - 1) - 1) // s + 1
            for n, k, s, (before, after), d in zip(image, self.size, self.stride, self.padding, self.dilation)
        )
        if min(found) < 1:
            raise ShapeError(f"an image {list(image)} is smaller than the window {list(self.size)}")
        return found

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


def _both_sides(padding: Padding, size: Shape, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return tuple((0, 0) for _ in size)
    if padding == "same":
        missing = [d * (k - 1) for k, d in zip(size, dilation, strict=True)]
        return tuple((m // 2, m - m // 2) for m in missing)
    if isinstance(padding, str):
        raise ShapeError(f"padding is {padding!r}; 'valid', 'same' or numbers are expected")
    return tuple((p, p) for p in padding)


def _rows(values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> Matrix:
    row, column = np.broadcast_to(row, values.shape).ravel(), np.broadcast_to(column, values.shape).ravel()
    return sparse.coo_array((values.ravel(), (row, column)), shape=shape).tocsr()


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind for kind in (Identity, Linear, Scale, Conv, SumPool, AvgPool, Flatten, Select, Constant)
}
"""Every operation by its name in text and files."""
