"""SNNGraph as NIR graph or file."""

# An example: x -> r with the weights w, and the relay r -> a and r -> b without an operation. The projection w becomes
# the node w, the others no node. The relay disappears: r brings what w brings, so the edges are x -> w, w -> a, w -> b.
#
# A recurrent projection with a delay of one step has no Delay node if all delays of its loop are one step: NIR leaves
# that step to the simulator, and the notes say it.

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import GraphError, reason_text
from ..graph.elements import Population, Projection
from ..graph.neurons import Delay, Relay
from ..graph.operations import AvgPool, Constant, Conv, Flatten, Identity, Linear, Operation, Scale, SumPool
from ..graph.order import strong_components
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..util.files import replacing
from ..util.limits import MATRIX
from .legalize import in_nir_words
from .notes import NOTES, NirNotes
from .vocabulary import KINDS

DENSEST = 2**31
"""The largest number of weights of a matrix, which NIR stores densely."""


def write_nir(graph: SNNGraph, path: str | os.PathLike[str] | None = None) -> Any:
    """A graph as ``nir.NIRGraph``, written to a file if there is a path: see :func:`ranvier.to_nir`.

    Raises:
        GraphError: the graph is not valid, NIR has no such neuron, or the file cannot be written.
    """
    import nir

    check(graph)
    _check_names(graph)
    nodes = _Exporter(in_nir_words(graph)).graph_of_nodes()
    if path is not None:
        _write(nodes, Path(path))
    assert isinstance(nodes, nir.NIRGraph)
    return nodes


def _check_names(graph: SNNGraph) -> None:
    """Raises :class:`GraphError` for names that cannot be names of groups in an HDF5 file."""
    broken = [name for name in (*graph.nodes, *graph.projections) if "/" in name or name in ("", ".", "..")]
    if broken:
        raise GraphError(
            f"the names {', '.join(map(repr, broken))} cannot be used in a NIR file, where '/' separates groups; "
            "rename them, for example with '.' instead of '/'."
        )


