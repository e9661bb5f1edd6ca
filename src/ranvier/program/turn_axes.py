"""Axes along which an array holds the turns of a loop, and equations that mix nothing but turns.

``v, vs = scan(turn, v, length=40); m = vs.max(0)`` with 4 neurons stacks vs of shape [40, 4], which has its turns along
axis 0. The maximum mixes, but what it mixes are the values of one neuron in 40 turns. In ``vs.max(1)`` the neurons of
one turn are mixed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._jax import Equation, Literal, Var, dtype_of, is_floating, open_jaxpr, shape_of
from .bodies import bodies, is_loop, loop_of
from .primitives import Kind, rule_of

TurnAxes = dict[Var, frozenset[int]]

REDUCTIONS = frozenset(["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
CUMULATIVE = frozenset(["cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"])
IN_PLACE = frozenset(["rev", "copy", "slice", "dynamic_slice"])
"""Structural equations that leave the axes of an array where they are."""


def turn_axes_of(equations: Sequence[Equation], holds_no_state: Callable[[Var], bool]) -> TurnAxes:
    """For every variable that holds the turns of a loop the axes along which it does.

    Args:
        equations: of a program or a body, in order.
        holds_no_state: whether no derivative passes from hidden states into a variable.
    """
    axes: TurnAxes = {}
    producers = {var: eqn for eqn in equations for var in eqn.outvars}
    for eqn in equations:
        if is_loop(eqn):
            axes.update(_stacked(eqn) | _written(eqn))
        operands = [atom for atom in eqn.invars if not isinstance(atom, Literal)]
        if any(atom in axes for atom in operands):
            for out in eqn.outvars:
                carried_over = _carried_over(eqn, operands, out, axes, producers, holds_no_state)
                if carried_over:
                    axes[out] = carried_over
    return axes


def _stacked(eqn: Equation) -> TurnAxes:
    """The axes of what a loop stacks: the first one, and those of what a turn stacks in loops of its own."""
    loop = loop_of(eqn)
    inside = turn_axes_in(loop.body)
    stacked = zip(eqn.outvars[loop.num_carried :], loop.outvars[loop.num_carried :], strict=True)
    inner = {out: inside.get(atom, ()) for out, atom in stacked if not isinstance(atom, Literal)}
    return {out: frozenset([0, *(axis + 1 for axis in inner.get(out, ()))]) for out in eqn.outvars[loop.num_carried :]}


def _written(eqn: Equation) -> TurnAxes:
    """The axes along which turns write into carried arrays, place by place."""
    loop = loop_of(eqn)
    by_shape: dict[tuple[int, ...], set[int]] = {}
    for write in _writes_in(loop.body):
        by_shape.setdefault(shape_of(write.outvars[0]), set()).update(_axes_written(write))
    written = {out: frozenset(by_shape.get(shape_of(out), ())) for out in eqn.outvars[: loop.num_carried]}
    return {out: axes for out, axes in written.items() if axes}


def _writes_in(closed: Any) -> list[Equation]:
    """The equations that write into an array, also those in branches and loops inside."""
    writes = []
    for eqn in open_jaxpr(closed)[0].eqns:
        writes += [eqn] if eqn.primitive.name in ("scatter", "scatter-add", "dynamic_update_slice") else []
        writes += [write for body in bodies(eqn) for write in _writes_in(body)]
    return writes


def _axes_written(write: Equation) -> list[int]:
    """The axes along which a write takes one place that is no literal."""
    shape = shape_of(write.outvars[0])
    if write.primitive.name == "dynamic_update_slice":
        window, places = shape_of(write.invars[1]), write.invars[2:]
        return [k for k, n in enumerate(window) if n == 1 < shape[k] and not isinstance(places[k], Literal)]
    return [axis for axis in write.params["dimension_numbers"].inserted_window_dims if shape[axis] > 1]


def turn_axes_in(body: Any) -> TurnAxes:
    """As :func:`turn_axes_of`, for the body of a loop, of whose operands nothing is known."""
    jaxpr, _ = open_jaxpr(body)
    fixed = set(jaxpr.constvars)
    for eqn in jaxpr.eqns:
        plain = not any(is_floating(dtype_of(a)) and not isinstance(a, Literal) and a not in fixed for a in eqn.invars)
        if plain and not eqn.effects:
            fixed.update(eqn.outvars)
    return turn_axes_of(jaxpr.eqns, fixed.__contains__)


def _carried_over(
    eqn: Equation,
    operands: Sequence[Var],
    out: Var,
    axes: TurnAxes,
    producers: Mapping[Var, Equation],
    holds_no_state: Callable[[Var], bool],
) -> frozenset[int]:
    """The axes of a result along which the turns of its operands run."""
    name, shape = eqn.primitive.name, shape_of(out)
    if name == "concatenate" and eqn.params["dimension"] in frozenset().union(*(axes.get(a, ()) for a in operands)):
        # More rows: what was before the first turn, say.
        return frozenset([eqn.params["dimension"]])
    if _is_elementwise(eqn) or name == "concatenate":
        if not all(len(shape_of(atom)) in (0, len(shape)) for atom in operands):
            return frozenset()
        # What varies along the axis without being a turn, such as a state that happens to have as many elements, would
        # be mixed with the turns.
        known = frozenset().union(*(axes[atom] for atom in operands if atom in axes))
        return frozenset(
            axis
            for axis in known
            if all(
                axis in axes.get(atom, ()) or holds_no_state(atom) or _is_constant_along(atom, axis, producers)
                for atom in operands
            )
        )
    if operands[0] not in axes:
        return frozenset()
    source, own = shape_of(operands[0]), axes[operands[0]]
    if name in IN_PLACE or name in CUMULATIVE or (name == "sort" and len(eqn.invars) == 1):
        return own
    if name == "transpose":
        return frozenset(list(eqn.params["permutation"]).index(axis) for axis in own)
    if name == "broadcast_in_dim":
        moved = {axis: eqn.params["broadcast_dimensions"][axis] for axis in own}
        return frozenset(to for axis, to in moved.items() if shape[to] == source[axis])
    if name in REDUCTIONS and isinstance(eqn.params["axes"], tuple):
        left = [axis for axis in range(len(source)) if axis not in eqn.params["axes"]]
        return frozenset(left.index(axis) for axis in own if axis in left)
    if name == "gather":
        return frozenset(to for axis in own if (to := _axis_of_rows(eqn, axis)) is not None)
    if name in ("reshape", "squeeze", "expand_dims"):
        return frozenset(to for axis in own if (to := _same_axis(source, axis, shape)) is not None)
    return frozenset()


def _axis_of_rows(eqn: Equation, axis: int) -> int | None:
    """The axis of a gather's result that runs along an axis of which whole rows are picked."""
    numbers = eqn.params["dimension_numbers"]
    along = [k for k in range(len(shape_of(eqn.outvars[0]))) if k not in numbers.offset_dims]
    picks = tuple(numbers.start_index_map) == tuple(numbers.collapsed_slice_dims) == (axis,)
    return along[0] if picks and len(along) == 1 and not numbers.operand_batching_dims else None


