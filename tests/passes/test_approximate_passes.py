"""Passes that change the network a little, and those that only rewrite it: what they do, number by number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

import ranvier
from ranvier.graph.neurons import LI, LIF, Delay, Relay
from ranvier.graph.operations import Conv, Flatten, Identity, Linear, Scale, SumPool
from ranvier.verification.promise import Promise
from tests.support.examples import examples
from tests.support.random_graphs import inputs_of, random_graph, seeds


def two_layers(w1: np.ndarray, w2: np.ndarray, neuron=None) -> ranvier.SNNGraph:
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (w1.shape[1],), 0.0, 1.0)],
        populations=[ranvier.Population("a", (w1.shape[0],), neuron or LIF(tau=4e-3, v_threshold=0.3))],
        projections=[ranvier.Projection("w1", "x", "a", Linear(w1)), ranvier.Projection("w2", "a", "y", Linear(w2))],
        outputs=[ranvier.Output("y", (w2.shape[0],))],
    )


def run(graph: ranvier.SNNGraph, pipeline: str, **options):
    return ranvier.optimize(graph, pipeline, fixpoint=False, **options)


def weight(graph: ranvier.SNNGraph, name: str) -> np.ndarray:
    found = graph.projections[name].operation.weight
    return found.toarray() if sparse.issparse(found) else found


W1 = np.array([[0.9, -0.1, 0.5], [0.2, 0.8, -0.3], [0.05, 0.4, 0.6], [0.7, 0.15, 0.25]])
W2 = np.array([[1.0, -2.0, 0.5, 0.1], [0.3, 0.2, -0.6, 0.4]])


# prune --------------------------------------------------------------------------------------------------------------


def test_the_smallest_weights_of_each_projection_go() -> None:
    made, report = run(two_layers(W1, W2), "prune{sparsity=0.5}")
    np.testing.assert_array_equal(weight(made, "w1"), np.where(np.abs(W1) >= 0.4, W1, 0))
    np.testing.assert_array_equal(weight(made, "w2"), np.where(np.abs(W2) >= 0.5, W2, 0))
    assert report.promise is Promise.APPROXIMATE


def test_ranks_over_the_network_or_by_neuron() -> None:
    made, _ = run(two_layers(W1, W2), "prune{sparsity=0.25,scope=global}")
    assert sum(np.count_nonzero(weight(made, n)) for n in ("w1", "w2")) == 15
    assert weight(made, "w1")[2, 0] == 0
    made, _ = run(two_layers(W1, W2), "prune{sparsity=0.34,scope=neuron}")
    np.testing.assert_array_equal(np.count_nonzero(weight(made, "w1"), axis=1), [2, 2, 2, 2])
    np.testing.assert_array_equal(np.count_nonzero(weight(made, "w2"), axis=1), [3, 3])


def test_a_threshold() -> None:
    made, _ = run(two_layers(W1, W2), "prune{threshold=0.3}")
    np.testing.assert_array_equal(weight(made, "w1"), np.where(np.abs(W1) < 0.3, 0, W1))


def test_convolutions_are_pruned_too() -> None:
    kernel = np.arange(1.0, 9.0).reshape(2, 1, 2, 2)
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (1, 4, 4))],
        projections=[ranvier.Projection("c", "x", "y", Conv(kernel))],
        outputs=[ranvier.Output("y", (2, 3, 3))],
    )
    made, _ = run(graph, "prune{sparsity=0.5}")
    np.testing.assert_array_equal(made.projections["c"].operation.weight.ravel(), [0, 0, 0, 0, 5, 6, 7, 8])


def test_whole_neurons() -> None:
    w2 = W2.copy()
    w2[:, 3] = 1e-3
    made, report = run(two_layers(W1, w2), "prune{sparsity=0.25,structured=true}")
    assert made.populations["a"].size == 3
    np.testing.assert_array_equal(report.origins.places["a"].numbers, [0, 1, 2, -1])
    np.testing.assert_array_equal(weight(made, "w1"), W1[:3])


def correlated(samples: int = 20, steps: int = 50) -> np.ndarray:
    """Inputs of which the third is nearly the sum of the first two."""
    rng = np.random.default_rng(0)
    found = rng.uniform(0, 0.5, (steps, samples, 4))
    found[..., 2] = found[..., 0] + found[..., 1] + 0.01 * rng.normal(size=found.shape[:2])
    return np.clip(found, 0, 1)


def test_saliency_makes_up_for_what_goes() -> None:
    """Removing a weight whose input others predict costs little once they are fitted again: less than magnitude."""
    rng = np.random.default_rng(1)
    w1 = rng.normal(0.5, 0.2, (6, 4))
    graph = two_layers(w1, np.eye(6), LI(tau=3e-3))
    errors = {}
    for method in ("magnitude", "saliency"):
        made, _ = run(graph, f"prune{{sparsity=0.25,method={method}}}", calibration=correlated())
        assert np.count_nonzero(weight(made, "w1")) == 18
        before, after = (ranvier.interpret(g, correlated()).output for g in (graph, made))
        errors[method] = np.sqrt(((after - before) ** 2).mean() / (before**2).mean())
    assert errors["saliency"] < 0.2 * errors["magnitude"]


def test_saliency_over_the_network_does_not_depend_on_the_unit_of_a_layer() -> None:
    """Weights of a layer that are a thousand times smaller, before a neuron with as much smaller a threshold."""
    data = np.random.default_rng(0).uniform(0, 1, (30, 5, 3))

    def network(unit: float) -> ranvier.SNNGraph:
        graph = two_layers(W1, W2 * unit)
        graph.populations["z"] = ranvier.Population("z", (2,), LI(tau=4e-3, r=1 / unit))
        graph.projections["w2"] = graph.projections["w2"].replace(target="z")
        graph.projections["y"] = ranvier.Projection("y", "z", "y", Identity())
        return graph

    gone = []
    for unit in (1.0, 1e-3, 1e3):
        pipeline = "prune{sparsity=0.5,scope=global,method=saliency}"
        made, _ = run(network(unit), pipeline, calibration=data)
        gone.append({name: weight(made, name) == 0 for name in ("w1", "w2")})
    for found in gone[1:]:
        assert all((found[name] == gone[0][name]).all() for name in found)
    assert 0 < gone[0]["w1"].sum() < W1.size
    assert 0 < gone[0]["w2"].sum() < W2.size


def test_saliency_is_least_squares() -> None:
    """Of one row, the weights that stay are those that numpy fits to the summed input as the membrane feels it."""
    w1 = np.array([[0.5, 0.4, 0.3, 0.2]])
    graph = two_layers(w1, np.eye(1), LI(tau=1e9))
    made, _ = run(graph, "prune{sparsity=0.25,method=saliency}", calibration=correlated())
    found = weight(made, "w1")[0]
    (gone,) = np.flatnonzero(found == 0)
    decay, felt, trace = np.exp(-1e-3 / 1e9), [], np.zeros((20, 4))
    for x in correlated():
        trace = decay * trace + (1 - decay) * x
        felt.append(trace)
    x = np.concatenate(felt) * 1e12
    kept = np.delete(np.arange(4), gone)
    expected = np.linalg.lstsq(x[:, kept], x @ w1[0], rcond=None)[0]
    np.testing.assert_allclose(found[kept], expected, atol=0.06)


def test_saliency_without_data_says_what_is_missing() -> None:
    made, report = run(two_layers(W1, W2), "prune{sparsity=0.5,method=saliency}")
    assert ranvier.to_text(made)[0] == ranvier.to_text(two_layers(W1, W2))[0]
    assert any("--calibration data.npz" in remark.message for remark in report.remarks)


# merge-neurons ------------------------------------------------------------------------------------------------------


def test_near_duplicates_need_data_and_are_alike_in_weights_and_spikes() -> None:
    rng = np.random.default_rng(2)
    w1 = rng.uniform(0.1, 0.6, (6, 4))
    w1[3] = w1[0] * (1 + 1e-3)  # nearly a copy
    w1[4] = w1[1] * 1.5  # the same direction
    w2 = rng.normal(size=(3, 6))
    graph = two_layers(w1, w2)
    without, report = run(graph, "merge-neurons{similarity=0.95}")
    assert without.populations["a"].size == 6
    assert any("ranvier.profile" in remark.message for remark in report.remarks)
    made, report = run(graph, "merge-neurons{similarity=0.95}", calibration=correlated())
    assert made.populations["a"].size == 5
    assert report.promise is Promise.APPROXIMATE
    place = report.origins.places["a"].numbers
    assert place[0] == place[3]
    assert place[1] != place[4]
    kept = 0 if np.array_equal(weight(made, "w1")[place[0]], w1[0]) else 3
    np.testing.assert_array_equal(weight(made, "w1")[place[0]], w1[kept])
    np.testing.assert_allclose(weight(made, "w2")[:, place[0]], w2[:, 0] + w2[:, 3])


# quantize -----------------------------------------------------------------------------------------------------------


def test_int8_rows() -> None:
    made, report = run(two_layers(W1, W2), "quantize")
    for name, w in (("w1", W1), ("w2", W2)):
        scale = np.abs(w).max(axis=1, keepdims=True) / 127
        np.testing.assert_allclose(weight(made, name), np.round(w / scale) * scale)
        assert np.abs(weight(made, name) - w).max() <= scale.max() / 2
    assert all("int8: weight within" in remark.message for remark in report.remarks)


def test_fixed_point() -> None:
    made, report = run(two_layers(W1, W2), "quantize{format=Q1.3}")
    np.testing.assert_array_equal(weight(made, "w1"), np.round(W1 * 8) / 8)
    np.testing.assert_array_equal(weight(made, "w2"), np.clip(np.round(W2 * 8), -15, 15) / 8)
    assert any("1 clipped" in remark.message for remark in report.remarks)
    _, report = run(made, "quantize{format=Q1.3}")
    assert report.remarks == ()


def test_sparse_rows_are_quantized_alike() -> None:
    dense = two_layers(W1, W2)
    thin = two_layers(W1, W2)
    for name, w in (("w1", W1), ("w2", W2)):
        thin.projections[name] = thin.projections[name].replace(operation=Linear(sparse.csr_array(w)))
    for pipeline in ("quantize", "quantize{format=Q2.4}"):
        a, b = run(dense, pipeline)[0], run(thin, pipeline)[0]
        np.testing.assert_allclose(weight(a, "w1"), weight(b, "w1"))


# canonicalize, fold-constants, common-projections, fuse ---------------------------------------------------------------


def test_canonical_forms() -> None:
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,)), ranvier.Input("image", (2, 4, 4))],
        populations=[
            ranvier.Population("a", (3,), LIF(tau=np.full(3, 1e-2))),
            ranvier.Population("late", (3,), Delay(steps=np.full(3, 2.0))),
            ranvier.Population("maps", (2, 4, 4), Relay()),
        ],
        projections=[
            ranvier.Projection("diagonal", "x", "a", Linear(np.diag([1.0, 2.0, 3.0]), np.zeros(3))),
            ranvier.Projection("ones", "a", "late", Scale(np.ones(3))),
            ranvier.Projection("read", "late", "y", Linear(np.eye(3) * 2)),
            ranvier.Projection("single", "image", "maps", SumPool((1, 1), (1, 1), (0, 0))),
            ranvier.Projection("flat", "maps", "z", Flatten()),
        ],
        outputs=[ranvier.Output("y", (3,)), ranvier.Output("z", (32,))],
    )
    made, report = run(graph, "canonicalize")
    assert isinstance(made.projections["diagonal"].operation, Scale)
    assert isinstance(made.projections["ones"].operation, Identity)
    assert isinstance(made.projections["single"].operation, Identity)
    assert made.projections["read"].operation.scale.shape == ()
    assert made.projections["read"].delay == 2
    assert isinstance(made.populations["late"].neuron, Relay)
    assert made.populations["a"].neuron.parameters["tau"].shape == ()
    assert report.promise is Promise.BITWISE
    assert all(check.identical for check in report.checks)


def test_inputs_of_one_value_are_biases() -> None:
    graph = two_layers(W1, W2)
    graph.inputs["one"] = ranvier.Input("one", (2,), 1.0, 1.0)
    graph.populations["sum"] = ranvier.Population("sum", (2,), Relay())
    graph.projections["bias"] = ranvier.Projection("bias", "one", "sum", Linear(np.array([[0.5, 0.25], [0.0, 1.0]])))
    graph.projections["on"] = ranvier.Projection("on", "sum", "a", Linear(np.full((4, 2), 0.1)))
    made, report = run(graph, "fold-constants")
    np.testing.assert_allclose(made.projections["on"].operation.bias, np.full(4, 0.175))
    assert not np.any(weight(made, "on"))
    assert set(made.inputs) == {"x", "one"}
    assert report.promise is Promise.ALGEBRAIC
    assert all(check.close for check in report.checks)


def test_what_is_computed_twice_is_computed_once() -> None:
    graph = two_layers(W1, W2)
    graph.populations["b"] = ranvier.Population("b", (4,), LIF(tau=8e-3, v_threshold=0.2))
    graph.projections["w1b"] = ranvier.Projection("w1b", "x", "b", Linear(W1.copy()))
    graph.projections["w2b"] = ranvier.Projection("w2b", "b", "y", Linear(W2 + 1.0))
    made, report = run(graph, "common-projections")
    assert made.total_params == graph.total_params - W1.size
    assert made.total_neurons == graph.total_neurons
    assert report.promise is Promise.BITWISE
    assert all(check.identical for check in report.checks)
    again, _ = ranvier.optimize(made, level="O1")
    assert again.total_params <= made.total_params


def test_batch_norm_goes_into_weights() -> None:
    """x -> conv -> scale -> shift -> LIF, as a trained network comes from NIR."""
    rng = np.random.default_rng(0)
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (2, 6, 6), 0.0, 1.0)],
        populations=[
            ranvier.Population("conv", (3, 4, 4), Relay()),
            ranvier.Population("normed", (3, 4, 4), Relay()),
            ranvier.Population("a", (3, 4, 4), LIF(tau=4e-3, v_threshold=0.4)),
            ranvier.Population("flat", (48,), Relay()),
        ],
        projections=[
            ranvier.Projection("c", "x", "conv", Conv(rng.normal(0.2, 0.3, (3, 2, 3, 3)), rng.normal(size=3))),
            ranvier.Projection("scale", "conv", "normed", Scale(rng.uniform(0.5, 2, (3, 1, 1)) * np.ones((3, 4, 4)))),
            ranvier.Projection("go", "normed", "a", Identity()),
            ranvier.Projection("f", "a", "flat", Flatten()),
            ranvier.Projection("read", "flat", "y", Linear(rng.normal(size=(5, 48)))),
        ],
        outputs=[ranvier.Output("y", (5,))],
    )
    made, report = ranvier.optimize(graph, "fuse")
    assert [name for name in made.populations if not isinstance(made.populations[name].neuron, Relay)] == ["a"]
    assert "conv" not in made.populations
    assert made.total_params == graph.total_params - 48
    assert all(check.close for check in report.checks)


def test_a_scale_goes_into_the_resistance() -> None:
    graph = two_layers(np.eye(4), W2)
    graph.projections["w1"] = ranvier.Projection("w1", "x", "a", Scale(np.array([0.5, 1.0, 2.0, 4.0])))
    made, report = run(graph, "fuse")
    assert isinstance(made.projections["w1"].operation, Identity)
    np.testing.assert_array_equal(made.populations["a"].neuron.parameters["r"], [0.5, 1.0, 2.0, 4.0])
    assert all(check.close for check in report.checks)


@pytest.mark.parametrize("recurrent", [False, True])
def test_populations_side_by_side_become_one(recurrent: bool) -> None:
    rng = np.random.default_rng(4)
    graph = two_layers(W1, W2)
    graph.populations["b"] = ranvier.Population("b", (3,), LIF(tau=8e-3, v_threshold=0.2), {"v": np.full(3, 0.1)})
    graph.projections["w1b"] = ranvier.Projection("w1b", "x", "b", Linear(rng.normal(0.3, 0.4, (3, 3))))
    graph.projections["w2b"] = ranvier.Projection("w2b", "b", "y", Linear(rng.normal(size=(2, 3))))
    sizes = {"a": 4, "b": 3}
    for source in sizes if recurrent else ():
        for target in sizes:
            w = rng.normal(0, 0.5, (sizes[target], sizes[source]))
            name = f"{source}{target}"
            graph.projections[name] = ranvier.Projection(name, source, target, Linear(w), delay=1)
    made, report = run(graph, "fuse")
    assert list(made.populations) == ["a"]
    assert made.populations["a"].size == 7
    assert len(made.projections) == 2 + recurrent
    assert made.total_params == graph.total_params
    np.testing.assert_array_equal(report.origins.places["b"].numbers, [4, 5, 6])
    assert all(check.close for check in report.checks)
    assert {check.spikes["b"].neurons for check in report.checks} == {3}


# Random graphs --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "pipeline",
    [
        *(
            "prune{sparsity=0.4}",
            "prune{sparsity=0.4,scope=global,method=saliency}",
            "prune{threshold=0.2,scope=neuron}",
        ),
        *("prune{sparsity=0.3,structured=true}", "prune{sparsity=0.3,structured=true,method=saliency}"),
        *("quantize", "quantize{format=Q2.5}", "merge-neurons{similarity=0.6}", "dead-neurons{threshold=0.05}"),
    ],
)
@given(seed=seeds)
@settings(max_examples=examples(8), deadline=None)
def test_approximate_passes_keep_the_graph_valid(pipeline: str, seed: int) -> None:
    graph = random_graph(seed)
    inputs = inputs_of(graph, seed, steps=10, samples=3)
    made, report = run(graph, pipeline, calibration=inputs, verify_each=False)
    assert ranvier.problems(made) == []
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    smaller = made.total_params <= graph.total_params and made.total_synapses <= graph.total_synapses
    assert smaller or made.total_neurons < graph.total_neurons
    assert report.promise is Promise.APPROXIMATE or not any(
        remark.done and remark.promise is Promise.APPROXIMATE for remark in report.remarks
    )
    assert np.isfinite(ranvier.interpret(made, inputs).output).all()
    for place in report.origins.places.values():
        size = made.populations[place.population].size if place.population else 0
        assert place.numbers.max(initial=-1) < max(size, 1)
    text, arrays = ranvier.to_text(made)
    assert ranvier.to_text(ranvier.from_text(text, arrays))[0] == text


# Goals -------------------------------------------------------------------------------------------------------------


def two_rates() -> tuple[ranvier.SNNGraph, np.ndarray]:
    """Eight sources, of which half are active in nine of ten steps and half in one of ten, with like weights."""
    rng = np.random.default_rng(0)
    graph = two_layers(rng.normal(0, 1, (6, 8)), np.eye(6), LI(tau=3e-3))
    rates = np.where(np.arange(8) < 4, 0.9, 0.1)
    return graph, (rng.random((40, 80, 8)) < rates).astype(np.float64)


def operations(graph: ranvier.SNNGraph, data: np.ndarray) -> float:
    """Synaptic operations of the first matrix per step, counted one by one."""
    synapses = np.count_nonzero(weight(graph, "w1"), axis=0)
    return float((data != 0).mean(axis=(0, 1)) @ synapses)


@pytest.mark.parametrize("method", ["magnitude", "saliency"])
def test_weights_that_pass_on_more_spikes_go_first_for_synaptic_operations(method: str) -> None:
    graph, data = two_rates()
    made = {
        per: run(graph, f"prune{{sparsity=0.5,method={method},per={per}}}", calibration=data)[0]
        for per in ("weights", "synops")
    }
    assert operations(made["synops"], data) < 0.8 * operations(made["weights"], data)
    assert made["synops"].total_synapses == made["weights"].total_synapses


def test_synaptic_operations_need_data() -> None:
    _, report = run(two_layers(W1, W2), "prune{sparsity=0.5,per=synops}")
    assert any("per=synops needs calibration data" in remark.message for remark in report.remarks)


def test_goals_of_the_third_level() -> None:
    from ranvier.passes.levels import GOALS, level_passes

    last = {goal: level_passes("O3", goal)[-1].options for goal in GOALS}
    assert (last["time"]["structured"], last["size"]["structured"]) == (True, False)
    assert (last["synops"]["per"], last["size"]["per"]) == ("synops", "weights")
    assert level_passes("O3") == level_passes("O3", "size")
    graph, data = two_rates()
    for options, message in (
        ({"goal": "speed"}, "the goals are time, size, synops"),
        ({"goal": "time", "level": "O2"}, "level O2 has none"),
        ({"goal": "time", "passes": "prune{sparsity=0.5}"}, "leave out one of"),
    ):
        with pytest.raises(ranvier.PassError, match=message):
            ranvier.optimize(graph, **{"level": "O3", "calibration": data, **options})
