"""The one module that touches JAX internals.

JAX 0.11 merged ``ClosedJaxpr`` into ``Jaxpr`` and changed how ``scan`` records its operands; everything
that differs between supported versions is answered here, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import jax
from jax._src import source_info_util
from jax._src.lax.lax import copy_p
from jax.extend import core as jex_core
from jax.extend.core import primitives

Var = jex_core.Var
Literal = jex_core.Literal
Equation = jex_core.JaxprEqn
Tracer = jax.core.Tracer  # pyright: ignore[reportAttributeAccessIssue]
Atom = Any  # Var | Literal


def is_literal(atom: Atom) -> bool:
    return isinstance(atom, Literal)


def variables_of(atoms: Iterable[Atom]) -> list[Var]:
    """The atoms that are no literals."""
    return [atom for atom in atoms if not isinstance(atom, Literal)]


def open_jaxpr(closed: Any) -> tuple[Any, list[Any]]:
    """Splits a closed jaxpr into the object that has ``eqns`` and the values of its ``constvars``."""
    inner = getattr(closed, "jaxpr", closed)
    return inner, list(getattr(closed, "consts", ()))


def bind(eqn: Equation, operands: Sequence[Any]) -> list[Any]:
    """Applies the equation's primitive to new operands, custom derivative rules included.

    A call that says nothing of batches, of the host, say, is made for one step and one sample after the other.
    """
    params = eqn.params
    if params.get("vmap_method", "") is None:
        params = params | {"vmap_method": "sequential"}
    results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    return list(results) if eqn.primitive.multiple_results else [results]


def located_at(eqn: Equation) -> Any:
    """A context in which newly traced equations keep the source line of ``eqn``.

    Inside of JAX's own functions there is none; then that of the call around it stays.
    """
    info = eqn.source_info
    if source_info_util.user_frame(info.traceback) is None:
        return nullcontext()
    stack = source_info_util.current_name_stack() + info.name_stack
    return source_info_util.user_context(info.traceback, name_stack=stack)


def stable_custom_calls() -> frozenset[str]:
    """Names of the compiled functions that an exported program may call: kernels of JAX that run no Python."""
    from jax._src.export import _export

    return frozenset(_export._CUSTOM_CALL_TARGETS_GUARANTEED_STABLE) - {"tf.call_tf_function"}


WRAPPERS = ("saiunit", "brainunit", "brainstate")
"""Packages whose arithmetic and containers stand between a model's code and JAX."""


@cache
def names_of_primitives() -> frozenset[str]:
    """Names of the primitives that JAX lists as its own."""
    return frozenset(value.name for value in vars(primitives).values() if hasattr(value, "name"))


def source_line(eqn: Equation) -> str:
    """``file:line:column (function)`` of the model's code that made the equation."""
    frames = list(source_info_util.user_frames(eqn.source_info.traceback))
    if not frames:
        return ""
    frame = next((f for f in frames if not any(f"/{name}/" in f.file_name for name in WRAPPERS)), frames[0])
    return f"{frame.file_name}:{frame.start_line}:{frame.start_column} ({frame.function_name})"


def copy(value: jax.Array) -> jax.Array:
    """An identity that appears as an equation of its own."""
    return copy_p.bind(value)


def is_copy(eqn: Equation | None) -> bool:
    """Whether an equation only hands its operand on."""
    return eqn is not None and eqn.primitive is copy_p


def spec(aval: Any) -> jax.ShapeDtypeStruct:
    """The abstract value as something ``jax.make_jaxpr`` takes as an example argument."""
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=getattr(aval, "weak_type", False))


def trace(function: Callable[..., Any], avals: Sequence[Any]) -> Any:
    """Closed jaxpr of ``function`` over flat arrays of these abstract values."""
    return jax.make_jaxpr(function)(*[spec(aval) for aval in avals])


def scan_operand_counts(params: dict[str, Any]) -> tuple[int, int]:
    """(number of loop constants, number of carried values) of a ``scan`` equation."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carried, _ = params["ft_in"].elts
    return len(list(constants)), len(list(carried))


def num_closed_over(eqn: Equation) -> int:
    """How many of the first operands of a ``custom_jvp`` or ``custom_vjp`` it closes over: no derivative is declared by
    them."""
    return eqn.params["num_consts"] if eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call") else 0


def operand(eqn: Equation, number: int) -> Any:
    """An operand of an equation that is known to be a variable."""
    return eqn.invars[number]


def is_key(dtype: Any) -> bool:
    return jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


@cache
def is_floating(dtype: Any) -> bool:
    """True where a derivative exists: real and complex floating point."""
    return not is_key(dtype) and jax.dtypes.issubdtype(dtype, jax.numpy.inexact)


@cache
def is_complex(dtype: Any) -> bool:
    return not is_key(dtype) and jax.dtypes.issubdtype(dtype, jax.numpy.complexfloating)


def is_real(dtype: Any) -> bool:
    """True for real floating point."""
    return is_floating(dtype) and not is_complex(dtype)


def shape_of(atom: Atom) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


def dtype_of(atom: Atom) -> Any:
    return atom.aval.dtype


def size_of(atom: Atom) -> int:
    """Number of elements of a variable or literal."""
    return math.prod(atom.aval.shape)
