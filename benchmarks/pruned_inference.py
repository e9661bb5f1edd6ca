"""Pruned networks against the same networks before: time of a simulation, by sparsity and batch size.

Run as ``python -m benchmarks.pruned_inference``.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Annotated

import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console

import ranvier
from ranvier.graph.neurons import LIF
from ranvier.graph.operations import Identity, Linear
from ranvier.program.costs import costs

from .machine import describe_machine, matmul_rate
from .tables import markdown_table, print_table
from .timing import run_time

RESULTS = Path(__file__).parent / "results" / "pruned_inference.md"
NETWORKS = {
    "200-1000-10": ((200, 1000, 10), False),
    "784-1000-10": ((784, 1000, 10), False),
    "100-512-10": ((100, 512, 10), False),
    "64-100-10": ((64, 100, 10), False),
    "100-1000-10, recurrent": ((100, 1000, 10), True),
}
BATCHES, SPARSITIES = (1, 32, 64), (0.5, 0.8, 0.9, 0.95, 0.98)
STEPS, ACTIVE, REPEATS = 50, 0.2, 9
HEADER = ("network", "batch", "unpruned", *(f"{sparsity:.0%}" for sparsity in SPARSITIES))
NOTE = (
    f"LIF layers, {STEPS} steps, {ACTIVE:.0%} of the inputs active, float32. Weights are pruned by magnitude with "
    "`prune{sparsity=...},connections`. The columns of sparsities are times relative to the unpruned network; medians "
    f"of {REPEATS} runs, in turns."
)


def network(sizes: tuple[int, ...], recurrent: bool) -> ranvier.SNNGraph:
    rng = np.random.default_rng(0)

    def linear(out: int, inner: int, mean: float) -> Linear:
        return Linear(((mean + rng.standard_normal((out, inner))) / np.sqrt(inner)).astype(np.float32))

    names = ["x", *(f"layer{k}" for k in range(1, len(sizes)))]
    layers = list(zip(names, names[1:], sizes, sizes[1:]))
    projections = [ranvier.Projection(f"w{b}", a, b, linear(n, m, 0.3)) for a, b, m, n in layers]
    if recurrent:
        projections.append(ranvier.Projection("loop", "layer1", "layer1", linear(sizes[1], sizes[1], 0.0), 1))
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (sizes[0],))],
        populations=[ranvier.Population(b, (n,), LIF(tau=10e-3, r=10.0)) for _, b, _, n in layers],
        projections=[*projections, ranvier.Projection("y", names[-1], "y", Identity())],
        outputs=[ranvier.Output("y", (sizes[-1],))],
    )


def times(sizes: tuple[int, ...], recurrent: bool, batch: int) -> list[float]:
    """Seconds of the unpruned network and of each pruned one."""
    graph = network(sizes, recurrent)
    graphs = [graph]
    for sparsity in SPARSITIES:
        pruned, _ = ranvier.optimize(graph, f"prune{{sparsity={sparsity}}},connections", verify_each=False)
        graphs.append(pruned)
    rng = np.random.default_rng(1)
    xs = jnp.asarray(rng.random((STEPS, batch, sizes[0])) < ACTIVE, jnp.float32)
    runs = [ranvier.Simulator(one) for one in graphs]
    for run in runs:
        run(xs)
    measured = [[run_time(partial(run, xs)) for run in runs] for _ in range(REPEATS)]
    return [statistics.median(column) for column in zip(*measured)]


def main(write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False) -> None:
    """Measures all networks and prints the table."""
    rows = []
    for name, (sizes, recurrent) in NETWORKS.items():
        for batch in BATCHES:
            first, *pruned = times(sizes, recurrent, batch)
            rows.append((name, str(batch), f"{1e3 * first:.2f} ms", *(f"{value / first:.2f}" for value in pruned)))
    print_table(Console(width=140), "Pruned networks", HEADER, rows)
    if write:
        about = f"{describe_machine()}; matrix product {matmul_rate() / 1e9:.0f} GFLOP/s; costs in ns: {costs()}."
        head = ["# Pruned networks", "", "`python -m benchmarks.pruned_inference --write`", "", NOTE, "", about, ""]
        head += [f"{describe_machine().versions_text}.", ""]
        RESULTS.write_text("\n".join([*head, *markdown_table(HEADER, rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
