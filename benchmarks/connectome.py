"""Generated networks of the size of a fly's brain: sparse, recurrent, with long-tailed degrees."""

from __future__ import annotations

import numpy as np
from scipy import sparse

import ranvier
from ranvier.graph.neurons import LIF
from ranvier.graph.operations import Linear

NEURONS, SYNAPSES = 139_000, 15_000_000
INPUTS, OUTPUTS = 200, 20


def connectome(part: float = 1.0, seed: int = 0) -> ranvier.SNNGraph:
    """A recurrent LIF network.

    Args:
        part: size as a part of 139,000 neurons and 15 million synapses.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    neurons, synapses = round(NEURONS * part), round(SYNAPSES * part)
    strength = rng.pareto(1.5, neurons) + 1.0
    strength /= strength.sum()
    pairs = np.empty(0, np.int64)
    while pairs.size < synapses:
        wanted = int((synapses - pairs.size) * 1.1) + 1
        source = rng.choice(neurons, wanted, p=strength)
        target = rng.choice(neurons, wanted, p=strength[::-1])
        pairs = np.unique(np.concatenate([pairs, target * neurons + source]))
    target, source = np.divmod(rng.permutation(pairs)[:synapses], neurons)
    sign = np.where(rng.random(neurons) < 0.7, 1.0, -1.0)[source]
    weight = (sign * rng.lognormal(-3.0, 1.0, synapses)).astype(np.float32)
    recurrent = sparse.csr_array((weight, (target, source)), shape=(neurons, neurons))
    chosen = rng.random((neurons, 1)) < 0.05
    drive = sparse.csr_array(np.where(chosen, rng.uniform(0, 2, (neurons, INPUTS)), 0).astype(np.float32))
    read = sparse.random_array((OUTPUTS, neurons), density=0.01, format="csr", rng=rng, dtype=np.float32)
    return ranvier.SNNGraph(
        name="connectome",
        dt=1e-3,
        inputs=[ranvier.Input("sense", (INPUTS,), 0.0, 1.0)],
        populations=[ranvier.Population("brain", (neurons,), LIF(tau=20e-3))],
        projections=[
            ranvier.Projection("drive", "sense", "brain", Linear(drive)),
            ranvier.Projection("recurrent", "brain", "brain", Linear(recurrent), delay=1),
            ranvier.Projection("read", "brain", "motor", Linear(read)),
        ],
        outputs=[ranvier.Output("motor", (OUTPUTS,))],
    )
