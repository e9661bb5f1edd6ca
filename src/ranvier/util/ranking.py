"""Which of many values are the lowest."""

from __future__ import annotations

import numpy as np


def lowest(values: np.ndarray, part: float) -> np.ndarray:
    """A mask of the lowest values, a fraction ``part`` of all; of equal values the first."""
    mask = np.zeros(values.size, bool)
    mask[np.argsort(values, axis=None, kind="stable")[: round(part * values.size)]] = True
    return mask.reshape(values.shape)
