"""The command ``ranvier verify``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..errors import GraphError
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration
from ..verification.inputs import Trial, trials_of
from ..verification.promise import Promise
from ..verification.verify import Verification, check_interface, replay, verify
from .console import print_plain
from .graph_file import check_target, with_range
from .progress import steps_shown


def run_replay(console: Console, path: Path, promise: str | None) -> bool:
    """Runs a counterexample again and prints the result. Returns whether the promise holds: the one passed, or the one
    that was broken."""
    result = replay(path)
    wanted = None if promise is None else _promise(promise)
    if wanted is None and result.counterexample is not None:
        wanted = result.counterexample.promise
    return _print(console, result, Promise.ALGEBRAIC if wanted is None else wanted)


def run_verify(
    console: Console,
    original: SNNGraph,
    optimized: SNNGraph,
    *,
    inputs: Path | None,
    promise: str | None,
    seed: int,
    counterexample: Path | None,
    input_range: tuple[float, float] | None,
) -> bool:
    """Runs two graphs side by side and prints what differs. Returns whether the promise holds."""
    wanted = Promise.ALGEBRAIC if promise is None else _promise(promise)
    check_interface(original, optimized)
    if counterexample is not None:
        check_target(counterexample)
    if input_range is not None:
        original = with_range(original, *input_range)
    holds, tested = True, False
    with steps_shown(console) as show:
        show("generating inputs")
        if inputs is None:
            trials = trials_of(_with_common_ranges(original, optimized), seed=seed)
        else:
            trials = [Trial(str(inputs), Calibration.load(inputs, original).inputs, True)]
        results = []
        for trial in trials:
            show(f"running both on {trial.description}")
            results.append(verify(original, optimized, trial.inputs, description=trial.description))
    for result in results:
        if not _print(console, result, wanted):
            holds = False
            if counterexample is not None and result.counterexample is not None:
                print_plain(console, f"counterexample written to {result.counterexample.save(counterexample)}")
                counterexample = None
        tested = tested or not set(original.outputs) <= set(result.untested)
    if not tested:
        print_plain(
            console, "every output stayed at zero, so this says nothing about the graphs; pass --inputs data.npz"
        )
    return holds


def _with_common_ranges(original: SNNGraph, optimized: SNNGraph) -> SNNGraph:
    """The original with the narrower of both ranges for every input: the optimized graph may rely on its range."""
    copy = original.copy()
    for name, node in original.inputs.items():
        other = optimized.inputs[name]
        low = max((x for x in (node.low, other.low) if x is not None), default=None)
        high = min((x for x in (node.high, other.high) if x is not None), default=None)
        copy.inputs[name] = replace(node, low=low, high=high)
    return copy


def _promise(text: str) -> Promise:
    known = {str(promise): promise for promise in Promise}
    if text not in known:
        raise GraphError(f"there is no promise {text!r}; choose one of {', '.join(known)}.")
    return known[text]


def _print(console: Console, result: Verification, promise: Promise) -> bool:
    print_plain(console, str(result))
    holds = result.keeps(promise)
    if not holds:
        print_plain(console, f"  this is not {promise}")
    return holds
