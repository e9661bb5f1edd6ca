"""Affine maps that are a dense matrix: its weight and bias as functions of fixed values.

``(x @ w) * 0.5 + b``, with w and b two leaves of one parameter, is read off its equations: the product gives ``w.T`` of
shape [out, in], the scale multiplies it, and the sum is a bias. For x of 2 numbers, w = [[1, 2, 3], [4, 5, 6]] and
b = [1, 1, 1] the weight is [[0.5, 2], [1, 2.5], [1.5, 3]] and the bias [1, 1, 1]. What cannot be read off, such as the
two products of ``(x @ w1) @ w2``, is probed: columns of the weight are what the map makes of unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, shape_of, size_of
from ..program.analysis.parameter_use import UseKind
from .affine_maps import AffineMap, is_learned
from .affine_operation import LARGEST_PROBED, AffineOperation, Derived, StaticValues, linear_of
from .step import StepView

Change = Callable[[Derived, "Derived | None"], tuple[Derived, "Derived | None"]]
"""What becomes of weight and bias."""


def dense_operation(step: StepView, affine: AffineMap) -> AffineOperation | None:
    """A map as a dense matrix; None for other kinds of maps."""
    if affine.kind is not UseKind.AFFINE and affine.equations[0].primitive.name != "dot_general":
        return None
    arrays = _read_off(affine) or _probed(affine)
    if arrays is None:
        return None
    (x,), y = affine.xs, affine.y
    return AffineOperation((size_of(x),), (size_of(y),), arrays, linear_of, is_learned(step, affine))


def _read_off(affine: AffineMap) -> dict[str, Derived] | None:
    """Weight and bias of a product that is followed by nothing but scales and biases."""
    product, *rest = affine.equations
    (x,) = affine.xs
    if product.primitive.name != "dot_general":
        return None
    weight = _weight_of_product(product, x)
    if weight is None:
        return None
    y, bias = product.outvars[0], None
    for eqn in rest:
        others = [a for a in eqn.invars if a is not y]
        if y not in eqn.invars or len(eqn.outvars) != 1:
            return None
        change = _change(eqn, y, others)
        if change is None:
            return None
        weight, bias = change(weight, bias)
        y = eqn.outvars[0]
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _weight_of_product(eqn: Equation, x: Var) -> Derived | None:
    """``[out, in]`` of a product that uses up all of x."""
    ((left, right), (batch, _)) = eqn.params["dimension_numbers"]
    a, b = eqn.invars
    # Batched axes would make it several matrices side by side, x @ x no affine map at all.
    if batch or a is b or x not in (a, b):
        return None
    w, contracted, of_x = (b, right, left) if a is x else (a, left, right)
    if isinstance(w, Literal) or prod(shape_of(x)[d] for d in of_x) != size_of(x):
        return None
    # Columns in the order in which the elements of x lie in memory, whatever order the axes are contracted in.
    order = [of_x.index(d) for d in sorted(of_x) if shape_of(x)[d] > 1]
    inner = [contracted[k] for k in order] + [d for k, d in enumerate(contracted) if k not in order]
    free = [d for d in range(len(shape_of(w))) if d not in contracted]

    def weight(static: StaticValues) -> Any:
        return jnp.transpose(jnp.asarray(static[w]), [*free, *inner]).reshape(-1, size_of(x))

    return weight


def _change(eqn: Equation, y: Var, others: list[Any]) -> Change | None:
    """What an equation after a product does to weight and bias."""
    name, size = eqn.primitive.name, size_of(eqn.outvars[0])
    if size != size_of(y):
        return None
    if name in ("reshape", "squeeze", "expand_dims", "copy", "convert_element_type"):
        return lambda weight, bias: (weight, bias)
    if name in ("mul", "div") and len(others) == 1 and size_of(others[0]) == 1 and eqn.invars[0] is y:
        return _scaling(others[0], name)
    if name in ("add", "add_any") and len(others) == 1 and size_of(others[0]) in (1, size):
        return _shifting(others[0], size)
    return None


def _scaling(factor: Any, name: str) -> Change:
    def scaled(values: Derived) -> Derived:
        def derived(static: StaticValues) -> Any:
            number = _value(static, factor).reshape(())
            return values(static) * number if name == "mul" else values(static) / number

        return derived

    return lambda weight, bias: (scaled(weight), None if bias is None else scaled(bias))


def _shifting(offset: Any, size: int) -> Change:
    def shifted(bias: Derived | None) -> Derived:
        def derived(static: StaticValues) -> Any:
            added = jnp.broadcast_to(_value(static, offset).reshape(-1), (size,))
            return added if bias is None else bias(static) + added

        return derived

    return lambda weight, bias: (weight, shifted(bias))


def _value(static: StaticValues, atom: Any) -> Any:
    return jnp.asarray(atom.val if isinstance(atom, Literal) else static[atom])


def _probed(affine: AffineMap) -> dict[str, Derived] | None:
    """Weight and bias from what the map makes of unit vectors.

    Only where the matrix has as many numbers as what it is made of, or is a product of two: a matrix that is larger
    than its parameters, as that of a convolution, would cost memory that the model does not take.
    """
    (x,), y = affine.xs, affine.y
    sizes = [size_of(var) for var in affine.operands if is_floating(dtype_of(var))]
    products = sum(e.primitive.name == "dot_general" for e in affine.equations)
    is_as_large = size_of(x) * size_of(y) in sizes
    is_low_rank = products == 2 and len(shape_of(x)) == len(shape_of(y)) == 1
    if size_of(x) > LARGEST_PROBED or not (is_as_large or is_low_rank):
        return None

    def at_zero(static: StaticValues) -> Any:
        operands = [static[var] for var in affine.operands]
        return affine([jnp.zeros(shape_of(x), dtype_of(x))], operands).reshape(-1)

    def weight(static: StaticValues) -> Any:
        operands = [static[var] for var in affine.operands]
        units = jnp.eye(size_of(x), dtype=dtype_of(x)).reshape(-1, *shape_of(x))
        columns = jax.vmap(lambda unit: affine([unit], operands).reshape(-1))(units)
        return (columns - at_zero(static)).T

    has_bias = len(affine.operands) > 1 and products != 2
    return {"weight": weight, "bias": at_zero} if has_bias else {"weight": weight}
