"""Peak memory of learning without end: one step per call, states and traces passed on from call to call.

Run as ``python -m benchmarks.streaming_memory``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console

import ranvier

from .learning_ours import make_learner
from .machine import Machine, describe_machine
from .processes import in_own_process, peak_memory, resident_memory
from .recurrent import INPUT_RATE, LIF, SEED, Size, make_network, step_loss
from .tables import markdown_table, print_table
from .timing import seconds_text

RESULTS = Path(__file__).parent / "results" / "streaming_memory.md"
NETWORK = Size(100, 64, 10, 1, 1)
STEPS = (10**3, 10**4, 10**5)
WARM_UP = 100
RULES = {"D_RTRL": ranvier.D_RTRL(), "ES_D_RTRL": ranvier.ES_D_RTRL(decay=0.9)}
HEADER = ("rule", "steps", "peak memory", "growth", "kept between steps", "time per step")

NOTE = (
    "{variant}, {size}: one call of `learner.grad` per step with the `aux.state` of the call before, inputs made on "
    "the way, gradients added up. Every row is a process of its own. Peak memory is the operating system's "
    "(`ru_maxrss`), most of it Python, JAX and compiling; growth is by how much the resident memory changed after the "
    "first {warm_up} steps. Kept between steps is the learner's state: hidden states and traces."
)


@dataclass(frozen=True)
class Measured:
    """What one process needed.

    Attributes:
        rule: name of the learning rule.
        steps: number of steps.
        peak: peak resident memory in bytes.
        growth: change of the resident memory since the first ``WARM_UP`` steps, in bytes.
        state: bytes of the learner's state.
        seconds: time of all steps after the first ``WARM_UP``.
    """

    rule: str
    steps: int
    peak: int
    growth: int
    state: int
    seconds: float


def inputs(count: int, seed: int = SEED) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Spikes ``[1, batch, inputs]`` and labels ``[1, batch]``, one step after the other."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        spikes = rng.random((1, NETWORK.batch, NETWORK.inputs)) < INPUT_RATE
        yield spikes.astype(np.float32), rng.integers(0, NETWORK.outputs, (1, NETWORK.batch), np.int32)


def measure(rule: str, steps: int) -> Measured:
    """Learns for so many steps in this process, after ``WARM_UP`` steps."""
    example = jnp.zeros((NETWORK.batch, NETWORK.inputs))
    learner = make_learner(make_network(LIF, NETWORK), NETWORK.batch, RULES[rule], example, chunk=1)

    def step(state: Any, total: Any, x: jax.Array, y: jax.Array) -> Any:
        gradients, aux = learner.grad(step_loss, x, y, state=state)
        return aux.state, jax.tree.map(jnp.add, total, gradients)

    jitted = jax.jit(step, donate_argnums=(0, 1))
    carried = jax.tree.map(jnp.array, (learner.init(), jax.tree.map(jnp.zeros_like, learner.params)))
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(carried[0]))
    for x, y in inputs(WARM_UP):
        carried = jitted(*carried, x, y)
    jax.block_until_ready(carried)
    before, start = resident_memory(), time.perf_counter()
    for x, y in inputs(steps, SEED + 1):
        carried = jitted(*carried, x, y)
    jax.block_until_ready(carried)
    seconds = time.perf_counter() - start
    return Measured(rule, steps, peak_memory(), resident_memory() - before, state_bytes, seconds)


def measure_apart(rule: str, steps: int) -> Measured:
    """The same in a process of its own."""
    return Measured(**in_own_process("benchmarks.streaming_memory", "--here", "--rule", rule, "--steps", steps))


def cells(row: Measured) -> tuple[str, ...]:
    return (
        row.rule,
        f"{row.steps:,}",
        f"{row.peak / 2**20:.1f} MiB",
        f"{row.growth / 2**20:.1f} MiB",
        f"{row.state / 2**10:.0f} KiB",
        seconds_text(row.seconds / row.steps),
    )


def report(machine: Machine, rows: Sequence[Measured]) -> str:
    """The results as Markdown."""
    lines = ["# Streaming memory", "", f"Machine: {machine}.", f"Versions: {machine.versions_text}.", ""]
    size = f"{NETWORK.inputs} inputs, {NETWORK.neurons} neurons, {NETWORK.outputs} outputs, {NETWORK.batch} sample"
    lines += [NOTE.format(variant=LIF.text, size=size, warm_up=WARM_UP), ""]
    return "\n".join([*lines, *markdown_table(HEADER, map(cells, rows)), ""])


def main(
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/streaming_memory.md, after every row.")] = False,
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Only so many steps.")] = None,
    here: Annotated[bool, typer.Option(help="Measure in this process and print JSON.", hidden=True)] = False,
) -> None:
    """Measures the peak memory of streaming for more and more steps."""
    chosen = [(name, count) for name in rule or RULES for count in steps or STEPS]
    if here:
        for name, count in chosen:
            print(json.dumps(asdict(measure(name, count))))
        return
    console, machine, rows = Console(), describe_machine(), []
    console.print(f"{machine}\n{machine.versions_text}")
    for name, count in chosen:
        rows.append(measure_apart(name, count))
        console.print(", ".join(cells(rows[-1])))
        if write:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(report(machine, rows))
    print_table(console, "Streaming memory", HEADER, map(cells, rows))


if __name__ == "__main__":
    typer.run(main)
