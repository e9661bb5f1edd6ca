"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.slow
def test_python_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert (tmp_path / "model.svg").is_file()
    assert scope["signals"].agree()


@pytest.mark.slow
def test_the_printed_lines_are_what_the_tour_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from ranvier.cli.tour import run_tour

    run_tour(Console(width=200))
    printed = capsys.readouterr().out.splitlines()
    (block,) = re.findall(r"```\n(2\. HiddenGroup.*?)```", README.read_text(), flags=re.DOTALL)
    letters = ("  x  ", "  y  ")  # names of inner variables differ between versions of JAX
    assert all(line in printed for line in block.splitlines() if not line.startswith(letters))
