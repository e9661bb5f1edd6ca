"""Seeds for forward-mode products: elements that share a result get different colors.

Of four elements, 0 and 1 feed one result and 1 and 2 another. Greedily, 0 gets color 0, 1 must differ and gets 1, 2
must differ from 1 only and gets 0, and so does 3. Two products, with the tangents [1, 0, 1, 1] and [0, 1, 0, 0], give
all derivatives where four would have been needed.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def color(size: int, conflicts: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Greedy coloring of elements 0..size-1.

    Args:
        size: number of elements.
        conflicts: pairs of index arrays of equal length; elements that stand beside each other in a pair must
            differ in color, equal elements and negative indices are passed over.

    Returns:
        int array ``[size]`` of colors from 0.
    """
    edges = [np.stack([a, b])[:, (a != b) & (a >= 0) & (b >= 0)] for a, b in conflicts]
    colors = np.zeros(size, dtype=np.int64)
    if not any(edge.size for edge in edges):
        return colors
    # Every edge in both directions, sorted by its first end: the neighbors of an element stand together.
    both = np.concatenate([*edges, *(edge[::-1] for edge in edges)], axis=1)
    both = np.unique(both, axis=1)
    starts = np.searchsorted(both[0], np.arange(size + 1))
    colors[:] = -1
    for element in range(size):
        taken = set(colors[both[1, starts[element] : starts[element + 1]]].tolist())
        colors[element] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colors
