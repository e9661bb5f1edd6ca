"""The batches of a training run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import InputError

Data = Iterable[Any] | Callable[[int], Iterable[Any]]
"""Batches for every epoch, or a function of the epoch's number that gives them."""


class TrainingBatch(NamedTuple):
    """Inputs, targets and mask of one update; the mask is None if all steps count alike."""

    xs: Any
    ys: Any
    mask: Any


Batches = Sequence[TrainingBatch] | Iterator[TrainingBatch]


def batches_of(data: Data, epoch: int) -> Batches:
    """The batches of an epoch: a list if their number is known, otherwise an iterator."""
    items = data(epoch) if callable(data) else data
    if isinstance(items, Sequence):
        return [_as_batch(item) for item in items]
    return (_as_batch(item) for item in items)


def batch_count(batches: Batches) -> int | None:
    return len(batches) if isinstance(batches, Sequence) else None


def _as_batch(item: Any) -> TrainingBatch:
    # By attributes first: a named tuple with xs and ys may have them in any order.
    if hasattr(item, "xs") and hasattr(item, "ys"):
        return TrainingBatch(item.xs, item.ys, getattr(item, "mask", None))
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return TrainingBatch(item[0], item[1], item[2] if len(item) == 3 else None)
    raise InputError(
        f"a batch is of type {type(item).__name__}, but must be (xs, ys), (xs, ys, mask), or an object with the "
        "attributes xs and ys."
    )


def check_data(name: str, data: Any, epochs: int) -> None:
    """Raises :class:`InputError` unless the data have batches for every epoch."""
    if not (callable(data) or isinstance(data, Iterable)):
        raise InputError(
            f"{name} is {data!r}; pass a list of batches (xs, ys), or a function of the epoch that returns them."
        )
    # An iterator is its own iterator: it is used up after one pass. The data held out is gone through every epoch.
    only_once = not callable(data) and iter(data) is data
    if only_once and (epochs > 1 or name == "held_out"):
        raise InputError(
            f"{name} can be iterated only once, but there are {epochs} epochs; pass a list, or a function that "
            "returns the batches of an epoch, as in `lambda epoch: make_batches(seed=epoch)`."
        )
