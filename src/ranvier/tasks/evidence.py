"""Evidence accumulation: cues come from the left and from the right, and after a delay the side with more is named.

The task of Morcos and Harvey (2016, Nature Neuroscience 19, 1672), as Bellec et al. posed it to spiking networks (2020,
Nature Communications 11, 3625), with fewer and shorter cues.
"""

from __future__ import annotations

import numpy as np

from .batch import Batch
from .spikes import balanced_labels, constant_labels, last_steps, poisson_groups

LEFT, RIGHT, RECALL = range(3)
"""Channel groups, in this order; the last group is noise."""


def sample(
    batch: int,
    seed: int,
    *,
    cues: int = 5,
    cue_steps: int = 5,
    gap_steps: int = 3,
    delay_steps: int = 80,
    recall_steps: int = 5,
    group_size: int = 5,
    rate: float = 0.4,
    noise_rate: float = 0.05,
) -> Batch:
    """Trials ``xs[steps, batch, 4 * group_size]``: channel groups left, right, recall, noise.

    A trial is ``cues`` times (``cue_steps`` of one side, ``gap_steps`` of silence), ``delay_steps`` of silence, then
    ``recall_steps`` in which the recall group is on and the class is asked for. Noise is on throughout. Every order of
    cues is equally likely.

    Args:
        batch: number of trials; both classes are equally frequent, up to one trial.
        seed: the same seed gives the same trials.
        cues: number of cues, odd.
        cue_steps: steps of one cue.
        gap_steps: steps of silence after each cue.
        delay_steps: steps of silence before the recall.
        recall_steps: steps of the recall.
        group_size: channels of a group.
        rate: spikes per step of a channel that is on.
        noise_rate: spikes per step of a noise channel.

    Returns:
        A batch with ``ys`` 0 (more cues on the left) or 1 (more on the right), the same at all steps.

    Raises:
        ValueError: ``cues`` is even.
    """
    if cues % 2 == 0:
        raise ValueError(f"cues={cues} is even, so that a trial can be a tie; pass an odd number.")
    rng = np.random.default_rng(seed)
    labels = balanced_labels(batch, 2, rng)
    sides = _sides(labels, cues, rng)
    steps = cues * (cue_steps + gap_steps) + delay_steps + recall_steps
    active = np.zeros((steps, batch, 3), bool)
    for k, side in enumerate(sides.T):
        start = k * (cue_steps + gap_steps)
        active[start : start + cue_steps, np.arange(batch), side] = True
    active[-recall_steps:, :, RECALL] = True
    xs = poisson_groups(active, group_size, rate, noise_rate, rng)
    return Batch(xs, constant_labels(labels, steps), last_steps(steps, recall_steps), classes=2)


def _sides(labels: np.ndarray, cues: int, rng: np.random.Generator) -> np.ndarray:
    """The side of every cue ``[batch, cues]``, with the labeled side in the majority."""
    sides = rng.integers(0, 2, (len(labels), cues))
    majority = sides.sum(axis=1) > cues / 2
    # Exchanging the sides turns one class into the other and leaves all orders equally likely.
    return np.where((majority == labels)[:, None], sides, 1 - sides)
