"""The job behind ``ranvier opt``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..api.optimize import optimize
from ..api.report import write_report
from ..errors import InputError
from ..graph.snn_graph import SNNGraph
from ..passes.levels import LEVELS
from ..report.drawing import check_can_draw
from ..report.optimization import OptimizationReport
from ..util.files import write_atomically
from ..verification.calibration import Calibration
from .console import print_plain
from .graph_file import check_graph_target, check_target, with_range, write_graph
from .progress import steps_shown


@dataclass(frozen=True)
class OptOptions:
    """What the command line says."""

    level: str = "O2"
    passes: str | None = None
    calibration: Path | None = None
    budget: float | None = None
    input_range: tuple[float, float] | None = None
    verify_each: bool = True
    counterexample: Path | None = None
    bisect_limit: int | None = None
    print_after_all: bool = False
    time_passes: bool = False
    remarks: bool = False
    neurons: bool = False
    report: Path | None = None
    as_json: Path | None = None


def run_opt(console: Console, graph: SNNGraph, output: Path | None, options: OptOptions) -> None:
    """Optimizes a graph, prints what was done, and writes the files asked for."""
    if output is not None:
        check_graph_target(output)
    for path in (options.report, options.as_json, options.counterexample):
        if path is not None:
            check_target(path)
    if options.report is not None and options.report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{str(options.report)!r}: the report is a page; give it a name that ends in .html.")
    if options.report is not None:
        check_can_draw()
    if options.input_range is not None:
        graph = with_range(graph, *options.input_range)
    data = None if options.calibration is None else Calibration.load(options.calibration, graph)
    with steps_shown(console) as show:
        made, report = optimize(
            graph,
            options.passes,
            level=options.level if options.level in LEVELS else f"O{options.level}",
            calibration=data,
            budget=options.budget,
            verify_each=options.verify_each,
            counterexample=options.counterexample,
            print_after_all=options.print_after_all,
            bisect_limit=options.bisect_limit,
            watch=show,
        )
    _print(console, report, options)
    if output is not None:
        write_graph(made, output)
        print_plain(console, f"written to {output}")
    if options.as_json is not None:
        write_atomically(options.as_json, json.dumps(report.as_dict(), indent=2).encode())
        print_plain(console, f"report written to {options.as_json}")
    if options.report is not None:
        print_plain(console, f"report written to {write_report(report, data, options.report)}")


def _print(console: Console, report: OptimizationReport, options: OptOptions) -> None:
    for run in report.runs if options.print_after_all else ():
        print_plain(console, f"after {run.number}. {run.text}\n{run.printed or 'skipped'}\n")
    print_plain(console, str(report))
    if options.time_passes:
        total = sum(run.seconds for run in report.runs) or 1.0
        for run in sorted(report.runs, key=lambda run: -run.seconds):
            print_plain(console, f"  {run.seconds:8.4f} s  {run.seconds / total:6.1%}  {run.number}. {run.text}")
    for remark in report.remarks if options.remarks or options.neurons else ():
        numbers = "" if not options.neurons or remark.neurons is None else f" {remark.neurons.tolist()}"
        print_plain(console, f"{'' if remark.done else 'missed: '}{remark}{numbers}")
