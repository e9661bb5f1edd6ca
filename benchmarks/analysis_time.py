"""How long the analyses take, and how that grows with the model, beside braintrace.

Run as ``python -m benchmarks.analysis_time``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import braintrace
import typer
from rich.console import Console

import ranvier
from ranvier.models import alif_stp

from . import models, peer
from .machine import Machine, describe_machine
from .tables import markdown_table, print_table
from .timing import (
    ONCE_SECONDS,
    REPEATS,
    SLOW_REPEATS,
    SLOW_SECONDS,
    Contender,
    Stage,
    growth,
    median_stages,
    seconds_text,
)

RESULTS = Path(__file__).parent / "results" / "analysis_time.md"
STAGES = ("extraction", "groups", "relations", "perturbation")
LAYERS = (1, 10, 30, 100)
EQUATIONS = (100, 300, 1000, 3000, 10000)
PARAMETERS = (100, 300, 1000, 3000)
PRODUCTS = (30, 100, 300)
QUICK = {LAYERS: (1, 3, 10), EQUATIONS: (100, 300, 1000), PARAMETERS: (100, 300), PRODUCTS: (30, 100)}

Subject = tuple[Any, Any]
"""A model and its example input."""

NOTE = (
    "Seconds are medians of at least {repeats} runs after one that is not counted ({slow} where a run takes over "
    "{slow_seconds:.0f} s; over {once:.0f} s the first run alone). The runs of the two take turns, every run has "
    "a model of its own, {caches}. Garbage is collected before each run and not inside. Extraction is tracing the "
    "step into a ModuleInfo; the other stages start from what it gives. braintrace gets the same model written "
    "with its own operators (`braintrace.nn.Linear`, `braintrace.matmul`, `braintrace.element_wise`), a step "
    "function as a module with one state per leaf; Ranvier gets plain brainstate and JAX. Sizes count layers, "
    "equations, parameters, populations or weights. The ratio is braintrace's time divided by Ranvier's: above 1, "
    "Ranvier is faster. Growth is the exponent p of the fit seconds = c * equations ** p over the rows of a "
    "family; 1 is linear."
)


@dataclass(frozen=True)
class Case:
    """A model of one size, for both systems."""

    family: str
    size: int
    own: Callable[[], Subject]
    theirs: Callable[[], Subject]


@dataclass
class Measured:
    """What one system needed for one case.

    Attributes:
        seconds: stage to median, ``"total"`` included; empty where the system refused.
        equations: number of equations it traced.
        found: numbers of groups, relations and perturbations.
        refusal: the error, where it refused.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    equations: int = 0
    found: tuple[int, int, int] = (0, 0, 0)
    refusal: str = ""


@dataclass(frozen=True)
class Row:
    """One case with both measurements."""

    case: Case
    own: Measured
    theirs: Measured

    @property
    def notes(self) -> list[str]:
        """Where braintrace refused, or found something else."""
        name = f"{self.case.family}, {self.case.size}"
        if self.theirs.refusal:
            return [f"{name}: braintrace refuses: {self.theirs.refusal}"]
        if self.theirs.seconds and self.own.found != self.theirs.found:
            return [f"{name}: groups, relations, perturbations are {self.own.found} here, {self.theirs.found} there."]
        return []


def example_case() -> Case:
    return Case("ALIF + STP example", 1, alif_stp, _own_layers(alif_stp))


def layer_case(count: int) -> Case:
    def build() -> Subject:
        return models.stacked_layers(count)

    return Case("recurrent layers", count, build, _own_layers(build))


def _own_layers(build: Callable[[], Subject]) -> Callable[[], Subject]:
    def theirs() -> Subject:
        model, x = build()
        return peer.with_own_layers(model), x

    return theirs


def step_case(family: str, make: Callable[..., models.StepParts], size: int) -> Case:
    def own() -> Subject:
        step, params, state, x = make(size)
        return ranvier.step_function(step, params, state), x

    def theirs() -> Subject:
        parts = make(size, operators=peer.OPERATORS)
        return peer.StepModule(parts), parts[-1]

    return Case(family, size, own, theirs)


