"""An affine map of a step as the operation of a projection: the first of several forms that fits.

A dense matrix, which can be split by rows and columns; a sparse matrix; a convolution; a fixed sum as sparse rows; else
the map itself, traced. Dense comes first, as most passes know what to do with a dense matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..graph.operations import Conv, Linear, Operation
from ..graph.traced import Mapped
from ..program._jax import Literal, Var, dtype_of, shape_of, size_of, trace
from ..program.paths import path_text
from ..program.precision import TracedFunction
from .affine_maps import AffineMap, is_learned
from .affine_operation import LARGEST_PROBED, AffineOperation, Derived
from .dense_maps import dense_operation
from .references import node_shape
from .sparse_maps import sparse_operation
from .step import StepView


def operation_of(step: StepView, affine: AffineMap) -> AffineOperation:
    """An affine map as an operation, with a name for its projection."""
    paths = [path_text(step.info.parameters[slot].path) for slot in sorted(affine.slots)]
    name = "+".join(paths) or step.info.variable_names.get(affine.y, "map")
    for attempt in (dense_operation, sparse_operation, _convolution, _fixed_sum):
        operation = attempt(step, affine)
        if operation is not None:
            return replace(operation, name=name)
    return replace(_mapped(step, affine), name=name)


def _convolution(step: StepView, affine: AffineMap) -> AffineOperation | None:
    """A convolution of one image with channels first."""
    first, *rest = affine.equations
    (x,), y = affine.xs, affine.y
    if rest or first.primitive.name != "conv_general_dilated" or first.invars[0] is not x:
        return None
    params, w = first.params, first.invars[1]
    axes = len(shape_of(x)) - 2
    plain = tuple(range(axes + 2))
    numbers = params["dimension_numbers"]
    layouts = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    symmetric = all(a == b and a >= 0 for a, b in params["padding"])
    # What the graph's convolution does not have, such as other layouts, is left to the traced map.
    if axes not in (1, 2) or any(tuple(spec) != plain for spec in layouts) or not symmetric or isinstance(w, Literal):
        return None
    if shape_of(x)[0] != 1 or params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        return None
    options = {
        "stride": tuple(params["window_strides"]),
        "padding": tuple(a for a, _ in params["padding"]),
        "dilation": tuple(params["rhs_dilation"]),
        "groups": params["feature_group_count"],
    }

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Conv(arrays["weight"], **options)

    arrays = {"weight": lambda static: jnp.asarray(static[w])}
    return AffineOperation(shape_of(x)[1:], shape_of(y)[1:], arrays, make, is_learned(step, affine))


def _fixed_sum(step: StepView, affine: AffineMap) -> AffineOperation | None:
    """A map along one axis that nothing is learned of, as sparse rows."""
    (x,), y = affine.xs, affine.y
    small = max(size_of(x), size_of(y)) <= LARGEST_PROBED and len(shape_of(x)) == 1 >= len(shape_of(y))
    if not small or is_learned(step, affine):
        return None
    operands = [step.static[var] for var in affine.operands]
    units = jnp.eye(size_of(x), dtype=dtype_of(x))
    zero = np.asarray(affine([jnp.zeros(shape_of(x), dtype_of(x))], operands)).reshape(-1)
    columns = np.asarray(jax.jit(jax.vmap(lambda unit: affine([unit], operands).reshape(-1)))(units))
    linear = Linear(sparse.csr_array((columns - zero).T), zero if np.any(zero) else None)
    return AffineOperation((size_of(x),), (size_of(y),), {}, lambda arrays: linear, False)


def _mapped(step: StepView, affine: AffineMap) -> AffineOperation:
    """The map as it stands, as a function of what is learned in it."""
    (x,), y = affine.xs, affine.y
    learned = [var for var in affine.operands if step.is_learned(var)]
    names = {var: f"w{k}" if k else "weight" for k, var in enumerate(learned)}
    source, target = node_shape(shape_of(x)), node_shape(shape_of(y))

    def function(*operands: Any) -> list[Any]:
        *arrays, value = operands
        of_learned = dict(zip(learned, arrays, strict=True))
        values = [of_learned.get(var, step.static[var]) for var in affine.operands]
        return [affine([value.reshape(shape_of(x))], values).reshape(target)]

    avals = [*(var.aval for var in learned), jax.ShapeDtypeStruct(source, dtype_of(x))]
    traced = TracedFunction(trace(function, avals))

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Mapped(traced, arrays, source, target, affine.kind.value)

    def whole(var: Var) -> Derived:
        return lambda static: jnp.asarray(static[var])

    return AffineOperation(source, target, {name: whole(var) for var, name in names.items()}, make, bool(learned))
