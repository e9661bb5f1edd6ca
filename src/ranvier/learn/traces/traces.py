"""Eligibility traces of a program: which there are, what each keeps, and how it advances over a chunk.

For example, ``x @ w`` of a 3 x 2 weight into 2 neurons with states v and a, where ``v' = 0.9 v - a + x @ w`` and ``a'
= 0.5 a + v``. D is [[0.9, -1], [1, 0.5]] at both neurons, f is (1, 0). The trace is X (x) u with X of 3 numbers and u
of 2, for v and for a: 3 x 2 numbers each, which D mixes from step to step. If there were only v, with one
decay of 0.9 for all neurons, then every step would add X times the same 1, and a presynaptic trace of 3 numbers would
hold everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import AnalysisError, RuleError
from ...program._jax import Literal, dtype_of, is_complex, source_line
from ...program.analysis.cache import cached_by_program
from ...program.analysis.hidden_groups import HiddenGroup
from ...program.analysis.memory import size_text
from ...program.analysis.relations import Connection
from ...program.analysis.slices import Slice
from ...program.bodies import has_own_derivative
from ...program.program import ModuleInfo, shape_text
from ..linearization.dynamics import Components, Entries, TraceDynamics
from ..linearization.group_dynamics import GroupDynamics
from ..linearization.same_step import bypassing_states
from ..uses.alignment import Alignment
from ..uses.bilinear import BilinearMap, Zeros, stacked, weighted
from ..uses.traced_uses import TracedUse, traced_uses_of


@dataclass(frozen=True, eq=False)
class Trace:
    """The trace of one use in one group.

    Attributes:
        use: the traced use of a parameter.
        lanes: the path from the projection's result into the group.
        dynamics: the group's dynamics.
    """

    use: TracedUse
    lanes: Alignment
    dynamics: TraceDynamics

    @property
    def form(self) -> BilinearMap:
        return self.use.form

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.form.presynaptic_aval.dtype, self.dynamics.dtype)

    @cached_property
    def components(self) -> tuple[int, ...]:
        return self.dynamics.reached(self.lanes)

    @cached_property
    def kept_components(self) -> tuple[int, ...]:
        """The components whose trace later steps read; that of the others is never stored."""
        return tuple(a for a in self.components if a in self.dynamics.lasting)

    @cached_property
    def factorized(self) -> frozenset[int]:
        """Components for which a presynaptic trace, of the size of X, holds everything."""
        return self.dynamics.factorized(self.lanes)

    def by_lane(self, f: Components) -> Components:
        """f in layers of lanes."""
        return {a: self.lanes.from_lanes(value) for a, value in f.items()}

    def by_lane_from_positions(self, d: Entries) -> Entries:
        """D at the lanes' positions."""
        return {key: self.lanes.from_positions(value) for key, value in d.items()}

    def memory_text(self) -> str:
        """What the trace keeps, as text."""
        names = self.dynamics.names
        parts = []
        for a in self.kept_components:
            size = int(np.prod(self.shape(a), dtype=np.int64)) * self.dtype.itemsize
            how = "presynaptic trace (uniform decay)" if a in self.factorized else "full trace"
            parts.append(f"{names[a]}: {how} {shape_text(self.shape(a))}, {size_text(size)}")
        return "; ".join([self.form.name, *(parts or ["nothing: no later step reads it"])])

    def shape(self, a: int) -> tuple[int, ...]:
        """Shape of what is kept for a component."""
        return self.form.presynaptic_aval.shape if a in self.factorized else self.form.trace_shape(self.lanes.layers)

    def zeros(self) -> dict[int, jax.Array]:
        """Zero traces, by component."""
        return {a: jnp.zeros(self.shape(a), self.dtype) for a in self.kept_components}

    def cotangent(self, factor: Components, values: Components) -> jax.Array:
        """The cotangent of y, ``[K, *y]``, from factors by lane and values by position."""
        # Summed over the layers of lanes: an element of y that feeds two positions answers for both.
        parts = [factor[a] * self.lanes.from_positions(values[a]) for a in factor if a in values]
        total = sum(parts[1:], parts[0]).sum(1)
        return jnp.broadcast_to(total, (total.shape[0], *self.form.y_shape))

    def step_bytes(self) -> int:
        """X, f and the cotangent of y of one step, about."""
        aval = self.form.presynaptic_aval
        y = int(np.prod(self.form.y_shape, dtype=np.int64)) * self.lanes.layers
        return aval.dtype.itemsize * (aval.size + y * (1 + len(self.dynamics.uniform_f(self.lanes))))

    def old_gradient(self, memory: dict[int, jax.Array], b0: Components) -> jax.Array:
        """What the old traces add to the gradient."""
        parts = []
        for a in self.kept_components:
            # b_0 . e_0. A factorized trace is one row of X with the cotangent of all its lanes, so the gradient is the
            # same product as that of a step; a full trace is read element by element.
            c = self._full(self.lanes.from_positions(b0[a]))
            if a in self.factorized:
                parts.append(self.form.pull(memory[a][None], c.sum(0)[None]))
            else:
                parts.append(self.form.contract(c, memory[a]))
        return sum(parts[1:], parts[0])

    def carried(self, f: Components, p: Entries) -> Components:
        """What every step adds to the traces after the chunk, as factors of X.

        Args:
            f: f at all steps.
            p: the propagators from every step to the end.

        Returns:
            By component ``[K]`` where the trace is factorized, else ``[K, L, *y]`` or what broadcasts to it.
        """
        factors = {}
        for a in self.kept_components:
            parts = [self._carried(a, f[b], p[a, b]) for b in f if (a, b) in p]
            if parts:
                factors[a] = sum(parts[1:], parts[0])
        return factors

    def _carried(self, a: int, f: jax.Array, p: jax.Array) -> jax.Array:
        if a in self.factorized:
            # Uniform, so one number per step, and position 0 stands for all.
            return (f * p)[:, 0]
        return self.lanes.from_lanes(f) * self.lanes.from_positions(p)

    def advanced(
        self, memory: dict[int, jax.Array] | None, x: jax.Array, carried: Components, p0: Entries
    ) -> dict[int, jax.Array]:
        """The trace after the chunk; ``memory`` is None where it was zero before."""
        advanced = {a: self._advanced(a, memory, x, carried.get(a), p0) for a in self.kept_components}
        return {a: value.astype(self.dtype) for a, value in advanced.items()}

    def _advanced(
        self, a: int, memory: dict[int, jax.Array] | None, x: jax.Array, carried: jax.Array | None, p0: Entries
    ) -> jax.Array:
        # Of the components that lead to this one: P_0 is zero elsewhere for any number of steps.
        old = {} if memory is None else {b: memory[b] for b in self.kept_components if (a, b) in p0}
        if a in self.factorized:
            parts = [p0[a, b].reshape(()) * value for b, value in old.items()]
            # sum_s (P_s f_s) x_s: a weighted sum of the presynaptic data, with no outer product.
            parts += [] if carried is None else [weighted(carried, x)]
            return sum(parts[1:], parts[0])
        # Old factorized traces are rows like those of the steps, so that one product takes all of them.
        rows_x, rows_u = ([], []) if carried is None else ([x], [self._full(carried)])
        parts = []
        for b, value in old.items():
            if b in self.factorized:
                rows_x.append(value[None])
                rows_u.append(self._full(self.lanes.from_positions(p0[a, b]))[None])
            elif p0[a, b].shape[-1] == 1:
                # One decay for all positions needs no array of the size of the trace.
                parts.append(p0[a, b] * value)
            else:
                parts.append(self.form.spread(self._full(self.lanes.from_positions(p0[a, b]))) * value)
        if rows_x:
            parts.append(self.form.outer(stacked(rows_x), stacked(rows_u)))
        return sum(parts[1:], parts[0])

    def _full(self, u: jax.Array) -> jax.Array:
        """Values by lane at their full shape."""
        shape = (self.lanes.layers, *self.form.y_shape)
        return jnp.broadcast_to(u, (*u.shape[: u.ndim - len(shape)], *shape))


