"""Inputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..errors import InputError


def inputs_by_name(inputs: Any, names: Sequence[str], of: str) -> dict[str, Any]:
    """Values for every input in order: from a mapping with exactly these names, or from the value of the only one.

    That value may stand in a tuple, as the arguments of a step do.

    Args:
        inputs: a mapping from name to values, or the values of the only input.
        names: the names of all inputs.
        of: what has these inputs, for the message.

    Raises:
        InputError: a name is missing or unknown; the message lists all.
    """
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(f"{of} has the inputs {list(names)}; pass a mapping from name to values.")
        in_tuple = isinstance(inputs, tuple) and len(inputs) == 1 and hasattr(inputs[0], "shape")
        return {names[0]: inputs[0] if in_tuple else inputs}
    if set(inputs) != set(names):
        raise InputError(f"got inputs for {sorted(map(str, inputs))}, but {of} has {sorted(names)}.")
    return {name: inputs[name] for name in names}


def check_names(inputs: Any, expected: Any, of: str) -> None:
    """Passes unless mappings among the inputs have other names than expected.

    Args:
        inputs: a tree of inputs; only its structure counts.
        expected: a tree of inputs with the names that are expected.
        of: what has these inputs, for the message.

    Raises:
        InputError: the names differ; the message lists all.
    """
    names, wanted = _leaf_names(inputs), _leaf_names(expected)
    if names != wanted and any(isinstance(key, str) for key in (*names, *wanted)):
        raise InputError(f"got inputs for {_listed(names)}, but {of} has {_listed(wanted)}.")


def _leaf_names(tree: Any) -> list[Any]:
    """For every leaf the keys of the mappings around it as text, or its number where there are none."""
    names = []
    for number, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        keys = [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
        names.append(".".join(keys) if keys else number)
    return names


def _listed(names: Sequence[Any]) -> str:
    return str([name if isinstance(name, str) else "an array without a name" for name in names])
