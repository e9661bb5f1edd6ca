"""Trials of a task: spike trains, the class to name at each step, and the steps at which it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Batch:
    """Trials of one task, time first.

    Attributes:
        xs: input spikes, 0 or 1: float32 ``[steps, batch, inputs]``.
        ys: the class to name: int32 ``[steps, batch]``; meaningless where ``mask`` is 0.
        mask: 1 at the steps at which the class is asked for, else 0: float32 ``[steps]``.
        classes: number of classes, and so of readout units.
    """

    xs: np.ndarray
    ys: np.ndarray
    mask: np.ndarray
    classes: int

    @property
    def steps(self) -> int:
        """Length of a trial."""
        return self.xs.shape[0]

    @property
    def size(self) -> int:
        """Number of trials."""
        return self.xs.shape[1]

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.xs.shape[2]

    def take(self, trials: Any) -> Batch:
        """The batch of some trials: indices, a boolean mask or a slice."""
        return replace(self, xs=self.xs[:, trials], ys=self.ys[:, trials])

    def minibatches(self, size: int, seed: int) -> Iterator[Batch]:
        """The trials in random order, ``size`` at a time; a remainder smaller than ``size`` is left out."""
        order = np.random.default_rng(seed).permutation(self.size)
        for start in range(0, self.size - size + 1, size):
            yield self.take(order[start : start + size])

    def accuracy(self, outputs: Any) -> float:
        """The accuracy of ``outputs[steps, batch, classes]``: the fraction of the steps asked for at which the largest
        output is that of the class."""
        correct = np.argmax(np.asarray(outputs), axis=-1) == self.ys
        return float(correct[self.mask > 0].mean())
