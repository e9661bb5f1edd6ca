"""A neuron that does what a traced population does, and what is known of that population."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...graph.neurons import LI, Neuron
from .spiking import Spike


@dataclass(frozen=True, eq=False)
class Synapse:
    """A current in front of a neuron.

    Attributes:
        neuron: leaks.
        state: the traced population's name for it.
        initial: its value before the first step.
        delay: 1 where the neuron is driven by the current of the step before.
    """

    neuron: LI
    state: str
    initial: np.ndarray
    delay: int


@dataclass(frozen=True, eq=False)
class Match:
    """A neuron that does what a traced population does.

    Attributes:
        neuron: with its parameters.
        spike: the output that is its spike; None where it has none.
        states: by its own names those of the traced population that it has as they are.
        initial: its states before the first step.
        weights: by input of the traced population what it is multiplied by in the sum.
        bias: what is added to the sum.
        values: outputs of the traced population that are the neuron's output.
        synapse: what the sum goes through first, where no neuron with a name has it inside.
        found: what was seen of its spikes.
    """

    neuron: Neuron
    spike: str | None
    states: dict[str, str] = field(default_factory=dict)
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    bias: np.ndarray | None = None
    values: tuple[str, ...] = ()
    synapse: Synapse | None = None
    found: Spike | None = None
