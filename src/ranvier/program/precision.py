"""A traced function in another floating-point precision.

``x -> (x + 0.1, argmax(x))`` traced in float32 has the constant 0.100000001490116. Asked for float64, the sum is taken
in float64, of the same constant: what was rounded in tracing stays rounded. The result of argmax stays an int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pickle import PicklingError
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._jax import Equation, bind, dtype_of, is_complex, is_floating, open_jaxpr, trace
from .bodies import bodies, called_body, has_own_derivative, is_call
from .interpret import apply_with_bodies, evaluate
from .remade import Recipe, Remade
from .scalar import with_own_derivative


@dataclass(frozen=True, eq=False)
class TracedFunction(Remade):
    """A closed jaxpr as a function of arrays, in whatever precision is asked for.

    What reads the bits of numbers, as random numbers do, and loops of unknown length stay in the precision they were
    traced in.

    Attributes:
        jaxpr: closed; as it was traced.
    """

    jaxpr: Any

    def recipe(self) -> Recipe:
        raise PicklingError(
            "programs traced by JAX cannot be pickled, and a graph with traced populations or maps contains some. "
            "Pickle the model or the result of ranvier.raise_model, which raises the graph again; replace traced "
            "populations by named neurons with ranvier.recognise(graph); or write any graph with "
            "ranvier.export_artifact(graph, path)."
        )

    def __call__(self, *operands: Any, dtype: Any) -> list[Any]:
        """Results for arrays of the traced shapes; what is real is computed in ``dtype``."""
        arrays = [x if d is None else jnp.asarray(x, d) for x, d in zip(operands, self.dtypes(dtype), strict=True)]
        return evaluate(self.in_precision(jnp.dtype(dtype)), arrays)

    def dtypes(self, dtype: Any) -> list[Any]:
        """The dtype of every operand where everything real has ``dtype``."""
        traced = [dtype_of(var) for var in open_jaxpr(self.jaxpr)[0].invars]
        return traced if self._is_bound else [_other(each, jnp.dtype(dtype)) for each in traced]

    @cached_property
    def _is_bound(self) -> bool:
        """Whether it has to stay in its own precision."""
        return _has_any(self.jaxpr, BOUND)

    @cached_property
    def content(self) -> Any:
        """Equal for functions that are the same, equation by equation."""
        jaxpr, consts = open_jaxpr(self.jaxpr)
        return str(jaxpr), tuple((str(np.asarray(c).dtype), np.asarray(c).tobytes()) for c in consts)

    def in_precision(self, dtype: Any) -> Any:
        """The closed jaxpr with everything real in ``dtype``, and what is complex in that precision."""
        return self.jaxpr if self._is_bound else _converted(self, dtype)


BOUND = frozenset(["bitcast_convert_type", "while", "pure_callback", "io_callback", "ffi_call"])
"""Equations that tie a function to the precision it was traced in."""


def _has_any(closed: Any, names: frozenset[str]) -> bool:
    equations = open_jaxpr(closed)[0].eqns
    return any(eqn.primitive.name in names or any(_has_any(body, names) for body in bodies(eqn)) for eqn in equations)


@lru_cache(maxsize=1024)
def _converted(function: TracedFunction, dtype: Any) -> Any:
    jaxpr, consts = open_jaxpr(function.jaxpr)
    floats = {dtype_of(v) for e in jaxpr.eqns for v in e.outvars} | {dtype_of(v) for v in jaxpr.invars}
    # Already in this precision: the same object, so that what is cached for it is found again.
    if all(_other(each, dtype) == each for each in floats) and all(
        _other(np.asarray(c).dtype, dtype) == np.asarray(c).dtype for c in consts
    ):
        return function.jaxpr
    avals = [jax.ShapeDtypeStruct(v.aval.shape, _other(dtype_of(v), dtype)) for v in jaxpr.invars]
    with jax.enable_x64(dtype.itemsize == 8 or jax.config.read("jax_enable_x64")):
        return trace(lambda *operands: evaluate(function.jaxpr, operands, _Apply(dtype)), avals)


@dataclass(frozen=True)
class _Apply:
    """Applies equations with everything real in one precision."""

    dtype: Any

    def __call__(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        operands = [self._cast(x) for x in operands]
        # The derivative is converted as well: a rule traced in float32 would not fit tangents in float64.
        if has_own_derivative(eqn) and called_body(eqn) is not None:
            return with_own_derivative(eqn, operands, self)
        if is_call(eqn):
            return evaluate(called_body(eqn), operands, self)
        if eqn.primitive.name in ("cond", "scan"):
            return apply_with_bodies(eqn, operands, self)
        params = {key: self._changed(value) for key, value in eqn.params.items()}
        return [self._cast(x) for x in bind(eqn.replace(params=params), operands)]

    def _cast(self, x: Any) -> Any:
        dtype = jax.typeof(x).dtype
        wanted = _other(dtype, self.dtype)
        return x if wanted == dtype and isinstance(x, jax.Array) else jnp.asarray(x, wanted)

    def _changed(self, value: Any) -> Any:
        """A parameter of an equation: a dtype, a function that it applies, several of these, or something else."""
        if isinstance(value, np.dtype):
            return _other(value, self.dtype)
        if hasattr(value, "eqns") and hasattr(value, "consts"):
            return self._traced(value)
        # The functions of a linear solution come as a named tuple.
        if hasattr(value, "_fields"):
            return type(value)(*map(self._changed, value))
        return value

    def _traced(self, closed: Any) -> Any:
        avals = [
            jax.ShapeDtypeStruct(v.aval.shape, _other(dtype_of(v), self.dtype)) for v in open_jaxpr(closed)[0].invars
        ]
        return trace(lambda *operands: evaluate(closed, operands, self), avals)


in_float64 = _Apply(np.dtype(np.float64))
"""Applies equations in double precision."""


def _other(dtype: Any, real: Any) -> Any:
    if is_complex(dtype):
        return np.dtype(np.complex128 if real.itemsize == 8 else np.complex64)
    return real if is_floating(dtype) else dtype
