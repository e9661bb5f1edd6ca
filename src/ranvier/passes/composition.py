"""Two operations in sequence as one operation, from a table of rules by their kinds."""

# An example in one dimension: a convolution with the kernel [1 2] and stride 1, then sums over windows of 2, stride 2.
#
#   (x0 + 2 x1) + (x1 + 2 x2) = x0 + 3 x1 + 2 x2: a kernel [1 3 2] with stride 1 * 2 = 2
#
# The other way round, sums over windows of 2 and then the kernel [1 2]:
#
#   (x0 + x1) + 2 (x2 + x3): a kernel [1 1 2 2] with stride 2 * 1 = 2

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.arrays import as_rows
from ..graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Operation, Scale, Select, SumPool
from ..graph.windows import Shape

PASSING = (Identity, Flatten)
"""Operations that leave all numbers and their order as they are."""


def only_moves(operation: Operation) -> bool:
    """Whether an operation brings every element of its source to at most one place, unchanged."""
    if isinstance(operation, Select):
        selected = operation.index[operation.index >= 0]
        return np.unique(selected).size == selected.size
    return isinstance(operation, PASSING)


def composed(second: Operation, first: Operation, source: Shape) -> Operation | None:
    """``second(first(x))`` as one operation, including biases; None if no single operation computes it.

    Args:
        second, first: the operations; ``first`` is applied first.
        source: shape of x.
    """
    if isinstance(first, Identity):
        return second
    if isinstance(second, Identity):
        return first
    if isinstance(first, Constant):
        return _passed_on(second, first, first.target_shape(source))
    rule = next((rule for kinds, rule in RULES.items() if _are(kinds, second, first)), None)
    return None if rule is None else rule(second, first, source)


def _are(kinds: tuple[type[Operation], type[Operation]], second: Operation, first: Operation) -> bool:
    return isinstance(second, kinds[0]) and isinstance(first, kinds[1])


def _passed_on(second: Operation, first: Constant, middle: Shape) -> Constant:
    """The constant that an operation maps a constant to."""
    mapped = (second.rows(middle) @ first.bias.ravel()).reshape(second.target_shape(middle))
    offset = second.offset(middle)
    return Constant(mapped if offset is None else mapped + offset)


# Matrices and scales ----------------------------------------------------------------------------------------------


def _scaled(weight: Any, factor: np.ndarray) -> Any:
    return sparse.csr_array(weight.multiply(factor)) if sparse.issparse(weight) else weight * factor


def _scaled_scale(second: Scale, first: Scale, source: Shape) -> Scale:
    return Scale(second.scale * first.scale)


def _scaled_rows(second: Scale, first: Linear, source: Shape) -> Linear:
    rows = np.broadcast_to(second.scale, first.weight.shape[:1])
    bias = None if first.bias is None else rows * first.bias
    return Linear(_scaled(first.weight, rows[:, None]), bias)


def _scaled_columns(second: Linear, first: Scale, source: Shape) -> Linear:
    columns = np.broadcast_to(first.scale, source).reshape(1, -1)
    return Linear(_scaled(second.weight, columns), second.bias)


def _product(second: Linear, first: Linear, source: Shape) -> Linear:
    weight = second.weight @ first.weight
    biases = [] if second.bias is None else [second.bias]
    if first.bias is not None:
        biases.append(second.weight @ np.broadcast_to(first.bias, first.weight.shape[:1]))
    return Linear(weight, sum(biases[1:], biases[0]) if biases else None)


# Moves ------------------------------------------------------------------------------------------------------------


def _reads_flat(second: Linear | Select, first: Flatten, source: Shape) -> Operation:
    """A matrix and a selection number the elements of an image as a flatten does."""
    return second


def _flattened_twice(second: Flatten, first: Flatten, source: Shape) -> Flatten | None:
    target = second.target_shape(first.target_shape(source))
    ranges = (Flatten(*axes) for axes in combinations_with_replacement(range(len(source)), 2))
    return next((flatten for flatten in ranges if flatten.target_shape(source) == target), None)


def _flattened_selection(second: Flatten, first: Select, source: Shape) -> Select:
    return Select(first.index.reshape(second.target_shape(first.index.shape)))


def _selected_twice(second: Select, first: Select, source: Shape) -> Select:
    through = first.index.ravel()[np.maximum(second.index, 0)]
    return Select(np.where(second.index < 0, -1, through))


def _selected_rows(second: Select, first: Linear, source: Shape) -> Linear | None:
    """A matrix whose results are selected from another one's."""
    index = second.index
    if index.ndim != 1 or not index.size or index.min() < 0:
        return None
    bias = None if first.bias is None else np.broadcast_to(first.bias, first.weight.shape[:1])[index]
    return Linear(first.weight[index], bias)


def _selected_columns(second: Linear, first: Select, source: Shape) -> Linear:
    """A matrix that reads a selection: every column goes to where the element comes from."""
    columns = as_rows(first.rows(source).astype(second.weight.dtype))
    return Linear(second.weight @ columns, second.bias)


