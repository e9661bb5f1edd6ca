"""sc-neurocore's feed-forward shape: ``SNNGraph(layers=[LayerNode(...)])``, and ``graph.layers`` to edit.

A layer of a graph holds nothing of its own: it reads the population and the projection that feeds it, and writes them
anew when it is edited. Its arrays are copies that know where they come from: an edit in place makes a new array of the
graph. So elements and arrays that copies of the graph share stay as they are, and no edit is lost: one that cannot be
written through is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, Self, Unpack, overload

import numpy as np
from scipy import sparse

from ..errors import GraphError
from ..util.counting import counted
from .arrays import Matrix, matrix
from .elements import Activity, Input, Output, Population, Projection
from .live_arrays import live, own, plain
from .names import free_name
from .network import EMPTY_DT, Elements, Network
from .neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, I, Neuron, Threshold
from .operations import Identity, Linear

TAU = 20e-3
"""Time constant of a layer whose kind of neuron is given by name, in seconds."""
TAU_SYN, TAU_A, BETA = 5e-3, 200e-3, 0.1
"""Of a synapse and of an adaptive threshold, where the kind of neuron is given by name."""
DEFAULTS: dict[str, Neuron] = {
    "LIF": LIF(tau=TAU),
    "LI": LI(tau=TAU),
    "IF": IF(r=1 / EMPTY_DT, v_threshold=1.0),
    "I": I(r=1 / EMPTY_DT),
    "ALIF": ALIF(tau=TAU, tau_a=TAU_A, beta=BETA),
    "CubaLIF": CubaLIF(tau_syn=TAU_SYN, tau_mem=TAU),
    "CubaLI": CubaLI(tau_syn=TAU_SYN, tau_mem=TAU),
    "Threshold": Threshold(threshold=1.0),
}
"""Neurons of a layer by name; IF and I neurons add their input up."""
FIELDS = ("name", "n_inputs", "n_neurons", "weights", "neuron_type", "firing_rates")


class LayerNode:
    """A layer of a feed-forward graph, in the manner of sc-neurocore.

    Once a graph is made of it, or where it comes from ``graph.layers``, it is a view: what is assigned is written to
    the graph. The sizes follow the weights.

    Attributes:
        name: of the population.
        n_inputs, n_neurons: sizes.
        weights: ``[n_neurons, n_inputs]``.
        neuron_type: name of a kind of neuron (its defaults are taken: LIF with tau = 20 ms), or the neuron itself. The
            name is read back while the neuron is the one that it stands for.
        firing_rates: spikes per step ``[n_neurons]``, or None where not measured.

    Raises:
        GraphError: an edit that the graph cannot take.
        AttributeError: a layer has no attribute of this name.
    """

    __slots__ = ("_graphs", "_values")
    __hash__ = None  # pyright: ignore[reportAssignmentType]
    _graphs: tuple[Network, ...]
    _values: dict[str, Any]

    def __init__(
        self,
        name: str,
        n_inputs: int,
        n_neurons: int,
        weights: Any,
        neuron_type: str | Neuron = "LIF",
        firing_rates: Any = None,
    ) -> None:
        values = (name, n_inputs, n_neurons, weights, neuron_type, firing_rates)
        self._values = dict(zip(FIELDS, values, strict=True))
        self._graphs = ()

    @classmethod
    def of(cls, graph: Network, name: str) -> LayerNode:
        """The layer of a graph that is called so."""
        layer = cls(name, 0, 0, None)
        layer._graphs = (graph,)
        return layer

    def bind(self, graph: Network) -> None:
        """Makes the layer a view of a graph that was made of it."""
        self._graphs = (*(g for g in self._graphs if g is not graph), graph)

    def belongs_to(self, graph: Network) -> bool:
        return any(g is graph for g in self._graphs)

    @property
    def name(self) -> str:
        return self._values["name"]

    @name.setter
    def name(self, name: str) -> None:
        if self._graphs:
            _rename(self._written(), self.name, name)
        self._values["name"] = name

    @property
    def weights(self) -> Any:
        if not self._graphs:
            return self._values["weights"]
        return live(lambda: self._weight, self._write_weight)

    @weights.setter
    def weights(self, weights: Any) -> None:
        if self._graphs:
            self._write_weight(weights)
        else:
            self._values["weights"] = weights

    @property
    def n_neurons(self) -> int:
        return self._weight.shape[0] if self._graphs else self._values["n_neurons"]

    @n_neurons.setter
    def n_neurons(self, number: int) -> None:
        self._set_size("n_neurons", number)

    @property
    def n_inputs(self) -> int:
        return self._weight.shape[1] if self._graphs else self._values["n_inputs"]

    @n_inputs.setter
    def n_inputs(self, number: int) -> None:
        self._set_size("n_inputs", number)

    @property
    def neuron_type(self) -> str | Neuron:
        if not self._graphs:
            return self._values["neuron_type"]
        neuron = self._population.neuron
        return next((name for name, default in DEFAULTS.items() if _same_neuron(neuron, default)), neuron)

    @neuron_type.setter
    def neuron_type(self, kind: str | Neuron) -> None:
        if self._graphs:
            neuron = neuron_of(self.name, kind)
            self._replace_population(self._written(), neuron=neuron)
        self._values["neuron_type"] = kind

    @property
    def firing_rates(self) -> Any:
        if not self._graphs:
            return self._values["firing_rates"]
        return None if self._activity is None else live(lambda: self._activity, self._write_rates)

    @firing_rates.setter
    def firing_rates(self, rates: Any) -> None:
        if self._graphs:
            self._write_rates(rates)
        else:
            self._values["firing_rates"] = rates

    @property
    def n_params(self) -> int:
        """Number of weights that are stored."""
        weight = self._weight if self._graphs else matrix(self._values["weights"])
        return weight.nnz if sparse.issparse(weight) else weight.size

    def copy(self) -> LayerNode:
        """A layer of no graph, with the same values."""
        return LayerNode(*(plain(getattr(self, name)) for name in FIELDS))

    def __deepcopy__(self, memo: Any) -> LayerNode:
        return self.copy()

    def __reduce__(self) -> Any:
        return LayerNode, tuple(plain(getattr(self, name)) for name in FIELDS)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            raise AttributeError(
                f"a layer has no {name!r}, only {', '.join(FIELDS)}; parameters of its neurons are set with them, as "
                "in layer.neuron_type = ranvier.neurons.LIF(tau=0.02, v_threshold=0.5)."
            )
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        """Whether both have equal fields."""
        if not isinstance(other, LayerNode):
            return NotImplemented
        return all(_equal(getattr(self, name), getattr(other, name)) for name in FIELDS)

    def __repr__(self) -> str:
        measured = "" if self.firing_rates is None else ", firing_rates=..."
        return f"LayerNode({self.name!r}, {self.n_inputs}, {self.n_neurons}, ..., {self.neuron_type!r}{measured})"

    # What a view reads and writes.

    @property
    def _graph(self) -> Network:
        graph = self._graphs[-1]
        if self.name not in graph.populations:
            raise GraphError(f"layer {self.name!r} is no longer in the graph {graph.name!r}; see graph.layers.")
        return graph

    def _written(self) -> Network:
        """The graph that an edit changes."""
        if len(self._graphs) > 1:
            raise GraphError(
                f"layer {self.name!r} was given to {len(self._graphs)} graphs; edit graph.layers of the one meant."
            )
        return self._graph

    @property
    def _population(self) -> Population:
        return self._graph.populations[self.name]

    @property
    def _projection(self) -> Projection:
        return feeding(self._graph, self.name)

    @property
    def _weight(self) -> Matrix:
        return self._projection.operation.arrays["weight"]

    @property
    def _activity(self) -> np.ndarray | None:
        activity = self._population.activity
        return None if activity is None else activity.rates

    def _set_size(self, which: str, number: int) -> None:
        if not self._graphs:
            self._values[which] = number
        elif number != getattr(self, which):
            raise GraphError(
                f"layer {self.name!r}: {which} = {number}, and its weights are {list(self._weight.shape)}; the sizes "
                "follow the weights: assign weights [n_neurons, n_inputs] first."
            )

    def _replace_population(self, graph: Network, **changes: Any) -> None:
        graph.populations[self.name] = graph.populations[self.name].replace(**changes)

    def _write_weight(self, weights: Any) -> None:
        graph, projection = self._written(), self._projection
        weight = own(weights)
        if weight.ndim != 2:
            raise GraphError(
                f"layer {self.name!r}: weights have shape {list(weight.shape)}, [n_neurons, n_inputs] is expected."
            )
        use = graph.bindings.get((projection.name, "weight"))
        if use is not None and use.parameters:
            raise GraphError(
                f"layer {self.name!r}: its weights are made of {', '.join(map(repr, use.parameters))}, which others "
                "may be made of too; write graph.set_parameter(name, value)."
            )
        graph.projections[projection.name] = projection.replace(operation=projection.operation.replace(weight=weight))
        _resize(graph, self.name, projection, weight.shape)

    def _write_rates(self, rates: Any) -> None:
        graph = self._written()
        self._replace_population(graph, activity=None if rates is None else Activity(own(rates)))


class Layers(MutableSequence[LayerNode]):
    """The populations that one dense or sparse matrix feeds, beside their own recurrence: a list that writes through.

    Layers can be added, removed and reordered where the graph is a chain of layers and nothing else; in any graph they
    can be edited one by one.
    """

    def __init__(self, graph: Network) -> None:
        self._graph = graph

    def _nodes(self) -> list[LayerNode]:
        into = self._graph.by_target()
        return [LayerNode.of(self._graph, name) for name in self._graph.populations if _one_matrix(name, into[name])]

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
        """Takes a layer out and gives it as one of no graph."""
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
        """The layers in a list of their own; they are views all the same."""
        return self._nodes()

    def __add__(self, other: Iterable[LayerNode]) -> list[LayerNode]:
        return [*self, *other]

    def __radd__(self, other: Iterable[LayerNode]) -> list[LayerNode]:
        return [*other, *self]

    def __iadd__(self, values: Iterable[LayerNode]) -> Self:
        self.extend(values)
        return self

    def __mul__(self, number: int) -> Any:
        raise GraphError("every layer of a graph has a name of its own, so a list of them cannot be repeated.")

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
    """Makes a graph the chain of these layers; what it has of them, and its input and output, stay as they are.

    Raises:
        GraphError: what is given is no layer, two have one name, or the graph is more than a chain.
    """
    check_chain(graph)
    nodes = check_layers(layers)
    inputs, populations, projections, outputs = chain(nodes, graph)
    graph.inputs = {node.name: node for node in inputs}
    graph.outputs = {node.name: node for node in outputs}
    graph.populations = {population.name: population for population in populations}
    graph.projections = {projection.name: projection for projection in projections}
    for node in nodes:
        node.bind(graph)


def check_layers(layers: Iterable[Any]) -> list[LayerNode]:
    if not isinstance(layers, Iterable):
        raise GraphError(f"{layers!r:.60} is no list of layers; write SNNGraph(layers=[LayerNode(...)]).")
    nodes = list(layers)
    for node in nodes:
        if not isinstance(node, LayerNode):
            raise GraphError(
                f"{node!r:.60} is no layer; write LayerNode(name, n_inputs, n_neurons, weights) of ranvier."
            )
    names = [node.name for node in nodes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise GraphError(
            f"two layers are called {twice[0]!r}; give every one a name of its own. To exchange layers, assign all at "
            "once, as in graph.layers[:] = [b, a]."
        )
    return nodes


def chain(
    layers: list[LayerNode], graph: Network | None = None
) -> tuple[list[Input], list[Population], list[Projection], list[Output]]:
    """Inputs, populations, projections and outputs of layers one after the other; of none, nothing.

    Args:
        layers: with names of their own.
        graph: the chain that the input, the output and those of the layers are taken from that are views of it.
    """
    if not layers:
        return [], [], [], []
    first, last = layers[0].n_inputs, layers[-1].n_neurons
    start = next(iter(graph.inputs.values()), None) if graph is not None else None
    end = next(iter(graph.outputs.values()), None) if graph is not None else None
    # sc-neurocore's own tutorial calls a layer "output".
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
    """The population and the weights of a layer: the graph's own where the layer is a view of it."""
    if graph is not None and layer.belongs_to(graph) and layer.name in graph.populations:
        return graph.populations[layer.name], feeding(graph, layer.name).operation.arrays["weight"]
    weight, shape = matrix(plain(layer.weights)), (layer.n_neurons, layer.n_inputs)
    if weight.shape != shape:
        hint = " The first axis is that of the neurons: give weights.T." if weight.shape == shape[::-1] else ""
        raise GraphError(
            f"layer {layer.name!r}: weights have shape {list(weight.shape)}, [n_neurons, n_inputs] = {list(shape)} is "
            f"expected.{hint}"
        )
    rates = plain(layer.firing_rates)
    activity = None if rates is None else Activity(rates)
    neuron = neuron_of(layer.name, layer.neuron_type)
    return Population(layer.name, (layer.n_neurons,), neuron, activity=activity), weight


