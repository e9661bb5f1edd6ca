"""Graphs in sc-neurocore's shape: ``SNNGraph(layers=[LayerNode(...)])``, and ``graph.layers`` to edit them.

The layers of a graph store nothing themselves. They read populations and the projections that feed them, and replace
them when they are edited. Elements and arrays that copies of the graph share are never changed in place.
"""

# An example: the layers "a" (2 inputs, 4 neurons) and "b" (4 inputs, 3 neurons) make the graph
#
#   input [2] -> a [4] -> b [3] -> output [3]      with the projections "input->a", "a->b" and "b->output"
#
# After del graph.layers[0], only b is left. Its projection is "input->b", and the input has the 4 elements that the
# weights of b expect.

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, Self, Unpack, overload

from ..errors import GraphError
from ..util.counting import counted
from .arrays import Matrix, matrix
from .elements import Activity, Input, Output, Population, Projection
from .layer_node import LayerNode, feeding, neuron_of, one_matrix
from .live_arrays import plain
from .names import free_name
from .network import EMPTY_DT, Elements, Network
from .operations import Identity, Linear


class Layers(MutableSequence[LayerNode]):
    """A list of the populations that a single dense or sparse matrix feeds, besides their own recurrence.

    Edits of the list and of its layers change the graph. Layers of any graph can be edited one by one. They can only be
    added, removed and reordered if the graph is a chain of layers and nothing else.
    """

    def __init__(self, graph: Network) -> None:
        self._graph = graph

    def _nodes(self) -> list[LayerNode]:
        into = self._graph.by_target()
        return [LayerNode.of(self._graph, name) for name in self._graph.populations if one_matrix(name, into[name])]

    @overload
    def __getitem__(self, index: int) -> LayerNode: ...
    @overload
    def __getitem__(self, index: slice) -> list[LayerNode]: ...  # pyright: ignore[reportIncompatibleMethodOverride]
    def __getitem__(self, index: int | slice) -> LayerNode | list[LayerNode]:
        return self._nodes()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._edit(lambda nodes: nodes.__setitem__(index, value))

    def __delitem__(self, index: int | slice) -> None:
        self._edit(lambda nodes: nodes.__delitem__(index))

    def __len__(self) -> int:
        return len(self._nodes())

    def __iter__(self) -> Iterator[LayerNode]:
        return iter(self._nodes())

    def insert(self, index: int, value: LayerNode) -> None:
        self._edit(lambda nodes: nodes.insert(index, value))

    def pop(self, index: int = -1) -> LayerNode:
        """Removes a layer from the graph and returns a copy of it that is not a view."""
        layer = self[index].copy()
        del self[index]
        return layer

    def extend(self, values: Iterable[LayerNode]) -> None:
        self._edit(lambda nodes: nodes.extend(values))

    def clear(self) -> None:
        self._edit(lambda nodes: nodes.clear())

    def reverse(self) -> None:
        self._edit(lambda nodes: nodes.reverse())

    def sort(self, *, key: Callable[[LayerNode], Any], reverse: bool = False) -> None:
        self._edit(lambda nodes: nodes.sort(key=key, reverse=reverse))

    def copy(self) -> list[LayerNode]:
        """The layers in an ordinary list; they are still views."""
        return self._nodes()

    def __add__(self, other: Iterable[LayerNode]) -> list[LayerNode]:
        return [*self, *other]

    def __radd__(self, other: Iterable[LayerNode]) -> list[LayerNode]:
        return [*other, *self]

    def __iadd__(self, values: Iterable[LayerNode]) -> Self:
        self.extend(values)
        return self

    def __mul__(self, number: int) -> Any:
        raise GraphError("every layer of a graph has its own name, so a list of layers cannot be repeated.")

    __rmul__ = __imul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Layers, list, tuple)) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return repr(self._nodes())

    def _edit(self, change: Callable[[list[LayerNode]], None]) -> None:
        check_chain(self._graph)
        nodes = self._nodes()
        change(nodes)
        replace_layers(self._graph, nodes)


def replace_layers(graph: Network, layers: Iterable[LayerNode]) -> None:
    """Turns a graph into the chain of some layers. Those that are views of it are not changed, nor are input and
    output.

    Raises:
        GraphError: something is not a layer, two have the same name, or the graph is more than a chain.
    """
    check_chain(graph)
    nodes = check_layers(layers)
    # Everything is made before the graph changes: an error leaves the graph as it was.
    inputs, populations, projections, outputs = chain(nodes, graph)
    graph.inputs = {node.name: node for node in inputs}
    graph.outputs = {node.name: node for node in outputs}
    graph.populations = {population.name: population for population in populations}
    graph.projections = {projection.name: projection for projection in projections}
    for node in nodes:
        node.bind(graph)


def check_layers(layers: Iterable[Any]) -> list[LayerNode]:
    """The layers as a list.

    Raises:
        GraphError: something is not a layer, or two have the same name.
    """
    if not isinstance(layers, Iterable):
        raise GraphError(f"{layers!r:.60} is not a list of layers; write SNNGraph(layers=[LayerNode(...)]).")
    nodes = list(layers)
    for node in nodes:
        if not isinstance(node, LayerNode):
            raise GraphError(
                f"{node!r:.60} is not a layer; write ranvier.LayerNode(name, n_inputs, n_neurons, weights)."
            )
    names = [node.name for node in nodes]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise GraphError(
            f"two layers are called {repeated[0]!r}; give each its own name. To swap layers, assign all at once, as "
            "in graph.layers[:] = [b, a]."
        )
    return nodes


