"""Synaptic operations, as NeuroBench counts them: what a network computes on data, and what it stores.

Definitions follow the harness of NeuroBench (Yik et al., 2025). A synaptic operation is one weight applied to one value
in one step; biases, pools and neurons have none. Dense counts all weights and values. Effective counts those where
neither is zero: accumulates where all values of a step are -1, 0 or 1, since the weight is only added then, else
multiply-accumulates.
"""

# An example: 3 sources lead to 2 targets by the matrix [[1 0 2] [0 0 3]], and give the values of two steps.
#
#   fan-out    of the sources: 1, 0 and 2 weights that are not zero
#   [1 0 1]    1 + 2 = 3 accumulates, of 6 dense operations
#   [0 1 0.5]  0 + 2 = 2 multiply-accumulates, of 6 dense operations

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ...util.counting import counted, grouped
from ...util.table import table
from ..elements import Population, Projection
from ..network import number_of
from ..neurons import OUT
from ..operations import Conv, Flatten, Identity, Linear, Operation, Scale, Select, SumPool
from ..size import GraphSize, stored_bytes
from ..snn_graph import SNNGraph
from ..traced import Traced
from ..windows import Shape

MAC_ENERGY, AC_ENERGY = 4.6e-12, 0.9e-12
"""Joules of a multiply-accumulate (3.7 + 0.9 pJ) and an accumulate of 32-bit floats in 45 nm at 0.9 V (Horowitz, ISSCC
2014)."""


@dataclass(frozen=True)
class ProjectionCounts:
    """What one projection computes and stores.

    Attributes:
        dense: synaptic operations per sample, with all zeros.
        effective_macs: those of values and weights other than zero, in steps with values other than -1, 0 and 1.
        effective_acs: likewise, in the other steps.
        multiply_adds: per step, as the weights are stored: dense matrices and kernels whole, sparse rows without zeros;
            additions of pools count as well.
        parameters: stored numbers.
        bytes: of the stored numbers, with the indices of sparse rows.
        weights: elements of the matrix or kernel.
        zeros: those that are zero.
    """

    dense: float
    effective_macs: float
    effective_acs: float
    multiply_adds: int
    parameters: int
    bytes: int
    weights: int
    zeros: int


