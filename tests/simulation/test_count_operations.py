"""Counts of operations: by hand, by brute force, and as NeuroBench's harness counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

import ranvier
from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import Relay, Threshold
from ranvier.graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Scale, Select, SumPool
from ranvier.graph.snn_graph import SNNGraph
from tests.support.examples import examples
from tests.support.random_graphs import image_graph, inputs_of, random_graph, seeds


def graph_of(source: tuple[int, ...], *operations: Any, neuron: Any = None, **options: Any) -> SNNGraph:
    """x -> the operations, relays between them -> neurons that fire for what is above 0.5 -> y."""
    shape, last, populations, projections = source, "x", [], []
    for k, operation in enumerate(operations):
        shape = operation.target_shape(shape)
        name = "n" if k + 1 == len(operations) else f"r{k}"
        populations.append(Population(name, shape, Threshold(0.5) if name == "n" else Relay()))
        projections.append(Projection(f"o{k}", last, name, operation, **(options if k == 0 else {})))
        last = name
    projections.append(Projection("out", "n", "y", Identity()))
    inputs, outputs = [Input("x", source)], [Output("y", shape)]
    return SNNGraph(dt=1e-3, inputs=inputs, populations=populations, projections=projections, outputs=outputs)


WEIGHT = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
STEPS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.5], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])


@pytest.mark.parametrize("weight", [WEIGHT, sparse.csr_array(WEIGHT)])
def test_a_matrix_by_hand(weight: Any) -> None:
    counts = ranvier.count_operations(graph_of((3,), Linear(weight, np.ones(2))), STEPS)
    # [1 0 1]: 1 + 2, only ones; [0 1 0.5]: 0 + 2, not only ones; zeros: nothing; [-1 0 0]: 1, only signs.
    assert (counts.effective_acs, counts.effective_macs) == (3 + 1, 2)
    assert counts.dense == 4 * 6
    assert counts.connection_sparsity == 0.5
    assert counts.multiply_adds == (3 if sparse.issparse(weight) else 6)
    assert counts.parameters == (3 if sparse.issparse(weight) else 6) + 2


def test_counts_are_per_sample() -> None:
    graph = graph_of((3,), Linear(WEIGHT))
    both = np.stack([STEPS, np.zeros_like(STEPS)], axis=1)
    counts = ranvier.count_operations(graph, both)
    assert (counts.dense, counts.effective_acs, counts.effective_macs) == (24, 2, 1)
    assert (counts.steps, counts.samples) == (4, 2)


def test_a_step_is_of_one_kind_for_all_samples() -> None:
    both = np.stack([STEPS, np.roll(STEPS, 1, axis=0)], axis=1)
    counts = ranvier.count_operations(graph_of((3,), Linear(WEIGHT)), both)
    # The steps with 0.5 in either sample: 1 and 2. The samples have 2 + 3 and 0 + 2 operations there.
    assert (counts.effective_macs, counts.effective_acs) == ((2 + 3 + 0 + 2) / 2, (3 + 1 + 1 + 0) / 2)


def test_a_convolution_by_hand() -> None:
    # Four windows of 2 x 2 read the middle of a 3 x 3 image, one of them with the weight that is zero.
    kernel = np.array([[[[1.0, 0.0], [1.0, 1.0]]]])
    image = np.zeros((1, 1, 3, 3))
    image[0, 0, 1, 1] = 1.0
    counts = ranvier.count_operations(graph_of((1, 3, 3), Conv(kernel)), image)
    assert (counts.dense, counts.effective_acs, counts.effective_macs) == (16, 3, 0)
    assert counts.multiply_adds == 16
    padded = ranvier.count_operations(graph_of((1, 3, 3), Conv(kernel, None, (1, 1), (1, 1))), image)
    # With a border of zeros there are 16 windows, which read 4 * 9 pixels of the image.
    assert (padded.dense, padded.effective_acs, padded.multiply_adds) == (36, 3, 64)
    assert padded.connection_sparsity == 0.25


def test_what_only_passes_on_or_adds_has_no_synaptic_operations() -> None:
    graph = graph_of((1, 4, 4), AvgPool(), SumPool((1, 2), (1, 2)), Flatten(), Select(np.array([1, 0])))
    counts = ranvier.count_operations(graph, np.ones((3, 1, 4, 4)))
    assert counts.dense == counts.effective_macs == counts.effective_acs == 0
    assert [p.multiply_adds for p in counts.projections.values()] == [16, 4, 0, 0, 0]


def test_a_scale_is_what_a_diagonal_matrix_is() -> None:
    x = np.array([[1.0, 0.0, 2.0]])
    scale = ranvier.count_operations(graph_of((3,), Scale(np.array([1.0, 2.0, 0.0]))), x)
    diagonal = ranvier.count_operations(graph_of((3,), Linear(np.diag([1.0, 2.0, 0.0]))), x)
    assert scale.effective_macs == diagonal.effective_macs == 1
    assert scale.dense == 3
    constant = ranvier.count_operations(graph_of((3,), Constant(np.ones(3))), x)
    assert constant.dense == constant.effective_macs == 0


def test_delays_bring_the_initial_value_first() -> None:
    x = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    graph = graph_of((3,), Identity(), Linear(WEIGHT))
    graph.projections["o1"] = graph.projections["o1"].replace(delay=2)
    assert ranvier.count_operations(graph, x).effective_acs == 3
    graph.populations["r0"] = graph.populations["r0"].replace(initial={"out": np.array([0.0, 0.0, 1.0])})
    assert ranvier.count_operations(graph, x).effective_acs == 3 + 2 * 2
    graph.populations["r0"] = graph.populations["r0"].replace(initial={"out": np.array([0.0, 0.0, 0.5])})
    counts = ranvier.count_operations(graph, x)
    assert (counts.effective_acs, counts.effective_macs) == (3, 4)


def test_activation_sparsity() -> None:
    graph = graph_of((3,), Identity(), Linear(np.eye(3)))
    counts = ranvier.count_operations(graph, np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    assert counts.activation_sparsities == {"n": pytest.approx(0.5)}
    assert counts.activation_sparsity == pytest.approx(0.5)


def test_energy_is_what_operations_take() -> None:
    counts = ranvier.count_operations(graph_of((3,), Linear(WEIGHT)), STEPS)
    assert counts.energy(mac=3.0, ac=1.0) == 2 * 3 + 4
    assert counts.energy() == pytest.approx(2 * 4.6e-12 + 4 * 0.9e-12)


def test_a_table() -> None:
    text = str(ranvier.count_operations(graph_of((3,), Linear(WEIGHT)), STEPS))
    assert "synaptic operations per sample, on 1 sample of 4 steps" in text
    assert "activation sparsity" in text
    assert [line.split() for line in text.splitlines()][-4][:4] == ["total", "24", "2", "4"]


def brute_force(graph: SNNGraph, inputs: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Effective operations of every projection with weights, one by one from its matrix and the reference's values."""
    names = sorted({p.source for p in graph.projections.values() if p.source in graph.populations})
    run = ranvier.interpret(graph, inputs, record=names)
    results = {}
    for name, p in graph.projections.items():
        if not isinstance(p.operation, (Linear, Conv, Scale)):
            continue
        x = inputs[p.source] if p.source in inputs else run[p.source]
        flat = x.reshape(len(x), -1)
        initial = np.zeros(flat.shape[1])
        if p.source in graph.populations:
            initial = graph.populations[p.source].initial_value("out").ravel()
        if p.delay:
            flat = np.concatenate([np.tile(initial, (p.delay, 1)), flat])[: len(flat)]
        matrix = graph.affine_map(p)[0].toarray()
        macs = acs = 0
        for values in flat:
            operations = sum(int(a != 0 and v != 0) for row in matrix for a, v in zip(row, values, strict=True))
            if all(v in (-1.0, 0.0, 1.0) for v in values):
                acs += operations
            else:
                macs += operations
        results[name] = macs, acs
    return results


