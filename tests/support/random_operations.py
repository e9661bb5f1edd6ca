"""Random operations for a source of some shape."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ranvier.graph.operations import AvgPool, Conv, Flatten, Linear, Operation, Scale, Select, SumPool


def channels(rng: np.random.Generator, shape: tuple[int, ...]) -> Scale:
    """A folded batch norm: one factor for every channel."""
    return Scale(np.broadcast_to(rng.uniform(0.5, 1.5, (shape[0], *(1 for _ in shape[1:]))), shape).copy())


def random_operation(rng: np.random.Generator, shape: tuple[int, ...]) -> Operation:
    size = prod(shape)
    if len(shape) == 1:
        out = int(rng.integers(1, 8))
        weight: Any = rng.normal(size=(out, size))
        weight = sparse.csr_array(np.where(rng.random(weight.shape) < 0.3, weight, 0)) if rng.random() < 0.3 else weight
        options: list[Operation] = [
            Linear(weight, rng.normal(size=out) if rng.random() < 0.5 else None),
            Scale(rng.normal(size=size if rng.random() < 0.5 else ())),
            Select(rng.permutation(size) if rng.random() < 0.5 else rng.integers(-1, size, int(rng.integers(1, 9)))),
        ]
        return options[rng.integers(len(options))]
    if len(shape) == 2:
        options = [Scale(rng.normal(size=shape)), Flatten(), Select(rng.permutation(size).reshape(shape))]
        return options[rng.integers(len(options))]
    groups = shape[0] if rng.random() < 0.3 else 1
    out = groups * int(rng.integers(1, 3))
    kernel = tuple(int(k) for k in rng.integers(1, 3, 2))
    padding = tuple(int(p) for p in rng.integers(0, 2, 2)) if rng.random() < 0.5 else "valid"
    bias = rng.normal(size=out) if rng.random() < 0.5 else None
    pool = SumPool if rng.random() < 0.5 else AvgPool
    stride = kernel if rng.random() < 0.5 else (1, 1)
    options = [
        Conv(rng.normal(size=(out, shape[0] // groups, *kernel)), bias, (1, 1), padding, (1, 1), groups),
        pool(kernel, stride, (int(rng.integers(0, 2)) if kernel[0] == 2 else 0, 0)),
        channels(rng, shape),
        Scale(rng.normal(size=shape if rng.random() < 0.5 else ())),
        Flatten(*((0, -1), (1, 2), (0, 1))[rng.integers(3)]) if rng.random() < 0.3 else Flatten(),
        Select(rng.permutation(size).reshape(shape if rng.random() < 0.3 else -1)),
    ]
    return options[rng.integers(len(options))]
