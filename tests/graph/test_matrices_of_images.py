"""A matrix reads an image as a flatten would make it, wherever it is used."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import nir
import ranvier
from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import LIF, Relay
from ranvier.graph.operations import Conv, Flatten, Identity, Linear, Operation, Scale
from ranvier.graph.snn_graph import SNNGraph

IMAGE, SIZE = (2, 4, 4), 32


def weights(rows: int, *, few: bool = False) -> Any:
    rng = np.random.default_rng(rows)
    weight = rng.normal(0.2, 0.5, (rows, SIZE))
    return sparse.csr_array(np.where(rng.random(weight.shape) < 0.2, weight, 0.0)) if few else weight


def network(*, flatten: bool, few: bool = False, dead_channel: bool = False) -> SNNGraph:
    """An image of neurons that a matrix reads, as it is or flattened."""
    kernel = np.random.default_rng(0).uniform(0.2, 1.0, (2, 1, 3, 3))
    if dead_channel:
        kernel[1] = -kernel[1]
    populations = [Population("image", IMAGE, LIF(tau=5e-3, r=2.0)), Population("n", (3,), LIF(tau=5e-3, r=2.0))]
    read = Linear(weights(3, few=few), np.array([0.1, 0.0, -0.1]))
    projections = [Projection("conv", "x", "image", Conv(kernel, None, (1, 1), (1, 1)))]
    if flatten:
        populations.append(Population("flat", (SIZE,), Relay()))
        projections += [Projection("f", "image", "flat", Flatten()), Projection("w", "flat", "n", read)]
    else:
        projections.append(Projection("w", "image", "n", read))
    projections.append(Projection("out", "n", "y", Identity()))
    inputs, outputs = [Input("x", (1, 4, 4), low=0.0, high=1.0)], [Output("y", (3,))]
    return SNNGraph(dt=1e-3, inputs=inputs, populations=populations, projections=projections, outputs=outputs)


def data(steps: int = 30, samples: int = 4) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).uniform(size=(steps, samples, 1, 4, 4))}


@pytest.mark.parametrize("few", [False, True])
def test_simulation_and_reference(few: bool) -> None:
    flat, plain = network(flatten=True, few=few), network(flatten=False, few=few)
    expected = ranvier.interpret(flat, data())["y"]
    assert expected.any()
    np.testing.assert_array_equal(ranvier.interpret(plain, data())["y"], expected)
    np.testing.assert_allclose(ranvier.simulate(plain, data())["y"], ranvier.simulate(flat, data())["y"], atol=1e-6)


def test_within_a_loop() -> None:
    # A population that feeds itself runs step by step, where products look for active sources.
    graphs = []
    for flatten in (False, True):
        graph = network(flatten=flatten)
        source = "flat" if flatten else "image"
        back = Projection("back", source, "n", Linear(weights(3) / 5), 1)
        own = Projection("own", "n", "n", Linear(np.full((3, 3), -0.2)), 1)
        graph.projections.update({"back": back, "own": own})
        graphs.append(graph)
    plain, flat = (ranvier.simulate(graph, data())["y"] for graph in graphs)
    np.testing.assert_allclose(plain, flat, atol=1e-6)


def test_gradients() -> None:
    x = jnp.asarray(data(steps=12, samples=1)["x"][:, 0])
    found = []
    for flatten in (False, True):
        learner = ranvier.compile(ranvier.lower(network(flatten=flatten)), ranvier.D_RTRL(), x[0])
        gradients, _ = learner.grad(lambda y, target: jnp.sum((y - target) ** 2), x, jnp.ones((12, 3)))
        found.append(gradients)
    for plain, flat in zip(map(jax.tree.leaves, found[:1]), map(jax.tree.leaves, found[1:]), strict=True):
        assert any(np.any(np.asarray(value)) for value in plain)
        for a, b in zip(plain, flat, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_exported_source(tmp_path: Path) -> None:
    plain, flat = tmp_path / "plain.py", tmp_path / "flat.py"
    x, outputs = jnp.asarray(data(samples=1)["x"][:, 0], jnp.float32), []
    for path, flatten in ((plain, False), (flat, True)):
        ranvier.export_source(network(flatten=flatten), path)
        names = runpy.run_path(str(path))
        arrays = names["load"]()
        state, values = names["initial_state"](arrays), []
        for value in x:
            state, y = names["step"](arrays, state, value)
            values.append(y)
        outputs.append(np.stack(values))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_nir() -> None:
    written = ranvier.to_nir(network(flatten=False))
    assert any(isinstance(node, nir.Flatten) for node in written.nodes.values())
    again = ranvier.from_nir(written)
    np.testing.assert_allclose(
        ranvier.interpret(again, data())["y"], ranvier.interpret(network(flatten=True), data())["y"]
    )


def test_a_nir_matrix_still_needs_a_vector() -> None:
    nodes = {
        "input": nir.Input(input_type={"input": np.array(IMAGE)}),
        "w": nir.Linear(weights(3)),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    graph = nir.NIRGraph(nodes=nodes, edges=[("input", "w"), ("w", "output")], type_check=False)
    with pytest.raises(ranvier.GraphError, match=r"needs a source of shape \[32\], not \[2, 4, 4\]"):
        ranvier.from_nir(graph, dt=1e-3)


def test_a_source_of_another_size_does_not_fit() -> None:
    graph = network(flatten=False)
    graph.projections["w"] = graph.projections["w"].replace(operation=Linear(np.ones((3, 31))))
    with pytest.raises(ranvier.GraphError, match=r"needs a source of shape \[31\]"):
        ranvier.simulate(graph, data())


def test_channels_are_removed_with_their_columns() -> None:
    before = network(flatten=False, dead_channel=True)
    after, report = ranvier.optimize(before, "dead-neurons")
    assert after.populations["image"].shape == (1, 4, 4)
    assert after.projections["w"].operation.arrays["weight"].shape == (3, 16)
    assert all(check.verdict != "different" for check in report.checks)


@pytest.mark.parametrize("passes", ["prune{sparsity=0.5,method=saliency}", "quantize{format=int8}"])
def test_approximate_passes(passes: str) -> None:
    results = []
    for flatten in (False, True):
        graph = network(flatten=flatten)
        after, _ = ranvier.optimize(graph, passes, calibration=data(), labels=np.array([0, 1, 2, 0]), budget=100.0)
        results.append(after.projections["w"].operation.arrays["weight"])
    np.testing.assert_allclose(results[0], results[1])
    assert not np.array_equal(results[0], weights(3))


def test_a_diagonal_matrix_of_an_image_is_no_scale() -> None:
    graph = network(flatten=False)
    graph.populations["n"] = Population("n", (SIZE,), LIF(tau=5e-3))
    operation: Operation = Linear(np.diag(np.arange(1.0, SIZE + 1)))
    graph.projections["w"] = graph.projections["w"].replace(operation=operation)
    graph.projections["out"] = graph.projections["out"].replace(operation=Linear(np.ones((3, SIZE))))
    after, _ = ranvier.optimize(graph, "canonicalize")
    assert not isinstance(after.projections["w"].operation, Scale)
