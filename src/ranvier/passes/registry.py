"""Passes by name: those that come with Ranvier, and others by the entry point group ``ranvier.passes``."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from importlib.metadata import entry_points

from ..errors import PassError
from .base import Pass

GROUP = "ranvier.passes"
BUILT_IN = (
    "canonicalize",
    "common-projections",
    "connections",
    "dead-code",
    "dead-neurons",
    "fold-constants",
    "fuse",
    "merge-neurons",
    "prune",
    "quantize",
    "untie",
)
"""Names of the passes here; a pass ``some-name`` is the class SomeName in ``some_name.py``."""


def pass_names() -> list[str]:
    """All names that are known."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def pass_class(name: str) -> type[Pass]:
    """The pass of a name.

    Raises:
        PassError: there is none; the message lists those that there are.
    """
    if name in BUILT_IN:
        module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        return getattr(module, "".join(part.title() for part in name.split("-")))
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    near = get_close_matches(name.replace("_", "-"), pass_names(), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise PassError(f"there is no pass {name!r}; there are {', '.join(pass_names())}.{hint}")
