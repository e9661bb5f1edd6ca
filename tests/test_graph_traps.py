"""Networks on which an analysis, a pass or a check was wrong without saying so."""

from __future__ import annotations

import numpy as np
import pytest

import ranvier
from ranvier import Input, LayerNode, Output, Population, Projection, SNNGraph, interpret, optimize, verify
from ranvier.analyses.graph.bounds import bounds
from ranvier.ir.graph.neurons import IF, LIF, Threshold
from ranvier.ir.graph.operations import Linear
from ranvier.validation.inputs import random_trial

ONE = Linear([[1.0]])


def backward_chain(neuron: ranvier.ir.graph.neurons.Neuron, length: int, weight: float = 1.0) -> SNNGraph:
    """A chain of delayed projections against the order in which populations are updated."""
    projections = [Projection("in", "input", f"p{length - 1}", Linear([[weight]]))]
    projections += [Projection(f"w{k}", f"p{k}", f"p{k - 1}", Linear([[weight]]), 1) for k in range(length - 1, 0, -1)]
    return SNNGraph(
        dt=1e-3,
        inputs=[Input("input", (1,), 0, 1)],
        populations=[Population(f"p{k}", (1,), neuron) for k in range(length)],
        projections=[*projections, Projection("out", "p0", "o", ONE)],
        outputs=[Output("o", (1,))],
    )


@pytest.mark.parametrize("neuron", [Threshold(threshold=0.5), LIF(tau=2e-3)])
def test_long_chains_are_not_proved_silent(neuron: ranvier.ir.graph.neurons.Neuron) -> None:
    graph = backward_chain(neuron, 150, 3.0)
    assert not any(silent.any() for silent in bounds(graph).silent.values())
    small, _ = optimize(graph, level="O1", verify_each=False)
    x = np.ones((400, 1))
    assert interpret(graph, x).output.sum() > 50
    assert np.array_equal(interpret(graph, x).output, interpret(small, x).output)


def test_a_sum_that_grows_for_ever_has_no_bounds_and_neither_has_what_it_drives() -> None:
    graph = backward_chain(LIF(tau=2e-3, v_threshold=1e9), 3)
    graph.populations["loop"] = Population("loop", (1,), ranvier.ir.graph.neurons.Relay())
    for name, source, target, delay in (("a", "input", "loop", 0), ("b", "loop", "loop", 1), ("c", "loop", "p2", 1)):
        graph.projections[name] = Projection(name, source, target, ONE, delay)
    found = bounds(graph)
    assert found.values["loop"].high == np.inf
    assert not found.silent["p2"].any()


def two_neurons(weights: list[float], other: float) -> SNNGraph:
    """t is near its threshold; q has nothing to do with it."""
    return SNNGraph(
        dt=1e-3,
        inputs=[Input("i", (3,)), Input("j", (1,))],
        populations=[
            Population("t", (1,), IF(r=1000.0, v_threshold=0.6)),
            Population("q", (1,), IF(r=1000.0, v_threshold=0.5)),
        ],
        projections=[
            Projection("a", "i", "t", Linear([weights])),
            Projection("b", "j", "q", Linear([[other]])),
            Projection("o", "q", "out", ONE),
        ],
        outputs=[Output("out", (1,))],
    )


def test_what_follows_a_tie_is_compared() -> None:
    x, y = np.zeros((30, 3)), np.ones((30, 1))
    x[0], y[:5] = 1.0, 0.0
    a, b = two_neurons([0.1, 0.2, 0.3], 1.0), two_neurons([0.3, 0.2, 0.1], 1.0)
    same = verify(a, b, {"i": x, "j": y})
    assert same.close
    assert same.ties
    other = verify(a, two_neurons([0.3, 0.2, 0.1], -1.0), {"i": x, "j": y})
    assert not other.close
    assert other.divergence is not None
    assert (other.divergence.population, other.divergence.step) == ("q", 5)


@pytest.mark.parametrize("threshold", [0.8 + 0.6 + 0.5 + 0.3, 0.0])
def test_ties_of_thresholds_are_ties(threshold: float) -> None:
    """Merging adds 0.8 and 0.6 first, so that the sum is another in the last bit."""
    weights = [0.8, 0.3, 0.6, 0.5]
    graph = SNNGraph(
        dt=1e-3,
        inputs=[Input("i", (1,), 0, 1)],
        populations=[
            Population("h", (4,), IF(r=1000.0, v_threshold=0.9)),
            Population("t", (1,), Threshold(threshold=threshold)),
        ],
        projections=[
            Projection("w", "i", "h", Linear([[1.0], [2.0], [1.0], [1.0]])),
            Projection("v", "h", "t", Linear([weights], [0.0 if threshold else -(0.8 + 0.6 + 0.5 + 0.3)])),
            Projection("o", "t", "out", ONE),
        ],
        outputs=[Output("out", (1,))],
    )
    small, report = optimize(graph, level="O1")
    assert small.populations["h"].size == 2
    assert all(check.close for check in report.checks)


def readout(weight: float) -> SNNGraph:
    layers = [
        LayerNode("h", 2, 3, np.full((3, 2), 5.0)),
        LayerNode("r", 3, 1, np.full((1, 3), weight), neuron_type="LI"),
    ]
    return SNNGraph(layers)


def test_small_outputs_are_compared_in_their_own_size() -> None:
    found = verify(readout(1e-7), readout(-5e-7), np.ones((50, 4, 2)))
    assert found.outputs["output"].scale > 0
    assert not found.close
    assert verify(readout(1e-7), readout(1e-7 * (1 + 1e-9)), np.ones((50, 4, 2))).close


def deep() -> SNNGraph:
    rng = np.random.default_rng(0)
    layers = [LayerNode("l0", 16, 64, rng.normal(0.1, 0.5, (64, 16)))]
    layers += [LayerNode(f"l{k}", 64, 64, rng.normal(0.05, 0.3, (64, 64))) for k in (1, 2)]
    return SNNGraph(layers)


def test_random_inputs_reach_deep_layers() -> None:
    graph = deep()
    trial = random_trial(graph)
    found = interpret(graph, trial.inputs, record=["l0", "l1", "l2"])
    assert all(found[name].any() for name in ("l0", "l1", "l2"))
    for scale in (0.0, 0.3):
        other = graph.copy()
        weight = graph.projections["l1->l2"].operation.arrays["weight"]
        other.projections["l1->l2"] = graph.projections["l1->l2"].replace(operation=Linear(scale * weight))
        assert not verify(graph, other, trial.inputs).close


def test_random_inputs_are_long_enough_for_slow_neurons() -> None:
    graph = SNNGraph(
        dt=1e-3,
        inputs=[Input("x", (2,), 0.0, 1.0)],
        populations=[Population("a", (1,), LIF(tau=0.1, v_threshold=0.9))],
        projections=[Projection("w", "x", "a", Linear([[1.0, -0.5]])), Projection("o", "a", "y", ONE)],
        outputs=[Output("y", (1,))],
    )
    assert interpret(graph, random_trial(graph).inputs).output.any()


def test_what_stayed_at_zero_is_told() -> None:
    graph = backward_chain(LIF(tau=2e-3, v_threshold=100.0), 2)
    found = verify(graph, graph, np.ones((20, 1)))
    assert found.untested == ("o", "p0", "p1")
    assert "not tested, because it stayed at zero: o, p0, p1" in str(found)
