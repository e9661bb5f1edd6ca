"""Metrics for training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError
from ..options import check_function

Metric = Callable[[Any, Any, Any], Any]
"""``metric(outputs, ys, mask) -> number``, time-major."""


def accuracy(outputs: Any, ys: Any, mask: Any = None) -> jax.Array:
    """The fraction of correctly predicted classes over the steps that count.

    Args:
        outputs: ``[T, ..., classes]``.
        ys: class numbers, ``[T, ...]``, or ``[...]`` where a sample has the same class at all steps.
        mask: ``[T]``; steps with weight zero do not count. Where none counts, the accuracy is zero.
    """
    if jnp.shape(ys) == outputs.shape[1:-1] != outputs.shape[:-1]:
        ys = jnp.broadcast_to(ys, outputs.shape[:-1])
    if jnp.shape(ys) != outputs.shape[:-1]:
        raise InputError(
            f"accuracy needs one class per output, so ys of shape {list(outputs.shape[:-1])}, but ys has shape "
            f"{list(jnp.shape(ys))}; write your own metric for other targets."
        )
    right = (jnp.argmax(outputs, axis=-1) == ys).astype(jnp.promote_types(jnp.float32, outputs.dtype))
    by_step = right.reshape(right.shape[0], -1).mean(axis=1)
    # Samples of a step first, then steps by weight, so that a mask with fractions weighs steps as the loss does.
    weights = jnp.ones_like(by_step) if mask is None else jnp.asarray(mask, by_step.dtype)
    return (by_step * weights).sum() / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)


def checked_metrics(metrics: Any) -> dict[str, Metric]:
    example = '{"accuracy": ranvier.accuracy}'
    if not isinstance(metrics or {}, Mapping) or not all(isinstance(name, str) for name in metrics or ()):
        raise InputError(f"metrics is {metrics!r}; pass a dictionary of functions by name, e.g. {example}.")
    for name, metric in (metrics or {}).items():
        if name in ("epoch", "loss") or name.startswith("eval_"):
            raise InputError(f"the metric name {name!r} is already used in fit's history; choose another.")
        check_function(
            f"metrics[{name!r}]",
            metric,
            ("outputs", "ys", "mask"),
            "lambda outputs, ys, mask: ...",
            InputError,
            hashed=False,
        )
    return dict(metrics or {})
