"""Types of the public surface: a user's script passes pyright in strict mode, runs, and `py.typed` is there."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ranvier

SCRIPT = Path(__file__).parent / "scripts" / "typed_user.py"


def _errors(script: Path, folder: Path) -> list[str]:
    """What pyright says of a script in strict mode, where only that script is looked at."""
    shutil.copy(script, folder / script.name)
    environment = Path(sys.prefix)
    settings = {
        "include": ["."],
        "typeCheckingMode": "strict",
        "venvPath": str(environment.parent),
        "venv": environment.name,
        "extraPaths": [str(Path(ranvier.__file__).parents[1])],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [str(environment / "bin" / "pyright"), "--outputjson", "--project", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [f"{d['range']['start']['line'] + 1}: {d['message']}" for d in json.loads(done.stdout)["generalDiagnostics"]]


@pytest.mark.slow
def test_a_users_script_is_strictly_typed(tmp_path: Path) -> None:
    assert _errors(SCRIPT, tmp_path) == []


@pytest.mark.slow
def test_a_wrong_type_is_an_error(tmp_path: Path) -> None:
    wrong = tmp_path / "source" / "wrong.py"
    wrong.parent.mkdir()
    wrong.write_text(
        SCRIPT.read_text().replace("assert_type(small, ranvier.SNNGraph)", "assert_type(small, StepFunction)")
    )
    project = tmp_path / "project"
    project.mkdir()
    assert any("SNNGraph" in error for error in _errors(wrong, project))


def test_the_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "learns with D_RTRL" in capsys.readouterr().out


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(ranvier.__file__).parent / "py.typed").exists()
