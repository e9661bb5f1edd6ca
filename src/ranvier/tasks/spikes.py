"""Poisson spike trains of groups of input channels, and balanced labels."""

from __future__ import annotations

import numpy as np

from ..errors import InputError


def poisson_groups(
    active: np.ndarray, group_size: int, rate: float, noise_rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Spikes of groups of channels, and of a last group of noise that is always on.

    Args:
        active: whether a group is on: boolean ``[steps, batch, groups]``.
        group_size: channels of one group, side by side in the result.
        rate: probability that a channel that is on spikes in one step.
        noise_rate: the same for the channels of the last group.
        rng: source of randomness.

    Returns:
        Spikes, 0 or 1: float32 ``[steps, batch, (groups + 1) * group_size]``.
    """
    noise = np.full((*active.shape[:-1], 1), noise_rate)
    probability = np.repeat(np.concatenate([rate * active, noise], axis=-1), group_size, axis=-1)
    return (rng.random(probability.shape) < probability).astype(np.float32)


def balanced_labels(batch: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Labels in random order, with all classes equally frequent up to one trial: int32 ``[batch]``."""
    return rng.permutation(np.arange(batch) % classes).astype(np.int32)


def constant_labels(labels: np.ndarray, steps: int) -> np.ndarray:
    """The same label at every step: int32 ``[steps, batch]``."""
    return np.tile(labels.astype(np.int32), (steps, 1))


def last_steps(steps: int, count: int) -> np.ndarray:
    """A mask that is 1 in the last ``count`` of ``steps``: float32 ``[steps]``.

    Raises:
        InputError: no step is left.
    """
    if not 0 < count <= steps:
        raise InputError(f"{count} of {steps} steps are to be answered in; at least one is needed for a loss.")
    return (np.arange(steps) >= steps - count).astype(np.float32)