class _Exporter:
    """Turns populations and operations into nodes. Relays disappear; the nodes before them lead to the nodes after
    them.

    Attributes:
        graph: of only what NIR has.
        nodes, edges: of the NIR graph.
        implied: names of the projections whose delay is left to the simulator.
        chains: names of the nodes that every projection becomes.
    """

    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.implied = _implied_delays(graph)
        self.chains: dict[str, list[str]] = {}

    def graph_of_nodes(self) -> Any:
        import nir

        for node in self.graph.inputs.values():
            self.nodes[node.name] = nir.Input({"input": np.array(node.shape)})
        for population in self.graph.populations.values():
            if not isinstance(population.neuron, Relay):
                self.nodes[population.name] = _neuron(population, self.graph.dt)
        for node in self.graph.outputs.values():
            self.nodes[node.name] = nir.Output({"output": np.array(node.shape)})
        for projection in self.graph.projections.values():
            self.chains[projection.name] = self._chain(projection)
        for projection in self.graph.projections.values():
            self._connect(projection)
        self._keep_metadata()
        return nir.NIRGraph(self.nodes, self.edges, metadata=self._metadata(), type_check=False)

    def _chain(self, projection: Projection) -> list[str]:
        """Names of the nodes that a projection becomes, the first one first."""
        source, new = self.graph.source_shape(projection), []
        if projection.delay and projection.name not in self.implied:
            import nir

            name = projection.name if isinstance(projection.operation, Identity) else f"{projection.name}.delay"
            new.append((name, nir.Delay(np.full(source, projection.delay * self.graph.dt))))
        # A constant is written as an affine map with zero weights, which reads a vector.
        if isinstance(projection.operation, Constant) and len(source) > 1:
            new.append((f"{projection.name}.flatten", _flatten_node(source, 0, -1)))
        if not isinstance(projection.operation, Identity):
            new.append((projection.name, _operation(projection, source)))
        chain = []
        for name, node in new:
            while name in self.nodes:
                name += ".projection"
            self.nodes[name] = node
            chain.append(name)
        return chain

    def _connect(self, projection: Projection) -> None:
        """Adds the edges from what feeds a projection through its nodes to its target."""
        chain = self.chains[projection.name]
        relayed = projection.target in self.graph.populations and isinstance(
            self.graph.populations[projection.target].neuron, Relay
        )
        path = [*chain, *([] if relayed else [projection.target])]
        if not path:
            return
        for name in self._bringing(projection.source):
            self._edge(name, path[0])
        for a, b in pairwise(path):
            self._edge(a, b)

    def _bringing(self, name: str) -> list[str]:
        """The nodes whose sum is the value of an input, population or relay."""
        if name in self.nodes:
            return [name]
        # The name is that of a relay, whose value is the sum of what leads to it.
        summands = []
        for projection in self.graph.into(name):
            chain = self.chains[projection.name]
            summands += chain[-1:] or self._bringing(projection.source)
        return summands

    def _known_as(self, projection: Projection) -> str:
        """The name that a projection has in the graph that is read from the file."""
        chain = self.chains[projection.name]
        return chain[-1] if chain else f"{projection.source}->{projection.target}"

    def _edge(self, a: str, b: str) -> None:
        if (a, b) not in self.edges:
            self.edges.append((a, b))
            return
        raise GraphError(
            f"{a!r} reaches {b!r} by two identity projections, but NIR has no double edges; run the pass "
            "'connections', which joins them."
        )

    def _keep_metadata(self) -> None:
        """Returns metadata that was read from nodes to these nodes."""
        for key, value in self.graph.metadata.items():
            node, _, label = key.rpartition("/")
            if node in self.nodes:
                self.nodes[node].metadata[label] = value

    def _metadata(self) -> dict[str, str]:
        """Metadata of the graph, and the notes under their key."""
        graph = self.graph
        notes = NirNotes(
            dt=graph.dt,
            choices={name: p.neuron.choices for name, p in graph.populations.items() if p.neuron.choices},
            delays={self._known_as(p): p.delay for name, p in graph.projections.items() if name in self.implied},
            initial={
                name: {state: value.tolist() for state, value in p.initial.items()}
                for name, p in graph.populations.items()
                if p.initial
            },
            fixed=[self._known_as(p) for p in graph.projections.values() if not p.trained and p.operation.arrays],
            masked=[self._known_as(p) for p in graph.projections.values() if p.masked],
            untied={name: self._uses_of(name) for name in graph.parameters},
            ranges={
                name: (node.low, node.high)
                for name, node in graph.inputs.items()
                if node.low is not None or node.high is not None
            },
        )
        metadata = {key: value for key, value in graph.metadata.items() if key.rpartition("/")[0] not in self.nodes}
        return {**metadata, NOTES: notes.to_json()}

    def _uses_of(self, parameter: str) -> list[str]:
        """Names of the projections and populations whose arrays are computed from a parameter."""
        graph = self.graph
        names = dict.fromkeys(name for (name, _), use in graph.bindings.items() if parameter in use.parameters)
        return [self._known_as(graph.projections[n]) if n in graph.projections else n for n in names]


def _implied_delays(graph: SNNGraph) -> set[str]:
    """Projections in cycles whose delays are all one step, which NIR leaves to the simulator."""
    populations = graph.populations
    inner = [p for p in graph.projections.values() if p.source in populations and p.target in populations]
    component = strong_components(populations, ((p.source, p.target) for p in inner))
    delayed: dict[int, list[Projection]] = {}
    for projection in inner:
        a, b = component[projection.source], component[projection.target]
        if a == b and projection.delay and not _joins_relays(graph, projection):
            delayed.setdefault(a, []).append(projection)
    of_one_step = (cycle for cycle in delayed.values() if {p.delay for p in cycle} == {1})
    return {projection.name for cycle in of_one_step for projection in cycle}


