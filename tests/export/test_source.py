"""Steps as Python source."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.export.source_names import check_program
from tests.support.examples import few
from tests.support.random_graphs import random_graph
from tests.support.zoo import MODELS

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


@few("name", NAMES)
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


# Names --------------------------------------------------------------------------------------------------------------

CODE = "import pathlib; pathlib.Path('ran').touch()"
WORDS = """
    DT NAME NAMES FILE SHA256 content load step initial_state arrays state inputs new jax jnp np lax io Path hashlib
    spike spike_at heaviside surrogate surrogate_1 sum dict print class lambda None match type self __import__ a a_v
    a_in a_z a_1 a_2 a2 a__v A a-v a.v 1 1a _ __ é ﬁ fi 日本 ª x x_in a/b ../a queue \\ a\\ { } ' " %s {name!a} {CODE}
""".split()  # noqa: SIM905
TEXTS = (
    f'"""\n{CODE}\n"""',
    f"a\n    {CODE}",
    f"a\r{CODE}",
    f"a\x0c\u2028{CODE}",
    f"'); {CODE} #",
    "a v",
    "past a",
    "past x",
    "a/initial v",
    "",
    "\u202e",
    "x" * 5000,
)
NASTY = (*WORDS, *TEXTS)


def _renamed(graph, names):
    """The graph with its elements called otherwise, in order."""
    new = dict(zip([*graph.nodes], names, strict=False))
    of = lambda old: new.get(old, old)  # noqa: E731
    return ranvier.SNNGraph(
        name=names[0],
        dt=graph.dt,
        inputs=[dataclasses.replace(node, name=of(node.name)) for node in graph.inputs.values()],
        populations=[node.replace(name=of(node.name)) for node in graph.populations.values()],
        outputs=[dataclasses.replace(node, name=of(node.name)) for node in graph.outputs.values()],
        projections=[
            p.replace(name=f"{k} {names[k % len(names)]}", source=of(p.source), target=of(p.target))
            for k, p in enumerate(graph.projections.values())
        ],
    )


@few("seed", range(12))
def test_names_are_data(seed, tmp_path, monkeypatch):
    """Whatever elements are called, a program does what the graph does, and nothing else."""
    monkeypatch.chdir(tmp_path)
    names = np.random.default_rng(seed).permutation(np.array(NASTY, object)).tolist()
    _check(_renamed(random_graph(seed), names), tmp_path / "model.py")
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["model.npz", "model.py"]


@few("name", NASTY)
def test_a_name_beside_names_like_it(name, tmp_path, monkeypatch):
    """Of an input, a population, an output and the graph: each collides with what the others would be called."""
    monkeypatch.chdir(tmp_path)
    lif, identity = ranvier.neurons.LIF(tau=0.02, v_threshold=0.3), ranvier.operations.Identity()
    names = [name, f"{name}_v", f"{name}_in", f"{name} v"]
    graph = ranvier.SNNGraph(
        name=name,
        dt=1e-3,
        inputs=[ranvier.Input(names[0], (3,)), ranvier.Input(names[1], (3,))],
        populations=[ranvier.Population(names[2], (3,), lif)],
        outputs=[ranvier.Output(names[3], (3,))],
        projections=[
            ranvier.Projection(name, names[0], names[2], ranvier.operations.Linear(np.eye(3) * 9)),
            ranvier.Projection(f"{name}/", names[1], names[2], ranvier.operations.Scale(np.arange(3.0))),
            ranvier.Projection(f"{name}//", names[2], names[2], ranvier.operations.Linear(-np.eye(3)), 2),
            ranvier.Projection("out", names[2], names[3], identity),
            ranvier.Projection("direct", names[1], names[3], identity, 1),
        ],
    )
    assert _check(graph, tmp_path / "model.py")[names[3]].any()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == ["model.npz", "model.py"]


def test_names_from_a_nir_file_are_data(tmp_path, monkeypatch):
    nir = pytest.importorskip("nir")
    monkeypatch.chdir(tmp_path)
    name = f"a\n    {CODE.replace('/', '_')}"
    nodes = {"x": nir.Input({"input": np.array([2])}), "y": nir.Output({"output": np.array([2])})}
    nodes[name] = nir.LI(*(np.full(2, v) for v in (0.02, 1.0, 0.0)))
    nir.write("net.nir", nir.NIRGraph(nodes, [("x", name), (name, "y")]))
    _check(ranvier.from_nir("net.nir", dt=1e-3), tmp_path / "model.py")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a\x00b", "\ud800", "a\udfffb"])
def test_what_is_no_text_is_no_name(name, tmp_path):
    graph = _renamed(random_graph(1), [name, "b", "c", "d", "e", "f", "g"])
    for write in (ranvier.export_source, ranvier.save):
        with pytest.raises(ranvier.GraphError, match="not text that a file can hold"):
            write(graph, tmp_path / ("m.py" if write is ranvier.export_source else "m.snn"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("import os", "import os"),
        ("from jax import debug", "from jax import debug"),
        ("print(1)", r"print\(1\)"),
        ("OTHER = 1", "OTHER"),
        ("def step(arrays, state, inputs):\n    return jax", "step, which is defined 2 times"),
        ("def other():\n    return open", "open"),
        ("def other():\n    jnp = 1\n    return jnp", "jnp"),
        ("def other(x):\n    return x.__class__", "x.__class__"),
        ("if True:\n    pass", "if True"),
        ("def", "does not compile"),
        ("'\x00'", "does not compile"),
    ],
)
def test_the_check_of_what_was_written_catches(line, what, tmp_path):
    ranvier.export_source(random_graph(2), tmp_path / "model.py")
    text = (tmp_path / "model.py").read_text()
    issued = set(re.findall(r"^    (\w+)", text, re.MULTILINE))
    check_program(text, issued)
    with pytest.raises(ranvier.ExportError, match=what):
        check_program(f"{text}\n{line}\n", issued)


def test_a_program_with_the_arrays_of_another_does_not_run(tmp_path):
    first, second = (random_graph(seed) for seed in (3, 4))
    path = ranvier.export_source(first, tmp_path / "model.py")
    module = _module(path)
    program = path.read_text()
    ranvier.export_source(second, path)
    with pytest.raises(ImportError, match=r"model\.npz does not hold the arrays .* export again"):
        module.load()
    path.write_text(program)
    with pytest.raises(ImportError, match=r"model\.npz does not hold the arrays"):
        _module(path)
    ranvier.export_source(first, path)
    assert _module(path).load()


def test_a_failed_export_leaves_the_old_pair(tmp_path, monkeypatch):
    path = ranvier.export_source(random_graph(3), tmp_path / "model.py")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(ranvier.ExportError, match="no space left"):
        ranvier.export_source(random_graph(4), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_arrays_of_another_file_can_be_loaded(tmp_path):
    path = ranvier.export_source(random_graph(3), tmp_path / "model.py")
    trained = tmp_path / "trained.npz"
    with np.load(tmp_path / "model.npz") as arrays:
        np.savez(trained, **{name: arrays[name] + 1 for name in arrays.files})
    module = _module(path)
    own, other = module.load(), module.load(trained)
    assert all(np.allclose(a + 1, b) for a, b in zip(*map(jax.tree.leaves, (own, other)), strict=True))


def test_many_projections_into_one_population(tmp_path):
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (2,))],
        outputs=[ranvier.Output("y", (2,))],
        projections=[
            ranvier.Projection(f"w{k}", "x", "y", ranvier.operations.Scale(np.array([1.0, k]))) for k in range(800)
        ],
    )
    path = ranvier.export_source(graph, tmp_path / "model.py")
    module = _module(path)
    arrays = module.load()
    _, y = module.step(arrays, module.initial_state(arrays), jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(y, [800, 2 * sum(range(800))], rtol=1e-4)
