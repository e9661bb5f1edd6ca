"""What Ranvier knows of each JAX primitive: one table, open to users, opaque by default.

A primitive's kind says what it does to positions. Of three neurons, ``tanh(v)`` is elementwise: result 1 is made of
element 1. ``roll(v, 1)`` is structural: result 1 is element 0, unchanged. ``w @ v`` is mixing: result 1 is made of all
three. Of a primitive that is not in the table nothing is assumed; it is opaque. Primitives that carry a body
(``cond``, ``scan``, ``custom_jvp_call``, ...) have the kind of their body and are marked ``NESTED``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RegistrationError


class Kind(enum.Enum):
    """What an equation does to positions."""

    ELEMENTWISE = "elementwise"
    """Output position i depends only on position i of each operand."""
    STRUCTURAL = "structural"
    """Moves positions, no arithmetic."""
    MIXING = "mixing"
    """An output position depends on many input positions."""
    OPAQUE = "opaque"
    """Unknown; nothing is assumed."""
    NESTED = "nested"
    """Carries a body that decides."""


MoveIndices = Callable[[dict[str, Any], list[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class PrimitiveRule:
    """The knowledge about one primitive.

    Attributes:
        kind: what it does to positions.
        operation: name of the projection it makes when a parameter is an operand (``"affine"``, ...).
        differentiable: False where no derivative passes (comparisons, ``stop_gradient``, random bits).
        linear: True where the result is linear in all operands of positive rank taken together.
        index_operands: first operand that addresses positions instead of carrying values, for structural
            primitives such as ``gather``; these operands must be constants for the positions to be known.
        move: for structural primitives, how to run it on index arrays in numpy; without it the
            primitive itself is run on index arrays.
        expand: for primitives that only wrap plain JAX code, ``expand(**params)`` gives the function of
            the operands that replaces the equation.
        surrogate: True where the derivative is declared and need not be that of the function, as for a spike.
    """

    kind: Kind
    operation: str | None = None
    differentiable: bool = True
    linear: bool = False
    index_operands: int | None = None
    move: MoveIndices | None = None
    expand: Callable[..., Callable[..., Any]] | None = None
    surrogate: bool = False


UNKNOWN = PrimitiveRule(Kind.OPAQUE)

_TABLE: dict[str, PrimitiveRule] = {}
_ON_CHANGE: list[Callable[[], None]] = []
_FAMILIES: dict[str, Callable[[Any], PrimitiveRule]] = {}


def register_primitive(
    name: str,
    kind: Kind | str,
    *,
    operation: str | None = None,
    differentiable: bool = True,
    linear: bool = False,
    index_operands: int | None = None,
    move: MoveIndices | None = None,
    expand: Callable[..., Callable[..., Any]] | None = None,
    surrogate: bool = False,
) -> None:
    """Declares what a primitive does to positions, in place of what was known of it.

    Args:
        name: the primitive's name as it appears in a jaxpr.
        kind: ``"elementwise"``, ``"structural"``, ``"mixing"`` or ``"opaque"``.
        operation: what to call it when a parameter is its operand, e.g. ``"sparse"``.
        differentiable: whether a derivative passes through it.
        linear: whether the result is linear in its operands.
        index_operands: see :class:`PrimitiveRule`.
        move: see :class:`PrimitiveRule`.
        expand: see :class:`PrimitiveRule`.
        surrogate: see :class:`PrimitiveRule`.

    Raises:
        RegistrationError: the kind is unknown or contradicts the other arguments.

    Example:
        >>> register_primitive("my_sparse_matvec", "mixing", operation="sparse")
    """
    try:
        kind = Kind(kind)
    except ValueError:
        known = ", ".join(repr(k.value) for k in Kind)
        raise RegistrationError(f"primitive {name!r}: kind {kind!r} is unknown; use one of {known}.") from None
    if move is not None and kind is not Kind.STRUCTURAL:
        raise RegistrationError(
            f"primitive {name!r}: `move` runs a structural primitive on index arrays, but the kind is {kind.value!r}; "
            "drop `move` or write kind='structural'."
        )
    for forget in _ON_CHANGE:
        forget()
    _TABLE[name] = PrimitiveRule(kind, operation, differentiable, linear, index_operands, move, expand, surrogate)


def register_family(prefix: str, rule: Callable[[Any], PrimitiveRule]) -> None:
    """Answers for every primitive whose name starts with ``prefix``: ``rule(primitive)`` gives its rule."""
    for forget in _ON_CHANGE:
        forget()
    _FAMILIES[prefix] = rule


def on_change(forget: Callable[[], None]) -> None:
    """Has ``forget`` called whenever the table changes, for caches of what was read from it."""
    _ON_CHANGE.append(forget)


def rule_of(primitive: Any) -> PrimitiveRule:
    """The rule of a primitive; ``UNKNOWN`` (opaque) where the table has none."""
    known = _TABLE.get(primitive.name)
    if known is not None:
        return known
    for prefix, rule in _FAMILIES.items():
        if primitive.name.startswith(prefix):
            return rule(primitive)
    return UNKNOWN


def is_known(primitive: Any) -> bool:
    return rule_of(primitive) is not UNKNOWN


def _register_all(names: str, kind: Kind, **knowledge: Any) -> None:
    for name in names.split():
        register_primitive(name, kind, **knowledge)


_register_all("add sub neg add_any convert_element_type copy real imag", Kind.ELEMENTWISE, linear=True)
_register_all("reduce_precision name optimization_barrier", Kind.ELEMENTWISE, linear=True)
_register_all(
    "mul div pow integer_pow square sqrt rsqrt cbrt exp exp2 expm1 log log1p log2 logistic tanh tan sin cos"
    " sinh cosh asin acos atan asinh acosh atanh atan2 erf erfc erf_inv lgamma digamma polygamma"
    " igamma igammac igamma_grad_a zeta regularized_incomplete_beta random_gamma_grad bessel_i0e bessel_i1e"
    " abs max min clamp select_n rem nextafter conj complex one_minus_square"
    " exprel",  # brainunit: (exp(x) - 1) / x, for exponential integration
    Kind.ELEMENTWISE,
)
register_primitive("heaviside_surrogate_gradient", Kind.ELEMENTWISE, surrogate=True)  # braintools: spikes
register_primitive("stop_gradient", Kind.ELEMENTWISE, differentiable=False, surrogate=True)
_register_all(
    "eq ne lt le gt ge eq_to lt_to le_to and or xor not shift_left shift_right_arithmetic shift_right_logical"
    " population_count clz mulhi is_finite sign floor ceil round bitcast_convert_type",
    Kind.ELEMENTWISE,
    differentiable=False,
)


def _same_order(_: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    return operands[0].reshape(-1)


def _broadcast_in_dim(params: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    (operand, *_), shape = operands, params["shape"]
    aligned = np.ones(len(shape), dtype=int)
    for size, dim in zip(operand.shape, params["broadcast_dimensions"], strict=True):
        aligned[dim] = size
    return np.broadcast_to(operand.reshape(tuple(aligned)), shape)


def _slice(params: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    strides = params["strides"] or (1,) * operands[0].ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return operands[0][tuple(slice(*bound) for bound in bounds)]


def _concatenate(params: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(operands, axis=params["dimension"])


def _transpose(params: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    return np.transpose(operands[0], params["permutation"])


def _rev(params: dict[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    return np.flip(operands[0], params["dimensions"])


register_primitive("reshape", Kind.STRUCTURAL, linear=True, move=_same_order)
register_primitive("squeeze", Kind.STRUCTURAL, linear=True, move=_same_order)
register_primitive("expand_dims", Kind.STRUCTURAL, linear=True, move=_same_order)
register_primitive("broadcast_in_dim", Kind.STRUCTURAL, linear=True, move=_broadcast_in_dim)
register_primitive("slice", Kind.STRUCTURAL, linear=True, move=_slice)
register_primitive("concatenate", Kind.STRUCTURAL, linear=True, move=_concatenate)
register_primitive("transpose", Kind.STRUCTURAL, linear=True, move=_transpose)
register_primitive("rev", Kind.STRUCTURAL, linear=True, move=_rev)
_register_all("pad split stack unstack tile broadcast_to device_put", Kind.STRUCTURAL, linear=True)
_register_all("sharding_constraint layout_constraint reshard", Kind.STRUCTURAL, linear=True, move=_same_order)
register_primitive("dynamic_slice", Kind.STRUCTURAL, index_operands=1, operation="slice")
register_primitive("gather", Kind.STRUCTURAL, index_operands=1, operation="embedding")
register_primitive("dynamic_update_slice", Kind.STRUCTURAL, index_operands=2)
# A scatter writes its last operand into its first at the positions that the one between names.
register_primitive("scatter", Kind.STRUCTURAL, index_operands=1)
register_primitive("scatter-add", Kind.STRUCTURAL, index_operands=1)
register_primitive("scatter-sub", Kind.STRUCTURAL, index_operands=1)

register_primitive("dot_general", Kind.MIXING, operation="affine")
register_primitive("ragged_dot_general", Kind.MIXING, operation="affine")
register_primitive("conv_general_dilated", Kind.MIXING, operation="conv")
_register_all(
    "reduce_sum reduce_max reduce_min reduce_prod reduce_window reduce_window_sum reduce_window_max"
    " reduce_window_min reduce cumsum cumprod cummax cummin cumlogsumexp sort top_k approx_top_k"
    " scatter-mul scatter-min scatter-max select_and_scatter_add select_and_gather_add select_and_scatter fft"
    " cholesky lu qr svd eigh eig triangular_solve tridiagonal_solve custom_linear_solve linear_call",
    Kind.MIXING,
    operation="reduction",
)
_register_all(
    "argmax argmin reduce_and reduce_or reduce_xor iota iota_2x32_shape rng_bit_generator rng_uniform"
    " random_bits random_seed random_split random_fold_in random_wrap random_unwrap random_clone"
    " random_gamma threefry2x32 philox2x32 axis_index empty",
    Kind.MIXING,
    differentiable=False,
)
_register_all(
    "bcoo_dot_general bcoo_dot_general_sampled bcoo_spdot_general bcsr_dot_general coo_matvec coo_matmat"
    " csr_matvec csr_matmat coo_spmv coo_spmm csr_spmv csr_spmm"
    # brainevent: compressed rows, event-driven, fixed fan-out, generated just in time
    " csrmv csrmm binary_csrmv binary_csrmm binary_csrmv_indexed binary_csrmm_indexed"
    " tcsr_csrmv tcsr_csrmm tcsr_binary_csrmv tcsr_binary_csrmm ell_binary_matvec binary_fcnmm",
    Kind.MIXING,
    operation="sparse",
)
_register_all("bcoo_todense bcsr_todense coo_todense csr_todense todense", Kind.MIXING, operation="sparse")
_register_all("bcoo_fromdense bcoo_extract bcsr_extract bcoo_transpose", Kind.MIXING, operation="sparse")
_register_all("binary_densemv binary_densemm", Kind.MIXING, operation="affine")
register_family("float_jit", lambda _: PrimitiveRule(Kind.MIXING, operation="sparse"))
register_family("binary_jit", lambda _: PrimitiveRule(Kind.MIXING, operation="sparse"))
register_family("event_jit", lambda _: PrimitiveRule(Kind.MIXING, operation="sparse"))

_register_all("jit pjit closed_call core_call remat2 checkpoint remat custom_lin", Kind.NESTED)
_register_all("cond scan while custom_vmap_call", Kind.NESTED)
_register_all("custom_jvp_call custom_vjp_call", Kind.NESTED, surrogate=True)
_register_all("pure_callback io_callback ffi_call custom_partitioning", Kind.OPAQUE)
_register_all("debug_callback debug_print", Kind.OPAQUE, differentiable=False)


def _operator_rule(primitive: Any) -> PrimitiveRule:
    """braintrace's operators wrap plain JAX code, which their implementation rule still is."""
    return PrimitiveRule(Kind.NESTED, expand=lambda **params: lambda *x: primitive.impl(*x, **params))


register_family("etp_", _operator_rule)
