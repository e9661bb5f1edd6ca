"""Random graphs: all kinds of neurons, recurrence, branches, merges, delays, sparse weights; and images."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from scipy import sparse

from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Neuron, Relay, Threshold
from ranvier.graph.operations import AvgPool, Conv, Flatten, Identity, Linear, Operation, Scale, SumPool
from ranvier.graph.snn_graph import SNNGraph

DT = 1e-3


def neuron(rng: np.random.Generator, kind: type[Neuron], size: int, nir: bool = False) -> Neuron:
    """A neuron with parameters of its own for each of ``size`` positions, or one number for all."""

    def values(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, size if nir or rng.random() < 0.5 else ())

    ranges = {
        "tau": (2e-3, 3e-2),
        "tau_a": (2e-2, 2e-1),
        "tau_syn": (2e-3, 1e-2),
        "tau_mem": (2e-3, 3e-2),
        "beta": (0.0, 0.5),
        "r": (0.5, 2.0),
        "v_leak": (-0.2, 0.2),
        "v_threshold": (0.4, 1.2),
        "v_reset": (-0.3, 0.2),
        "w_in": (0.5, 2.0),
        "threshold": (0.2, 1.0),
    }
    if kind is Delay:
        return Delay(steps=rng.integers(0, 4, size).astype(float))
    found: dict[str, Any] = {name: values(*ranges[name]) for name in kind.parameter_names()}
    if kind in (I, IF):
        found["r"] = found["r"] / DT / 4
    choices = {
        "reset": ("zero", "subtract"),
        "integration": ("euler", "exponential"),
        "fires": (">", ">="),
        "current": ("old", "new"),
    }
    found.update({name: str(rng.choice(choices[name])) for name in kind.choice_names()})
    if found.get("reset") == "subtract":
        found["v_reset"] = np.zeros(size) if nir else 0.0
    return kind(**found)


def linear(rng: np.random.Generator, source: int, target: int) -> Linear:
    """Weights strong enough to make neurons fire; some dense, some sparse, some with a bias."""
    weight = rng.normal(0.3, 1.5, (target, source)) / np.sqrt(source)
    if rng.random() < 0.3:
        weight = sparse.csr_array(np.where(rng.random(weight.shape) < 0.5, weight, 0.0))
    return Linear(weight, rng.normal(0.2, 0.3, target) if rng.random() < 0.5 else None)


KINDS = (LIF, CubaLIF, ALIF, IF, LI, I, CubaLI, Threshold, Relay, Delay)


def random_graph(seed: int, kinds: tuple[type[Neuron], ...] = KINDS, nir: bool = False) -> SNNGraph:
    """A valid graph of one to five populations."""
    rng = np.random.default_rng(seed)
    inputs = [Input(f"in{k}", (int(rng.integers(1, 5)),)) for k in range(rng.integers(1, 3))]
    populations: list[Population] = []
    for k in range(rng.integers(1, 6)):
        size = int(rng.integers(1, 7))
        kind = kinds[rng.integers(len(kinds))]
        made = neuron(rng, kind, size, nir)
        initial = {s: rng.uniform(-0.1, 0.3, size) for s in made.states if not nir and rng.random() < 0.3}
        populations.append(Population(f"p{k}", (size,), made, initial))
    outputs = [Output("out", (int(rng.integers(1, 4)),))]
    nodes: list[Any] = [*inputs, *populations]
    projections = []
    for k, target in enumerate([*populations, *outputs]):
        chosen = {int(i) for i in rng.integers(0, len(inputs) + k, 2)} or {0}
        for i in sorted(chosen):
            projections.append((nodes[i], target, int(rng.integers(0, 3)) if rng.random() < 0.3 else 0))
    for _ in range(rng.integers(0, 3)):
        source, target = populations[rng.integers(len(populations))], populations[rng.integers(len(populations))]
        projections.append((source, target, int(rng.integers(1, 4))))
    made_projections = [
        Projection(f"w{k}", a.name, b.name, _operation(rng, a.size, b.size), 1 if nir and delay else delay)
        for k, (a, b, delay) in enumerate(projections)
    ]
    return SNNGraph(
        name=f"random {seed}",
        dt=DT,
        inputs=inputs,
        populations=populations,
        projections=made_projections,
        outputs=outputs,
    )


def _operation(rng: np.random.Generator, source: int, target: int) -> Operation:
    if source == target and rng.random() < 0.3:
        return Scale(rng.normal(1.0, 0.3, target)) if rng.random() < 0.5 else Identity()
    return linear(rng, source, target)


def image_graph(seed: int) -> SNNGraph:
    """Convolution, pooling and a dense readout over an image."""
    rng = np.random.default_rng(seed)
    channels, size = int(rng.integers(1, 4)), int(rng.integers(6, 10))
    groups = channels if rng.random() < 0.3 else 1
    out = groups * int(rng.integers(1, 4))
    padding = [(1, 1), "valid", "same", (0, 2)][rng.integers(4)]
    stride = (1, 1) if padding == "same" else (int(rng.integers(1, 3)), 1)
    weight = rng.normal(0.2, 0.8, (out, channels // groups, 3, 2))
    conv = Conv(weight, rng.normal(0.1, 0.2, out), stride, padding, (1, int(rng.integers(1, 3))), groups)
    image = (channels, size, size)
    maps = conv.target_shape(image)
    pool = (SumPool if rng.random() < 0.5 else AvgPool)((2, 2), (2, 1), (int(rng.integers(0, 2)), 0))
    pooled = pool.target_shape(maps)
    flat = int(np.prod(pooled))
    return SNNGraph(
        name=f"image {seed}",
        dt=DT,
        inputs=[Input("image", image)],
        populations=[
            Population("maps", maps, LIF(tau=5e-3, r=3.0)),
            Population("pooled", pooled, Relay()),
            Population("flat", (flat,), Relay()),
            Population("readout", (3,), LI(tau=1e-2)),
        ],
        projections=[
            Projection("conv", "image", "maps", conv),
            Projection("pool", "maps", "pooled", pool),
            Projection("flatten", "pooled", "flat", Flatten()),
            Projection("dense", "flat", "readout", linear(rng, flat, 3)),
            Projection("read", "readout", "out", Identity()),
        ],
        outputs=[Output("out", (3,))],
    )


def inputs_of(graph: SNNGraph, seed: int, steps: int = 40, samples: int | None = None) -> dict[str, np.ndarray]:
    """Values for every input, time first."""
    rng = np.random.default_rng(seed)
    lead = (steps,) if samples is None else (steps, samples)
    return {name: rng.uniform(-0.5, 2.0, (*lead, *node.shape)) for name, node in graph.inputs.items()}


seeds = st.integers(0, 2**32 - 1)
"""Seeds of random graphs."""
