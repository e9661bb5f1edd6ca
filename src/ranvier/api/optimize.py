"""``ranvier.optimize``: passes, data, checks and a report in one call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from ..frontends.step_function import StepFunction
from ..graph.snn_graph import SNNGraph
from ..passes.options import CONFIDENCE, OptimizeOptions, silent
from ..program.program import ModuleInfo
from ..report.optimization import OptimizationReport
from ..verification.metric import Metric
from .chosen_passes import Passes, chosen_passes
from .finetune import Finetune, check_finetune
from .optimize_graph import Data, optimize_graph
from .optimize_model import optimize_model

if TYPE_CHECKING:
    from ..frontends.step_module import Module, StepModule


class OptimizeKeywords(TypedDict, total=False):
    """The keywords of :func:`optimize`, for its overloads."""

    inputs: Any
    dt: float | None
    level: str
    goal: str | None
    calibration: Any
    labels: Any
    metric: Metric | None
    mask: Any
    validation: Any
    finetune: Finetune | None
    budget: float | None
    confidence: float
    verify_each: bool
    counterexample: str | os.PathLike[str] | None
    fixpoint: bool
    print_after_all: bool
    bisect_limit: int | None
    watch: Callable[[str], None] | None


@overload
def optimize(
    model: SNNGraph, passes: Passes = None, **keywords: Unpack[OptimizeKeywords]
) -> tuple[SNNGraph, OptimizationReport]: ...
@overload
def optimize(
    model: StepFunction | ModuleInfo, passes: Passes = None, **keywords: Unpack[OptimizeKeywords]
) -> tuple[StepFunction, OptimizationReport]: ...
@overload
def optimize(
    model: Module, passes: Passes = None, **keywords: Unpack[OptimizeKeywords]
) -> tuple[StepModule, OptimizationReport]: ...
def optimize(
    model: Any,
    passes: Passes = None,
    *,
    inputs: Any = None,
    dt: float | None = None,
    level: str = "O2",
    goal: str | None = None,
    calibration: Any = None,
    labels: Any = None,
    metric: Metric | None = None,
    mask: Any = None,
    validation: Any = None,
    finetune: Finetune | None = None,
    budget: float | None = None,
    confidence: float = CONFIDENCE,
    verify_each: bool = True,
    counterexample: str | os.PathLike[str] | None = None,
    fixpoint: bool = True,
    print_after_all: bool = False,
    bisect_limit: int | None = None,
    watch: Callable[[str], None] | None = None,
) -> tuple[Any, OptimizationReport]:
    """Makes a smaller copy of a graph or model, and checks that it behaves the same.

    A brainstate module or step function is raised to a graph. The result is again a module or step function, with
    smaller states and parameters, which have the names of populations and projections of the graph. Its surrogate
    derivatives are those of the model. The report's ``carry`` converts the state of an optimizer.

    Args:
        model: a valid graph; or a ``brainstate.nn.Module`` with initialized states, or :func:`ranvier.step_function`,
            for one sample.
        passes: a pipeline as text, or passes or their names in order, including sc-neurocore's names; None for the
            passes of the level.
        inputs: for a module or step function, example inputs of one step: an array, or a tuple if a step takes several;
            by default the first step of the calibration data.
        dt: for a module or step function, the time step of its graph in seconds; by default brainstate's.
        level: ``"O1"`` for bitwise and algebraic passes; ``"O2"`` also for profiled ones, if there is calibration data
            or a profile; ``"O3"`` also for approximate ones within a budget.
        goal: what O3 spends the budget on: ``"time"`` removes whole neurons and channels, which makes products smaller;
            ``"size"``, the default, single weights; ``"synops"`` weights by their synaptic operations, the spikes that
            they pass on, which event-driven hardware counts.
        calibration: inputs as :func:`ranvier.simulate` takes them, or a batch with the attributes ``xs``, ``ys`` and
            ``mask``. The network is profiled on them, and approximate passes fit weights on them.
        labels: class of every sample, integers ``[samples]``, or of every step, ``[T, samples]``; other targets,
            ``[T, samples, ...]``, need a metric.
        metric: ``metric(outputs, labels, mask) -> number``, larger for better outputs, as for :func:`ranvier.fit`:
            outputs as a step returns them, time first. By default the accuracy: of the largest sum over steps for one
            label per sample, of every step for one per step.
        mask: weights of the steps, ``[T]``, such as 0 before an answer is asked for.
        validation: data that judges what approximate passes cost: inputs or a batch as for ``calibration``, with labels
            if that has them, ``(inputs, labels)``. By default half of the calibration samples, which then fit nothing.
        finetune: how to train the network between the stages of ``prune``, with removed weights held at zero; see
            :class:`ranvier.Finetune`. With ``sparsity=auto``, each stage is judged after its training.
        budget: what approximate passes whose strength is ``auto`` may cost: a drop of the metric if there are labels or
            a metric, else the root mean square of the change of the outputs relative to that of the outputs; by default
            0.01. A change is accepted only if an upper bound of its cost on unseen data is within the budget.
        confidence: of that bound, which is made from the validation samples (paired bootstrap).
        verify_each: whether every pass is checked by running the network before and after.
        counterexample: file to write if a pass breaks its promise, with the inputs on which it does.
        fixpoint: whether to repeat the passes until nothing changes.
        print_after_all: whether the report's runs have the text of the graph after every pass.
        bisect_limit: run only this many passes.
        watch: called with what is done next, such as the text of a pass before it runs.

    Returns:
        The new graph or model, and a report.

    Raises:
        GraphError: the graph is not valid.
        PassError: a pass is not known, has a wrong option, or broke its promise.
        InputError: the calibration data does not fit.
        ModelError: the model cannot be traced.
    """
    options = OptimizeOptions(
        budget=budget,
        confidence=confidence,
        verify_each=verify_each,
        counterexample=counterexample,
        fixpoint=fixpoint,
        print_after_all=print_after_all,
        bisect_limit=bisect_limit,
        on_progress=watch or silent,
    ).checked()
    chosen = chosen_passes(passes, level, goal)
    if finetune is not None:
        check_finetune(finetune, chosen.gradual)
    data = Data.of(calibration, labels, metric, mask, validation, finetune)
    if isinstance(model, SNNGraph):
        return optimize_graph(model, chosen, data, options)
    return optimize_model(model, inputs, dt, chosen, data, options)