def all_cases(quick: bool) -> list[Case]:
    def sizes(full: tuple[int, ...]) -> tuple[int, ...]:
        return QUICK[full] if quick else full

    return [
        example_case(),
        *(layer_case(count) for count in sizes(LAYERS)),
        *(step_case("populations of 100 equations", models.populations, n) for n in sizes(EQUATIONS)),
        *(step_case("one long chain", models.long_chain, n) for n in sizes(EQUATIONS)),
        *(step_case("elementwise parameters", models.many_parameters, n) for n in sizes(PARAMETERS)),
        *(step_case("small populations", models.small_populations, n) for n in sizes(PRODUCTS)),
        *(step_case("weights used twice", models.weights_used_twice, n) for n in sizes(PRODUCTS)),
    ]


class Pipeline:
    """The stages of one system, with what they found in the last run."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.info: Any = None
        self.groups: Any = None
        self.mapping: Any = None
        self.relations: Any = None
        self.perturbation: Any = None

    @property
    def stages(self) -> list[tuple[str, Stage]]:
        return list(zip(STAGES, (self._extract, self._find_groups, self._find_relations, self._perturb), strict=True))

    def measured(self, seconds: dict[str, float]) -> Measured:
        found = (len(self.groups), len(self.relations), len(self.perturbation.perturb_vars))
        return Measured(seconds, len(self.info.jaxpr.eqns), found)

    def _extract(self, subject: Subject) -> None:
        self.info = self.system.extract_module_info(*subject)

    def _find_groups(self, _: Any) -> None:
        self.groups, self.mapping = self.system.find_hidden_groups_from_minfo(self.info)

    def _find_relations(self, _: Any) -> None:
        self.relations = self.system.find_hidden_param_op_relations_from_minfo(self.info, self.mapping)

    def _perturb(self, _: Any) -> None:
        self.perturbation = self.system.add_hidden_perturbation_from_minfo(self.info)


def measure_case(case: Case, repeats: int, clear: bool, with_peer: bool) -> Row:
    """Medians of both systems, their runs in turns."""
    own, theirs = Pipeline(ranvier), Pipeline(braintrace)
    contenders = [Contender(case.own, own.stages)]
    first = [contenders[0].run(clear)]
    refusal = ""
    if with_peer:
        contender = Contender(case.theirs, theirs.stages)
        try:
            first.append(contender.run(clear))
            contenders.append(contender)
        except Exception as error:  # any refusal of the peer is a result
            refusal = _refusal_text(error)
    medians = median_stages(contenders, first, repeats=repeats, clear=clear)
    peer_measured = theirs.measured(medians[1]) if len(medians) > 1 else Measured(refusal=refusal)
    return Row(case, own.measured(medians[0]), peer_measured)


def _refusal_text(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


HEADER = (
    *("model", "size", "equations", *STAGES, "analyses", "total"),
    *("us/equation", "braintrace", "ratio", "ratio, analyses"),
)


def cells(row: Row) -> tuple[str, ...]:
    own, theirs = row.own, row.theirs
    return (
        row.case.family,
        str(row.case.size),
        str(own.equations),
        *(seconds_text(own.seconds[stage]) for stage in STAGES),
        seconds_text(_analyses(own)),
        seconds_text(own.seconds["total"]),
        f"{own.seconds['total'] / own.equations * 1e6:.0f}",
        seconds_text(theirs.seconds["total"]) if theirs.seconds else "refused" if theirs.refusal else "-",
        _ratio(theirs.seconds.get("total"), own.seconds["total"]),
        _ratio(_analyses(theirs), _analyses(own)),
    )


def _analyses(measured: Measured) -> float:
    return sum(measured.seconds.get(stage, 0.0) for stage in STAGES[1:])


def _ratio(theirs: float | None, own: float) -> str:
    return f"{theirs / own:.2f}" if theirs else "-"


STAGE_HEADER = ("model", "size", *(f"{stage}, {who}" for stage in STAGES for who in ("Ranvier", "braintrace")))


def stage_cells(row: Row) -> tuple[str, ...]:
    """The stages of both systems side by side."""
    pairs = []
    for stage in STAGES:
        pairs += [
            seconds_text(row.own.seconds[stage]),
            seconds_text(row.theirs.seconds[stage]) if row.theirs.seconds else "-",
        ]
    return (row.case.family, str(row.case.size), *pairs)


GROWTH_HEADER = ("model", "equations", *STAGES, "total", "braintrace total")


def growth_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """For every family with several sizes, the growth exponents."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.case.family, []).append(row)
    return [_growth_cells(family, found) for family, found in families.items() if len(found) > 1]


