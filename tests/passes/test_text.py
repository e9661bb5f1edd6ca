"""Passes as text in, text out.

Each ``.snn`` file beside this one says in comments what it shows and which pipeline runs, then has a graph, and after
``# becomes`` the graph that the pipeline makes of it. The last comments are the pipeline's remarks, all of them. The
expected texts are derived by hand; a file is as good an introduction to its pass as any.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import ranvier
from ranvier.passes.registry import BUILT_IN
from tests.support.examples import few

FOLDER = Path(__file__).parent
CASES = sorted(FOLDER.glob("*/*.snn"))
EVERYTHING = 10**6
"""Numbers up to which arrays are written out: all of them."""


def comments(text: str, key: str) -> list[str]:
    start = f"# {key}: "
    return [line.removeprefix(start) for line in text.splitlines() if line.startswith(start)]


def normal(text: str) -> str:
    """The text as the printer writes it, whatever the layout of the file."""
    return ranvier.to_text(ranvier.from_text(text), inline=EVERYTHING)[0]


@few("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_pipeline_makes_the_expected_graph(path: Path) -> None:
    text = path.read_text()
    before, after = text.split("# becomes\n")
    (pipeline,) = comments(before, "pipeline")
    graph, report = ranvier.optimize(ranvier.from_text(before), pipeline)
    assert ranvier.to_text(graph, inline=EVERYTHING)[0] == normal(after)
    assert [str(remark) for remark in report.remarks] == comments(after, "remark")


def test_every_pass_has_an_example() -> None:
    assert {path.parent.name for path in CASES} == set(BUILT_IN)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_example_is_about_its_pass(path: Path) -> None:
    (pipeline,) = comments(path.read_text(), "pipeline")
    assert pipeline.partition("{")[0] == path.parent.name
