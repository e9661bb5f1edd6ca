"""Networks on which an analysis, a pass or a check was wrong without saying so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

import nir
import ranvier
from ranvier import Input, LayerNode, Output, Population, Projection, SNNGraph, interpret, optimize, verify
from ranvier.cli.main import app
from ranvier.graph.analysis.bounds import bounds
from ranvier.graph.neurons import IF, LIF, Relay, Threshold
from ranvier.graph.operations import AvgPool, Conv, Flatten, Identity, Linear
from ranvier.nir import probe as nir_probe
from ranvier.verification.inputs import random_trial

ONE = Linear([[1.0]])


def backward_chain(neuron: ranvier.graph.neurons.Neuron, length: int, weight: float = 1.0) -> SNNGraph:
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


@pytest.mark.slow
@pytest.mark.parametrize("neuron", [Threshold(threshold=0.5), LIF(tau=2e-3)])
def test_long_chains_are_not_proved_silent(neuron: ranvier.graph.neurons.Neuron) -> None:
    graph = backward_chain(neuron, 150, 3.0)
    assert not any(silent.any() for silent in bounds(graph).silent.values())
    small, _ = optimize(graph, level="O1", verify_each=False)
    x = np.ones((400, 1))
    assert interpret(graph, x).output.sum() > 50
    assert np.array_equal(interpret(graph, x).output, interpret(small, x).output)


def test_a_sum_that_grows_for_ever_has_no_bounds_and_neither_has_what_it_drives() -> None:
    graph = backward_chain(LIF(tau=2e-3, v_threshold=1e9), 3)
    graph.populations["loop"] = Population("loop", (1,), ranvier.graph.neurons.Relay())
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


def test_a_dead_layer_with_data_and_a_budget() -> None:
    graph = SNNGraph([LayerNode("a", 3, 4, -np.ones((4, 3))), LayerNode("b", 4, 2, np.ones((2, 4)) * 5)])
    graph.inputs["input"] = Input("input", (3,), 0.0, 1.0)
    small, _ = optimize(graph, level="O3", calibration=np.ones((20, 4, 3)))
    assert small.total_neurons == 0
    assert not interpret(small, np.ones((5, 3))).output.any()


def image_network(v_leak: float) -> SNNGraph:
    """An image, flattened, into four neurons; two outputs with a bias of one."""
    return SNNGraph(
        dt=1e-3,
        inputs=[Input("i", (1, 3, 3), 0, 1)],
        populations=[
            Population("f", (9,), Relay()),
            Population("h", (4,), LIF(tau=5e-3, v_threshold=1.0 if v_leak else 100.0, v_leak=v_leak)),
        ],
        projections=[
            Projection("fl", "i", "f", Flatten()),
            Projection("w", "f", "h", Linear(np.ones((4, 9)))),
            Projection("o", "h", "out", Linear(np.ones((2, 4)), np.ones(2))),
        ],
        outputs=[Output("out", (2,))],
    )


@pytest.mark.parametrize("v_leak", [0.0, 100.0])
def test_constants_need_no_input_of_one_axis(v_leak: float, tmp_path: Path) -> None:
    graph = image_network(v_leak)
    small, _ = optimize(graph, level="O1")
    assert small.total_neurons == 0
    x = np.random.default_rng(0).uniform(0, 1, (6, 1, 3, 3))
    expected = interpret(graph, x).output
    np.testing.assert_array_equal(expected[-1], 5.0 if v_leak else 1.0)
    np.testing.assert_allclose(interpret(small, x).output, expected)
    np.testing.assert_allclose(ranvier.simulate(small, x).output, expected)
    ranvier.to_nir(small, tmp_path / "small.nir")
    np.testing.assert_allclose(interpret(ranvier.from_nir(tmp_path / "small.nir"), x).output, expected)
    again = ranvier.load(ranvier.save(small, tmp_path / "small.snn"))
    np.testing.assert_allclose(interpret(again, x).output, expected)


def test_a_graph_without_an_input_is_not_valid() -> None:
    graph = SNNGraph(
        dt=1e-3,
        populations=[Population("a", (2,), LIF(tau=0.02, v_leak=2.0))],
        projections=[Projection("o", "a", "o", Identity())],
        outputs=[Output("o", (2,))],
    )
    with pytest.raises(ranvier.GraphError, match="there is no input"):
        interpret(graph, {})


def test_activity_is_measured_again_after_an_approximate_pass() -> None:
    """Without its three weights of -1, a neuron that was silent on the data fires."""
    weights = np.array([[2.0, -1.0, -1.0, -1.0], [1.5] * 4])
    graph = SNNGraph([LayerNode("h", 4, 2, weights), LayerNode("r", 2, 1, [[5.0, 5.0]], neuron_type="LI")])
    data = np.ones((60, 3, 4)) * 2
    small, report = optimize(graph, "prune{threshold=1.2},dead-neurons{threshold=0}", calibration=data)
    assert small.populations["h"].size == 2
    assert [str(run.promise) for run in report.runs if run.changed] == ["approximate"]


def test_parallel_scales_are_joined(tmp_path: Path) -> None:
    graph = two_neurons([0.1, 0.2, 0.3], 1.0)
    graph.projections["o2"] = Projection("o2", "q", "out", Identity())
    graph.projections["o"] = Projection("o", "q", "out", Identity())
    with pytest.raises(ranvier.GraphError, match="'connections'"):
        ranvier.to_nir(graph)
    small, _ = optimize(graph, "connections")
    ranvier.to_nir(small, tmp_path / "small.nir")
    inputs = {"i": np.ones((9, 3)), "j": np.ones((9, 1))}
    np.testing.assert_array_equal(interpret(small, inputs).output, interpret(graph, inputs).output)


def test_what_was_not_recorded_is_told() -> None:
    graph = ranvier.SNNGraph(layers=[ranvier.LayerNode("a", 2, 3, np.ones((3, 2)))])
    found = ranvier.simulate(graph, np.ones((4, 2)), record=["a.v"])
    np.testing.assert_array_equal(found["output"], found.output)
    with pytest.raises(ranvier.GraphError, match=r"'a' was not recorded, only a.v, output.*record=\['a'\]"):
        found["a"]


def test_names_with_underscores_are_read_whole() -> None:
    with pytest.raises(ranvier.PassError, match=r"no pass 'dead_neurons'.*Did you mean 'dead-neurons'"):
        ranvier.parse_pipeline("dead_neurons")


def test_options_are_checked_however_they_are_annotated() -> None:
    @dataclass(frozen=True)
    class Mine(ranvier.Pass):
        name = "mine"
        promise = ranvier.Promise.BITWISE
        bits: int = 3

        def run(self, rewriting: ranvier.Rewriting) -> None: ...

    Mine.__dataclass_fields__["bits"].type = int  # as it is where annotations are no texts
    with pytest.raises(ranvier.PassError, match="bits='many' does not fit; expected int"):
        Mine(bits="many")


def test_names_that_nir_cannot_hold() -> None:
    graph = SNNGraph([LayerNode("enc/conv", 2, 2, np.ones((2, 2)))])
    with pytest.raises(ranvier.GraphError, match=r"'enc/conv'.*cannot be used in a NIR file"):
        ranvier.to_nir(graph)


@pytest.mark.parametrize("first", [True, False])
def test_dilated_kernels_are_not_fused_with_pools(first: bool) -> None:
    rng = np.random.default_rng(0)
    conv, pool = Conv(rng.normal(size=(2, 1, 2, 2)), None, (1, 1), "valid", (2, 2)), AvgPool((2, 2), (2, 2), (0, 0))
    (a, b), image = ((conv, pool), (1, 9, 9)) if first else ((pool, conv), (1, 12, 12))
    middle = a.target_shape(image)
    last = b.target_shape(middle)
    graph = SNNGraph(
        dt=1e-3,
        inputs=[Input("i", image)],
        populations=[Population("m", middle, Relay()), Population("l", last, LIF(tau=5e-3, v_threshold=0.1))],
        projections=[
            Projection("a", "i", "m", a),
            Projection("b", "m", "l", b),
            Projection("o", "l", "out", Identity()),
        ],
        outputs=[Output("out", last)],
    )
    small, _ = optimize(graph, "fuse{grow=true}")
    x = rng.uniform(0, 4, (20, *image))
    np.testing.assert_array_equal(interpret(small, x).output, interpret(graph, x).output)


def test_pruning_keeps_sparse_rows_sparse() -> None:
    weight = sparse.random_array((30_000, 30_000), density=1e-5, rng=0, format="csr")
    graph = SNNGraph([LayerNode("h", 30_000, 30_000, weight)])
    small, _ = optimize(graph, "prune{sparsity=0.5}", verify_each=False)
    assert small.total_synapses == pytest.approx(0.5 * graph.total_synapses, abs=1)


def test_weights_of_all_kinds_are_ranked_together() -> None:
    """A convolution and a matrix with equal weights lose about the same part, whatever their method."""
    rng = np.random.default_rng(0)
    conv = Conv(rng.normal(size=(4, 1, 3, 3)))
    graph = SNNGraph(
        dt=1e-3,
        inputs=[Input("i", (1, 8, 8))],
        populations=[
            Population("c", (4, 6, 6), LIF(tau=5e-3, v_threshold=0.5)),
            Population("f", (144,), Relay()),
            Population("h", (20,), LIF(tau=5e-3, v_threshold=0.5)),
        ],
        projections=[
            Projection("conv", "i", "c", conv),
            Projection("flat", "c", "f", Flatten()),
            Projection("w", "f", "h", Linear(rng.normal(size=(20, 144)))),
            Projection("o", "h", "out", Identity()),
        ],
        outputs=[Output("out", (20,))],
    )
    data = rng.uniform(0, 2, (20, 8, 1, 8, 8))
    small, _ = optimize(graph, "prune{sparsity=0.9,scope=global,method=saliency}", calibration=data)
    assert np.count_nonzero(small.projections["conv"].operation.arrays["weight"]) < 36
    with pytest.raises(ranvier.PassError, match="scope=neuron"):
        optimize(graph, "prune{structured=true,scope=neuron,sparsity=0.4}")


def cli(words: list[str]) -> int:
    """Exit code of the command, as a person runs it: errors on purpose are told and make it 1."""
    try:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
    except ranvier.RanvierError:
        return 1
    return result.exit_code


@dataclass(frozen=True)
class Nudging(ranvier.Pass):
    """Changes a weight a little, and says that it changes no bit."""

    name = "nudging"
    promise = ranvier.Promise.BITWISE

    def run(self, rewriting: ranvier.Rewriting) -> None:
        first = rewriting.graph.projections["input->h"]
        weight = first.operation.arrays["weight"]
        rewriting.set_projection(first.replace(operation=Linear(weight * (1 + 1e-10))))
        rewriting.did("h", "nudged", ranvier.Promise.BITWISE)


def test_a_counterexample_knows_the_promise_that_was_broken(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3))
    graph = SNNGraph([LayerNode("h", 3, 4, weight, neuron_type="LI")])
    path = tmp_path / "found.npz"
    with pytest.raises(ranvier.PassError, match="promises to be bitwise"):
        optimize(graph, [Nudging()], counterexample=path)
    again = ranvier.replay(path)
    assert again.close
    assert again.counterexample is not None
    assert again.counterexample.promise is ranvier.Promise.BITWISE
    assert cli(["verify", str(path)]) == 1
    assert cli(["verify", str(path), "--promise", "algebraic"]) == 0


def test_what_relies_on_a_range_is_verified_within_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    graph = SNNGraph([LayerNode("h", 3, 12, rng.uniform(0, 1, (12, 3))), LayerNode("o", 12, 2, np.ones((2, 12)))])
    ranvier.save(graph, tmp_path / "full.snn")
    small = tmp_path / "small.nir"
    assert cli(["opt", str(tmp_path / "full.snn"), "--input-range", "0", "0.3", "-o", str(small)]) == 0
    assert ranvier.from_nir(small).total_neurons < graph.total_neurons
    assert ranvier.from_nir(small).inputs["input"].high == 0.3
    assert cli(["verify", str(tmp_path / "full.snn"), str(small)]) == 0
    assert cli(["verify", str(tmp_path / "full.snn"), str(small), "--input-range", "0", "0.3"]) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["opt", "GRAPH", "--json", "/nonexistent/x.json"],
        ["opt", "GRAPH", "--report", "/nonexistent/x.html"],
        ["opt", "GRAPH", "--report", "x.txt"],
        ["opt", "GRAPH", "--input-range", "inf", "inf"],
        ["opt", "GRAPH", "--input-range", "nan", "1"],
        ["opt", "GRAPH", "--bisect-limit", "-3"],
        ["opt", "GRAPH", "-O3", "--budget", "-1"],
        ["opt", "GRAPH", "--passes", "connections{sparse_below=x}"],
        ["opt", "GRAPH", "--passes", "dead-neurons{threshold=abc}"],
        ["opt", "GRAPH", "--passes", "dead-neurons{threshold=-1}"],
        ["opt", "GRAPH", "--passes", "dead-neurons{threshold=NaN}"],
        ["opt", "GRAPH", "--passes", "quantize{format=Q9999.1}"],
        ["opt", "GRAPH", "--passes", "quantize{format=Q0.0}"],
        ["opt", "GRAPH", "--passes", "fuse{grow=maybe}"],
        ["opt", "GRAPH", "--passes", "prune{sparsity=0.5,sparsity=0.6}"],
        ["verify", "GRAPH", "GRAPH", "--counterexample", "/nonexistent/c.npz"],
        ["verify", "GRAPH", "GRAPH", "--promise", "none"],
    ],
)
def test_bad_words_on_the_command_line(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = ranvier.save(readout(1.0), tmp_path / "graph.snn")
    assert cli([str(path) if word == "GRAPH" else word for word in words]) == 1
    assert [found.name for found in tmp_path.iterdir()] == ["graph.snn"]


def loop_with_delays(delays: list[float]) -> Any:
    """Two neurons, each of which inhibits itself by way of a delay of its own."""
    lif = nir.LIF(
        tau=np.full(2, 2e-3), r=np.ones(2), v_leak=np.zeros(2), v_threshold=np.full(2, 0.4), v_reset=np.zeros(2)
    )
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "lif": lif,
        "d": nir.Delay(np.array(delays)),
        "w": nir.Linear(np.eye(2) * -3),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "lif"), ("lif", "d"), ("d", "w"), ("w", "lif"), ("lif", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_loops_through_delays_of_single_neurons(tmp_path: Path) -> None:
    x = np.ones((24, 2))
    both = ranvier.from_nir(loop_with_delays([1e-3, 3e-3]), dt=1e-3, reset="zero")
    found = interpret(both, x).output
    for neuron, delay in enumerate((1e-3, 3e-3)):
        alone = interpret(ranvier.from_nir(loop_with_delays([delay, delay]), dt=1e-3, reset="zero"), x).output
        np.testing.assert_array_equal(found[:, neuron], alone[:, neuron])
    assert (found[:, 0] != found[:, 1]).any()
    ranvier.to_nir(both, tmp_path / "loop.nir")
    np.testing.assert_array_equal(interpret(ranvier.from_nir(tmp_path / "loop.nir"), x).output, found)


@pytest.mark.parametrize(
    "notes",
    [
        *({"choices": 5}, {"choices": {"lif": 5}}, {"choices": {"lif": {"reset": ["zero"]}}}),
        *({"delays": []}, {"delays": 5}, {"delays": {"w": 1.5}}),
        *(
            {"initial": []},
            {"initial": {"lif": 5}},
            {"initial": {"lif": {"v": "a"}}},
            {"initial": {"a": {"v": [[1], 2]}}},
        ),
        *({"ranges": {"input": [1]}}, {"ranges": {"input": ["a", "b"]}}, {"dt": "fast"}, [1, 2]),
    ],
)
def test_damaged_notes_in_a_nir_file(notes: Any) -> None:
    graph = loop_with_delays([1e-3, 1e-3])
    graph.metadata = {"ranvier": json.dumps(notes)}
    with pytest.raises(ranvier.GraphError, match="metadata 'ranvier'"):
        ranvier.from_nir(graph, dt=1e-3, reset="zero")


def test_damaged_nir_graphs() -> None:
    def refused(match: str, dt: Any = 1e-3, **changed: Any) -> None:
        graph = loop_with_delays([1e-3, 1e-3])
        graph.nodes.update(changed.pop("nodes", {}))
        graph.edges.extend(changed.pop("edges", []))
        with pytest.raises(ranvier.GraphError, match=match):
            ranvier.from_nir(graph, dt=dt, reset="zero")

    refused("node 'odd' is str", nodes={"odd": "no node"})
    refused("has 3 ends", edges=[("lif", "w", "output")])
    refused("appears 2 times", edges=[("lif", "output")])
    refused("positive number of seconds", dt=0)
    refused("positive number of seconds", dt=np.nan)
    refused("expected numbers", nodes={"w": nir.Linear(np.eye(2) * 1j)})
    own = loop_with_delays([1e-3, 1e-3])
    own.nodes["again"] = own
    with pytest.raises(ranvier.GraphError, match="nested more than"):
        ranvier.from_nir(own, dt=1e-3, reset="zero")
    taken = ranvier.from_nir(loop_with_delays([1e-3, 1e-3]), dt=np.float32(1e-3), reset="zero")
    assert taken.dt == pytest.approx(1e-3)


def test_a_file_that_crashes_or_hangs_the_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.nir"
    path.write_bytes(b"some bytes")
    reader = tmp_path / "reader.py"
    monkeypatch.setattr(nir_probe.inspection, "__file__", str(reader))
    reader.write_text("import os; os.abort()")
    with pytest.raises(ranvier.GraphError, match="crashes HDF5"):
        ranvier.from_nir(path, dt=1e-3)
    reader.write_text("while True: pass")
    monkeypatch.setattr(nir_probe, "SECONDS", 0.5)
    with pytest.raises(ranvier.GraphError, match="longer than"):
        ranvier.from_nir(path, dt=1e-3)


def test_rounding_of_weights_in_single_precision_is_rounding() -> None:
    """Two matrices in a row are rounded where they become one; float64 would not excuse as much."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0.1, 1, (20, 20)).astype(np.float32) for _ in range(2))
    fused = (b @ a).astype(np.float32)

    def graph(*weights: np.ndarray) -> SNNGraph:
        names = ["x", *(f"r{k}" for k in range(len(weights) - 1)), "y"]
        return SNNGraph(
            dt=1e-3,
            inputs=[Input("x", (20,))],
            populations=[Population(name, (20,), Relay()) for name in names[1:-1]],
            projections=[
                Projection(f"w{k}", names[k], names[k + 1], Linear(weight)) for k, weight in enumerate(weights)
            ],
            outputs=[Output("y", (20,))],
        )

    x = rng.normal(size=(30, 20))
    assert verify(graph(a, b), graph(fused), x).close
    wide = [weight.astype(np.float64) for weight in (a, b)]
    assert verify(graph(*wide), graph(wide[1] @ wide[0]), x).close
    off = fused * np.float32(1 + 1e-5)
    assert not verify(graph(a, b), graph(off), x).close
