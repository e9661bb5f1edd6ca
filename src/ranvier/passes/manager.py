"""The pass manager: passes in order, again and again until nothing changes, each checked by running the network.

Results of analyses are kept from pass to pass until one changes the graph.

For example, ``merge-neurons,dead-neurons`` on readouts that differ only in what they get from a silent neuron:

    round 1   merge-neurons   no two of 5 readouts are alike
              dead-neurons    the silent neuron goes, so both passes may have work again
    round 2   merge-neurons   two readouts are alike now; 4 are left
              dead-neurons    nothing to do
    round 3   neither is run: nothing has changed since its own last run, so the pipeline has settled
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..errors import PassError
from ..graph.printer import to_text
from ..graph.provenance import Provenance
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import problems
from ..verification.calibration import Calibration
from ..verification.inputs import Trial
from ..verification.judge import Judge
from ..verification.promise import Promise
from ..verification.runs import RunCache
from ..verification.ties import Run
from ..verification.verify import Verification, verify
from .base import Facts, Pass, Remark, Rewriting
from .gradual import StagedPruning, Training
from .options import OptimizeOptions
from .pipeline import pipeline_text
from .prune import Prune
from .search import Search, is_searched, needs_data, needs_samples


def without_activity(graph: SNNGraph) -> SNNGraph:
    """A copy without measured activity."""
    copy = graph.copy()
    copy.populations = {name: p.replace(activity=None) for name, p in graph.populations.items()}
    return copy


ROUNDS = 10
"""A pipeline is run at most so often; passes that undo each other would go on for ever."""


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
        printed: the graph afterward, if asked for.
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


@dataclass(frozen=True, eq=False)
class _Current:
    """The graph as the passes have left it so far.

    Attributes:
        graph: a copy of its own once a pass has changed it.
        size: of it.
        origins: where the neurons of the original are in it.
        facts: what analyses found in it.
    """

    graph: SNNGraph
    size: GraphSize
    origins: Provenance
    facts: Facts

    @classmethod
    def start(cls, graph: SNNGraph) -> _Current:
        return cls(graph, GraphSize.of(graph), Provenance.of(graph), {})

    def after(self, rewriting: Rewriting, size: GraphSize) -> _Current:
        """What a pass left; results of analyses that it did not touch stay."""
        if not rewriting.changed:
            return replace(self, facts=rewriting.facts)
        return _Current(rewriting.graph, size, self.origins.then(rewriting.origins), rewriting.facts)


@dataclass(frozen=True)
class PassManager:
    """Runs passes in order, and checks them.

    Attributes:
        passes: in order.
        options: how they are run; see :class:`ranvier.OptimizeOptions`.
        trials: inputs on which every pass that changed something is checked; none for no checks.
        calibration: data for passes that measure.
        judge: measures what a searched value costs; None if there is no data for it.
        training: trains between the stages of pruning; None for no stages.
        run_checks: runs the graphs that are compared.
        measure: gives a graph the activity that it has after an approximate pass; by default none.
    """

    passes: Sequence[Pass]
    options: OptimizeOptions = field(default_factory=OptimizeOptions)
    trials: Sequence[Trial] = ()
    calibration: Calibration | None = None
    judge: Judge | None = None
    training: Training | None = None
    run_checks: Run = field(default_factory=RunCache)
    measure: Callable[[SNNGraph], SNNGraph] = without_activity

    def run(self, graph: SNNGraph) -> Result:
        """Runs the pipeline on a copy of a graph.

        Raises:
            PassError: a pass broke its promise, or made a graph that is not valid.
        """
        current, runs = _Current.start(graph), list[PassRun]()
        # A pass does all it can at once, so it is run again only after another one has changed the graph.
        exhausted: set[int] = set()
        changed = False
        for round_ in range(1, ROUNDS + 1 if self.options.fixpoint else 2):
            changed = False
            for one in self._passes_of(round_):
                if id(one) in exhausted:
                    continue
                current, run = self._step(one, round_, len(runs) + 1, current)
                runs.append(run)
                exhausted = {id(one)} if run.changed else exhausted | {id(one)}
                changed = changed or run.changed
            if not changed:
                break
        optimized = graph.copy() if current.graph is graph else current.graph
        settled = not (self.options.fixpoint and changed)
        return Result(optimized, current.origins, tuple(runs), settled)

    def _passes_of(self, round_: int) -> list[Pass]:
        """The passes of a round. A searched option has used up its budget in the first one: a second search would
        spend it again.
        """
        return [one for one in self.passes if round_ == 1 or not (one.once or is_searched(one))]

    def _step(self, one: Pass, round_: int, number: int, before: _Current) -> tuple[_Current, PassRun]:
        """Runs one pass and checks it: what is there after it, and the record."""
        run = PassRun(number, pipeline_text([one]), round_, Promise.BITWISE, (), 0.0, before.size, before.size)
        if self.options.bisect_limit is not None and number > self.options.bisect_limit:
            return before, replace(run, skipped=True)
        self.options.on_progress(run.text)
        start = time.perf_counter()
        text, rewriting = self._rewritten(one, before)
        seconds = time.perf_counter() - start
        checks = self._checked(text, before.graph, rewriting) if rewriting.changed else ()
        size = GraphSize.of(rewriting.graph) if rewriting.changed else before.size
        run = replace(
            run,
            text=text,
            promise=rewriting.promise,
            remarks=tuple(rewriting.remarks),
            seconds=seconds,
            after=size,
            checks=checks,
            printed=to_text(rewriting.graph)[0] if self.options.print_after_all else None,
        )
        after = before.after(rewriting, size)
        if run.changed and run.promise is Promise.APPROXIMATE:
            # Neurons fire otherwise now; a profiled pass that trusted the old rates would remove living ones.
            after = replace(after, graph=self.measure(after.graph), facts={})
        return after, run

    def _rewritten(self, one: Pass, before: _Current) -> tuple[str, Rewriting]:
        """The pass as text, with the values that a search chose, and what it made of the graph."""
        if self.training is not None and isinstance(one, Prune) and one.sparsity is not None:
            return self._in_stages(one, before.graph, self.training)
        if not is_searched(one):
            return pipeline_text([one]), one.rewritten(before.graph, self.calibration, before.facts)
        if self.calibration is None:
            raise needs_data(one)
        if self.judge is None:
            chosen, rewriting = needs_samples(one, before.graph, self.calibration)
        else:
            search = Search(self.calibration, self.judge, self.options.on_progress)
            chosen, rewriting = search.best(one, before.graph)
        return pipeline_text([chosen]), rewriting

    def _in_stages(self, one: Prune, graph: SNNGraph, training: Training) -> tuple[str, Rewriting]:
        """The same for pruning with training in between."""

        def staged(one: Prune) -> StagedPruning:
            return StagedPruning(one, graph, self.calibration, training, self.options.on_progress)

        if not is_searched(one):
            return pipeline_text([one]), staged(one).to(one.sparsity)
        if self.judge is None or self.calibration is None:
            raise needs_data(one)
        if training.stages > 1:
            chosen, rewriting = staged(one).as_far_as(self.judge)
        else:
            # Nothing to go on from: each value starts anew, as in a search without training.
            search = Search(
                self.calibration, self.judge, self.options.on_progress, lambda one: staged(one).to(one.sparsity)
            )
            chosen, rewriting = search.best(one, graph)
        return pipeline_text([chosen]), rewriting

    def _checked(self, text: str, before: SNNGraph, rewriting: Rewriting) -> tuple[Verification, ...]:
        """Runs the network before and after a pass."""
        if wrong := problems(rewriting.graph):
            raise PassError(f"{text} made a graph that is not valid: {wrong[0]}. This is a bug of the pass.")
        runs = self.run_checks, self.run_checks
        checks = []
        for trial in self.trials:
            # A profiled change promises nothing on other inputs than those it was profiled on.
            if rewriting.promise is Promise.PROFILED and not trial.is_calibration:
                continue
            check = verify(
                before,
                rewriting.graph,
                trial.inputs,
                origins=rewriting.origins,
                description=trial.description,
                runs=runs,
            )
            if not check.keeps(rewriting.promise):
                raise PassError(self._broken(text, rewriting.promise, check))
            checks.append(check)
        return tuple(checks)

    def _broken(self, text: str, promise: Promise, check: Verification) -> str:
        where = ""
        if self.options.counterexample is not None and check.counterexample is not None:
            saved = replace(check.counterexample, promise=promise).save(self.options.counterexample)
            where = f" The counterexample is in {saved}."
        difference = check.divergence or f"an output differs by {check.largest:.3g}"
        return f"{text} promises to be {promise}, but on {check.inputs}: {difference}.{where}"
