"""Channels of images: dead ones go and alike ones merge, with all that keeps them apart."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ranvier
from ranvier import Input, Output, Population, Projection, SNNGraph, interpret, optimize
from ranvier.graph.analysis.bundles import bundles
from ranvier.graph.neurons import IF, LIF, Relay
from ranvier.graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Scale, SumPool
from tests.support.examples import examples

CHANNELS = 6


def network(seed: int = 0, pool: type[SumPool] = SumPool) -> SNNGraph:
    """Two channels, six channels of spikes, pooled, scaled, spikes again, flattened, eight neurons, three outputs."""
    rng = np.random.default_rng(seed)
    shape = (CHANNELS, 4, 4)
    return SNNGraph(
        dt=1e-3,
        inputs=[Input("x", (2, 6, 6), 0.0, 1.0)],
        populations=[
            Population("c", shape, LIF(tau=rng.uniform(3e-3, 9e-3, shape), v_threshold=0.6)),
            Population("p", (CHANNELS, 2, 2), Relay()),
            Population("s", (CHANNELS, 2, 2), IF(r=rng.uniform(200, 400, (CHANNELS, 2, 2)), v_threshold=0.7)),
            Population("f", (CHANNELS * 4,), Relay()),
            Population("h", (8,), LIF(tau=5e-3, v_threshold=0.3)),
        ],
        projections=[
            Projection("conv", "x", "c", Conv(rng.normal(0.2, 0.5, (CHANNELS, 2, 3, 3)), rng.normal(0, 0.1, CHANNELS))),
            Projection("pool", "c", "p", pool()),
            Projection("gain", "p", "s", Scale(rng.uniform(0.5, 2.0, (CHANNELS, 2, 2)))),
            Projection("back", "s", "s", Conv(rng.normal(0, 0.2, (CHANNELS, CHANNELS, 1, 1))), delay=1),
            Projection("flat", "s", "f", Flatten()),
            Projection("w", "f", "h", Linear(rng.normal(0.1, 0.5, (8, CHANNELS * 4)))),
            Projection("out", "h", "y", Linear(rng.normal(size=(3, 8)))),
        ],
        outputs=[Output("y", (3,))],
    )


def data(seed: int) -> np.ndarray:
    return np.random.default_rng(seed + 1).uniform(0, 1, (30, 3, 2, 6, 6))


def changed(graph: SNNGraph, name: str, **arrays: np.ndarray) -> None:
    projection = graph.projections[name]
    graph.projections[name] = projection.replace(operation=projection.operation.replace(**arrays))


def with_dead_channels(graph: SNNGraph, dead: list[int], how: str) -> SNNGraph:
    """Some channels never fire, or nobody reads them."""
    graph = graph.copy()
    found = {name: {k: np.array(v) for k, v in p.operation.arrays.items()} for name, p in graph.projections.items()}
    if how == "silent":
        for array in found["conv"].values():
            array[dead] = -1.0
        found["back"]["weight"][dead] = 0.0
        changed(graph, "conv", **found["conv"])
    else:
        found["back"]["weight"][:, dead] = 0.0
        found["w"]["weight"].reshape(8, CHANNELS, 4)[:, dead] = 0.0
        changed(graph, "w", **found["w"])
    changed(graph, "back", **found["back"])
    return graph


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silent", "not read"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=examples(10), deadline=None)
def test_planted_dead_channels_go_and_nothing_else(how: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dead = sorted(rng.choice(CHANNELS, rng.integers(1, CHANNELS), replace=False).tolist())
    graph = with_dead_channels(network(seed), dead, how)
    small, report = optimize(graph, "dead-neurons")
    left = CHANNELS - len(dead)
    assert [small.populations[name].shape[0] for name in ("c", "p", "s", "f")] == [left, left, left, 4 * left]
    assert report.promise is ranvier.Promise.BITWISE
    np.testing.assert_array_equal(interpret(small, data(seed)).output, interpret(graph, data(seed)).output)
    assert [remark.neurons.tolist() for remark in report.remarks if remark.about == "c, p, s, f"] == [dead]


def copied(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    if not values.ndim:
        return values
    channels = values.reshape(CHANNELS, -1)[of]
    return channels.reshape(values.shape[0] // CHANNELS * len(of), *values.shape[1:])


def with_copies(graph: SNNGraph, of: np.ndarray) -> SNNGraph:
    """Channel k is a copy of ``of[k]``; what comes from a channel is split among its copies."""
    graph = graph.copy()
    share = 1 / np.bincount(of)[of]
    for name in ("c", "p", "s", "f"):
        old = graph.populations[name]
        shape = (old.shape[0] // CHANNELS * len(of), *old.shape[1:])
        graph.populations[name] = old.replace(shape=shape, neuron=old.neuron.map(partial(copied, of=of)))
    arrays = {name: p.operation.arrays for name, p in graph.projections.items()}
    changed(graph, "conv", weight=arrays["conv"]["weight"][of], bias=arrays["conv"]["bias"][of])
    changed(graph, "gain", scale=arrays["gain"]["scale"][of])
    changed(graph, "back", weight=arrays["back"]["weight"][of][:, of] * share[:, None, None])
    weight = arrays["w"]["weight"].reshape(8, CHANNELS, 4)[:, of] * share[:, None]
    changed(graph, "w", weight=weight.reshape(8, -1))
    return graph


@pytest.mark.slow
@given(seed=st.integers(0, 10**6))
@settings(max_examples=examples(10), deadline=None)
def test_planted_copies_of_channels_merge_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.concatenate([np.arange(CHANNELS), rng.integers(0, CHANNELS, 3)]))
    small = network(seed)
    graph = with_copies(small, of)
    made, report = optimize(graph, "merge-neurons")
    assert {name: p.shape for name, p in made.populations.items()} == {n: p.shape for n, p in small.populations.items()}
    assert report.promise is ranvier.Promise.ALGEBRAIC
    expected = interpret(small, data(seed)).output
    np.testing.assert_allclose(interpret(made, data(seed)).output, expected, rtol=1e-9, atol=1e-9)
    numbers = report.origins.places["c"].numbers.reshape(len(of), -1)[:, 0]
    assert all((numbers[i] == numbers[j]) == (of[i] == of[j]) for i in range(len(of)) for j in range(len(of)))


def test_channels_that_differ_in_one_place_stay_apart() -> None:
    graph = with_copies(network(), np.array([0, 1, 2, 3, 4, 5, 5]))
    scale = np.array(graph.projections["gain"].operation.arrays["scale"])
    scale[6, 1, 1] *= 1.01
    changed(graph, "gain", scale=scale)
    made, _ = optimize(graph, "merge-neurons")
    assert made.populations["c"].shape[0] == 7


@pytest.mark.slow
def test_channels_by_data_and_by_importance() -> None:
    graph = network(3)
    graph.inputs["x"] = Input("x", (2, 6, 6))
    changed(graph, "conv", bias=np.array([0.0, 0.0, -50.0, 0.0, 0.0, 0.0]))
    back = np.array(graph.projections["back"].operation.arrays["weight"])
    back[2] = 0.0
    changed(graph, "back", weight=back)
    made, report = optimize(graph, "dead-neurons{threshold=0}", calibration=data(3))
    assert made.populations["c"].shape[0] == 5
    assert report.promise is ranvier.Promise.PROFILED
    np.testing.assert_array_equal(interpret(made, data(3)).output, interpret(graph, data(3)).output)
    pruned, report = optimize(graph, "prune{sparsity=0.34,structured=true,method=saliency}", calibration=data(3))
    assert [pruned.populations[name].shape[0] for name in ("c", "p", "s", "f", "h")] == [4, 4, 4, 16, 5]
    assert ranvier.problems(pruned) == []


@pytest.mark.slow
def test_convolutions_by_channel_and_averages_keep_channels_apart() -> None:
    rng = np.random.default_rng(5)
    graph = network(5, AvgPool)
    apart = Conv(rng.uniform(0.5, 2.0, (CHANNELS, 1, 1, 1)), rng.normal(0, 0.1, CHANNELS), groups=CHANNELS)
    graph.projections["gain"] = Projection("gain", "p", "s", apart)
    silent = with_dead_channels(graph, [1, 4], "not read")
    made, _ = optimize(silent, "dead-neurons")
    assert made.populations["s"].shape[0] == 4
    assert made.projections["gain"].operation.groups == 4
    np.testing.assert_array_equal(interpret(made, data(5)).output, interpret(silent, data(5)).output)


@pytest.mark.slow
def test_channels_that_an_input_or_an_output_shows_stay() -> None:
    graph = network()
    graph.projections["also"] = Projection("also", "p", "shown", Identity())
    graph.outputs["shown"] = Output("shown", (CHANNELS, 2, 2))
    (bundle,) = [bundle for bundle in bundles(graph) if "c" in bundle.names]
    assert bundle.names == ("c", "p", "s", "f")
    assert bundle.fixed == "'shown' keeps its channels"
    silent = with_dead_channels(graph, [0], "silent")
    made, report = optimize(silent, "dead-neurons")
    assert made.populations["c"].shape == (CHANNELS, 4, 4)
    assert any(
        "1 channels could be removed, but 'shown' keeps its channels" in str(remark) for remark in report.remarks
    )


@pytest.mark.slow
def test_a_constant_into_an_image_loses_its_channels_too() -> None:
    graph = with_dead_channels(network(), [2], "not read")
    bias = np.random.default_rng(0).uniform(0, 0.1, (CHANNELS, 4, 4))
    graph.projections["bias"] = Projection("bias", "x", "c", Constant(bias))
    made, _ = optimize(graph, "dead-neurons")
    assert made.projections["bias"].operation.arrays["bias"].shape == (5, 4, 4)
    np.testing.assert_array_equal(interpret(made, data(0)).output, interpret(graph, data(0)).output)
