"""Forward sensitivities of the whole state: dense RTRL and its relatives, which keep a part of it; for small networks.

The influence ``J = dh / dw`` is kept by weight, ``[weights, rows]``: for every weight the elements of the state that
its rule keeps. With A the step's Jacobian, and I = dh / dw within the step, ``J_t = A_t J_{t-1} + I_t`` on the rows
kept, and the gradient is the same-step gradient plus ``sum_t (dl_t / dh_{t-1}) J_{t-1}``.

For example, two states and a weight that feeds the second with x = 2, A = [[0.5, 0.1], [0, 0.5]], and an old J of (0,
1): J becomes A (0, 1) + (0, 2) = (0.1, 2.5). SnAp(1) keeps only the second row, which the weight feeds itself: 2.5;
the 0.1 is left out, and so is all that comes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from ...program.interpret import Environment
from ...program.program import ModuleInfo, shape_text
from ..carried import Influence
from ..uses.traced_uses import slots_in_time
from .stepwise import FlatStep, StepwiseKernel

FEW_PATTERNS = 16
"""Up to this many different sets of rows are taken set by set, as matrix products."""


@dataclass(frozen=True, eq=False)
class InfluenceKernel(StepwiseKernel):
    """A kernel that carries the sensitivities on the rows that a rule keeps.

    Attributes:
        info: the program.
        rows: int64 ``[weights, rows]``: the elements of the state kept for every weight, -1 where there are fewer.
        within: bool ``[size, size]``: entries of A that are kept; None for all.
    """

    info: ModuleInfo
    rows: np.ndarray
    within: np.ndarray | None = None

    def init(self, static: Environment) -> jax.Array:
        return jnp.zeros(self.rows.shape, self.functions.dtype)

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        shape = shape_text(self.rows.shape)
        text = f"influence {shape}: for every weight, the elements of the state it acts on"
        return [(slots_in_time(self.info), text)]

    def carries(self) -> Influence:
        return Influence(self.rows, self.within)

    @cached_property
    def _kept(self) -> np.ndarray:
        return self.rows >= 0

    @cached_property
    def _patterns(self) -> tuple[np.ndarray, np.ndarray]:
        """The different sets of rows, and for every weight which one it has."""
        patterns, which = np.unique(self.rows, axis=0, return_inverse=True)
        return patterns, which.reshape(-1)

    def temporal(self, by_state: jax.Array, memory: jax.Array) -> jax.Array:
        # Padding, -1, reads element 0; without the mask its signal would reach weights that have nothing to do with it.
        taken = by_state[np.maximum(self.rows, 0)] * jnp.asarray(self._kept, by_state.dtype)
        return (taken * memory).sum(1)

    def advanced(self, step: FlatStep, h: jax.Array, w: jax.Array, memory: jax.Array) -> jax.Array:
        a = jax.jacrev(lambda h: step(h, w))(h)
        # Cut before it acts: whatever passes a dropped entry once goes on through the kept ones from there.
        a = a if self.within is None else a * jnp.asarray(self.within, a.dtype)
        return self._carried(a, memory) * jnp.asarray(self._kept, memory.dtype) + self._immediate(step, h, w)

    def _carried(self, a: jax.Array, memory: jax.Array) -> jax.Array:
        patterns, which = self._patterns
        # Weights with equal rows share one product with one part of A; RTRL has a single set of rows. Written out for
        # hundreds of sets, the program would compile for minutes, so then a loop goes weight by weight.
        if len(patterns) > FEW_PATTERNS:
            rows = jnp.maximum(self.rows, 0)
            return jax.lax.map(lambda weight: a[weight[0]][:, weight[0]] @ weight[1], (rows, memory))
        carried = jnp.zeros_like(memory)
        for number, pattern in enumerate(patterns):
            rows, weights = np.maximum(pattern, 0), np.flatnonzero(which == number)
            carried = carried.at[weights].set(memory[weights] @ a[rows][:, rows].T)
        return carried

    def _immediate(self, step: FlatStep, h: jax.Array, w: jax.Array) -> jax.Array:
        """I on the rows kept, by one reverse pass for each element of the state."""
        _, pull = jax.vjp(lambda w: step(h, w), w)

        # A scan, so that one row of I is in memory at a time. All at once they are the H x P numbers that a sparse J is
        # there to avoid.
        def add(total: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
            (by_weight,) = pull(jnp.zeros_like(h).at[row].set(1.0))
            return total + by_weight[:, None] * (jnp.asarray(self.rows) == row).astype(by_weight.dtype), None

        total, _ = jax.lax.scan(add, jnp.zeros(self.rows.shape, w.dtype), jnp.arange(h.size))
        return total


def padded(rows: list[np.ndarray]) -> np.ndarray:
    """``[weights, rows]`` from one list of rows for every weight, -1 where there are fewer."""
    if not rows:
        return np.zeros((0, 0), np.int64)
    width = max((len(of_weight) for of_weight in rows), default=0)
    return np.stack([np.pad(of_weight, (0, width - len(of_weight)), constant_values=-1) for of_weight in rows])
