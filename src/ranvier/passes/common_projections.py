"""common-projections: what is computed twice from one source is computed once."""

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
    """Projections with one source, delay and operation into several targets meet in a relay, so that their weights are
    stored and applied once (bitwise).
    """

    name = "common-projections"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        stored = [p for p in rewriting.graph.projections.values() if p.operation.arrays]
        for candidates in _groups(stored, _form):
            for found in _groups(candidates, partial(_content, rewriting.graph)):
                self._share(rewriting, found)

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
        told = f"the same operation as {', '.join(p.name for p in alike[1:])}: one relay {name!r} for all"
        rewriting.did(first.name, told, Promise.BITWISE)


def _groups(projections: list[Projection], key: Callable[[Projection], Hashable]) -> list[list[Projection]]:
    """Projections with equal keys that lead to several targets."""
    groups: dict[Hashable, list[Projection]] = {}
    for projection in projections:
        groups.setdefault(key(projection), []).append(projection)
    return [found for found in groups.values() if len({projection.target for projection in found}) > 1]


def _form(projection: Projection) -> Hashable:
    """All but the numbers in the arrays."""
    operation: Operation = projection.operation
    shapes = tuple((name, value.shape, str(value.dtype)) for name, value in operation.arrays.items())
    own = repr(getattr(operation, "index", None)), id(getattr(operation, "function", None))
    read = projection.source, projection.source_port, projection.delay, projection.trained
    return *read, type(operation), shapes, repr(operation.options), own


def _content(graph: SNNGraph, projection: Projection) -> Hashable:
    """The numbers in the arrays, and which parameters they are made of."""
    arrays = projection.operation.arrays
    uses = tuple(use and use.content for use in (graph.bindings.get((projection.name, label)) for label in arrays))
    return *(_bytes(value) for value in arrays.values()), uses


def _bytes(value: Any) -> Hashable:
    if sparse.issparse(value):
        return tuple(_bytes(part) for part in (value.data, value.indices, value.indptr))
    return str(value.dtype), np.ascontiguousarray(value).tobytes()
