"""Paths name states and parameters: tuples of strings and integers, as brainstate and JAX give them."""

from __future__ import annotations

from typing import Any

import jax

Path = tuple[Any, ...]
LONGEST = 32
"""Characters of a part that is made of a type or an object; brainpy has such keys."""


def path_text(path: Path) -> str:
    """The path for a person: parts joined by dots, those that a library generated shortened to an ellipsis."""
    return ".".join("…" if _is_generated(part) else part for part in map(str, path)) or "value"


def full_text(path: Path) -> str:
    """The path with all its parts, which tells it from others."""
    return ".".join(map(str, path)) or "value"


def _is_generated(part: str) -> bool:
    return len(part) > LONGEST and not {"(", "<", "{"}.isdisjoint(part)


def leaf_path(key_path: tuple[Any, ...]) -> Path:
    """The path of a leaf from the key path that ``jax.tree_util`` gives it."""
    return tuple(_key_name(key) for key in key_path)


def _key_name(key: Any) -> Any:
    match key:
        case jax.tree_util.DictKey(key=name):
            return name
        case jax.tree_util.GetAttrKey(name=name):
            return name
        case jax.tree_util.SequenceKey(idx=index):
            return index
        case jax.tree_util.FlattenedIndexKey(key=index):
            return index
        case _:
            return str(key)
