"""How large a graph is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .operations import Operation
from .snn_graph import SNNGraph


@dataclass(frozen=True)
class GraphSize:
    """Counts.

    Attributes:
        populations, neurons, projections: elements; relays and delays are no neurons.
        synapses: weights that are not zero, every use of a shared weight counted.
        parameters: weights and biases that are stored.
        bytes: of weights and biases, with the indices of sparse rows.
    """

    populations: int
    neurons: int
    projections: int
    synapses: int
    parameters: int
    bytes: int

    @classmethod
    def of(cls, graph: SNNGraph) -> GraphSize:
        arrays = [value for p in graph.projections.values() for value in p.operation.arrays.values()]
        return cls(
            len(graph.populations),
            graph.total_neurons,
            len(graph.projections),
            graph.total_synapses,
            graph.total_params,
            sum(bytes_of(array) for array in arrays),
        )

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


def stored_bytes(operation: Operation) -> int:
    """Bytes of the arrays of an operation."""
    return sum(bytes_of(value) for value in operation.arrays.values())


def bytes_of(array: object) -> int:
    """Bytes of an array, or of sparse rows with their indices."""
    parts = [getattr(array, name) for name in ("data", "indices", "indptr") if hasattr(array, "indptr")]
    return sum(part.nbytes for part in parts) if parts else array.nbytes  # pyright: ignore[reportAttributeAccessIssue]
