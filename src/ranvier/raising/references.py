"""Of what values an array of a step is made up by moving and adding alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..program.analysis.position_map import PositionMap

NOTHING = -1
"""In place of an element: zero."""


@dataclass(frozen=True)
class OldState:
    """A part of a state as it is before the step, or all of it.

    Attributes:
        state: number of the state, hidden states first, then other states.
        component: number of the part.
    """

    state: int
    component: int


@dataclass(frozen=True)
class Earlier:
    """What another root was some steps ago.

    Attributes:
        root: no earlier one itself.
        steps: at least one.
    """

    root: Any
    steps: int


Root = Any  # Var | OldState | Earlier
"""What is no sum of moved values: an input, an old state, the result of arithmetic, what one of these was some steps
ago, or what does not change."""


def base(root: Root) -> Root:
    """What a root is, or was some steps ago."""
    return root.root if isinstance(root, Earlier) else root


@dataclass(frozen=True, eq=False)
class MovedSource:
    """Elements of a root, moved.

    Attributes:
        root: whose.
        index: for every element of the result, flat, the number of the root's element, -1 for zero; None where element
            k is element k.
    """

    root: Root
    index: np.ndarray | None = None

    def moved(self, by: PositionMap, root_size: int) -> MovedSource:
        """The term after a further move."""
        found = by.after(PositionMap(self.index), root_size)
        return MovedSource(self.root, found.index)

    @property
    def is_injective(self) -> bool:
        """Whether no element of the root comes twice."""
        return self.index is None or np.unique(used := self.index[self.index >= 0]).size == used.size


Terms = tuple[MovedSource, ...]
"""A sum of moved roots."""


def joined(terms: Sequence[MovedSource], sizes: dict[Root, int]) -> Terms:
    """Terms with those of one root that fill different elements put together."""
    found: list[MovedSource] = []
    for term in terms:
        for k, other in enumerate(found):
            both = _together(other, term, sizes[term.root]) if other.root == term.root else None
            if both is not None:
                found[k] = both
                break
        else:
            found.append(term)
    return tuple(found)


def _together(first: MovedSource, second: MovedSource, root_size: int) -> MovedSource | None:
    if first.index is None or second.index is None:
        return None
    if np.any((first.index >= 0) & (second.index >= 0)):
        return None
    index = np.where(first.index >= 0, first.index, second.index)
    return MovedSource(first.root, PositionMap.of(index, root_size).index)


def node_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a value has in a graph, where a single number has one axis."""
    return shape or (1,)


def is_whole(terms: Any) -> bool:
    """Whether terms are one root as it is."""
    return len(terms) == 1 and terms[0].index is None


@dataclass(frozen=True, eq=False)
class Register:
    """What the elements of a part of a state are.

    Attributes:
        sources: what they come from.
        source: of every element the number of its source; NOTHING for zero.
        element: which element of it.
        steps: how many steps ago.
    """

    sources: tuple[Root, ...]
    source: np.ndarray
    element: np.ndarray
    steps: np.ndarray

    def terms(self, index: np.ndarray | None) -> list[MovedSource]:
        """What some elements are made up of."""
        chosen = np.arange(self.source.size) if index is None else index
        source = np.where(chosen >= 0, self.source[chosen], NOTHING)
        found = []
        for number, root in enumerate(self.sources):
            for steps in np.unique(self.steps[chosen[source == number]]):
                here = (source == number) & (self.steps[chosen] == steps)
                found.append(MovedSource(Earlier(root, int(steps)), np.where(here, self.element[chosen], NOTHING)))
        return found
