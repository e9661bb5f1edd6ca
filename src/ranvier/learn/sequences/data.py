"""The data of a sequence, checked: inputs, targets and mask fit the model, or an error says why not.

For example, a model of 3 inputs in batches of 2, and ``reduction="mean"``:

    xs     [5, 2, 3] float64    ->  inputs  [[5, 2, 3]] float32, one array for every leaf
    ys     [5, 2] with NaN      ->  targets [5, 2], NaN of masked steps replaced by 0
    mask   [0, 1, 1, 1, 1]      ->  weights [0, 1/4, 1/4, 1/4, 1/4]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError
from ...program._jax import is_floating
from ...program.inputs import check_names
from ...program.program import ModuleInfo, shape_text
from ..kernel import Chunk


@dataclass(frozen=True, eq=False)
class SequenceForm:
    """The form that the sequences of a model have.

    Attributes:
        info: the model's program.
        batch_size: samples at once; None for the model as it is.
        reduction: ``"sum"`` or ``"mean"`` over the steps' losses.
    """

    info: ModuleInfo
    batch_size: int | None
    reduction: str

    def sequence(self, xs: Any, ys: Any, mask: Any) -> Chunk:
        """A sequence as one chunk.

        Raises:
            InputError: inputs, targets or mask do not fit the model, or one another.
        """
        inputs = self.inputs(xs)
        length = sequence_length(inputs, ys, mask)
        weights = self.weights(mask, length)
        return Chunk(inputs, targets(ys, mask), weights)

    def inputs(self, xs: Any) -> list[jax.Array]:
        """Input leaves ``[T, ...]``."""
        info = self.info
        leaves, treedef = jax.tree.flatten(self._arguments(xs))
        fits = treedef == info.input_treedef and all(
            jnp.shape(leaf)[1:] == aval.shape and jnp.ndim(leaf) == len(aval.shape) + 1
            for leaf, aval in zip(leaves, info.input_avals, strict=True)
        )
        if not fits:
            self._refuse(xs, leaves)
        return [_as_input(leaf, aval.dtype) for leaf, aval in zip(leaves, info.input_avals, strict=True)]

    def _arguments(self, xs: Any) -> tuple[Any, ...]:
        """The arguments of the step over time; a model with one takes it without a tuple."""
        info, count = self.info, len(self._argument_names)
        if count > 1 and not isinstance(xs, (tuple, list)):
            raise InputError(
                f"{info.name} takes {count} inputs, so xs must be a tuple of {count}, each with the steps along its "
                f"first axis, but got a {type(xs).__name__}."
            )
        if count == 1:
            # The argument may be a tuple itself: a tuple or list of one is that argument, or stands around it.
            is_around = (
                isinstance(xs, (tuple, list)) and len(xs) == 1 and jax.tree.structure(tuple(xs)) == info.input_treedef
            )
            return tuple(xs) if is_around else (xs,)
        return tuple(xs) if count else ()

    @property
    def _argument_names(self) -> tuple[Any, ...]:
        return jax.tree.unflatten(self.info.input_treedef, [0] * len(self.info.input_avals))

    def _refuse(self, xs: Any, leaves: list[Any]) -> None:
        check_names(self._arguments(xs), self._argument_names, self.info.name)
        expected = ", ".join(f"[T,{shape_text(aval.shape)[1:]}" for aval in self.info.input_avals) or "none"
        actual = ", ".join(shape_text(jnp.shape(leaf)) for leaf in leaves) or "none"
        raise InputError(
            f"{self.info.name} takes inputs of shape {expected} for T steps, time first, but got {actual}; "
            f"{self._remedy(xs, [jnp.shape(leaf)[1:] for leaf in leaves])}."
        )

    def _remedy(self, xs: Any, steps: list[tuple[int, ...]]) -> str:
        """Advice on inputs whose shapes in a step are these and do not fit."""
        if isinstance(xs, list):
            return "stack a list of steps with jnp.stack(xs)"
        wanted = [aval.shape for aval in self.info.input_avals]
        samples = {shape[:1] for shape in steps}
        if self.batch_size is not None and steps == [shape[1:] for shape in wanted]:
            return f"add a batch axis of size {self.batch_size} after the time axis"
        if len(samples) == 1 and [shape[1:] for shape in steps] == [shape[1:] for shape in wanted] and samples != {()}:
            ((number,),) = samples
            if self.batch_size is not None:
                return f"for {number} samples, use learner.with_batch_size({number})"
            return (
                "if that axis holds samples, compile a model of one sample with batch_size=; its learner then takes "
                "other batch sizes through with_batch_size"
            )
        return "pass xs with the steps along the first axis, or compile again with other example inputs"

    def weights(self, mask: Any, length: int) -> jax.Array:
        """Weight of the loss of each step, ``[T]``."""
        dtype = jnp.result_type(jnp.float32, *(jnp.finfo(slot.dtype).dtype for slot in self.info.hidden))
        weights = jnp.ones(length, dtype) if mask is None else jnp.asarray(mask).astype(dtype)
        if weights.ndim != 1:
            raise InputError(
                f"mask has shape {shape_text(weights.shape)}, but must have shape [T], since it weights steps; weight "
                "samples or outputs inside the loss."
            )
        # A mask of zeros gives a mean of 0, not NaN.
        return weights if self.reduction == "sum" else weights / jnp.maximum(weights.sum(), 1e-12)


def sequence_length(inputs: list[jax.Array], targets: Any, mask: Any) -> int:
    """The number of steps, which inputs, targets and mask must have in common."""
    named = [("xs", inputs), ("ys", targets), ("mask", mask)]
    by_name = {name: {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)} for name, tree in named}
    lengths = {length for lengths_of in by_name.values() for length in lengths_of}
    if len(lengths) != 1 or lengths <= {(), (0,)}:
        counts = "; ".join(f"{k} {sorted(n[0] if n else 'no time axis' for n in v)}" for k, v in by_name.items() if v)
        raise InputError(
            "xs, ys and mask need the same number of steps along their first axis, and at least one, but have "
            f"{counts or 'none'}; repeat a target that is the same at every step with jnp.broadcast_to."
        )
    return lengths.pop()[0]


def targets(ys: Any, mask: Any) -> Any:
    """The targets as arrays; those of steps that the mask leaves out may be NaN and count as zero then."""
    arrays = jax.tree.map(jnp.asarray, ys)
    if mask is None:
        return arrays

    def filled(target: jax.Array) -> jax.Array:
        if not is_floating(target.dtype):
            return target
        # A weight of 0 does not help against NaN: 0 times NaN is NaN.
        left_out = jnp.asarray(mask).reshape(-1, *[1] * (target.ndim - 1)) == 0
        return jnp.where(left_out & ~jnp.isfinite(target), jnp.zeros_like(target), target)

    return jax.tree.map(filled, arrays)


def _as_input(leaf: Any, dtype: Any) -> jax.Array:
    """An input in the model's dtype; numbers that would lose their kind are refused."""
    array = jnp.asarray(leaf)
    if array.dtype == dtype:
        return array
    # Rounding float64 is fine, and so is reading integers as real numbers. Complex to real loses the imaginary part,
    # and floats to integers make 0 of everything below 1.
    if jnp.promote_types(_kind(array.dtype), _kind(dtype)) != _kind(dtype):
        raise InputError(
            f"xs has dtype {array.dtype}, but the model was compiled for {dtype}, which cannot represent all its "
            f"values; convert xs, or compile again with example inputs of dtype {array.dtype}."
        )
    return array.astype(dtype)


def _kind(dtype: Any) -> Any:
    """The smallest dtype of a kind: Boolean, integer, floating or complex."""
    kinds = ((jnp.complexfloating, jnp.complex64), (jnp.floating, jnp.bfloat16), (jnp.integer, jnp.int8))
    return next((smallest for kind, smallest in kinds if jnp.issubdtype(dtype, kind)), jnp.bool_)
