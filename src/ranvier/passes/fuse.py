"""fuse: operations one after the other become one, and populations side by side too."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

from ..graph.elements import Projection
from ..graph.neurons import OUT, CubaLI, CubaLIF, Neuron, Relay
from ..graph.operations import Identity, Linear, Operation, Scale
from ..graph.size import bytes_of
from ..graph.snn_graph import SNNGraph
from ..verification.promise import Promise
from .base import Pass, Rewriting
from .composition import composed
from .side_by_side import join, reason_against, with_the_same_ends


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuses what stands in a row or side by side (algebraic).

    In a row: operations before and after a relay become one; so an affine map after another, a scale or a folded batch
    norm after a matrix or convolution, a pool after a convolution. A scale that is all a population gets goes into the
    neurons' resistance. Side by side: populations of one kind with the same sources and targets become one. Nothing is
    done that would store more weights, unless asked for.

    Attributes:
        grow: whether more weights may be stored, to have fewer operations.
        populations: whether populations side by side are joined.
    """

    name = "fuse"
    promise = Promise.ALGEBRAIC
    grow: bool = False
    populations: bool = True

    def run(self, rewriting: Rewriting) -> None:
        rewriting.repeat(self._in_a_row)
        if self.populations:
            rewriting.repeat(self._side_by_side)

    def _in_a_row(self, rewriting: Rewriting) -> None:
        self._relays(rewriting)
        self._scales(rewriting)

    def _relays(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for name in [n for n, p in graph.populations.items() if isinstance(p.neuron, Relay)]:
            before, after = graph.into(name), graph.out_of(name)
            if not before or not after or any(p.target == name for p in after):
                continue
            old = sum(_stored(p.operation) for p in (*before, *after))
            least = sum(_least_stored(b.operation, a.operation) for b in after for a in before)
            fused = _fused(rewriting, before, after) if self.grow or least <= old else []
            if isinstance(fused, str):
                rewriting.missed(name, fused)
                continue
            new = sum(_stored(p.operation) for p, _ in fused) if fused else least
            if new > old and not self.grow:
                told = f"not fused: {new} bytes would be stored in place of {old}; grow=true allows it"
                rewriting.missed(name, told)
                continue
            self._replace(rewriting, name, before, after, fused)

    def _replace(
        self,
        rewriting: Rewriting,
        name: str,
        before: list[Projection],
        after: list[Projection],
        fused: list[Fused],
    ) -> None:
        uses = dict(rewriting.graph.bindings)
        for projection, origin in fused:
            taken = projection.name in {p.name for p in after}
            new_name = projection.name if taken else rewriting.new_name(projection.name)
            rewriting.set_projection(projection.replace(name=new_name))
            made = {label: uses[origin, label] for label in projection.operation.arrays if (origin, label) in uses}
            rewriting.graph.bindings.update({(new_name, label): use for label, use in made.items()})
        for projection in before:
            rewriting.remove_projection(projection.name)
        del rewriting.graph.populations[name]
        rewriting.origins = rewriting.origins.without(name)
        exact = len(before) == 1 and all(
            isinstance(a.operation, Identity) or isinstance(b.operation, Identity) for a in before for b in after
        )
        told = f"fused {', '.join(p.name for p in before)} with {', '.join(p.name for p in after)}"
        rewriting.did(name, told, Promise.BITWISE if exact else Promise.ALGEBRAIC)

    def _scales(self, rewriting: Rewriting) -> None:
        """Scales that are all a population gets go into its neurons."""
        graph = rewriting.graph
        for name, population in list(graph.populations.items()):
            into = graph.into(name)
            gain = _gain(population.neuron)
            if gain is None or not into or not all(isinstance(p.operation, Scale) for p in into):
                continue
            scales = [p.operation.scale for p in into if isinstance(p.operation, Scale)]
            if any(not np.array_equal(scale, scales[0]) for scale in scales[1:]):
                continue
            if rewriting.leaves(name, "scales not fused", *(p.name for p in into), name):
                continue
            changed = population.neuron.replace(**{gain: getattr(population.neuron, gain) * scales[0]})
            graph.populations[name] = population.replace(neuron=changed)
            for projection in into:
                rewriting.set_projection(projection.replace(operation=Identity()))
            rewriting.did(name, f"scale of {', '.join(p.name for p in into)} is in {gain} now", Promise.ALGEBRAIC)

    def _side_by_side(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for a, b in [pair for alike in with_the_same_ends(graph) for pair in combinations(alike, 2)]:
            if a in graph.populations and b in graph.populations and reason_against(graph, a, b) is None:
                join(rewriting, a, b)
                rewriting.did(a, f"joined with {b!r}, which has the same sources and targets", Promise.ALGEBRAIC)


Fused = tuple[Projection, str]
"""A projection in place of two, and the name of the one of these whose arrays it has, if it has those of one."""


def _fused(rewriting: Rewriting, before: list[Projection], after: list[Projection]) -> list[Fused] | str:
    """The projections in place of those into and out of a relay; or why there are none."""
    fused, graph = [], rewriting.graph
    for b in after:
        for number, a in enumerate(before):
            source = graph.source_shape(a)
            if b.delay and _starts_apart(graph, a):
                return f"not fused: {b.name!r} has a delay, and {a.source!r} or {a.target!r} does not start from zero"
            if a.trained != b.trained and not any(isinstance(p.operation, Identity) for p in (a, b)):
                return f"not fused: only one of {a.name!r} and {b.name!r} is trained"
            passes_on = any(isinstance(p.operation, Identity) for p in (a, b))
            if not passes_on and (reason := rewriting.shared(a.name, b.name)) is not None:
                return f"not fused: {reason}"
            if b.delay and a.operation.offset(source) is not None:
                return f"not fused: {b.name!r} has a delay, and the constant of {a.name!r} is not there before it"
            operation = composed(b.operation if number == 0 else _without_offset(b.operation), a.operation, source)
            if operation is None:
                kinds = f"{type(a.operation).__name__} and {type(b.operation).__name__}"
                return f"not fused: {kinds} are no one operation"
            name = b.name if number == 0 else f"{b.name}.{a.name}"
            ports = {"source_port": a.source_port, "target_port": b.target_port}
            trained = a.trained if isinstance(b.operation, Identity) else b.trained
            made = Projection(name, a.source, b.target, operation, a.delay + b.delay, **ports, trained=trained)
            fused.append((made, a.name if isinstance(b.operation, Identity) else b.name))
    return fused


def _starts_apart(graph: SNNGraph, projection: Projection) -> bool:
    """Whether what is there before the first step at the source of a projection or at its target is not zero."""
    ends = ((projection.source, projection.source_port), (projection.target, OUT))
    known = [(graph.populations[name], port) for name, port in ends if name in graph.populations]
    return any(np.any(population.initial_value(port)) for population, port in known)


def _without_offset(operation: Operation) -> Operation:
    return operation if getattr(operation, "bias", None) is None else operation.replace(bias=None)


def _least_stored(second: Operation, first: Operation) -> int:
    """What a product stores at least, told without taking it: all of a dense one."""
    if not (isinstance(second, Linear) and isinstance(first, Linear)):
        return 0
    if sparse.issparse(second.weight) and sparse.issparse(first.weight):
        return 0
    item = np.result_type(second.weight.dtype, first.weight.dtype).itemsize
    return second.weight.shape[0] * first.weight.shape[1] * item


def _stored(operation: Operation) -> int:
    """Bytes."""
    return sum(bytes_of(value) for value in operation.arrays.values())


def _gain(neuron: Neuron) -> str | None:
    """The parameter that the summed input is multiplied by."""
    if isinstance(neuron, (CubaLI, CubaLIF)):
        return "w_in"
    return "r" if "r" in neuron.parameter_names() else None
