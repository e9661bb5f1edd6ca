"""The coarsest stable partition of neurons: classes that fire alike on every input.

Neurons of a class have the same population, parameters and initial state, and for every class, delay and port the same
total weight from it. By induction over time, neurons of a class then have equal states and spikes. Refinement looks
only at the smaller parts of what was split (Hopcroft; Paige and Tarjan 1987), so a synapse is looked at O(log N) times.
What a neuron gets from all classes is compared by hashes of 128 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..elements import Population, Projection
from ..snn_graph import SNNGraph

NEAR = 1e-9
"""Part of the sum of absolute weights up to which two sums may be the same but for rounding."""
BLOCK = 8192
"""Numbers that are hashed together, so that they stay in the cache."""


def neuron_classes(graph: SNNGraph, fixed: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    """Of every population the class of each neuron, flat; classes of different populations have different numbers.

    Args:
        graph: a valid graph.
        fixed: populations whose neurons are classes of their own.
    """
    places = _Places.of(graph)
    classes = _told_apart_by_sums(graph, places, _first_classes(graph, places, fixed))
    edges = _Edges.of(graph, places, (np.bincount(classes) > 1)[classes])
    everything = looked_at = np.arange(classes.size)
    while looked_at.size:
        classes, parts = _refined(edges if looked_at is everything else edges.out_of(looked_at), classes)
        # Sums of rounded numbers need not agree with the parts they were told by; a whole look settles it.
        looked_at = parts if parts.size or looked_at is everything else everything
    return {name: classes[places.part(name)][: p.size] for name, p in graph.populations.items()}


@dataclass(frozen=True, eq=False)
class _Places:
    """Elements of inputs and populations are numbered through.

    Attributes:
        starts: number of the first element by name.
        sizes: number of elements by name.
    """

    starts: dict[str, int]
    sizes: dict[str, int]

    @classmethod
    def of(cls, graph: SNNGraph) -> _Places:
        sizes = {name: node.size for name, node in graph.inputs.items()}
        sizes |= {name: _elements(population) for name, population in graph.populations.items()}
        starts = np.cumsum([0, *sizes.values()])[:-1].tolist()
        return cls(dict(zip(sizes, starts, strict=True)), sizes)

    @property
    def size(self) -> int:
        return sum(self.sizes.values())

    def part(self, name: str) -> slice:
        return slice(self.starts[name], self.starts[name] + self.sizes[name])


def _elements(population: Population) -> int:
    """One for every neuron; of what works on whole arrays, one for every element of its largest output."""
    neuron = population.neuron
    if neuron.by_position:
        return population.size
    return max((prod(neuron.shape_of(port, population.shape)) for port in neuron.outputs), default=1)


def _kinds(graph: SNNGraph) -> dict[tuple[int, str, str], int]:
    """Delays and ports that projections have, numbered."""
    return {kind: k for k, kind in enumerate(dict.fromkeys(map(_kind, graph.projections.values())))}


def _kind(projection: Projection) -> tuple[int, str, str]:
    return projection.delay, projection.source_port, projection.target_port


def _is_followed(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection leads to neurons that are on their own."""
    target = graph.populations.get(projection.target)
    return target is not None and target.neuron.by_position


