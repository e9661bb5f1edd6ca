"""The report of an optimization as one self-contained page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PictureError, printable
from ..util.counting import counted
from ..util.files import write_atomically
from ..verification.difference import Trains
from ..verification.verify import Verification
from .drawing import check_can_draw, inline_svg
from .graph_picture import graph_figure
from .optimization import OptimizationReport
from .raster import raster, raster_legend

STYLE = """
body { font-family: system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #23282d; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #d5d8db; }
table { border-collapse: collapse; font-size: 0.9em; } th, td { padding: 0.25em 0.8em; text-align: left; }
th { border-bottom: 1px solid #5b6570; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr:nth-child(even) td { background: #f6f6f4; } figure { margin: 0.5em 0; overflow-x: auto; }
.pictures { display: flex; gap: 2em; flex-wrap: wrap; } .pictures svg { max-width: 36em; height: auto; }
.good { color: #1f7a4a; font-weight: 600; } .bad { color: #a33b22; font-weight: 600; }
details { margin: 0.3em 0; } summary { cursor: pointer; } li { margin: 0.2em 0; }
.swatch { display: inline-block; width: 0.9em; height: 0.9em; margin: 0 0.4em 0 1em; vertical-align: middle; }
.warning { border: 2px solid #a33b22; background: #fbeeea; padding: 0.6em 1em; margin: 1em 0; }
.facts span { margin-right: 1.5em; }
"""
NUMBER = re.compile(r"[+-]?[\d.,]*\d([eE][+-]?\d+)?( s|%)?|-")
REMARKS = 200
"""So many remarks of a pass are shown at most; JSON has all."""


def write_page(report: OptimizationReport, trains: Trains, path: str | Path, description: str) -> Path:
    """Writes the page.

    Args:
        report: from :func:`ranvier.optimize`.
        trains: spike trains to compare, of one sample.
        path: of the page.
        description: what the spike trains were made with.

    Raises:
        PictureError: the folder does not exist, or the extra ``picture`` is not installed.
    """
    check_can_draw()
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise PictureError(f"the folder {target.parent} does not exist; make it first or choose another.")
    write_atomically(target, page(report, trains, description).encode())
    return target


def page(report: OptimizationReport, trains: Trains, description: str) -> str:
    """The page as text."""
    name = html.escape(report.original.name)
    sections = [
        _warnings(report),
        _facts(report),
        _sizes(report),
        _pictures(report),
        _passes(report),
        _checks(report.checks),
        _rasters(trains, description),
        _rates(report.checks),
        _remarks(report),
    ]
    return printable(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}: optimization</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{name}</h1>\n{''.join(sections)}\n</body>\n</html>\n"
    )


def _warnings(report: OptimizationReport) -> str:
    items = "".join(f"<li>{html.escape(warning)}</li>" for warning in report.warnings)
    return f'<div class="warning"><strong>Warning</strong><ul>{items}</ul></div>' if items else ""


def _facts(report: OptimizationReport) -> str:
    facts: Mapping[str, str] = {
        "pipeline": report.pipeline or "none",
        **report.facts,
        "promise": str(report.promise),
        "calibration data": report.data or "none",
        "time": f"{report.seconds:.2f} s",
    }
    if report.accuracy is not None:
        facts = {**facts, "accuracy": f"{report.accuracy[0]:.2%} before, {report.accuracy[1]:.2%} after"}
    return _table(("", ""), [(html.escape(k), html.escape(v)) for k, v in facts.items()])


def _sizes(report: OptimizationReport) -> str:
    return "<h2>Size</h2>" + _table(("", "before", "after", "left"), report.size_rows())


def _pictures(report: OptimizationReport) -> str:
    drawn = [
        f"<figure><figcaption>{title}</figcaption>{inline_svg(graph_figure(graph))}</figure>"
        for title, graph in (("before", report.original), ("after", report.optimized))
    ]
    return f'<h2>Graph</h2><div class="pictures">{"".join(drawn)}</div>'


def _passes(report: OptimizationReport) -> str:
    rows = []
    for run in report.runs:
        gone = run.after.neurons - run.before.neurons, run.after.synapses - run.before.synapses
        done = sum(remark.done for remark in run.remarks)
        checked = ", ".join(sorted({check.verdict for check in run.checks})) or "-"
        what = "skipped" if run.skipped else counted(done, "change") if done else "nothing to do"
        promise = str(run.promise) if done else "-"
        rows.append(
            (
                str(run.number),
                html.escape(run.text),
                what,
                promise,
                f"{gone[0]:+,}" if done else "",
                f"{gone[1]:+,}" if done else "",
                f"{run.seconds:.3f} s",
                checked,
            )
        )
    header = ("", "pass", "did", "promise", "neurons", "synapses", "time", "run before and after")
    return "<h2>Passes</h2>" + _table(header, rows)


def _checks(checks: Iterable[Verification]) -> str:
    items = []
    for check in checks:
        word = check.verdict
        kind = "bad" if word == "different" else "good"
        first = "" if check.divergence is None else f"<br>first divergence: {html.escape(str(check.divergence))}"
        if check.untested:
            first += f"<br>not tested, because it stayed at zero: {html.escape(', '.join(check.untested))}"
        outputs = "; ".join(
            f"output {html.escape(name)}: largest difference {found.largest:.3g} of {found.scale:.3g}"
            for name, found in check.outputs.items()
        )
        items.append(
            f'<li><span class="{kind}">{word}</span> on {html.escape(check.inputs)}, {counted(check.steps, "step")} x '
            f"{counted(check.samples, 'sample')}. {outputs}{first}</li>"
        )
    return f"<h2>Before and after, run side by side</h2><ul>{''.join(items) or '<li>not checked</li>'}</ul>"


def _rasters(trains: Trains, description: str) -> str:
    if not trains:
        return ""
    pictures = "".join(raster(name, before[:, 0], after[:, 0]) for name, (_, before, after) in trains.items())
    text = f"<p>One sample of {html.escape(description)}; neurons that both graphs have.</p>"
    return f"<h2>Spikes</h2>{text}{raster_legend()}{pictures}"


def _rates(checks: Sequence[Verification]) -> str:
    rows = [
        (
            html.escape(name),
            html.escape(check.inputs),
            f"{found.neurons:,} of {found.of:,}",
            f"{found.rate_before:.4g}",
            f"{found.rate_after:.4g}",
            f"{found.largest_rate_change:.3g}",
            f"{found.identical:.1%}",
        )
        for check in checks
        for name, found in check.spikes.items()
    ]
    header = ("population", "inputs", "neurons", "rate before", "rate after", "largest change", "same trains")
    return "<h2>Rates, in spikes per step</h2>" + _table(header, rows) if rows else ""


def _remarks(report: OptimizationReport) -> str:
    parts = []
    for run in report.runs:
        if not run.remarks:
            continue
        items = "".join(
            f"<li>{'' if remark.done else 'not done: '}{html.escape(remark.about)}: {html.escape(remark.message)}"
            f"{_numbers(remark.neurons)}</li>"
            for remark in run.remarks[:REMARKS]
        )
        more = f"<li>and {len(run.remarks) - REMARKS} more</li>" if len(run.remarks) > REMARKS else ""
        title = f"{run.number}. {html.escape(run.text)}: {counted(len(run.remarks), 'remark')}"
        parts.append(f"<details><summary>{title}</summary><ul>{items}{more}</ul></details>")
    return f"<h2>What each pass did, and why not more</h2>{''.join(parts) or '<p>nothing</p>'}"


def _numbers(neurons: Any, shown: int = 40) -> str:
    if neurons is None or not np.size(neurons):
        return ""
    told = ", ".join(map(str, neurons[:shown]))
    return f" (neurons {told}{', ...' if len(neurons) > shown else ''})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    numbers = len(header) > 2
    body = "".join(f"<tr>{''.join(_cell(cell, numbers) for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(text: str, numbers: bool) -> str:
    return f'<td class="number">{text}</td>' if numbers and NUMBER.fullmatch(text) else f"<td>{text}</td>"