@given(seeds)
@settings(max_examples=examples(25), deadline=None)
def test_random_graphs_by_brute_force(seed: int) -> None:
    graph = random_graph(seed) if seed % 3 else image_graph(seed)
    inputs = {name: np.round(x) for name, x in inputs_of(graph, seed, steps=6).items()}
    counts = ranvier.count_operations(graph, inputs, dtype=np.float64)
    for name, (macs, acs) in brute_force(graph, inputs).items():
        p = counts.projections[name]
        assert (p.effective_macs, p.effective_acs) == (macs, acs)
        assert p.effective_macs + p.effective_acs <= p.dense
        assert counts.multiply_adds >= 0


def test_data_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, x = image_graph(3), inputs_of(image_graph(3), 0, steps=5, samples=7)
    whole = ranvier.count_operations(graph, x)
    monkeypatch.setattr(
        "ranvier.simulation.count_operations.BYTES", 4 * 5 * sum(p.size for p in graph.populations.values()) * 3
    )
    assert ranvier.count_operations(graph, x) == whole


def test_populations_that_compute_by_themselves_are_named() -> None:
    import jax.numpy as jnp

    def step(params: Any, state: Any, x: Any) -> Any:
        v = jnp.sort(0.5 * state["v"] + params["w"] @ x)
        return {"v": v}, v

    rng = np.random.default_rng(0)
    params, state = {"w": jnp.asarray(rng.normal(size=(3, 2)))}, {"v": jnp.zeros(3)}
    model = ranvier.step_function(step, params, state)
    graph = ranvier.SNNGraph.from_program(ranvier.extract_module_info(model, jnp.zeros(2)), dt=1e-3)
    counts = ranvier.count_operations(graph, np.ones((3, 2)))
    assert counts.uncounted
    assert "not counted" in str(counts)