def _joins_relays(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection without an operation has an end that may disappear or merge, and its delay with it."""
    ends = (graph.populations[projection.source].neuron, graph.populations[projection.target].neuron)
    return isinstance(projection.operation, Identity) and any(isinstance(neuron, (Relay, Delay)) for neuron in ends)


def _neuron(population: Population, dt: float) -> Any:
    import nir

    neuron = population.neuron
    values = {name: np.array(np.broadcast_to(v, population.shape)) for name, v in neuron.parameters.items()}
    if isinstance(neuron, Delay):
        return nir.Delay(values["steps"] * dt)
    if not neuron.in_nir:
        raise GraphError(
            f"population {population.name!r} is {type(neuron).__name__}, which NIR does not have; it has "
            f"{', '.join(KINDS)}."
        )
    return getattr(nir, type(neuron).__name__)(**values)


def _operation(projection: Projection, source: tuple[int, ...]) -> Any:
    """The node of an operation, with its shapes, which some readers need."""
    node = OPERATIONS[type(projection.operation)](projection, source)
    node.input_type = {"input": np.array([prod(source)] if isinstance(projection.operation, Constant) else source)}
    node.output_type = {"output": np.array(projection.operation.target_shape(source))}
    return node


def _linear(projection: Projection, source: tuple[int, ...]) -> Any:
    import nir

    linear: Any = projection.operation
    weight, bias = linear.weight, linear.bias
    if sparse.issparse(weight):
        if weight.shape[0] * weight.shape[1] > DENSEST:
            raise GraphError(
                f"projection {projection.name!r}: NIR stores weights densely, and {list(weight.shape)} is too large "
                "for that; save the graph with ranvier.save instead."
            )
        MATRIX.check(prod(weight.shape) * weight.dtype.itemsize, f"projection {projection.name!r}, dense as in NIR,")
        weight = weight.toarray()
    if bias is None:
        return nir.Linear(np.array(weight))
    return nir.Affine(np.array(weight), np.array(np.broadcast_to(bias, weight.shape[:1])))


def _scale(projection: Projection, source: tuple[int, ...]) -> Any:
    import nir

    scale: Any = projection.operation
    return nir.Scale(np.array(np.broadcast_to(scale.scale, source)))


def _conv(projection: Projection, source: tuple[int, ...]) -> Any:
    import nir

    conv: Any = projection.operation
    weight = np.array(conv.weight)
    bias = np.zeros(weight.shape[0], weight.dtype) if conv.bias is None else conv.bias
    options = {"groups": conv.groups, "bias": np.array(np.broadcast_to(bias, weight.shape[:1])), "weight": weight}
    if conv.axes == 1:
        padding = conv.padding if isinstance(conv.padding, str) else conv.padding[0]
        return nir.Conv1d(
            input_shape=source[1], stride=conv.stride[0], padding=padding, dilation=conv.dilation[0], **options
        )
    return nir.Conv2d(
        input_shape=(source[1], source[2]), stride=conv.stride, padding=conv.padding, dilation=conv.dilation, **options
    )


def _pool(projection: Projection, source: tuple[int, ...]) -> Any:
    import nir

    pool: Any = projection.operation
    kind = nir.AvgPool2d if isinstance(pool, AvgPool) else nir.SumPool2d
    return kind(*(np.array(option) for option in (pool.kernel, pool.stride, pool.padding)))


def _flatten(projection: Projection, source: tuple[int, ...]) -> Any:
    flatten: Any = projection.operation
    return _flatten_node(source, flatten.start, flatten.end)


def _flatten_node(source: tuple[int, ...], start: int, end: int) -> Any:
    import nir

    return nir.Flatten({"input": np.array(source)}, start, end)


def _constant(projection: Projection, source: tuple[int, ...]) -> Any:
    import nir

    bias = np.array(projection.operation.arrays["bias"])
    if bias.ndim != 1:
        raise GraphError(
            f"projection {projection.name!r} adds a constant of shape {list(bias.shape)}, but NIR has constants along "
            "only one axis; save the graph with ranvier.save instead."
        )
    return nir.Affine(np.zeros((bias.size, prod(source)), bias.dtype), bias)


OPERATIONS: dict[type[Operation], Callable[[Any, tuple[int, ...]], Any]] = {
    Linear: _linear,
    Scale: _scale,
    Conv: _conv,
    SumPool: _pool,
    AvgPool: _pool,
    Flatten: _flatten,
    Constant: _constant,
}


def _write(graph: Any, target: Path) -> None:
    import nir

    try:
        with replacing(target) as temporary:
            nir.write(temporary, graph)
    except OSError as error:
        raise GraphError(f"{str(target)!r} cannot be written: {reason_text(error)}.") from error
