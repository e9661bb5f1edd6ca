"""Graphs and functions as users of sc-neurocore know them, and what goes wrong there."""

from __future__ import annotations

import numpy as np
import pytest

import ranvier
from ranvier import LayerNode, SNNGraph
from ranvier.graph.operations import Linear
from ranvier.verification.promise import Promise


def layers(*weights: np.ndarray, rates: dict[int, np.ndarray] | None = None) -> SNNGraph:
    """A chain of LIF layers with these weights, ``[n_neurons, n_inputs]``."""
    return SNNGraph(
        layers=[
            LayerNode(f"layer{k}", w.shape[1], w.shape[0], w, firing_rates=(rates or {}).get(k))
            for k, w in enumerate(weights)
        ]
    )


def drive(graph: SNNGraph, steps: int = 200, seed: int = 0) -> np.ndarray:
    size = next(iter(graph.inputs.values())).size
    return np.random.default_rng(seed).uniform(0.0, 8.0, (steps, size))


def same(graph: SNNGraph, other: SNNGraph) -> bool:
    inputs = drive(graph)
    return np.array_equal(ranvier.interpret(graph, inputs).output, ranvier.interpret(other, inputs).output)


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 0.9, (6, 3)), rng.uniform(0.5, 3.0, (4, 6))


def test_construction_and_counts() -> None:
    graph = layers(*weights())
    assert graph.total_neurons == 10
    assert graph.total_params == 6 * 3 + 4 * 6
    assert [layer.name for layer in graph.layers] == ["layer0", "layer1"]
    assert (graph.layers[0].n_neurons, graph.layers[0].n_inputs) == (6, 3)
    np.testing.assert_array_equal(graph.layers[1].weights, weights()[1])
    copy = graph.copy()
    ranvier.weight_pruning(copy, sparsity=0.5)
    assert graph.total_synapses == 42
    assert copy.total_synapses == 21


def test_the_network_is_alive() -> None:
    assert 0.005 < ranvier.interpret(layers(*weights()), drive(layers(*weights()))).output.mean() < 0.5


# The defects --------------------------------------------------------------------------------------------------------


def test_a_rarely_firing_layer_is_no_linear_path() -> None:
    rare = np.full(6, 1e-4)
    graph = layers(*weights(), rates={0: rare})
    before = graph.copy()
    result = ranvier.layer_fusion(graph)
    assert (result.layers_fused, result.neurons_removed) == (0, 0)
    assert list(graph.populations) == ["layer0", "layer1"]
    assert same(before, graph)


def test_outgoing_weights_of_merged_neurons_are_summed() -> None:
    first, second = weights()
    first[4] = first[1]
    graph = layers(first, second)
    before = graph.copy()
    result = ranvier.redundancy_elimination(graph)
    assert (result.name, result.neurons_removed) == ("redundancy_elimination", 1)
    assert result.promise is Promise.ALGEBRAIC
    np.testing.assert_allclose(graph.layers[1].weights[:, 1], second[:, 1] + second[:, 4])
    assert (result.params_before, result.params_after) == (before.total_params, graph.total_params)
    assert same(before, graph)


def test_parallel_weights_of_another_size_are_no_duplicates() -> None:
    first, second = weights()
    first[4] = 2.0 * first[1]
    graph = layers(first, second)
    measured = ranvier.profile(graph, drive(graph))
    for one in (graph, measured):
        assert ranvier.redundancy_elimination(one, correlation_threshold=0.5).neurons_removed == 0


def test_output_neurons_stay() -> None:
    first, second = weights()
    second[2] = second[0]
    second[3] = -1.0
    graph = layers(first, second, rates={1: np.zeros(4)})
    result = ranvier.redundancy_elimination(graph)
    assert graph.populations["layer1"].size == 4
    assert any("an output shows" in remark.message for remark in result.remarks if not remark.done)
    assert ranvier.dead_neuron_elimination(graph).neurons_removed == 0
    assert graph.outputs["output"].shape == (4,)


