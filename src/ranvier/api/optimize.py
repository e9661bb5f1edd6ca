"""``ranvier.optimize``: passes, data, checks and a report in one call."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import PassError
from ..graph.provenance import Provenance
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..passes.base import Pass
from ..passes.canonicalize import Canonicalize
from ..passes.levels import level_passes
from ..passes.manager import PassManager, without_activity
from ..passes.optimizer_state import OptimizerStateMap, moved_index, optimizer_state_map, own_index, trained_arrays
from ..passes.outcome import pass_results
from ..passes.pipeline import parse_pipeline, pipeline_text
from ..passes.search import AccuracyBudget
from ..report.optimization import OptimizationReport
from ..report.warnings import warnings_of
from ..simulation.profile import profile
from ..simulation.simulate import simulate
from ..verification.calibration import Calibration
from ..verification.inputs import trials_of
from ..verification.verify import verify
from .in_place import optimize_model

BUDGET = 0.01
"""Of O3, unless told otherwise: one percent of accuracy, or of the outputs' root mean square."""
SC_NEUROCORE = {
    "dead_neuron_elimination": "dead-neurons{threshold=0}",
    "redundancy_elimination": "merge-neurons",
    "layer_fusion": "fuse",
    "weight_pruning": "prune{threshold=0.001}",
    "redundant_connection_removal": "connections",
}
"""Names of sc-neurocore's passes, and what they are here."""


def optimize(
    model: Any,
    passes: str | Iterable[str | Pass] | None = None,
    *,
    inputs: Any = None,
    dt: float | None = None,
    level: str = "O2",
    calibration: Any = None,
    labels: Any = None,
    budget: float | None = None,
    verify_each: bool = True,
    counterexample: str | os.PathLike[str] | None = None,
    fixpoint: bool = True,
    print_after_all: bool = False,
    bisect_limit: int | None = None,
    watch: Callable[[str], None] | None = None,
) -> tuple[Any, OptimizationReport]:
    """Makes a copy of a graph or model smaller, and checks that it does the same.

    A brainstate module or step function is raised to a graph, and what comes back is again a module or step function,
    with smaller states and parameters: of populations and projections of the graph, by their names. Its surrogate
    derivatives are the model's own. The report's ``carry`` takes the state of an optimizer along.

    Args:
        model: a valid graph; or a ``brainstate.nn.Module`` with initialised states, or :func:`ranvier.step_function`,
            for one sample.
        passes: a pipeline as text, or passes or their names in order, also sc-neurocore's; None for those of the level.
        inputs: of a module or step function, example inputs of one step: an array, or a tuple where a step takes
            several; by default the first step of the calibration data.
        dt: of the graph that a module or step function is raised to, in seconds; brainstate's by default.
        level: ``"O1"`` bitwise and algebraic passes; ``"O2"`` with profiled ones, where there is calibration data or a
            profile; ``"O3"`` with approximate ones under a budget.
        calibration: inputs as :func:`ranvier.simulate` takes them; the graph is profiled on them.
        labels: class of every sample, for a budget in accuracy.
        budget: what approximate passes whose strength is ``auto`` may cost: loss of accuracy where there are labels,
            else the change of the outputs, root mean square, as a part of their own; 0.01 by default.
        verify_each: whether every pass is checked by running the network before and after.
        counterexample: file for the inputs on which a pass breaks its promise.
        fixpoint: whether to go through the passes until nothing changes.
        print_after_all: keep the text of the graph after every pass, in the report's runs.
        bisect_limit: run only so many passes.
        watch: told what is done next: the text of every pass before it runs.

    Returns:
        The new graph or model, and a report.

    Raises:
        GraphError: the graph is not valid.
        PassError: a pass is not known or set up badly, or broke its promise.
        InputError: the calibration data does not fit.
    """
    _check_numbers(budget, bisect_limit)
    passes = list(passes) if isinstance(passes, Iterable) and not isinstance(passes, str) else passes
    chosen = _passes(passes, level)
    names = _names(passes)

    def run(graph: SNNGraph, data: Any) -> tuple[SNNGraph, OptimizationReport]:
        return _optimized(
            graph,
            chosen,
            names=names,
            calibration=data,
            labels=labels,
            budget=budget,
            verify_each=verify_each,
            counterexample=counterexample,
            fixpoint=fixpoint,
            print_after_all=print_after_all,
            bisect_limit=bisect_limit,
            watch=watch,
        )

    if isinstance(model, SNNGraph):
        check(model)
        graph, report = run(model, calibration)
        return graph, replace(report, find_carry=partial(_carry, model.copy(), graph.copy(), report.origins))
    chosen = [replace(p, biases=False) if isinstance(p, Canonicalize) else p for p in chosen]
    optimized, report, carry = optimize_model(run, model, inputs, dt, calibration)
    return optimized, replace(report, find_carry=carry)


