"""The page that reports an optimization, with spike trains to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..graph.interpreter import interpret
from ..graph.recording import Simulation
from ..report.optimization import OptimizationReport
from ..report.page import write_page
from ..simulation.simulate import simulate
from ..verification.calibration import Calibration
from ..verification.difference import Trains, compared_trains, spiking
from ..verification.inputs import random_trial


def write_report(report: OptimizationReport, data: Calibration | None, path: str | Path) -> Path:
    """Writes a page with everything in a report, and spike trains of one sample before and after.

    Args:
        report: from :func:`ranvier.optimize`.
        data: the calibration data; None for random inputs.
        path: of the page, ``.html``.

    Raises:
        PictureError: the folder does not exist, or the extra ``picture`` is not installed.
    """
    trains, description = _trains(report, data)
    return write_page(report, trains, path, description)


def _trains(report: OptimizationReport, data: Calibration | None) -> tuple[Trains, str]:
    """Spike trains of one sample before and after, and a description of the inputs."""
    trial = random_trial(report.original)
    inputs, description = (trial.inputs, trial.description) if data is None else (data.inputs, "the calibration data")
    one = {name: values[:, :1] for name, values in inputs.items()}
    run: Any = interpret if data is None else simulate
    before: Simulation = run(report.original, one, record=spiking(report.original))
    after: Simulation = run(report.optimized, one, record=spiking(report.optimized))
    return compared_trains(report.original, report.origins, before, after, True), description
