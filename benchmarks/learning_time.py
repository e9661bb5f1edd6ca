"""How long the gradient of a sequence takes by online rules, beside braintrace and brainstate's BPTT.

Run as ``python -m benchmarks.learning_time``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

import ranvier
from ranvier.learn.rule import Rule

from . import learning_ours, learning_peer
from .compiled import Compiled, Gradients, relative_difference
from .machine import Machine, copy_bandwidth, describe_machine, matmul_rate
from .recurrent import DELTA, LIF, SIZES, VARIANTS, Size, Variant, firing_rate, recurrent_weights
from .tables import markdown_table, print_table
from .timing import REPEATS, SLOW_REPEATS, SLOW_SECONDS, Contender, median_stages, run_time, seconds_text

RESULTS = Path(__file__).parent / "results" / "learning_time.md"
WARM_UP = Size(3, 4, 2, 2, 100)
DECAY = 0.9
LONG_ENOUGH = 0.1
"""Seconds that a measurement takes at least; short programs run several times in a row, as in training."""
AGREEMENT = 1e-4
"""Largest relative difference of gradients that are defined alike."""

NOTE = (
    "A time is the median of at least {repeats} measurements of the gradient of the whole sequence after two that are "
    "not counted ({slow} where one takes over {slow_seconds:.0f} s); a measurement is the mean of as many runs in a "
    "row as take {long_enough} s, and all entries of a table take turns in one process. Every entry "
    "is one XLA program, run from the same weights, states and inputs; the loss is a cross-entropy at every step, and "
    "gradients are summed over the steps. Compiling starts from an uninitialized model with JAX's caches cleared and "
    "includes the analysis and the tracing. Memory is XLA's own analysis of the program: arguments, results and "
    "temporaries. Products is the rate of the model's matrix products (forward and weight gradient) as a part of what "
    "a large matrix product reaches; traces, where they are read and written at every step, that traffic as a part of "
    "the bandwidth of copying memory, which traces that fit in a cache may exceed. Difference is that of the gradient "
    "of the input and recurrent weights, relative to braintrace's per-step gradient of the same rule, or to "
    "brainstate's BPTT. The two define D_RTRL alike where a population has one state ({delta}); with several, "
    "braintrace counts the ways from one state to another in the same step once more. Its ES_D_RTRL also divides the "
    "smoothed trace by 1 - decay^t. Ratios are the other's time "
    "divided by the entry's: above 1, the entry is faster. Same rule is the faster of braintrace's two ways per "
    "step (states with a batch axis, or `vmap=True`), for BPTT brainstate; windows is braintrace with "
    '`vjp_method="multi-step"` and windows of the same length, whose gradient is backpropagated inside a window. '
    "Going on means that states and traces come in and go out, as in one part of a longer sequence; without, the "
    "sequence stands for itself."
)


@dataclass(frozen=True)
class Entry:
    """One way to compute the gradient.

    Attributes:
        name: what the tables call it.
        build: compiles it.
        same: names of the peers' entries for the same rule, that of the gradient to compare with first.
        windows: name of the peer's entry with windows of the same length.
    """

    name: str
    build: Callable[[Variant, Size], Compiled]
    same: tuple[str, ...] = ()
    windows: str = ""


PER_STEP = "braintrace D_RTRL, per step"
MAPPED = "braintrace D_RTRL, per step, vmap"
WINDOWS = "braintrace D_RTRL, windows of {}"
PEER_ES = "braintrace ES_D_RTRL, per step"
PEER_BPTT = "brainstate BPTT"
OWN = "Ranvier D_RTRL"
LENGTHS = (50, 10)


def peer_entries() -> list[Entry]:
    """What braintrace and brainstate offer."""
    return [
        Entry(PER_STEP, learning_peer.d_rtrl),
        Entry(MAPPED, lambda variant, size: learning_peer.d_rtrl(variant, size, mapped=True), (PER_STEP,)),
        *(Entry(WINDOWS.format(n), _windowed(n), (PER_STEP,)) for n in LENGTHS),
        Entry(PEER_ES, lambda variant, size: learning_peer.es_d_rtrl(variant, size, DECAY)),
        Entry(PEER_BPTT, learning_peer.bptt),
    ]


def _windowed(window: int) -> Callable[[Variant, Size], Compiled]:
    return lambda variant, size: learning_peer.d_rtrl(variant, size, window)


def own_entries(steps: int) -> list[Entry]:
    """What Ranvier offers for so many steps."""
    same, rule = (PER_STEP, MAPPED), ranvier.D_RTRL()
    return [
        Entry(OWN, _own(rule, None), same),
        Entry(f"Ranvier D_RTRL, chunk {steps}, going on", _own(rule, steps, True), same),
        *(Entry(f"Ranvier D_RTRL, chunk {n}, going on", _own(rule, n, True), same, WINDOWS.format(n)) for n in LENGTHS),
        Entry("Ranvier D_RTRL, chunk 1, going on", _own(rule, 1, True), same),
        Entry("Ranvier ES_D_RTRL", _own(ranvier.ES_D_RTRL(decay=DECAY), None), (PEER_ES,)),
        Entry("Ranvier BPTT", _own(ranvier.BPTT(), steps), (PEER_BPTT,)),
    ]


def _own(rule: Rule, chunk: int | None, going_on: bool = False) -> Callable[[Variant, Size], Compiled]:
    return lambda variant, size: learning_ours.gradient(variant, size, rule, chunk, going_on)


@dataclass
class Measured:
    """What one entry needed.

    Attributes:
        seconds: median of a gradient; zero where it was refused.
        compiling: seconds of the first call's analysis, tracing and compilation.
        bytes: memory of the program.
        trace_bytes: traces that are read and written at every step.
        difference: of its gradient from that of the first entry it shares it with; None where there is none.
        refusal: the error, where it was refused.
    """

    seconds: float = 0.0
    compiling: float = 0.0
    bytes: int = 0
    trace_bytes: int = 0
    difference: float | None = None
    refusal: str = ""


@dataclass(frozen=True)
class Reach:
    """What the machine reaches: operations per second of a matrix product, bytes per second of a copy."""

    flops: float
    bandwidth: float

    def __str__(self) -> str:
        return f"matrix product {self.flops / 1e9:.0f} GFLOP/s, copy {self.bandwidth / 1e9:.1f} GB/s read and written"


@dataclass
class Case:
    """All entries measured on one network.

    Attributes:
        variant: kind of network.
        size: its size.
        rate: part of the neurons that spike in a step.
        entries: what was measured.
        found: by the name of the entry.
        from_cut: difference of Ranvier's D_RTRL from BPTT that is cut at the recurrent spikes and the readout's memory.
    """

    variant: Variant
    size: Size
    rate: float
    entries: Sequence[Entry]
    found: dict[str, Measured] = field(default_factory=dict)
    from_cut: float | None = None

    @property
    def title(self) -> str:
        return f"{self.variant.text}; {self.size}; {self.rate:.0%} of the neurons fire in a step"

    def seconds(self, *names: str) -> float | None:
        """The time of the fastest of these entries; None where none was measured."""
        return min(
            (self.found[name].seconds for name in names if name in self.found and self.found[name].seconds),
            default=None,
        )

    @property
    def notes(self) -> list[str]:
        """Where an entry was refused, or two gradients that should be the same are not."""
        where = f"{self.variant.text}, {self.size}"
        refused = [f"{where}: {name}: {m.refusal}" for name, m in self.found.items() if m.refusal]
        if self.from_cut is not None:
            name = f"{OWN} differs from BPTT that is cut at the recurrent spikes and the readout's memory"
            refused.append(f"{where}: {name} by {self.from_cut:.1e}")
        return refused + [f"{where}: {name} differs by {d:.1e}" for name, d in self._disagreements()]

    def _disagreements(self) -> Iterator[tuple[str, float]]:
        for entry in self.entries:
            difference = self.found[entry.name].difference
            alike = (
                (self.variant is DELTA and PER_STEP in entry.same) or PEER_BPTT in entry.same or entry.name == MAPPED
            )
            windowed = entry.name in map(WINDOWS.format, LENGTHS)
            if difference is not None and alike and not windowed and difference > AGREEMENT:
                yield entry.name, difference


def measure_case(variant: Variant, size: Size, entries: Sequence[Entry], repeats: int) -> Case:
    """Compiles all entries, compares their gradients, and times them in turns."""
    case = Case(variant, size, firing_rate(variant, size), entries)
    compiled: dict[str, Compiled] = {}
    gradients: dict[str, Gradients] = {}
    for entry in entries:
        try:
            made = entry.build(variant, size)
            gradients[entry.name] = made.gradients()
        except Exception as error:  # any refusal is a result
            case.found[entry.name] = Measured(refusal=f"{type(error).__name__}: {str(error).strip()[:160]}")
            continue
        compiled[entry.name] = made
        difference = _difference(entry, gradients)
        case.found[entry.name] = Measured(0.0, made.seconds, made.bytes, made.trace_bytes, difference)
    if OWN in gradients:
        cut = learning_peer.bptt(variant, size, cut=True).gradients()
        case.from_cut = relative_difference(recurrent_weights(gradients[OWN]), recurrent_weights(cut))
    for name, seconds in _time_in_turns(compiled, repeats).items():
        case.found[name].seconds = seconds
    return case


def _difference(entry: Entry, gradients: Mapping[str, Gradients]) -> float | None:
    reference = next((gradients[name] for name in entry.same if name in gradients), None)
    if reference is None:
        return None
    return relative_difference(recurrent_weights(gradients[entry.name]), recurrent_weights(reference))


def _time_in_turns(compiled: Mapping[str, Compiled], repeats: int) -> dict[str, float]:
    if not compiled:
        return {}
    counts = {name: math.ceil(LONG_ENOUGH / run_time(made.run)) for name, made in compiled.items()}
    contenders = [Contender(lambda c=c: c, [("runs", _several(counts[name]))]) for name, c in compiled.items()]
    medians = median_stages(contenders, [contender.run() for contender in contenders], repeats=repeats)
    return {name: found["total"] / counts[name] for name, found in zip(compiled, medians, strict=True)}


def _several(count: int) -> Callable[[Compiled], None]:
    def run(compiled: Compiled) -> None:
        for _ in range(count):
            compiled.run()

    return run


HEADER = (
    *("entry", "time", "per step", "compiling", "memory", "products", "traces", "difference"),
    *("same rule", "windows", "brainstate BPTT"),
)


def cells(case: Case, entry: Entry, reach: Reach) -> tuple[str, ...]:
    found = case.found[entry.name]
    if not found.seconds:
        return (entry.name, "refused", *[""] * (len(HEADER) - 2))
    traffic = 2 * found.trace_bytes * case.size.steps / found.seconds
    return (
        entry.name,
        seconds_text(found.seconds),
        seconds_text(found.seconds / case.size.steps),
        seconds_text(found.compiling),
        f"{found.bytes / 2**20:.1f} MiB",
        f"{case.size.product_flops / found.seconds / reach.flops:.1%}",
        f"{traffic / reach.bandwidth:.1%}" if traffic else "-",
        "-" if found.difference is None else f"{found.difference:.1e}",
        *(_ratio(case.seconds(*names), found.seconds) for names in (entry.same, (entry.windows,), (PEER_BPTT,))),
    )


def _ratio(theirs: float | None, seconds: float) -> str:
    return f"{theirs / seconds:.2f}" if theirs else "-"


def report(machine: Machine, reach: Reach, cases: Sequence[Case], repeats: int) -> str:
    """The results as Markdown."""
    lines = ["# Learning time", "", f"Machine: {machine}; {reach}.", f"Versions: {machine.versions_text}.", ""]
    slow = {"slow": SLOW_REPEATS, "slow_seconds": SLOW_SECONDS, "long_enough": LONG_ENOUGH}
    lines += [NOTE.format(repeats=repeats, delta=DELTA.text, **slow), ""]
    for case in cases:
        rows = (cells(case, entry, reach) for entry in case.entries)
        lines += [f"## {case.title}", "", *markdown_table(HEADER, rows), ""]
    notes = [note for case in cases for note in case.notes]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines)


def selected_cases(sizes: Sequence[str], variants: Sequence[str]) -> list[tuple[Variant, Size]]:
    """Variants and sizes whose name has one of the texts in it; all where there is none."""
    chosen = [variant for variant in VARIANTS if not variants or variant.name in variants]
    return [(v, s) for s in SIZES if not sizes or any(str(s).startswith(text) for text in sizes) for v in chosen]


def main(
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/learning_time.md, after every table.")] = False,
    size: Annotated[list[str] | None, typer.Option(help="Only sizes that start with this, e.g. 100-256.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only lif, alif, delta or detached.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs to take the median of.")] = REPEATS,
    with_peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Measure braintrace and brainstate.")] = True,
    with_own: Annotated[bool, typer.Option("--own/--no-own", help="Measure Ranvier.")] = True,
) -> None:
    """Measures the time of the gradient of a sequence."""
    console = Console(width=None if Console().is_terminal else 220)
    machine, reach = describe_machine(), Reach(matmul_rate(), copy_bandwidth())
    console.print(f"{machine}; {reach}\n{machine.versions_text}")

    def entries(steps: int) -> list[Entry]:
        return (peer_entries() if with_peer else []) + (own_entries(steps) if with_own else [])

    for entry in entries(WARM_UP.steps):
        entry.build(LIF, WARM_UP)
    cases: list[Case] = []
    for kind, numbers in selected_cases(size or (), variant or ()):
        cases.append(case := measure_case(kind, numbers, entries(numbers.steps), repeats))
        print_table(console, case.title, HEADER, (cells(case, entry, reach) for entry in case.entries))
        for note in case.notes:
            console.print(note, markup=False)
        if write:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(report(machine, reach, cases, repeats))


if __name__ == "__main__":
    typer.run(main)