def neuron_of(name: str, kind: str | Neuron) -> Neuron:
    """The neuron of a layer from its name or itself.

    Raises:
        GraphError: there is no such kind.
    """
    if isinstance(kind, Neuron):
        return kind
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise GraphError(
            f"layer {name!r}: neuron_type {kind!r} is none of {', '.join(DEFAULTS)}; another kind is given as a "
            "neuron, as in neuron_type=ranvier.neurons.ALIF(tau=0.02, tau_a=0.2, beta=0.1)."
        )
    return DEFAULTS[kind]


def _equal(one: Any, other: Any) -> bool:
    if sparse.issparse(one) or sparse.issparse(other):
        return one.shape == other.shape and (one != other).sum() == 0
    return bool(np.array_equal(one, other)) if isinstance(one, np.ndarray) else one is other or one == other


def _same_neuron(one: Neuron, other: Neuron) -> bool:
    if type(one) is not type(other) or one.choices != other.choices:
        return False
    return all(np.array_equal(value, other.parameters[name]) for name, value in one.parameters.items())


def _one_matrix(name: str, into: Iterable[Projection]) -> Projection | None:
    """The one matrix that feeds a population beside its own recurrence; None where it is fed in another way."""
    others = [projection for projection in into if projection.source != name]
    return others[0] if len(others) == 1 and isinstance(others[0].operation, Linear) else None


