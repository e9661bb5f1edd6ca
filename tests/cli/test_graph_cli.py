"""The commands for graphs: show, opt, verify, simulate, passes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.passes.registry import BUILT_IN
from tests.passes.test_manager import data, network

runner = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With model.snn, model.nir and data.npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    ranvier.save(network(), "model.snn")
    ranvier.to_nir(network(), "model.nir")
    np.savez("data.npz", x=data(network())["x"])
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def test_opt_writes_a_smaller_network_and_reports(folder: Path) -> None:
    out = run(
        *("opt", "model.snn", "-O2", "--calibration", "data.npz", "-o", "small.snn"),
        *("--report", "report.html", "--json", "report.json", "--time-passes", "--remarks"),
    )
    small = ranvier.load("small.snn")
    assert small.total_neurons == 11
    for words in ("neurons", "15", "11", "73.3%", "algebraic", "written to small.snn", "merged 1 of 7 neurons"):
        assert words in out
    report = json.loads((folder / "report.json").read_text())
    assert (report["before"]["neurons"], report["after"]["neurons"]) == (15, 11)
    assert {check["verdict"] for check in report["checks"]} <= {"identical", "equal up to rounding"}
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 4
    assert "<script" not in page
    assert "src=" not in page
    for words in ("dead-neurons", "merge-neurons", "Rates", "same trains", "before only"):
        assert words in page


def test_a_nir_file_goes_in_and_out(folder: Path) -> None:
    run("opt", "model.nir", "-O", "1", "-o", "small.nir", "--input-range", "0", "1")
    back = ranvier.from_nir("small.nir")
    assert back.total_neurons == 11
    assert "written" in run("show", "small.nir", "--picture", "small.svg")
    assert (folder / "small.svg").read_text().count("<svg") == 1
    assert json.loads(run("show", "small.nir", "--json"))["size"]["neurons"] == 11
    run("verify", "model.nir", "small.nir")


def test_verify_tells_and_keeps_what_differs(folder: Path) -> None:
    assert "identical on random inputs" in run("verify", "model.snn", "model.snn", "--promise", "bitwise")
    run("opt", "model.snn", "--passes", "prune{sparsity=0.5}", "-o", "pruned.snn")
    out = run("verify", "model.snn", "pruned.snn", "--counterexample", "found.npz", code=1)
    assert "first divergence: step" in out
    assert "this is not algebraic" in out
    out = run("verify", "found.npz", code=1)
    assert "different on the counterexample found.npz" in out
    run("verify", "model.snn", "pruned.snn", "--promise", "approximate", "--inputs", "data.npz")


@pytest.mark.slow
def test_o3_keeps_to_its_budget(folder: Path) -> None:
    out = run("opt", "model.snn", "-O3", "--calibration", "data.npz", "--budget", "0.3", "-o", "small.snn", "--remarks")
    assert "overall promise: approximate" in out
    assert "searched sparsity within a budget of 0.3" in out


def test_simulate(folder: Path) -> None:
    out = run(
        "simulate", "model.snn", "--inputs", "data.npz", "-o", "out.npz", "--record", "hidden", "--record", "hidden.v"
    )
    assert "40 steps of 0.001 s x 12 samples" in out
    assert "hidden" in out
    with np.load("out.npz") as found:
        assert set(found.files) == {"output.y", "hidden", "hidden.v"}
        np.testing.assert_array_equal(found["output.y"], ranvier.simulate(network(), data(network())).output)


def test_passes_are_listed() -> None:
    out = run("passes")
    for name in (*BUILT_IN, "bitwise", "approximate", "O3:"):
        assert name in out
    assert "coarsest stable partition" in run("passes", "merge-neurons")


def test_print_after_all_and_bisect(folder: Path) -> None:
    out = run("opt", "model.snn", "--passes", "dead-code,dead-neurons", "--print-after-all", "--bisect-limit", "1")
    assert "after 1. dead-code" in out
    assert 'graph "network"' in out
    assert "skipped" in out
    out = run("opt", "model.snn", "--passes", "dead-neurons", "--neurons")
    assert "[5]" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["opt", "missing.snn"], "there is no file 'missing.snn'"),
        (["opt", "data.npz"], "graphs end in .nir or .snn"),
        (["opt", "model.snn", "-o", "small.txt"], "graphs end in .nir or .snn"),
        (["opt", "model.snn", "-o", "no/such/small.snn"], "does not exist"),
        (["opt", "model.snn", "-O", "7"], "there is no level 'O7'"),
        (["opt", "model.snn", "--passes", "nothing"], "there is no pass 'nothing'"),
        (["opt", "model.snn", "-O3"], "needs data and a budget"),
        (["opt", "model.snn", "--calibration", "model.snn"], "has|holds|got inputs"),
        (["verify", "model.snn"], "needs two graphs"),
        (["verify", "model.snn", "model.snn", "--promise", "firm"], "there is no promise 'firm'"),
        (["simulate", "model.snn", "--inputs", "data.npz", "--dtype", "int8"], "float32 or float64"),
        (["simulate", "model.snn", "--inputs", "data.npz", "--record", "nobody"], "there is no population 'nobody'"),
        (["passes", "nothing"], "there is no pass 'nothing'"),
    ],
)
def test_mistakes_are_told(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ranvier.RanvierError, match=message) as caught:
        runner.invoke(app, arguments, catch_exceptions=False)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("*small*"))


def test_the_structure_of_a_nir_file_needs_no_answers(folder: Path) -> None:
    import nir

    neurons = nir.LIF(tau=np.full(3, 0.02), r=np.ones(3), v_leak=np.zeros(3), v_threshold=np.ones(3))
    nodes = {"in": nir.Input(np.array([3])), "w": nir.Linear(np.ones((3, 3))), "n": neurons}
    nodes |= {"back": nir.Linear(np.eye(3)), "out": nir.Output(np.array([3]))}
    edges = [("in", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "out")]
    nir.write("bare.nir", nir.NIRGraph(nodes, edges))
    out = run("show", "bare.nir", "--picture", "bare.svg")
    for words in ("3 neurons", 'projection "back"', "placeholders", "--dt", "--reset", "--recurrent-delay"):
        assert words in out
    assert len(json.loads(run("show", "bare.nir", "--json"))["unsaid"]) == 3
    answered = run("show", "bare.nir", "--dt", "1e-3", "--reset", "zero", "--recurrent-delay", "2")
    assert "placeholders" not in answered
    assert "delay=2" in answered
    with pytest.raises(ranvier.GraphError, match="--dt"):
        run("simulate", "bare.nir", "--inputs", "data.npz")
