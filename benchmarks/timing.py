"""Timing: medians after a warm-up, with the garbage collector out of the timed part."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

REPEATS = 5
SLOW_REPEATS = 3
SLOW_SECONDS = 20.0
"""A run that takes longer than this is repeated ``SLOW_REPEATS`` times."""
ONCE_SECONDS = 60.0
"""A run that takes longer than this is the only one."""

Stage = Callable[[Any], Any]
"""Takes the result of the stage before, gives that of this one."""


@contextmanager
def collected() -> Iterator[None]:
    """Collects garbage first and holds the collector off inside, as :mod:`timeit` does."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def run_time(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    with collected():
        start = time.perf_counter()
        function()
        return time.perf_counter() - start


def median_time(function: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median seconds of a call, after one call that is not counted."""
    function()
    return statistics.median(run_time(function) for _ in range(repeats))


@dataclass(frozen=True)
class Contender:
    """Stages to time, one after the other.

    Attributes:
        build: makes the subject of one run, so that nothing kept by object is found again; not timed.
        stages: names and functions, each applied to the result of the one before, the first to the subject.
    """

    build: Callable[[], Any]
    stages: Sequence[tuple[str, Stage]]

    def run(self, clear: bool = False) -> dict[str, float]:
        """Seconds of each stage in one run, and their ``"total"``.

        Args:
            clear: whether JAX forgets all traced and compiled functions first, as in a new process.
        """
        if clear:
            jax.clear_caches()
        value = self.build()
        found: dict[str, float] = {}
        with collected():
            for name, stage in self.stages:
                start = time.perf_counter()
                value = stage(value)
                found[name] = time.perf_counter() - start
        return {**found, "total": sum(found.values())}


def median_stages(
    contenders: Sequence[Contender], first: Sequence[dict[str, float]], *, repeats: int = REPEATS, clear: bool = False
) -> list[dict[str, float]]:
    """Median seconds of the stages of every contender; their runs take turns, so that all see the same machine.

    Args:
        contenders: what to time.
        first: the seconds of a run of each, made before as a warm-up and not counted.
        repeats: runs to take the median of; no more than ``SLOW_REPEATS`` where a run is slow, none besides the
            first where it is very slow.
        clear: see :meth:`Contender.run`.
    """
    counts = [_run_count(warm["total"], repeats) for warm in first]
    runs: list[list[dict[str, float]]] = [[] for _ in contenders]
    for turn in range(max(counts)):
        for contender, count, found in zip(contenders, counts, runs, strict=True):
            if turn < count:
                found.append(contender.run(clear))
    counted = [found or [warm] for found, warm in zip(runs, first, strict=True)]
    return [{name: statistics.median(run[name] for run in found) for name in found[0]} for found in counted]


def _run_count(seconds: float, repeats: int) -> int:
    if seconds > ONCE_SECONDS:
        return 0
    return min(repeats, SLOW_REPEATS) if seconds > SLOW_SECONDS else repeats


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent p of the best fit ``seconds = c * sizes ** p``; 1 is linear growth."""
    slope, _ = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope)


def seconds_text(seconds: float) -> str:
    """Three digits with a fitting unit."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
