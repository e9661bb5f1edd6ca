"""Delays of a NIR graph, in whole time steps.

NIR's ``Delay`` is a node. In a graph of populations a projection has a delay, or a population of kind ``Delay`` has
one per element, which may be zero. A step can only be computed if every loop has a projection with a delay, so a
``Delay`` within a loop is split: its projections have the smallest delay, its population adds the rest by element.
"""

# An example: a Delay in a loop waits for 0, 2 and 3 steps. Two projections lead to its population, Scale [1 0 0]
# without a delay and Scale [0 1 1] with a delay of 2 steps, and the population adds 0, 0 and 1 steps. The first
# projection does not break the loop. Unless the file says otherwise, its delay is asked for as that of projections that
# close loops.

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph.neurons import Delay
from ..graph.operations import Identity, Operation, Scale
from ..graph.order import strong_components
from ..graph.verifier import LONGEST_DELAY
from .vocabulary import Edges, Nodes, kind_of

TOLERANCE = 1e-6
"""Relative to a step, or to a delay if that is longer: numbers in files are rounded."""


BY_ELEMENT = ("Delay", "Scale", "Flatten")
"""Nodes that treat elements one by one and preserve their order."""


@dataclass(frozen=True, eq=False)
class LoopDelay:
    """A ``Delay`` within a loop.

    Attributes:
        parts: for each projection to its population, the operation that selects its elements, and its delay in steps.
        rest: the steps that its population adds, by element.
    """

    parts: tuple[tuple[Operation, int], ...]
    rest: Delay

    @classmethod
    def of(cls, steps: np.ndarray) -> LoopDelay:
        """From delays in steps by element, at least one of them not zero."""
        now = steps == 0
        shared = int(steps[~now].min())
        rest = Delay(np.where(now, 0, steps - shared))
        if not now.any():
            return cls(((Identity(), shared),), rest)
        return cls(((Scale(now.astype(np.float64)), 0), (Scale((~now).astype(np.float64)), shared)), rest)


@dataclass(frozen=True, eq=False)
class Delays:
    """The ``Delay`` nodes of a NIR graph.

    Attributes:
        steps: by node and element.
        shared: the positive steps of the nodes whose elements all wait for the same time.
        in_loops: nodes with different times that are in a loop.
    """

    steps: dict[str, np.ndarray]
    shared: dict[str, int]
    in_loops: dict[str, LoopDelay]

    @classmethod
    def of(cls, nodes: Nodes, edges: Edges, dt: float | None, *, loops_are_known: bool) -> Delays:
        """From the nodes and edges. Without dt every delay counts as one step, which is enough to see which loops it
        breaks.

        Args:
            nodes, edges: of the NIR graph.
            dt: time step in seconds.
            loops_are_known: whether the file says which projections of a loop have a delay. Then elements of a
                ``Delay`` that do not wait need no projection of their own.

        Raises:
            GraphError: a delay is not a whole number of steps; the message names the node.
        """
        steps = {name: _in_steps(name, node, dt) for name, node in nodes.items() if kind_of(node) == "Delay"}
        if not loops_are_known:
            steps = _joined(steps, nodes, edges)
        shared = {name: int(s.flat[0]) for name, s in steps.items() if np.unique(s).size == 1 and s.flat[0] > 0}
        waiting = {name for name, s in steps.items() if np.all(s > 0)}
        looped = waiting & _on_cycles(nodes, edges)
        if not loops_are_known:
            looped |= _partly_waiting(steps, nodes, edges)
        in_loops = {k: LoopDelay.of(steps[k]) for k in sorted(looped) if np.unique(steps[k]).size > 1}
        return cls(steps, shared, in_loops)


def _joined(steps: dict[str, np.ndarray], nodes: Nodes, edges: Edges) -> dict[str, np.ndarray]:
    """Steps by node, where delays that break a loop only together become one delay, at the end of a path that treats
    elements one by one.

    Delays of [0 1] and [1 0] steps leave a loop open each. Together they are [1 1] and break it.
    """
    before, after = Counter(b for _, b in edges), Counter(a for a, _ in edges)
    following = {a: b for a, b in edges if after[a] == 1 and before[b] == 1}
    joined = dict(steps)
    # From the start of each chain, so that a delay that has taken up others is passed on as a whole.
    partial = _partly_waiting(steps, nodes, edges)
    for name in sorted(partial, key=lambda name: len(_chain(name, following, nodes)), reverse=True):
        last = next((k for k in reversed(_chain(name, following, nodes)) if k in partial), None)
        if last is not None and joined[last].size == joined[name].size:
            joined[last] = joined[last] + joined[name].reshape(joined[last].shape)
            joined[name] = np.zeros_like(joined[name])
    return joined


def _chain(name: str, following: dict[str, str], nodes: Nodes) -> list[str]:
    """The nodes after a node, as long as each treats its elements one by one and leads to a single other node."""
    chain: list[str] = []
    while (name := following.get(name, "")) and kind_of(nodes[name]) in BY_ELEMENT and name not in chain:
        chain.append(name)
    return chain


def _partly_waiting(steps: dict[str, np.ndarray], nodes: Nodes, edges: Edges) -> set[str]:
    """Delays with some elements that wait and others that do not, in loops that no other delay breaks."""
    waiting = {name for name, s in steps.items() if np.all(s > 0)}
    instant = _on_cycles(nodes, [(a, b) for a, b in edges if a not in waiting and b not in waiting])
    return {name for name, s in steps.items() if name in instant and np.any(s > 0)}


def _on_cycles(nodes: Nodes, edges: Edges) -> set[str]:
    """The nodes on cycles of edges."""
    component = strong_components(nodes, edges)
    sizes = Counter(component.values())
    return {name for name in nodes if sizes[component[name]] > 1} | {a for a, b in edges if a == b}


def _in_steps(name: str, node: Any, dt: float | None) -> np.ndarray:
    """The delays of a node in steps; without dt, one step for every delay that is not zero."""
    delay = np.asarray(node.delay, np.float64)
    if delay.size == 0 or not np.all(np.isfinite(delay)) or np.any(delay < 0):
        raise GraphError(f"node {name!r} (Delay): delays are {_few(delay)}; expected seconds, at least 0.")
    if dt is None:
        return (delay > 0).astype(np.float64)
    exact = delay / dt
    steps = np.round(exact)
    wrong = np.abs(exact - steps) > TOLERANCE * np.maximum(steps, 1)
    if np.any(wrong):
        raise GraphError(
            f"node {name!r} (Delay): {_few(delay[wrong])} s are not whole numbers of steps of dt = {dt:g} s; "
            "choose a dt that divides them."
        )
    if np.any(steps > LONGEST_DELAY):
        raise GraphError(
            f"node {name!r} (Delay): {delay.max():g} s are {steps.max():g} steps of dt = {dt:g} s, more than "
            f"{LONGEST_DELAY}; delays are in seconds."
        )
    return steps


def _few(values: np.ndarray, most: int = 5) -> str:
    distinct = np.unique(values)
    return ", ".join(f"{v:g}" for v in distinct[:most]) + (", ..." if distinct.size > most else "")