@dataclass(frozen=True, eq=False)
class _Edges:
    """Synapses between elements.

    Attributes:
        source, target, kind, weight: of every synapse; kinds are delays and ports.
        count: number of elements.
        kinds: number of kinds.
        simple: whether no two synapses have the same ends and kind.
    """

    source: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    weight: np.ndarray
    count: int
    kinds: int
    simple: bool

    @classmethod
    def of(cls, graph: SNNGraph, places: _Places, wanted: np.ndarray) -> _Edges:
        """The synapses into the elements that are wanted."""
        sources, targets, kinds, weights = [], [], [], []
        numbers = _kinds(graph)
        for projection in graph.projections.values():
            if not _is_followed(graph, projection):
                continue
            rows = np.flatnonzero(wanted[places.part(projection.target)])
            found = sparse.coo_array(projection.operation.matrix(graph.source_shape(projection))[rows])
            sources.append(found.coords[1] + np.int32(places.starts[projection.source]))
            targets.append((rows + places.starts[projection.target]).astype(np.int32)[found.coords[0]])
            kinds.append(np.full(found.nnz, numbers[_kind(projection)], np.int32))
            weights.append(found.data.astype(np.float64))
        source, target, kind, weight = (
            np.concatenate(parts) if parts else np.zeros(0, np.int32) for parts in (sources, targets, kinds, weights)
        )
        ends = [(p.source, p.target, _kind(p)) for p in graph.projections.values()]
        return cls(source, target, kind, weight, places.size, max(1, len(numbers)), len(set(ends)) == len(ends))

    def where(self, chosen: np.ndarray) -> _Edges:
        """Some of the synapses, by number or by whether they are chosen."""
        if chosen.dtype == bool and chosen.all():
            return self
        source, target, kind, weight = (values[chosen] for values in (self.source, self.target, self.kind, self.weight))
        return replace(self, source=source, target=target, kind=kind, weight=weight)

    def out_of(self, elements: np.ndarray) -> _Edges:
        """The synapses out of some elements."""
        indptr, numbers = self._by_source
        counts = indptr[elements + 1] - indptr[elements]
        offsets = np.repeat(indptr[elements] - np.cumsum([0, *counts[:-1]]), counts)
        return self.where(numbers[np.arange(counts.sum()) + offsets])

    @cached_property
    def _by_source(self) -> tuple[np.ndarray, np.ndarray]:
        """Of every element where its synapses start in the second array, which has their numbers."""
        numbers, size = np.arange(self.source.size), self.source.size
        found = sparse.csr_array((np.ones(size, bool), (self.source, numbers)), (self.count, size))
        return found.indptr.astype(np.int64), found.indices


def _first_classes(graph: SNNGraph, places: _Places, fixed: frozenset[str]) -> np.ndarray:
    """Classes by population, parameters, initial state and bias; inputs and what is fixed are one by one."""
    found, used = np.zeros(places.size, np.int64), 0
    for name in (*graph.inputs, *graph.populations):
        size = places.sizes[name]
        alone = name in graph.inputs or name in fixed or not graph.populations[name].neuron.by_position
        classes = np.arange(size) if alone else _alike(_own_values(graph, graph.populations[name]))
        found[places.part(name)] = used + classes
        used += size
    return found


def _told_apart_by_sums(graph: SNNGraph, places: _Places, classes: np.ndarray) -> np.ndarray:
    """Classes split where the sums of all incoming weights of a delay are apart.

    Elements that fire alike have the same sum but for rounding, which is cheaper to see than what they get from every
    class.
    """
    for total, slack in _sums_by_kind(graph, places).values():
        classes = _runs(classes, total - slack, total + slack)
    return classes


