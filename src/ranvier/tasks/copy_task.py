"""Copy: a pattern of symbols, a delay, a recall cue; then the pattern is to be reproduced in order.

After the copy problem of Hochreiter and Schmidhuber (1997, Neural Computation 9, 1735) in the form of Arjovsky, Shah
and Bengio (2016, ICML).
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
    symbol_steps: int = 5,
    delay_steps: int = 10,
    group_size: int = 5,
    rate: float = 0.4,
    noise_rate: float = 0.05,
) -> Batch:
    """Trials ``xs[steps, batch, (symbols + 2) * group_size]``: one channel group a symbol, then recall, then noise."""
    rng = np.random.default_rng(seed)
    pattern = np.stack([balanced_labels(batch, symbols, rng) for _ in range(length)])
    shown, recall = length * symbol_steps, length * symbol_steps + delay_steps
    steps = recall + shown
    active = np.zeros((steps, batch, symbols + 1), bool)
    active[:shown, :, :symbols] = np.repeat(np.eye(symbols, dtype=bool)[pattern], symbol_steps, axis=0)
    active[recall:, :, symbols] = True
    noise = poisson_groups(np.ones((steps, batch, 1), bool), group_size, noise_rate, rng)
    xs = np.concatenate([poisson_groups(active, group_size, rate, rng), noise], axis=-1)
    ys = np.zeros((steps, batch), np.int32)
    ys[recall:] = np.repeat(pattern, symbol_steps, axis=0)
    mask = (np.arange(steps) >= recall).astype(np.float32)
    return Batch(xs, ys, mask, classes=symbols)
