"""A neuron that does what a traced population does, and what is known of that population."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...graph.neurons import LI, Neuron
from .probe import Probe, Unlike, is_close, simple

if TYPE_CHECKING:
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


@dataclass(frozen=True, eq=False)
class Case:
    """What is to be told: dynamics, their spike and the time step."""

    probe: Probe
    spike: str | None
    dt: float

    def row(self, name: str) -> dict[str, np.ndarray]:
        return self.probe.affine[name]

    def drive(self, rows: list[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """The weight of every input in one sum, and what each row takes of the sum.

        Raises:
            Unlike: inputs do different things.
        """
        inputs = self.probe.inputs
        if not inputs:
            raise Unlike("it has no input", remedy="give it one, if only of zeros")
        main = max(inputs, key=lambda k: sum(float(np.abs(row[k]).sum()) for row in rows))
        gains = [row[main] for row in rows]
        total = np.sum([np.abs(g) for g in gains], axis=0)
        if np.any(total == 0):
            raise Unlike("its input does nothing", remedy="let the input drive a state of the neuron")
        which = np.argmax([np.abs(g) for g in gains], axis=0)
        at = np.arange(self.probe.size)
        weights = {k: np.stack([row[k] for row in rows])[which, at] / np.stack(gains)[which, at] for k in inputs}
        for k in inputs:
            if not all(is_close(row[k], weights[k] * gain, total) for row, gain in zip(rows, gains, strict=True)):
                raise Unlike(
                    f"its inputs {list(inputs)} do different things",
                    remedy="sum them, each times one factor, before they reach the neuron",
                )
        return {k: simple(w) for k, w in weights.items()}, gains
