"""Forward sensitivities of the whole state: dense RTRL and its masked relatives, for small networks.

The influence ``J = d state / d w`` is kept by weight: for every weight the rows (elements of the state) that its rule
keeps, ``[weights, rows]``. With A the step's Jacobian, and I = d state / d w of the step alone,
``J_t = A_t J_{t-1} + I_t`` on the rows kept, and the gradient is the same-step gradient plus ``sum_t (dl_t / d state_{t-1})
J_{t-1}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..ir._jax import Var, is_floating, size_of
from ..ir.interpret import Environment, run_equations
from ..ir.program import ModuleInfo
from .kernel import Chunk, ChunkResult, Kernel, Loss
from .same_step import scalar_loss
from .stages import stages_of
from .state import LearnerState
from .terms import entering_variables


class StepFunctions:
    """One step as a function of flat vectors: the floating-point state, and the entering variables."""

    def __init__(self, info: ModuleInfo) -> None:
        self.info = info
        self.variables = entering_variables(info)
        others = [v for v in info.other_invars if v not in stages_of(info).unchanged and is_floating(v.aval.dtype)]
        self.states: tuple[Var, ...] = (*info.hidden_invars, *others)

    @cached_property
    def size(self) -> int:
        """Elements of the state."""
        return sum(size_of(var) for var in self.states)

    @cached_property
    def weights(self) -> int:
        """Elements of the entering variables."""
        return sum(size_of(var) for var in self.variables)

    @cached_property
    def dtype(self) -> Any:
        return jnp.result_type(*(var.aval.dtype for var in self.states))

    def starts(self, variables: Sequence[Var]) -> list[int]:
        """Where each variable's elements start in the flat vector, and where the last one's end."""
        return [0, *np.cumsum([size_of(var) for var in variables]).tolist()]

    def flat(self, variables: Sequence[Var], values: Sequence[Any]) -> jax.Array:
        parts = [jnp.asarray(value).reshape(-1).astype(self.dtype) for value in values]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def parts(self, variables: Sequence[Var], flat: jax.Array) -> dict[Var, jax.Array]:
        starts = self.starts(variables)
        return {
            var: flat[a:b].reshape(var.aval.shape).astype(var.aval.dtype)
            for var, a, b in zip(variables, starts, starts[1:], strict=False)
        }

    def step(
        self, static: Environment, state: LearnerState, inputs: Sequence[Any], h: jax.Array, w: jax.Array
    ) -> tuple[jax.Array, list[Any], list[Any], list[Any]]:
        """New flat state, output leaves, new hidden leaves and new leaves of other states."""
        info, stages = self.info, stages_of(self.info)
        values = {**static, **dict(zip(info.input_invars, inputs, strict=True))}
        values.update(zip((*info.hidden_invars, *info.other_invars), [*state.hidden, *state.other], strict=True))
        values.update(self.parts(self.states, h))
        values.update(self.parts(self.variables, w))
        run_equations((*stages.parallel, *stages.sequential), values)
        outputs, hidden, other = stages.results(values)
        after = dict(zip((*info.hidden_invars, *info.other_invars), [*hidden, *other], strict=True))
        return self.flat(self.states, [after[var] for var in self.states]), outputs, hidden, other

    def old(self, state: LearnerState) -> jax.Array:
        """The flat state."""
        before = dict(
            zip((*self.info.hidden_invars, *self.info.other_invars), [*state.hidden, *state.other], strict=True)
        )
        return self.flat(self.states, [before[var] for var in self.states])


@dataclass(frozen=True, eq=False)
class InfluenceKernel(Kernel):
    """Sensitivities on the rows that a rule keeps.

    Attributes:
        info: the program.
        rows: int64 ``[weights, rows]``: the elements of the state kept for every weight, -1 where there are fewer.
        within: bool ``[size, size]``: entries of A that are kept; None for all.
        immediate: bool ``[weights, rows]``: entries of I that are kept; None for all.
    """

    info: ModuleInfo
    rows: np.ndarray
    within: np.ndarray | None = None
    immediate: np.ndarray | None = None

    @cached_property
    def _functions(self) -> StepFunctions:
        return StepFunctions(self.info)

    def init(self, static: Environment) -> jax.Array:
        return jnp.zeros(self.rows.shape, self._functions.dtype)

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        functions = self._functions
        w = functions.flat(functions.variables, [static[var] for var in functions.variables])

        def step(carry: tuple[LearnerState, jax.Array], given: Any) -> Any:
            state, total = carry
            inputs, target, weight = given

            def losses(h: jax.Array, w: jax.Array) -> Any:
                _, outputs, hidden, other = functions.step(static, state, inputs, h, w)
                output = jax.tree.unflatten(self.info.output_treedef, outputs)
                return weight * scalar_loss(loss, output, target), (outputs, hidden, other)

            h = functions.old(state)
            value, pull, (outputs, hidden, other) = jax.vjp(losses, h, w, has_aux=True)
            by_h, by_w = pull(jnp.ones_like(value))
            total = total + by_w + (self._at_rows(by_h) * state.memory).sum(1)
            memory = self._advanced(lambda h, w: functions.step(static, state, inputs, h, w)[0], h, w, state.memory)
            return (LearnerState(hidden, other, memory), total), (value, outputs)

        carry = (state, jnp.zeros_like(w))
        (state, total), (losses, outputs) = jax.lax.scan(step, carry, (chunk.inputs, chunk.targets, chunk.weights))
        return ChunkResult(functions.parts(functions.variables, total), losses, outputs, state)

    def _at_rows(self, values: jax.Array) -> jax.Array:
        """``[weights, rows]`` from values of the state, zero where a weight has no row."""
        taken = values[np.maximum(self.rows, 0)]
        return taken * jnp.asarray(self.rows >= 0, values.dtype)

    def _advanced(self, step: Any, h: jax.Array, w: jax.Array, memory: jax.Array) -> jax.Array:
        """``A J + I`` on the rows kept."""
        a = jax.jacrev(lambda h: step(h, w))(h)
        a = a if self.within is None else a * jnp.asarray(self.within, a.dtype)
        return self._carried(a, memory) + self._immediate(step, h, w)

    def _carried(self, a: jax.Array, memory: jax.Array) -> jax.Array:
        if self.rows.shape[1] == self._functions.size:
            return memory @ a.T

        def one(rows: jax.Array, old: jax.Array) -> jax.Array:
            return a[rows][:, rows] @ old

        kept = jnp.asarray(self.rows >= 0, memory.dtype)
        return jax.lax.map(lambda given: one(*given), (jnp.maximum(self.rows, 0), memory * kept)) * kept

    def _immediate(self, step: Any, h: jax.Array, w: jax.Array) -> jax.Array:
        """I on the rows kept, by one reverse pass for each element of the state."""
        _, pull = jax.vjp(lambda w: step(h, w), w)

        def add(total: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
            (found,) = pull(jnp.zeros(self._functions.size, w.dtype).at[row].set(1.0))
            return total + found[:, None] * (jnp.asarray(self.rows) == row), None

        start = jnp.zeros(self.rows.shape, w.dtype)
        total, _ = jax.lax.scan(add, start, jnp.arange(self._functions.size))
        return total if self.immediate is None else total * jnp.asarray(self.immediate, total.dtype)


def all_rows(functions: StepFunctions) -> np.ndarray:
    """Every element of the state for every weight."""
    return np.broadcast_to(np.arange(functions.size), (functions.weights, functions.size))
