"""What online learning costs after pruning: time and memory of D_RTRL by sparsity.

Run as ``python -m benchmarks.sparse_learning``.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console

import ranvier
from ranvier.graph.neurons import LI, LIF
from ranvier.graph.operations import Identity, Linear

from .machine import copy_bandwidth, describe_machine, matmul_rate
from .tables import markdown_table, print_table
from .timing import run_time

RESULTS = Path(__file__).parent / "results" / "sparse_learning.md"
INPUTS, NEURONS, CLASSES = 100, 512, 10
STEPS, BATCH, REPEATS = 50, 16, 7
SPARSITIES = (0.0, 0.5, 0.8, 0.9, 0.95)
HEADER = ("sparsity", "weights", "chunk", "time per step", "of dense", "rule's memory", "of dense")
NOTE = (
    f"D_RTRL on {INPUTS} inputs, {NEURONS} recurrent LIF neurons and a leaky readout, batch {BATCH}, {STEPS} steps, "
    f"float32; medians of {REPEATS} runs, in turns. Weights are pruned by magnitude with "
    "`prune{sparsity=...},connections`, which keeps them as sparse rows where fewer than 30 % are left, so that "
    "traces are those of the weights that are there. One step per chunk is learning with an update every step."
)


def network() -> ranvier.SNNGraph:
    generator = np.random.default_rng(0)

    def linear(out: int, inner: int, scale: float) -> Linear:
        return Linear((generator.standard_normal((out, inner)) * scale / np.sqrt(inner)).astype(np.float32))

    return ranvier.SNNGraph(
        name="recurrent",
        dt=1e-3,
        inputs=[ranvier.Input("x", (INPUTS,))],
        populations=[
            ranvier.Population("h", (NEURONS,), LIF(tau=10e-3)),
            ranvier.Population("o", (CLASSES,), LI(tau=10e-3)),
        ],
        projections=[
            ranvier.Projection("w", "x", "h", linear(NEURONS, INPUTS, 60.0)),
            ranvier.Projection("u", "h", "h", linear(NEURONS, NEURONS, 10.0), 1),
            ranvier.Projection("out", "h", "o", linear(CLASSES, NEURONS, 5.0)),
            ranvier.Projection("y", "o", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (CLASSES,))],
    )


def loss(output: Any, target: Any) -> Any:
    return ((output - target) ** 2).mean()


def _pruned(graph: ranvier.SNNGraph, sparsity: float) -> ranvier.SNNGraph:
    if not sparsity:
        return graph
    return ranvier.optimize(graph, f"prune{{sparsity={sparsity}}},connections", verify_each=False)[0]


def _learner(graph: ranvier.SNNGraph, chunk: int) -> Any:
    return ranvier.compile(ranvier.lower(graph), ranvier.D_RTRL(), jnp.ones(INPUTS), batch_size=BATCH, chunk=chunk)


def _data() -> tuple[Any, Any]:
    generator = np.random.default_rng(1)
    xs = (generator.random((STEPS, BATCH, INPUTS)) < 0.1).astype(np.float32)
    return jnp.asarray(xs), jnp.asarray(generator.standard_normal((STEPS, BATCH, CLASSES)), jnp.float32)


def measured(chunk: int) -> list[tuple[str, ...]]:
    """Rows of all sparsities for one chunk."""
    graph, (xs, ys) = network(), _data()
    graphs = [_pruned(graph, sparsity) for sparsity in SPARSITIES]
    learners = [_learner(g, chunk) for g in graphs]

    def run(learner: Any) -> None:
        jax.block_until_ready(learner.grad(loss, xs, ys)[0])

    for learner in learners:
        run(learner)
    times: list[list[float]] = [[] for _ in learners]
    for _ in range(REPEATS):
        for kept, learner in zip(times, learners, strict=True):
            kept.append(run_time(lambda learner=learner: run(learner)))
    seconds = [statistics.median(kept) / STEPS for kept in times]
    memory = [learner.plan.memory_bytes for learner in learners]
    return [
        (
            f"{sparsity:.0%}",
            f"{found.total_synapses:,}",
            str(chunk),
            f"{1e3 * time:.2f} ms",
            f"{time / seconds[0]:.2f}",
            f"{size / 2**20:.2f} MiB",
            f"{size / memory[0]:.2f}",
        )
        for sparsity, found, time, size in zip(SPARSITIES, graphs, seconds, memory, strict=True)
    ]


def main(write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False) -> None:
    """Measures all sparsities and prints the table."""
    rows = [row for chunk in (1, 25) for row in measured(chunk)]
    print_table(Console(width=140), "Learning after pruning", HEADER, rows)
    if write:
        machine = describe_machine()
        reach = f"copy {copy_bandwidth() / 1e9:.1f} GB/s, matrix product {matmul_rate() / 1e9:.0f} GFLOP/s"
        head = ["# Learning after pruning", "", "`python -m benchmarks.sparse_learning --write`", "", NOTE, ""]
        about = [f"{machine}; {reach}.", "", f"{machine.versions_text}.", ""]
        RESULTS.write_text("\n".join([*head, *about, *markdown_table(HEADER, rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
