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


def line(text: str, pattern: str) -> str:
    """The only line that a pattern is in."""
    (only,) = [line for line in text.splitlines() if re.search(pattern, line)]
    return only


def percentages(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


@pytest.mark.slow
def test_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made" / "here"
    run_demo(Console(width=200), folder, epochs=4)
    printed = capsys.readouterr().out
    assert [int(n) for n in re.findall(r"^(\d)\. ", printed, re.MULTILINE)] == [1, 2, 3, 4, 5, 6, 7]
    (learned,) = percentages(line(printed, "on 400 images held back"))
    before, after, bound, confidence = percentages(line(printed, "^ *judged"))
    start, _ = percentages(line(printed, "accuracy on the images held back"))
    first, last = percentages(line(printed, "nobody has looked at before"))
    (left,) = percentages(line(printed, "of the synapses remain"))
    assert learned == before > 85
    assert (bound, confidence) <= (2, 95)
    assert before - 2 < after == start
    assert 0 < left < 50
    assert "<svg" in (folder / "report.html").read_text()

    # The file holds the synapses that the report counts, and what it says of the images that nobody has looked at.
    graph = ranvier.from_nir(folder / "digits.nir")
    remaining = int(re.findall(r"to ([\d,]+)", line(printed, "^ *synapses"))[0].replace(",", ""))
    assert graph.total_synapses <= remaining
    _, test = digits.load()
    answers = ranvier.simulate(graph, test.xs).output[-10:].argmax(-1) == test.ys[-10:]
    np.testing.assert_allclose(100 * answers.mean(), last, atol=0.06)
    assert last >= first - 2


def test_a_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        run_demo(Console(), tmp_path / "file" / "folder")
