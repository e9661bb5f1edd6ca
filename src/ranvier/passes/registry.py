"""Passes by name: those of Ranvier, and those of other packages in the entry point group ``ranvier.passes``."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import entry_points

from ..errors import PassError
from .base import Pass
from .canonicalize import Canonicalize
from .common_projections import CommonProjections
from .connections import Connections
from .dead_code import DeadCode
from .dead_neurons import DeadNeurons
from .fold_constants import FoldConstants
from .fuse import Fuse
from .merge_neurons import MergeNeurons
from .prune import Prune
from .quantize import Quantize
from .untie import Untie

GROUP = "ranvier.passes"
PASSES: tuple[type[Pass], ...] = (
    Canonicalize,
    CommonProjections,
    Connections,
    DeadCode,
    DeadNeurons,
    FoldConstants,
    Fuse,
    MergeNeurons,
    Prune,
    Quantize,
    Untie,
)
BUILT_IN: dict[str, type[Pass]] = {built_in.name: built_in for built_in in PASSES}
"""The passes of Ranvier; a pass ``some-name`` is the class SomeName in ``some_name.py``."""


def pass_names() -> list[str]:
    """The names of all passes, sorted."""
    return sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})


def pass_class(name: str) -> type[Pass]:
    """The class of a pass.

    Raises:
        PassError: no pass has this name; the message lists the names.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()
    near = get_close_matches(name.replace("_", "-"), pass_names(), 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise PassError(f"there is no pass {name!r}; the passes are {', '.join(pass_names())}.{hint}")
