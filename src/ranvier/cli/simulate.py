"""The command ``ranvier simulate``."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from rich.console import Console

from ..errors import InputError
from ..graph.snn_graph import SNNGraph
from ..simulation.simulate import simulate
from ..util.counting import counted
from ..util.files import write_arrays
from ..util.table import table
from ..verification.calibration import Calibration
from ..verification.difference import spiking
from .console import print_plain
from .graph_file import check_results_target
from .progress import steps_shown


def run_simulation(
    console: Console, graph: SNNGraph, inputs: Path, output: Path | None, record: list[str], dtype: str
) -> None:
    """Simulates a graph on the inputs in a file, prints rates, and writes outputs and recordings.

    Raises:
        InputError, GraphError: the inputs do not fit, there is no such dtype, or the results cannot be written.
    """
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype {dtype!r} is unknown; use float32 or float64.")
    if output is not None:
        check_results_target(output)
    data = Calibration.load(inputs, graph)
    start = time.perf_counter()
    names = list(dict.fromkeys([*record, *spiking(graph)]))
    with steps_shown(console) as show:
        show(f"simulating {counted(data.steps, 'step')} x {counted(data.samples, 'sample')}")
        results = simulate(graph, data.inputs, record=names, dtype=np.dtype(dtype))
    seconds = time.perf_counter() - start
    length = f"{counted(data.steps, 'step')} of {graph.dt:g} s x {counted(data.samples, 'sample')}"
    print_plain(console, f"{graph.name}: {length}, {seconds:.2f} s with compilation")
    if spiking(graph) and not any(np.any(results[name]) for name in spiking(graph)):
        print_plain(console, f"warning: no neuron fired; check the scale of the inputs and dt = {graph.dt:g} s")
    rows = [(name, graph.populations[name].size, f"{results[name].mean():.4g}") for name in spiking(graph)]
    print_plain(console, "\n".join(table(("population", "neurons", "spikes per step"), rows)))
    for name, values in results.outputs.items():
        print_plain(console, f"output {name}: from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}")
    if output is not None:
        arrays = {f"output.{name}": values for name, values in results.outputs.items()}
        arrays |= {name: results[name] for name in record}
        write_arrays(output, arrays)
        print_plain(console, f"written to {output}")
