"""The default pipeline on two dense layers, beside sc-neurocore's.

Run as ``python -m benchmarks.graph_passes``; needs the extra ``bench``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from .machine import Machine, describe_machine
from .processes import in_own_process, peak_memory
from .tables import markdown_table, print_table
from .timing import seconds_text

RESULTS = Path(__file__).parent / "results" / "graph_passes.md"
PEER_SIZES = (256, 512, 1024, 2048)
SIZES = (*PEER_SIZES, 4096, 8192, 16384)
REPEATS = 5
PEER_REPEATS = 3
HEADER = ("neurons per layer", "sc-neurocore", "Ranvier O2", "and checked", "ratio", "peak memory of Ranvier")
NOTE = (
    "Two dense layers of n neurons with n inputs each, float32, a tenth of the neurons of the first layer silent in "
    "the measured rates and a tenth duplicated. sc-neurocore: `optimize(graph)`, its default pipeline. Ranvier: "
    "`ranvier.optimize(graph, level='O2', verify_each=False)`, all exact and profiled passes to a fixpoint; and "
    "checked: with every pass checked by running the network before and after, which sc-neurocore does not do. Medians "
    "(of {peer} there, of {ours} here); every cell is a process of its own, with both sides on the same weights. The "
    "ratio is sc-neurocore's time by Ranvier's without checks. The memory is `ru_maxrss` of the run with checks."
)


@dataclass(frozen=True)
class Measured:
    """Median seconds, and peak memory in bytes."""

    seconds: float
    peak: int
    neurons: int


def network(size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Weights and firing rates of both layers."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((size, size), np.float32) / np.sqrt(size)).astype(np.float32) for _ in range(2)]
    rates = [rng.uniform(0.05, 0.3, size) for _ in range(2)]
    tenth = size // 10
    rates[0][:tenth] = 0.0
    weights[0][tenth : 2 * tenth] = weights[0][2 * tenth : 3 * tenth]
    rates[0][tenth : 2 * tenth] = rates[0][2 * tenth : 3 * tenth]
    return weights, rates


def _graph(kind: Any, layer: Any, size: int) -> Any:
    weights, rates = network(size)
    names = ("first", "second")
    layers = [layer(n, size, size, w, firing_rates=r) for n, w, r in zip(names, weights, rates, strict=True)]
    return kind(layers=layers)


def run_peer(size: int) -> Measured:
    from sc_neurocore.snn_optimizer import LayerNode, SNNGraph, optimize

    return _measured(lambda: _graph(SNNGraph, LayerNode, size), optimize, PEER_REPEATS)


def run_ours(size: int, checked: bool) -> Measured:
    import ranvier

    optimize = partial(ranvier.optimize, level="O2", verify_each=checked)
    return _measured(lambda: _graph(ranvier.SNNGraph, ranvier.LayerNode, size), optimize, REPEATS)


def _measured(build: Callable[[], Any], optimize: Callable[[Any], Any], repeats: int) -> Measured:
    """The time of optimizing, each time a graph that was built anew."""
    seconds, found = [], 0
    for _ in range(repeats):
        graph = build()
        start = time.perf_counter()
        small, _ = optimize(graph)
        seconds.append(time.perf_counter() - start)
        neurons = small.total_neurons
        found = neurons() if callable(neurons) else neurons
        if sum(seconds) > 120:
            break
    peak = peak_memory()
    return Measured(float(np.median(seconds)), peak, int(found))


def measure_apart(who: str, size: int) -> Measured:
    return Measured(**in_own_process("benchmarks.graph_passes", "--measure", who, "--size", size))


def row(size: int) -> tuple[str, ...]:
    peer = measure_apart("peer", size) if size in PEER_SIZES else None
    plain, checked = measure_apart("plain", size), measure_apart("checked", size)
    return (
        f"{size:,}",
        "-" if peer is None else seconds_text(peer.seconds),
        seconds_text(plain.seconds),
        seconds_text(checked.seconds),
        "-" if peer is None else f"{peer.seconds / plain.seconds:.0f}x",
        f"{checked.peak / 2**30:.1f} GiB",
    )


def markdown(machine: Machine, rows: list[tuple[str, ...]]) -> str:
    note = NOTE.format(peer=PEER_REPEATS, ours=REPEATS)
    lines = ["# Passes on dense layers", "", "`python -m benchmarks.graph_passes --write`", "", note, ""]
    about = f"{machine}.", "", f"{machine.versions_text}, sc-neurocore {version('sc-neurocore')}."
    return "\n".join([*lines, *about, "", *markdown_table(HEADER, rows), ""])


def main(
    write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False,
    who: Annotated[str | None, typer.Option("--measure", help="peer, plain or checked: one cell.")] = None,
    size: Annotated[int, typer.Option(help="Neurons per layer, of a cell.")] = 256,
) -> None:
    """Measures all sizes and prints a table."""
    if who is not None:
        found = run_peer(size) if who == "peer" else run_ours(size, who == "checked")
        print(json.dumps(asdict(found)))
        return
    console = Console(width=140)
    rows = []
    for one in SIZES:
        rows.append(row(one))
        console.print("  ".join(rows[-1]))
    machine = describe_machine()
    print_table(console, f"Passes on dense layers ({machine})", HEADER, rows)
    if write:
        RESULTS.write_text(markdown(machine, rows))


if __name__ == "__main__":
    typer.run(main)