def check_holomorphic(path: Slice) -> None:
    """Raises :class:`RuleError` where a complex value has no complex derivative on its path to a state.

    D and f are then no complex numbers: changes of the real and of the imaginary part have effects of their own.
    """
    moving = {var for var in path.sources if is_complex(dtype_of(var))}
    for eqn in path.equations:
        if not any(not isinstance(a, Literal) and a in moving for a in eqn.invars):
            continue
        real = any(not is_complex(dtype_of(out)) for out in eqn.outvars)
        if real or has_own_derivative(eqn) or eqn.primitive.name == "conj":
            raise RuleError(
                f"eligibility traces of complex states need complex derivatives, but {eqn.primitive.name} has none "
                f"[{source_line(eqn)}]; keep the real and imaginary parts as two real states, or use RTRL or BPTT."
            )
        moving.update(eqn.outvars)


@cached_by_program
def traces_of(info: ModuleInfo) -> tuple[Trace, ...]:
    """D-RTRL's traces of a program: one for every use and every group that it reaches.

    Raises:
        RuleError: D of a group is not known by position.
    """
    uses = traced_uses_of(info)
    by_group: dict[HiddenGroup, list[Connection]] = {}
    for use in uses:
        for connection in use.connections:
            by_group.setdefault(connection.group, []).append(connection)
    # Forward mode gives a number for such a path, too, and no error; as an entry of D it would be wrong for every
    # change but one of the real part.
    for group, connections in by_group.items():
        for path in (group.transition.path, *(connection.path for connection in connections)):
            check_holomorphic(path)
    bypassing = bypassing_states(info)
    try:
        # One for each group, so that all traces in it share D, adjoints and propagators.
        dynamics = {group: GroupDynamics.of(group, into, bypassing) for group, into in by_group.items()}
        # D is computed when a chunk runs; its shapes are enough to show now whether it is known by position.
        for one in dynamics.values():
            jax.eval_shape(lambda one=one: one.d(Zeros()))
    except AnalysisError as error:
        raise RuleError(f"eligibility traces need D by position. {error}") from error
    return tuple(Trace(use, lanes, dynamics[lanes.connection.group]) for use in uses for lanes in use.lanes)
