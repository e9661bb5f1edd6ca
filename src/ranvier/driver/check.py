"""The job behind ``ranvier verify``."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..errors import GraphError
from ..ir.graph.snn_graph import SNNGraph
from ..validation.calibration import Calibration
from ..validation.inputs import Trial, trials_of
from ..validation.promise import Promise
from ..validation.verify import Verification, replay, verify
from .show import print_plain


def run_replay(console: Console, path: Path) -> bool:
    """Runs a counterexample again and prints what comes out; whether the graphs do the same on it."""
    return _print(console, replay(path), Promise.ALGEBRAIC)


def run_verify(
    console: Console,
    original: SNNGraph,
    optimized: SNNGraph,
    *,
    inputs: Path | None,
    promise: str,
    seed: int,
    counterexample: Path | None,
) -> bool:
    """Runs two graphs side by side and prints what differs; whether the promise is kept."""
    wanted = _promise(promise)
    if inputs is None:
        trials = trials_of(original, seed=seed)
    else:
        trials = [Trial(str(inputs), Calibration.load(inputs, original).inputs, True)]
    kept = True
    for trial in trials:
        found = verify(original, optimized, trial.inputs, told=trial.told)
        if not _print(console, found, wanted):
            kept = False
            if counterexample is not None and found.counterexample is not None:
                print_plain(console, f"counterexample written to {found.counterexample.save(counterexample)}")
                counterexample = None
    return kept


def _promise(text: str) -> Promise:
    known = {str(promise): promise for promise in Promise}
    if text not in known:
        raise GraphError(f"there is no promise {text!r}; there are {', '.join(known)}.")
    return known[text]


def _print(console: Console, found: Verification, promise: Promise) -> bool:
    print_plain(console, str(found))
    kept = found.keeps(promise)
    if not kept:
        print_plain(console, f"  that is not {promise}")
    return kept
