"""Compression while a network trains: weights that are pruned step by step, and weights that are rounded.

The network runs with compressed weights, and the optimizer moves full-precision ones behind them. Where rounding is
between the two, the gradient with respect to the compressed weights stands for that of the others (the straight-through
estimator; Bengio et al. 2013, arXiv 1308.3432); where a weight is pruned, it is zero. All of it happens before and
after the gradient is computed, so it is the same for every learning rule.

For example, a weight of 0.83 rounded to tenths, with a gradient of 2 and a learning rate of 0.1:

    runs with    0.8
    gradient     2, at 0.8
    update       0.83 becomes 0.63
    runs with    0.6, and ends so: the result of the training has the weight 0.6
"""

from __future__ import annotations

import abc
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import InputError
from ...program.paths import Path, path_text
from ...util.ranking import lowest
from ...util.schedule import cubic

Values = Mapping[Path, Any]
"""Parameters by path."""
BITS = (2, 16)
SCOPES = ("global", "parameter")


@dataclass(frozen=True)
class Compression(abc.ABC):
    """What is done to parameters while they are trained; an entry of ``ranvier.fit(..., compress=[...])``.

    Attributes:
        only: paths of the parameters concerned; None for all weights, which are arrays of two axes or more and arrays
            called "weight".
    """

    only: Collection[Path] | None = field(default=None, kw_only=True)

    @abc.abstractmethod
    def start(self, params: Values) -> Any:
        """Its state before the first epoch: a pytree of arrays, which checkpoints hold."""

    def at_epoch(self, state: Any, params: Values, epoch: int, epochs: int) -> Any:
        """Its state in an epoch, from 0 on."""
        return state

    @abc.abstractmethod
    def applied(self, state: Any, params: Values) -> Values:
        """The parameters that the network runs with."""

    def pulled(self, state: Any, gradients: Values) -> Values:
        """Gradients with respect to the parameters, from those with respect to what the network runs with."""
        return gradients

    def weights(self, params: Values) -> list[Path]:
        """The paths of the parameters concerned.

        Raises:
            InputError: a path of ``only`` is not there, or there are no weights.
        """
        if self.only is not None:
            missing = [path for path in self.only if path not in params]
            if missing:
                raise InputError(
                    f"{type(self).__name__}(only=...) has {', '.join(map(path_text, missing))}, which is no parameter; "
                    f"there are {', '.join(map(path_text, params))}."
                )
            return list(self.only)
        weights = [path for path, value in params.items() if any(_is_weight(path, x) for x in jax.tree.leaves(value))]
        if not weights:
            raise InputError(
                f"{type(self).__name__} concerns arrays of two axes or more, and there are none; name others with "
                "only=[path]."
            )
        return weights


def _is_weight(path: Path, leaf: Any) -> bool:
    return jnp.ndim(leaf) >= 2 or (path[-1] == "weight" and jnp.ndim(leaf) == 1)


@dataclass(frozen=True)
class Masking(Compression):
    """A compression whose state is masks, by path: one where a weight is present."""

    def applied(self, state: Any, params: Values) -> Values:
        return _masked(params, state)

    def pulled(self, state: Any, gradients: Values) -> Values:
        return _masked(gradients, state)


@dataclass(frozen=True)
class HeldMasks(Masking):
    """Keeps weights at zero where a mask is.

    Attributes:
        masks: by path, one where a weight is present, of the parameter's shape.
    """

    masks: Mapping[Path, Any] | None = None

    def start(self, params: Values) -> Any:
        return {path: jnp.asarray(mask, jnp.result_type(params[path])) for path, mask in (self.masks or {}).items()}


@dataclass(frozen=True)
class GradualPruning(Masking):
    """Sets the smallest weights to zero, more of them from epoch to epoch, and holds them there.

    The part that is zero rises as ``sparsity (1 - (1 - t)^3)``, with t from 0 to 1 between two epochs: fast at first,
    when there are many weights to spare, and slowly at the end (Zhu and Gupta 2017, arXiv 1710.01878).

    Attributes:
        sparsity: the part of the weights that is zero at the end, from 0 to below 1.
        start_epoch, end_epoch: the first epoch with pruned weights, counted from 0, and the first with all of them
            pruned; by default at two thirds of the training, so that the rest of it makes up for the loss.
        scope: whether weights are ranked within each ``"parameter"``, or all together, ``"global"``.

    Raises:
        InputError: a value is out of range.
    """

    sparsity: float = 0.9
    start_epoch: int = 0
    end_epoch: int | None = None
    scope: str = "parameter"

    def __post_init__(self) -> None:
        if not (isinstance(self.sparsity, (int, float)) and 0 <= self.sparsity < 1):
            raise InputError(
                f"GradualPruning: sparsity={self.sparsity!r} must be a number from 0 to below 1, such as 0.9."
            )
        if self.scope not in SCOPES:
            raise InputError(f"GradualPruning: scope={self.scope!r} is unknown; use one of {', '.join(SCOPES)}.")
        if self.start_epoch < 0 or (self.end_epoch is not None and self.end_epoch < self.start_epoch):
            raise InputError(
                f"GradualPruning: epochs {self.start_epoch} to {self.end_epoch} are no range; the first epoch is 0."
            )

    def start(self, params: Values) -> Any:
        return {path: jax.tree.map(jnp.ones_like, params[path]) for path in self.weights(params)}

    def at_epoch(self, state: Any, params: Values, epoch: int, epochs: int) -> Any:
        part = self.part(epoch, epochs)
        # A pruned weight has the magnitude zero, whatever the optimizer makes of the value behind it, so it stays.
        magnitudes, tree = jax.tree.flatten({p: jax.tree.map(jnp.abs, _masked(params, state)[p]) for p in state})
        together = [jnp.concatenate([jnp.ravel(x) for x in magnitudes])]
        groups = together if self.scope == "global" else [jnp.ravel(x) for x in magnitudes]
        flat = np.concatenate([~lowest(np.asarray(group), part) for group in groups])
        ends = np.cumsum([x.size for x in magnitudes])[:-1]
        parts = zip(np.split(flat, ends), magnitudes, strict=True)
        return jax.tree.unflatten(tree, [jnp.asarray(mask.reshape(x.shape), x.dtype) for mask, x in parts])

    def part(self, epoch: int, epochs: int) -> float:
        """The part of the weights that is zero in an epoch, counted from 0."""
        if epoch < self.start_epoch:
            return 0.0
        last = self.end_epoch
        if last is None:
            last = self.start_epoch + math.ceil(2 / 3 * (epochs - self.start_epoch)) - 1
        progress = min(1.0, (epoch - self.start_epoch + 1) / (max(last, self.start_epoch) - self.start_epoch + 1))
        return cubic(self.sparsity, progress)


