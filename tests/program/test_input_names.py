"""Arrays by name: a wrong name is an error that lists the names, wherever inputs are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.errors import RanvierError

X = np.random.default_rng(0).uniform(0, 3, (12, 3, 3))
WRONG: list[dict[str, Any]] = [
    {"inptu": X},
    {"input": X, "extra": X},
    {"input": X, "lables": np.zeros(3, int)},
    {"Input": X},
    {},
]


def graph() -> ranvier.SNNGraph:
    rng = np.random.default_rng(1)
    layers = [
        ranvier.LayerNode("a", 3, 4, rng.normal(1, 1, (4, 3))),
        ranvier.LayerNode("b", 4, 2, rng.normal(1, 1, (2, 4))),
    ]
    return ranvier.SNNGraph(layers=layers)


USES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "interpret": lambda data: ranvier.interpret(graph(), data),
    "simulate": lambda data: ranvier.simulate(graph(), data),
    "profile": lambda data: ranvier.profile(graph(), data),
    "optimize": lambda data: ranvier.optimize(graph(), level="O1", calibration=data),
    "verify": lambda data: ranvier.verify(graph(), graph(), data),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("data", WRONG, ids=lambda data: "+".join(data) or "none")
def test_of_graphs(use: str, data: dict[str, Any]) -> None:
    with pytest.raises(ranvier.InputError, match=r"\['input'\]") as caught:
        USES[use](data)
    assert all(name in str(caught.value) for name in data)


def test_of_steps_and_learners() -> None:
    step = ranvier.lower(graph())
    one = X[0, 0]
    for wrong in ({"inptu": one}, {"input": one, "extra": one}):
        with pytest.raises(ranvier.InputError, match=r"got inputs for .*inptu|got inputs for .*extra"):
            ranvier.compile(step, ranvier.D_RTRL(), wrong)
    learner = ranvier.compile(step, ranvier.D_RTRL(), {"input": one})
    for wrong in ({"inptu": X[:, 0]}, {"input": X[:, 0], "extra": X[:, 0]}):
        with pytest.raises(ranvier.InputError, match=r"got inputs for .*has \['input'\]"):
            learner.grad(lambda out, _: jnp.sum(out), wrong, None)


def two_inputs() -> Any:
    def step(params: Any, state: Any, x: Any) -> Any:
        h = jnp.tanh(x["a"] @ params["w"] + x["b"] + state["h"] * 0.5)
        return {"h": h}, h

    return ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"h": jnp.zeros(4)})


@pytest.mark.slow
def test_of_models() -> None:
    b, labels = np.ones((12, 3, 4)), np.zeros(3, int)
    example = {"a": X[0, 0], "b": b[0, 0]}
    for wrong in ({"a": X, "c": b}, {"x": X, "b": b}, {"a": X, "b": b, "c": b}, {"a": X}):
        with pytest.raises(ranvier.InputError, match=r"got inputs for .*\['a', 'b'\]"):
            ranvier.optimize(two_inputs(), level="O1", calibration=wrong, inputs=example)
    for right in ({"a": X, "b": b}, {"a": X, "b": b, "labels": labels}, {"input.0": X, "input.1": b}):
        ranvier.optimize(two_inputs(), level="O1", calibration=right, inputs=example)


@pytest.mark.slow
def test_of_models_with_one_input() -> None:
    def step(params: Any, state: Any, x: Any) -> Any:
        h = jnp.tanh(x @ params["w"] + state["h"] * 0.5)
        return {"h": h}, h

    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"h": jnp.zeros(4)})
    with pytest.raises(ranvier.InputError, match=r"got calibration for \['signal'\].*\['input'\]"):
        ranvier.optimize(model, level="O1", calibration={"signal": X}, inputs=jnp.zeros(3))
    for right in (X, {"input": X}, {"input": X, "labels": np.zeros(3, int)}):
        ranvier.optimize(model, level="O1", calibration=right, inputs=jnp.zeros(3))


@pytest.mark.parametrize("data", WRONG[:-1], ids=lambda data: "+".join(data))
def test_of_files(data: dict[str, Any], tmp_path: Path) -> None:
    net, arrays = tmp_path / "net.snn", tmp_path / "data.npz"
    ranvier.save(graph(), net)
    ranvier.export_artifact(graph(), tmp_path / "net.rva")
    np.savez(arrays, **data)
    commands = [
        ["simulate", str(net), "--inputs", str(arrays)],
        ["opt", str(net), "--calibration", str(arrays)],
        ["verify", str(net), str(net), "--inputs", str(arrays)],
        ["run", str(tmp_path / "net.rva"), "--inputs", str(arrays)],
    ]
    for command in commands:
        result = CliRunner().invoke(app, command)
        assert isinstance(result.exception, RanvierError), command
        assert all(name in str(result.exception) for name in data)
        assert "'input'" in str(result.exception)


def test_a_counterexample_with_other_arrays(tmp_path: Path) -> None:
    path = tmp_path / "counterexample.npz"
    other = graph()
    other.populations["b"] = other.populations["b"].replace(neuron=ranvier.neurons.LIF(tau=0.005))
    found = ranvier.verify(graph(), other, X).counterexample
    assert found is not None
    found.save(path)
    arrays = dict(np.load(path))
    for name in ("inputs.input", "extra"):
        np.savez(path, **arrays, **{name: X})
        with pytest.raises(ranvier.GraphError, match=repr(name)):
            ranvier.replay(path)
    np.savez(path, **{("input.x" if name == "input.input" else name): value for name, value in arrays.items()})
    with pytest.raises(ranvier.InputError, match=r"got inputs for \['x'\].*\['input'\]"):
        ranvier.replay(path)


def test_the_usual_names_stand_for_the_only_input(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X)
    ranvier.export_artifact(graph(), tmp_path / "net.rva")
    command = ["run", str(tmp_path / "net.rva"), "--inputs", str(tmp_path / "data.npz"), "-o", str(tmp_path / "y.npz")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (found,) = dict(np.load(tmp_path / "y.npz")).values()
    with jax.enable_x64(False):
        meant = ranvier.simulate(graph(), X).output
    np.testing.assert_allclose(found, meant, atol=1e-5)
