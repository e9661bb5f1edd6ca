"""The coarsest stable partition of neurons: classes of neurons that fire at the same steps on every input.

Two neurons are in the same class if they have the same population, parameters and initial state, and if they receive
the same total weight from every class, for each delay and pair of ports. By induction over time, the neurons of a class
then have equal states and spikes. The partition is refined from the smaller parts of each split class (Hopcroft 1971;
Paige and Tarjan 1987), so each synapse is visited O(log N) times. The weights that a neuron receives from all classes
are compared by hashes of 128 bits.
"""

# An example: the LIF neurons a, b, c, d, e have equal parameters. An input drives a, b, c, d with weight 1 and e with
# weight 2. Recurrent synapses, all with a delay of one step: e -> a, e -> b and a -> c with weight 1, a -> d and b -> d
# with weight 0.5, e -> e with weight 1.
#
#   by parameters and initial state   {a b c d e}
#   by sums of incoming weights       {a b c d} {e}     from the input 2 instead of 1; the recurrent sums are all 1
#   by weights from each class        {a b} {c d} {e}   a and b receive 1 from {e}, c and d receive 1 from {a b c d}
#   by weights from {c d}             no change: c and d have no recurrent targets
#   by weights from each class        no change: c and d both receive 1 from {a b}, although d receives it in two halves

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
"""Two sums may be equal up to rounding if they differ by less than this fraction of the sum of absolute weights."""
BLOCK = 8192
"""Rows that are hashed together, so that they stay in the processor's cache."""


def neuron_classes(graph: SNNGraph, fixed: frozenset[str] = frozenset()) -> dict[str, np.ndarray]:
    """The class of each neuron.

    Args:
        graph: a valid graph.
        fixed: populations in which every neuron forms a class by itself.

    Returns:
        By population, int64 ``[size]``: the class of each neuron in C order. Classes of different populations have
        different numbers.
    """
    numbering = _Numbering.of(graph)
    classes = _split_by_sums(graph, numbering, _initial_classes(graph, numbering, fixed))
    # Nothing splits a class of one, so its incoming synapses, in most networks nearly all, are never read.
    edges = _Edges.of(graph, numbering, (np.bincount(classes) > 1)[classes])
    everything = splitters = np.arange(classes.size)
    while splitters.size:
        classes, parts = _refined(edges if splitters is everything else edges.out_of(splitters), classes)
        # Hopcroft's argument: two targets that receive equal weights from a class and from one part of it receive equal
        # weights from the remaining part. With rounded sums that holds only approximately, and without a final round
        # over all synapses two neurons could stay together whose weights from the largest part differ.
        splitters = parts if parts.size or splitters is everything else everything
    return {name: classes[numbering.part(name)][: p.size] for name, p in graph.populations.items()}


@dataclass(frozen=True, eq=False)
class _Numbering:
    """Consecutive numbers for the elements of all inputs and populations.

    Attributes:
        starts: number of the first element by name.
        sizes: number of elements by name.
    """

    starts: dict[str, int]
    sizes: dict[str, int]

    @classmethod
    def of(cls, graph: SNNGraph) -> _Numbering:
        # Inputs are elements too: synapses from them split classes like any others.
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
    """The number of neurons; for dynamics over whole arrays, the number of elements of the largest output."""
    neuron = population.neuron
    if neuron.by_position:
        return population.size
    return max((prod(neuron.shape_of(port, population.shape)) for port in neuron.outputs), default=1)


def _kinds(graph: SNNGraph) -> dict[tuple[int, str, str], int]:
    """Numbers for the combinations of delay and ports in the graph."""
    return {kind: k for k, kind in enumerate(dict.fromkeys(map(_kind, graph.projections.values())))}


def _kind(projection: Projection) -> tuple[int, str, str]:
    return projection.delay, projection.source_port, projection.target_port


