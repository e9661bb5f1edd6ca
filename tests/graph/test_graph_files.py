"""The text form of graphs and files of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ranvier
from tests.support.examples import examples
from tests.support.random_graphs import image_graph, inputs_of, random_graph, seeds

TEXT = """
graph "net" {
  dt = 0.001
  input "x" [2] low=0.0 high=1.0
  population "a" [3] LIF(reset="zero", integration="euler", fires=">") {  # three neurons
    tau: float64[] = 0.02
    v_threshold: float32[3] = [1.0, 1.0, 0.5]
    initial v: float64[3] = all 0.1
  }
  output "y" [3]
  projection "w" "x" -> "a" delay=0 Linear() {
    weight: float32[3, 2] = [[1, 2], [3, 4], [5, 6.5]]
  }
  projection "read" "a" -> "y" Identity()
  metadata "source" = "by \\"hand\\""
}
"""


def test_a_text_is_read() -> None:
    graph = ranvier.from_text(TEXT)
    assert ranvier.problems(graph) == []
    assert graph.populations["a"].neuron.parameters["v_threshold"].tolist() == [1.0, 1.0, 0.5]
    assert graph.projections["w"].operation.arrays["weight"].dtype == np.float32
    assert graph.metadata == {"source": 'by "hand"'}
    assert graph.inputs["x"].high == 1.0


@given(seeds, st.sampled_from([0, 4, 100]))
@settings(max_examples=examples(40), deadline=None)
def test_text_comes_back(seed: int, inline: int) -> None:
    graph = random_graph(seed) if seed % 4 else image_graph(seed)
    text, arrays = ranvier.to_text(graph, inline=inline)
    again = ranvier.from_text(text, arrays)
    assert ranvier.to_text(again, inline=inline)[0] == text
    inputs = inputs_of(graph, seed, steps=10)
    np.testing.assert_array_equal(ranvier.interpret(graph, inputs).output, ranvier.interpret(again, inputs).output)


@given(seeds)
@settings(max_examples=examples(20), deadline=None)
def test_files_come_back(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    graph = random_graph(seed)
    path = tmp_path_factory.mktemp("graphs") / "graph.snn"
    ranvier.save(graph, path)
    again = ranvier.load(path)
    assert ranvier.to_text(graph)[0] == ranvier.to_text(again)[0]
    inputs = inputs_of(graph, seed, steps=10)
    np.testing.assert_array_equal(ranvier.interpret(graph, inputs).output, ranvier.interpret(again, inputs).output)


def test_activity_is_kept() -> None:
    layer = ranvier.LayerNode("a", 2, 3, np.ones((3, 2)), firing_rates=[0.1, 0.0, 0.3])
    graph = ranvier.SNNGraph(layers=[layer])
    again = ranvier.from_text(*ranvier.to_text(graph))
    activity = again.populations["a"].activity
    assert activity is not None
    np.testing.assert_array_equal(activity.rates, [0.1, 0.0, 0.3])


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('"x" -> "a"', '"x" "a"', "line 11: expected '->'"),
        ("LIF(", "LIV(", "line 5: expected one of Relay"),
        ("tau:", "tao:", "line 5: LIF has the fields"),
        ("[1.0, 1.0, 0.5]", "[1.0, 1.0]", "line 7: expected as many numbers"),
        ("[[1, 2], [3, 4], [5, 6.5]]", "[[1, 2], [3, 4], [5]]", "line 12: expected as many numbers"),
        ("all 0.1", '@"v"', "line 8: expected the name of an existing array"),
        ("dt = 0.001", "dt = fast", "line 3: expected a number"),
        ('input "x" [2]', 'input "x" [2.5]', "line 4: expected a whole number"),
        ("}\n", "", "the end of the text"),
        ("graph", "grape", "line 2: expected 'graph'"),
        ("0.02", "0.02 ; import os", "line 6: '; import os"),
    ],
)
def test_a_wrong_text_says_where(old: str, new: str, told: str) -> None:
    wrong = TEXT.replace(old, new) if old != "}\n" else TEXT.rstrip().removesuffix("}")
    with pytest.raises(ranvier.GraphError) as error:
        ranvier.from_text(wrong)
    assert told in str(error.value)


@given(st.data())
@settings(max_examples=examples(300), deadline=None)
def test_damaged_texts_are_errors(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT) - 1))
    length = data.draw(st.integers(0, 20))
    inserted = data.draw(st.text(st.sampled_from('{}[]()="@:,-> \n0123456789.einfax\\'), max_size=8))
    damaged = TEXT[:at] + inserted + TEXT[at + length :]
    try:
        graph = ranvier.from_text(damaged)
    except ranvier.GraphError:
        return
    ranvier.problems(graph)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=30), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_damaged_files_are_errors(tmp_path_factory: pytest.TempPathFactory, at: int, junk: bytes, cut: bool) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    good = ranvier.save(random_graph(3), folder / "good.snn").read_bytes()
    at %= len(good)
    bad = folder / "bad.snn"
    bad.write_bytes(good[:at] if cut else good[:at] + junk + good[at + len(junk) :])
    try:
        ranvier.load(bad)
    except ranvier.GraphError:
        return


def test_no_pickles_are_loaded(tmp_path: Path) -> None:
    path = ranvier.save(random_graph(3), tmp_path / "graph.snn")
    evil = tmp_path / "evil.snn"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            if not name.endswith(".npy"):
                target.writestr(name, source.read(name))
                continue
            with target.open(name, "w") as member:
                np.lib.format.write_array(member, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ranvier.GraphError, match="does not hold a graph"):
        ranvier.load(evil)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = ranvier.save(random_graph(3), tmp_path / "graph.snn")
    before = path.read_bytes()
    broken = random_graph(4)
    broken.dt = -1.0
    with pytest.raises(ranvier.GraphError):
        ranvier.save(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["graph.snn"]
    with pytest.raises(ranvier.GraphError, match="cannot be written"):
        ranvier.save(random_graph(4), tmp_path / "missing" / "graph.snn")


def test_a_missing_file_is_told() -> None:
    with pytest.raises(ranvier.GraphError, match="there is no file"):
        ranvier.load("nowhere.snn")


def test_a_text_where_a_number_belongs_is_an_error() -> None:
    text = 'graph "g" { dt = 0.001 population "p" [2] IF(r="zero") { v_threshold: float64[] = 1.0 } }'
    with pytest.raises(ranvier.GraphError, match="line 1: IF: ValueError: could not convert"):
        ranvier.from_text(text)
