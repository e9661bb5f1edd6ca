"""Which elements of some variables depend on which elements of others: the structure of a Jacobian.

For ``v' = 0.9 v + roll(v, 1)`` of three elements the pattern of v' by v is [[1, 0, 1], [1, 1, 0], [0, 1, 1]]. Its first
column is what a mark on element 0 of v becomes: [1, 0, 0] stays in place in the product, is moved to [0, 1, 0] by the
roll, and the sum joins the two to [1, 1, 0].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import Equation, Literal, Var, bind, dtype_of, is_floating, shape_of, size_of
from ..bodies import has_derivative
from ..nested import classify, classify_derivative
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from .binding_time import BindingTimes, binding_times_of
from .dependence import equation_dependences

AT_ONCE = 256
"""Source elements that are followed in one pass."""


def dependence_pattern(info: ModuleInfo, sources: Sequence[Var], targets: Sequence[Any]) -> np.ndarray:
    """Structure of d targets / d sources within one step.

    A mark is set on one source element at a time and carried through the step: elementwise equations join the marks of
    their operands, structural ones move them, and a matrix product marks every result that a marked element has a
    weight to, zero or not. What is not known in detail marks all its results.

    Args:
        info: the program.
        sources: variables of the step; a source that another one is made of does not count as depending on it.
        targets: variables (or literals) of the step.

    Returns:
        bool ``[elements of all targets, elements of all sources]``; False only where the derivative is always zero.
    """
    binding_times, total = binding_times_of(info), sum(map(size_of, sources))
    starts = np.cumsum([0, *map(size_of, sources)])

    def marks(element: jax.Array) -> jax.Array:
        marked: dict[Var, Any] = {}
        for var, start in zip(sources, starts, strict=False):
            flat = (jnp.arange(size_of(var)) + start == element).astype(jnp.float32)
            marked[var] = flat.reshape(shape_of(var))
        for eqn in info.equations:
            if any(not isinstance(a, Literal) and a in marked for a in eqn.invars) and has_derivative(eqn):
                # A source keeps its own mark: what another source does to it is not asked for.
                marked.update(
                    {var: mark for var, mark in _marked(eqn, marked, binding_times).items() if var not in sources}
                )
        flat = [_mark(marked, atom).reshape(-1) for atom in targets]
        return jnp.concatenate(flat) > 0 if flat else jnp.zeros(0, bool)

    columns = jax.jit(lambda elements: jax.lax.map(marks, elements, batch_size=AT_ONCE))(jnp.arange(total))
    return np.asarray(columns).T


def _mark(marked: dict[Var, Any], atom: Any) -> jax.Array:
    if isinstance(atom, Literal) or atom not in marked:
        return jnp.zeros(shape_of(atom), jnp.float32)
    return marked[atom]


def _marked(eqn: Equation, marked: dict[Var, Any], binding_times: BindingTimes) -> dict[Var, Any]:
    """The marks of the floating-point results of an equation, each element zero or one."""
    marks = [_mark(marked, atom) for atom in eqn.invars]
    results = _moved(eqn, marks, binding_times)
    outvars = [var for var in eqn.outvars if is_floating(dtype_of(var))]
    # Without knowledge of the equation, one marked element of an operand marks all results.
    if results is None:
        anywhere = sum((mark.sum() for mark in marks), jnp.zeros(()))
        results = [jnp.broadcast_to(anywhere, shape_of(var)) for var in outvars]
    # Back to zero and one, lest sums of sums overflow in a long step.
    return {var: (mark > 0).astype(jnp.float32) for var, mark in zip(outvars, results, strict=True)}


def _moved(eqn: Equation, marks: list[jax.Array], binding_times: BindingTimes) -> list[jax.Array] | None:
    """Marks of the results by the kind of the equation; None where all results depend on all operands."""
    if rule_of(eqn.primitive).kind is Kind.NESTED:
        return _through_bodies(eqn, marks, binding_times)
    kind, name = classify(eqn), eqn.primitive.name
    shapes = {shape_of(var) for var in eqn.outvars}
    if kind is Kind.ELEMENTWISE and len(shapes) == 1:
        (shape,) = shapes
        if all(mark.shape in ((), shape) for mark in marks):
            total = sum((jnp.broadcast_to(mark, shape) for mark in marks), jnp.zeros(shape))
            return [total for var in eqn.outvars if is_floating(dtype_of(var))]
    linear = kind is Kind.STRUCTURAL or name in ("reduce_sum", "cumsum")
    if linear and rule_of(eqn.primitive).index_operands is None:
        return bind(eqn, list(marks))
    if name in ("dot_general", "conv_general_dilated") or rule_of(eqn.primitive).operation == "sparse":
        return _through_products(eqn, marks, binding_times)
    return None


def _through_bodies(eqn: Equation, marks: list[jax.Array], binding_times: BindingTimes) -> list[jax.Array] | None:
    """Marks where the derivative of an elementwise equation with bodies, or the one it declares, takes them."""
    if classify_derivative(eqn) is not Kind.ELEMENTWISE:
        return None
    results = []
    for out, dependences in zip(eqn.outvars, equation_dependences(eqn, binding_times.constant_value), strict=True):
        if not is_floating(dtype_of(out)):
            continue
        total = jnp.zeros(size_of(out))
        for (operand, passes), maps in dependences.items():
            if not passes:
                continue
            if maps is None:
                return None
            for position_map in maps:
                total = total + _taken(marks[operand].reshape(-1), position_map.indices(size_of(out)))
        results.append(total.reshape(shape_of(out)))
    return results


def _taken(marks: jax.Array, index: np.ndarray) -> jax.Array:
    return jnp.where(index >= 0, marks[np.maximum(index, 0)], 0.0)


def _through_products(eqn: Equation, marks: list[jax.Array], binding_times: BindingTimes) -> list[jax.Array] | None:
    """Marks through an operation that is linear in each floating-point operand, all others set to one."""
    # Weights of ones: an element that is zero now need not be zero after the next update.
    operands: list[Any] = []
    for atom in eqn.invars:
        if is_floating(dtype_of(atom)):
            operands.append(jnp.ones(shape_of(atom), jnp.float32))
        elif (value := binding_times.constant_value(atom)) is not None:
            operands.append(value)
        else:
            return None
    params = {"preferred_element_type": np.dtype(np.float32)} if "preferred_element_type" in eqn.params else {}
    total = [jnp.zeros(shape_of(var)) for var in eqn.outvars]
    for k, atom in enumerate(eqn.invars):
        if is_floating(dtype_of(atom)):
            values = [*operands[:k], marks[k], *operands[k + 1 :]]
            bound = eqn.primitive.bind(*values, **{**eqn.params, **params})
            parts = bound if eqn.primitive.multiple_results else [bound]
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return total
