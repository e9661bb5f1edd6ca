"""The relays and projections of a graph that is being made, added one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import ModelError
from ..graph.elements import Population, Projection
from ..graph.neurons import OUT, Relay
from ..graph.operations import Constant, Flatten, Identity, Operation, Select
from ..graph.order import Port
from ..graph.shared import ArrayName
from ..program._jax import Var
from .affine_operation import AffineOperation, Derived, StaticValues
from .naming import free
from .nodes import Nodes, Shape, SourcePort
from .references import MovedSource
from .step import StepView


@dataclass(eq=False)
class Draft:
    """What has been added to the nodes of a graph so far.

    Attributes:
        step: of the program, for the values of what does not change.
        nodes: of the graph.
        taken_names: names that projections avoid.
        relays: populations where sums meet.
        projections: by name, in the order in which a target sums them.
        derived: how trained arrays of projections are made of what does not change.
    """

    step: StepView
    nodes: Nodes
    taken_names: set[str]
    relays: dict[str, Population] = field(default_factory=dict)
    projections: dict[str, Projection] = field(default_factory=dict)
    derived: dict[ArrayName, Derived] = field(default_factory=dict)

    def port_shape(self, source: SourcePort) -> Shape:
        """The shape of what is read at a port of an input, population or relay."""
        nodes, name = self.nodes, source.node
        if name in nodes.inputs:
            return nodes.inputs[name].shape
        population = nodes.populations.get(name) or self.relays[name]
        return population.neuron.shape_of(source.port, population.shape)

    def add_relay(self, wanted: str, shape: Shape) -> str:
        """Adds a relay of a shape and returns its name, which is the one wanted if that is free."""
        nodes = self.nodes
        name = free({*nodes.inputs, *nodes.populations, *nodes.outputs, *self.relays}, wanted)
        self.relays[name] = Population(name, shape, Relay())
        return name

    def add_map(self, operation: AffineOperation, source: SourcePort, port: Port) -> None:
        """Adds a projection that applies an affine map."""
        arrays = {label: np.asarray(derived(self.step.static)) for label, derived in operation.arrays.items()}
        name = self._add(operation.name, source, operation.make(arrays), port, operation.learned)
        if operation.learned:
            self.derived.update({(name, label): derived for label, derived in operation.arrays.items()})

    def add_move(self, index: np.ndarray | None, source: SourcePort, port: Port, shape: Shape) -> None:
        """Adds a projection that moves the elements of an index, in which -1 stands for zero."""
        operation = _moving(index, self.port_shape(source), shape)
        self._add(f"{source.node}->{port[0]}", source, operation, port, trained=False)

    def add_fixed(self, term: MovedSource, port: Port, shape: Shape) -> None:
        """Adds a projection that brings a value which is fixed as long as weights are."""
        derived = fixed_term(term, shape)
        learned = isinstance(term.root, Var) and self.step.is_learned(term.root)
        name = self.add_constant(np.asarray(derived(self.step.static)), port, learned)
        if learned:
            self.derived[name, "bias"] = derived

    def add_constant(self, value: np.ndarray, port: Port, trained: bool) -> str:
        """Adds a projection that brings the same value in every step; it needs a source, but ignores its values."""
        node = next(iter(self.nodes.inputs), None)
        if node is None:
            raise ModelError(
                f"{self.step.info.name} takes no input; give it one, so that a graph knows how long to run."
            )
        return self._add(f"{port[0]}.{port[1]}.bias", SourcePort(node, OUT), Constant(value), port, trained)

    def _add(self, wanted: str, source: SourcePort, operation: Operation, port: Port, trained: bool) -> str:
        name = free(self.taken_names, wanted)
        self.taken_names.add(name)
        self.projections[name] = Projection(
            name,
            source.node,
            port[0],
            operation,
            source.delay,
            source_port=source.port,
            target_port=port[1],
            trained=trained,
        )
        return name


def fixed_term(term: MovedSource, shape: Shape) -> Derived:
    """What a static term brings to a port of a shape."""

    def derived(static: StaticValues) -> Any:
        value = jnp.asarray(static[term.root]).reshape(-1)
        if term.index is not None:
            value = jnp.where(term.index >= 0, value[np.maximum(term.index, 0)], 0)
        return value.reshape(shape)

    return derived


def _moving(index: np.ndarray | None, source: Shape, target: Shape) -> Operation:
    if index is None:
        # The simplest operation that does it: passes know identities, and selections hold an index per element.
        if source == target:
            return Identity()
        if target == (prod(source),):
            return Flatten()
        index = np.arange(prod(source))
    return Select(index.reshape(target))