def chain(
    layers: list[LayerNode], graph: Network | None = None
) -> tuple[list[Input], list[Population], list[Projection], list[Output]]:
    """Inputs, populations, projections and outputs of consecutive layers; none if there are no layers.

    Args:
        layers: with different names.
        graph: a chain whose input and output are used, and the elements of the layers that are views of it.

    Raises:
        GraphError: the weights of a layer do not have its sizes.
    """
    if not layers:
        return [], [], [], []
    first, last = layers[0].n_inputs, layers[-1].n_neurons
    start = next(iter(graph.inputs.values()), None) if graph is not None else None
    end = next(iter(graph.outputs.values()), None) if graph is not None else None
    # The input and output must not have the name of a layer: sc-neurocore's own tutorial calls a layer "output".
    taken = {layer.name for layer in layers}
    bounds = (start.low, start.high) if start is not None and start.shape == (first,) else (None, None)
    start = Input(free_name(taken, start.name if start else "input"), (first,), *bounds)
    end = Output(free_name(taken, end.name if end else "output"), (last,))
    populations, projections, source = [], [], start.name
    for layer in layers:
        population, weight = _element(layer, graph)
        populations.append(population)
        projections.append(Projection(f"{source}->{layer.name}", source, layer.name, Linear(weight)))
        source = layer.name
    projections.append(Projection(f"{source}->{end.name}", source, end.name, Identity()))
    return [start], populations, projections, [end]


def _element(layer: LayerNode, graph: Network | None) -> tuple[Population, Matrix]:
    """The population and the weights of a layer; those of the graph if the layer is a view of it."""
    if graph is not None and layer.belongs_to(graph) and layer.name in graph.populations:
        return graph.populations[layer.name], feeding(graph, layer.name).operation.arrays["weight"]
    weight, shape = matrix(plain(layer.weights)), (layer.n_neurons, layer.n_inputs)
    if weight.shape != shape:
        hint = " The first axis is that of the neurons: pass weights.T." if weight.shape == shape[::-1] else ""
        raise GraphError(
            f"layer {layer.name!r}: weights have shape {list(weight.shape)}, expected [n_neurons, n_inputs] = "
            f"{list(shape)}.{hint}"
        )
    rates = plain(layer.firing_rates)
    activity = None if rates is None else Activity(rates)
    neuron = neuron_of(layer.name, layer.neuron_type)
    return Population(layer.name, (layer.n_neurons,), neuron, activity=activity), weight


def check_chain(graph: Network) -> None:
    """Returns if the layers of a graph describe all of it.

    Raises:
        GraphError: the graph has more than a chain of layers, which would be lost.
    """
    extra = _beyond_chain(graph)
    if extra:
        raise GraphError(
            f"the graph {graph.name!r} is not a plain chain of layers: {extra}. Layers can be edited one by one; "
            "to add, remove or reorder layers, edit graph.populations and graph.projections."
        )


def _beyond_chain(graph: Network) -> str:
    """What a graph has beyond a chain of layers, in words; empty if there is nothing."""
    if len(graph.inputs) > 1 or len(graph.outputs) > 1:
        return f"it has {counted(len(graph.inputs), 'input')} and {counted(len(graph.outputs), 'output')}"
    source = next(iter(graph.inputs), None)
    for name, population in graph.populations.items():
        into = graph.into(name)
        if len(into) != 1 or into[0].source != source or not isinstance(into[0].operation, Linear):
            return f"{name!r} is not fed by one matrix from {source!r}"
        if into[0].operation.bias is not None or into[0].delay or not into[0].trained:
            return f"{into[0].name!r} has a bias, a delay or weights that are not trained"
        if population.initial:
            return f"{name!r} has initial values"
        source = name
    ends = [p for output in graph.outputs for p in graph.into(output)]
    plain = [p for p in ends if p.source == source and isinstance(p.operation, Identity) and not p.delay]
    if graph.outputs and (len(plain) != 1 or len(ends) != 1):
        return f"its output does not show {source!r} unchanged"
    return ""


class Layered(Network):
    """A network that can be made from layers, and whose layers can be edited.

    Args:
        layers: in order, in place of all elements.
        elements: as :class:`Network` takes them.

    Raises:
        GraphError: the layers do not fit one another, or a graph with elements has no dt.
    """

    def __init__(self, layers: Iterable[LayerNode] | None = None, **elements: Unpack[Elements]) -> None:
        nodes = [] if layers is None else check_layers(layers)
        if nodes:
            inputs, populations, projections, outputs = chain(nodes)
            chained = Elements(inputs=inputs, populations=populations, projections=projections, outputs=outputs)
            dt = elements.get("dt")
            elements = {**elements, **chained, "dt": EMPTY_DT if dt is None else dt}
        super().__init__(**elements)
        for node in nodes:
            node.bind(self)

    @property
    def layers(self) -> Layers:
        """The populations that a single dense or sparse matrix feeds, besides their own recurrence, as a list of
        layers.

        Assignments to a layer change the graph, and so do edits of the list if the graph is a chain of layers.
        """
        return Layers(self)

    @layers.setter
    def layers(self, layers: Iterable[LayerNode]) -> None:
        replace_layers(self, layers)
