"""How the elements of a projection's result line up with the positions of a group.

Values by position are arrays ``[..., P]`` with P the number of positions, or 1 where all positions share one value.
Values by lane are arrays ``[..., layers, *y.shape]``: every element of y has one lane in each layer, and there are as
many layers as positions that one element feeds.

For example, y of 2 elements, from a 3 x 2 weight. ``v' = v + roll(y, 1)``: one layer, with y_0 at position 1 and y_1 at
position 0; a cotangent (5, 7) by position is (7, 5) by lane. ``v' = v + concatenate([y, y])``: two layers, with y_0 at
positions 0 and 2, and the trace has 2 x 3 x 2 numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ...program.analysis.relations import Connection


@dataclass(frozen=True, eq=False)
class Alignment:
    """The lanes from a result y into one group.

    Attributes:
        connection: how y reaches the group.
        y_shape: shape of y.
    """

    connection: Connection
    y_shape: tuple[int, ...]

    @cached_property
    def _lane(self) -> np.ndarray:
        """int64 ``[layers, y.size]``: number of the connection's lane, -1 where there is none."""
        # The n-th lane of an element goes into layer n, so that every layer has the shape of y, and products with
        # weights run over whole arrays instead of lists of pairs.
        y_index = self.connection.y_index
        # Sorted by element, the lanes of one element stand together, and a lane's rank among them is its layer.
        order = np.argsort(y_index, kind="stable")
        ranked = y_index[order]
        rank = np.arange(ranked.size) - np.searchsorted(ranked, ranked)
        lane = np.full((int(rank.max(initial=0)) + 1, int(np.prod(self.y_shape, dtype=np.int64))), -1)
        lane[rank, ranked] = order
        return lane

    @cached_property
    def _position(self) -> np.ndarray:
        return np.where(self._lane >= 0, self.connection.position[self._lane], -1)

    @property
    def layers(self) -> int:
        return self._lane.shape[0]

    def from_positions(self, values: jax.Array) -> jax.Array:
        """Values by lane from values by position."""
        return self._picked(values, self._position, self.connection.group.positions.size)

    def from_lanes(self, values: jax.Array) -> jax.Array:
        """Values by lane, in layers, from values in the connection's order of lanes."""
        return self._picked(values, self._lane, self.connection.y_index.size)

    def _picked(self, values: jax.Array, index: np.ndarray, size: int) -> jax.Array:
        lead, shape = values.shape[:-1], (self.layers, *self.y_shape)
        # A value that all positions share stays one number: a trace of uniform decay is small only while it is.
        if values.shape[-1] == 1 and size > 1:
            spread = values.reshape(*lead, *(1 for _ in shape))
            return spread if (index >= 0).all() else spread * jnp.asarray(index >= 0, values.dtype).reshape(shape)
        flat = index.reshape(-1)
        # The usual case, y in the order of positions: a reshape, where a gather would copy all traces.
        if flat.size == size and np.array_equal(flat, np.arange(size)):
            return values.reshape(*lead, *shape)
        taken = values[..., np.maximum(flat, 0)]
        if (flat < 0).any():
            taken = taken * jnp.asarray(flat >= 0, values.dtype)
        return taken.reshape(*lead, *shape)
