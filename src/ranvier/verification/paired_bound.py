"""How much a change may cost on data that nobody has seen: a bound from samples measured before and after it.

Each sample is measured twice, so what makes samples easy or hard cancels, and only the samples that change count. The
samples are drawn again and again with replacement (a paired bootstrap; Efron and Tibshirani 1993, chapter 13), and the
bound is the quantile of the losses of all draws at the stated confidence.

For example, 100 images, of which none is classified otherwise after the change. A plain bootstrap would give a bound of
0, but a change that spoils two of a hundred images leaves 100 images as they are in one of eight data sets. Therefore
one more sample is added, which loses the most that a sample can. It is drawn 3 times or fewer in at least 95 % of the
draws, so the bound is 3 / 101: the rule of three. The same sample makes the bound of conformal risk control
(Angelopoulos et al. 2022, arXiv 2208.02814).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

DRAWS = 4000
SEED = 0
AT_ONCE = 4_000_000
"""Counts of drawn samples that are in memory at the same time."""

MOST = 100.0
"""Logarithm of more samples than anybody has."""

Loss = Callable[[np.ndarray], np.ndarray]
"""Of sums over samples, ``[..., columns]``: the loss, ``[...]``."""


@dataclass(frozen=True, eq=False)
class PairedSamples:
    """What a change cost each sample.

    Attributes:
        columns: ``[samples, columns]``, so that the loss is a function of the sums of columns.
        worst: ``[columns]``: a sample that loses the most that one can.
        loss: of sums over samples.
    """

    columns: np.ndarray
    worst: np.ndarray
    loss: Loss

    @property
    def samples(self) -> int:
        return len(self.columns)

    @cached_property
    def estimate(self) -> float:
        """The loss on the samples."""
        return float(self.loss(self.columns.sum(axis=0)))

    def bound(self, confidence: float) -> float:
        """What the loss on unseen samples is at most, with this confidence."""
        # Samples that cost the same are drawn together: accuracy has three kinds of them, however many samples it has.
        kinds, counts = np.unique(np.vstack([self.columns, self.worst]), axis=0, return_counts=True)
        total = int(counts.sum())
        rng, losses = np.random.default_rng(SEED), []
        at_once = max(1, AT_ONCE // len(kinds))
        for start in range(0, DRAWS, at_once):
            drawn = rng.multinomial(total, counts / total, size=min(at_once, DRAWS - start))
            losses.append(self.loss(drawn @ kinds))
        # "higher": of two neighboring draws the one that costs more, so that the bound is not below the confidence.
        return float(np.quantile(np.concatenate(losses), confidence, method="higher"))

    def needed(self, limit: float, confidence: float) -> int | None:
        """About how many samples would show that the loss is within a limit, if they cost what these do.

        None if the loss is over the limit, or at it: then no number of samples would.
        """
        from scipy import optimize  # takes long to import, and most runs never get here

        if self.estimate >= limit:
            return None
        # The added sample moves the mean by worst / n; the spread of the draws is that of the samples and its own. With
        # samples that all cost the same, the bound is -ln(1 - confidence) worst / n, 3 / n for 95 %.
        worst = max(self._one_worst() - self.estimate, 0.0)
        z, rare = float(special.ndtri(confidence)), -math.log1p(-confidence) - 1.0

        def over(log_samples: float) -> float:
            n = math.exp(log_samples)
            spread = math.hypot(z * self._spread / math.sqrt(n), rare * worst / n)
            return self.estimate + worst / n + spread - limit

        return 1 if over(0.0) <= 0 else math.ceil(math.exp(float(optimize.brentq(over, 0.0, MOST))))  # pyright: ignore[reportArgumentType]

    @cached_property
    def _spread(self) -> float:
        """The standard deviation of the loss of one sample, from leaving out each of them in turn (jackknife)."""
        rest = self.columns.sum(axis=0) - self.columns
        return float(np.std(self.loss(rest))) * (self.samples - 1) if self.samples > 1 else 0.0

    def _one_worst(self) -> float:
        return float(self.loss(self.worst))


def mean_loss(sums: np.ndarray) -> np.ndarray:
    """The mean of the first column; the second counts samples."""
    return sums[..., 0] / sums[..., 1]


def root_mean_square_loss(sums: np.ndarray) -> np.ndarray:
    """The root of the mean square change of the outputs relative to their mean square: columns of both squares."""
    change, size = sums[..., 0], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.sqrt(change / size)
    return np.where(change == 0, 0.0, relative)
