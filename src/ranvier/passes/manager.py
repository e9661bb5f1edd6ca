"""The pass manager: passes in order, again and again until nothing changes, each checked by running the network.

Results of analyses are kept from pass to pass until one changes the graph. A pass is not run again before another one
has changed something: passes do all they can at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import PassError
from ..graph.printer import to_text
from ..graph.provenance import Provenance
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import problems
from ..verification.calibration import Calibration
from ..verification.inputs import Trial
from ..verification.promise import Promise
from ..verification.runs import KeptRuns
from ..verification.ties import Run
from ..verification.verify import Verification, verify
from .base import Facts, Pass, Remark, Rewriting
from .pipeline import pipeline_text
from .search import AccuracyBudget, is_searched, searched


def without_activity(graph: SNNGraph) -> SNNGraph:
    """A copy without measured activity."""
    copy = graph.copy()
    copy.populations = {name: p.replace(activity=None) for name, p in graph.populations.items()}
    return copy


ROUNDS = 10
"""A pipeline is run at most so often; passes that undo each other would go on for ever."""

Watch = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class PassRun:
    """One run of a pass.

    Attributes:
        number: from 1; what ``bisect_limit`` counts.
        text: the pass with its options.
        round: from 1.
        promise: the weakest of what was done.
        remarks: what was done and what not.
        seconds: how long it took, without checks.
        before, after: sizes.
        checks: one for every trial; none where nothing was changed.
        printed: the graph afterwards, if asked for.
        skipped: whether it was left out for ``bisect_limit``.
    """

    number: int
    text: str
    round: int
    promise: Promise
    remarks: tuple[Remark, ...]
    seconds: float
    before: GraphSize
    after: GraphSize
    checks: tuple[Verification, ...] = ()
    printed: str | None = None
    skipped: bool = False

    @property
    def changed(self) -> bool:
        return any(remark.done for remark in self.remarks)


@dataclass(frozen=True, eq=False)
class Result:
    """What a pipeline made of a graph.

    Attributes:
        graph: the new graph.
        origins: where the neurons of the original are in it.
        runs: of all passes, in order.
        settled: whether passes were run until nothing changed.
    """

    graph: SNNGraph
    origins: Provenance
    runs: tuple[PassRun, ...]
    settled: bool = True

    @property
    def promise(self) -> Promise:
        """The weakest promise of all that was done."""
        return max((run.promise for run in self.runs), default=Promise.BITWISE)


@dataclass(frozen=True)
class PassManager:
    """How passes are run.

    Attributes:
        passes: in order.
        fixpoint: whether to go through them again until nothing changes.
        trials: inputs on which every pass that changed something is checked; none for no checks.
        counterexample: where the inputs are written on which a pass broke its promise; None for nowhere.
        calibration: data for passes that measure.
        budget: for options to be searched.
        print_after_all: keep the text of the graph after every pass.
        bisect_limit: run only so many passes, counted over all rounds; None for all.
        watch: told the text of every pass before it runs.
        run_checks: runs the graphs that are compared.
        measure: gives a graph the activity that it has after an approximate pass; by default none.
    """

    passes: Sequence[Pass]
    fixpoint: bool = True
    trials: Sequence[Trial] = ()
    counterexample: Path | None = None
    calibration: Calibration | None = None
    budget: AccuracyBudget | None = None
    print_after_all: bool = False
    bisect_limit: int | None = None
    watch: Watch | None = field(default=None)
    run_checks: Run = field(default_factory=KeptRuns)
    measure: Callable[[SNNGraph], SNNGraph] = without_activity

    def run(self, graph: SNNGraph) -> Result:
        """Runs the pipeline on a copy of a graph.

        Raises:
            PassError: a pass broke its promise, or made a graph that is not valid.
        """
        current, origins, facts = graph, Provenance.of(graph), {}
        size = GraphSize.of(graph)
        runs: list[PassRun] = []
        settled: set[int] = set()
        changed = False
        for number in range(1, ROUNDS + 1 if self.fixpoint else 2):
            done = [one for one in self.passes if number == 1 or not (one.once or is_searched(one))]
            changed = False
            for one in done:
                if id(one) in settled:
                    continue
                run, rewriting = self._step(one, number, len(runs) + 1, current, size, graph, facts)
                runs.append(run)
                size = run.after
                settled.add(id(one))
                if rewriting is not None and run.changed:
                    current, origins = rewriting.graph, origins.then(rewriting.origins)
                    settled, changed = {id(one)}, True
                if rewriting is not None:
                    facts = rewriting.facts
                if run.changed and run.promise is Promise.APPROXIMATE:
                    current, facts = self.measure(current), {}
            if not changed:
                break
        made = graph.copy() if current is graph else current
        return Result(made, origins, tuple(runs), settled=not (self.fixpoint and changed))

    def _step(
        self,
        one: Pass,
        round_: int,
        number: int,
        graph: SNNGraph,
        size: GraphSize,
        original: SNNGraph,
        facts: Facts,
    ) -> tuple[PassRun, Rewriting | None]:
        text = pipeline_text([one])
        if self.bisect_limit is not None and number > self.bisect_limit:
            skipped = PassRun(number, text, round_, Promise.BITWISE, (), 0.0, size, size, skipped=True)
            return skipped, None
        if self.watch is not None:
            self.watch(text)
        start = time.perf_counter()
        if is_searched(one):
            one, rewriting = searched(one, graph, original, self.budget, self.calibration)
            text = pipeline_text([one])
        else:
            rewriting = one.rewritten(graph, self.calibration, facts)
        seconds = time.perf_counter() - start
        checks = self._checked(text, graph, rewriting) if rewriting.changed else ()
        run = PassRun(
            number,
            text,
            round_,
            rewriting.promise,
            tuple(rewriting.remarks),
            seconds,
            size,
            GraphSize.of(rewriting.graph) if rewriting.changed else size,
            checks,
            to_text(rewriting.graph)[0] if self.print_after_all else None,
        )
        return run, rewriting

    def _checked(self, text: str, before: SNNGraph, rewriting: Rewriting) -> tuple[Verification, ...]:
        """Runs the network before and after a pass."""
        if found := problems(rewriting.graph):
            raise PassError(f"{text} made a graph that is not valid: {found[0]}. This is a bug of the pass.")
        checks = []
        for trial in self.trials:
            if rewriting.promise is Promise.PROFILED and not trial.is_calibration:
                continue
            runs = self.run_checks, self.run_checks
            check = verify(before, rewriting.graph, trial.inputs, origins=rewriting.origins, told=trial.told, runs=runs)
            if not check.keeps(rewriting.promise):
                raise PassError(self._broken(text, rewriting.promise, check))
            checks.append(check)
        return tuple(checks)

    def _broken(self, text: str, promise: Promise, check: Verification) -> str:
        where = ""
        if self.counterexample is not None and check.counterexample is not None:
            saved = replace(check.counterexample, promise=promise).save(self.counterexample)
            where = f" The counterexample is in {saved}."
        found = check.divergence or f"an output differs by {check.largest:.3g}"
        return f"{text} promises to be {promise}, but on {check.inputs}: {found}.{where}"
