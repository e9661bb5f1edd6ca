"""Where the elements of one array come from in another.

``u = roll(y, 1)`` of three elements has the map [2, 0, 1]: element 0 of u is element 2 of y.
``p = concatenate([y, 0])`` has [0, 1, 2, -1]: its last element comes from nowhere. Maps compose: ``q = p[1:]`` has
[1, 2, 3] into p, so [1, 2, -1] into y. ``s = y + roll(y, 1)`` depends on y in two ways, the identity and [2, 0, 1]; a
value that depends on another in more than ``MAX_MAPS`` ways is treated as mixed, because telling the ways apart would
cost more than it gains.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MAX_MAPS = 64
"""More maps than this between two arrays count as mixing."""

MAX_TURNS = 2**13
"""So do more than this into an array with an element for every turn of a loop."""


class PositionMap:
    """For every element of a target array, the flat index of the source element it depends on, or -1.

    ``index`` is None for the identity: element i of the target depends on element i of the source.
    """

    __slots__ = ("index",)

    def __init__(self, index: np.ndarray | None) -> None:
        self.index = index

    @classmethod
    def of(cls, index: np.ndarray, source_size: int) -> PositionMap:
        """The map with this index array, in canonical form."""
        flat = np.ascontiguousarray(index, dtype=np.int64).reshape(-1)
        # One form for the identity, so that most compositions and comparisons never look at an array.
        if flat.size == source_size and np.array_equal(flat, np.arange(source_size)):
            return IDENTITY
        return cls(flat)

    @property
    def is_identity(self) -> bool:
        return self.index is None

    @property
    def is_empty(self) -> bool:
        return self.index is not None and not bool((self.index >= 0).any())

    def indices(self, size: int) -> np.ndarray:
        """The index array, written out for a target of ``size`` elements."""
        return np.arange(size) if self.index is None else self.index

    def after(self, inner: PositionMap, source_size: int) -> PositionMap:
        """The map through both: this one from target to middle, ``inner`` from middle to source."""
        if self.index is None:
            return inner
        if inner.index is None:
            return PositionMap.of(self.index, source_size)
        reached = np.where(self.index >= 0, inner.index[self.index], -1)
        return PositionMap.of(reached, source_size)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PositionMap):
            return NotImplemented
        if self.index is None or other.index is None:
            return self.index is other.index
        return np.array_equal(self.index, other.index)

    def __hash__(self) -> int:
        return 0 if self.index is None else hash(self.index.tobytes())

    def __repr__(self) -> str:
        return "PositionMap(identity)" if self.index is None else f"PositionMap({self.index.tolist()})"


IDENTITY = PositionMap(None)
Maps = tuple[PositionMap, ...] | None
"""All the ways one array depends on another; None where they are too many to tell apart from mixing."""

ONLY_IDENTITY: Maps = (IDENTITY,)


def union(first: Maps, second: Maps, target_size: int, source_size: int) -> Maps:
    """The maps of both; maps that agree where both speak become one."""
    if first is second or first is None:
        return first
    if second is None or first == second:
        return second
    merged: list[PositionMap] = list(first)
    for candidate in second:
        _add(merged, candidate, target_size, source_size)
    return tuple(merged) if len(merged) <= _most_maps(target_size, source_size) else None


def _most_maps(target_size: int, source_size: int) -> int:
    """How many maps may lead from one array into another: more into one that is so many times its size, as is what a
    loop stacks along time."""
    return min(MAX_TURNS, max(MAX_MAPS, source_size // max(target_size, 1)))


def _add(maps: list[PositionMap], candidate: PositionMap, target_size: int, source_size: int) -> None:
    if candidate in maps or candidate.is_empty:
        return
    # Two maps that speak about different elements are one: the halves of a concatenation, say. Kept apart, every slice
    # and concatenation would double their number.
    for k, known in enumerate(maps):
        joined = _join(known, candidate, target_size, source_size)
        if joined is not None:
            maps[k] = joined
            return
    maps.append(candidate)


def _join(first: PositionMap, second: PositionMap, target_size: int, source_size: int) -> PositionMap | None:
    """One map that says what both say.

    None where they disagree on an element, or where together they would have one source element feed several target
    elements and neither does so: a value that goes to one slot or another is at one position with each of them.
    """
    a, b = first.indices(target_size), second.indices(target_size)
    if bool(((a >= 0) & (b >= 0) & (a != b)).any()):
        return None
    both = PositionMap.of(np.where(a >= 0, a, b), source_size)
    return None if not is_injective([both]) and is_injective([first, second]) else both


def compose(outer: Maps, inner: Maps, target_size: int, source_size: int) -> Maps:
    """All maps through ``outer`` and then ``inner``."""
    if outer is None or inner is None:
        return None
    if outer == ONLY_IDENTITY:
        return inner
    if inner == ONLY_IDENTITY:
        return outer
    result: list[PositionMap] = []
    for candidate in _all_through(outer, inner, target_size, source_size):
        _add(result, candidate, target_size, source_size)
    return tuple(result) if len(result) <= _most_maps(target_size, source_size) else None


def _all_through(
    outer: tuple[PositionMap, ...], inner: tuple[PositionMap, ...], target_size: int, source_size: int
) -> Iterable[PositionMap]:
    """Every map of ``outer`` and then every map of ``inner``, those that are many without repetition."""
    pairs = ((first, second) for second in inner for first in outer)
    if len(outer) * len(inner) <= MAX_MAPS:
        return [first.after(second, source_size) for first, second in pairs]
    # The same few maps come up again and again where the middle value holds the turns of a loop.
    return dict.fromkeys(first.after(second, source_size) for first, second in pairs)


def is_injective(maps: Iterable[PositionMap]) -> bool:
    """Whether, in each map, a source element feeds at most one target element."""
    for position_map in maps:
        if position_map.index is not None:
            used = position_map.index[position_map.index >= 0]
            if np.unique(used).size < used.size:
                return False
    return True
