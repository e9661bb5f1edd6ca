"""``ranvier demo`` runs all stages, and its numbers are right."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import ranvier
from ranvier.cli.demo import run_demo
from ranvier.errors import InputError
from ranvier.tasks import digits


def percentages(text: str, label: str, start: str = "(?:gained|test accuracy)") -> list[float]:
    (line,) = re.findall(rf"^ *{start} +.*{label}.*$", text, re.MULTILINE)
    return [float(number) for number in re.findall(r"([\d.]+)%", line)]


@pytest.mark.slow
def test_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(Console(width=200), tmp_path / "made" / "here", epochs=4)
    printed = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", printed, re.MULTILINE)] == [1, 2, 3, 4, 5, 6]
    (learned,) = percentages(printed, "not used in training")
    before, after = percentages(printed, "the cost is known")
    start, end = percentages(printed, "% after$", "gained +test accuracy")
    (again,) = percentages(printed, "reading the file back")
    (left,) = percentages(printed, "of the synapses")
    assert learned == before > 85
    assert before - 5 < after == start
    assert end == again > 85
    assert 0 < left < 70
    assert "<svg" in (tmp_path / "made" / "here" / "report.html").read_text()

    _, test = digits.load()
    outputs = ranvier.simulate(ranvier.from_nir(tmp_path / "made" / "here" / "digits.nir"), test.xs).output
    answers = outputs[-10:].argmax(-1) == test.ys[-10:]
    np.testing.assert_allclose(100 * answers.mean(), again, atol=0.06)


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        run_demo(Console(), tmp_path / "file" / "folder")