@dataclass(frozen=True)
class OperationCounts:
    """What a network computes on data and what it stores; ``print(counts)`` shows a table.

    Attributes:
        projections: by name.
        activation_sparsities: by population of neurons, the part of its outputs that are zero.
        activation_sparsity: of all of them together; 0 if there are none.
        parameters: stored numbers; a parameter that several projections share counts once.
        bytes: of the stored numbers.
        steps, samples: of the data.
        uncounted: populations whose own computation may contain synaptic operations, which are not counted.
    """

    projections: dict[str, ProjectionCounts]
    activation_sparsities: dict[str, float]
    activation_sparsity: float
    parameters: int
    bytes: int
    steps: int
    samples: int
    uncounted: tuple[str, ...] = field(default=())

    @property
    def dense(self) -> float:
        """Synaptic operations per sample, with all zeros."""
        return sum(p.dense for p in self.projections.values())

    @property
    def effective_macs(self) -> float:
        """Effective multiply-accumulates per sample."""
        return sum(p.effective_macs for p in self.projections.values())

    @property
    def effective_acs(self) -> float:
        """Effective accumulates per sample."""
        return sum(p.effective_acs for p in self.projections.values())

    @property
    def multiply_adds(self) -> int:
        """Per step, as the weights are stored."""
        return sum(p.multiply_adds for p in self.projections.values())

    @property
    def connection_sparsity(self) -> float:
        """The part of the weights of matrices and kernels that are zero; 0 if there are none."""
        weights = sum(p.weights for p in self.projections.values())
        return sum(p.zeros for p in self.projections.values()) / weights if weights else 0.0

    def energy(self, mac: float = MAC_ENERGY, ac: float = AC_ENERGY) -> float:
        """Joules per sample of the effective operations: an estimate of the arithmetic, and of nothing else.

        Reading weights and states, sending spikes and updating neurons take more on most hardware. The default values
        are those of 32-bit floats in 45 nm at 0.9 V (Horowitz, "Computing's energy problem", ISSCC 2014).

        Args:
            mac, ac: joules of a multiply-accumulate and of an accumulate.
        """
        return self.effective_macs * mac + self.effective_acs * ac

    def totals(self) -> dict[str, float]:
        """The numbers for the whole network, by name."""
        names = ("dense", "effective_macs", "effective_acs", "multiply_adds", "parameters", "bytes")
        sparsities = ("connection_sparsity", "activation_sparsity")
        return {name: getattr(self, name) for name in (*names, *sparsities)}

    def as_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, for JSON."""
        return {**asdict(self), **self.totals()}

    def __str__(self) -> str:
        data = f"{counted(self.samples, 'sample')} of {counted(self.steps, 'step')}"
        header = ("projection", "dense", "effective MACs", "effective ACs", "multiply-adds per step", "parameters")
        rows = [_row(name, p) for name, p in self.projections.items()]
        rows.append(_row("total", self))
        lines = [f"synaptic operations per sample, on {data}", *table(header, rows), ""]
        lines.append(f"{self.bytes:,} bytes; connection sparsity {self.connection_sparsity:.1%}")
        if self.activation_sparsities:
            parts = ", ".join(f"{name} {part:.1%}" for name, part in self.activation_sparsities.items())
            lines.append(f"activation sparsity {self.activation_sparsity:.1%}: {parts}")
        if self.uncounted:
            lines.append(f"not counted: what happens within {', '.join(self.uncounted)}")
        return "\n".join(lines)


def _row(name: str, counts: ProjectionCounts | OperationCounts) -> tuple[str, ...]:
    per_sample = (counts.dense, counts.effective_macs, counts.effective_acs)
    return (name, *map(grouped, per_sample), f"{counts.multiply_adds:,}", f"{counts.parameters:,}")


# What is measured of data -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Nonzeros:
    """Which values of a source are zero, added up over samples.

    Attributes:
        counts: int ``[T, size]``, the number of samples in which a value is not zero.
        binary: bool ``[T]``, whether all values of a step are -1, 0 or 1.
        samples: number of samples.
    """

    counts: np.ndarray
    binary: np.ndarray
    samples: int

    @classmethod
    def of(cls, values: np.ndarray) -> Nonzeros:
        """Of values ``[T, samples, *shape]``."""
        flat = values.reshape(*values.shape[:2], prod(values.shape[2:]))
        binary = ((flat == 0) | (np.abs(flat) == 1)).all(axis=(1, 2))
        return cls(np.count_nonzero(flat, axis=1), binary, flat.shape[1])

    def __add__(self, other: Nonzeros) -> Nonzeros:
        return Nonzeros(self.counts + other.counts, self.binary & other.binary, self.samples + other.samples)

    def delayed(self, steps: int, initial: np.ndarray) -> Nonzeros:
        """What arrives after a delay, if the source has the value ``initial`` before the first step."""
        if not steps:
            return self
        before = Nonzeros.of(np.broadcast_to(initial, (min(steps, len(self.counts)), self.samples, *initial.shape)))
        rest = len(self.counts) - len(before.counts)
        counts = np.concatenate([before.counts, self.counts[:rest]])
        return Nonzeros(counts, np.concatenate([before.binary, self.binary[:rest]]), self.samples)


def source_name(projection: Projection) -> str:
    """The name under which the values that a projection reads are recorded."""
    return projection.source if projection.source_port == OUT else f"{projection.source}.{projection.source_port}"


def has_neurons(population: Population) -> bool:
    """Whether the outputs of a population are activations: relays and delays only pass values on."""
    return bool(population.neuron.states) or population.neuron.spikes


def operation_counts(graph: SNNGraph, nonzeros: Mapping[str, Nonzeros]) -> OperationCounts:
    """Counts of a graph.

    Args:
        graph: a valid graph.
        nonzeros: of every source of a projection, see :func:`source_name`, and of every population of neurons.
    """
    neurons = {name: nonzeros[name] for name, p in graph.populations.items() if name in nonzeros and has_neurons(p)}
    zeros = {name: 1 - float(n.counts.sum()) / (n.counts.size * n.samples) for name, n in neurons.items()}
    sizes = {name: n.counts.size for name, n in neurons.items()}
    every = next(iter(nonzeros.values()))
    size = GraphSize.of(graph)
    return OperationCounts(
        projections={name: _projection_counts(graph, p, nonzeros) for name, p in graph.projections.items()},
        activation_sparsities=zeros,
        activation_sparsity=sum(zeros[n] * sizes[n] for n in zeros) / sum(sizes.values()) if zeros else 0.0,
        parameters=size.parameters,
        bytes=size.bytes,
        steps=len(every.counts),
        samples=every.samples,
        uncounted=tuple(name for name, p in graph.populations.items() if _works_on_whole_arrays(p)),
    )


def _works_on_whole_arrays(population: Population) -> bool:
    return isinstance(population.neuron, Traced) and not population.neuron.by_position


def _projection_counts(graph: SNNGraph, projection: Projection, nonzeros: Mapping[str, Nonzeros]) -> ProjectionCounts:
    operation, source = projection.operation, graph.source_shape(projection)
    weights, zeros = _weights(operation)
    dense, macs, acs = 0.0, 0.0, 0.0
    if _has_synapses(operation):
        population = graph.populations.get(projection.source)
        initial = np.zeros(source) if population is None else population.initial_value(projection.source_port)
        active = nonzeros[source_name(projection)].delayed(projection.delay, initial)
        by_step = active.counts @ fan_out(operation, source) / active.samples
        macs, acs = float(by_step[~active.binary].sum()), float(by_step[active.binary].sum())
        dense = float(len(active.counts) * fan_out(operation, source, dense=True).sum())
    return ProjectionCounts(
        dense=dense,
        effective_macs=macs,
        effective_acs=acs,
        multiply_adds=multiply_adds(operation, source),
        parameters=sum(number_of(array) for array in operation.arrays.values()),
        bytes=stored_bytes(operation),
        weights=weights,
        zeros=zeros,
    )


# What is known of operations --------------------------------------------------------------------------------------


def _has_synapses(operation: Operation) -> bool:
    """Whether an operation multiplies by weights of its own; a bias is none, and pools only add."""
    return any(label != "bias" for label in operation.arrays)


def fan_out(operation: Operation, source: Shape, *, dense: bool = False) -> np.ndarray:
    """For each element of the source, the number of targets that it has a weight to, ``[size]``.

    Args:
        operation: with weights.
        source: shape of the source.
        dense: whether weights that are zero count; of a map without a name they are not known, and do not.
    """
    if isinstance(operation, Linear):
        if dense:
            return np.full(prod(source), operation.weight.shape[0])
        nonzero = operation.weight != 0
        return (
            np.asarray(nonzero.sum(axis=0)).ravel() if sparse.issparse(nonzero) else np.count_nonzero(nonzero, axis=0)
        )
    if isinstance(operation, Scale):
        scale = np.broadcast_to(operation.scale, source).ravel()
        return np.ones(prod(source), np.int64) if dense else (scale != 0).astype(np.int64)
    if isinstance(operation, Conv):
        return _fan_out_of_maps(operation, source, dense)
    return np.asarray((operation.rows(source) != 0).sum(axis=0)).ravel()


def _fan_out_of_maps(conv: Conv, source: Shape, dense: bool) -> np.ndarray:
    """Of a convolution, without its matrix: weights of each input channel and element of the kernel, times windows."""
    out, inner = conv.weight.shape[:2]
    weight = np.ones_like(conv.weight) if dense else conv.weight != 0
    # [groups, out / groups, in / groups, kernel] -> [channels, kernel]: in how many output channels an element is used.
    by_group = weight.reshape(conv.groups, out // conv.groups, inner, -1)
    uses = by_group.sum(axis=1).reshape(conv.groups * inner, -1)
    _, pixel, element = conv.window().pairs(source[1:])
    pixels = prod(source[1:])
    return np.stack([np.bincount(pixel, weights=channel[element], minlength=pixels) for channel in uses]).ravel()


def multiply_adds(operation: Operation, source: Shape) -> int:
    """Multiplications and additions of one step, as the weights are stored."""
    if isinstance(operation, Linear):
        return number_of(operation.weight)
    if isinstance(operation, Conv):
        return operation.weight.size * prod(operation.target_shape(source)[1:])
    if isinstance(operation, SumPool):
        return prod(operation.target_shape(source)) * prod(operation.kernel)
    if isinstance(operation, Scale):
        return prod(source)
    return 0 if isinstance(operation, (Identity, Flatten, Select)) else int(operation.rows(source).nnz)


def _weights(operation: Operation) -> tuple[int, int]:
    """Elements of a matrix or kernel, and how many of them are zero."""
    weight = operation.arrays.get("weight")
    if weight is None:
        return 0, 0
    nonzero = weight.count_nonzero() if sparse.issparse(weight) else np.count_nonzero(weight)
    return prod(weight.shape), prod(weight.shape) - int(nonzero)