def feeding(graph: Network, name: str) -> Projection:
    """The projection that holds the weights of a layer.

    Raises:
        GraphError: the population is no longer fed by one matrix.
    """
    projection = _one_matrix(name, graph.into(name))
    if projection is None:
        raise GraphError(f"{name!r} is fed by more than one matrix now, so it is no layer; see graph.into({name!r}).")
    return projection


def check_chain(graph: Network) -> None:
    """Passes for a graph that its layers describe in full.

    Raises:
        GraphError: the graph has more than a chain of layers, which new layers could not take over.
    """
    extra = _beyond_chain(graph)
    if extra:
        raise GraphError(
            f"the graph {graph.name!r} is no plain chain of layers: {extra}. Layers can be edited one by one; to add, "
            "remove or reorder some, edit graph.populations and graph.projections."
        )


def _beyond_chain(graph: Network) -> str:
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
        return f"its output does not show {source!r} as it is"
    return ""


def _resize(graph: Network, name: str, projection: Projection, shape: tuple[int, int]) -> None:
    """Gives the population the size of its new weights, and the input and output beside it where they are simple."""
    size, inner = shape
    if graph.populations[name].shape != (size,):
        graph.populations[name] = graph.populations[name].replace(shape=(size,))
        for end in graph.out_of(name):
            if end.target in graph.outputs and isinstance(end.operation, Identity):
                graph.outputs[end.target] = Output(end.target, (size,))
    source = graph.inputs.get(projection.source)
    if source is not None and source.shape != (inner,) and len(graph.out_of(source.name)) == 1:
        graph.inputs[source.name] = Input(source.name, (inner,), source.low, source.high)


