"""quantize says so if neurons fire more or less after rounding."""

from __future__ import annotations

import numpy as np
import pytest

import ranvier
from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import LIF
from ranvier.graph.operations import Linear
from ranvier.graph.snn_graph import SNNGraph

DATA = np.random.default_rng(1).uniform(0, 1, (40, 6, 30))


def network() -> SNNGraph:
    """Weights of 0.03, of which a grid with steps of 0.0625 makes zeros."""
    weight = np.full((8, 30), 0.03) + np.random.default_rng(0).uniform(-0.005, 0.02, (8, 30))
    return SNNGraph(
        dt=1e-3,
        inputs=[Input("x", (30,), low=0.0, high=1.0)],
        populations=[Population("hidden", (8,), LIF(tau=5e-3, r=2.5))],
        projections=[
            Projection("in", "x", "hidden", Linear(weight)),
            Projection("out", "hidden", "y", Linear(np.ones((2, 8)))),
        ],
        outputs=[Output("y", (2,))],
    )


def spikes(graph: SNNGraph) -> int:
    return int(ranvier.simulate(graph, DATA, record=["hidden"])["hidden"].sum())


def changes(pipeline: str, **options: object) -> list[str]:
    _, report = ranvier.optimize(network(), pipeline, **options)
    return [str(remark) for remark in report.remarks if "activity changed" in remark.message]


def test_a_coarse_grid_changes_activity_and_says_so() -> None:
    small, _ = ranvier.optimize(network(), "quantize{format=Q3.4}", calibration=DATA)
    before, after = spikes(network()), spikes(small)
    assert abs(after - before) > 0.1 * before
    (remark,) = changes("quantize{format=Q3.4}", calibration=DATA)
    assert f"hidden: activity changed: {before:,} spikes on the calibration data before, {after:,} after" in remark


@pytest.mark.parametrize(
    "pipeline", ["quantize{format=int16}", "quantize{format=Q3.12}", "quantize{format=Q3.4,activity=100}"]
)
def test_small_changes_need_no_remark(pipeline: str) -> None:
    assert changes(pipeline, calibration=DATA) == []


def test_without_data_nothing_is_known() -> None:
    assert changes("quantize{format=Q3.4}") == []


def test_a_negative_part() -> None:
    with pytest.raises(ranvier.PassError, match="is negative"):
        ranvier.optimize(network(), "quantize{activity=-1.0}")
