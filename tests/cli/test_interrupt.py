"""Ctrl-C ends the command quietly with exit code 130, also while extension modules are initialized."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ranvier.cli.interrupt import ending_imports_at_once

COMMAND = "from ranvier.cli.entry import run; run()"
INTERRUPT_ON_IMPORT = """
import signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize("module", ["typer", "ranvier.cli.tour", "jax", "jaxlib.mlir", "numpy.linalg"])
def test_an_import_is_interrupted(module: str) -> None:
    code = INTERRUPT_ON_IMPORT.format(module=module) + COMMAND
    done = subprocess.run([sys.executable, "-c", code, "tour"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_the_command_is_interrupted_at_any_time() -> None:
    for after in (0.2, 0.35, 0.5, 0.8):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "tour"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        time.sleep(after)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode in (130, 0)  # 0: it was done
        assert "Traceback" not in errors or "Exception ignored" in errors  # where JAX is called by the collector


def test_a_model_at_work_can_undo_it(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nfinally:\n    open('undone', 'w').close()\n"
    )
    command = [sys.executable, "-c", COMMAND, "show", "model.py:model"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert (tmp_path / "undone").exists()


def test_handlers_of_others_stay() -> None:
    def own(*_: object) -> None:
        return None

    before = signal.signal(signal.SIGINT, own)
    try:
        with ending_imports_at_once():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
    with ending_imports_at_once():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
