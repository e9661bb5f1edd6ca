"""Position maps of equations that mix the turns of a loop.

``v, vs = scan(turn, v, length=40); m = vs.max(0)`` with 4 neurons stacks vs of shape [40, 4]. m depends on vs by 40
maps, one for every turn, ``[0, 1, 2, 3]``, ``[4, 5, 6, 7]`` and so on. vs depends on v by ``[0, 1, 2, 3, 0, 1, ...]``,
so m depends on v by the identity, whichever turn it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._jax import Equation, shape_of, size_of
from ..turn_axes import CUMULATIVE, REDUCTIONS, TurnAxes, mixes_turns_only
from .position_map import MAX_TURNS, Maps, PositionMap

MAX_ELEMENTS = 2**24
"""Maps of more elements than this together are not written out."""


def maps_within_turns(eqn: Equation, axes: TurnAxes) -> dict[int, Maps]:
    """The position maps of an equation that mixes turns and nothing else, by operand; none where it mixes more."""
    maps: dict[int, Maps] = {}
    for k, atom in enumerate(eqn.invars):
        if mixes_turns_only(eqn, k, axes) and 0 < size_of(atom) <= MAX_ELEMENTS:
            of_operand = _maps_of(eqn, k)
            if of_operand:
                maps[k] = of_operand
    return maps


def _maps_of(eqn: Equation, operand: int) -> Maps:
    name, atom = eqn.primitive.name, eqn.invars[operand]
    numbers = np.arange(size_of(atom)).reshape(shape_of(atom))
    if name in REDUCTIONS:
        axes = eqn.params["axes"]
        turns = np.moveaxis(numbers, axes, range(len(axes)))
        return _maps(turns.reshape(-1, size_of(eqn.outvars[0])), numbers.size)
    if name == "dot_general":
        return _of_product(eqn, operand, numbers)
    axis = eqn.params["axis"] if name in CUMULATIVE else eqn.params["dimension"]
    turns = np.moveaxis(numbers, axis, 0)
    if len(turns) * numbers.size > MAX_ELEMENTS:
        return ()
    if name in CUMULATIVE:
        return _maps([np.moveaxis(x, 0, axis) for x in _earlier(turns, eqn.params["reverse"])], numbers.size)
    return _maps([np.moveaxis(np.roll(turns, d, axis=0), 0, axis) for d in range(len(turns))], numbers.size)


def _maps(indices: Sequence[np.ndarray] | np.ndarray, size: int) -> Maps:
    if not 0 < len(indices) <= MAX_TURNS:
        return ()
    return tuple(PositionMap.of(index, size) for index in indices)


def _earlier(turns: np.ndarray, reverse: bool) -> list[np.ndarray]:
    """A turn of a cumulative result is made of that turn and of all before, or after, it."""
    ordered, earlier = turns[::-1] if reverse else turns, []
    for distance in range(len(ordered)):
        none = np.full_like(ordered[:distance], -1)
        index = np.concatenate([none, ordered[: len(ordered) - distance]])
        earlier.append(index[::-1] if reverse else index)
    return earlier


def _of_product(eqn: Equation, side: int, numbers: np.ndarray) -> Maps:
    """The maps of a product that sums over turns to its operand on one side."""
    contracted, batch = eqn.params["dimension_numbers"]
    other = shape_of(eqn.invars[1 - side])
    free = [k for k in range(numbers.ndim) if k not in (*contracted[side], *batch[side])]
    other_free = [n for k, n in enumerate(other) if k not in (*contracted[1 - side], *batch[1 - side])]
    ordered = np.transpose(numbers, (*contracted[side], *batch[side], *free))
    ordered = ordered.reshape(-1, *ordered.shape[len(contracted[side]) :])
    # Results have the axes of the batch, then the free ones of the left side, then those of the right.
    at = ordered.ndim if side == 0 else 1 + len(batch[side])
    widened = np.expand_dims(ordered, tuple(range(at, at + len(other_free))))
    full = (*widened.shape[:at], *other_free, *widened.shape[at + len(other_free) :])
    if np.prod(full, dtype=np.float64) > MAX_ELEMENTS:
        return ()
    return _maps(np.broadcast_to(widened, full), numbers.size)