def _is_elementwise(eqn: Equation) -> bool:
    rule = rule_of(eqn.primitive)
    # Of a declared derivative only the body is looked at here: what it mixes is cut off where it is met.
    return rule.kind is Kind.ELEMENTWISE or eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call")


def _same_axis(source: tuple[int, ...], axis: int, target: tuple[int, ...]) -> int | None:
    """The axis of a reshaped array that is this axis of the array."""
    before = int(np.prod(source[:axis], dtype=np.int64))
    places = [k for k, n in enumerate(target) if n == source[axis]]
    return next((k for k in places if int(np.prod(target[:k], dtype=np.int64)) == before), None)


def _is_constant_along(atom: Var, axis: int, producers: Mapping[Var, Equation]) -> bool:
    shape = shape_of(atom)
    if not shape or shape[axis] == 1:
        return True
    eqn = producers.get(atom)
    if eqn is None or eqn.primitive.name != "broadcast_in_dim":
        return False
    dimensions = list(eqn.params["broadcast_dimensions"])
    return axis not in dimensions or shape_of(eqn.invars[0])[dimensions.index(axis)] == 1


def mixes_turns_only(eqn: Equation, operand: int, axes: TurnAxes) -> bool:
    """Whether what an equation mixes of an operand are the turns of a loop."""
    atom, name = eqn.invars[operand], eqn.primitive.name
    if isinstance(atom, Literal) or atom not in axes:
        return False
    if name in REDUCTIONS:
        return axes[atom].issuperset(eqn.params["axes"])
    if name in CUMULATIVE:
        return eqn.params["axis"] in axes[atom]
    if name == "sort":
        return len(eqn.invars) == 1 and eqn.params["dimension"] in axes[atom]
    if name == "dot_general":
        contracted, _ = eqn.params["dimension_numbers"]
        return operand < 2 and axes[atom].issuperset(contracted[operand])
    return False


def turn_mixing_in(closed: Any) -> frozenset[tuple[int, int]]:
    """``id`` of the equations of a body that mix nothing but turns, each with the number of the operand."""
    body, _ = open_jaxpr(closed)
    axes = turn_axes_in(closed)
    return frozenset((id(e), k) for e in body.eqns for k in range(len(e.invars)) if mixes_turns_only(e, k, axes))