def _rename(graph: Network, old: str, new: str) -> None:
    if new == old:
        return
    if not isinstance(new, str) or new in graph.nodes:
        raise GraphError(f"layer {old!r} cannot be called {new!r}: a text that no other element has is expected.")
    graph.populations = {
        new if name == old else name: p.replace(name=new) if name == old else p for name, p in graph.populations.items()
    }
    projections, renamed = {}, {old: new}
    for projection in graph.projections.values():
        ends = [new if end == old else end for end in (projection.source, projection.target)]
        made = projection.name == f"{projection.source}->{projection.target}"
        name = f"{ends[0]}->{ends[1]}" if made else projection.name
        renamed[projection.name] = name
        projections[name] = projection.replace(name=name, source=ends[0], target=ends[1])
    graph.projections = projections
    graph.bindings = {(renamed.get(name, name), label): use for (name, label), use in graph.bindings.items()}


class Layered(Network):
    """A network that can be made of layers, and whose layers can be edited.

    Args:
        layers: one after the other, in place of all elements.
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
        """The populations that one dense or sparse matrix feeds, beside their own recurrence, as a list of layers that
        writes through: what is assigned to a layer, or to the list where the graph is a chain, changes the graph.
        """
        return Layers(self)

    @layers.setter
    def layers(self, layers: Iterable[LayerNode]) -> None:
        replace_layers(self, layers)
