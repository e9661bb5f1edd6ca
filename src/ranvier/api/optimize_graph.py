"""Optimization of a graph in five steps: measure, make trials, run the passes, check the whole, report.

For example, 15 neurons of which one is a duplicate and three do nothing:

    measured    15 neurons, with the rates that they have on the calibration data
    trials      random inputs, inputs that bring neurons close to their threshold, the calibration data
    result      11 neurons, after three rounds of passes, each of them checked on the trials
    checks      15 neurons against 11 on every trial: even if every pass is right, all of them together may not be,
                because promises allow rounding errors, and these add up
    report      15 -> 11 neurons, with the promise of the weakest change
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..errors import InputError
from ..frontends.step_function import StepFunction
from ..graph.analysis.operation_counts import OperationCounts
from ..graph.provenance import Provenance
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..passes.gradual import Training
from ..passes.manager import PassManager, Result, without_activity
from ..passes.optimizer_state import OptimizerStateMap, moved_index, optimizer_state_map, own_index, trained_arrays
from ..passes.options import OptimizeOptions
from ..passes.outcome import pass_results
from ..report.optimization import OptimizationReport
from ..report.warnings import warnings_of
from ..simulation.count_operations import count_operations
from ..simulation.lower import lower
from ..simulation.profile import profile
from ..simulation.simulate import simulate
from ..simulation.timing import time_simulations
from ..verification.calibration import Calibration
from ..verification.inputs import Trial, trials_of
from ..verification.judge import Judge
from ..verification.metric import Metric
from ..verification.verify import Verification, verify
from .chosen_passes import ChosenPasses
from .finetune import Finetune

AsModel = Callable[[SNNGraph], StepFunction]
"""Makes a model of a graph."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs as a user passes them, with what belongs to them.

    Attributes:
        inputs: over time, or a :class:`ranvier.Calibration`.
        labels: class of every sample, or targets; None for none.
        mask: weights of the steps; None if all count the same.
    """

    inputs: Any
    labels: Any = None
    mask: Any = None

    @classmethod
    def of(cls, data: Any, labels: Any = None, mask: Any = None, *, pairs: bool = False) -> Samples | None:
        """From inputs, a batch with the attributes ``xs``, ``ys`` and perhaps ``mask``, or, with ``pairs``, a tuple
        ``(xs, ys)`` or ``(xs, ys, mask)``; None if there is no data."""
        if data is None:
            return None
        if hasattr(data, "xs") and hasattr(data, "ys"):
            data = data.xs, data.ys, getattr(data, "mask", None)
            pairs = True
        if pairs and isinstance(data, tuple) and len(data) in (2, 3):
            inputs, ys, weights = (*data, None)[:3]
            return cls(inputs, ys if labels is None else labels, weights if mask is None else mask)
        return cls(data, labels, mask)

    def of_graph(self, graph: SNNGraph, metric: Metric | None) -> Calibration:
        """In the form that passes take."""
        return Calibration.of(graph, self.inputs, self.labels, simulate, metric=metric, mask=self.mask)


@dataclass(frozen=True, eq=False)
class Data:
    """Data as a user passes it.

    Attributes:
        calibration: what passes see; None for no data.
        validation: what judges losses; None to divide the calibration data.
        metric: of outputs and labels; None for the accuracy.
        finetune: how to train between the stages of pruning; None for no stages.
    """

    calibration: Samples | None = None
    validation: Samples | None = None
    metric: Metric | None = None
    finetune: Finetune | None = None

    @classmethod
    def of(
        cls,
        calibration: Any,
        labels: Any = None,
        metric: Metric | None = None,
        mask: Any = None,
        validation: Any = None,
        finetune: Finetune | None = None,
    ) -> Data:
        """From the keywords of :func:`ranvier.optimize`.

        Raises:
            InputError: there is validation data, but no calibration data.
        """
        fitting = Samples.of(calibration, labels, mask)
        if fitting is None and validation is not None:
            raise InputError("validation= judges passes that fit weights on calibration=; pass that, too.")
        answers = fitting is not None and (fitting.labels is not None or metric is not None)
        judging = Samples.of(validation, mask=None if fitting is None else fitting.mask, pairs=answers)
        return cls(fitting, judging, metric, finetune)

    def fitting(self, graph: SNNGraph) -> Calibration | None:
        """The calibration data of a graph."""
        return None if self.calibration is None else self.calibration.of_graph(graph, self.metric)

    def judging(self, graph: SNNGraph) -> Calibration | None:
        """The validation data of a graph, if it is given."""
        return None if self.validation is None else self.validation.of_graph(graph, self.metric)


@dataclass(frozen=True, eq=False)
class Measured:
    """A graph and its activity on the calibration data.

    Attributes:
        graph: the original.
        profiled: the same graph with the activity of every population, if there is data.
        data: the calibration data that passes fit weights on; None if there is none.
        judge: measures losses on other data; None if there is none, or nothing to judge.
    """

    graph: SNNGraph
    profiled: SNNGraph
    data: Calibration | None
    judge: Judge | None


def optimize_graph(
    graph: SNNGraph, chosen: ChosenPasses, data: Data, options: OptimizeOptions
) -> tuple[SNNGraph, OptimizationReport]:
    """:func:`ranvier.optimize` of a graph.

    Raises:
        GraphError: the graph is not valid.
    """
    check(graph)
    optimized, report = shrink(graph, chosen, data, options)
    # The caller may edit both graphs before asking for the carry, which needs them as they are now.
    return optimized, replace(report, find_carry=partial(_carry, graph.copy(), optimized.copy(), report.origins))


def shrink(
    graph: SNNGraph, chosen: ChosenPasses, data: Data, options: OptimizeOptions, as_model: AsModel = lower
) -> tuple[SNNGraph, OptimizationReport]:
    """A smaller graph, and a report that does not know the parameters yet.

    Args:
        graph: the original.
        chosen: the passes.
        data: to measure on.
        options: how the passes run.
        as_model: a graph as the model that fine-tuning trains.
    """
    start = time.perf_counter()
    measured = measure(graph, chosen, data, options)
    trials = make_trials(measured, options)
    training = staged_training(data.finetune, as_model)
    manager = pass_manager(measured, trials, chosen, options, training)
    result = manager.run(measured.profiled)
    options.on_progress("checking the result")
    checks = check_whole(measured, result, trials, manager)
    report = make_report(measured, chosen, result, checks)
    return result.graph, replace(report, seconds=time.perf_counter() - start)


def staged_training(finetune: Finetune | None, as_model: AsModel) -> Training | None:
    """What trains between the stages of pruning; None if nothing does."""
    if finetune is None:
        return None
    # Learning takes a while to import, and most optimizations do without.
    from .staged_training import FineTuning

    return FineTuning(finetune, as_model)


def measure(graph: SNNGraph, chosen: ChosenPasses, data: Data, options: OptimizeOptions) -> Measured:
    """Divides the data, and runs the graph on the part that passes see: profiled passes and searches need to know who
    fires."""
    fitting, judging = data.fitting(graph), data.judging(graph)
    if fitting is None:
        return Measured(graph, graph, None, None)
    if judging is not None and judging.labels is None and fitting.labels is not None:
        raise InputError(
            "validation has no labels, and the calibration data has; pass validation=(inputs, labels), or a mapping "
            "with an entry 'labels'."
        )
    # Nothing is judged where passes are exact, or where the user has chosen their strength and no score can drop.
    judged = chosen.searched or (chosen.approximate and fitting.scored)
    if judging is None and judged and fitting.samples > 1:
        fitting, judging = fitting.halves()
    options.on_progress("measuring activity")
    judge = None if judging is None else Judge(graph, judging, options.limit, options.confidence)
    return Measured(graph, profile(graph, fitting), fitting, judge)


def make_trials(measured: Measured, options: OptimizeOptions) -> list[Trial]:
    """The inputs on which every pass is checked. They are made once, from the graph before all passes: inputs made from
    a wrong graph could hide what is wrong with it."""
    options.on_progress("making inputs to check with")
    return trials_of(measured.profiled, measured.data) if options.verify_each else []


def pass_manager(
    measured: Measured,
    trials: list[Trial],
    chosen: ChosenPasses,
    options: OptimizeOptions,
    training: Training | None,
) -> PassManager:
    """The manager that runs the passes and checks each of them."""
    data = measured.data
    # Without data, rates measured before an approximate change say nothing of the network after it.
    again = without_activity if data is None else lambda graph: profile(graph, data)
    return PassManager(chosen.passes, options, trials, data, measured.judge, training, measure=again)


def check_whole(
    measured: Measured, result: Result, trials: list[Trial], manager: PassManager
) -> tuple[Verification, ...]:
    """Compares the original with the result on every trial."""
    # The manager's cache has the simulations of the original already, from the check of the first pass.
    runs = manager.run_checks, manager.run_checks
    return tuple(
        verify(
            measured.profiled,
            result.graph,
            trial.inputs,
            origins=result.origins,
            description=trial.description,
            runs=runs,
        )
        for trial in trials
    )


def make_report(
    measured: Measured, chosen: ChosenPasses, result: Result, checks: tuple[Verification, ...]
) -> OptimizationReport:
    """The report: what was done, and what checks and data say about it."""
    before, after, data = measured.graph, result.graph, measured.data
    judgement = None if measured.judge is None else measured.judge.judge(after)
    accuracy = None
    if judgement is not None and judgement.before is not None and judgement.after is not None:
        accuracy = judgement.before, judgement.after
    elif judgement is None and data is not None and data.scored:
        accuracy = data.accuracy(before), data.accuracy(after)
    return OptimizationReport(
        pass_results=pass_results(result.runs, chosen.result_names),
        params_before=before.total_params,
        params_after=after.total_params,
        neurons_before=before.total_neurons,
        neurons_after=after.total_neurons,
        original=before,
        optimized=after,
        pipeline=str(chosen),
        runs=result.runs,
        origins=result.origins,
        checks=checks,
        accuracy=accuracy,
        judgement=judgement,
        data=None if data is None else data.fingerprint,
        settled=result.settled,
        warnings=warnings_of(measured.profiled, after, data),
        find_counts=None if data is None else partial(_counts, before.copy(), after.copy(), data),
        find_timings=partial(time_simulations, before.copy(), after.copy(), data),
    )


def _counts(before: SNNGraph, after: SNNGraph, data: Calibration) -> tuple[OperationCounts, OperationCounts]:
    return count_operations(before, data), count_operations(after, data)


def _carry(before: SNNGraph, after: SNNGraph, origins: Provenance) -> OptimizerStateMap:
    shapes = {name: (value.shape,) for name, value in trained_arrays(before).items()}
    return optimizer_state_map(shapes, own_index(before), moved_index(before, after, origins))
