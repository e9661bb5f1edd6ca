"""What frontends share: a :class:`ModuleInfo` from a step over the leaves of slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError, RanvierError, reason_text
from ..program.diagnostic import Diagnostic
from ..program.normalize import normalize
from ..program.paths import Path, leaf_path
from ..program.program import ModuleInfo, Slot, shape_text
from .units import is_quantity

Leaves = list[Any]
SlotStep = Callable[[Any, Leaves, Leaves, Leaves], tuple[Any, Leaves, Leaves]]
"""``(inputs, parameters, hidden, other) -> (output, new hidden, new other)``."""


def named_leaves(tree: Any, root: str) -> list[tuple[Path, Any]]:
    """The leaves of a pytree with their key paths; quantities are leaves, and a pytree of one leaf is called
    ``root``."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_quantity)
    return [(leaf_path(path) or (root,), leaf) for path, leaf in leaves]


def build_program(
    step: SlotStep,
    inputs: tuple[Any, ...],
    parameters: Sequence[Slot],
    hidden: Sequence[Slot],
    other: Sequence[Slot],
    *,
    name: str,
    notes: Sequence[Diagnostic],
    remedy: str,
) -> ModuleInfo:
    """Traces ``step(inputs, parameter leaves, hidden leaves, other leaves)`` into a program.

    Raises:
        InputError: an input is not an array, or the step cannot be traced with these inputs.
    """
    input_leaves, input_treedef = jax.tree.flatten(inputs)
    input_avals = tuple(_abstract(leaf, name) for leaf in input_leaves)
    slots = (parameters, hidden, other)
    counts = [len(input_avals), *(sum(len(slot.leaves) for slot in group) for group in slots)]
    avals = [*input_avals, *(leaf for group in slots for slot in group for leaf in slot.leaves)]
    result: dict[str, Any] = {}

    def flat_step(*operands: Any) -> list[Any]:
        parts = _split(operands, counts)
        output, new_hidden, new_other = step(jax.tree.unflatten(input_treedef, parts[0]), *parts[1:])
        leaves, result["treedef"] = jax.tree.flatten(output)
        result["avals"] = tuple(jax.typeof(leaf) for leaf in leaves)
        return [*leaves, *new_hidden, *new_other]

    # The step runs twice: the first time only to know how many of its results are outputs.
    num_outputs = len(_probe(flat_step, avals, name, input_avals, _remedy(remedy, inputs))) - counts[2] - counts[3]
    closed = normalize(flat_step, avals, slice(num_outputs, num_outputs + counts[2]))
    return ModuleInfo(
        closed_jaxpr=closed,
        input_treedef=input_treedef,
        output_treedef=result["treedef"],
        input_avals=input_avals,
        output_avals=result["avals"],
        parameters=tuple(parameters),
        hidden=tuple(hidden),
        other=tuple(other),
        name=name,
        notes=tuple(notes),
    )


def _split(values: Sequence[Any], counts: Sequence[int]) -> list[Leaves]:
    """Consecutive parts of some lengths."""
    ends = [0, *accumulate(counts)]
    return [list(values[start:end]) for start, end in pairwise(ends)]


def _remedy(remedy: str, inputs: tuple[Any, ...]) -> str:
    """A remedy, with a hint at a common mistake: the error that a tuple of one input causes does not show it."""
    if any(isinstance(argument, tuple) and len(argument) == 1 for argument in inputs):
        return f"{remedy}; the inputs of a step are arguments one after the other: x, not (x,)"
    return remedy


def _abstract(leaf: Any, name: str) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.typeof(jnp.zeros(leaf.shape, leaf.dtype))
    try:
        return jax.typeof(jnp.asarray(leaf))
    except (TypeError, ValueError):
        raise InputError(
            f"an example input of {name} is {leaf!r} of type {type(leaf).__name__}, which is not an array; "
            "pass arrays such as jnp.zeros(n_inputs)."
        ) from None


def _probe(function: Callable[..., Any], avals: Sequence[Any], name: str, inputs: Sequence[Any], remedy: str) -> Any:
    """The shapes of a function's results; an error that names the inputs if it cannot run."""
    try:
        return jax.eval_shape(function, *avals)
    except RanvierError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{aval.dtype}{shape_text(aval.shape)}" for aval in inputs) or "no inputs"
        raise InputError(f"{name} cannot be traced with {shapes}: {reason_text(error)} ({remedy}).") from error
