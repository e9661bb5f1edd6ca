"""Networks on which an analysis, a pass or a check was wrong without saying so."""

from __future__ import annotations

import numpy as np
import pytest

import ranvier
from ranvier import Input, Output, Population, Projection, SNNGraph, interpret, optimize
from ranvier.analyses.graph.bounds import bounds
from ranvier.ir.graph.neurons import LIF, Threshold
from ranvier.ir.graph.operations import Linear

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
