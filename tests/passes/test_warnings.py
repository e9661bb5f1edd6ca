"""A report opens with what makes its result doubtful: data that made nothing fire, outputs that are constant now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import ranvier
from ranvier.cli.main import app
from ranvier.graph.neurons import LI, LIF
from ranvier.graph.operations import Linear

RNG = np.random.default_rng(0)
LIVE = RNG.uniform(0, 3, (30, 4, 3))


def graph(dt: float = 1e-3) -> ranvier.SNNGraph:
    """x -> a -> b -> y, spiking, and a readout z of b."""
    rng = np.random.default_rng(1)
    names = (("x", "a", 4, 3), ("a", "b", 3, 4), ("b", "r", 2, 3))
    populations = [
        ranvier.Population("a", (4,), LIF(tau=5e-3)),
        ranvier.Population("b", (3,), LIF(tau=5e-3)),
        ranvier.Population("r", (2,), LI(tau=5e-3)),
    ]
    projections = [
        ranvier.Projection(f"{s}{t}", s, t, Linear(rng.uniform(0.5, 2, (rows, columns))))
        for s, t, rows, columns in names
    ]
    ends = [("b", "y", 3), ("r", "z", 2)]
    return ranvier.SNNGraph(
        dt=dt,
        inputs=[ranvier.Input("x", (3,))],
        populations=populations,
        projections=[*projections, *(ranvier.Projection(f"{s}{t}", s, t, Linear(np.eye(n))) for s, t, n in ends)],
        outputs=[ranvier.Output(t, (n,)) for _, t, n in ends],
    )


def optimized(data: Any, level: str = "O2", **options: Any) -> Any:
    return ranvier.optimize(graph(), level=level, calibration=data, **options)


def test_data_that_makes_nothing_fire() -> None:
    made, report = optimized(LIVE * 1e-4)
    first, second, third = str(report).splitlines()[:3]
    assert first.startswith("warning: the calibration data made no neuron fire")
    assert "dt = 0.001 s" in first
    assert second == "warning: output 'y' is now constant: no input reaches it any more."
    assert third == "warning: output 'z' is now constant: no input reaches it any more."
    assert not ranvier.simulate(made, LIVE).outputs["y"].any()
    assert ranvier.simulate(graph(), LIVE).outputs["y"].any()
    assert report.as_dict()["warnings"] == list(report.warnings)
    assert "made no neuron fire" in report.summary()
    assert "made no neuron fire" not in report.summary().splitlines()[0]


def test_data_of_zeros() -> None:
    _, report = optimized(np.zeros((30, 4, 3)))
    assert "data, zero everywhere, made no neuron fire" in report.warnings[0]


def test_data_that_drives_the_network() -> None:
    _, report = optimized(LIVE)
    assert report.warnings == ()
    assert not str(report).startswith("warning")


def test_a_layer_that_stays_silent() -> None:
    source = graph()
    weak = source.projections["ab"]
    source.projections["ab"] = weak.replace(operation=Linear(np.full((3, 4), 1e-3)))
    _, report = ranvier.optimize(source, level="O2", calibration=LIVE)
    assert report.warnings[0].startswith("in 'b' no neuron fired on the calibration data")
    assert "output 'y' is now constant" in report.warnings[1]


def test_a_part_of_an_output() -> None:
    source = graph()
    source.projections["ab"] = source.projections["ab"].replace(
        operation=Linear(np.array([[2.0] * 4, [1e-3] * 4, [2.0] * 4]))
    )
    source.projections["br"] = source.projections["br"].replace(operation=Linear(np.array([[1.0, 0, 1], [0, 1, 0]])))
    del source.projections["by"], source.outputs["y"]
    _, report = ranvier.optimize(source, level="O2", calibration=LIVE)
    assert report.warnings == ("no input reaches 1 of 2 elements of output 'z' any more.",)


def test_what_was_constant_before_is_no_news() -> None:
    source = graph()
    source.projections["by"] = source.projections["by"].replace(operation=Linear(np.zeros((3, 3))))
    _, report = ranvier.optimize(source, level="O2", calibration=LIVE)
    assert report.warnings == ()


def test_without_data_the_profile_counts() -> None:
    _, report = ranvier.optimize(ranvier.profile(graph(), LIVE * 1e-4), level="O2")
    assert report.warnings[0].startswith("no neuron fired in the activity measured earlier")
    assert "output 'y' is now constant" in report.warnings[1]


def test_a_network_with_a_recurrent_rhythm_is_driven_by_what_drives_it() -> None:
    """A population that fires by itself is not constant, but no input reaches the output."""
    source = graph()
    source.projections["ab"] = source.projections["ab"].replace(
        operation=Linear(np.full((3, 4), 1e-3), np.full(3, 3.0))
    )
    assert ranvier.simulate(source, LIVE).outputs["y"].any()
    _, report = ranvier.optimize(source, "prune{threshold=0.01}", calibration=LIVE)
    assert report.warnings == (
        "no input reaches output 'y' any more.",
        "no input reaches output 'z' any more.",
    )


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_the_command_line_and_the_page(scale: float, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ranvier.save(graph(), tmp_path / "net.snn")
    np.savez(tmp_path / "data.npz", x=LIVE * scale)
    made = ["-o", str(tmp_path / "small.snn"), "--json", str(tmp_path / "r.json"), "--report", str(tmp_path / "r.html")]
    data = str(tmp_path / "data.npz")
    result = CliRunner().invoke(app, ["opt", str(tmp_path / "net.snn"), "--calibration", data, *made])
    assert result.exit_code == 0, result.output
    warned = scale < 1
    assert result.output.lstrip().startswith("warning: the calibration data made no neuron fire") == warned
    assert bool(json.loads((tmp_path / "r.json").read_text())["warnings"]) == warned
    page = (tmp_path / "r.html").read_text()
    assert ("made no neuron fire" in page.partition("<table")[0]) == warned
    result = CliRunner().invoke(app, ["simulate", str(tmp_path / "net.snn"), "--inputs", data])
    assert ("warning: no neuron fired" in result.output) == warned
