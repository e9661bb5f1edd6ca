"""Parameters from which several arrays of a graph are computed, so that the arrays are trained as one.

An array of an operation or neuron is a parameter of its own, unless the graph has a binding for it: then it is computed
from parameters of the graph, ``array = function(*parameters).ravel()[index]``. The array is also stored where it is
used, so that code that only runs or analyzes a graph need not know where its numbers come from.
"""

# An example: an autoencoder has one parameter w, a matrix [2, 3] with the flat numbers [0 1 2] and [3 4 5]. The encoder
# has the weights w, with no function and no index. The decoder has w transposed, the index [[0 3] [1 4] [2 5]]. A
# change of w changes the weights of both.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np
from scipy import sparse

from ..program.paths import Path
from ..program.precision import TracedFunction
from .arrays import Matrix
from .elements import Population, Projection
from .taking import Taking

ArrayName = tuple[str, str]
"""Names of a projection or population, and of one of its arrays."""


class HasArrays(Protocol):
    """The parts of a graph that have arrays and parameters."""

    projections: dict[str, Projection]
    populations: dict[str, Population]
    parameters: dict[str, np.ndarray]
    bindings: dict[ArrayName, ParameterBinding]


@dataclass(frozen=True, eq=False)
class ParameterBinding:
    """How an array is computed from parameters of the graph.

    Attributes:
        parameters: their names; none for an array that is not trained.
        function: from the parameters to an array; None for a single parameter itself.
        index: flat numbers of the elements of ``function(*parameters)``, int64 in the shape of the array, or of the
            stored values of sparse rows; None for all elements in order.
    """

    parameters: tuple[str, ...]
    function: TracedFunction | None = None
    index: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.index is not None:
            index = np.asarray(self.index, np.int64)
            index.flags.writeable = False
            object.__setattr__(self, "index", index)

    def __call__(self, values: Sequence[Any], dtype: Any) -> Any:
        """The array in JAX from the values of the parameters."""
        whole = values[0] if self.function is None else self.function(*values, dtype=dtype)[0]
        return whole if self.index is None else self._taking(np.shape(whole))(whole)

    def array(self, parameters: Mapping[str, np.ndarray], dtype: Any) -> np.ndarray:
        """The array in numpy from all parameters of the graph, computed in the precision of ``dtype``."""
        with jax.enable_x64(np.dtype(dtype).itemsize == 8 or jax.config.read("jax_enable_x64")):
            values = [np.asarray(parameters[name], dtype) for name in self.parameters]
            return np.asarray(self(values, dtype), dtype)

    def taken(self, index: np.ndarray, shape: tuple[int, ...]) -> ParameterBinding:
        """The binding of an array with the elements ``index`` of this one, which has some shape."""
        flat = np.arange(int(np.prod(shape))) if self.index is None else self.index.ravel()
        return ParameterBinding(self.parameters, self.function, flat[index])

    def moved(self, places: np.ndarray) -> ParameterBinding:
        """The binding after the elements of the parameter have moved to other places."""
        return ParameterBinding(self.parameters, self.function, places[self.index])

    @cached_property
    def content(self) -> Any:
        """Equal for bindings that compute the same array from the same parameters."""
        index = None if self.index is None else (self.index.shape, self.index.tobytes())
        return self.parameters, None if self.function is None else self.function.content, index

    def _taking(self, shape: tuple[int, ...]) -> Taking:
        assert self.index is not None
        return Taking.of(shape, self.index)


def numbers_of(array: Matrix) -> np.ndarray:
    """The stored numbers of an array: of sparse rows, their values."""
    return array.data if sparse.issparse(array) else array


def with_numbers(array: Matrix, numbers: Any) -> Matrix:
    """An array with other numbers; sparse rows have the same places."""
    if not sparse.issparse(array):
        return numbers
    return sparse.csr_array((numbers, array.indices, array.indptr), shape=array.shape)


def array_at(graph: HasArrays, array: ArrayName) -> Matrix | None:
    """An array of an operation or neuron; None if there is no such array."""
    name, label = array
    projection, population = graph.projections.get(name), graph.populations.get(name)
    if projection is not None and label in projection.operation.arrays:
        return projection.operation.arrays[label]
    return None if population is None else population.neuron.parameters.get(label)


def parameters_of(graph: HasArrays, *elements: str) -> list[str]:
    """Names of the parameters from which arrays of some projections or populations are computed."""
    uses = [use for (element, _), use in graph.bindings.items() if element in elements]
    return list(dict.fromkeys(name for use in uses for name in use.parameters))


def trained_arrays(graph: HasArrays) -> dict[Path, np.ndarray]:
    """What learning changes, as it is stored (of sparse rows, their values): arrays that are parameters of their own,
    by element and name, and the parameters from which arrays are computed, by name."""
    arrays: dict[Path, np.ndarray] = {}
    for name, projection in graph.projections.items():
        if projection.trained:
            arrays.update({(name, key): numbers_of(value) for key, value in projection.operation.arrays.items()})
    for name, population in graph.populations.items():
        parameters, trained = population.neuron.parameters, population.neuron.trained
        arrays.update({(name, key): value for key, value in parameters.items() if key in trained})
    unbound = {path: value for path, value in arrays.items() if path not in graph.bindings}
    return {**unbound, **{(name,): value for name, value in graph.parameters.items()}}


def remade(graph: HasArrays, names: set[str]) -> None:
    """Computes the arrays that depend on some parameters again; changes the graph."""
    for array, use in graph.bindings.items():
        old = array_at(graph, array)
        if old is not None and not names.isdisjoint(use.parameters):
            set_array(graph, array, with_numbers(old, use.array(graph.parameters, old.dtype)))


def set_array(graph: HasArrays, array: ArrayName, value: Matrix) -> None:
    """Replaces an array of an operation or neuron; changes the graph."""
    name, label = array
    projection = graph.projections.get(name)
    if projection is not None and label in projection.operation.arrays:
        operation = projection.operation.replace(**{label: value})
        graph.projections[name] = projection.replace(operation=operation)
        return
    population = graph.populations[name]
    graph.populations[name] = population.replace(neuron=population.neuron.with_parameters({label: value}))
