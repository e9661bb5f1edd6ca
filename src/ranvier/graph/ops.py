"""The arithmetic in which neurons and operations are written.

Equations of neurons and operations stand once, as ``update(ops, ...)`` and ``apply(ops, ...)``, and do not know what
they compute with: numpy in float64 (:data:`REFERENCE`), JAX (``simulation/jax_ops.py``), or expressions whose text is
a program (``export/source_ops.py``). Arrays of all of them take ``+ - * /`` and comparisons; what needs a name is a
method here. For example ``v + dt / tau * (i - v)`` with dt = 1, tau = 2, v = 0 and i = 4 is 2.0 in numpy, a traced
array in JAX, and ``hidden_v = state["hidden"]["v"] + DT / ...`` in exported source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from .windows import Window

Array = Any
"""A value of the kind that the ops compute with."""
State = dict[str, Array]
"""States by name."""


class NeuronOps(Protocol):
    """What equations of neurons need."""

    def exp(self, x: Array) -> Array:
        """The exponential function, by element."""
        ...

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        """x where the condition holds, else y."""
        ...

    def spike(self, v: Array, threshold: Array, fires: str) -> Array:
        """One where v is above the threshold (or at it, where ``fires`` is ``">="``), else zero."""
        ...

    def push(self, queue: Array, newest: Array) -> Array:
        """``[n + 1, ...]``: a queue ``[n, ...]`` with the newest value in front."""
        ...

    def drop_last(self, queue: Array) -> Array:
        """The queue without its oldest value."""
        ...

    def look_back(self, queue: Array, steps: Array) -> Array:
        """By element, ``queue[steps]``: steps has the shape of an entry of the queue, or broadcasts to it."""
        ...


class OperationOps(Protocol):
    """What operations of projections need, for one sample.

    The reference has none of these: it multiplies by the matrix of an operation (``Operation.rows``), so that the
    matrix and ``apply`` check each other.
    """

    def product(self, weight: Array, x: Array) -> Array:
        """``weight @ x`` for a dense weight ``[out, in]``."""
        ...

    def sparse_product(self, values: Array, rows: Any, x: Array) -> Array:
        """The same for the stored values of sparse rows; ``rows`` is the matrix that says where they stand."""
        ...

    def convolve(self, x: Array, weight: Array, window: Window, groups: int) -> Array:
        """A convolution of an image ``[channels, *axes]`` with a kernel ``[out, in / groups, *kernel]``."""
        ...

    def sum_windows(self, x: Array, window: Window) -> Array:
        """Sums over the windows of an image, by channel."""
        ...

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        """The same elements in another shape, in C order."""
        ...

    def pick(self, x: Array, index: np.ndarray) -> Array:
        """Elements of the flattened x by number, of the index's shape; zero for the number -1."""
        ...

    def call(self, function: Any, arrays: Mapping[str, Array], x: Array) -> Array:
        """A map that is a traced function (:class:`~ranvier.graph.traced.Mapped`)."""
        ...


class ReferenceOps:
    """Numpy: what a neuron means. In float64, and without derivatives."""

    def exp(self, x: Array) -> Array:
        return np.exp(x)

    def where(self, condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    def spike(self, v: Array, threshold: Array, fires: str) -> Array:
        return (v > threshold if fires == ">" else v >= threshold).astype(np.float64)

    def push(self, queue: Array, newest: Array) -> Array:
        return np.concatenate([newest[None], queue])

    def drop_last(self, queue: Array) -> Array:
        return queue[:-1]

    def look_back(self, queue: Array, steps: Array) -> Array:
        entry = np.broadcast_to(steps, queue.shape[1:]).astype(np.int64)
        return np.take_along_axis(queue, entry[None], axis=0)[0]


REFERENCE = ReferenceOps()
"""The reference's arithmetic."""
