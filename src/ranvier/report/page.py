"""The report of an optimization as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import PictureError
from ..passes.manager import PassRun
from ..util.counting import counted
from ..util.files import write_atomically
from ..verification.difference import Trains
from ..verification.verify import Verification
from .drawing import check_can_draw, inline_svg
from .graph_picture import graph_figure
from .optimization import OptimizationReport
from .raster import COLORS, Raster
from .templates import render

REMARKS = 200
"""The largest number of remarks shown for a pass; the JSON has all of them."""


def write_page(report: OptimizationReport, trains: Trains, path: str | Path, description: str) -> Path:
    """Writes the page.

    Args:
        report: from :func:`ranvier.optimize`.
        trains: spike trains of one sample to compare.
        path: of the page.
        description: the inputs that gave the spike trains, in words.

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
    graphs = {"before": report.original, "after": report.optimized}
    return render(
        "page.html.jinja",
        report=report,
        facts=_facts(report),
        pictures={title: inline_svg(graph_figure(graph)) for title, graph in graphs.items()},
        passes=[_pass_row(run) for run in report.runs],
        rasters=[Raster.of(name, before[:, 0], after[:, 0]) for name, (_, before, after) in trains.items()],
        colors=COLORS,
        description=description,
        rates=_rates(report.checks),
        most_remarks=REMARKS,
    )


def _facts(report: OptimizationReport) -> dict[str, str]:
    facts = {
        "pipeline": report.pipeline or "none",
        **report.facts,
        "promise": str(report.promise),
        "calibration data": report.data or "none",
        "time": f"{report.seconds:.2f} s",
    }
    if report.accuracy is not None:
        facts["accuracy"] = f"{report.accuracy[0]:.2%} before, {report.accuracy[1]:.2%} after"
    return facts


def _pass_row(run: PassRun) -> tuple[str, ...]:
    neurons = run.after.neurons - run.before.neurons
    synapses = run.after.synapses - run.before.synapses
    done = sum(remark.done for remark in run.remarks)
    return (
        str(run.number),
        run.text,
        "skipped" if run.skipped else counted(done, "change") if done else "nothing to do",
        str(run.promise) if done else "-",
        f"{neurons:+,}" if done else "",
        f"{synapses:+,}" if done else "",
        f"{run.seconds:.3f} s",
        ", ".join(sorted({check.verdict for check in run.checks})) or "-",
    )


def _rates(checks: Sequence[Verification]) -> list[tuple[str, ...]]:
    """Rows of the firing rates before and after, by check and population."""
    return [
        (
            name,
            check.inputs,
            f"{spikes.neurons:,} of {spikes.of:,}",
            f"{spikes.rate_before:.4g}",
            f"{spikes.rate_after:.4g}",
            f"{spikes.largest_rate_change:.3g}",
            f"{spikes.identical:.1%}",
        )
        for check in checks
        for name, spikes in check.spikes.items()
    ]
