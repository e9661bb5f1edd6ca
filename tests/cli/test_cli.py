"""The command: output for people and machines, exit codes, one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ranvier.cli.main import run

MODEL_FILE = """
import jax.numpy as jnp
import ranvier


def step(params, state, x):
    v = 0.9 * state["v"] + x @ params["w"]
    return {"v": v}, v @ params["out"]


model = ranvier.step_function(step, {"w": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}, {"v": jnp.zeros(4)})
pair = (model, jnp.ones(3))


def factory():
    return model, jnp.ones(3)


def broken():
    raise ValueError("no luck today")


def needs_arguments(n):
    return model
"""


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_model.py"
    path.write_text(MODEL_FILE)
    return path


def ranvier(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ranvier.cli.main import run; run()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


@pytest.mark.slow
def test_tour_teaches_the_four_analyses() -> None:
    done = ranvier("tour")
    assert done.returncode == 0, done.stderr
    for heading in ("1. ModuleInfo", "2. HiddenGroup", "3. HiddenParamOpRelation", "4. HiddenPerturbation"):
        assert heading in done.stdout
    assert "5 states at 4 positions" in done.stdout


def test_show_prints_every_section(model_file: Path) -> None:
    done = ranvier("show", f"{model_file}:factory")
    assert done.returncode == 0, done.stderr
    for section in ("Hidden states", "Groups", "Relations", "Parameters without a relation", "Memory of each"):
        assert section in done.stdout
    assert "readout-parameter: out" in done.stdout
    assert "12·1" in done.stdout


def test_show_by_module_name_and_pair(model_file: Path) -> None:
    done = ranvier("show", "my_model:pair", cwd=model_file.parent)
    assert done.returncode == 0, done.stderr


def test_show_json(model_file: Path) -> None:
    done = ranvier("show", f"{model_file}:model", "--input", "3", "--json")
    found = json.loads(done.stdout)
    assert found["groups"][0]["hidden_paths"] == [["v"]]
    assert found["groups"][0]["D"] == [["0.9"]]
    assert found["relations"][0]["x"][0]["shape"] == [3]
    assert found["diagnostics"][0]["kind"] == "readout-parameter"
    assert {row["rule"] for row in found["memory"]} >= {"BPTT", "RTRL", "D_RTRL", "ES_D_RTRL"}


@pytest.mark.slow
def test_show_explain_and_picture(model_file: Path) -> None:
    picture = model_file.parent / "out.svg"
    done = ranvier("show", f"{model_file}:factory", "--explain", "--picture", str(picture))
    assert done.returncode == 0, done.stderr
    assert "related: affine" in done.stdout
    assert picture.read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{file}"], "does not name a model"),
        (["{file}:nothing"], "has no 'nothing'; it has"),
        (["{file}:model"], "comes without example inputs; add --input SHAPE"),
        (["{file}:model", "--input", "three"], "--input 'three' is not a shape"),
        (["{file}:model", "--input", "5"], "cannot be traced with float32[5]"),
        (["{file}:broken"], "ValueError: no luck today"),
        (["{file}:needs_arguments"], "called without arguments"),
        (["{file}:MODEL_FILE"], "has no 'MODEL_FILE'"),
        (["no_such_package.here:thing"], "there is no module 'no_such_package'"),
        (["{folder}/missing.py:thing"], "there is no file"),
        (["{file}:factory", "--picture", "out.bmp"], "pictures end in .svg, .png, .html"),
        (["{file}:factory", "--picture", "{folder}/nowhere/out.svg"], "does not exist"),
    ],
)
def test_errors_are_one_line_with_exit_code_one(
    model_file: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [argument.format(file=model_file, folder=model_file.parent) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["ranvier", "show", *given])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_an_error_of_the_process(model_file: Path) -> None:
    done = ranvier("show", f"{model_file}:nothing")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(model_file: Path) -> None:
    done = ranvier("show", f"{model_file}:broken", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_wrong_use_is_exit_code_two() -> None:
    assert ranvier("show").returncode == 2
    assert ranvier("nonsense").returncode == 2


def test_version() -> None:
    assert ranvier("--version").stdout.startswith("ranvier 0.")
