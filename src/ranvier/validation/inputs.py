"""Inputs to compare graphs on: random ones, and such that bring neurons close to their threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.graph.elements import Input
from ..ir.graph.interpreter import Interpreter
from ..ir.graph.snn_graph import SNNGraph
from .calibration import Calibration
from .difference import spiking

SYNAPSE_STEPS = 4e8
"""Synapses times steps times samples that a check may take."""
STEPS, SAMPLES = 50, 8
BISECTIONS = 30
STRONGER = 6
"""How often inputs are made four times as strong."""
LIVELY = 0.01
"""Spikes per step and neuron that show enough of a network."""

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trial:
    """Inputs with a name.

    Attributes:
        told: what they are.
        inputs: by name, ``[T, samples, *shape]``.
        is_calibration: whether they are the data on which a profiled change promises to do nothing.
    """

    told: str
    inputs: Inputs
    is_calibration: bool = False


def affordable(graph: SNNGraph) -> tuple[int, int]:
    """Steps and samples of a check: fewer for large graphs."""
    sample_steps = max(4.0, SYNAPSE_STEPS / max(graph.total_synapses, 1))
    samples = int(min(SAMPLES, max(1.0, sample_steps / STEPS)))
    return int(min(STEPS, sample_steps / samples)), samples


def random_trial(graph: SNNGraph, seed: int = 0) -> Trial:
    """Noise within the declared ranges, of another strength for every sample: dense, and sparse like spikes.

    Inputs without a range start from 0 to 1 and are made stronger until something fires.
    """
    rng = np.random.default_rng(seed)
    steps, samples = affordable(graph)
    found = {name: _noise(rng, node, steps, samples) for name, node in graph.inputs.items()}
    if all(node.high is None for node in graph.inputs.values()) and spiking(graph):
        found = _lively(graph, found)
    return Trial("random inputs", found)


def _noise(rng: np.random.Generator, node: Input, steps: int, samples: int) -> np.ndarray:
    low, high = _range(node)
    noise = rng.uniform(low, high, (steps, samples, *node.shape))
    sparse = (rng.random(noise.shape) < 0.2) * high
    every_other = _by_sample(np.arange(samples) % 2 == 0, noise.ndim)
    strength = _by_sample(np.linspace(0.25, 1.0, samples), noise.ndim)
    return np.clip(np.where(every_other, noise, sparse) * strength, low, high)


def _lively(graph: SNNGraph, inputs: Inputs) -> Inputs:
    names, ready = spiking(graph), Interpreter(graph)
    for _ in range(STRONGER):
        found = ready.run(inputs, record=names)
        if sum(found[name].mean() for name in names) > LIVELY * len(names):
            break
        inputs = {name: 4 * values for name, values in inputs.items()}
    return inputs


def adversarial_trial(graph: SNNGraph, seed: int = 0) -> Trial | None:
    """Random inputs scaled so that a neuron just fires, or just does not; None where no scale makes that difference, or
    where the graph is so large that finding one takes too long.

    For every sample a neuron is chosen at random, and the scale at which its spike train changes is found by
    bisection. Half of the samples are just above it, half just below.
    """
    names = spiking(graph)
    steps, samples = affordable(graph)
    if not names or steps < STEPS or BISECTIONS * steps * samples * graph.total_synapses > 10 * SYNAPSE_STEPS:
        return None
    base, ready = random_trial(graph, seed + 1).inputs, Interpreter(graph)
    rng = np.random.default_rng(seed)
    chosen = [
        (n := names[rng.integers(len(names))], int(rng.integers(graph.populations[n].size))) for _ in range(samples)
    ]

    def trains(scale: np.ndarray) -> np.ndarray:
        found = ready.run(_scaled(graph, base, scale), record=names)
        by_name = {n: found[n].reshape(len(found[n]), samples, -1) for n in names}
        return np.stack([by_name[n][:, k, neuron] for k, (n, neuron) in enumerate(chosen)])

    low, high = np.zeros(samples), np.ones(samples)
    at_low = trains(low)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        as_low = (trains(middle) == at_low).all(axis=1)
        low, high = np.where(as_low, middle, low), np.where(as_low, high, middle)
    if np.all(high == 1.0):
        return None
    scale = np.where(np.arange(samples) % 2 == 0, low, high)
    return Trial("inputs that bring neurons close to the threshold", _scaled(graph, base, scale))


def _scaled(graph: SNNGraph, inputs: Inputs, scale: np.ndarray) -> Inputs:
    """Inputs times a number for every sample, kept within the declared ranges."""
    return {n: np.clip(x * _by_sample(scale, x.ndim), *_limits(graph.inputs[n])) for n, x in inputs.items()}


def _by_sample(values: np.ndarray, axes: int) -> np.ndarray:
    return values.reshape(1, -1, *(1 for _ in range(axes - 2)))


def _range(node: Input) -> tuple[float, float]:
    """Values to draw from."""
    low = node.low if node.low is not None else 0.0
    return low, node.high if node.high is not None else max(low, 0.0) + 1.0


def _limits(node: Input) -> tuple[float, float]:
    return (-np.inf if node.low is None else node.low, np.inf if node.high is None else node.high)


def trials_of(graph: SNNGraph, calibration: Calibration | None = None, seed: int = 0) -> list[Trial]:
    """Random and adversarial inputs, and of the calibration data as many samples as can be afforded."""
    found = [random_trial(graph, seed), adversarial_trial(graph, seed)]
    trials = [trial for trial in found if trial is not None]
    if calibration is not None:
        steps, samples = affordable(graph)
        count = max(1, steps * samples // max(calibration.steps, 1))
        trials.append(Trial("calibration data", calibration.first(count).inputs, True))
    return trials
