"""Positions of a population: which elements of its hidden states belong together.

Two neurons with a potential v of shape [2] and two compartments each, u of shape [4], where v' reads elements 0 and 1
of u for the first neuron and 2 and 3 for the second. The elements that are connected are {v0, u0, u1} and
{v1, u2, u3}: two positions, with three components each, v, u[0] and u[1]. Component u[0] has the elements [0, 2],
its element at every position, and u[1] has [1, 3].
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .position_map import ONLY_IDENTITY, Maps

MAX_COMPONENTS = 64
"""A state whose elements depend on more elements than this has no useful block diagonal D."""

MAX_IN_ONE = 8
"""A state with more elements than this, all of them one position, moves its elements around."""


@dataclass(frozen=True, eq=False)
class Component:
    """One entry of a population's state vector: one element of a hidden state at every position.

    Attributes:
        state: index of the hidden state in its group.
        elements: int64 ``[positions]``, flat index in the hidden state for every position, -1 where the state
            has no element there.
        suffix: ``""``, or ``"[k]"`` where the hidden state holds several components.
        whole: True where the elements are all elements of the state, in order.
    """

    state: int
    elements: np.ndarray
    suffix: str
    whole: bool

    def scatter(self, size: int) -> np.ndarray:
        """int64 ``[size]``: for every element of the state the position it has here, -1 for none."""
        position = np.full(size, -1)
        present = (self.elements >= 0) & (self.elements < size)
        position[self.elements[present]] = np.flatnonzero(present)
        return position


@dataclass(frozen=True, eq=False)
class Positions:
    """How the elements of several hidden states are arranged into positions and components."""

    shape: tuple[int, ...]
    components: tuple[Component, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    def of_elements(self, state: int, size: int) -> np.ndarray:
        """int64 ``[size]``: the position of every element of a state."""
        scattered = [c.scatter(size) for c in self.components if c.state == state]
        return np.max(scattered, axis=0)


Edges = Mapping[tuple[int, int], Maps]
"""(target state, source state) of a group to the position maps between them."""


def simple_positions(shapes: Sequence[tuple[int, ...]]) -> Positions:
    """Element k of every state is position k."""
    size = int(np.prod(shapes[0], dtype=np.int64))
    return Positions(shapes[0], tuple(Component(s, np.arange(size), "", True) for s in range(len(shapes))))


def arrange(shapes: Sequence[tuple[int, ...]], edges: Edges) -> Positions | None:
    """Arranges elements into positions so that every dependence stays inside a position.

    Args:
        shapes: shapes of the states.
        edges: dependences between these states.

    Returns:
        The arrangement, or None where elements move between positions without end (a rolled state, say).
    """
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    # The common case, without a graph of all elements: layers have many.
    if len(set(sizes)) == 1 and all(maps == ONLY_IDENTITY for maps in edges.values()):
        return simple_positions(shapes)
    if any(maps is None for maps in edges.values()):
        return None
    classes, labels = _classes(sizes, edges)
    starts = np.cumsum([0, *sizes])
    bounds = list(itertools.pairwise(starts.tolist()))
    # How many components a state needs: as many as it has elements in the class where it has most.
    counts = [int(np.bincount(labels[a:b], minlength=classes).max()) for a, b in bounds]
    if sum(counts) > MAX_COMPONENTS or (classes == 1 and max(counts) > MAX_IN_ONE):
        return None
    order = _order_of_classes(labels, classes)
    components: list[Component] = []
    for s, (a, b) in enumerate(bounds):
        members = _members(order[labels[a:b]], classes, counts[s])
        for k in range(counts[s]):
            whole = counts[s] == 1 and np.array_equal(members[:, 0], np.arange(sizes[s]))
            components.append(Component(s, members[:, k], "" if counts[s] == 1 else f"[{k}]", whole))
    return Positions(_position_shape(shapes, components, classes), tuple(components))


def _members(position: np.ndarray, classes: int, count: int) -> np.ndarray:
    """``[classes, count]``: the elements at every position in order, -1 where there are fewer."""
    order = np.argsort(position, kind="stable")
    ranked = position[order]
    rank = np.arange(ranked.size) - np.searchsorted(ranked, ranked)
    members = np.full((classes, count), -1)
    members[ranked, rank] = order
    return members


def _classes(sizes: Sequence[int], edges: Edges) -> tuple[int, np.ndarray]:
    """Connected elements of all states: number of classes, and the class of every element."""
    starts = np.cumsum([0, *sizes])
    rows, columns = [], []
    for (target, source), maps in edges.items():
        for position_map in maps or ():
            index = position_map.indices(sizes[target])
            used = np.flatnonzero(index >= 0)
            rows.append(used + starts[target])
            columns.append(index[used] + starts[source])
    total = int(starts[-1])
    row, column = np.concatenate(rows), np.concatenate(columns)
    graph = coo_array((np.ones(row.size, dtype=np.int8), (row, column)), shape=(total, total))
    return connected_components(graph, directed=False)


def _order_of_classes(labels: np.ndarray, classes: int) -> np.ndarray:
    """Rank of every class by its first element, so that positions follow the first state's order."""
    _, first = np.unique(labels, return_index=True)
    order = np.empty(classes, dtype=np.int64)
    order[np.argsort(first)] = np.arange(classes)
    return order


def _position_shape(
    shapes: Sequence[tuple[int, ...]], components: Sequence[Component], classes: int
) -> tuple[int, ...]:
    """A shape for the positions: that of a state with one component, or a packed state's without the packing."""
    for component in components:
        if component.whole:
            return shapes[component.state]
    first = components[0]
    packed = shapes[first.state]
    factor = sum(c.state == first.state for c in components)
    flat = np.arange(int(np.prod(packed, dtype=np.int64))).reshape(packed)
    for axis in reversed(range(len(packed))):
        if packed[axis] % factor == 0:
            part = np.take(flat, np.arange(packed[axis] // factor), axis=axis)
            if np.array_equal(part.reshape(-1), first.elements):
                return (
                    packed[:axis] + ((packed[axis] // factor,) if packed[axis] != factor else ()) + packed[axis + 1 :]
                )
    return (classes,)
