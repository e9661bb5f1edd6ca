"""Trained networks before and after optimization: size, time per step, and what changed.

Run as ``python -m benchmarks.graph_trained``; ``--braille FILE`` adds the Braille network from a NIR file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import typer
from rich.console import Console

import ranvier
from ranvier.graph.neurons import ALIF, LI
from ranvier.graph.operations import Identity, Linear
from ranvier.graph.size import GraphSize
from ranvier.tasks import digits

from .machine import Machine, describe_machine
from .tables import markdown_table, print_table
from .timing import median_time, seconds_text

RESULTS = Path(__file__).parent / "results" / "graph_trained.md"
NEURONS, BATCH, EPOCHS, RATE = 100, 32, 20, 1e-2
LEVELS = ("O0", "O1", "O2", "O3")
BUDGET = 0.01
HEADER = ("network", "level", "neurons", "synapses", "parameters", "bytes", "time per step", "accuracy", "spike trains")
NOTE = (
    "Digits: {neurons} recurrent ALIF neurons and a leaky readout, as an SNNGraph, trained online by "
    "`ranvier.compile(ranvier.lower(graph), ranvier.D_RTRL(), ...)`; calibrated on 300 of the training images, "
    "accuracy on the 355 held-out ones. Braille: the network of NIR's paper, from its file, with dt = 1e-4 s, "
    "reset to zero and one step of recurrent delay; random spikes are the calibration data, half of them held "
    "out, so that instead of accuracy the table has the relative change of the outputs there. O3 with a budget of "
    "{budget:.0%}. Spike trains: part of the neurons that both graphs have whose spikes on the held-out data are "
    "all the same. Time per step: jitted, one sample, median of 5."
)


def digits_graph() -> ranvier.SNNGraph:
    """The untrained network."""
    rng = np.random.default_rng(0)

    def weight(rows: int, columns: int, gain: float) -> np.ndarray:
        return (gain / np.sqrt(columns) * rng.standard_normal((rows, columns))).astype(np.float32)

    hidden = ALIF(
        tau=10e-3,
        tau_a=rng.uniform(50e-3, 400e-3, NEURONS),
        beta=0.1,
        r=10.0,
        integration="exponential",
        reset="subtract",
    )
    readout = LI(tau=5e-3, r=5.0, integration="exponential")
    return ranvier.SNNGraph(
        name="digits",
        dt=1e-3,
        inputs=[ranvier.Input("x", (64,), 0.0, 1.0)],
        populations=[ranvier.Population("hidden", (NEURONS,), hidden), ranvier.Population("readout", (10,), readout)],
        projections=[
            ranvier.Projection("in", "x", "hidden", Linear(weight(NEURONS, 64, 2.0))),
            ranvier.Projection("recurrent", "hidden", "hidden", Linear(weight(NEURONS, NEURONS, 1.0)), delay=1),
            ranvier.Projection("out", "hidden", "readout", Linear(weight(10, NEURONS, 0.3), np.zeros(10, np.float32))),
            ranvier.Projection("show", "readout", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (10,))],
    )


def train(graph: ranvier.SNNGraph, epochs: int) -> ranvier.SNNGraph:
    """The network with learned weights."""
    data, _ = digits.load()
    learner = ranvier.compile(ranvier.lower(graph), ranvier.D_RTRL(), data.xs[0, 0], batch_size=BATCH, reduction="mean")
    schedule = optax.cosine_decay_schedule(RATE, epochs * (data.size // BATCH), alpha=0.02)
    result = ranvier.fit(
        learner,
        lambda epoch: [(b.xs, b.ys) for b in digits.load(seed=epoch)[0].minibatches(BATCH, seed=epoch)],
        lambda output, label: optax.softmax_cross_entropy_with_integer_labels(output, label).mean(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        epochs,
    )
    return ranvier.with_weights(graph, result.params)


def step_time(graph: ranvier.SNNGraph, inputs: np.ndarray) -> float:
    """Seconds per step of one sample."""
    model = ranvier.lower(graph)
    xs = np.asarray(inputs[:, 0], np.float32)

    @jax.jit
    def run(params: Any, state: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda state, x: model.step(params, state, x), state, xs)

    return median_time(lambda: jax.block_until_ready(run(model.params, model.state, xs))) / len(xs)


def rows_of(
    name: str, graph: ranvier.SNNGraph, calibration: Any, labels: Any, held_out: np.ndarray, held_labels: Any
) -> list[tuple[str, ...]]:
    """One row for every level."""
    test = ranvier.Calibration.of(graph, held_out, held_labels, run=ranvier.simulate)
    before = test.simulation(graph)
    rows = []
    for level in LEVELS:
        made, report = ranvier.optimize(graph, level=level, calibration=calibration, labels=labels, budget=BUDGET)
        size = GraphSize.of(made)
        runs = (ranvier.simulate, ranvier.simulate)
        check = ranvier.verify(graph, made, held_out, origins=report.origins, runs=runs)
        same = [(found.identical * found.neurons, found.neurons) for found in check.spikes.values()]
        measure = (
            f"{test.accuracy(made):.1%}" if held_labels is not None else f"{test.divergence(before, made):.2%} off"
        )
        rows.append(
            (
                name,
                level,
                f"{size.neurons:,}",
                f"{size.synapses:,}",
                f"{size.parameters:,}",
                f"{size.bytes:,}",
                seconds_text(step_time(made, held_out)),
                measure,
                f"{sum(a for a, _ in same) / max(1, sum(b for _, b in same)):.1%}",
            )
        )
    return rows


def digits_rows(epochs: int) -> list[tuple[str, ...]]:
    graph = train(digits_graph(), epochs)
    data, test = digits.load()
    return rows_of("digits", graph, data.xs[:, :300], data.ys[0, :300], test.xs, test.ys[0])


def braille_rows(path: Path) -> list[tuple[str, ...]]:
    graph = ranvier.from_nir(path, dt=1e-4, reset="zero", recurrent_delay=1)
    size = next(iter(graph.inputs.values())).size
    spikes = (np.random.default_rng(0).random((256, 64, size)) < 0.1).astype(np.float32)
    return rows_of("Braille", graph, spikes[:, :32], None, spikes[:, 32:], None)


def markdown(machine: Machine, rows: list[tuple[str, ...]]) -> str:
    note = NOTE.format(neurons=NEURONS, budget=BUDGET)
    lines = [
        "# Trained networks, optimized",
        "",
        "`python -m benchmarks.graph_trained --write --braille FILE`",
        "",
        note,
    ]
    about = "", f"{machine}.", "", f"{machine.versions_text}.", ""
    return "\n".join([*lines, *about, *markdown_table(HEADER, rows), ""])


def main(
    write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False,
    braille: Annotated[Path | None, typer.Option(help="NIR file of the Braille network.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of training on digits.")] = EPOCHS,
) -> None:
    """Trains, optimizes at all levels, and prints a table."""
    console, machine = Console(width=170), describe_machine()
    rows = digits_rows(epochs)
    if braille is not None:
        rows += braille_rows(braille)
    print_table(console, f"Trained networks ({machine})", HEADER, rows)
    if write:
        RESULTS.write_text(markdown(machine, rows))


if __name__ == "__main__":
    typer.run(main)
