"""Steps as Python source."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier

from .random_graphs import random_graph
from .zoo import MODELS

NAMES = ("dense", "lif_network", "alif_network", "gif_network", "stp_network", "gru", "lstm", "tied_weights")


def _module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(module, graph, inputs):
    arrays = module.load()
    state, found = module.initial_state(arrays), []
    step = jax.jit(module.step)
    for t in range(len(next(iter(inputs.values())))):
        given = {name: jnp.asarray(values[t]) for name, values in inputs.items()}
        state, y = step(arrays, state, given if len(given) > 1 else next(iter(given.values())))
        found.append(list(y.values()) if isinstance(y, dict) else [y])
    return {name: np.stack([step[k] for step in found]) for k, name in enumerate(graph.outputs)}


def _inputs(graph, steps=12):
    generator = np.random.default_rng(1)
    return {k: generator.uniform(0, 2, (steps, *n.shape)).astype(np.float32) for k, n in graph.inputs.items()}


def _check(graph, path):
    ranvier.export_source(graph, path)
    inputs = _inputs(graph)
    found, expected = _run(_module(path), graph, inputs), ranvier.simulate(graph, inputs).outputs
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-4, atol=2e-4)
    return expected


@pytest.mark.parametrize("seed", range(6))
def test_source_of_graphs_does_what_the_graph_does(seed, tmp_path):
    _check(random_graph(seed), tmp_path / "model.py")


@pytest.mark.parametrize("name", NAMES)
def test_source_of_models_does_what_the_model_does(name, tmp_path):
    model, inputs = MODELS[name].build(jnp.float32)
    jax.config.update("jax_enable_x64", False)
    expected = _check(ranvier.SNNGraph.from_module(model, *inputs), tmp_path / "model.py")
    assert any(values.any() for values in expected.values())


def test_source_runs_without_ranvier(tmp_path):
    graph = random_graph(0)
    ranvier.export_source(graph, tmp_path / "model.py")
    shapes = {name: node.shape for name, node in graph.inputs.items()}
    given = f"{{k: jnp.ones(s) for k, s in {shapes!r}.items()}}"
    given = given if len(shapes) > 1 else f"next(iter({given}.values()))"
    code = (
        "import sys; sys.modules['ranvier'] = None; sys.path.insert(0, '.')\n"
        f"import model, jax.numpy as jnp\narrays = model.load()\n"
        f"print(model.step(arrays, model.initial_state(arrays), {given})[1] is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_source_keeps_the_models_own_surrogate_derivative(tmp_path):
    model, inputs = MODELS["dense"].build(jnp.float32)
    raised = ranvier.raise_model(model, *inputs)
    ranvier.export_source(model, tmp_path / "model.py", *inputs)
    module, lowered = _module(tmp_path / "model.py"), ranvier.lower(raised.graph)
    arrays = module.load()
    x = jnp.asarray([0.5, 1.0, 0.2])

    def out_of_source(weight):
        given = {**arrays, "w": {**arrays["w"], "weight": weight}}
        return module.step(given, module.initial_state(given), x)[1].sum()

    def out_of_graph(weight):
        return lowered.step({"w": {"weight": weight}}, lowered.state, x)[1].sum()

    weight = arrays["w"]["weight"]
    expected = jax.grad(out_of_graph)(weight)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(jax.grad(out_of_source)(weight), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("noisy", "population 'noise' works on whole arrays .* at .*py"),
        ("grouped_einsum", "projection 'w' is a map without a name"),
    ],
)
def test_what_has_no_words_is_refused_and_nothing_is_written(name, told, tmp_path):
    model, inputs = MODELS[name].build(jnp.float32)
    with pytest.raises(ranvier.ExportError, match=f"{told}.*export_artifact"):
        ranvier.export_source(model, tmp_path / "model.py", *inputs)
    assert not list(tmp_path.iterdir())


def test_source_ends_in_py(tmp_path):
    with pytest.raises(ranvier.ExportError, match=r"ends in \.py"):
        ranvier.export_source(random_graph(0), tmp_path / "model.txt")


def test_pools_and_surrogates_around_surrogates(tmp_path):
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (1, 4, 4))],
        projections=[ranvier.Projection("s", "x", "y", ranvier.operations.AvgPool())],
        outputs=[ranvier.Output("y", (1, 2, 2))],
    )
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4)
    module = _module(ranvier.export_source(graph, tmp_path / "pool.py"))
    arrays = module.load()
    _, y = module.step(arrays, module.initial_state(arrays), x)
    np.testing.assert_allclose(y, ranvier.interpret(graph, x[None]).output[0])

    @jax.custom_jvp
    def fires(v):
        return braintools.surrogate.sigmoid(v)

    fires.defjvp(lambda p, t: (fires(p[0]), t[0] * jnp.exp(-(p[0] ** 2))))

    def step(params, state, x):
        v = 0.9 * state["v"] + x @ params["w"]
        z = fires(v - 1.0)
        return {"v": v - z}, z

    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"v": jnp.zeros(4)})
    module = _module(ranvier.export_source(model, tmp_path / "step.py", jnp.ones(3)))
    arrays = module.load()
    _, z = module.step(arrays, module.initial_state(arrays), jnp.ones(3))
    np.testing.assert_array_equal(z, np.ones(4))
