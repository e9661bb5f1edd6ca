"""Two populations with the same sources and targets become one."""

# An example: a (2 neurons) and b (1) both read x and drive y, and drive each other and themselves with a delay.
#
#   x -> a [2, n] and x -> b [1, n]   stacked: x -> a [3, n]
#   a -> y [m, 2] and b -> y [m, 1]   beside each other: a -> y [m, 3]
#   a -> a [2, 2], b -> a [2, 1],
#   a -> b [1, 2], b -> b [1, 1]      a block matrix: a -> a [3, 3]
#
# The matrices have as many entries as before. Without one of the four, the block would need zeros, so all must exist.

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.elements import Activity, Population, Projection, side_by_side
from ..graph.neurons import IN, OUT
from ..graph.operations import Linear
from ..graph.order import instant_cycle
from ..graph.shared import parameters_of
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced
from .base import Rewriting


def with_the_same_ends(graph: SNNGraph) -> list[list[str]]:
    """Groups of populations of one kind whose projections have the same sources and targets, by name.

    Projections between members of a group differ in their ends by nature; :func:`reason_against` examines these pairs.
    """
    sources: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in graph.nodes}
    targets: dict[str, Counter[tuple[str, int]]] = {name: Counter() for name in graph.nodes}
    for p in graph.projections.values():
        sources[p.target][p.source, p.delay] += 1
        targets[p.source][p.target, p.delay] += 1
    groups: dict[object, list[str]] = {}
    for name, population in graph.populations.items():
        if not _is_plain(graph, name):
            continue
        key = type(population.neuron), frozenset(sources[name].items()), frozenset(targets[name].items())
        groups.setdefault(key, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _is_plain(graph: SNNGraph, name: str) -> bool:
    """Whether a population is not traced, and projections use only its main input and output."""
    touching = [*graph.into(name), *graph.out_of(name)]
    plain = all((p.source_port, p.target_port) == (OUT, IN) for p in touching)
    return plain and not isinstance(graph.populations[name].neuron, Traced)


def reason_against(graph: SNNGraph, a: str, b: str) -> str | None:
    """Why two populations cannot become one without storing more weights; None if they can."""
    first, second = graph.populations[a], graph.populations[b]
    if type(first.neuron) is not type(second.neuron) or first.neuron.choices != second.neuron.choices:
        return "they are of different kinds"
    if len(first.shape) != 1 or len(second.shape) != 1 or first.neuron.memory(first.shape):
        return "they are not both one-dimensional"
    touching = [p for p in graph.projections.values() if {p.source, p.target} & {a, b}]
    if not all(isinstance(p.operation, Linear) for p in touching):
        return "they have projections without a matrix"
    for ends in (_sources, _targets):
        counts = [ends(graph, name) for name in (a, b)]
        if counts[0] != counts[1] or max(counts[0].values(), default=1) > 1:
            return "they do not have the same sources and targets"
    if parameters_of(graph, a, b, *(p.name for p in touching)):
        return "they are computed from shared parameters"
    # One population is updated as a whole, so neither part can wait for the other within a step.
    if any(not p.delay and {p.source, p.target} == {a, b} for p in touching):
        return "one feeds the other in the same step"
    if instant_cycle(_outlined(graph, a, b)) is not None:
        return "one feeds the other in the same step, through others"
    return None


def _sources(graph: SNNGraph, name: str) -> Counter[tuple[str, int, bool]]:
    """The number of projections from each source, by delay and by whether they have a bias."""
    return Counter((p.source, p.delay, p.operation.offset(()) is not None) for p in graph.into(name))


def _targets(graph: SNNGraph, name: str) -> Counter[tuple[str, int]]:
    return Counter((p.target, p.delay) for p in graph.out_of(name))


def _outlined(graph: SNNGraph, a: str, b: str) -> SNNGraph:
    """The graph with both populations as one, valid only for finding the order of a step."""
    copy = graph.copy()
    del copy.populations[b]
    for name, p in graph.projections.items():
        ends = {"source": a if p.source == b else p.source, "target": a if p.target == b else p.target}
        copy.projections[name] = p.replace(**ends)
    return copy


def join(rewriting: Rewriting, a: str, b: str) -> None:
    """Appends the neurons of ``b`` to those of ``a``."""
    graph = rewriting.graph
    first, second = graph.populations[a], graph.populations[b]
    joined = _joined_projections(graph, a, b)
    for projection in [p for p in graph.projections.values() if {p.source, p.target} & {a, b}]:
        if projection.name not in joined:
            rewriting.remove_projection(projection.name)
    for projection in joined.values():
        rewriting.set_projection(projection)
    graph.populations[a] = _joined_population(first, second)
    del graph.populations[b]
    rewriting.origins = rewriting.origins.joined(b, a, first.size)


def _joined_projections(graph: SNNGraph, a: str, b: str) -> dict[str, Projection]:
    """By name of the projection of ``a``: those from other nodes, to other nodes, and between the two."""
    joined: dict[str, Projection] = {}
    for p in [p for p in graph.projections.values() if a in (p.source, p.target) and b not in (p.source, p.target)]:
        if p.source == a and p.target == a:
            joined[p.name] = _block(graph, p, a, b)
        elif p.target == a:
            joined[p.name] = p.replace(operation=_stacked(p, _twin(graph, p.source, b, p.delay)))
        else:
            joined[p.name] = p.replace(operation=_beside(p, _twin(graph, b, p.target, p.delay)))
    return joined


def _twin(graph: SNNGraph, source: str, target: str, delay: int) -> Projection:
    return next(p for p in graph.projections.values() if (p.source, p.target, p.delay) == (source, target, delay))


def _block(graph: SNNGraph, p: Projection, a: str, b: str) -> Projection:
    """The four projections between both populations as one."""
    rows = [_beside(_twin(graph, a, to, p.delay), _twin(graph, b, to, p.delay)) for to in (a, b)]
    return p.replace(operation=_rows_of(rows[0], rows[1]))


def _stacked(p: Projection, q: Projection) -> Linear:
    return _rows_of(_linear(p), _linear(q))


def _rows_of(p: Linear, q: Linear) -> Linear:
    if p.bias is None or q.bias is None:
        return Linear(_joined([p.weight, q.weight], 0))
    full = [np.broadcast_to(x.bias, x.weight.shape[:1]) for x in (p, q)]
    return Linear(_joined([p.weight, q.weight], 0), np.concatenate(full))


def _beside(p: Projection, q: Projection) -> Linear:
    a, b = _linear(p), _linear(q)
    biases = [x.bias for x in (a, b) if x.bias is not None]
    return Linear(_joined([a.weight, b.weight], 1), sum(biases[1:], biases[0]) if biases else None)


def _linear(p: Projection) -> Linear:
    assert isinstance(p.operation, Linear)
    return p.operation


def _joined(weights: list[Any], axis: int) -> Any:
    if any(map(sparse.issparse, weights)):
        return sparse.csr_array((sparse.vstack if axis == 0 else sparse.hstack)(weights))
    return np.concatenate(weights, axis=axis)


def _joined_population(first: Population, second: Population) -> Population:
    shapes = first.shape, second.shape
    parameters = [population.neuron.parameters for population in (first, second)]
    neuron = first.neuron.with_parameters({k: side_by_side([p[k] for p in parameters], shapes) for k in parameters[0]})
    known = {*first.initial, *second.initial}
    initial = {k: side_by_side([p.initial_value(k) for p in (first, second)], shapes) for k in known}
    return Population(first.name, (first.size + second.size,), neuron, initial, _joined_activity(first, second))


def _joined_activity(first: Population, second: Population) -> Activity | None:
    a, b = first.activity, second.activity
    if a is None or b is None or a.data != b.data:
        return None
    sizes = first.size, second.size

    def joined(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.concatenate([np.broadcast_to(value.ravel(), size) for value, size in zip((x, y), sizes, strict=True)])

    active = None if a.active is None or b.active is None else joined(a.active, b.active)
    return Activity(joined(a.rates, b.rates), active, a.steps, a.data)
