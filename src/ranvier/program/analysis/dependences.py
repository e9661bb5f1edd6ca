"""Dependences of a value on others, and how they join and follow one another."""

from __future__ import annotations

from collections.abc import Sequence

from .position_map import Maps, compose, union

Key = tuple[int, bool]
"""Number of an operand or target, and whether a derivative passes."""

Dependences = dict[Key, Maps]


def add_dependence(into: Dependences, key: Key, maps: Maps, target_size: int, source_size: int) -> None:
    """Adds the maps under this key, in place."""
    into[key] = union(into[key], maps, target_size, source_size) if key in into else maps


def chained(
    outer: Maps, outer_gradient: bool, inner: Dependences, target_size: int, sizes: Sequence[int]
) -> Dependences:
    """Dependences through a middle value: ``outer`` to the middle, ``inner`` from there."""
    result: Dependences = {}
    for (operand, gradient), maps in inner.items():
        through = compose(outer, maps, target_size, sizes[operand])
        if through != ():
            add_dependence(result, (operand, gradient and outer_gradient), through, target_size, sizes[operand])
    return result
