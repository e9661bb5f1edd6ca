"""Inputs on which graphs are compared: random ones, and ones that bring neurons close to their threshold."""

# An example of pushing: input element 0 drives neuron 0 with weight 1, element 1 drives neuron 1 with weight 3, and an
# output reads the neurons with [2 -1]. Relative to the largest, the neurons push the output by [1 -0.5], and the input
# elements by [1 -1.5], that is by [0.67 -1]. The last random sample holds element 0 at its highest value and element 1
# at its lowest one.
#
# An example of a trial close to the threshold: a neuron sums up its input, 0.8 in each of three steps, and fires above
# 1. Scaled by 0 it is silent, scaled by 1 it fires, so some scale between is critical: 1 / 2.4 = 0.4167. Bisection
# tries 0.5, which fires; 0.25 and 0.375, which do not; 0.4375, which fires; and so on.

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
"""The largest product of synapses, steps and samples in one check, which bounds its time."""
NEURON_STEPS = 2e7
"""The largest product of neurons, steps and samples in one check, which bounds its memory."""
STEPS, SAMPLES = 50, 8
LONGEST = 400
"""The largest number of steps, for slow neurons and long delays."""
BISECTIONS = 30
"""The critical scale is then known to a part in 10^9."""
STRONGER = 6
"""The number of strengths tried, each four times the one before."""
LIVELY = 0.01
"""Spikes per step and neuron above which a population counts as active."""

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trial:
    """Inputs and their description.

    Attributes:
        description: what the inputs are, in words.
        inputs: by name, ``[T, samples, *shape]``.
        is_calibration: whether they are the calibration data, on which a profiled change promises equal behavior.
    """

    description: str
    inputs: Inputs
    is_calibration: bool = False


def affordable(graph: SNNGraph, steps: int) -> tuple[int, int]:
    """The numbers of steps and samples of a check: at most ``steps``, and fewer for large graphs."""
    sample_steps = max(4.0, SYNAPSE_STEPS / max(graph.total_synapses, 1))
    samples = int(min(SAMPLES, max(1.0, sample_steps / STEPS)))
    return int(min(steps, sample_steps / samples)), samples


def random_trial(graph: SNNGraph, seed: int = 0) -> Trial:
    """Noise within the declared ranges, with a different strength for each sample, alternately dense and sparse like
    spikes. The last sample is the constant input that pushes the outputs up the most.

    Inputs without a range start from 0 to 1 and are made stronger until something fires; for the last sample, until
    every population fires that can. Slow neurons and long delays get more steps.
    """
    rng = np.random.default_rng(seed)
    steps, samples = affordable(graph, _settling_steps(graph))
    pushed = _pushed(graph)
    inputs = {name: _noise(rng, node, pushed[name], steps, samples) for name, node in graph.inputs.items()}
    # A declared range limits what the graph is used on: inputs beyond it would show differences that do not matter.
    if all(node.high is None for node in graph.inputs.values()) and spiking(graph):
        inputs = _lively(graph, inputs)
    return Trial("random inputs", inputs)


def _settling_steps(graph: SNNGraph) -> int:
    """Steps after which slow states and delayed projections have taken effect."""
    slowest = [
        float(value.max(initial=0.0))
        for population in graph.populations.values()
        for name, value in population.neuron.parameters.items()
        if name.startswith("tau")
    ]
    delays = sum(projection.delay for projection in graph.projections.values())
    return int(np.clip(3 * max(slowest, default=0.0) / graph.dt + delays, STEPS, LONGEST))


def _noise(rng: np.random.Generator, node: Input, pushed: np.ndarray, steps: int, samples: int) -> np.ndarray:
    """Values of one input, ``[steps, samples, *shape]``."""
    low, high = _range(node)
    noise = rng.uniform(low, high, (steps, samples, *node.shape))
    sparse = (rng.random(noise.shape) < 0.2) * high
    every_other = _by_sample(np.arange(samples) % 2 == 0, noise.ndim)
    strength = _by_sample(np.linspace(0.25, 1.0, samples), noise.ndim)
    values = np.clip(np.where(every_other, noise, sparse) * strength, low, high)
    # Noise around a mean may leave outputs at zero, of which nothing would then be tested.
    if samples > 1:
        values[:, -1] = np.where(pushed.reshape(node.shape) > 0, high, low)
    return values


