"""What is known about a traced population while a named neuron is sought for it."""

# An example: a potential and a current both take the inputs x and y, v' = ... + 4 x + 2 y and i' = ... + 2 x + y. Both
# see one sum, x + 0.5 y, with the gains 4 and 2. With i' = ... + 2 x + 2 y instead there is no such sum, and no named
# neuron, for these have a single input.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .probe import Probe, Unlike, is_close, simple


@dataclass(frozen=True, eq=False)
class Case:
    """The population to recognize.

    Attributes:
        probe: its dynamics, to be run.
        spike: the output that is its spike; None if there is none.
        dt: the time step in seconds.
    """

    probe: Probe
    spike: str | None
    dt: float

    def row(self, name: str) -> dict[str, np.ndarray]:
        """The slopes of a new state or output, see :attr:`Probe.affine`."""
        return self.probe.affine[name]

    def drive(self, rows: list[dict[str, np.ndarray]]) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """The weight of every input in one sum, and the gain with which each row takes the sum.

        Raises:
            Unlike: there are no inputs, they do nothing, or they do different things.
        """
        inputs = self.probe.inputs
        if not inputs:
            raise Unlike("it has no input", remedy="give it one, even if it is always zero")
        # Weights are relative to the input with the most effect, so that the sum is in units that the dynamics use.
        main = max(inputs, key=lambda k: sum(float(np.abs(row[k]).sum()) for row in rows))
        gains = [row[main] for row in rows]
        total = np.sum([np.abs(g) for g in gains], axis=0)
        if np.any(total == 0):
            raise Unlike("its input does nothing", remedy="let the input drive a state of the neuron")
        # For each neuron from the row with its largest gain: a quotient of small numbers would be mostly rounding.
        strongest = np.argmax([np.abs(g) for g in gains], axis=0)
        every = np.arange(self.probe.size)
        weights = {
            k: np.stack([row[k] for row in rows])[strongest, every] / np.stack(gains)[strongest, every] for k in inputs
        }
        for k in inputs:
            if not all(is_close(row[k], weights[k] * gain, total) for row, gain in zip(rows, gains, strict=True)):
                raise Unlike(
                    f"its inputs {list(inputs)} have different effects",
                    remedy="sum them, each times one factor, before they reach the neuron",
                )
        return {k: simple(w) for k, w in weights.items()}, gains