def _runs(classes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Classes split into runs of overlapping intervals."""
    order, by_high = np.lexsort((low, classes)), np.lexsort((high, classes))
    rank = np.empty(classes.size, np.int64)
    rank[by_high] = np.arange(classes.size)
    highest = high[by_high[np.maximum.accumulate(rank[order])]]
    apart = (np.diff(classes[order]) != 0) | (low[order[1:]] > highest[:-1])
    found = np.empty(classes.size, np.int64)
    found[order] = np.cumsum(np.concatenate([[0], apart]))[: classes.size]
    return found


def _sums_by_kind(graph: SNNGraph, places: _Places) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """By delay and ports the sum of all weights into every element, and how far rounding may have moved it."""
    found: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for projection in graph.projections.values():
        if _is_followed(graph, projection):
            total, slack = found.setdefault(_kind(projection), (np.zeros(places.size), np.zeros(places.size)))
            matrix, part = (
                projection.operation.matrix(graph.source_shape(projection)),
                places.part(projection.target),
            )
            total[part] += np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
            slack[part] += NEAR * np.asarray(abs(matrix).sum(axis=1, dtype=np.float64)).ravel()
    return found


def _own_values(graph: SNNGraph, population: Population) -> np.ndarray:
    """What distinguishes neurons before any synapse is looked at, ``[size, values]``."""
    columns = [*population.neuron.parameters.values(), *population.initial_state().values()]
    columns += [population.initial_value(port) for port in population.neuron.outputs if port in population.initial]
    for projection in graph.into(population.name):
        offset = projection.operation.offset(graph.source_shape(projection))
        columns += [] if offset is None else [offset]
    flat = [np.broadcast_to(value, population.shape).ravel().astype(np.float64) for value in columns]
    return np.stack(flat, axis=1) if flat else np.zeros((population.size, 1))


def _alike(values: np.ndarray) -> np.ndarray:
    """The number of the distinct row that each row is."""
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()


def _refined(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes split by the weights of some synapses, all those out of some classes, and the elements to look at next.

    Targets that are alone in their class are left out: nothing splits them.
    """
    alone = (np.bincount(classes) == 1)[classes]
    edges = edges.where(~alone[edges.target])
    by_one = alone[edges.source] if edges.simple else np.zeros(edges.source.size, bool)
    columns = [np.zeros(classes.size, np.uint64) for _ in range(2)]
    for of, part in ((_single_weights, edges.where(by_one)), (_weights_by_class, edges.where(~by_one))):
        target, hashes = of(part, classes)
        for k, column in enumerate(columns):
            np.add.at(column, target, hashes[:, k])
    return _split(classes, np.stack(columns, axis=1))


def _single_weights(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of synapses from elements that are alone in their class, and hashes of (class, kind, weight)."""
    kind = classes[edges.source] * edges.kinds + edges.kind
    return edges.target, _hashed(kind, edges.weight)


def _weights_by_class(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of synapses, and of each hashes of (class, kind, total weight from it, not zero)."""
    kinds = (int(classes.max()) + 1) * edges.kinds
    key = edges.target.astype(np.int64) * kinds + classes[edges.source] * edges.kinds + edges.kind
    order = np.lexsort((edges.weight, key))
    key, weight = key[order], edges.weight[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(weight, first) if first.size else weight
    key, total = key[first][total != 0], total[total != 0]
    target, kind = np.divmod(key, kinds)
    return target, _hashed(kind, total)


def _hashed(*columns: np.ndarray) -> np.ndarray:
    """128 bits for every row of some columns of eight bytes, ``[rows, 2]``, by the mixing of SplitMix64."""
    bits = [np.ascontiguousarray(column).view(np.uint64) for column in columns]
    found = np.empty((2, bits[0].size), np.uint64)
    for start in range(0, bits[0].size, BLOCK):
        block = slice(start, start + BLOCK)
        for seed, mixed in zip((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03), found, strict=True):
            mixed[block] = _mixed(seed, [column[block] for column in bits])
    return found.T


def _mixed(seed: int, columns: Sequence[np.ndarray]) -> np.ndarray:
    mixed = np.full(columns[0].shape, seed, np.uint64)
    for column in columns:
        mixed += column
        mixed += np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed ^= mixed >> np.uint64(shift)
            mixed *= np.uint64(factor)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _split(classes: np.ndarray, signature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes whose elements differ in the signature fall apart; the largest part keeps the number."""
    order = np.lexsort((signature[:, 1], signature[:, 0], classes))
    old, sorted_signature = classes[order], signature[order]
    starts_class = np.diff(old, prepend=-1) != 0
    starts_part = starts_class | np.concatenate([[True], np.any(sorted_signature[1:] != sorted_signature[:-1], axis=1)])
    part = np.cumsum(starts_part) - 1
    sizes = np.bincount(part)
    of_class = np.cumsum(starts_class)[starts_part] - 1
    by_size = np.lexsort((-sizes, of_class))
    largest = np.zeros(sizes.size, bool)
    largest[by_size[np.flatnonzero(np.diff(of_class[by_size], prepend=-1))]] = True
    numbers = np.where(largest, old[starts_part], 0)
    numbers[~largest] = classes.max() + 1 + np.arange(np.count_nonzero(~largest))
    found = np.empty_like(classes)
    found[order] = numbers[part]
    return found, order[~largest[part]]
