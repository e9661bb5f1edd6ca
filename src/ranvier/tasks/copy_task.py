"""Copy: a pattern of symbols, a delay, then a recall cue during which the pattern is reproduced in order.

The copy task of memory networks (Hochreiter and Schmidhuber 1997, Neural Computation 9, 1735; Graves, Wayne and
Danihelka 2014, arXiv:1410.5401), with spikes.
"""

from __future__ import annotations

import numpy as np

from .batch import Batch
from .spikes import balanced_labels, poisson_groups


def sample(
    batch: int,
    seed: int,
    *,
    symbols: int = 2,
    length: int = 3,
    symbol_steps: int = 8,
    settle_steps: int = 3,
    delay_steps: int = 20,
    group_size: int = 5,
    rate: float = 0.4,
    noise_rate: float = 0.05,
) -> Batch:
    """Trials ``xs[steps, batch, (symbols + 2) * group_size]``: one channel group per symbol, then recall, then noise.

    A trial is ``symbol_steps`` of each of ``length`` symbols, ``delay_steps`` of silence, then again ``symbol_steps``
    for each symbol, in which the recall group is on and the symbol is asked for. Noise is on throughout.

    Args:
        batch: number of trials; at every place of the pattern, all symbols are equally frequent, up to one trial.
        seed: the same seed gives the same trials.
        symbols: number of symbols.
        length: number of symbols in a pattern.
        symbol_steps: steps of one symbol, shown or reproduced.
        settle_steps: steps at the start of each symbol in which it is not asked for yet.
        delay_steps: steps of silence between pattern and recall.
        group_size: channels of a group.
        rate: spikes per step of a channel that is on.
        noise_rate: spikes per step of a noise channel.

    Returns:
        A batch with ``ys`` the symbol to reproduce at each step of the recall, 0 before.

    Raises:
        ValueError: ``settle_steps`` leaves no step at which to ask.
    """
    if settle_steps >= symbol_steps:
        raise ValueError(f"settle_steps={settle_steps} must be less than symbol_steps={symbol_steps}.")
    rng = np.random.default_rng(seed)
    pattern = np.stack([balanced_labels(batch, symbols, rng) for _ in range(length)])
    by_step = np.repeat(pattern, symbol_steps, axis=0)
    shown = len(by_step)
    recall = shown + delay_steps
    steps = recall + shown
    active = np.zeros((steps, batch, symbols + 1), bool)
    active[:shown, :, :symbols] = np.eye(symbols, dtype=bool)[by_step]
    active[recall:, :, symbols] = True
    xs = poisson_groups(active, group_size, rate, noise_rate, rng)
    ys = np.zeros((steps, batch), np.int32)
    ys[recall:] = by_step
    since_recall = np.arange(steps) - recall
    asked = (since_recall >= 0) & (since_recall % symbol_steps >= settle_steps)
    return Batch(xs, ys, asked.astype(np.float32), classes=symbols)
