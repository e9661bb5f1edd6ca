"""A network of the size of a fly's brain is loaded, verified, optimized and saved; time against size.

Run as ``python -m benchmarks.graph_scale``.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import ranvier

from .connectome import connectome
from .machine import Machine, describe_machine
from .processes import in_own_process, peak_memory
from .tables import markdown_table, print_table
from .timing import seconds_text

RESULTS = Path(__file__).parent / "results" / "graph_scale.md"
PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
HEADER = ("neurons", "synapses", "load", "verify", "O2", "save", "all", "ns per synapse", "peak memory", "left")
NOTE = (
    "A generated recurrent LIF network with long-tailed degrees (139,000 neurons and 15 million synapses in the last "
    "row). Load: from a .snn file. Verify: all problems of the graph. O2: `ranvier.optimize(graph, level='O2')` with "
    "the checks of every pass by running the network before and after. Save: to a .snn file. Every row is a process of "
    "its own; peak memory is the operating system's (`ru_maxrss`)."
)


@dataclass(frozen=True)
class Measured:
    """What one size took, in seconds and bytes."""

    neurons: int
    synapses: int
    load: float
    verify: float
    optimize: float
    save: float
    peak: int
    left: int

    @property
    def whole(self) -> float:
        return self.load + self.verify + self.optimize + self.save


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = run()
    return found, time.perf_counter() - start


def measure(path: Path) -> Measured:
    """Takes the graph in a file through all stages."""
    graph, load = _timed(lambda: ranvier.load(path))
    _, verify = _timed(lambda: ranvier.problems(graph))
    (small, _), optimize = _timed(lambda: ranvier.optimize(graph, level="O2"))
    _, save = _timed(lambda: ranvier.save(small, path.with_suffix(".small.snn")))
    peak = peak_memory()
    return Measured(graph.total_neurons, graph.total_synapses, load, verify, optimize, save, peak, small.total_synapses)


def measure_apart(part: float) -> Measured:
    """Writes a graph of a size, and measures it in a process that has done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "connectome.snn"
        ranvier.save(connectome(part), path)
        return Measured(**in_own_process("benchmarks.graph_scale", "--measure", path))


def row(found: Measured) -> tuple[str, ...]:
    per_synapse = found.whole / found.synapses * 1e9
    stages = (found.load, found.verify, found.optimize, found.save, found.whole)
    return (
        f"{found.neurons:,}",
        f"{found.synapses:,}",
        *map(seconds_text, stages),
        f"{per_synapse:.0f}",
        f"{found.peak / 2**30:.1f} GiB",
        f"{found.left:,}",
    )


def markdown(machine: Machine, rows: list[tuple[str, ...]]) -> str:
    lines = ["# Scale", "", "`python -m benchmarks.graph_scale --write`", "", NOTE, ""]
    return "\n".join([*lines, f"{machine}.", "", f"{machine.versions_text}.", "", *markdown_table(HEADER, rows), ""])


def main(
    write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False,
    one: Annotated[Path | None, typer.Option("--measure", help="Measure the graph in a file, for a row.")] = None,
) -> None:
    """Measures all sizes and prints a table."""
    if one is not None:
        print(json.dumps(asdict(measure(one))))
        return
    console = Console(width=180)
    rows = []
    for part in PARTS:
        rows.append(row(measure_apart(part)))
        console.print("  ".join(rows[-1]))
    machine = describe_machine()
    print_table(console, f"Scale ({machine})", HEADER, rows)
    if write:
        RESULTS.write_text(markdown(machine, rows))


if __name__ == "__main__":
    typer.run(main)
