"""Poisson spike trains of groups of input channels that are on during given steps."""

from __future__ import annotations

import numpy as np


def poisson_groups(active: np.ndarray, group_size: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Spikes of groups of channels: float32 ``[steps, batch, groups * group_size]``.

    Args:
        active: whether a group is on: boolean ``[steps, batch, groups]``.
        group_size: channels of one group, side by side in the result.
        rate: probability that a channel that is on spikes in one step.
        rng: source of randomness.
    """
    probability = np.repeat(rate * active, group_size, axis=-1)
    return (rng.random(probability.shape) < probability).astype(np.float32)


def balanced_labels(batch: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels in random order, every class equally often up to one: int32 ``[batch]``."""
    return rng.permutation(np.arange(batch) % classes).astype(np.int32)
