"""Models leave as one file that runs with JAX alone."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.ffi
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.models import alif_stp
from tests.support.examples import examples
from tests.support.random_graphs import inputs_of, random_graph, seeds


def recurrent() -> tuple[ranvier.types.StepFunction, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)

    def step(p: Any, s: Any, x: Any) -> Any:
        z = (s["v"] > 0.5).astype(jnp.float32)
        v = 0.9 * s["v"] + x["drive"] @ p["in"] + z @ p["rec"] + x["bias"]
        return {"v": v, "count": s["count"] + 1}, {"z": z, "v": v}

    params = {"in": jax.random.normal(keys[0], (3, 5)), "rec": jax.random.normal(keys[1], (5, 5))}
    return ranvier.step_function(step, params, {"v": jnp.zeros(5), "count": jnp.asarray(0)}, name="two inputs"), keys[0]


def test_a_step_function_with_several_inputs_and_outputs(tmp_path: Path) -> None:
    model, _ = recurrent()
    rng = np.random.default_rng(0)
    xs = {"drive": rng.normal(size=(7, 4, 3)).astype(np.float32), "bias": rng.normal(size=(7, 4)).astype(np.float32)}
    example = {"drive": jnp.zeros(3), "bias": jnp.zeros(())}
    path = ranvier.export_artifact(model, tmp_path / "model.rva", example)
    artifact = ranvier.load_artifact(path)
    assert [(one.name, one.shape) for one in artifact.inputs] == [("bias", ()), ("drive", (3,))]
    found = artifact.run(xs)

    def one(state: Any, x: Any) -> Any:
        return model.step(model.params, state, x)

    run = jax.vmap(lambda xs: jax.lax.scan(one, model.state, xs)[1], in_axes=1, out_axes=1)
    expected = run(xs)
    assert set(found) == {"z", "v"}
    assert expected["z"].any()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
    alone = artifact.run({name: values[:, 2] for name, values in xs.items()})
    np.testing.assert_allclose(alone["v"], found["v"][:, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(6), deadline=None)
def test_graphs_run_as_they_are_simulated(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    graph = random_graph(seed)
    inputs = inputs_of(graph, seed, steps=8, samples=2)
    path = ranvier.export_artifact(graph, tmp_path_factory.mktemp("found") / "graph.rva")
    found = ranvier.load_artifact(path).run(inputs)
    expected = ranvier.simulate(graph, inputs).outputs
    assert set(found) == set(expected)
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-5)


def test_noise_differs_from_sample_to_sample_and_from_seed_to_seed(tmp_path: Path) -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        key, use = jax.random.split(s["key"])
        v = 0.5 * s["v"] + x @ p["w"] + jax.random.normal(use, (2,))
        return {"v": v, "key": key}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, 2))}, {"v": jnp.zeros(2), "key": jax.random.key(3)})
    artifact = ranvier.load_artifact(ranvier.export_artifact(model, tmp_path / "noise.rva", jnp.ones(3)))
    (found,) = artifact.run(np.ones((5, 2, 3))).values()
    (again,) = artifact.run(np.ones((5, 2, 3))).values()
    (other,) = artifact.run(np.ones((5, 2, 3)), seed=7).values()
    np.testing.assert_array_equal(found, again)
    assert not np.allclose(found[:, 0], found[:, 1])
    assert not np.allclose(found, other)


def test_a_model_with_an_axis_of_samples(tmp_path: Path) -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v}, v - v.mean(axis=0)

    model = ranvier.step_function(step, {"w": jnp.ones((3, 2))}, {"v": jnp.zeros((4, 2))})
    artifact = ranvier.load_artifact(ranvier.export_artifact(model, tmp_path / "m.rva", jnp.ones((4, 3)), batched=True))
    xs = np.random.default_rng(0).normal(size=(6, 4, 3)).astype(np.float32)
    (found,) = artifact.run(xs).values()
    expected = jax.lax.scan(lambda s, x: model.step(model.params, s, x), model.state, xs)[1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_float64_models_keep_their_precision(tmp_path: Path) -> None:
    with jax.enable_x64(True):
        model = ranvier.step_function(
            lambda p, s, x: ({"v": s["v"] + x * p["w"]}, s["v"]), {"w": jnp.full(2, 1 / 3)}, {"v": jnp.zeros(2)}
        )
        path = ranvier.export_artifact(model, tmp_path / "double.rva", jnp.ones(2))
    (found,) = ranvier.load_artifact(path).run(np.ones((4, 2))).values()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found[3], 1.0, rtol=1e-15)


def test_the_command_line(tmp_path: Path) -> None:
    graph = random_graph(3)
    ranvier.save(graph, tmp_path / "graph.snn")
    inputs = inputs_of(graph, 3, steps=5, samples=2)
    inputs = inputs if isinstance(inputs, dict) else {"x": inputs}
    np.savez(tmp_path / "data.npz", **inputs)  # pyright: ignore[reportArgumentType]
    runner, artifact = CliRunner(), str(tmp_path / "graph.rva")
    made = runner.invoke(app, ["export", str(tmp_path / "graph.snn"), "-o", artifact], catch_exceptions=False)
    assert made.exit_code == 0
    assert "Artifact('random 3'" in made.output
    words = ["run", artifact, "--inputs", str(tmp_path / "data.npz"), "-o", str(tmp_path / "out.npz")]
    assert runner.invoke(app, words, catch_exceptions=False).exit_code == 0
    with np.load(tmp_path / "out.npz") as found:
        for values, wanted in zip(found.values(), ranvier.simulate(graph, inputs).outputs.values(), strict=True):
            np.testing.assert_allclose(values, wanted, rtol=1e-5, atol=1e-5)


def test_bad_artifacts_and_inputs(tmp_path: Path) -> None:
    model, _ = recurrent()
    example = {"drive": jnp.zeros(3), "bias": jnp.zeros(())}
    path = ranvier.export_artifact(model, tmp_path / "model.rva", example)
    artifact = ranvier.load_artifact(path)
    good = {"drive": np.zeros((4, 3)), "bias": np.zeros(4)}
    for bad, match in (
        ({**good, "bias": np.zeros(5)}, "inputs have shapes"),
        ({**good, "drive": np.zeros((4, 2))}, "inputs have shapes"),
        ({"drive": good["drive"]}, "got inputs for"),
        (good["drive"], "pass a mapping"),
    ):
        with pytest.raises(ranvier.InputError, match=match):
            artifact.run(bad)
    with pytest.raises(ranvier.ExportError, match="there is no file"):
        ranvier.load_artifact(tmp_path / "none.rva")
    data = path.read_bytes()
    for broken in (data[:100], b"", data[:-40]):
        (tmp_path / "broken.rva").write_bytes(broken)
        with pytest.raises(ranvier.ExportError, match="holds no artifact"):
            ranvier.load_artifact(tmp_path / "broken.rva")
    with zipfile.ZipFile(tmp_path / "later.rva", "w") as archive:
        archive.writestr("artifact.json", '{"format": 99}')
    with pytest.raises(ranvier.ExportError, match="its format is 99"):
        ranvier.load_artifact(tmp_path / "later.rva")

    def calls_back(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        jax.debug.callback(lambda value: None, v)
        return {"v": v}, v

    talking = ranvier.step_function(calls_back, {"w": jnp.ones((3, 2))}, {"v": jnp.zeros(2)}, name="talking")
    with pytest.raises(
        ranvier.ExportError, match=r"talking cannot be exported: here debug_callback at .*test_artifact\.py:\d+"
    ):
        ranvier.export_artifact(talking, tmp_path / "talking.rva", jnp.ones(3))
    assert not (tmp_path / "talking.rva").exists()


def test_an_artifact_runs_where_the_model_is_not(tmp_path: Path) -> None:
    """In another process, which never sees the step function."""
    model, _ = recurrent()
    example = {"drive": jnp.zeros(3), "bias": jnp.zeros(())}
    path = ranvier.export_artifact(model, tmp_path / "model.rva", example)
    code = (
        "import sys, numpy as np, ranvier\n"
        "found = ranvier.load_artifact(sys.argv[1]).run({'drive': np.ones((6, 3)), 'bias': np.ones(6)})\n"
        "assert not any(name.startswith(('brainstate', 'nir')) for name in sys.modules)\n"
        "print(found['v'].sum())"
    )
    told = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    here = ranvier.load_artifact(path).run({"drive": np.ones((6, 3)), "bias": np.ones(6)})
    assert float(told) == pytest.approx(float(here["v"].sum()), rel=1e-5)


def test_a_brainstate_module_with_units(tmp_path: Path) -> None:
    model, x = alif_stp()
    path = ranvier.export_artifact(model, tmp_path / "module.rva", x)
    info = ranvier.extract_module_info(model, x)
    artifact = ranvier.load_artifact(path)
    xs = np.stack([np.asarray(x)] * 6)
    found = artifact.run(xs)
    hidden = {slot.path: slot.value for slot in info.hidden}
    other = {slot.path: slot.value for slot in info.other}
    for t in range(6):
        output, hidden, other = info.step(x, hidden=hidden, other=other)
        for values, wanted in zip(found.values(), jax.tree.leaves(output), strict=True):
            np.testing.assert_allclose(values[t], wanted, rtol=1e-5, atol=1e-6)


def test_a_graph_without_states_is_exported(tmp_path: Path) -> None:
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,))],
        populations=[ranvier.Population("p", (2,), ranvier.neurons.Threshold(0.5))],
        projections=[
            ranvier.Projection("w", "x", "p", ranvier.operations.Linear(np.array([[1.0, 0, 0], [0, 1, 1]]))),
            ranvier.Projection("y", "p", "out", ranvier.operations.Identity()),
        ],
        outputs=[ranvier.Output("out", (2,))],
    )
    artifact = ranvier.load_artifact(ranvier.export_artifact(graph, tmp_path / "graph.rva"))
    np.testing.assert_array_equal(artifact.run(np.array([[0.6, 0.3, 0.1], [0.1, 0.3, 0.4]]))["out"], [[1, 0], [0, 1]])


@pytest.mark.parametrize("target", ["xla_ffi_python_cpu_callback", "somebodys_kernel"])
def test_a_step_that_calls_into_the_process_is_refused(target: str, tmp_path: Path) -> None:
    """A file made by hand, with the hash that its content has."""

    def honest(params: Any, state: Any, x: Any) -> Any:
        return {"v": state["v"] + x @ params["w"]}, state["v"]

    model = ranvier.step_function(honest, {"w": jnp.ones((3, 2))}, {"v": jnp.zeros(2)})
    path = ranvier.export_artifact(model, tmp_path / "m.rva", jnp.ones(3))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def planted(calls: bool) -> Path:
        def step(params: Any, state: Any, inputs: Any) -> Any:
            v = state[0]
            called = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(v.shape, v.dtype))(v) if calls else v
            return [called], [called]

        (samples,) = jax.export.symbolic_shape("samples")
        shapes = [[(3, 2)], [(samples, 2)], [(samples, 3)]]
        arguments = [[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in part] for part in shapes]
        allowed = [jax.export.DisabledSafetyCheck.custom_call(target)]
        step = bytes(jax.export.export(jax.jit(step), disabled_checks=allowed)(*arguments).serialize())
        digest = hashlib.sha256(step)
        for name in ("params.0.npy", "state.0.npy"):
            value = np.load(io.BytesIO(members[name]))
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        manifest = {**json.loads(members["artifact.json"]), "sha256": digest.hexdigest()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**members, "step.bin": step, "artifact.json": json.dumps(manifest)}.items():
                archive.writestr(name, content)
        return path

    assert ranvier.load_artifact(planted(calls=False)).run(np.ones((2, 3), np.float32))["output"].shape == (2, 2)
    with pytest.raises(ranvier.ExportError, match=f"calls '{target}'"):
        ranvier.load_artifact(planted(calls=True))
