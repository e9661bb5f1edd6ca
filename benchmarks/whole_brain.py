"""A network of the size of a fly's brain runs, and learns online: time per step, memory, losses.

Run as ``python -m benchmarks.whole_brain``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console

import ranvier
from ranvier.graph.neurons import LI
from ranvier.graph.operations import Identity

from .connectome import INPUTS, NEURONS, OUTPUTS, SYNAPSES, connectome
from .machine import copy_bandwidth, describe_machine
from .processes import in_own_process, peak_memory, resident_memory
from .tables import markdown_table, print_table
from .timing import seconds_text

RESULTS = Path(__file__).parent / "results" / "whole_brain.md"
STEPS = (500, 5000)
TRIAL = 100
WARM_UP = 1
STIMULI = 4
SHOWN = 20
"""Inputs that are active in a pattern."""
STRENGTH = 0.2
"""Of an active input, on average: the brain is quiet most of the time."""
LEARNING_RATE = 1e-2
HEADER = ("what", "steps", "time per step", "peak memory", "growth", "active per step", "loss", "correct")
NOTE = (
    f"A generated recurrent LIF network of {NEURONS:,} neurons and {SYNAPSES / 1e6:.0f} million recurrent synapses "
    f"with long-tailed degrees, {INPUTS} inputs, {OUTPUTS} leaky readouts, float32, one sample. The task: which of "
    f"{STIMULI} patterns of {SHOWN} inputs is shown; a trial has {TRIAL} steps, its second half counts. Learning is "
    "`ES_D_RTRL(decay=0.9)` on all weights, one call of `learner.grad` per trial with the state of the one before, "
    "and Adam after it; its time is in the time per step. Whole products: the lowered step in `jax.lax.scan`, which "
    "adds up every synapse at every step. Every row is a process of its own; peak memory is the operating system's "
    "(`ru_maxrss`), and has the making of the network and compiling in it; growth is by how much the resident memory "
    "changed after the first trial. Loss and correct: mean of the first ten trials, then of the last ten."
)


@dataclass(frozen=True)
class Measured:
    """What one process needed.

    Attributes:
        what: what was run.
        steps: number of steps after the first trial.
        seconds: time of these.
        peak, growth: in bytes.
        active: part of the neurons that spikes in a step, on average.
        losses: of every trial.
        correct: of every trial.
    """

    what: str
    steps: int
    seconds: float
    peak: int
    growth: int
    active: float
    losses: list[float]
    correct: list[bool]


def brain(part: float) -> ranvier.SNNGraph:
    """The network with leaky readouts."""
    graph = connectome(part)
    graph.populations["motor neurons"] = ranvier.Population("motor neurons", (OUTPUTS,), LI(tau=20e-3, r=4.0))
    graph.projections["read"] = graph.projections["read"].replace(target="motor neurons")
    graph.projections["out"] = ranvier.Projection("out", "motor neurons", "motor", Identity())
    return graph


def trials(count: int, seed: int = 0) -> Any:
    """For every trial the input ``[TRIAL, INPUTS]`` and the number of its pattern."""
    rng = np.random.default_rng(seed)
    patterns = np.argsort(rng.random((STIMULI, INPUTS)), axis=1) < SHOWN
    for _ in range(count):
        label = int(rng.integers(STIMULI))
        noise = rng.uniform(0.5, 1.5, (TRIAL, INPUTS))
        yield jnp.asarray(STRENGTH * patterns[label] * noise, jnp.float32), label


def loss(output: Any, target: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output[:STIMULI], target)


COUNTS = jnp.asarray(np.arange(TRIAL) >= TRIAL // 2, jnp.float32)


def learn(graph: ranvier.SNNGraph) -> Callable[[Any, int], tuple[float, bool]]:
    """Learns from one trial after the other; gives its loss and whether it was right."""
    learner = ranvier.compile(ranvier.lower(graph), ranvier.ES_D_RTRL(decay=0.9), jnp.ones(INPUTS))
    optimizer = optax.adam(LEARNING_RATE)

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def step(params: Any, state: Any, moments: Any, xs: Any, label: Any) -> Any:
        targets = jnp.full(TRIAL, label)
        gradients, aux = learner.grad(loss, xs, targets, state=state, params=params, mask=COUNTS)
        updates, moments = optimizer.update(gradients, moments)
        seen = (aux.outputs[:, :STIMULI] * COUNTS[:, None]).sum(0)
        mean = aux.losses.sum() / COUNTS.sum()
        return optax.apply_updates(params, updates), aux.state, moments, mean, seen.argmax() == label

    carried = jax.tree.map(jnp.array, (learner.params, learner.init(), optimizer.init(learner.params)))

    def trial(xs: Any, label: int) -> tuple[float, bool]:
        nonlocal carried
        *carried, mean, right = step(*carried, xs, label)
        return float(mean), bool(right)

    return trial


def run_by_events(graph: ranvier.SNNGraph) -> Callable[[Any, int], None]:
    """Runs the network, taking synapses of active neurons alone where they are few."""
    simulator = ranvier.Simulator(graph)

    def trial(xs: Any, label: int) -> None:
        simulator(xs)

    return trial


def run_whole(graph: ranvier.SNNGraph) -> Callable[[Any, int], None]:
    """Runs the network with a product of all synapses at every step."""
    lowered = ranvier.lower(graph)
    run = jax.jit(lambda params, state, xs: jax.lax.scan(lambda s, x: lowered.step(params, s, x), state, xs)[1])
    params, state = jax.tree.map(jnp.asarray, (lowered.params, lowered.state))

    def trial(xs: Any, label: int) -> None:
        jax.block_until_ready(run(params, state, xs))

    return trial


KINDS: dict[str, Callable[[ranvier.SNNGraph], Callable[[Any, int], Any]]] = {
    "run, whole products": run_whole,
    "run by events": run_by_events,
    "learn": learn,
}


def measure(what: str, steps: int, part: float) -> Measured:
    """Runs so many steps in this process, after ``WARM_UP`` trials."""
    graph = brain(part)
    (shown, _), *_ = trials(1)
    active = ranvier.simulate(graph, shown, record=["brain"])["brain"].mean()
    run = KINDS[what](graph)
    for xs, label in trials(WARM_UP):
        run(xs, label)
    before, found, start = resident_memory(), [], time.perf_counter()
    for xs, label in trials(steps // TRIAL, seed=0):
        found.append(run(xs, label))
    seconds = time.perf_counter() - start
    losses, right = zip(*found, strict=True) if what == "learn" else ((), ())
    growth = resident_memory() - before
    return Measured(what, steps, seconds, peak_memory(), growth, float(active), list(losses), list(right))


def measure_apart(what: str, steps: int, part: float) -> Measured:
    """The same in a process of its own."""
    options = ["--here", "--what", what, "--steps", steps, "--part", part]
    return Measured(**in_own_process("benchmarks.whole_brain", *options))


def cells(row: Measured) -> tuple[str, ...]:
    def ends(values: Sequence[float], style: str) -> str:
        return f"{np.mean(values[:10]):{style}} to {np.mean(values[-10:]):{style}}" if len(values) >= 20 else ""

    return (
        row.what,
        f"{row.steps:,}",
        seconds_text(row.seconds / row.steps),
        f"{row.peak / 2**30:.2f} GiB",
        f"{row.growth / 2**20:.0f} MiB",
        f"{row.active:.2%}",
        ends(row.losses, ".3f"),
        ends(row.correct, ".0%"),
    )


def main(
    write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False,
    what: Annotated[list[str] | None, typer.Option(help="Only this: " + "; ".join(KINDS) + ".")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Only so many steps.")] = None,
    part: Annotated[float, typer.Option(help="Size, as a part of the whole.")] = 1.0,
    here: Annotated[bool, typer.Option(help="Measure in this process and print JSON.", hidden=True)] = False,
) -> None:
    """Measures running and learning for more and more steps."""
    chosen = [(name, count) for name in what or KINDS for count in steps or STEPS]
    if here:
        for name, count in chosen:
            print(json.dumps(asdict(measure(name, count, part))))
        return
    console, machine, rows = Console(width=160), describe_machine(), []
    reach = f"copy {copy_bandwidth() / 1e9:.1f} GB/s, read and written together"
    for name, count in chosen:
        rows.append(measure_apart(name, count, part))
        console.print(", ".join(cells(rows[-1])))
    print_table(console, "Whole brain", HEADER, map(cells, rows))
    if write:
        head = ["# Whole brain", "", "`python -m benchmarks.whole_brain --write`", "", NOTE, ""]
        about = [f"{machine}; {reach}.", "", f"{machine.versions_text}.", ""]
        RESULTS.write_text("\n".join([*head, *about, *markdown_table(HEADER, map(cells, rows)), ""]), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