def _carry(before: SNNGraph, after: SNNGraph, origins: Provenance) -> OptimizerStateMap:
    shapes = {name: (value.shape,) for name, value in trained_arrays(before).items()}
    return optimizer_state_map(shapes, own_index(before), moved_index(before, after, origins))


def _optimized(
    graph: SNNGraph,
    chosen: list[Pass],
    *,
    names: Mapping[str, str],
    calibration: Any,
    labels: Any,
    budget: float | None,
    verify_each: bool,
    counterexample: str | os.PathLike[str] | None,
    fixpoint: bool,
    print_after_all: bool,
    bisect_limit: int | None,
    watch: Callable[[str], None] | None,
) -> tuple[SNNGraph, OptimizationReport]:
    """A smaller graph and a report."""
    start, tell = time.perf_counter(), watch or (lambda text: None)
    data = None if calibration is None else Calibration.of(graph, calibration, labels, run=simulate)
    if data is not None:
        tell("measuring activity")
    measured = graph if data is None else profile(graph, data)
    tell("making inputs to check with")
    trials = trials_of(measured, data) if verify_each else []
    manager = PassManager(
        chosen,
        fixpoint=fixpoint,
        trials=trials,
        counterexample=None if counterexample is None else Path(counterexample),
        calibration=data,
        budget=AccuracyBudget(BUDGET if budget is None else budget),
        print_after_all=print_after_all,
        bisect_limit=bisect_limit,
        watch=tell,
        measure=without_activity if data is None else lambda graph: profile(graph, data),
    )
    result = manager.run(measured)
    tell("checking the result")
    runs = manager.run_checks, manager.run_checks
    checks = [verify(measured, result.graph, t.inputs, origins=result.origins, told=t.told, runs=runs) for t in trials]
    accuracy = None
    if data is not None and data.labels is not None:
        accuracy = data.accuracy(graph), data.accuracy(result.graph)
    report = OptimizationReport(
        pass_results=pass_results(result.runs, names),
        params_before=graph.total_params,
        params_after=result.graph.total_params,
        neurons_before=graph.total_neurons,
        neurons_after=result.graph.total_neurons,
        original=graph,
        optimized=result.graph,
        pipeline=pipeline_text(chosen),
        runs=result.runs,
        origins=result.origins,
        checks=tuple(checks),
        accuracy=accuracy,
        data=None if data is None else data.fingerprint,
        seconds=time.perf_counter() - start,
        settled=result.settled,
        warnings=warnings_of(measured, result.graph, data),
    )
    return result.graph, report


def _check_numbers(budget: float | None, bisect_limit: int | None) -> None:
    if budget is not None and not (isinstance(budget, (int, float)) and 0 <= budget < math.inf):
        raise PassError(f"budget={budget!r}: a part from 0 on is expected, 0.01 for one percent.")
    if bisect_limit is not None and not (isinstance(bisect_limit, int) and bisect_limit >= 0):
        raise PassError(f"bisect_limit={bisect_limit!r}: a number of passes from 0 on is expected.")


def _names(passes: str | Iterable[str | Pass] | None) -> dict[str, str]:
    """What results are to be called whose passes were asked for by sc-neurocore's names."""
    asked = [] if passes is None or isinstance(passes, str) else passes
    return {SC_NEUROCORE[one].split("{")[0]: one for one in asked if isinstance(one, str) and one in SC_NEUROCORE}


def _passes(passes: str | Iterable[str | Pass] | None, level: str) -> list[Pass]:
    if passes is None:
        return level_passes(level)
    if isinstance(passes, str):
        return parse_pipeline(passes)
    if not isinstance(passes, Iterable):
        raise PassError(f"passes={passes!r}: a pipeline as text or a list of passes is expected.")
    found = []
    for one in passes:
        if not isinstance(one, (str, Pass)):
            raise PassError(f"{one!r} is no pass; give a pass or its name, as in passes=['dead-neurons', 'fuse'].")
        found += [one] if isinstance(one, Pass) else parse_pipeline(SC_NEUROCORE.get(one, one))
    return found
