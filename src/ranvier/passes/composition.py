"""Two operations in sequence as one operation."""

# An example in one dimension: a convolution with the kernel [1 2] and stride 1, then sums over windows of 2, stride 2.
#
#   (x0 + 2 x1) + (x1 + 2 x2) = x0 + 3 x1 + 2 x2: a kernel [1 3 2] with stride 1 * 2 = 2
#
# The other way round, sums over windows of 2 and then the kernel [1 2]:
#
#   (x0 + x1) + 2 (x2 + x3): a kernel [1 1 2 2] with stride 2 * 1 = 2

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..graph.operations import Constant, Conv, Identity, Linear, Operation, Scale, Shape, SumPool


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
    middle = first.target_shape(source)
    if isinstance(first, Constant):
        return _passed_on(second, first, middle)
    if isinstance(second, Scale) and isinstance(first, Scale):
        return Scale(second.scale * first.scale)
    if isinstance(second, Scale) and isinstance(first, Linear):
        return _scaled_rows(second.scale, first)
    if isinstance(second, Linear) and isinstance(first, Scale):
        return Linear(_scaled(second.weight, np.broadcast_to(first.scale, source)[None, :]), second.bias)
    if isinstance(second, Linear) and isinstance(first, Linear):
        return _product(second, first)
    if isinstance(second, Scale) and isinstance(first, Conv):
        return _scaled_maps(first, by_channel(second.scale, middle), None)
    if isinstance(second, Conv) and isinstance(first, Scale):
        return _scaled_maps(second, None, by_channel(first.scale, source))
    if isinstance(second, SumPool) and isinstance(first, Conv):
        return _pooled_maps(second, first)
    if isinstance(second, Conv) and isinstance(first, SumPool):
        return _maps_of_pooled(second, first)
    return None


def _passed_on(second: Operation, first: Constant, middle: Shape) -> Constant:
    """The constant that an operation maps a constant to."""
    mapped = (second.rows(middle) @ first.bias.ravel()).reshape(second.target_shape(middle))
    offset = second.offset(middle)
    return Constant(mapped if offset is None else mapped + offset)


def by_channel(scale: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A scale of images as ``[channels]``; None if it differs within a channel."""
    channels = np.broadcast_to(scale, shape).reshape(shape[0], -1)
    return channels[:, 0] if np.all(channels == channels[:, :1]) else None


def _scaled(weight: Any, factor: np.ndarray) -> Any:
    return sparse.csr_array(weight.multiply(factor)) if sparse.issparse(weight) else weight * factor


def _scaled_rows(scale: np.ndarray, linear: Linear) -> Linear:
    rows = np.broadcast_to(scale, linear.weight.shape[:1])
    bias = None if linear.bias is None else rows * linear.bias
    return Linear(_scaled(linear.weight, rows[:, None]), bias)


def _product(second: Linear, first: Linear) -> Linear:
    weight = second.weight @ first.weight
    biases = [] if second.bias is None else [second.bias]
    if first.bias is not None:
        biases.append(second.weight @ np.broadcast_to(first.bias, first.weight.shape[:1]))
    return Linear(weight, sum(biases[1:], biases[0]) if biases else None)


def _scaled_maps(conv: Conv, out: np.ndarray | None, into: np.ndarray | None) -> Conv | None:
    """A convolution with scaled output or input channels; None if there are no factors by channel."""
    if out is not None:
        bias = None if conv.bias is None else conv.bias * out
        return _changed(conv, conv.weight * out.reshape(-1, *(1 for _ in conv.weight.shape[1:])), bias)
    if into is not None and conv.groups == 1:
        return _changed(conv, conv.weight * into.reshape(1, -1, *(1 for _ in range(conv.axes))), conv.bias)
    return None


def _changed(conv: Conv, weight: np.ndarray, bias: Any) -> Conv:
    return Conv(weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _is_plain(conv: Conv) -> bool:
    return all(d == 1 for d in conv.dilation) and (conv.padding == "valid" or not isinstance(conv.padding, str))


def _pooled_maps(pool: SumPool, conv: Conv) -> Conv | None:
    """Pooling after a convolution: a larger kernel with larger strides."""
    # With padding between the two, the pool reads zeros where the joined kernel would read the image.
    if any(pool.padding) or not _is_plain(conv) or len(pool.kernel) != conv.axes:
        return None
    kernel = _joined_kernel(conv.weight, np.full(pool.kernel, pool.weight), conv.stride)
    stride = tuple(a * b for a, b in zip(conv.stride, pool.stride, strict=True))
    bias = None if conv.bias is None else conv.bias * (pool.weight * np.prod(pool.kernel))
    return Conv(kernel, bias, stride, conv.padding, conv.dilation, conv.groups)


def _maps_of_pooled(conv: Conv, pool: SumPool) -> Conv | None:
    """A convolution of a pooled image: a larger kernel with larger strides."""
    padded = not isinstance(conv.padding, str) and any(conv.padding)
    if not _is_plain(conv) or padded or len(pool.kernel) != conv.axes:
        return None
    window = np.full(pool.kernel, pool.weight)
    size = tuple(p + (k - 1) * s for p, k, s in zip(pool.kernel, conv.weight.shape[2:], pool.stride, strict=True))
    kernel = np.zeros((*conv.weight.shape[:2], *size))
    for at in np.ndindex(*conv.weight.shape[2:]):
        place = tuple(slice(a * s, a * s + p) for a, s, p in zip(at, pool.stride, pool.kernel, strict=True))
        tap = conv.weight[(slice(None), slice(None), *at)]
        kernel[(slice(None), slice(None), *place)] += tap[..., *([None] * conv.axes)] * window
    stride = tuple(a * b for a, b in zip(conv.stride, pool.stride, strict=True))
    return Conv(kernel, conv.bias, stride, pool.padding, conv.dilation, conv.groups)


def _joined_kernel(weight: np.ndarray, window: np.ndarray, stride: tuple[int, ...]) -> np.ndarray:
    """The kernels of a strided convolution whose results are summed over a window."""
    size = tuple(k + (p - 1) * s for k, p, s in zip(weight.shape[2:], window.shape, stride, strict=True))
    kernel = np.zeros((*weight.shape[:2], *size))
    for at in np.ndindex(*window.shape):
        place = tuple(slice(a * s, a * s + k) for a, s, k in zip(at, stride, weight.shape[2:], strict=True))
        kernel[(slice(None), slice(None), *place)] += weight * window[at]
    return kernel
