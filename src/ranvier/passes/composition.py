"""One operation after another as one."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from ..graph.operations import Constant, Conv, Identity, Linear, Operation, Scale, Shape, SumPool


def composed(second: Operation, first: Operation, source: Shape) -> Operation | None:
    """``second(first(x))`` for a source of a shape; None where there is no one operation for that.

    The offset of a :class:`Linear` or :class:`Conv` goes along.
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
    """What becomes of a constant."""
    found = (second.rows(middle) @ first.bias.ravel()).reshape(second.target_shape(middle))
    offset = second.offset(middle)
    return Constant(found if offset is None else found + offset)


def by_channel(scale: np.ndarray, shape: Shape) -> np.ndarray | None:
    """A scale ``[channels]`` of images; None where it differs within a channel."""
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
    """A convolution with scaled channels; ``out`` or ``into`` is given, or cannot be said by channel."""
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
    """A pool after a convolution: a larger kernel with larger strides."""
    if any(pool.padding) or not _is_plain(conv) or len(pool.kernel) != conv.axes:
        return None
    kernel = _joined_kernel(conv.weight, np.full(pool.kernel, pool.weight), conv.stride)
    stride = tuple(a * b for a, b in zip(conv.stride, pool.stride, strict=True))
    bias = None if conv.bias is None else conv.bias * (pool.weight * np.prod(pool.kernel))
    return Conv(kernel, bias, stride, conv.padding, conv.dilation, conv.groups)


def _maps_of_pooled(conv: Conv, pool: SumPool) -> Conv | None:
    """A convolution of a pooled image: likewise."""
    padded = not isinstance(conv.padding, str) and any(conv.padding)
    if not _is_plain(conv) or padded or len(pool.kernel) != conv.axes:
        return None
    window = np.full(pool.kernel, pool.weight)
    size = tuple(p + (k - 1) * s for p, k, s in zip(pool.kernel, conv.weight.shape[2:], pool.stride, strict=True))
    kernel = np.zeros((*conv.weight.shape[:2], *size))
    for at in np.ndindex(*conv.weight.shape[2:]):
        place = tuple(slice(a * s, a * s + p) for a, s, p in zip(at, pool.stride, pool.kernel, strict=True))
        one = conv.weight[(slice(None), slice(None), *at)]
        kernel[(slice(None), slice(None), *place)] += one[..., *([None] * conv.axes)] * window
    stride = tuple(a * b for a, b in zip(conv.stride, pool.stride, strict=True))
    return Conv(kernel, conv.bias, stride, pool.padding, conv.dilation, conv.groups)


def _joined_kernel(weight: np.ndarray, window: np.ndarray, stride: tuple[int, ...]) -> np.ndarray:
    """Kernels of a convolution with a stride whose results are summed over a window."""
    size = tuple(k + (p - 1) * s for k, p, s in zip(weight.shape[2:], window.shape, stride, strict=True))
    kernel = np.zeros((*weight.shape[:2], *size))
    for at in np.ndindex(*window.shape):
        place = tuple(slice(a * s, a * s + k) for a, s, k in zip(at, stride, weight.shape[2:], strict=True))
        kernel[(slice(None), slice(None), *place)] += weight * window[at]
    return kernel
