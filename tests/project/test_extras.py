"""Optional packages: what is missing is said before work begins, and how to install it from a clone."""

from __future__ import annotations

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.program.analysis.wiring import Wire
from ranvier.report.layout import layers_of


@pytest.fixture
def graph() -> ranvier.SNNGraph:
    return ranvier.SNNGraph([ranvier.LayerNode("a", 2, 3, np.full((3, 2), 2.0))])


def remedy(extra: str, package: str) -> str:
    return rf"needs {package}; run `pip install '\.\[{extra}\]'` in a clone of Ranvier, or `pip install {package}`"


def test_pictures(graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ranvier.PictureError, match=remedy("picture", "matplotlib")):
        ranvier.draw(graph, tmp_path / "a.svg")


def test_a_report_is_refused_before_the_work(graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("ranvier.cli.opt.optimize_graph", lambda *_, **__: pytest.fail("the work has begun"))
    source, page = tmp_path / "a.snn", tmp_path / "page.html"
    ranvier.save(graph, source)
    result = CliRunner().invoke(app, ["opt", str(source), "--report", str(page)])
    assert result.exit_code != 0
    assert not page.exists()
    assert "'.[picture]'" in str(result.exception) + result.output


def test_artifacts(graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ranvier.export_artifact(graph, tmp_path / "a.rva")
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    for work in (lambda: ranvier.export_artifact(graph, tmp_path / "b.rva"), lambda: ranvier.load_artifact(path)):
        with pytest.raises(ranvier.ExportError, match=remedy("artifact", "flatbuffers")):
            work()
    assert not (tmp_path / "b.rva").exists()


def test_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optax = pytest.importorskip("optax")
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)

    def step(params, state, x):
        pytest.fail("the work has begun") if started else None
        h = jnp.tanh(x @ params["w"] + state["h"])
        return {"h": h}, h

    started = False
    model = ranvier.step_function(step, {"w": jnp.ones((2, 3))}, {"h": jnp.zeros(3)})
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(2))
    started = True
    data = [(jnp.ones((4, 2)), jnp.ones((4, 3)))]
    with pytest.raises(ranvier.TrainingError, match=remedy("train", "orbax-checkpoint")):
        ranvier.fit(
            learner, data, lambda a, b: ((a - b) ** 2).sum(), optax.sgd(0.1), 1, checkpoint=tmp_path, progress=False
        )


def test_layers_of_a_picture() -> None:
    """A diamond with a longer side, a cycle that counts as one, and a delayed wire back that moves nothing."""
    nodes = [("input", 0), *(("group", k) for k in range(5)), ("output", 0)]
    pairs = [(0, 1), (0, 2), (1, 3), (2, 4), (4, 5), (5, 4), (3, 6), (5, 6)]
    wires = [Wire(nodes[a], nodes[b], "affine", (), (), 0, False) for a, b in pairs]
    wires += [Wire(nodes[a], nodes[b], "affine", (), (), 1, False) for a, b in ((3, 1), (3, 5), (1, 1))]
    layers = [set(layer) for layer in layers_of(nodes, wires)]
    expected = [{0}, {1, 2}, {3}, {4, 5}, {6}]
    assert layers == [{nodes[k] for k in layer} for layer in expected]
