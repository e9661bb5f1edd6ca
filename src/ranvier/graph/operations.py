"""What a projection does to the values of its source: always linear, plus a constant.

Every operation is the affine map ``y = A x + b`` of the flattened source, and states it twice: as a matrix in sparse
rows, which analyses and the reference interpreter read, and as ``apply``, which simulation, learning and exported
source run. Tests compare the two. Layouts are those of PyTorch and NIR: images are ``[channels, height, width]``,
kernels ``[out channels, in channels / groups, height, width]``.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Any, Self

import numpy as np
from scipy import sparse

from ..util.limits import MATRIX
from .arrays import Matrix, as_rows, constant, matrix
from .ops import Array, OperationOps
from .windows import Padding, Shape, ShapeError, Window, both_sides

BYTES_PER_SYNAPSE = 40
"""What making rows of windows takes."""
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

    @abc.abstractmethod
    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        """The map of one sample.

        Args:
            ops: what arrays are computed with.
            arrays: those of the operation by name, of sparse rows the stored values.
            x: values of the source, of its shape.
        """

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
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name in ARRAYS}
        return {name: value for name, value in values.items() if value is not None}

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

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        return x


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """``y = weight x + bias``; a source with several axes is read as one, in C order, as :class:`Flatten` makes it.

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
            raise ShapeError(f"weight has shape {list(self.weight.shape)}, expected a matrix [out, in]")
        out, inner = self.weight.shape
        if not source or prod(source) != inner:
            raise ShapeError(f"weight {[out, inner]} needs a source of shape {[inner]}, not {list(source)}")
        if self.bias is not None and self.bias.shape not in ((out,), ()):
            raise ShapeError(f"bias has shape {list(self.bias.shape)}, expected {[out]}")
        return (out,)

    def rows(self, source: Shape) -> Matrix:
        return as_rows(self.weight)

    def matrix(self, source: Shape) -> Matrix:
        return self.rows(source) if sparse.issparse(self.weight) else self.weight

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        weight = arrays["weight"]
        x = x if len(x.shape) == 1 else ops.reshape(x, (prod(x.shape),))
        y = ops.sparse_product(weight, self.weight, x) if sparse.issparse(self.weight) else ops.product(weight, x)
        return y + arrays["bias"] if "bias" in arrays else y

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
            raise ShapeError(f"scale has shape {list(self.scale.shape)}, expected {list(source)}")
        return source

    def rows(self, source: Shape) -> Matrix:
        return as_rows(sparse.diags_array(np.broadcast_to(self.scale, source).ravel(), format="csr"))

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        return arrays["scale"] * x


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
        return Window(size, self.stride, both_sides(self.padding, size, self.dilation), self.dilation)

    def target_shape(self, source: Shape) -> Shape:
        channels = self.weight.shape[1] * self.groups if self.axes > 0 else 0
        if self.axes not in (1, 2) or self.groups < 1 or self.weight.shape[0] % max(self.groups, 1):
            raise ShapeError(
                f"weight has shape {list(self.weight.shape)} with {self.groups} groups, expected [out channels, in "
                "channels / groups, *kernel] with one or two kernel axes"
            )
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise ShapeError(f"padding 'same' is defined for stride 1 only, not {list(self.stride)}")
        if len(source) != self.axes + 1 or source[0] != channels:
            expected = ["channels", *("height", "width")[-self.axes :]]
            raise ShapeError(f"expected a source [{', '.join(expected)}] with {channels} channels, not {list(source)}")
        if self.bias is not None and self.bias.shape not in ((self.weight.shape[0],), ()):
            raise ShapeError(f"bias has shape {list(self.bias.shape)}, expected {[self.weight.shape[0]]}")
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

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        y = ops.convolve(x, arrays["weight"], self.window(), self.groups)
        return y + ops.reshape(arrays["bias"], (-1, *(1,) * self.axes)) if "bias" in arrays else y


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
            raise ShapeError(f"expected a source [channels, height, width], not {list(source)}")
        if any(k > 2 * n + 1 for k, n in zip(self.kernel, source[1:])):
            raise ShapeError(
                f"windows {list(self.kernel)} over an image {list(source[1:])}; a window may be at most twice as "
                "large as the image, plus one, because padding is at most half a window"
            )
        return (source[0], *self.window().counts(source[1:]))

    def rows(self, source: Shape) -> Matrix:
        target, pixel, _ = self.window().pairs(source[1:])
        counts, size, channel = prod(self.window().counts(source[1:])), prod(source[1:]), np.arange(source[0])[:, None]
        row, column = channel * counts + target, channel * size + pixel
        return _rows(np.full(row.shape, self.weight), row, column, (source[0] * counts, prod(source)))

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        y = ops.sum_windows(x, self.window())
        return y if self.weight == 1 else y * self.weight


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
            raise ShapeError(f"axes {self.start} to {self.end} of a source {list(source)} are not a range of its axes")
        return (*source[:first], prod(source[first : last + 1]), *source[last + 1 :])

    def rows(self, source: Shape) -> Matrix:
        return sparse.eye_array(prod(source), format="csr")

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        return ops.reshape(x, self.target_shape(x.shape))


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

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        return ops.pick(x, self.index)


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

    def apply(self, ops: OperationOps, arrays: Mapping[str, Array], x: Array) -> Array:
        return arrays["bias"]


def _rows(values: np.ndarray, row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> Matrix:
    row, column = np.broadcast_to(row, values.shape).ravel(), np.broadcast_to(column, values.shape).ravel()
    return sparse.coo_array((values.ravel(), (row, column)), shape=shape).tocsr()


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind for kind in (Identity, Linear, Scale, Conv, SumPool, AvgPool, Flatten, Select, Constant)
}
"""Every operation by its name in text and files."""
