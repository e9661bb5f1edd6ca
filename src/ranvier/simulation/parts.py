"""What of a graph runs together: populations that reach one another as one part, those of one kind as one ensemble.

In ``x -> a; a -> b; b -> a (delay 1); b -> c; b -> d; c -> y; d -> y`` the populations a and b reach one another, so
they are one part, whose loop over time runs both. c and d wait for the same part, so one further loop runs both; if
both are LIF neurons with 3 and 5 members, they are one ensemble of 8, and a step of the loop calls one kernel instead
of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import accumulate
from math import prod
from typing import Any

import jax.numpy as jnp

from ..graph.elements import Projection, Shape, side_by_side
from ..graph.neurons import Neuron, Relay
from ..graph.order import Port, strong_components
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced

MOST = 2**14
"""Values of the populations of an ensemble, over all samples: copying more costs more than calls of small kernels."""


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Populations that are updated at once: one alone, or some of one kind with their neurons side by side.

    Attributes:
        names: of the populations.
        shapes: of the populations.
        neuron: with the parameters of all.
    """

    names: tuple[str, ...]
    shapes: tuple[Shape, ...]
    neuron: Neuron

    @classmethod
    def of(cls, names: Sequence[str], shapes: Sequence[Shape], neurons: Sequence[Neuron]) -> Ensemble:
        first = neurons[0]
        if len(names) > 1:
            values = [neuron.parameters for neuron in neurons]
            first = first.with_parameters({k: side_by_side([v[k] for v in values], shapes) for k in values[0]})
        return cls(tuple(names), tuple(shapes), first)

    @property
    def name(self) -> str:
        return self.names[0]

    def join(self, values: Sequence[Any]) -> Any:
        """``[samples, size]`` from ``[samples, *shape]`` of every population; of one alone as it is."""
        if len(values) == 1:
            return values[0]
        return jnp.concatenate([x.reshape(len(x), -1) for x in values], axis=1)

    def part(self, value: Any) -> dict[str, Any]:
        """By population what :meth:`join` put together."""
        if len(self.names) == 1:
            return {self.name: value}
        ends = [*accumulate(map(prod, self.shapes))]
        rows = zip(self.names, self.shapes, [0, *ends], ends, strict=False)
        return {name: value[:, start:end].reshape(-1, *shape) for name, shape, start, end in rows}


@dataclass(frozen=True, eq=False)
class Part:
    """Populations of which none has to wait for the whole stretch of time of another.

    Attributes:
        ensembles: in the order of a step.
        inner: projections among them, by the port they lead to.
        outer: projections from elsewhere, likewise.
    """

    ensembles: tuple[Ensemble, ...]
    inner: Mapping[Port, Sequence[Projection]]
    outer: Mapping[Port, Sequence[Projection]]

    @property
    def names(self) -> list[str]:
        return [name for ensemble in self.ensembles for name in ensemble.names]


def parts_of(
    graph: SNNGraph, order: Sequence[str], neurons: Mapping[str, Neuron], timed: Iterable[str], samples: int
) -> list[Part]:
    """The parts of a graph, in an order in which each comes after what feeds it, delayed or not.

    Populations that reach one another are in one part. So are those with states that wait for equally many others: one
    loop over time serves all of them.

    Args:
        graph: a valid graph.
        order: of its populations in a step.
        neurons: of the populations, as they are run.
        timed: names of the populations that have states.
        samples: in the batch.
    """
    edges = [(p.source, p.target) for p in graph.projections.values() if p.source in neurons and p.target in neurons]
    # Delays count as edges too: what a population gave a step ago is not known before the loop runs either.
    component = strong_components(order, edges)
    loops = {component[a] for a, b in edges if component[a] == component[b]} | {component[name] for name in timed}
    depth = _depths(component.values(), [(component[a], component[b]) for a, b in edges])
    groups: dict[tuple[int, int], list[str]] = {}
    for name in order:
        k = component[name]
        # All loops of one depth share a key, for one loop over time; relays without states stay apart and need none.
        groups.setdefault((depth[k], -1 if k in loops else k), []).append(name)
    return [_part(graph, groups[key], neurons, samples) for key in sorted(groups)]


def _depths(nodes: Iterable[Any], edges: Iterable[tuple[Any, Any]]) -> dict[Any, int]:
    """By node, how many others stand one after the other before it; edges of a node to itself do not count."""
    before: dict[Any, set[Any]] = {node: set() for node in nodes}
    for a, b in edges:
        if a != b:
            before[b].add(a)
    depth: dict[Any, int] = {}
    for node in TopologicalSorter(before).static_order():
        depth[node] = 1 + max((depth[other] for other in before[node]), default=-1)
    return depth


def _part(graph: SNNGraph, names: Sequence[str], neurons: Mapping[str, Neuron], samples: int) -> Part:
    inner: dict[Port, list[Projection]] = {}
    outer: dict[Port, list[Projection]] = {}
    own = set(names)
    for name in names:
        for projection in graph.into(name):
            side = inner if projection.source in own else outer
            side.setdefault((name, projection.target_port), []).append(projection)
    at_once = [(p.source, p.target) for into in inner.values() for p in into if not p.delay]
    depth = _depths(names, at_once)
    groups: dict[Any, list[str]] = {}
    for name in names:
        groups.setdefault((depth[name], _kind(neurons[name]) or name), []).append(name)
    ordered = sorted(groups, key=lambda key: key[0])
    return Part(tuple(e for key in ordered for e in _ensembles(graph, groups[key], neurons, samples)), inner, outer)


def _kind(neuron: Neuron) -> Any:
    """What neurons share that can be updated at once; None where they stay on their own."""
    if isinstance(neuron, (Traced, Relay)) or neuron.memory(()):
        return None
    return type(neuron), tuple(neuron.choices.items())


def _ensembles(graph: SNNGraph, names: Sequence[str], neurons: Mapping[str, Neuron], samples: int) -> list[Ensemble]:
    """The small ones as one, as many as there is room for; each of the others alone."""
    together: list[str] = []
    values = 0
    for name in sorted(names, key=lambda name: graph.populations[name].size):
        values += samples * graph.populations[name].size
        if values <= MOST:
            together.append(name)
    groups = [[name for name in names if name in together], *([name] for name in names if name not in together)]
    return [
        Ensemble.of(group, [graph.populations[name].shape for name in group], [neurons[name] for name in group])
        for group in groups
        if group
    ]
