"""A named neuron that behaves like a traced population, and how the two correspond."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...graph.neurons import LI, Neuron
from .spiking import Spike


@dataclass(frozen=True, eq=False)
class Synapse:
    """A current in front of a neuron.

    Attributes:
        neuron: the leaky integrator that computes the current.
        state: name of the current in the traced population.
        initial: value of the current before the first step, ``[size]``.
        delay: 1 if the current of the previous step drives the neuron, 0 if the new current does.
    """

    neuron: LI
    state: str
    initial: np.ndarray
    delay: int


@dataclass(frozen=True, eq=False)
class Match:
    """A named neuron that behaves like a traced population.

    Attributes:
        neuron: with its parameters.
        spike: output of the traced population that is its spike; None if there is none.
        states: names of the traced population's states by the neuron's own names, for states with equal values.
        initial: the neuron's states before the first step, ``[size]``, by its own names.
        weights: by input of the traced population, its weight in the sum of inputs.
        bias: what is added to the sum; None if nothing is.
        values: outputs of the traced population that are the neuron's output.
        synapse: a current between the sum and the neuron, if no named neuron includes it.
        firing: the measured threshold and reset; None if there is no spike, or no state.
    """

    neuron: Neuron
    spike: str | None
    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    bias: np.ndarray | None = None
    values: tuple[str, ...] = ()
    synapse: Synapse | None = None
    firing: Spike | None = None
