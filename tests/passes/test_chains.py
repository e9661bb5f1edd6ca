"""Chains of operations with relays between them: they fold into few, which compute the same affine map."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

import ranvier
from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import LIF, Relay
from ranvier.graph.operations import AvgPool, Conv, Flatten, Linear, Operation, Scale, Select, SumPool
from ranvier.graph.shared import ParameterBinding
from ranvier.graph.size import GraphSize
from ranvier.graph.snn_graph import SNNGraph
from tests.support.examples import examples
from tests.support.random_graphs import seeds
from tests.support.random_operations import channels, random_operation

IMAGE = (2, 6, 6)


def chain(
    source: tuple[int, ...],
    operations: list[Operation],
    options: Mapping[int, dict[str, Any]] | None = None,
    **end: Any,
) -> SNNGraph:
    """x -> operations, relays between them -> LIF neurons (or what ``end`` says) -> y."""
    shape, last = source, "x"
    populations, projections = [], []
    for k, operation in enumerate(operations):
        shape = operation.target_shape(shape)
        name = f"r{k}" if k + 1 < len(operations) else "n"
        neuron = Relay() if name != "n" else end.get("neuron", LIF(tau=5e-3, r=2.0))
        populations.append(Population(name, shape, neuron))
        projections.append(Projection(f"o{k}", last, name, operation, **(options or {}).get(k, {})))
        last = name
    readout = np.random.default_rng(0).normal(size=(2, prod(shape)))
    populations.append(Population("flat", (prod(shape),), Relay()))
    projections.append(Projection("flatten", "n", "flat", Flatten() if len(shape) > 1 else Select(np.arange(*shape))))
    projections.append(Projection("read", "flat", "y", Linear(readout)))
    inputs, outputs = [Input("x", source, low=0.0, high=1.0)], [Output("y", (2,))]
    return SNNGraph(dt=1e-3, inputs=inputs, populations=populations, projections=projections, outputs=outputs)


def kinds(graph: SNNGraph, target: str = "n") -> list[str]:
    """The operations that lead to a population, in order."""
    names: list[str] = []
    while into := graph.into(target):
        (projection,) = into
        names.insert(0, type(projection.operation).__name__)
        target = projection.source
    return names


def map_to(graph: SNNGraph, target: str) -> tuple[np.ndarray, np.ndarray]:
    """A and b of everything that leads from the input x to a population: the product of all matrices in between."""
    if target == "x":
        size = graph.inputs["x"].size
        return np.eye(size), np.zeros(size)
    into = graph.into(target)
    parts = []
    for projection in into:
        a, b = map_to(graph, projection.source)
        rows, offset = graph.affine_map(projection)
        parts.append((rows.toarray() @ a, rows.toarray() @ b + offset))
    return sum(a for a, _ in parts), sum(b for _, b in parts)


def same_map(before: SNNGraph, after: SNNGraph) -> None:
    gain = np.broadcast_to(after.populations["n"].neuron.parameters["r"], after.populations["n"].shape).ravel() / 2.0
    for old, new in zip(map_to(before, "n"), map_to(after, "n"), strict=True):
        np.testing.assert_allclose((new.T * gain).T, old, atol=1e-10)


POOLED = (2, 3, 3)
SEED = np.random.default_rng(0)
CHAINS = {
    "pool, scale": ([AvgPool(), channels(SEED, POOLED)], ["AvgPool"]),
    "scale, pool": ([channels(SEED, IMAGE), SumPool()], ["SumPool"]),
    "conv, pool, scale": (
        [Conv(SEED.normal(size=(2, 2, 3, 3)), None, (1, 1), (1, 1)), AvgPool(), channels(SEED, POOLED)],
        ["Conv", "AvgPool"],
    ),
    "scale, flatten": ([channels(SEED, IMAGE), Flatten()], ["Flatten"]),
    "flatten, matrix": ([Flatten(), Linear(SEED.normal(size=(3, 72)), SEED.normal(size=3))], ["Linear"]),
    "scale, flatten, matrix": (
        [Scale(SEED.normal(size=IMAGE)), Flatten(), Linear(SEED.normal(size=(3, 72)))],
        ["Linear"],
    ),
    "conv, norm, pool, flatten, matrix": (
        [
            Conv(SEED.normal(size=(2, 2, 3, 3)), SEED.normal(size=2), (1, 1), (1, 1)),
            channels(SEED, IMAGE),
            AvgPool(),
            Flatten(),
            Linear(SEED.normal(size=(3, 18)), SEED.normal(size=3)),
        ],
        ["Conv", "AvgPool", "Linear"],
    ),
    "pool, pool": ([AvgPool(), AvgPool((3, 1), (3, 1))], ["AvgPool"]),
    "conv, narrow conv": (
        [Conv(SEED.normal(size=(4, 2, 3, 3))), Conv(SEED.normal(size=(2, 4, 1, 1)), SEED.normal(size=2))],
        ["Conv"],
    ),
    "one number, sparse matrix": (
        [Scale(2.0), AvgPool(), Flatten(), Linear(sparse.csr_array(np.eye(3, 18)))],
        ["AvgPool", "Linear"],
    ),
    "other order, matrix": (
        [Select(SEED.permutation(72)), Linear(SEED.normal(size=(3, 72)))],
        ["Linear"],
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_folds(name: str) -> None:
    operations, expected = CHAINS[name]
    before = chain(IMAGE, operations)
    after, report = ranvier.optimize(before, "fuse")
    assert kinds(after) == expected
    same_map(before, after)
    assert GraphSize.of(after).bytes <= GraphSize.of(before).bytes
    assert str(report.promise) in ("bitwise", "algebraic")
    assert all(check.verdict != "different" for check in report.checks)


@pytest.mark.parametrize("name", CHAINS)
def test_a_folded_chain_is_written_to_nir(name: str) -> None:
    before = chain(IMAGE, CHAINS[name][0])
    after, _ = ranvier.optimize(before, "fuse", verify_each=False)
    again = ranvier.from_nir(ranvier.to_nir(after))
    x = {"x": np.random.default_rng(1).uniform(size=(20, *IMAGE))}
    np.testing.assert_allclose(ranvier.interpret(again, x)["y"], ranvier.interpret(before, x)["y"], atol=1e-9)


def random_chain(rng: np.random.Generator) -> SNNGraph:
    source = (int(rng.integers(1, 4)), int(rng.integers(4, 8)), int(rng.integers(4, 8)))
    shape, operations, options = source, [], {}
    while len(operations) < rng.integers(2, 8):
        operation = random_operation(rng, shape)
        try:
            target = operation.target_shape(shape)
        except ValueError:
            continue
        if rng.random() < 0.1:
            options[len(operations)] = {"delay": int(rng.integers(1, 3))}
        operations.append(operation)
        shape = target
    return chain(source, operations, options)


@given(seeds)
@settings(max_examples=examples(60), deadline=None)
def test_random_chains_compute_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = random_chain(rng)
    after, _ = ranvier.optimize(before, f"fuse{{grow={'true' if rng.random() < 0.3 else 'false'}}}", verify_each=False)
    same_map(before, after)
    assert len(after.projections) <= len(before.projections)
    x = {"x": rng.uniform(0, 1, (6, *before.inputs["x"].shape))}
    np.testing.assert_allclose(ranvier.interpret(after, x)["y"], ranvier.interpret(before, x)["y"], atol=1e-9)


@given(seeds)
@settings(max_examples=examples(30), deadline=None)
def test_no_chain_takes_more_memory(seed: int) -> None:
    before = random_chain(np.random.default_rng(seed))
    after, _ = ranvier.optimize(before, "fuse", verify_each=False)
    gain = after.populations["n"].neuron.parameters["r"].nbytes - before.populations["n"].neuron.parameters["r"].nbytes
    assert GraphSize.of(after).bytes + gain <= GraphSize.of(before).bytes


# Where nothing folds ----------------------------------------------------------------------------------------------

NORM = [channels(np.random.default_rng(1), IMAGE), AvgPool(), Flatten(), Linear(np.ones((3, 18)))]


def test_a_scale_that_differs_within_channels_stays_before_a_pool() -> None:
    before = chain(IMAGE, [Scale(np.random.default_rng(0).normal(size=IMAGE)), *NORM[1:]])
    assert kinds(ranvier.optimize(before, "fuse")[0]) == ["Scale", "AvgPool", "Linear"]


def test_what_would_be_larger_stays_apart() -> None:
    before = chain(IMAGE, [Conv(np.ones((4, 2, 1, 1))), Conv(np.ones((4, 4, 3, 3))), AvgPool()])
    after = ranvier.optimize(before, "fuse")[0]
    assert GraphSize.of(after).bytes <= GraphSize.of(before).bytes
    assert kinds(after)[-1] == "AvgPool"
    assert kinds(ranvier.optimize(before, "fuse{grow=true}")[0]) == ["Conv"]


def test_a_delay_with_initial_values_between_is_not_moved_through() -> None:
    before = chain(IMAGE, NORM, {1: {"delay": 1}})
    starts = before.copy()
    starts.populations["r0"] = starts.populations["r0"].replace(initial={"out": np.ones(IMAGE)})
    assert kinds(ranvier.optimize(before, "fuse")[0]) == ["AvgPool", "Linear"]
    assert kinds(ranvier.optimize(starts, "fuse")[0]) == ["Scale", "AvgPool", "Linear"]


def test_only_one_is_trained() -> None:
    before = chain(IMAGE, NORM, {0: {"trained": False}})
    after = ranvier.optimize(before, "fuse")[0]
    assert "Scale" in kinds(after)
    assert [p.trained for p in after.projections.values() if isinstance(p.operation, Scale)] == [False]


def test_a_flatten_needs_no_training() -> None:
    before = chain(IMAGE, [Flatten(), Linear(np.ones((3, 72)))], {0: {"trained": False}})
    after = ranvier.optimize(before, "fuse")[0]
    assert kinds(after) == ["Linear"]
    assert all(p.trained for p in after.into("n"))


def test_a_relay_with_other_users_keeps_what_it_gives() -> None:
    before = chain(IMAGE, NORM)
    before.populations["m"] = Population("m", (3,), LIF(tau=5e-3))
    before.projections["side"] = Projection("side", "r1", "r4", AvgPool((3, 3), (3, 3)))
    before.populations["r4"] = Population("r4", (2, 1, 1), LIF(tau=5e-3, r=5.0))
    before.projections["more"] = Projection("more", "r4", "y", Linear(np.ones((2, 2))))
    del before.populations["m"]
    after, _ = ranvier.optimize(before, "fuse")
    x = {"x": np.random.default_rng(1).uniform(size=(20, *IMAGE))}
    np.testing.assert_allclose(ranvier.interpret(after, x)["y"], ranvier.interpret(before, x)["y"], atol=1e-9)
    # Behind the pool two projections read the scaled image, so the scale does not leave for one of them.
    assert "Scale" in kinds(after)


def test_a_shared_scale_stays() -> None:
    before = chain(IMAGE, NORM)
    before.parameters["g"] = np.array([1.0, 2.0])
    index = np.broadcast_to(np.arange(2)[:, None, None], IMAGE).copy()
    before.bindings["o0", "scale"] = ParameterBinding(("g",), None, index)
    scale = Scale(before.parameters["g"][index])
    before.projections["o0"] = before.projections["o0"].replace(operation=scale)
    after, _ = ranvier.optimize(before, "fuse")
    assert kinds(after)[0] == "Scale"
    assert after.bindings["o0", "scale"].parameters == ("g",)


def test_a_shared_matrix_reads_the_image_and_stays_shared() -> None:
    before = chain(IMAGE, [Flatten(), Linear(np.ones((3, 72)))])
    before.parameters["w"] = np.ones((3, 72))
    before.bindings["o1", "weight"] = ParameterBinding(("w",), None, np.arange(216).reshape(3, 72))
    after, _ = ranvier.optimize(before, "fuse")
    assert kinds(after) == ["Linear"]
    assert after.bindings["o1", "weight"].parameters == ("w",)
