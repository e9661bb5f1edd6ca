"""Inputs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from ..errors import InputError


def inputs_by_name(inputs: Any, names: Sequence[str], of: str) -> dict[str, Any]:
    """Values for every input in order: from a mapping with exactly these names, or from the value of the only one.

    That may be in a tuple, as the arguments of a step are.

    Args:
        inputs: as given.
        names: of all inputs.
        of: what has them, for the message.

    Raises:
        InputError: a name is missing or unknown; the message lists all.
    """
    if not isinstance(inputs, Mapping):
        if len(names) != 1:
            raise InputError(f"{of} has the inputs {list(names)}; give a mapping from name to values.")
        alone = isinstance(inputs, tuple) and len(inputs) == 1 and hasattr(inputs[0], "shape")
        return {names[0]: inputs[0] if alone else inputs}
    if set(inputs) != set(names):
        raise InputError(f"inputs are given for {sorted(map(str, inputs))}, {of} has {sorted(names)}.")
    return {name: inputs[name] for name in names}


def check_names(given: Any, expected: Any, of: str) -> None:
    """Passes unless mappings among the inputs have other names than expected.

    Args:
        given, expected: trees of inputs, of which only the structure counts.
        of: what has them, for the message.

    Raises:
        InputError: they have; the message lists all.
    """
    names, wanted = _leaf_names(given), _leaf_names(expected)
    if names != wanted and any(isinstance(key, str) for key in (*names, *wanted)):
        raise InputError(f"inputs are given for {_listed(names)}, {of} has {_listed(wanted)}.")


def _leaf_names(tree: Any) -> list[Any]:
    """Of every leaf the keys of the mappings around it as text, or its number where there are none."""
    found = []
    for number, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        keys = [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
        found.append(".".join(keys) if keys else number)
    return found


def _listed(names: Sequence[Any]) -> str:
    return str([name if isinstance(name, str) else "an array without a name" for name in names])
