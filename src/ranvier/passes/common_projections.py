"""common-projections: what is computed twice from one source is computed once."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..ir.graph.elements import Population, Projection
from ..ir.graph.neurons import Relay
from ..ir.graph.operations import Identity, Operation
from ..validation.promise import Promise
from .base import Pass, Rewriting, free_name


@dataclass(frozen=True)
class CommonProjections(Pass):
    """Projections with one source, delay and operation into several targets meet in a relay, so that their weights are
    stored and applied once (bitwise).
    """

    name = "common-projections"
    promise = Promise.BITWISE

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        groups: dict[Hashable, list[Projection]] = {}
        for projection in graph.projections.values():
            if projection.operation.arrays:
                groups.setdefault(_key(projection), []).append(projection)
        for found in groups.values():
            if len({projection.target for projection in found}) > 1:
                self._share(rewriting, found)

    def _share(self, rewriting: Rewriting, found: list[Projection]) -> None:
        graph, first = rewriting.graph, found[0]
        shape = first.operation.target_shape(graph.nodes[first.source].shape)
        name = free_name(graph.nodes, f"{first.name}.shared")
        graph.populations[name] = Population(name, shape, Relay())
        for projection in found:
            rewriting.set_projection(projection.replace(source=name, operation=Identity(), delay=0))
        rewriting.set_projection(first.replace(name=rewriting.new_name(f"{first.name}.common"), target=name))
        told = f"the same operation as {', '.join(p.name for p in found[1:])}: one relay {name!r} for all"
        rewriting.did(first.name, told, Promise.BITWISE)


def _key(projection: Projection) -> Hashable:
    operation: Operation = projection.operation
    arrays = tuple((name, _content(value)) for name, value in operation.arrays.items())
    return projection.source, projection.delay, type(operation), arrays, repr(operation.options)


def _content(value: Any) -> Hashable:
    if sparse.issparse(value):
        return value.shape, _content(value.data), _content(value.indices), _content(value.indptr)
    return value.shape, str(value.dtype), np.ascontiguousarray(value).tobytes()
