"""Populations and operations that no name fits: they keep the program they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..program.in_numpy import NumpyProgram
from ..program.precision import TracedFunction
from .arrays import Matrix, constant, in_float64
from .neurons import OUT, Neuron
from .operations import Operation
from .ops import OperationOps
from .windows import Shape, ShapeError

Values = dict[str, Any]
DOUBLE = np.dtype(np.float64)
ROWS_AT_ONCE = 256
"""So many columns of a map's matrix are found together."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Traced(Neuron, named=False):
    """Dynamics as a function: ``new states, outputs = function(inputs, states, parameters)``.

    Without shapes the function is of the numbers at one position and is run at every position of the population, so
    neurons can be taken out by slicing parameters. With shapes it is a function of whole arrays, and the population is
    a unit.

    Attributes:
        function: operands are inputs, states and parameters, results new states and outputs, in the order of names.
        values: parameters by name, of the population's shape or one number; real, whatever the function takes.
        inputs, outputs: names of the ports.
        states: names of the states.
        trained: names of the parameters that learning changes.
        binary: names of the outputs that are spikes, zero or one.
        shapes: by name those of ports, states and parameters, or None.
    """

    function: TracedFunction
    values: Mapping[str, np.ndarray]
    inputs: tuple[str, ...] = ()  # pyright: ignore[reportIncompatibleVariableOverride]
    outputs: tuple[str, ...] = ()  # pyright: ignore[reportIncompatibleVariableOverride]
    states: tuple[str, ...] = ()  # pyright: ignore[reportIncompatibleVariableOverride]
    trained: frozenset[str] = frozenset()  # pyright: ignore[reportIncompatibleVariableOverride]
    binary: frozenset[str] = frozenset()
    shapes: Mapping[str, Shape] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {name: constant(value) for name, value in self.values.items()})

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        return dict(self.values)

    @property
    def spikes(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return OUT in self.binary

    @property
    def choices(self) -> dict[str, str]:
        return {}

    @property
    def options(self) -> dict[str, Any]:
        return {"inputs": self.inputs, "states": self.states, "outputs": self.outputs}

    @property
    def by_position(self) -> bool:
        return self.shapes is None

    def shape_of(self, name: str, shape: Shape) -> Shape:
        return shape if self.shapes is None else self.shapes[name]

    def with_parameters(self, changed: Mapping[str, Any]) -> Self:
        return replace(self, values={**self.values, **changed})

    @property
    def names(self) -> tuple[str, ...]:
        """Of the function's operands."""
        return (*self.inputs, *self.states, *self.values)

    def state_dtype(self, name: str, dtype: Any) -> Any:
        """Dtype of a state where what is real has ``dtype``."""
        return self.function.dtypes(dtype)[self.names.index(name)]

    def __call__(self, inputs: Values, states: Values, parameters: Values, dtype: Any) -> tuple[Values, Values]:
        """New states and outputs of one sample, in JAX.

        Args:
            inputs, states: arrays by name.
            parameters: likewise; what is left out has the value stored here.
            dtype: of what is real.
        """
        by_name = {**{name: parameters.get(name, value) for name, value in self.values.items()}, **inputs, **states}
        dtypes = self.function.dtypes(dtype)
        operands = [jnp.asarray(by_name[name], d) for name, d in zip(self.names, dtypes, strict=True)]
        results = self._by_position(operands, dtype) if self.by_position else self.function(*operands, dtype=dtype)
        count = len(self.states)
        states = dict(zip(self.states, results[:count], strict=True))
        outputs = {name: jnp.asarray(x, dtype) for name, x in zip(self.outputs, results[count:], strict=True)}
        return states, outputs

    def _by_position(self, operands: list[Any], dtype: Any) -> list[Any]:
        shape = next((x.shape for x in operands[: len(self.inputs) + len(self.states)]), ())
        axes = [None if x.shape != shape else 0 for x in operands]
        flat = [x.reshape(-1) if axis == 0 else x.reshape(()) for x, axis in zip(operands, axes, strict=True)]
        if all(axis is None for axis in axes):
            return self.function(*flat, dtype=dtype)
        run = jax.vmap(lambda *x: self.function(*x, dtype=dtype), in_axes=tuple(axes))
        return [x.reshape(shape) for x in run(*flat)]


def run_traced(neuron: Traced, shape: Shape, inputs: Values, states: Values) -> tuple[Values, Values]:
    """New states and outputs of many samples in float64, everything ``[samples, size]``."""
    ready = _in_numpy(neuron)
    if ready is not None:
        return _run_in_numpy(neuron, ready, inputs, states)

    def shaped(values: Values) -> Values:
        return {k: np.asarray(v).reshape(-1, *neuron.shape_of(k, shape)) for k, v in values.items()}

    with jax.enable_x64(True):
        results = _batched(neuron)(shaped(inputs), shaped(states))
    states, outputs = ({k: np.asarray(v, np.float64).reshape(len(v), -1) for k, v in part.items()} for part in results)
    return states, outputs


@dataclass(frozen=True, eq=False)
class _InNumpy:
    """Dynamics by position as calls of numpy, with what is the same in every step.

    Attributes:
        program: the calls.
        changing: names and dtypes of the operands that each step brings.
        parameters: ``[size]`` or one number each; the operands after those.
    """

    program: NumpyProgram
    changing: list[tuple[str, Any]]
    parameters: list[np.ndarray]


@lru_cache(maxsize=256)
def _in_numpy(neuron: Traced) -> _InNumpy | None:
    program = NumpyProgram.of(neuron.function.in_precision(DOUBLE)) if neuron.by_position else None
    if program is None:
        return None
    dtypes = dict(zip(neuron.names, neuron.function.dtypes(DOUBLE), strict=True))
    changing = [(name, dtypes[name]) for name in (*neuron.inputs, *neuron.states)]
    parameters = [np.asarray(v.ravel() if v.ndim else v, dtypes[name]) for name, v in neuron.values.items()]
    return _InNumpy(program, changing, parameters)


def _run_in_numpy(neuron: Traced, ready: _InNumpy, inputs: Values, states: Values) -> tuple[Values, Values]:
    by_name = {**inputs, **states}
    operands = [np.asarray(by_name[name], dtype) for name, dtype in ready.changing] + ready.parameters
    with np.errstate(all="ignore"):
        results = ready.program(operands)
    arrays = [np.asarray(x, np.float64) for x in results]
    # A result that depends on no input or state is one number, or one per neuron.
    shape = operands[0].shape if ready.changing else ()
    if any(array.shape != shape for array in arrays):
        shape = np.broadcast_shapes(*(operand.shape for operand in operands))
        arrays = [np.broadcast_to(array, shape) for array in arrays]
    count = len(neuron.states)
    return dict(zip(neuron.states, arrays[:count], strict=True)), dict(zip(neuron.outputs, arrays[count:], strict=True))


@lru_cache(maxsize=256)
def _batched(neuron: Traced) -> Callable[[Values, Values], tuple[Values, Values]]:
    return jax.jit(jax.vmap(lambda inputs, states: neuron(inputs, states, {}, jnp.dtype(np.float64))))


@dataclass(frozen=True, eq=False)
class Mapped(Operation):
    """``y = function(arrays, x)``, an affine map that has no name.

    Attributes:
        function: operands are the arrays in order and x, the result is y.
        values: the arrays by name.
        source, target: shapes.
    """

    function: TracedFunction
    values: Mapping[str, np.ndarray]
    source: Shape
    target: Shape
    kind: str = field(default="map")

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {name: constant(value) for name, value in self.values.items()})

    def replace(self, **changes: Any) -> Self:
        arrays = {name: changes.pop(name) for name in list(changes) if name in self.values}
        return replace(self, **changes, values={**self.values, **arrays})

    @property
    def arrays(self) -> dict[str, Matrix]:
        return dict(self.values)

    @property
    def options(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def __call__(self, arrays: Mapping[str, Any], x: Any, dtype: Any) -> Any:
        """The map in JAX, for one sample."""
        by_name = {**self.values, **arrays}
        return self.function(*(by_name[name] for name in self.values), x, dtype=dtype)[0]

    def apply(self, ops: OperationOps, arrays: Mapping[str, Any], x: Any) -> Any:
        return ops.call(self, arrays, x)

    def target_shape(self, source: Shape) -> Shape:
        if source != self.source:
            raise ShapeError(f"expected a source {list(self.source)}, not {list(source)}")
        return self.target

    def rows(self, source: Shape) -> Matrix:
        return self._affine[0]

    def offset(self, source: Shape) -> np.ndarray | None:
        return self._affine[1].reshape(self.target) if np.any(self._affine[1]) else None

    @cached_property
    def _affine(self) -> tuple[Matrix, np.ndarray]:
        """A and b, found by what the map makes of single ones."""
        size = prod(self.source)
        with jax.enable_x64(True):
            run = jax.jit(jax.vmap(lambda x: self({}, x.reshape(self.source), jnp.float64).reshape(-1)))
            zero = np.asarray(run(np.zeros((1, size))))[0]
            parts = []
            for start in range(0, size, ROWS_AT_ONCE):
                ones = np.eye(size, min(ROWS_AT_ONCE, size - start), -start).T
                parts.append(sparse.csc_array((np.asarray(run(ones)) - zero).T))
        return in_float64(sparse.csr_array(sparse.hstack(parts))), zero
