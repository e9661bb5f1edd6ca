"""Delayed match-to-sample: a sample, a delay, a test; then say whether the two were the same.

A working-memory task for monkeys (Miller, Erickson and Desimone 1996, Journal of Neuroscience 16, 5154), posed to
recurrent networks by, among others, Yang et al. (2019, Nature Neuroscience 22, 297).
"""

from __future__ import annotations

import numpy as np

from .batch import Batch
from .spikes import balanced_labels, constant_labels, last_steps, poisson_groups

DIFFERENT, SAME = range(2)


def sample(
    batch: int,
    seed: int,
    *,
    stimuli: int = 4,
    stimulus_steps: int = 10,
    delay_steps: int = 50,
    answer_steps: int = 5,
    group_size: int = 5,
    rate: float = 0.4,
    noise_rate: float = 0.05,
) -> Batch:
    """Trials ``xs[steps, batch, (stimuli + 1) * group_size]``: one channel group per stimulus, then noise.

    A trial is ``stimulus_steps`` of the sample, ``delay_steps`` of silence, ``stimulus_steps`` of the test, then
    ``answer_steps`` of silence in which the class is asked for. Noise is on throughout.

    Args:
        batch: number of trials; both classes are equally frequent, up to one trial.
        seed: the same seed gives the same trials.
        stimuli: number of stimuli, at least 2.
        stimulus_steps: steps of the sample, and of the test.
        delay_steps: steps of silence between them.
        answer_steps: steps after the test.
        group_size: channels of a group.
        rate: spikes per step of a channel that is on.
        noise_rate: spikes per step of a noise channel.

    Returns:
        A batch with ``ys`` 0 (different) or 1 (same), the same at all steps.

    Raises:
        ValueError: ``stimuli`` is less than 2.
    """
    if stimuli < 2:
        raise ValueError(f"stimuli={stimuli} leaves no two that differ; pass at least 2.")
    rng = np.random.default_rng(seed)
    labels = balanced_labels(batch, 2, rng)
    first = rng.integers(0, stimuli, batch)
    second = (first + (labels == DIFFERENT) * rng.integers(1, stimuli, batch)) % stimuli
    steps = 2 * stimulus_steps + delay_steps + answer_steps
    active = np.zeros((steps, batch, stimuli), bool)
    for start, shown in ((0, first), (stimulus_steps + delay_steps, second)):
        active[start : start + stimulus_steps, np.arange(batch), shown] = True
    xs = poisson_groups(active, group_size, rate, noise_rate, rng)
    return Batch(xs, constant_labels(labels, steps), last_steps(steps, answer_steps), classes=2)
