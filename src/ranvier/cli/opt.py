"""The command ``ranvier opt``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from ..api.chosen_passes import chosen_passes
from ..api.optimize_graph import Data, optimize_graph
from ..api.report import write_report
from ..errors import InputError
from ..graph.snn_graph import SNNGraph
from ..passes.levels import LEVELS
from ..passes.options import OptimizeOptions
from ..report.drawing import check_can_draw
from ..report.optimization import OptimizationReport
from ..util.files import write_atomically
from ..verification.calibration import Calibration
from .console import print_plain
from .graph_file import check_graph_target, check_target, with_range, write_graph
from .progress import steps_shown


@dataclass(frozen=True)
class Request:
    """How a graph is to be optimized.

    Attributes:
        passes: a pipeline; None for the passes of the level.
        level: such as ``"O2"`` or ``"2"``.
        goal: what level O3 spends its budget on.
        calibration: file with calibration data.
        validation: file with data that judges what approximate passes cost.
        input_range: smallest and largest value of the inputs.
        options: how the passes run.
    """

    passes: str | None = None
    level: str = "O2"
    goal: str | None = None
    calibration: Path | None = None
    validation: Path | None = None
    input_range: tuple[float, float] | None = None
    options: OptimizeOptions = field(default_factory=OptimizeOptions)


@dataclass(frozen=True)
class Results:
    """What is to be printed and written.

    Attributes:
        output: file for the graph.
        report: file for the page.
        as_json: file for the report as JSON.
        times: whether to print the time of every pass.
        remarks: whether to print what was done, and what was not.
        neurons: likewise, with the numbers of the neurons.
    """

    output: Path | None = None
    report: Path | None = None
    as_json: Path | None = None
    times: bool = False
    remarks: bool = False
    neurons: bool = False


def run_opt(console: Console, graph: SNNGraph, request: Request, results: Results) -> None:
    """Optimizes a graph, prints what was done, and writes the requested files."""
    # Passes may run for minutes, so a file that cannot be written is an error before the first one.
    _check_targets(request, results)
    if request.input_range is not None:
        graph = with_range(graph, *request.input_range)
    calibration = None if request.calibration is None else Calibration.load(request.calibration, graph)
    validation = None if request.validation is None else Calibration.load(request.validation, graph)
    level = request.level if request.level in LEVELS else f"O{request.level}"
    with steps_shown(console) as show:
        options = replace(request.options, on_progress=show).checked()
        chosen = chosen_passes(request.passes, level, request.goal)
        optimized, report = optimize_graph(graph, chosen, Data.of(calibration, validation=validation), options)
    _print(console, report, results, options)
    if results.output is not None:
        write_graph(optimized, results.output)
        print_plain(console, f"written to {results.output}")
    if results.as_json is not None:
        write_atomically(results.as_json, json.dumps(report.as_dict(), indent=2).encode())
        print_plain(console, f"report written to {results.as_json}")
    if results.report is not None:
        print_plain(console, f"report written to {write_report(report, calibration, results.report)}")


def _check_targets(request: Request, results: Results) -> None:
    if results.output is not None:
        check_graph_target(results.output)
    for path in (results.report, results.as_json, request.options.counterexample):
        if path is not None:
            check_target(path)
    if results.report is not None and results.report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{str(results.report)!r}: the report is a page; give it a name that ends in .html.")
    if results.report is not None:
        check_can_draw()


def _print(console: Console, report: OptimizationReport, results: Results, options: OptimizeOptions) -> None:
    for run in report.runs if options.print_after_all else ():
        print_plain(console, f"after {run.number}. {run.text}\n{run.printed or 'skipped'}\n")
    print_plain(console, str(report))
    if results.times:
        total = sum(run.seconds for run in report.runs) or 1.0
        for run in sorted(report.runs, key=lambda run: -run.seconds):
            print_plain(console, f"  {run.seconds:8.4f} s  {run.seconds / total:6.1%}  {run.number}. {run.text}")
    for remark in report.remarks if results.remarks or results.neurons else ():
        numbers = "" if not results.neurons or remark.neurons is None else f" {remark.neurons.tolist()}"
        print_plain(console, f"{'' if remark.done else 'missed: '}{remark}{numbers}")
