"""Scales that move through operations which commute with them, to where they cost nothing."""

# An example: spikes [3, 8, 8] -> scale by channel -> pool to [3, 4, 4] -> flatten to [48] -> matrix [5, 48].
#
#   scale and pool do not become one operation, but the pool may come first, and the flatten as well
#   scale [48] and matrix do: the columns of the matrix are scaled
#   spikes -> pool -> flatten -> matrix remain
#
# If the flatten led to neurons with a resistance, the scale would move to the end and from there into the resistance.
# If it led to neurons without one, the scale would still move behind the pool, where it has 48 numbers and not 192.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..graph.elements import Population, Projection
from ..graph.neurons import IN, OUT, Relay
from ..graph.operations import Operation, Scale
from ..graph.size import stored_bytes
from ..graph.snn_graph import SNNGraph
from ..verification.promise import Promise
from .base import Rewriting
from .composition import composed, scale_after, scale_before


@dataclass(frozen=True, eq=False)
class Way:
    """A scale on its way along a chain of projections, with a relay between each two of them.

    Attributes:
        scale: the scale where it is now.
        passed: the projections that it has moved through, in the order of the chain.
        meets: the next projection; None at the end of the chain.
    """

    scale: np.ndarray
    passed: tuple[Projection, ...]
    meets: Projection | None


def move_scales(rewriting: Rewriting, grow: bool = False) -> None:
    """Moves every scale that another operation or a resistance can take up, or that is smaller elsewhere.

    Args:
        rewriting: of the graph.
        grow: whether weights may take more memory.
    """
    for name in list(rewriting.graph.projections):
        projection = rewriting.graph.projections.get(name)
        if projection is not None and isinstance(projection.operation, Scale):
            moves = (_into_later, _into_earlier, _to_the_end)
            any(move(rewriting, projection, projection.operation, grow) for move in moves)


def starts_apart(graph: SNNGraph, projection: Projection) -> bool:
    """Whether the initial value of a projection's source or target is not zero."""
    ends = ((projection.source, projection.source_port), (projection.target, OUT))
    ports = [(graph.populations[name], port) for name, port in ends if name in graph.populations]
    return any(np.any(population.initial_value(port)) for population, port in ports)


# The chain --------------------------------------------------------------------------------------------------------


def _joins(graph: SNNGraph, name: str) -> tuple[Projection, Projection] | None:
    """The only projection into a relay and the only one out of it, if nothing tells the two in a row from one."""
    population = graph.populations.get(name)
    if population is None or not isinstance(population.neuron, Relay):
        return None
    into, out = graph.into(name), graph.out_of(name)
    if len(into) != 1 or len(out) != 1 or out[0].target == name:
        return None
    # A delay reads the relay's initial value first, which no scale has reached.
    return None if out[0].delay and starts_apart(graph, into[0]) else (into[0], out[0])


def _forward(graph: SNNGraph, projection: Projection, scale: Scale) -> Iterator[Way]:
    """The scale where it is, and behind every operation that it can move through."""
    way = Way(scale.scale, (), _next(graph, projection))
    yield way
    while way.meets is not None:
        moved = scale_after(way.meets.operation, way.scale, graph.source_shape(way.meets))
        if moved is None:
            return
        way = Way(moved, (*way.passed, way.meets), _next(graph, way.meets))
        yield way


def _backward(graph: SNNGraph, projection: Projection, scale: Scale) -> Iterator[Way]:
    """The scale where it is, and before every operation that it can move through."""
    way = Way(scale.scale, (), _previous(graph, projection))
    yield way
    while way.meets is not None:
        moved = scale_before(way.meets.operation, way.scale, graph.source_shape(way.meets))
        if moved is None:
            return
        way = Way(moved, (way.meets, *way.passed), _previous(graph, way.meets))
        yield way


def _next(graph: SNNGraph, projection: Projection) -> Projection | None:
    joined = _joins(graph, projection.target)
    return None if joined is None else joined[1]


def _previous(graph: SNNGraph, projection: Projection) -> Projection | None:
    joined = _joins(graph, projection.source)
    return None if joined is None else joined[0]


# Where it ends ----------------------------------------------------------------------------------------------------


def _into_later(rewriting: Rewriting, projection: Projection, scale: Scale, grow: bool) -> bool:
    """Lets a later operation take up a scale."""
    graph = rewriting.graph
    for way in _forward(graph, projection, scale):
        taker = way.meets
        # With nothing in between, the two are operations in a row, which are fused as such.
        if taker is None or not way.passed:
            continue
        operation = composed(taker.operation, Scale(way.scale), graph.source_shape(taker))
        if operation is not None and _may_take_up(rewriting, projection, taker, operation, grow):
            _take_up(rewriting, projection, way, taker.replace(operation=operation))
            after = way.passed[0]
            start = {"source": projection.source, "source_port": projection.source_port}
            _remove(rewriting, projection, after.replace(**start, delay=projection.delay + after.delay))
            return True
    return False


