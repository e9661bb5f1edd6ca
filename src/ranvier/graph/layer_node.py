"""One layer of a graph: ``LayerNode`` in sc-neurocore's shape, as values or as a view that writes to the graph."""

# An example: layer = graph.layers[0] is the population "a" [4], fed by the projection "x->a" with weights [4, 2]. Its
# attribute n_inputs is 2, read from the weights. Assigning weights [4, 3] replaces the projection's weights, and makes
# the input x [3] if it feeds nothing else. Assigning the name "b" renames the population, and "x->a" to "x->b".

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import GraphError
from .arrays import Matrix, matrix
from .elements import Activity, Input, Output, Population, Projection
from .live_arrays import copied, live, plain
from .network import EMPTY_DT, Network
from .neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, I, Neuron, Threshold
from .operations import Identity, Linear

TAU = 20e-3
"""Membrane time constant in seconds of neurons that are chosen by name."""
TAU_SYN, TAU_A, BETA = 5e-3, 200e-3, 0.1
"""Time constants of synapse and adaptation in seconds, and rise of the threshold, of neurons chosen by name."""
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
"""The neurons that names stand for; IF and I neurons sum up their input."""
FIELDS = ("name", "n_inputs", "n_neurons", "weights", "neuron_type", "firing_rates")


class LayerNode:
    """A layer of a feed-forward graph, in the style of sc-neurocore.

    A layer from ``graph.layers``, or one from which a graph was made, is a view: assignments are written to the graph.
    The sizes follow the weights.

    Attributes:
        name: of the population.
        n_inputs, n_neurons: sizes.
        weights: ``[n_neurons, n_inputs]``.
        neuron_type: name of a kind of neuron with default parameters (LIF has tau = 20 ms), or the neuron itself. It
            reads as the name while the neuron has these parameters.
        firing_rates: spikes per step ``[n_neurons]``; None if not measured.

    Raises:
        GraphError: the graph does not allow an edit.
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
        """The layer of a graph with some name, as a view."""
        layer = cls(name, 0, 0, None)
        layer._graphs = (graph,)
        return layer

    def bind(self, graph: Network) -> None:
        """Turns the layer into a view of a graph that was made from it."""
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
        """Number of stored weights."""
        weight = self._weight if self._graphs else matrix(self._values["weights"])
        return weight.nnz if sparse.issparse(weight) else weight.size

    def copy(self) -> LayerNode:
        """A layer with the same values that is not a view."""
        return LayerNode(*(plain(getattr(self, name)) for name in FIELDS))

    def __deepcopy__(self, memo: Any) -> LayerNode:
        return self.copy()

    def __reduce__(self) -> Any:
        return LayerNode, tuple(plain(getattr(self, name)) for name in FIELDS)

    def __setattr__(self, name: str, value: Any) -> None:
        if not hasattr(type(self), name):
            raise AttributeError(
                f"a layer has no {name!r}, only {', '.join(FIELDS)}; set the parameters of its neurons through these, "
                "as in layer.neuron_type = ranvier.neurons.LIF(tau=0.02, v_threshold=0.5)."
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
        """The graph that an edit changes.

        Raises:
            GraphError: several graphs were made from the layer.
        """
        if len(self._graphs) > 1:
            raise GraphError(
                f"layer {self.name!r} belongs to {len(self._graphs)} graphs; edit it through graph.layers of the "
                "graph you mean."
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
                f"layer {self.name!r}: {which} = {number}, but its weights have shape {list(self._weight.shape)}; the "
                "sizes follow from the weights, so assign weights of shape [n_neurons, n_inputs] first."
            )

    def _replace_population(self, graph: Network, **changes: Any) -> None:
        graph.populations[self.name] = graph.populations[self.name].replace(**changes)

    def _write_weight(self, weights: Any) -> None:
        """Replaces the weights in the graph, and the sizes that follow from them."""
        graph, projection = self._written(), self._projection
        weight = copied(weights)
        if weight.ndim != 2:
            raise GraphError(
                f"layer {self.name!r}: weights have shape {list(weight.shape)}, expected [n_neurons, n_inputs]."
            )
        # Only the parameter itself can change such weights, because other arrays change with them.
        use = graph.bindings.get((projection.name, "weight"))
        if use is not None and use.parameters:
            raise GraphError(
                f"layer {self.name!r}: its weights are computed from {', '.join(map(repr, use.parameters))}, which "
                "other arrays may use too; write graph.set_parameter(name, value)."
            )
        graph.projections[projection.name] = projection.replace(operation=projection.operation.replace(weight=weight))
        _resize(graph, self.name, projection, weight.shape)

    def _write_rates(self, rates: Any) -> None:
        graph = self._written()
        self._replace_population(graph, activity=None if rates is None else Activity(copied(rates)))


def neuron_of(name: str, kind: str | Neuron) -> Neuron:
    """The neuron that a name stands for, or the neuron itself.

    Raises:
        GraphError: there is no such name.
    """
    if isinstance(kind, Neuron):
        return kind
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise GraphError(
            f"layer {name!r}: neuron_type {kind!r} is not one of {', '.join(DEFAULTS)}; pass any other kind as a "
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


def one_matrix(name: str, into: Iterable[Projection]) -> Projection | None:
    """The single matrix that feeds a population, besides its own recurrence; None if it is fed in another way."""
    others = [projection for projection in into if projection.source != name]
    return others[0] if len(others) == 1 and isinstance(others[0].operation, Linear) else None


def feeding(graph: Network, name: str) -> Projection:
    """The projection with the weights of a layer.

    Raises:
        GraphError: the population is no longer fed by a single matrix.
    """
    projection = one_matrix(name, graph.into(name))
    if projection is None:
        raise GraphError(
            f"{name!r} is now fed by more than one matrix, so it is not a layer; see graph.into({name!r})."
        )
    return projection


def _resize(graph: Network, name: str, projection: Projection, shape: tuple[int, int]) -> None:
    """Gives a population the size of its new weights, and adjusts the input and outputs next to it if nothing else
    depends on them."""
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
    """Renames a population, and everything in the graph that refers to it."""
    if new == old:
        return
    if not isinstance(new, str) or new in graph.nodes:
        raise GraphError(f"layer {old!r} cannot be renamed to {new!r}; choose a name that no other element uses.")
    graph.populations = {
        new if name == old else name: p.replace(name=new) if name == old else p for name, p in graph.populations.items()
    }
    projections, renamed = {}, {old: new}
    for projection in graph.projections.values():
        ends = [new if end == old else end for end in (projection.source, projection.target)]
        # A name made from those of the ends follows them, others are the caller's.
        is_default = projection.name == f"{projection.source}->{projection.target}"
        name = f"{ends[0]}->{ends[1]}" if is_default else projection.name
        renamed[projection.name] = name
        projections[name] = projection.replace(name=name, source=ends[0], target=ends[1])
    graph.projections = projections
    graph.bindings = {(renamed.get(name, name), label): use for (name, label), use in graph.bindings.items()}
