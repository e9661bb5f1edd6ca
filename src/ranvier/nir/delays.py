"""Delays of a NIR graph, in whole time steps.

NIR's ``Delay`` is a node. In a graph of populations a projection waits, or a population of kind ``Delay``, which gives
out in the same step what need not wait. A loop is run through step by step only where one of its projections waits, so
a ``Delay`` within a loop is split: its projections wait as long as all elements do, its population waits for the rest.
"""

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
"""Of a step, or of the delay where it is longer: numbers in files are rounded."""


BY_ELEMENT = ("Delay", "Scale", "Flatten")
"""Nodes that treat elements one by one, in their order."""


@dataclass(frozen=True, eq=False)
class LoopDelay:
    """A ``Delay`` within a loop.

    Attributes:
        parts: of the projections into its population, the elements they pass on and their delay.
        rest: the steps that its population adds, by element.
    """

    parts: tuple[tuple[Operation, int], ...]
    rest: Delay

    @classmethod
    def of(cls, steps: np.ndarray) -> LoopDelay:
        """Of delays in steps, by element, of which at least one is not zero."""
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
        steps: of every one, by element.
        shared: of those whose elements all wait for the same time, that one.
        in_loops: those of different times that a loop runs through.
    """

    steps: dict[str, np.ndarray]
    shared: dict[str, int]
    in_loops: dict[str, LoopDelay]

    @classmethod
    def of(cls, nodes: Nodes, edges: Edges, dt: float | None, *, loops_are_told: bool) -> Delays:
        """Without dt every delay counts as one step: where loops are broken can be told all the same.

        Args:
            nodes, edges: of the graph.
            dt: in seconds.
            loops_are_told: whether the file says which projections of a loop wait, so that elements of a ``Delay`` that
                do not wait need no projection of their own.

        Raises:
            GraphError: a delay is no whole number of steps; the message names the node.
        """
        steps = {name: _in_steps(name, node, dt) for name, node in nodes.items() if kind_of(node) == "Delay"}
        if not loops_are_told:
            steps = _joined(steps, nodes, edges)
        shared = {name: int(s.flat[0]) for name, s in steps.items() if np.unique(s).size == 1 and s.flat[0] > 0}
        waiting = {name for name, s in steps.items() if np.all(s > 0)}
        looped = waiting & _on_cycles(nodes, edges)
        if not loops_are_told:
            looped |= _partly_waiting(steps, nodes, edges)
        in_loops = {k: LoopDelay.of(steps[k]) for k in sorted(looped) if np.unique(steps[k]).size > 1}
        return cls(steps, shared, in_loops)


def _joined(steps: dict[str, np.ndarray], nodes: Nodes, edges: Edges) -> dict[str, np.ndarray]:
    """Delays that break a loop only together, on a way that treats elements one by one, as one delay at its end."""
    before, after = Counter(b for _, b in edges), Counter(a for a, _ in edges)
    following = {a: b for a, b in edges if after[a] == 1 and before[b] == 1}
    joined = dict(steps)
    partial = _partly_waiting(steps, nodes, edges)
    for name in sorted(partial, key=lambda name: len(_chain(name, following, nodes)), reverse=True):
        last = next((k for k in reversed(_chain(name, following, nodes)) if k in partial), None)
        if last is not None and joined[last].size == joined[name].size:
            joined[last] = joined[last] + joined[name].reshape(joined[last].shape)
            joined[name] = np.zeros_like(joined[name])
    return joined


def _chain(name: str, following: dict[str, str], nodes: Nodes) -> list[str]:
    """The nodes after one, as long as each treats its elements one by one and leads to one other only."""
    chain: list[str] = []
    while (name := following.get(name, "")) and kind_of(nodes[name]) in BY_ELEMENT and name not in chain:
        chain.append(name)
    return chain


def _partly_waiting(steps: dict[str, np.ndarray], nodes: Nodes, edges: Edges) -> set[str]:
    """Delays of which some elements wait and others do not, in loops that no other delay breaks."""
    waiting = {name for name, s in steps.items() if np.all(s > 0)}
    instant = _on_cycles(nodes, [(a, b) for a, b in edges if a not in waiting and b not in waiting])
    return {name for name, s in steps.items() if name in instant and np.any(s > 0)}


def _on_cycles(nodes: Nodes, edges: Edges) -> set[str]:
    """Nodes that a cycle of edges runs through."""
    component = strong_components(nodes, edges)
    sizes = Counter(component.values())
    return {name for name in nodes if sizes[component[name]] > 1} | {a for a, b in edges if a == b}


def _in_steps(name: str, node: Any, dt: float | None) -> np.ndarray:
    delay = np.asarray(node.delay, np.float64)
    if delay.size == 0 or not np.all(np.isfinite(delay)) or np.any(delay < 0):
        raise GraphError(f"node {name!r} (Delay): delays are {_few(delay)}; seconds from 0 on are expected.")
    if dt is None:
        return (delay > 0).astype(np.float64)
    exact = delay / dt
    steps = np.round(exact)
    wrong = np.abs(exact - steps) > TOLERANCE * np.maximum(steps, 1)
    if np.any(wrong):
        raise GraphError(
            f"node {name!r} (Delay): {_few(delay[wrong])} s are no whole numbers of steps of dt = {dt:g} s; "
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
