"""NIR graphs and files, in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

import nir
import ranvier
from ranvier.graph.neurons import IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Relay, Threshold
from tests.support.examples import examples
from tests.support.random_graphs import image_graph, inputs_of, random_graph, seeds

KINDS = (LIF, CubaLIF, IF, LI, I, CubaLI, Threshold, Relay, Delay)


def lif(size: int, **changes: Any) -> nir.LIF:
    values = {"tau": 0.01, "r": 1.0, "v_leak": 0.0, "v_threshold": 0.5, "v_reset": 0.0}
    return nir.LIF(**{name: np.full(size, changes.get(name, value)) for name, value in values.items()})


def has_double_edge(graph: ranvier.SNNGraph) -> bool:
    """Whether NIR has no place for it: two projections that only pass values on between the same nodes."""
    try:
        ranvier.to_nir(graph)
    except ranvier.GraphError as error:
        return "double edge" in str(error)
    return False


def recurrent() -> nir.NIRGraph:
    """Input, weights, neurons with recurrent weights, readout."""
    rng = np.random.default_rng(0)
    return nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])),
            "w": nir.Affine(rng.normal(1, 1, (4, 3)), rng.normal(0, 0.1, 4)),
            "lif": lif(4),
            "rec": nir.Linear(rng.normal(0, 1, (4, 4))),
            "out": nir.Linear(rng.normal(0, 1, (2, 4))),
            "li": nir.LI(np.full(2, 0.01), np.ones(2), np.zeros(2)),
            "output": nir.Output(np.array([2])),
        },
        [("input", "w"), ("w", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "out"), ("out", "li"), ("li", "output")],
    )


def test_nothing_is_guessed() -> None:
    with pytest.raises(ranvier.GraphError, match="time step: pass dt="):
        ranvier.from_nir(recurrent(), reset="zero", recurrent_delay=1)
    with pytest.raises(ranvier.GraphError, match=r"there is no reset for \['lif'\]"):
        ranvier.from_nir(recurrent(), dt=1e-3, recurrent_delay=1)
    with pytest.raises(ranvier.GraphError, match=r"close a cycle: 'rec' \(lif -> lif\)"):
        ranvier.from_nir(recurrent(), dt=1e-3, reset="zero")
    with pytest.raises(ranvier.GraphError, match=r"(?s)pass dt=.*for \['lif'\].*'rec' \(lif -> lif\)"):
        ranvier.from_nir(recurrent())
    with pytest.raises(ranvier.GraphError, match="reset names \\['nobody'\\]"):
        ranvier.from_nir(recurrent(), dt=1e-3, reset={"lif": "zero", "nobody": "zero"}, recurrent_delay=1)
    for wrong in (0, -1, 1.5, "1", True, 10**9):
        with pytest.raises(ranvier.GraphError, match="recurrent_delay="):
            ranvier.from_nir(recurrent(), dt=1e-3, reset="zero", recurrent_delay=wrong)  # pyright: ignore


def test_a_recurrent_graph_by_hand() -> None:
    source = recurrent()
    graph = ranvier.from_nir(source, dt=1e-3, reset="zero", recurrent_delay=1)
    x = np.random.default_rng(1).random((60, 3)) * 2
    v, z, u, outputs = np.zeros(4), np.zeros(4), np.zeros(2), []
    nodes: Any = source.nodes
    for x_t in x:
        current = nodes["w"].weight @ x_t + nodes["w"].bias + nodes["rec"].weight @ z
        v = v + 0.1 * (current - v)
        z = (v > 0.5).astype(float)
        v = np.where(z == 1, 0.0, v)
        u = u + 0.1 * (nodes["out"].weight @ z - u)
        outputs.append(u)
    found = ranvier.interpret(graph, x, record=["lif"])
    assert found["lif"].any()
    np.testing.assert_allclose(found.output, outputs, atol=1e-12)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(15), deadline=None)
def test_graphs_come_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    graph = random_graph(seed, KINDS, nir=True) if seed % 4 else image_graph(seed)
    path = tmp_path_factory.mktemp("nir") / "graph.nir"
    assume(not has_double_edge(graph))
    ranvier.to_nir(graph, path)
    again = ranvier.from_nir(path)
    inputs = inputs_of(graph, seed, steps=20)
    meant, found = ranvier.interpret(graph, inputs), ranvier.interpret(again, inputs)
    np.testing.assert_allclose(found.output, meant.output, rtol=1e-9, atol=1e-9)


@given(seeds)
@settings(max_examples=examples(15), deadline=None)
def test_nir_comes_back(seed: int) -> None:
    graph = random_graph(seed, KINDS, nir=True) if seed % 4 else image_graph(seed)
    assume(not has_double_edge(graph))
    first = ranvier.to_nir(graph)
    second = ranvier.to_nir(ranvier.from_nir(first))
    assert set(first.nodes) == set(second.nodes)
    assert sorted(first.edges) == sorted(second.edges)
    for name, node in first.nodes.items():
        for field, value in node.to_dict().items():
            np.testing.assert_array_equal(value, second.nodes[name].to_dict()[field], err_msg=f"{name}.{field}")


def test_nested_graphs() -> None:
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([3])),
            "w": nir.Linear(np.eye(3)),
            "lif": lif(3),
            "output": nir.Output(np.array([3])),
        },
        [("input", "w"), ("w", "lif"), ("lif", "output")],
    )
    outer = nir.NIRGraph(
        {"input": nir.Input(np.array([3])), "block": inner, "output": nir.Output(np.array([3]))},
        [("input", "block"), ("block", "output")],
        type_check=False,
    )
    graph = ranvier.from_nir(outer, dt=1e-3, reset="zero")
    assert list(graph.populations) == ["block.lif"]
    assert ranvier.interpret(graph, np.ones((30, 3))).output.any()


def test_delays_are_steps() -> None:
    graph = nir.NIRGraph(
        {
            "input": nir.Input(np.array([2])),
            "d": nir.Delay(np.array([1e-3, 3e-3])),
            "output": nir.Output(np.array([2])),
        },
        [("input", "d"), ("d", "output")],
    )
    x = np.arange(1.0, 11.0).reshape(5, 2)
    found = ranvier.interpret(ranvier.from_nir(graph, dt=1e-3), x).output
    np.testing.assert_array_equal(found, [[0, 0], [1, 0], [3, 0], [5, 2], [7, 4]])
    with pytest.raises(ranvier.GraphError, match=r"node 'd' \(Delay\).*not whole numbers of steps"):
        ranvier.from_nir(graph, dt=2e-3)


def test_a_wrong_dt_is_told() -> None:
    with pytest.raises(ranvier.GraphError, match="lif: diverges"):
        ranvier.from_nir(recurrent(), dt=0.05, reset="zero", recurrent_delay=1)


def test_wrong_shapes_name_the_node() -> None:
    source = recurrent()
    source.nodes["rec"] = nir.Linear(np.ones((4, 5)))
    with pytest.raises(ranvier.GraphError, match="rec"):
        ranvier.from_nir(source, dt=1e-3, reset="zero", recurrent_delay=1)
    source.edges.append(("lif", "nobody"))
    with pytest.raises(ranvier.GraphError, match="no node 'nobody'"):
        ranvier.from_nir(source, dt=1e-3, reset="zero", recurrent_delay=1)


def test_metadata_is_kept() -> None:
    source = recurrent()
    source.metadata["made by"] = "hand"
    source.nodes["lif"].metadata["layer"] = "1"
    graph = ranvier.from_nir(source, dt=1e-3, reset="zero", recurrent_delay=1)
    again = ranvier.to_nir(graph)
    assert again.metadata["made by"] == "hand"
    assert again.nodes["lif"].metadata["layer"] == "1"


def test_what_nir_has_not_is_refused() -> None:
    graph = random_graph(0)
    graph.populations["p0"] = ranvier.Population(
        "p0", graph.populations["p0"].shape, ranvier.neurons.ALIF(tau=0.01, tau_a=0.1, beta=0.1)
    )
    with pytest.raises(ranvier.GraphError, match="'p0' is ALIF with reset 'zero', which NIR does not have"):
        ranvier.to_nir(graph)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "broken.nir"
    path.write_bytes(b"not HDF5")
    with pytest.raises(ranvier.GraphError, match="cannot be read as NIR"):
        ranvier.from_nir(path, dt=1e-3)
    with pytest.raises(ranvier.GraphError, match="there is no file"):
        ranvier.from_nir(tmp_path / "nowhere.nir", dt=1e-3)
