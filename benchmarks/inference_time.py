"""Time of inference, beside brainstate, snnTorch, Norse and SpikingJelly.

Run as ``python -m benchmarks.inference_time``; needs the extra ``bench``, and Norse and SpikingJelly as ``make bench``
installs them.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .inference_cell import OURS, REPEATS, WHOLE, Measured
from .inference_networks import Case, cases
from .machine import copy_bandwidth, describe_machine, matmul_rate
from .processes import in_own_process
from .tables import markdown_table, print_table

RESULTS = Path(__file__).parent / "results" / "inference_time.md"
BATCHES = (1, 32)
LIBRARIES = (OURS, WHOLE, "brainstate", "snnTorch", "Norse", "SpikingJelly")
HEADER = ("network", "samples", "active", "Ranvier, ms per step", *LIBRARIES[1:], "peak memory of Ranvier")
NOTE = (
    "Milliseconds per step of Ranvier, and how many times as long each library takes for the same sequence: {steps} "
    "steps, {few} for 8,192 neurons; medians of {repeats} runs after one that is not counted, every cell a process of "
    "its own, compilation not counted. Neurons are leaky integrators with a reset to zero, float32, inference alone "
    "(`torch.no_grad`). brainstate: a module in `brainstate.transform.for_loop`, jitted. snnTorch: `Leaky` in a loop "
    "over time. Norse: `LIFBoxCell` in a loop over time. SpikingJelly: `LIFNode` with `step_mode='m'`, all steps of a "
    "layer at once, where nothing feeds back, else step by step. Ranvier: `ranvier.Simulator(graph)`, without measured "
    "activity; all weights: the same with whole products alone, where it may add up the weights of active neurons. "
    "Active is the part of the neurons of the output, or of the inputs where the output is no spike. The mean output "
    "of all libraries agrees to 0.001 plus a thousandth of it in every row, or the run ends with an error."
)


def _measured(library: str, number: int, samples: int) -> Measured:
    return Measured(**in_own_process("benchmarks.inference_cell", library, number, samples))


def _row(case: Case, samples: int, found: dict[str, Measured]) -> tuple[str, ...]:
    ours = found[OURS]
    for library, other in found.items():
        if abs(other.mean - ours.mean) > 1e-3 * max(abs(ours.mean), 1e-3) + 1e-3:
            raise SystemExit(f"{case.name}: mean output {other.mean} of {library}, {ours.mean} of Ranvier")
    active = ours.mean if case.kind == "sparse" else case.rate
    ratios = [f"{found[library].seconds / ours.seconds:.1f}x" if library in found else "" for library in LIBRARIES[1:]]
    own = f"{1e3 * ours.seconds / case.steps:.3f}"
    return (case.name, str(samples), f"{active:.1%}", own, *ratios, f"{ours.peak / 2**20:,.0f} MiB")


def _about() -> list[str]:
    """The machine, what it reaches, and versions."""
    machine = describe_machine()
    peers = ", ".join(f"{name} {version(name)}" for name in ("torch", "snntorch", "norse", "spikingjelly"))
    reach = f"copy {copy_bandwidth() / 1e9:.1f} GB/s, matrix product {matmul_rate() / 1e9:.0f} GFLOP/s"
    return [f"{machine}; {reach}.", "", f"{machine.versions_text}, {peers}."]


def _kept(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The rows of the committed table with those of the networks just measured in their place."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    old = [tuple(entry.strip() for entry in line.strip("| ").split(" | ")) for line in lines]
    found = {(row[0], row[1]): row for row in (*old, *rows)}
    order = [(case.name, str(samples)) for case in cases() for samples in BATCHES]
    return [found[key] for key in order if key in found]


def main(
    write: Annotated[bool, typer.Option("--write", help="Write the committed table.")] = False,
    only: Annotated[str, typer.Option(help="Measure the networks whose names have this in them.")] = "",
) -> None:
    """Measures networks and prints the table."""
    console, rows = Console(width=140), []
    for number, case in enumerate(cases()):
        for samples in BATCHES if only in case.name else ():
            libraries = [library for library in LIBRARIES if library != WHOLE or case.kind == "sparse"]
            found = {library: _measured(library, number, samples) for library in libraries}
            rows.append(_row(case, samples, found))
            console.print(" | ".join(rows[-1]))
    print_table(console, "Inference", HEADER, rows)
    if write:
        steps = {case.kind: case.steps for case in cases()}
        note = NOTE.format(steps=steps["forward"], few=steps["sparse"], repeats=REPEATS)
        head = ["# Time of inference", "", "`python -m benchmarks.inference_time --write`", ""]
        lines = [*head, note, "", *_about(), "", *markdown_table(HEADER, _kept(rows)), ""]
        RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