def _into_earlier(rewriting: Rewriting, projection: Projection, scale: Scale, grow: bool) -> bool:
    """Lets an earlier operation take up a scale."""
    graph = rewriting.graph
    for way in _backward(graph, projection, scale):
        taker = way.meets
        if taker is None or not way.passed:
            continue
        operation = composed(Scale(way.scale), taker.operation, graph.source_shape(taker))
        if operation is not None and _may_take_up(rewriting, projection, taker, operation, grow):
            _take_up(rewriting, projection, way, taker.replace(operation=operation))
            before = way.passed[-1]
            end = {"target": projection.target, "target_port": projection.target_port}
            _remove(rewriting, projection, before.replace(**end, delay=before.delay + projection.delay))
            return True
    return False


def _to_the_end(rewriting: Rewriting, projection: Projection, scale: Scale, grow: bool) -> bool:
    """Moves a scale before a resistance that takes it up, or to where it is smallest."""
    ways = [way for way in _forward(rewriting.graph, projection, scale) if way.passed]
    if not ways or rewriting.shared(projection.name) is not None:
        return False
    place = min(ways, key=lambda way: way.scale.nbytes)
    if _ends_in_a_gain(rewriting, ways[-1].passed[-1]):
        place = ways[-1]
    elif place.scale.nbytes >= scale.scale.nbytes:
        return False
    _put_behind(rewriting, projection, place)
    rewriting.did(projection.name, f"scales what {_names(place.passed)} brings, not its source", Promise.ALGEBRAIC)
    return True


def _may_take_up(
    rewriting: Rewriting, projection: Projection, taker: Projection, operation: Operation, grow: bool
) -> bool:
    """Whether an operation that includes a scale may replace both."""
    before = stored_bytes(projection.operation) + stored_bytes(taker.operation)
    fits = grow or stored_bytes(operation) <= before
    return fits and taker.trained == projection.trained and rewriting.shared(projection.name, taker.name) is None


def _ends_in_a_gain(rewriting: Rewriting, last: Projection) -> bool:
    """Whether a projection is all that leads to neurons whose parameters can take up a scale."""
    graph = rewriting.graph
    population = graph.populations.get(last.target)
    if population is None or population.neuron.gain is None or len(graph.into(last.target)) != 1:
        return False
    return rewriting.shared(last.target) is None


# Changes of the chain ---------------------------------------------------------------------------------------------


def _take_up(rewriting: Rewriting, projection: Projection, way: Way, taker: Projection) -> None:
    rewriting.set_projection(taker)
    _forget_relays(rewriting, way.passed, projection)
    through = _names(way.passed)
    rewriting.did(projection.name, f"moved through {through} and fused with {taker.name}", Promise.ALGEBRAIC)


def _remove(rewriting: Rewriting, projection: Projection, neighbour: Projection) -> None:
    """Removes a scale and the relay between it and a neighbour, which takes its place."""
    relay = projection.target if neighbour.source == projection.source else projection.source
    rewriting.set_projection(neighbour)
    rewriting.remove_projection(projection.name)
    del rewriting.graph.populations[relay]
    rewriting.origins = rewriting.origins.without(relay)


def _put_behind(rewriting: Rewriting, projection: Projection, place: Way) -> None:
    """Moves a scale behind the projections that it has passed; the relay behind it now stands before it."""
    graph, relay = rewriting.graph, projection.target
    _forget_relays(rewriting, place.passed, projection)
    graph.populations[relay] = Population(relay, place.scale.shape or graph.target_shape(place.passed[-1]), Relay())
    first = graph.projections[place.passed[0].name]
    start = {"source": projection.source, "source_port": projection.source_port}
    rewriting.set_projection(first.replace(**start, delay=projection.delay + first.delay))
    last = graph.projections[place.passed[-1].name]
    rewriting.set_projection(last.replace(target=relay, target_port=IN))
    moved = projection.replace(source=relay, source_port=OUT, operation=Scale(place.scale), delay=0)
    rewriting.set_projection(moved.replace(target=last.target, target_port=last.target_port))


def _forget_relays(rewriting: Rewriting, passed: tuple[Projection, ...], projection: Projection) -> None:
    """Relays that a scale moves past have other values than before."""
    graph = rewriting.graph
    ends = {name for p in (*passed, projection) for name in (p.source, p.target)}
    between = {name for name in ends if name in graph.populations and _joins_any(graph, name, passed)}
    for name in between:
        rewriting.origins = rewriting.origins.without(name)
        graph.populations[name] = graph.populations[name].replace(activity=None)


def _joins_any(graph: SNNGraph, name: str, passed: tuple[Projection, ...]) -> bool:
    """Whether a relay stands next to one of the projections that were passed, and is not an end of the chain."""
    joined = _joins(graph, name)
    return joined is not None and any(p.name in {q.name for q in passed} for p in joined)


def _names(projections: tuple[Projection, ...]) -> str:
    return ", ".join(projection.name for projection in projections)
