"""Handwritten digits, 0 to 9, as Poisson spike trains: 8 x 8 pixels, shown first and named afterward.

The 1797 images that come with scikit-learn: the test set of "Optical recognition of handwritten digits" (Alpaydin
and Kaynak 1998, UCI Machine Learning Repository).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..util.extras import require
from .batch import Batch
from .spikes import constant_labels, last_steps

CLASSES = 10
TEST_SHARE = 5
"""One of this many images of every class is held out for testing."""
SPLIT_SEED = 0


def load(*, steps: int = 20, answer_steps: int = 10, rate: float = 1.0, seed: int = 0) -> tuple[Batch, Batch]:
    """All images as trials ``xs[steps + answer_steps, batch, 64]``, pixels row by row: for training and for testing.

    A trial is ``steps`` in which pixels spike in proportion to their ink, then ``answer_steps`` of silence in which the
    class is asked for.

    Args:
        steps: steps during which the image is shown.
        answer_steps: steps after that.
        rate: spikes per step of the darkest ink.
        seed: the same seed gives the same spikes. The split into training and test images does not depend on it.

    Returns:
        Batches of 1442 and 355 trials with ``ys`` the digit, the same at all steps.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    images, digits = _images()
    held_out = _held_out(digits)
    rng = np.random.default_rng(seed)
    shown = rng.random((steps, *images.shape)) < rate * images
    xs = np.concatenate([shown, np.zeros((answer_steps, *images.shape), bool)]).astype(np.float32)
    length = steps + answer_steps
    batch = Batch(xs, constant_labels(digits, length), last_steps(length, answer_steps), CLASSES)
    return batch.take(~held_out), batch.take(held_out)


def _images() -> tuple[np.ndarray, np.ndarray]:
    """Ink between 0 and 1, ``[1797, 64]``, and digits ``[1797]``."""
    require("ranvier.tasks.digits", "train", "sklearn", error=ImportError)
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return bunch.data / bunch.data.max(), bunch.target


def _held_out(digits: np.ndarray) -> np.ndarray:
    """Whether an image is held out, boolean ``[batch]``: the same share of every class."""
    rng = np.random.default_rng(SPLIT_SEED)
    held_out = np.zeros(len(digits), bool)
    for digit in range(CLASSES):
        places = rng.permutation(np.flatnonzero(digits == digit))
        held_out[places[: len(places) // TEST_SHARE]] = True
    return held_out
