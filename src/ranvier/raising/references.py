"""Every array of a step as a sum of moved sources.

A value that no equation merely moves is a *root*: an input, an old state, the result of arithmetic or of an affine map,
or something fixed. Every array is a sum of terms, each of which moves elements of one root. In the example of
``step.py``, with x of 3 numbers and the old z of 2::

    concatenate([x, z])            x at [0, 1, 2, -1, -1]  +  old z at [-1, -1, -1, 0, 1]
    concatenate([x, z])[1:4]       x at [1, 2, -1]         +  old z at [-1, -1, 0]

where -1 stands for zero. So the matrix that is applied to the concatenation reads x and z themselves, and becomes one
projection from the input and one from the neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..program.analysis.position_map import PositionMap

NOTHING = -1
"""In place of an element: zero."""


@dataclass(frozen=True)
class OldState:
    """A state, or a part of it, as it is before the step.

    Attributes:
        state: number of the state, hidden states first, then other states.
        component: number of the part.
    """

    state: int
    component: int


@dataclass(frozen=True)
class Earlier:
    """The value that another root had some steps ago.

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
    """The root itself, or the one whose earlier value it is."""
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
        return MovedSource(self.root, by.after(PositionMap(self.index), root_size).index)

    @property
    def is_empty(self) -> bool:
        """Whether no element of the root is left."""
        return self.index is not None and not np.any(self.index >= 0)


Terms = tuple[MovedSource, ...]
"""A sum of moved roots."""


def joined(terms: Sequence[MovedSource], size_of_root: Callable[[Root], int]) -> Terms:
    """The terms, with those of the same root merged where they fill different elements.

    A roll is two slices joined; as one term it can be one matrix whose columns are moved, as two it could not.
    """
    together: list[MovedSource] = []
    for term in terms:
        for k, other in enumerate(together):
            both = _together(other, term, size_of_root(term.root)) if other.root == term.root else None
            if both is not None:
                together[k] = both
                break
        else:
            together.append(term)
    return tuple(together)


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


def is_whole(terms: Terms) -> bool:
    """Whether the terms are just one root, unmoved."""
    return len(terms) == 1 and terms[0].index is None


@dataclass(frozen=True, eq=False)
class Register:
    """Where the elements of a part of a state come from.

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
        return [MovedSource(root, elements) for root, elements in self.readings(index)]

    def readings(self, index: np.ndarray | None = None) -> list[tuple[Earlier, np.ndarray]]:
        """For every source and number of steps, the source's element at each of these elements, or NOTHING."""
        chosen = np.arange(self.source.size) if index is None else index
        source = np.where(chosen >= 0, self.source[chosen], NOTHING)
        readings = []
        for number, root in enumerate(self.sources):
            for steps in np.unique(self.steps[chosen[source == number]]):
                here = (source == number) & (self.steps[chosen] == steps)
                readings.append((Earlier(root, int(steps)), np.where(here, self.element[chosen], NOTHING)))
        return readings