def _pushed(graph: SNNGraph) -> dict[str, np.ndarray]:
    """How much each element of every input adds to the outputs, estimated only from the weights on the way."""
    push = {name: np.zeros(node.size) for name, node in graph.nodes.items()}
    push |= {name: np.ones(node.size) for name, node in graph.outputs.items()}
    # Against the order of a step, so that targets are mostly done before their sources. Recurrent weights count for
    # nothing, since this is only a direction.
    for name in (*reversed(update_order(graph)), *graph.inputs):
        for projection in graph.out_of(name):
            matrix = projection.operation.matrix(graph.source_shape(projection))
            if matrix.shape == (push[projection.target].size, push[name].size):
                push[name] = push[name] + matrix.T @ push[projection.target].astype(matrix.dtype)
        # Without this, products of weights over many layers could overflow.
        push[name] /= max(float(np.abs(push[name]).max(initial=0.0)), 1e-30)
    return {name: push[name] for name in graph.inputs}


def _lively(graph: SNNGraph, inputs: Inputs) -> Inputs:
    """Stronger inputs: in the first sample as strong as needed for something to fire, in the last for every population
    to fire that can. In graphs so large that few steps are run, it is enough that something fires."""
    names, ready = spiking(graph), Interpreter(graph)
    rates = []
    for k in range(STRONGER):
        spikes = ready.run({name: 4.0**k * values for name, values in inputs.items()}, record=names)
        rates.append([spikes[name].mean() for name in names])
        if min(rates[-1]) > LIVELY or (np.mean(rates[-1]) > LIVELY and len(spikes[names[0]]) < STEPS):
            break
    # Deep populations may need an input that no other needs, or be silenced by one that is too strong: the rates of all
    # populations, each counted only until it is active, say which strength shows most.
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
    """Random inputs scaled so that a neuron just fires, or just does not; None if no scale makes that difference, or if
    the graph is so large that the search takes too long.

    For every sample one of the neurons that fire is chosen at random, and bisection gives the scale at which its spike
    train changes. Half of the samples are just above that scale, half just below.
    """
    names = spiking(graph)
    steps, samples = affordable(graph, STEPS)
    if not names or steps < STEPS or BISECTIONS * steps * samples * graph.total_synapses > 10 * SYNAPSE_STEPS:
        return None
    base = {name: values[:STEPS] for name, values in random_trial(graph, seed + 1).inputs.items()}
    ready = Interpreter(graph)
    rng = np.random.default_rng(seed)
    firing = _by_sample_of(ready.run(base, record=names), names, samples)
    chosen = [_chosen({n: np.any(fired[:, k], axis=0) for n, fired in firing.items()}, rng) for k in range(samples)]

    def trains(scale: np.ndarray) -> np.ndarray:
        by_name = _by_sample_of(ready.run(_scaled(graph, base, scale), record=names), names, samples)
        return np.stack([by_name[n][:, k, neuron] for k, (n, neuron) in enumerate(chosen)])

    # All samples are bisected together, each for its own neuron: one run per bisection.
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


def _by_sample_of(simulation: Simulation, names: list[str], samples: int) -> dict[str, np.ndarray]:
    """Spikes by population, ``[T, samples, neurons]``."""
    return {name: simulation[name].reshape(len(simulation[name]), samples, -1) for name in names}


def _chosen(fires: dict[str, Any], rng: np.random.Generator) -> tuple[str, int]:
    """The name of a population and the number of one of its neurons, if possible one that fires."""
    alive = [name for name, neurons in fires.items() if neurons.any()]
    name = (alive or list(fires))[rng.integers(len(alive or fires))]
    numbers = np.flatnonzero(fires[name]) if alive else np.arange(fires[name].size)
    return name, int(rng.choice(numbers))


def _scaled(graph: SNNGraph, inputs: Inputs, scale: np.ndarray) -> Inputs:
    """Inputs times one number per sample, limited to the declared ranges."""
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
    """Random and adversarial inputs, and the calibration data: of large data, as many samples as a check may take."""
    generated = [random_trial(graph, seed), adversarial_trial(graph, seed)]
    trials = [trial for trial in generated if trial is not None]
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
