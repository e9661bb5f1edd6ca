"""common-projections: operations applied several times to one source are applied once."""

# An example: x -> a and x -> b have equal matrices [100, 50]. A relay of 100 elements gets the matrix once, and two
# identities lead on to a and b: 5000 weights instead of 10000, with the same bits.

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.elements import Population, Projection
from ..graph.names import free_name
from ..graph.neurons import IN, OUT, Relay
from ..graph.operations import Identity, Operation
from ..graph.snn_graph import SNNGraph
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class CommonProjections(Pass):
    """Replaces projections with the same source, delay and operation into several targets by a single one into a relay,
    so that the weights are stored and applied once (bitwise).
    """

    name = "common-projections"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        stored = [p for p in rewriting.graph.projections.values() if p.operation.arrays]
        # By form first, so that the bytes of large arrays are compared only where they can be equal.
        for candidates in _groups(stored, _form):
            for group in _groups(candidates, partial(_content, rewriting.graph)):
                self._share(rewriting, group)

    def _share(self, rewriting: Rewriting, alike: list[Projection]) -> None:
        graph, first = rewriting.graph, alike[0]
        shape = graph.target_shape(first)
        name = free_name(graph.nodes, f"{first.name}.shared")
        graph.populations[name] = Population(name, shape, Relay())
        for projection in alike:
            rewriting.set_projection(
                projection.replace(source=name, operation=Identity(), delay=0, source_port=OUT, trained=False)
            )
        common = first.replace(name=rewriting.new_name(f"{first.name}.common"), target=name, target_port=IN)
        rewriting.set_projection(common)
        uses = {label: use for (element, label), use in graph.bindings.items() if element == first.name}
        graph.bindings.update({(common.name, label): use for label, use in uses.items()})
        message = f"the same operation as {', '.join(p.name for p in alike[1:])}; one relay {name!r} for all"
        rewriting.did(first.name, message, Promise.BITWISE)


def _groups(projections: list[Projection], key: Callable[[Projection], Hashable]) -> list[list[Projection]]:
    """Projections with equal keys that lead to several targets."""
    groups: dict[Hashable, list[Projection]] = {}
    for projection in projections:
        groups.setdefault(key(projection), []).append(projection)
    return [group for group in groups.values() if len({projection.target for projection in group}) > 1]


def _form(projection: Projection) -> Hashable:
    """Everything that has to be equal except for the values of the arrays."""
    operation: Operation = projection.operation
    shapes = tuple((name, value.shape, str(value.dtype)) for name, value in operation.arrays.items())
    identity = repr(getattr(operation, "index", None)), id(getattr(operation, "function", None))
    read = projection.source, projection.source_port, projection.delay, projection.trained, projection.masked
    return *read, type(operation), shapes, repr(operation.options), identity


def _content(graph: SNNGraph, projection: Projection) -> Hashable:
    """The values of the arrays, and the shared parameters that they are made of."""
    # Equal values of different parameters need not stay equal: training would change only one of them.
    arrays = projection.operation.arrays
    uses = tuple(use and use.content for use in (graph.bindings.get((projection.name, label)) for label in arrays))
    return *(_bytes(value) for value in arrays.values()), uses


def _bytes(value: Any) -> Hashable:
    if sparse.issparse(value):
        return tuple(_bytes(part) for part in (value.data, value.indices, value.indptr))
    return str(value.dtype), np.ascontiguousarray(value).tobytes()
