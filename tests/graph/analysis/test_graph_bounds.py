"""Bounds of graphs: what is proved silent never fires, what is proved to fire always does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import ranvier
from ranvier.graph.analysis.bounds import bounds
from ranvier.graph.analysis.observability import observable_neurons
from ranvier.graph.neurons import ALIF, IF, LI, LIF, CubaLIF, Threshold
from ranvier.graph.operations import Identity, Linear
from tests.support.examples import examples
from tests.support.random_graphs import random_graph, seeds


def with_ranges(graph: ranvier.SNNGraph, low: float, high: float) -> ranvier.SNNGraph:
    graph.inputs = {k: ranvier.Input(k, node.shape, low, high) for k, node in graph.inputs.items()}
    return graph


def one(neuron: Any, weight: float, *, bias: float = 0.0, low: float = 0.0, high: float = 1.0) -> ranvier.SNNGraph:
    """An input, one neuron, its output."""
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (1,), low, high)],
        populations=[ranvier.Population("a", (1,), neuron)],
        projections=[
            ranvier.Projection("w", "x", "a", Linear([[weight]], [bias])),
            ranvier.Projection("y", "a", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (1,))],
    )


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(120), deadline=None)
def test_bounds_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = sorted(rng.uniform(-1, 1.5, 2))
    graph = with_ranges(random_graph(seed), low, high)
    if rng.random() < 0.5:
        graph.projections = {
            k: p.replace(operation=Linear(p.operation.arrays["weight"] * 0.2, p.operation.arrays.get("bias")))
            if isinstance(p.operation, Linear)
            else p
            for k, p in graph.projections.items()
        }
    found = bounds(graph)
    for trial in range(3):
        values = rng.choice([low, high], 60) if trial else rng.uniform(low, high, 60)
        inputs = {
            k: np.broadcast_to(values.reshape(60, *(1 for _ in node.shape)), (60, *node.shape))
            for k, node in graph.inputs.items()
        }
        run = ranvier.interpret(graph, inputs, record=list(graph.populations))
        for name in graph.populations:
            seen = run[name].reshape(60, -1)
            assert np.all(seen >= found.values[name].low)
            assert np.all(seen <= found.values[name].high)


def test_silence_is_proved() -> None:
    for neuron in (
        LIF(tau=0.01, v_threshold=1.0),
        CubaLIF(tau_syn=0.005, tau_mem=0.01, v_threshold=1.0),
        ALIF(tau=0.01, tau_a=0.1, beta=0.5, v_threshold=1.0),
        Threshold(threshold=1.0),
        LIF(tau=0.01, v_threshold=1.0, integration="exponential", reset="subtract"),
    ):
        assert bounds(one(neuron, 0.9)).silent["a"].tolist() == [True], neuron
        assert bounds(one(neuron, 1.1)).silent["a"].tolist() == [False], neuron
        assert bounds(one(neuron, 5.0, low=-1.0, high=0.0)).silent["a"].tolist() == [True], neuron
    assert not bounds(one(IF(r=1.0, v_threshold=1.0), 1e-3)).silent["a"].any()
    assert bounds(one(IF(r=1.0, v_threshold=1.0), -1.0)).silent["a"].all()


def test_constant_firing_is_proved() -> None:
    for neuron in (
        LIF(tau=0.01, v_threshold=1.0),
        LIF(tau=0.01, v_threshold=1.0, reset="subtract"),
        LIF(tau=0.01, v_threshold=1.0, integration="exponential"),
        IF(r=1e3, v_threshold=1.0),
        Threshold(threshold=1.0),
    ):
        assert bounds(one(neuron, 1.0, bias=20.0)).constant["a"].tolist() == [True], neuron
        assert bounds(one(neuron, 1.0, bias=0.5)).constant["a"].tolist() == [False], neuron


def test_an_unknown_input_proves_nothing() -> None:
    graph = one(LIF(tau=0.01), 1e-6)
    graph.inputs["x"] = ranvier.Input("x", (1,))
    assert not bounds(graph).silent["a"].any()


def test_silence_spreads_through_recurrence() -> None:
    """Two populations that only drive one another are silent, as is what a silent one drives."""
    graph = one(LIF(tau=0.01), 0.5)
    for name in ("b", "c"):
        graph.populations[name] = ranvier.Population(name, (2,), LIF(tau=0.01))
    big = Linear(np.full((2, 2), 9.0))
    graph.projections["bc"] = ranvier.Projection("bc", "b", "c", big)
    graph.projections["cb"] = ranvier.Projection("cb", "c", "b", big, delay=1)
    graph.projections["ab"] = ranvier.Projection("ab", "a", "b", Linear(np.full((2, 1), 9.0)))
    found = bounds(graph)
    assert found.silent["b"].all()
    assert found.silent["c"].all()
    graph.projections["w"] = ranvier.Projection("w", "x", "a", Linear([[2.0]]))
    assert not bounds(graph).silent["c"].any()


def test_a_growing_recurrence_is_unbounded() -> None:
    graph = one(LI(tau=0.01), 1.0)
    graph.projections["self"] = ranvier.Projection("self", "a", "a", Linear([[2.0]]), delay=1)
    assert bounds(graph).values["a"].high.tolist() == [np.inf]


def test_observability_follows_weights() -> None:
    graph = one(LIF(tau=0.01), 1.0)
    graph.populations["b"] = ranvier.Population("b", (3,), LIF(tau=0.01))
    graph.projections["ba"] = ranvier.Projection("ba", "b", "a", Linear([[1.0, 0.0, 0.0]]))
    graph.projections["bb"] = ranvier.Projection("bb", "b", "b", Linear([[0, 0, 0], [0, 0, 1], [0, 1, 0]]), delay=1)
    assert observable_neurons(graph)["b"].tolist() == [True, False, False]