def _is_followed(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection leads to neurons that can be told apart by their synapses.

    Outputs are not neurons, and dynamics over whole arrays may mix their elements in any way.
    """
    target = graph.populations.get(projection.target)
    return target is not None and target.neuron.by_position


@dataclass(frozen=True, eq=False)
class _Edges:
    """Synapses between elements.

    Attributes:
        source, target, kind, weight: ``[synapses]``; the kind numbers the delay and ports.
        count: number of elements.
        kinds: number of kinds.
        simple: whether no two synapses have the same source, target and kind.
    """

    source: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    weight: np.ndarray
    count: int
    kinds: int
    simple: bool

    @classmethod
    def of(cls, graph: SNNGraph, numbering: _Numbering, is_target: np.ndarray) -> _Edges:
        """The synapses into some elements."""
        sources, targets, kinds, weights = [], [], [], []
        numbers = _kinds(graph)
        for projection in graph.projections.values():
            if not _is_followed(graph, projection):
                continue
            rows = np.flatnonzero(is_target[numbering.part(projection.target)])
            matrix = sparse.coo_array(projection.operation.matrix(graph.source_shape(projection))[rows])
            sources.append(matrix.coords[1] + np.int32(numbering.starts[projection.source]))
            targets.append((rows + numbering.starts[projection.target]).astype(np.int32)[matrix.coords[0]])
            kinds.append(np.full(matrix.nnz, numbers[_kind(projection)], np.int32))
            weights.append(matrix.data.astype(np.float64))
        source, target, kind, weight = (
            np.concatenate(parts) if parts else np.zeros(0, np.int32) for parts in (sources, targets, kinds, weights)
        )
        ends = [(p.source, p.target, _kind(p)) for p in graph.projections.values()]
        return cls(source, target, kind, weight, numbering.size, max(1, len(numbers)), len(set(ends)) == len(ends))

    def where(self, chosen: np.ndarray) -> _Edges:
        """Some of the synapses, chosen by numbers or by a mask."""
        if chosen.dtype == bool and chosen.all():
            return self
        source, target, kind, weight = (values[chosen] for values in (self.source, self.target, self.kind, self.weight))
        return replace(self, source=source, target=target, kind=kind, weight=weight)

    def out_of(self, elements: np.ndarray) -> _Edges:
        """The synapses out of some elements."""
        # The slices of all elements at once: a counter that restarts at each element, shifted to the element's start.
        indptr, numbers = self._by_source
        counts = indptr[elements + 1] - indptr[elements]
        offsets = np.repeat(indptr[elements] - np.cumsum([0, *counts[:-1]]), counts)
        return self.where(numbers[np.arange(counts.sum()) + offsets])

    @cached_property
    def _by_source(self) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the synapses sorted by source, and before them where those of each element start."""
        numbers, size = np.arange(self.source.size), self.source.size
        by_source = sparse.csr_array((np.ones(size, bool), (self.source, numbers)), (self.count, size))
        return by_source.indptr.astype(np.int64), by_source.indices


def _initial_classes(graph: SNNGraph, numbering: _Numbering, fixed: frozenset[str]) -> np.ndarray:
    """Classes by population, parameters, initial state and bias.

    Each element of an input, of a fixed population and of dynamics over whole arrays is a class by itself.
    """
    classes, used = np.zeros(numbering.size, np.int64), 0
    for name in (*graph.inputs, *graph.populations):
        size = numbering.sizes[name]
        separate = name in graph.inputs or name in fixed or not graph.populations[name].neuron.by_position
        numbers = np.arange(size) if separate else _row_numbers(_local_values(graph, graph.populations[name]))
        classes[numbering.part(name)] = used + numbers
        used += size
    return classes


def _split_by_sums(graph: SNNGraph, numbering: _Numbering, classes: np.ndarray) -> np.ndarray:
    """Classes split where the sums of all incoming weights of a kind differ by more than rounding.

    Elements of a stable class have equal sums. Sums need one pass over each matrix and no sorting, and usually separate
    nearly all neurons of a trained network, which leaves little for the exact refinement.
    """
    for total, slack in _sums_by_kind(graph, numbering).values():
        classes = _runs(classes, total - slack, total + slack)
    return classes


def _runs(classes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Classes split into runs of overlapping intervals."""
    # In the order of their lower ends, an interval starts a new run if it begins above all upper ends before it. The
    # running maximum is taken over ranks by (class, upper end), so that a class never sees the upper ends of another.
    order, by_high = np.lexsort((low, classes)), np.lexsort((high, classes))
    rank = np.empty(classes.size, np.int64)
    rank[by_high] = np.arange(classes.size)
    highest = high[by_high[np.maximum.accumulate(rank[order])]]
    apart = (np.diff(classes[order]) != 0) | (low[order[1:]] > highest[:-1])
    runs = np.empty(classes.size, np.int64)
    runs[order] = np.cumsum(np.concatenate([[0], apart]))[: classes.size]
    return runs


def _sums_by_kind(graph: SNNGraph, numbering: _Numbering) -> dict[Any, tuple[np.ndarray, np.ndarray]]:
    """By delay and ports, the sum of all weights into every element and a bound on its rounding error."""
    sums: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for projection in graph.projections.values():
        if _is_followed(graph, projection):
            total, slack = sums.setdefault(_kind(projection), (np.zeros(numbering.size), np.zeros(numbering.size)))
            matrix = projection.operation.matrix(graph.source_shape(projection))
            part = numbering.part(projection.target)
            total[part] += np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
            slack[part] += NEAR * np.asarray(abs(matrix).sum(axis=1, dtype=np.float64)).ravel()
    return sums


def _local_values(graph: SNNGraph, population: Population) -> np.ndarray:
    """The values that distinguish neurons before any synapse is considered, ``[size, values]``."""
    columns = [*population.neuron.parameters.values(), *population.initial_state().values()]
    columns += [population.initial_value(port) for port in population.neuron.outputs if port in population.initial]
    for projection in graph.into(population.name):
        offset = projection.operation.offset(graph.source_shape(projection))
        columns += [] if offset is None else [offset]
    flat = [np.broadcast_to(value, population.shape).ravel().astype(np.float64) for value in columns]
    return np.stack(flat, axis=1) if flat else np.zeros((population.size, 1))


def _row_numbers(values: np.ndarray) -> np.ndarray:
    """Equal numbers for equal rows."""
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()


def _refined(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round of refinement.

    Args:
        edges: all synapses out of some whole classes, the splitters.
        classes: ``[elements]``.

    Returns:
        The classes split by the weights that they receive from each splitter, and the elements whose class is new.
    """
    singleton = (np.bincount(classes) == 1)[classes]
    edges = edges.where(~singleton[edges.target])
    # A synapse from a class of one is that class's total weight to the target, which saves sorting it into sums.
    # Not so if parallel projections can add to it.
    by_one = singleton[edges.source] if edges.simple else np.zeros(edges.source.size, bool)
    # The signature of a target is the sum of the hashes of what it receives. A sum depends neither on the order of the
    # synapses nor on their number per target, so no list is built per neuron.
    columns = [np.zeros(classes.size, np.uint64) for _ in range(2)]
    for of, part in ((_single_weights, edges.where(by_one)), (_weights_by_class, edges.where(~by_one))):
        target, hashes = of(part, classes)
        for k, column in enumerate(columns):
            np.add.at(column, target, hashes[:, k])
    return _split(classes, np.stack(columns, axis=1))


def _single_weights(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of synapses from classes of one, and hashes of (class, kind, weight)."""
    kind = classes[edges.source] * edges.kinds + edges.kind
    return edges.target, _hashed(kind, edges.weight)


def _weights_by_class(edges: _Edges, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A target for each source class and kind, and hashes of (class, kind, total weight)."""
    kinds = (int(classes.max()) + 1) * edges.kinds
    key = edges.target.astype(np.int64) * kinds + classes[edges.source] * edges.kinds + edges.kind
    # Weights are sorted as well: sums of the same weights in different orders would be rounded differently.
    order = np.lexsort((edges.weight, key))
    key, weight = key[order], edges.weight[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    total = np.add.reduceat(weight, first) if first.size else weight
    # A total of zero has no effect, like the absence of synapses, so both must have the same signature.
    key, total = key[first][total != 0], total[total != 0]
    target, kind = np.divmod(key, kinds)
    return target, _hashed(kind, total)


def _hashed(*columns: np.ndarray) -> np.ndarray:
    """128 bits for each row of some columns of eight bytes, uint64 ``[rows, 2]``, mixed as in SplitMix64."""
    bits = [np.ascontiguousarray(column).view(np.uint64) for column in columns]
    hashes = np.empty((2, bits[0].size), np.uint64)
    for start in range(0, bits[0].size, BLOCK):
        block = slice(start, start + BLOCK)
        for seed, mixed in zip((0x9E3779B97F4A7C15, 0xD1B54A32D192ED03), hashes, strict=True):
            mixed[block] = _mixed(seed, [column[block] for column in bits])
    return hashes.T


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
    """Classes split where signatures differ, and the elements of all parts but the largest of each class.

    The largest part keeps the number of its class.
    """
    order = np.lexsort((signature[:, 1], signature[:, 0], classes))
    old, sorted_signature = classes[order], signature[order]
    starts_class = np.diff(old, prepend=-1) != 0
    starts_part = starts_class | np.concatenate([[True], np.any(sorted_signature[1:] != sorted_signature[:-1], axis=1)])
    part = np.cumsum(starts_part) - 1
    sizes = np.bincount(part)
    of_class = np.cumsum(starts_class)[starts_part] - 1
    # An element enters a new class only if its class shrinks to at most half, which happens O(log N) times.
    by_size = np.lexsort((-sizes, of_class))
    largest = np.zeros(sizes.size, bool)
    largest[by_size[np.flatnonzero(np.diff(of_class[by_size], prepend=-1))]] = True
    numbers = np.where(largest, old[starts_part], 0)
    numbers[~largest] = classes.max() + 1 + np.arange(np.count_nonzero(~largest))
    split = np.empty_like(classes)
    split[order] = numbers[part]
    return split, order[~largest[part]]