@dataclass(frozen=True)
class QuantizeAware(Compression):
    """Rounds weights to the numbers that ``quantize{format=intN}`` allows, while they are trained.

    These are the whole numbers from ``-(2^(bits - 1) - 1)`` to its opposite, times a scale that fits the largest
    weight.

    Attributes:
        bits: 2 to 16, the sign included.
        axis: the axis whose entries have a scale each, 0 for the rows of a graph's weights; None for one scale.
        start_epoch: the first epoch with rounded weights.

    Raises:
        InputError: a value is out of range.
    """

    bits: int = 8
    axis: int | None = None
    start_epoch: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.bits, int) and BITS[0] <= self.bits <= BITS[1]):
            raise InputError(f"QuantizeAware: bits={self.bits!r} must be a whole number from {BITS[0]} to {BITS[1]}.")

    def start(self, params: Values) -> Any:
        self.weights(params)
        return jnp.zeros(())

    def at_epoch(self, state: Any, params: Values, epoch: int, epochs: int) -> Any:
        return jnp.asarray(float(epoch >= self.start_epoch))

    def applied(self, state: Any, params: Values) -> Values:
        def rounded(leaf: Any) -> Any:
            return jnp.where(state > 0, self._on_grid(leaf), leaf).astype(leaf.dtype)

        return {**params, **{path: jax.tree.map(rounded, params[path]) for path in self.weights(params)}}

    def _on_grid(self, leaf: Any) -> Any:
        most = 2 ** (self.bits - 1) - 1
        axes = None if self.axis is None else tuple(k for k in range(leaf.ndim) if k != self.axis % leaf.ndim)
        largest = jnp.max(jnp.abs(leaf), axis=axes, keepdims=True)
        scale = jnp.where(largest > 0, largest / most, 1)
        return jnp.clip(jnp.round(leaf / scale), -most, most) * scale


def _masked(values: Values, masks: Values) -> Values:
    masked = {path: jax.tree.map(lambda x, m: x * m, values[path], mask) for path, mask in masks.items()}
    return {**values, **masked}


@dataclass(frozen=True)
class Compressions:
    """All compressions of a training, one after the other.

    Attributes:
        parts: in order: the second one gets what the first one has made.
    """

    parts: tuple[Compression, ...] = ()

    @classmethod
    def of(cls, compress: Any) -> Compressions:
        """From the keyword of :func:`ranvier.fit`.

        Raises:
            InputError: it is no list of compressions.
        """
        if isinstance(compress, Compression):
            compress = [compress]
        if not isinstance(compress, (list, tuple)) or not all(isinstance(part, Compression) for part in compress):
            raise InputError(
                f"compress={compress!r}: a list is expected, such as [ranvier.GradualPruning(0.9), "
                "ranvier.QuantizeAware(bits=8)]."
            )
        return cls(tuple(compress))

    def start(self, params: Values) -> tuple[Any, ...]:
        return tuple(part.start(params) for part in self.parts)

    def at_epoch(self, states: tuple[Any, ...], params: Values, epoch: int, epochs: int) -> tuple[Any, ...]:
        return tuple(
            part.at_epoch(state, params, epoch, epochs) for part, state in zip(self.parts, states, strict=True)
        )

    def applied(self, states: tuple[Any, ...], params: Values) -> Values:
        for part, state in zip(self.parts, states, strict=True):
            params = part.applied(state, params)
        return params

    def pulled(self, states: tuple[Any, ...], gradients: Values) -> Values:
        for part, state in zip(reversed(self.parts), reversed(states), strict=True):
            gradients = part.pulled(state, gradients)
        return gradients


NO_COMPRESSION = Compressions()