def _growth_cells(family: str, rows: Sequence[Row]) -> tuple[str, ...]:
    sizes = [row.own.equations for row in rows]
    own = [f"{growth(sizes, [row.own.seconds[stage] for row in rows]):.2f}" for stage in (*STAGES, "total")]
    peers = [(row.theirs.equations, row.theirs.seconds["total"]) for row in rows if row.theirs.seconds]
    theirs = f"{growth(*zip(*peers)):.2f}" if len(peers) > 1 else "-"
    return (family, f"{sizes[0]} to {sizes[-1]}", *own, theirs)


def tables(rows: Sequence[Row]) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """Title, header and lines of every table of the report."""
    found = [
        ("Ranvier, and its total beside braintrace's", HEADER, [cells(row) for row in rows]),
        ("Stage by stage", STAGE_HEADER, [stage_cells(row) for row in rows if row.theirs.seconds]),
        ("Growth with the number of equations", GROWTH_HEADER, growth_rows(rows)),
    ]
    return [table for table in found if table[-1]]


def note_text(repeats: int, clear: bool) -> str:
    caches = (
        "and JAX's caches are cleared before it, as in a new process"
        if clear
        else "and JAX keeps small library functions, as in a session that has analyzed a model before"
    )
    return NOTE.format(repeats=repeats, slow=SLOW_REPEATS, slow_seconds=SLOW_SECONDS, once=ONCE_SECONDS, caches=caches)


def report(machine: Machine, rows: Sequence[Row], repeats: int, clear: bool) -> str:
    """The results as Markdown."""
    lines = ["# Analysis time", "", f"Machine: {machine}.", f"Versions: {machine.versions_text}.", ""]
    lines += [note_text(repeats, clear), ""]
    for title, header, found in tables(rows):
        lines += [f"## {title}", "", *markdown_table(header, found), ""]
    notes = [note for row in rows for note in row.notes]
    if notes:
        lines += ["## Notes", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(lines)


def _progress_text(row: Row) -> str:
    total = seconds_text(row.own.seconds["total"])
    ratio = _ratio(row.theirs.seconds.get("total"), row.own.seconds["total"])
    return f"{row.case.family}, {row.case.size}: {total}, ratio {ratio}"


def main(
    quick: Annotated[bool, typer.Option(help="Small sizes only.")] = False,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/analysis_time.md, after every model.")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="Runs to take the median of.")] = REPEATS,
    clear: Annotated[bool, typer.Option(help="Clear JAX's caches before each run.")] = True,
    with_peer: Annotated[bool, typer.Option("--peer/--no-peer", help="Measure braintrace as well.")] = True,
    only: Annotated[str, typer.Option(help="Measure only families whose name has this in it.")] = "",
) -> None:
    """Measures the time of extraction and of the analyses."""
    console = Console(width=None if Console().is_terminal else 200)
    machine = describe_machine()
    console.print(f"{machine}\n{machine.versions_text}")
    rows: list[Row] = []
    for case in (case for case in all_cases(quick) if only in case.family):
        rows.append(measure_case(case, repeats, clear, with_peer))
        console.print(_progress_text(rows[-1]))
        if write:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(report(machine, rows, repeats, clear))
    for title, header, found in tables(rows):
        print_table(console, title, header, found)
    for note in (note for row in rows for note in row.notes):
        console.print(note, markup=False)


if __name__ == "__main__":
    typer.run(main)
