"""The parameters of a call: from values by path, or in the model's own structure, to the program's leaves, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError
from ...program._jax import is_complex, is_floating
from ...program.paths import Path, path_text
from ...program.program import ModuleInfo, Slot, shape_text


def parameter_leaves(info: ModuleInfo, by_path: Mapping[Path, Any] | None) -> list[jax.Array]:
    """The leaves of all parameters, with the values passed in place of the model's own.

    Raises:
        InputError: a path is no parameter, or a value does not fit.
    """
    if by_path is not None and not isinstance(by_path, Mapping):
        raise InputError(
            f"params is a {type(by_path).__name__}, but must be a dictionary of values by path, like learner.params, "
            "or have the structure of the model's own parameters; write {**learner.params, path: value}."
        )
    passed = dict(by_path or {})
    leaves = []
    for slot in info.parameters:
        leaves += checked_leaves(slot, passed.pop(slot.path)) if slot.path in passed else slot.initial
    if passed:
        known = ", ".join(path_text(slot.path) for slot in info.parameters) or "none"
        unknown = ", ".join(path_text(path) if isinstance(path, tuple) else repr(path) for path in passed)
        remedy = next((f"; a path is a tuple, {(path,)!r}" for path in passed if isinstance(path, str)), "")
        raise InputError(f"params has {unknown}, but the parameters of {info.name} are {known}{remedy}.")
    return [jnp.asarray(leaf) for leaf in leaves]


def checked_leaves(slot: Slot, value: Any) -> list[jax.Array]:
    """The leaves of a value for a slot, in the slot's dtypes."""
    leaves, treedef = jax.tree.flatten(value)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if treedef != slot.treedef:
        raise InputError(
            f"the value for {path_text(slot.path)} is {_form_text(treedef)}, but the parameter is "
            f"{_form_text(slot.treedef)} (* stands for an array); pass a value of the same form and unit as in "
            "learner.params."
        )
    if shapes != [leaf.shape for leaf in slot.leaves]:
        raise InputError(
            f"the value for {path_text(slot.path)} has shape {' '.join(map(shape_text, shapes)) or 'none'}, but the "
            f"parameter has {slot.shapes_text}; pass a value of the same shape as in learner.params."
        )
    arrays = [jnp.asarray(leaf) for leaf in leaves]
    for array, aval in zip(arrays, slot.leaves, strict=True):
        # A cast between float sizes is an everyday thing; integers in place of floats are a mistake more often than
        # not.
        same_kind = is_floating(array.dtype) == is_floating(aval.dtype)
        if not same_kind or (is_complex(array.dtype) and not is_complex(aval.dtype)):
            raise InputError(
                f"the value for {path_text(slot.path)} has dtype {array.dtype}, but the parameter has dtype "
                f"{aval.dtype}; convert it first."
            )
    return [array.astype(aval.dtype) for array, aval in zip(arrays, slot.leaves, strict=True)]


def _form_text(treedef: Any) -> str:
    return str(treedef).removeprefix("PyTreeDef(").removesuffix(")")


def values_by_path(slots: Sequence[Slot], leaves: Sequence[Any]) -> dict[Path, Any]:
    """Values by path from the leaves of all slots."""
    values, start = {}, 0
    for slot in slots:
        end = start + len(slot.leaves)
        values[slot.path] = jax.tree.unflatten(slot.treedef, list(leaves[start:end]))
        start = end
    return values
