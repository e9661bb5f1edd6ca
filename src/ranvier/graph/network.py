"""The core of :class:`ranvier.SNNGraph`: elements, parameters, and what is counted in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypedDict

import numpy as np
from scipy import sparse

from ..errors import GraphError
from ..util.counting import counted
from .arrays import Matrix, constant, in_float64
from .elements import Input, Output, Population, Projection
from .operations import Flatten, Identity, Select
from .shared import ArrayName, ParameterBinding, array_at, remade

Node = Input | Population | Output


class Elements(TypedDict, total=False):
    """What a graph is made of, by the names that the constructor takes."""

    name: str
    dt: float | None
    inputs: Iterable[Input]
    populations: Iterable[Population]
    projections: Iterable[Projection]
    outputs: Iterable[Output]
    metadata: Mapping[str, str] | None
    parameters: Mapping[str, Any] | None
    bindings: Mapping[ArrayName, ParameterBinding] | None


EMPTY_DT = 1e-3
"""dt of a graph without elements that none was chosen for, in seconds."""


class Network:
    """What a graph is made of and what is counted in it; :class:`ranvier.SNNGraph` explains it."""

    def __init__(
        self,
        *,
        name: str = "graph",
        dt: float | None = None,
        inputs: Iterable[Input] = (),
        populations: Iterable[Population] = (),
        projections: Iterable[Projection] = (),
        outputs: Iterable[Output] = (),
        metadata: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        bindings: Mapping[ArrayName, ParameterBinding] | None = None,
    ) -> None:
        if dt is None and (inputs or populations or projections or outputs):
            raise GraphError("a graph needs its time step: SNNGraph(..., dt=0.001) for one millisecond.")
        self.name = name
        self.dt = EMPTY_DT if dt is None else float(dt)
        self.inputs: dict[str, Input] = _by_name(inputs)
        self.populations: dict[str, Population] = _by_name(populations)
        self.projections: dict[str, Projection] = _by_name(projections)
        self.outputs: dict[str, Output] = _by_name(outputs)
        self.metadata = dict(metadata or {})
        self.parameters: dict[str, np.ndarray] = {k: constant(v) for k, v in (parameters or {}).items()}
        self.bindings: dict[ArrayName, ParameterBinding] = dict(bindings or {})

    @classmethod
    def constructor(cls, make: Callable[..., Any]) -> Callable[..., Any]:
        """Adds another way to make graphs, a function that returns one, to the class under the function's own name.

        Packages that stand above graphs use it as a decorator, so that the class need not know of them.
        """
        setattr(cls, make.__name__, staticmethod(make))
        return make

    def copy(self) -> Self:
        """A graph that can be changed without changing this one; elements and arrays are shared."""
        copy = type(self)(dt=self.dt)
        copy.become(self)
        return copy

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.copy()  # what is shared is never written in place

    def become(self, other: Network) -> None:
        """Takes over all that another graph has."""
        self.name, self.dt, self.metadata = other.name, other.dt, dict(other.metadata)
        self.inputs, self.populations = dict(other.inputs), dict(other.populations)
        self.projections, self.outputs = dict(other.projections), dict(other.outputs)
        self.parameters, self.bindings = dict(other.parameters), dict(other.bindings)

    def set_parameter(self, name: str, value: Any) -> None:
        """Gives a parameter another value, and all arrays that are made of it their new numbers."""
        self.parameters[name] = constant(value)
        remade(self, {name})

    def forget_unused(self) -> None:
        """Drops what is known of arrays that are gone, and parameters that no array is made of."""
        self.bindings = {array: use for array, use in self.bindings.items() if array_at(self, array) is not None}
        used = {name for use in self.bindings.values() for name in use.parameters}
        self.parameters = {name: value for name, value in self.parameters.items() if name in used}

    @property
    def nodes(self) -> dict[str, Node]:
        """Inputs, populations and outputs by name."""
        return {**self.inputs, **self.populations, **self.outputs}

    def source_shape(self, projection: Projection) -> tuple[int, ...]:
        """Shape of what a projection reads."""
        return self.port_shape(projection.source, projection.source_port)

    def target_shape(self, projection: Projection) -> tuple[int, ...]:
        """Shape of what a projection brings."""
        return self.port_shape(projection.target, projection.target_port)

    def port_shape(self, name: str, port: str) -> tuple[int, ...]:
        """Shape of a port or state of an input, population or output."""
        population = self.populations.get(name)
        if population is not None:
            return population.neuron.shape_of(port, population.shape)
        return self.inputs[name].shape if name in self.inputs else self.outputs[name].shape

    def into(self, name: str) -> list[Projection]:
        """The projections into a population or output, in the order in which they are summed."""
        return [projection for projection in self.projections.values() if projection.target == name]

    def by_target(self) -> dict[str, list[Projection]]:
        """:meth:`into` of every node."""
        by_target: dict[str, list[Projection]] = {name: [] for name in self.nodes}
        for projection in self.projections.values():
            by_target.setdefault(projection.target, []).append(projection)
        return by_target

    def out_of(self, name: str) -> list[Projection]:
        """The projections out of an input or population."""
        return [projection for projection in self.projections.values() if projection.source == name]

    def affine_map(self, projection: Projection) -> tuple[Matrix, np.ndarray | float]:
        """A and b of a projection in float64: sparse rows, and ``[size of the target]`` or zero."""
        return in_float64(projection.operation.rows(self.source_shape(projection))), self.offset_of(projection)

    def offset_of(self, projection: Projection) -> np.ndarray | float:
        """The constant of a projection in float64, ``[size of the target]`` or zero."""
        source = self.source_shape(projection)
        offset = projection.operation.offset(source)
        target = projection.operation.target_shape(source)
        return 0.0 if offset is None else np.broadcast_to(offset, target).ravel().astype(np.float64)

    @property
    def total_neurons(self) -> int:
        """Number of neurons; relays and delays are none."""
        return sum(p.size for p in self.populations.values() if p.neuron.states)

    @property
    def total_params(self) -> int:
        """Number of weights and biases; those that several projections share count once, absent synapses not at all."""
        arrays = {(p.name, k): v for p in self.projections.values() for k, v in p.operation.arrays.items()}
        uses = {array: use for array in arrays if (use := self.bindings.get(array)) is not None and use.parameters}
        shared = {name for use in uses.values() for name in use.parameters}
        own = sum(number_of(value) for array, value in arrays.items() if array not in uses)
        absent = (
            mask for p in self.projections.values() if (p.name, "weight") not in uses and (mask := p.mask) is not None
        )
        own -= sum(int(np.count_nonzero(~mask)) for mask in absent)
        return own + sum(self.parameters[name].size for name in shared)

    @property
    def total_synapses(self) -> int:
        """Number of weights that are not zero, every use of a shared weight counted; what only passes values on has
        none."""
        passing = (Identity, Flatten, Select)
        weighted = (p for p in self.projections.values() if not isinstance(p.operation, passing))
        return sum(p.operation.synapses(self.source_shape(p)) for p in weighted)

    def __repr__(self) -> str:
        size = ", ".join(
            [
                counted(len(self.populations), "population"),
                counted(self.total_neurons, "neuron"),
                counted(len(self.projections), "projection"),
                counted(self.total_params, "parameter"),
            ]
        )
        return f"{type(self).__name__}({self.name!r}: {size}, dt = {self.dt:g} s)"


def number_of(array: Matrix) -> int:
    """Numbers that are stored."""
    return array.nnz if sparse.issparse(array) else array.size


def _by_name(elements: Iterable[Any]) -> dict[str, Any]:
    by_name: dict[str, Any] = {}
    for element in elements:
        if element.name in by_name:
            raise GraphError(f"two elements are called {element.name!r}; give each its own name.")
        by_name[element.name] = element
    return by_name
