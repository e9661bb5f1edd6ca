"""Metrics of a network's outputs: how good it is on every sample, and on all of them.

For example, two samples with the labels 1 and 0, and an output of two elements whose sums over time are [3 5] for the
first sample and [2 4] for the second. Both samples are classified as 1, so their scores are 1 and 0, and the accuracy
is 0.5.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..errors import InputError

Metric = Callable[..., Any]
"""``metric(outputs, labels, mask) -> number``, time first; a larger number is better. Without a mask,
``metric(outputs, labels)`` will do."""

EXAMPLE = "lambda outputs, labels, mask: ..."
ROUNDING = 1e-4
"""Difference between a metric of all samples and the mean over single ones that counts as rounding."""


def checked_metric(metric: Any, mask: np.ndarray | None) -> Metric:
    """A metric of outputs, labels and mask.

    Raises:
        InputError: it is not a function of these.
    """
    if not callable(metric):
        raise InputError(f"metric is {metric!r}; pass a function, {EXAMPLE}.")
    if _takes(metric, 3):
        return metric
    if mask is not None or not _takes(metric, 2):
        wanted = "weighs the steps, so the metric takes it too" if mask is not None else "or outputs and labels"
        raise InputError(f"metric {metric!r} must take outputs, labels and mask ({wanted}): {EXAMPLE}.")
    return lambda outputs, labels, mask: metric(outputs, labels)


def _takes(function: Any, arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return arguments == 3
    return True


def class_scores(output: np.ndarray, labels: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Whether samples are classified correctly, 1 or 0, float64 ``[samples]``.

    Args:
        output: ``[T, samples, *shape]``.
        labels: one class per sample, ``[samples]``: it is compared with the largest sum over steps, weighed by the
            mask; or one per step, ``[T, samples]``: the score is the weight of the steps whose largest element it is.
        mask: ``[T]``, weights of steps.
    """
    weights = np.ones(len(output)) if mask is None else mask
    flat = output.reshape(*output.shape[:2], -1)
    if labels.ndim == 1:
        return (np.tensordot(weights, flat, 1).argmax(axis=1) == labels).astype(np.float64)
    right = (flat.argmax(axis=2) == labels).astype(np.float64)
    return weights @ right / max(float(weights.sum()), np.finfo(np.float64).tiny)


def sample_scores(metric: Metric, outputs: Any, labels: Any, mask: Any, samples: int) -> np.ndarray | None:
    """The metric of every sample, ``[samples]``; None if the metric of all samples is not the mean of these.

    Args:
        metric: of outputs ``[T, samples, ...]``.
        outputs, labels, mask: its arguments; labels have the axis of samples second, or as their only one.
        samples: their number.
    """
    whole = number(metric(outputs, labels, mask))
    try:
        scores = _all_at_once(metric, outputs, labels, mask)
    except Exception:  # a metric in numpy does not take JAX's tracers, and says so in many ways
        scores = np.array([score_of(metric, outputs, labels, mask, np.array([k])) for k in range(samples)])
    scale = max(abs(whole), float(np.abs(scores).max(initial=0.0)), 1e-30)
    return scores if abs(scores.mean() - whole) <= ROUNDING * scale else None


def _all_at_once(metric: Metric, outputs: Any, labels: Any, mask: Any) -> np.ndarray:
    """The metric of every sample, for one written in JAX: hundreds of calls take seconds, one takes milliseconds."""
    axis = 0 if labels is not None and labels.ndim == 1 else 1

    def of_sample(sample: Any, label: Any) -> Any:
        alone = jax.tree.map(lambda x: x[:, None], sample)
        return metric(alone, jax.tree.map(lambda x: jax.numpy.expand_dims(x, axis), label), mask)

    values = jax.tree.map(jax.numpy.asarray, outputs)
    scores = jax.vmap(of_sample, in_axes=(1, None if labels is None else axis))(values, labels)
    return np.asarray(scores, np.float64)


def number(value: Any) -> float:
    """A metric's value as a float.

    Raises:
        InputError: it is not one finite number.
    """
    try:
        result = float(np.asarray(value))
    except (TypeError, ValueError):
        result = float("nan")
    if not np.isfinite(result):
        raise InputError(f"the metric returned {value!r}; one finite number is expected, for example an accuracy.")
    return result


def score_of(metric: Metric, outputs: Any, labels: Any, mask: Any, chosen: np.ndarray) -> float:
    """The metric of some samples, which may repeat."""
    return number(metric(*_taken(outputs, labels, chosen), mask))


def _taken(outputs: Any, labels: Any, chosen: np.ndarray) -> tuple[Any, Any]:
    """Outputs and labels of some samples."""
    taken = jax.tree.map(lambda x: x[:, chosen], outputs)
    return taken, None if labels is None else labels[chosen] if labels.ndim == 1 else labels[:, chosen]