# Convolutions and pools -------------------------------------------------------------------------------------------


def by_channel(scale: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A scale of images as ``[channels]``; None if it differs within a channel."""
    channels = np.broadcast_to(scale, shape).reshape(shape[0], -1)
    return channels[:, 0] if np.all(channels == channels[:, :1]) else None


def _scaled_results(second: Scale, first: Conv, source: Shape) -> Conv | None:
    """A convolution whose output channels are scaled."""
    factor = by_channel(second.scale, first.target_shape(source))
    if factor is None:
        return None
    bias = None if first.bias is None else first.bias * factor
    return first.replace(weight=first.weight * factor.reshape(-1, *(1 for _ in first.weight.shape[1:])), bias=bias)


def _scaled_image(second: Conv, first: Scale, source: Shape) -> Conv | None:
    """A convolution whose input channels are scaled."""
    factor = by_channel(first.scale, source)
    if factor is None:
        return None
    # [groups, in / groups] -> [out, in / groups]: the output channels of a group read the same input channels.
    by_group = np.repeat(factor.reshape(second.groups, -1), second.weight.shape[0] // second.groups, axis=0)
    return second.replace(weight=second.weight * by_group.reshape(*by_group.shape, *(1 for _ in range(second.axes))))


def _is_plain(conv: Conv) -> bool:
    return all(d == 1 for d in conv.dilation) and (conv.padding == "valid" or not isinstance(conv.padding, str))


def _is_padded(conv: Conv) -> bool:
    return not isinstance(conv.padding, str) and any(conv.padding)


def _multiplied(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _pooled_maps(pool: SumPool, conv: Conv, source: Shape) -> Conv | None:
    """Pooling after a convolution: a larger kernel with larger strides."""
    # With padding between the two, the pool reads zeros where the joined kernel would read the image.
    if any(pool.padding) or not _is_plain(conv) or len(pool.kernel) != conv.axes:
        return None
    kernel = _joined_kernel(conv.weight, np.full(pool.kernel, pool.weight), conv.stride)
    bias = None if conv.bias is None else conv.bias * (pool.weight * np.prod(pool.kernel))
    return conv.replace(weight=kernel, bias=bias, stride=_multiplied(conv.stride, pool.stride))


def _maps_of_pooled(conv: Conv, pool: SumPool, source: Shape) -> Conv | None:
    """A convolution of a pooled image: a larger kernel with larger strides."""
    if not _is_plain(conv) or _is_padded(conv) or len(pool.kernel) != conv.axes:
        return None
    window = np.full(pool.kernel, pool.weight)
    size = _joined_size(pool.kernel, conv.weight.shape[2:], pool.stride)
    kernel = np.zeros((*conv.weight.shape[:2], *size))
    for at in np.ndindex(*conv.weight.shape[2:]):
        tap = conv.weight[(slice(None), slice(None), *at)]
        kernel[(..., *_place(at, pool.stride, pool.kernel))] += tap[..., *([None] * conv.axes)] * window
    return conv.replace(weight=kernel, stride=_multiplied(conv.stride, pool.stride), padding=pool.padding)


def _maps_of_maps(second: Conv, first: Conv, source: Shape) -> Conv | None:
    """A convolution of a convolution's results: a larger kernel with larger strides."""
    # Padding between the two reads zeros. One kernel reads the image there, unless it reads nothing but zeros as well.
    alike = second.axes == first.axes and second.groups == first.groups == 1
    if not alike or not _is_plain(second) or not _is_plain(first):
        return None
    if _is_padded(second) and (_is_padded(first) or first.bias is not None or not _reads_single_elements(first)):
        return None
    size = _joined_size(first.weight.shape[2:], second.weight.shape[2:], first.stride)
    dtype = np.result_type(second.weight, first.weight)
    kernel = np.zeros((second.weight.shape[0], first.weight.shape[1], *size), dtype)
    for at in np.ndindex(*second.weight.shape[2:]):
        tap = second.weight[(slice(None), slice(None), *at)]
        place = _place(at, first.stride, first.weight.shape[2:])
        kernel[(..., *place)] += np.tensordot(tap, first.weight, axes=1)
    biases = [] if second.bias is None else [second.bias]
    if first.bias is not None:
        inner = np.broadcast_to(first.bias, first.weight.shape[:1])
        biases.append(second.weight.sum(axis=tuple(range(2, second.weight.ndim))) @ inner)
    padding = second.padding if _is_padded(second) else first.padding
    bias = sum(biases[1:], biases[0]) if biases else None
    return Conv(kernel, bias, _multiplied(second.stride, first.stride), padding, second.dilation)


def _reads_single_elements(conv: Conv) -> bool:
    return all(n == 1 for n in (*conv.weight.shape[2:], *conv.stride))


def _pooled_twice(second: SumPool, first: SumPool, source: Shape) -> SumPool | None:
    """Windows of windows that do not overlap: larger windows."""
    if isinstance(second, AvgPool) != isinstance(first, AvgPool) or any(second.padding):
        return None
    # In windows that overlap, some elements would count twice.
    if first.stride != first.kernel or len(first.kernel) != len(second.kernel):
        return None
    kernel, stride = _multiplied(second.kernel, first.kernel), _multiplied(second.stride, first.stride)
    return first.replace(kernel=kernel, stride=stride)


def _joined_kernel(weight: np.ndarray, window: np.ndarray, stride: tuple[int, ...]) -> np.ndarray:
    """The kernels of a strided convolution whose results are summed over a window."""
    kernel = np.zeros((*weight.shape[:2], *_joined_size(weight.shape[2:], window.shape, stride)))
    for at in np.ndindex(*window.shape):
        kernel[(..., *_place(at, stride, weight.shape[2:]))] += weight * window[at]
    return kernel


def _joined_size(first: Shape, second: Shape, stride: tuple[int, ...]) -> Shape:
    """Size of windows over the results of windows with a stride, in elements of the image."""
    return tuple(k + (n - 1) * s for k, n, s in zip(first, second, stride, strict=True))


def _place(at: tuple[int, ...], stride: tuple[int, ...], size: Shape) -> tuple[slice, ...]:
    """Where the window number ``at`` stands."""
    return tuple(slice(a * s, a * s + k) for a, s, k in zip(at, stride, size, strict=True))


RULES: dict[tuple[type[Operation], type[Operation]], Callable[[Any, Any, Shape], Operation | None]] = {
    (Scale, Scale): _scaled_scale,
    (Scale, Linear): _scaled_rows,
    (Linear, Scale): _scaled_columns,
    (Linear, Linear): _product,
    (Linear, Flatten): _reads_flat,
    (Select, Flatten): _reads_flat,
    (Flatten, Flatten): _flattened_twice,
    (Flatten, Select): _flattened_selection,
    (Select, Select): _selected_twice,
    (Select, Linear): _selected_rows,
    (Linear, Select): _selected_columns,
    (Scale, Conv): _scaled_results,
    (Conv, Scale): _scaled_image,
    (SumPool, Conv): _pooled_maps,
    (Conv, SumPool): _maps_of_pooled,
    (Conv, Conv): _maps_of_maps,
    (SumPool, SumPool): _pooled_twice,
}
"""By the kinds of the second and the first operation, how the two become one."""


# Scales that move through other operations ------------------------------------------------------------------------

# An example: the channels of an image [2, 4, 4] are scaled by 3 and 5, then pooled to [2, 2, 2]. The pool may come
# first, and the scale of the smaller image after it: the scale has 8 elements instead of 32, and may meet a matrix.


def scale_after(operation: Operation, scale: np.ndarray, source: Shape) -> np.ndarray | None:
    """The scale t for which ``operation(scale * x)`` is ``t * operation(x)``; None if there is none.

    Args:
        operation: any.
        scale: of the source's shape, or one number.
        source: shape of x.
    """
    if operation.offset(source) is not None:
        return None
    if not scale.ndim:
        return scale
    if isinstance(operation, PASSING):
        return scale.reshape(operation.target_shape(source))
    if isinstance(operation, Select):
        # What is zero may be scaled by anything.
        return np.where(operation.index < 0, 1.0, scale.ravel()[np.maximum(operation.index, 0)])
    if isinstance(operation, SumPool):
        return _of_channels(by_channel(scale, source), operation.target_shape(source))
    return None


def scale_before(operation: Operation, scale: np.ndarray, source: Shape) -> np.ndarray | None:
    """The scale s for which ``scale * operation(x)`` is ``operation(s * x)``; None if there is none.

    Args:
        operation: any.
        scale: of the target's shape, or one number.
        source: shape of x.
    """
    if operation.offset(source) is not None:
        return None
    if not scale.ndim:
        return scale
    if isinstance(operation, PASSING):
        return scale.reshape(source)
    if isinstance(operation, Select):
        return _before_selection(operation.index.ravel(), scale.ravel(), source)
    if isinstance(operation, SumPool):
        return _of_channels(by_channel(scale, operation.target_shape(source)), source)
    return None


def _of_channels(factors: np.ndarray | None, image: Shape) -> np.ndarray | None:
    return None if factors is None else np.broadcast_to(factors.reshape(-1, *(1 for _ in image[1:])), image).copy()


def _before_selection(index: np.ndarray, scale: np.ndarray, source: Shape) -> np.ndarray | None:
    is_selected = index >= 0
    before = np.ones(prod(source), scale.dtype)
    before[index[is_selected]] = scale[is_selected]
    # An element that is selected twice cannot be scaled in two ways.
    agrees = np.array_equal(before[index[is_selected]], scale[is_selected])
    return before.reshape(source) if agrees else None
