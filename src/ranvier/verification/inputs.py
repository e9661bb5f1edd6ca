"""Inputs to compare graphs on: random ones, and such that bring neurons close to their threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph.elements import Input
from ..graph.interpreter import Interpreter
from ..graph.order import update_order
from ..graph.recording import Simulation
from ..graph.snn_graph import SNNGraph
from .calibration import Calibration
from .difference import spiking

SYNAPSE_STEPS = 4e8
"""Synapses times steps times samples that a check may take."""
NEURON_STEPS = 2e7
"""Neurons times steps times samples that a check may keep."""
STEPS, SAMPLES = 50, 8
LONGEST = 400
"""Steps, for slow neurons and long delays."""
BISECTIONS = 30
STRONGER = 6
"""How often inputs are made four times as strong."""
LIVELY = 0.01
"""Spikes per step and neuron that show enough of a population."""

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trial:
    """Inputs with a name.

    Attributes:
        description: what they are, in words.
        inputs: by name, ``[T, samples, *shape]``.
        is_calibration: whether they are the data on which a profiled change promises to do nothing.
    """

    description: str
    inputs: Inputs
    is_calibration: bool = False


def affordable(graph: SNNGraph, steps: int) -> tuple[int, int]:
    """Steps, at most those that are wanted, and samples of a check: fewer for large graphs."""
    sample_steps = max(4.0, SYNAPSE_STEPS / max(graph.total_synapses, 1))
    samples = int(min(SAMPLES, max(1.0, sample_steps / STEPS)))
    return int(min(steps, sample_steps / samples)), samples


def random_trial(graph: SNNGraph, seed: int = 0) -> Trial:
    """Noise within the declared ranges, of another strength for every sample: dense, and sparse like spikes; and what
    pushes the outputs up.

    Inputs without a range start from 0 to 1 and are made stronger until something fires, for the last sample until all
    populations fire that can. Slow neurons and long delays get more steps.
    """
    rng = np.random.default_rng(seed)
    steps, samples = affordable(graph, _settling_steps(graph))
    pushed = _pushed(graph)
    found = {name: _noise(rng, node, pushed[name], steps, samples) for name, node in graph.inputs.items()}
    if all(node.high is None for node in graph.inputs.values()) and spiking(graph):
        found = _lively(graph, found)
    return Trial("random inputs", found)


def _settling_steps(graph: SNNGraph) -> int:
    """Steps after which slow states and delayed projections have shown what they do."""
    slowest = [
        float(value.max(initial=0.0))
        for population in graph.populations.values()
        for name, value in population.neuron.parameters.items()
        if name.startswith("tau")
    ]
    delays = sum(projection.delay for projection in graph.projections.values())
    return int(np.clip(3 * max(slowest, default=0.0) / graph.dt + delays, STEPS, LONGEST))


def _noise(rng: np.random.Generator, node: Input, pushed: np.ndarray, steps: int, samples: int) -> np.ndarray:
    low, high = _range(node)
    noise = rng.uniform(low, high, (steps, samples, *node.shape))
    sparse = (rng.random(noise.shape) < 0.2) * high
    every_other = _by_sample(np.arange(samples) % 2 == 0, noise.ndim)
    strength = _by_sample(np.linspace(0.25, 1.0, samples), noise.ndim)
    found = np.clip(np.where(every_other, noise, sparse) * strength, low, high)
    if samples > 1:
        found[:, -1] = np.where(pushed.reshape(node.shape) > 0, high, low)
    return found


def _pushed(graph: SNNGraph) -> dict[str, np.ndarray]:
    """Of every input how much each element adds to the outputs, by the weights on the way alone."""
    found = {name: np.zeros(node.size) for name, node in graph.nodes.items()}
    found |= {name: np.ones(node.size) for name, node in graph.outputs.items()}
    for name in (*reversed(update_order(graph)), *graph.inputs):
        for projection in graph.out_of(name):
            matrix = projection.operation.matrix(graph.source_shape(projection))
            if matrix.shape == (found[projection.target].size, found[name].size):
                found[name] = found[name] + matrix.T @ found[projection.target].astype(matrix.dtype)
        found[name] /= max(float(np.abs(found[name]).max(initial=0.0)), 1e-30)
    return {name: found[name] for name in graph.inputs}


def _lively(graph: SNNGraph, inputs: Inputs) -> Inputs:
    """Stronger inputs: for the first sample so that something fires, for the last so that all fire that can; in graphs
    so large that few steps are run, so that something does."""
    names, ready = spiking(graph), Interpreter(graph)
    rates = []
    for k in range(STRONGER):
        found = ready.run({name: 4.0**k * values for name, values in inputs.items()}, record=names)
        rates.append([found[name].mean() for name in names])
        if min(rates[-1]) > LIVELY or (np.mean(rates[-1]) > LIVELY and len(found[names[0]]) < STEPS):
            break
    alive = [sum(min(rate, LIVELY) for rate in by_name) for by_name in rates]
    something = next((k for k, by_name in enumerate(rates) if np.mean(by_name) > LIVELY), len(rates) - 1)
    most = max(something, int(np.argmax(alive)))
    return {
        name: values * _by_sample(_powers(something, most, values.shape[1]), values.ndim)
        for name, values in inputs.items()
    }


def _powers(first: int, last: int, samples: int) -> np.ndarray:
    """Strengths from one power of four to another."""
    return 4.0 ** (np.linspace(first, last, samples) if samples > 1 else np.array([last]))


def adversarial_trial(graph: SNNGraph, seed: int = 0) -> Trial | None:
    """Random inputs scaled so that a neuron just fires, or just does not; None where no scale makes that difference, or
    where the graph is so large that finding one takes too long.

    For every sample one of the neurons that fire is chosen at random, and the scale at which its spike train changes is
    found by bisection. Half of the samples are just above it, half just below.
    """
    names = spiking(graph)
    steps, samples = affordable(graph, STEPS)
    if not names or steps < STEPS or BISECTIONS * steps * samples * graph.total_synapses > 10 * SYNAPSE_STEPS:
        return None
    base = {name: values[:STEPS] for name, values in random_trial(graph, seed + 1).inputs.items()}
    ready = Interpreter(graph)
    rng = np.random.default_rng(seed)
    firing = _by_sample_of(ready.run(base, record=names), names, samples)
    chosen = [_chosen({n: np.any(found[:, k], axis=0) for n, found in firing.items()}, rng) for k in range(samples)]

    def trains(scale: np.ndarray) -> np.ndarray:
        by_name = _by_sample_of(ready.run(_scaled(graph, base, scale), record=names), names, samples)
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


def _by_sample_of(found: Simulation, names: list[str], samples: int) -> dict[str, np.ndarray]:
    """Spikes by population, ``[T, samples, neurons]``."""
    return {name: found[name].reshape(len(found[name]), samples, -1) for name in names}


def _chosen(fires: dict[str, Any], rng: np.random.Generator) -> tuple[str, int]:
    """A population and one of its neurons, if possible one that fires."""
    alive = [name for name, neurons in fires.items() if neurons.any()]
    name = (alive or list(fires))[rng.integers(len(alive or fires))]
    numbers = np.flatnonzero(fires[name]) if alive else np.arange(fires[name].size)
    return name, int(rng.choice(numbers))


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
    """Random and adversarial inputs, and the calibration data, of much data as many samples as can be afforded."""
    found = [random_trial(graph, seed), adversarial_trial(graph, seed)]
    trials = [trial for trial in found if trial is not None]
    if calibration is not None:
        sample_steps = min(
            SYNAPSE_STEPS / max(graph.total_synapses, 1),
            NEURON_STEPS / max(sum(population.size for population in graph.populations.values()), 1),
        )
        count = min(calibration.samples, max(1, int(sample_steps // calibration.steps)))
        description = "calibration data" + (
            "" if count == calibration.samples else f", {count} of {calibration.samples} samples"
        )
        trials.append(Trial(description, calibration.first(count).inputs, True))
    return trials
