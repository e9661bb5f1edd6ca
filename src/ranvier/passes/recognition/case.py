"""What is known of a traced population while a named neuron is sought for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .probe import Probe, Unlike, is_close, simple


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
