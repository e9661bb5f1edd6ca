"""Operations one after the other: the composed one is their product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from ranvier.graph.operations import AvgPool, Conv, Identity, Linear, Operation, Scale, SumPool
from ranvier.passes.composition import RULES, composed, scale_after, scale_before
from tests.support.examples import examples
from tests.support.random_operations import channels, random_operation


def affine(operation: Operation, source: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A and b."""
    target = operation.target_shape(source)
    offset = operation.offset(source)
    b = np.zeros(target) if offset is None else np.broadcast_to(offset, target)
    return operation.rows(source).toarray(), b.ravel()


def check(second: Operation, first: Operation, source: tuple[int, ...]) -> None:
    found = composed(second, first, source)
    assert found is not None
    a1, b1 = affine(first, source)
    a2, b2 = affine(second, first.target_shape(source))
    a, b = affine(found, source)
    np.testing.assert_allclose(a, a2 @ a1, atol=1e-12)
    np.testing.assert_allclose(b, a2 @ b1 + b2, atol=1e-12)
    assert found.target_shape(source) == second.target_shape(first.target_shape(source))


def matrix(rng: np.random.Generator, rows: int, columns: int) -> Any:
    found = rng.normal(size=(rows, columns))
    return sparse.csr_array(np.where(rng.random(found.shape) < 0.5, found, 0)) if rng.random() < 0.5 else found


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=examples(80), deadline=None)
def test_matrices_and_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def one(source: int) -> Operation:
        kind = rng.integers(3)
        if kind == 0:
            return Scale(rng.normal(size=source if rng.random() < 0.5 else ()))
        if kind == 1:
            return Identity()
        out = int(rng.integers(1, 5))
        bias = rng.normal(size=out) if rng.random() < 0.5 else None
        return Linear(matrix(rng, out, source), bias)

    source = int(rng.integers(1, 5))
    first = one(source)
    check(one(first.target_shape((source,))[0]), first, (source,))


def conv(rng: np.random.Generator, channels: int) -> Conv:
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    stride = tuple(int(k) for k in rng.integers(1, 3, 2))
    padding = tuple(int(k) for k in rng.integers(0, 2, 2)) if rng.random() < 0.7 else "valid"
    out = int(rng.integers(1, 4))
    return Conv(rng.normal(size=(out, channels, *kernel)), rng.normal(size=out), stride, padding)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=examples(80), deadline=None)
def test_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = (int(rng.integers(1, 4)), int(rng.integers(7, 12)), int(rng.integers(7, 12)))
    pool = (SumPool if rng.random() < 0.5 else AvgPool)((2, 3), (int(rng.integers(1, 3)), 2), (0, 0))
    scale = Scale(rng.normal(size=(source[0], 1, 1)) * np.ones(source))
    after = {"conv": conv(rng, source[0]), "pool": pool, "scale": scale}
    name = rng.choice(list(after))
    first = after[name]
    try:
        middle = first.target_shape(source)
        second = pool if name == "conv" and rng.random() < 0.5 else conv(rng, middle[0])
        if name == "conv" and second is not pool:
            second = Scale(rng.normal(size=(middle[0], 1, 1)) * np.ones(middle))
        second.target_shape(middle)
    except ValueError:
        assume(False)
        raise
    if name == "pool" and not isinstance(second.padding, str) and any(second.padding):
        assert composed(second, first, source) is None
        return
    check(second, first, source)


@pytest.mark.parametrize(
    ("second", "first", "source"),
    [
        (Scale(np.arange(18.0).reshape(2, 3, 3)), Conv(np.ones((2, 1, 1, 1))), (1, 3, 3)),
        (Conv(np.ones((1, 1, 2, 2)), None, (1, 1), (1, 1)), Conv(np.ones((1, 1, 2, 2))), (1, 4, 4)),
        (AvgPool((2, 2), (2, 2), (1, 1)), Conv(np.ones((1, 1, 2, 2))), (1, 5, 5)),
    ],
)
def test_what_is_no_one_operation(second: Operation, first: Operation, source: tuple[int, ...]) -> None:
    assert composed(second, first, source) is None


def random_source(rng: np.random.Generator) -> tuple[int, ...]:
    image = (int(rng.integers(1, 4)), int(rng.integers(2, 6)), int(rng.integers(2, 6)))
    return image if rng.random() < 0.7 else image[:1]


def fitting(rng: np.random.Generator, source: tuple[int, ...]) -> Operation:
    """A random operation that can read the source."""
    while True:
        operation = random_operation(rng, source)
        try:
            operation.target_shape(source)
        except ValueError:
            continue
        return operation


def test_every_rule_computes_the_product() -> None:
    rng, used = np.random.default_rng(0), set()
    for _ in range(4000):
        source = random_source(rng)
        first = fitting(rng, source)
        second = fitting(rng, first.target_shape(source))
        if composed(second, first, source) is not None:
            check(second, first, source)
            used |= {kinds for kinds in RULES if isinstance(second, kinds[0]) and isinstance(first, kinds[1])}
    assert used == set(RULES)


def random_scale(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if rng.random() < 0.2:
        return rng.normal(size=())
    return channels(rng, shape).scale if rng.random() < 0.6 else rng.normal(size=shape)


def test_scales_move_through_operations() -> None:
    rng, moved = np.random.default_rng(0), {"after": set(), "before": set()}
    for _ in range(2000):
        source = random_source(rng)
        operation = fitting(rng, source)
        a, b = affine(operation, source)
        target = operation.target_shape(source)
        s, t = random_scale(rng, source), random_scale(rng, target)
        if (after := scale_after(operation, s, source)) is not None:
            assert Scale(after).target_shape(target) == target
            scaled = a * np.broadcast_to(s, source).ravel()
            np.testing.assert_allclose(np.broadcast_to(after, target).reshape(-1, 1) * a, scaled, atol=1e-12)
            moved["after"].add(type(operation).__name__)
        if (before := scale_before(operation, t, source)) is not None:
            assert Scale(before).target_shape(source) == source
            scaled = np.broadcast_to(t, target).reshape(-1, 1) * a
            np.testing.assert_allclose(a * np.broadcast_to(before, source).ravel(), scaled, atol=1e-12)
            moved["before"].add(type(operation).__name__)
        assert not np.any(b) or after is before is None
    assert moved["after"] == moved["before"] == {"Linear", "Scale", "Select", "Conv", "SumPool", "AvgPool", "Flatten"}
