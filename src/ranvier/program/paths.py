"""Paths name states and parameters: tuples of strings and integers, as brainstate and JAX give them."""

from __future__ import annotations

from typing import Any

import jax

Path = tuple[Any, ...]


def path_text(path: Path) -> str:
    """The path for a person: parts joined by dots, long generated parts shortened to an ellipsis."""
    parts = [str(part) for part in path]
    return ".".join(part if len(part) <= 32 and " " not in part else "…" for part in parts) or "value"


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
