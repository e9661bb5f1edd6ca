"""What a report says of operations and time."""

from __future__ import annotations

import json
from typing import Any

import pytest

import ranvier
from ranvier.api.report import write_report
from ranvier.verification.calibration import Calibration
from tests.support.random_graphs import image_graph, inputs_of


@pytest.fixture(scope="module")
def optimized() -> Any:
    graph = image_graph(3)
    data = inputs_of(graph, 0, steps=10, samples=4)
    small, report = ranvier.optimize(graph, "prune{sparsity=0.5}", calibration=data)
    return graph, small, report, data


def test_counts_before_and_after(optimized: Any) -> None:
    graph, small, report, _ = optimized
    before, after = report.operations
    assert before.dense == after.dense
    assert 0 < after.effective_macs + after.effective_acs < before.effective_macs + before.effective_acs
    assert after.connection_sparsity == pytest.approx(0.5, abs=0.05)
    # An edit of the graphs after the run changes nothing.
    del small.projections["dense"]
    assert report.operations[1].dense == before.dense
    assert before.samples in (2, 4)
    assert graph.total_params == before.parameters


def test_they_are_in_the_text_the_json_and_the_page(optimized: Any, tmp_path: Any) -> None:
    report = optimized[2]
    before, after = report.operations
    assert "dense synaptic operations" in str(report)
    assert f"{before.connection_sparsity:.1%}" in str(report)
    totals = json.loads(json.dumps(report.as_dict()))["operations"]
    assert [entry["effective_macs"] for entry in totals] == [before.effective_macs, after.effective_macs]
    page = write_report(report, Calibration.of(optimized[0], optimized[3]), tmp_path / "report.html").read_text()
    assert "effective accumulates" in page


def test_without_data_there_are_none() -> None:
    _, report = ranvier.optimize(image_graph(3), "canonicalize", verify_each=False)
    assert report.operations is None
    assert "synaptic operations" not in str(report)
    assert report.as_dict()["operations"] is None


def test_times(optimized: Any) -> None:
    timings = optimized[2].timings((1, 3), steps=5, repeats=2)
    assert [(row.samples, row.steps) for row in timings.rows] == [(1, 5), (3, 5)]
    assert all(row.before > 0 and row.after > 0 for row in timings.rows)
    assert "times as fast" in str(timings)
    assert len(timings.as_dict()["rows"]) == 2


def test_times_without_data() -> None:
    _, report = ranvier.optimize(image_graph(3), "canonicalize", verify_each=False)
    assert report.timings([2], repeats=1).rows[0].steps == 100


@pytest.mark.parametrize("options", [{"batch_sizes": ()}, {"batch_sizes": (0,)}, {"repeats": 0}, {"steps": 1.5}])
def test_numbers_that_make_no_sense(optimized: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ranvier.InputError, match="pass positive integers"):
        optimized[2].timings(**options)


def test_an_empty_report_cannot_run_anything() -> None:
    with pytest.raises(ranvier.PassError, match="cannot run its graphs"):
        ranvier.OptimizationReport().timings()
