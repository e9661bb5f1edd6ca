"""The time that two networks take for the same inputs on this machine."""

# An example: runs of 11, 30 and 12 ms before and 5, 6 and 6 ms after have the medians 12 and 6 ms: twice as fast. The
# runs alternate, so that a machine that is busy for a while slows down both networks.

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from ..errors import InputError
from ..graph.snn_graph import SNNGraph
from ..report.timings import Timing, Timings
from ..verification.calibration import Calibration
from .simulate import Simulator

SEED = 0


def time_simulations(
    before: SNNGraph,
    after: SNNGraph,
    data: Calibration | None,
    batch_sizes: Sequence[int],
    steps: int | None = None,
    repeats: int = 9,
) -> Timings:
    """Times the simulation of two graphs with the same inputs.

    Args:
        before, after: the graphs.
        data: inputs, of which samples are taken again if there are too few; None for random values in the declared
            range.
        batch_sizes: numbers of samples.
        steps: of each sample; None for those of the data, or 100.
        repeats: runs of each graph, which are compiled before.

    Raises:
        InputError: a number is not a positive whole number.
    """
    numbers = [*batch_sizes, repeats, *([] if steps is None else [steps])]
    if not all(isinstance(number, (int, np.integer)) and number > 0 for number in numbers) or not batch_sizes:
        raise InputError(f"batch_sizes={batch_sizes!r}, steps={steps!r}, repeats={repeats!r}: pass positive integers.")
    runs = Simulator(before), Simulator(after)
    rows = []
    for samples in batch_sizes:
        inputs = _inputs(before, data, int(samples), steps)
        taken = len(next(iter(inputs.values())))
        seconds = _medians(runs, inputs, repeats)
        rows.append(Timing(int(samples), taken, *seconds))
    return Timings(tuple(rows), repeats)


def _medians(runs: tuple[Simulator, Simulator], inputs: Mapping[str, np.ndarray], repeats: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 1):
        for run, seconds in zip(runs, times, strict=True):
            start = time.perf_counter()
            run(inputs)
            # The first run compiles.
            if number:
                seconds.append(time.perf_counter() - start)
    return median(times[0]), median(times[1])


def _inputs(graph: SNNGraph, data: Calibration | None, samples: int, steps: int | None) -> dict[str, np.ndarray]:
    if data is not None:
        chosen, at = np.arange(samples) % data.samples, np.arange(steps or data.steps) % data.steps
        return {name: values[at][:, chosen].astype(np.float32) for name, values in data.inputs.items()}
    rng = np.random.default_rng(SEED)
    inputs = {}
    for name, node in graph.inputs.items():
        low, high = (0.0 if node.low is None else node.low), (1.0 if node.high is None else node.high)
        inputs[name] = rng.uniform(low, max(low, high), (steps or 100, samples, *node.shape)).astype(np.float32)
    return inputs