def test_live_neurons_go_only_on_request_and_labeled() -> None:
    rates = np.array([0.2, 0.0005, 0.0, 0.3, 0.1, 0.2])
    graph = layers(*weights(), rates={0: rates})
    asked = graph.copy()
    result = ranvier.dead_neuron_elimination(graph)
    assert result.neurons_removed == 1
    assert result.promise is Promise.PROFILED
    result = ranvier.dead_neuron_elimination(asked, threshold=0.001, live=True)
    assert result.neurons_removed == 2
    assert result.promise is Promise.APPROXIMATE


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ranvier.PassError, match="no pass 'prine'; the passes are prune, fuse, eliminate_dead"):
        ranvier.SNNOptimizer().optimize(layers(*weights()), passes=["prine"])
    with pytest.raises(ranvier.PassError, match="the passes are canonicalize"):
        ranvier.optimize(layers(*weights()), passes=["dead_neuron_removal".replace("_", "-")])


def test_names_of_passes_are_known() -> None:
    first, second = weights()
    first[4] = first[1]
    names = ["dead_neuron_elimination", "redundancy_elimination", "layer_fusion"]
    small, report = ranvier.optimize(layers(first, second), passes=names)
    assert small.total_neurons == 9
    assert report.pipeline == "dead-neurons{threshold=0},merge-neurons,fuse"


def test_a_layer_that_is_all_dead_does_not_crash() -> None:
    graph = layers(*weights(), rates={0: np.zeros(6)})
    assert ranvier.dead_neuron_elimination(graph).neurons_removed == 6
    assert ranvier.problems(graph) == []
    assert ranvier.interpret(graph, drive(graph)).output.shape == (200, 4)
    silent = layers(-np.abs(weights()[0]), weights()[1])
    silent.inputs = {"input": ranvier.Input("input", (3,), 0.0, 8.0)}
    small, report = ranvier.optimize(silent)
    assert report.promise <= Promise.ALGEBRAIC
    assert (small.total_neurons, small.total_synapses) == (0, 0)
    assert same(silent, small)


def test_fusion_does_not_grow_the_model() -> None:
    """Through a relay of two elements between twenty and thirty, a product would store 600 numbers for 100."""
    graph = SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (20,))],
        populations=[ranvier.Population("r", (2,), ranvier.neurons.Relay())],
        projections=[
            ranvier.Projection("a", "x", "r", Linear(np.ones((2, 20)))),
            ranvier.Projection("b", "r", "y", Linear(np.ones((30, 2)))),
        ],
        outputs=[ranvier.Output("y", (30,))],
    )
    result = ranvier.layer_fusion(graph)
    assert (result.params_before, result.params_after, result.layers_fused) == (100, 100, 0)
    assert any("4800 bytes" in remark.message for remark in result.remarks)
    wide = graph.copy()
    ranvier.optimize(wide, "fuse{grow=true}")
    grown, _ = ranvier.optimize(graph, "fuse{grow=true}")
    assert grown.total_params == 600


# The rest of the functions --------------------------------------------------------------------------------------------


def test_weight_pruning() -> None:
    graph = layers(*weights())
    result = ranvier.weight_pruning(graph, threshold=0.6)
    assert result.promise is Promise.APPROXIMATE
    for old, layer in zip(weights(), graph.layers, strict=True):
        np.testing.assert_array_equal(layer.weights, np.where(np.abs(old) < 0.6, 0.0, old))
    assert graph.total_synapses < 42


def test_redundant_connection_removal() -> None:
    graph = layers(*weights())
    graph.projections["again"] = graph.projections["layer0->layer1"].replace(name="again")
    graph.projections["nothing"] = ranvier.Projection("nothing", "input", "layer1", Linear(np.zeros((4, 3))))
    before = graph.copy()
    result = ranvier.redundant_connection_removal(graph)
    assert set(graph.projections) == set(layers(*weights()).projections)
    assert result.neurons_removed == 0
    assert same(before, graph)


def test_the_optimizer_class() -> None:
    graph = layers(*weights(), rates={0: np.array([0.2, 0.0, 0.1, 0.3, 0.1, 0.2])})
    small, report = ranvier.SNNOptimizer().optimize(graph, passes=["prune", "fuse", "eliminate_dead"])
    assert graph.total_neurons == 10
    assert small.total_neurons < 10
    assert report.neurons_before == 10
    assert report.neurons_after == small.total_neurons
    assert report.compression_ratio == report.params_before / report.params_after
    assert report.summary().startswith(f"SNN Optimizer: 42 -> {report.params_after} params (")
    assert len(str(report)) > len(report.summary())
