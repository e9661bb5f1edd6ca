"""Rules that process the whole state step by step: the step as a function, and the loop over it.

The state is one flat vector h (all hidden states, and other states with a derivative), the weights are one flat vector
w. For example, a potential [2], a complex state [1] and a weight [3, 2] make an h of 2 + 2 numbers, first the real and
then the imaginary part of the complex one, and a w of 6.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import RuleError
from ...program._jax import Var, dtype_of, is_complex, is_floating, shape_of, size_of
from ...program.interpret import Environment, run_equations
from ...program.paths import path_text
from ...program.program import ModuleInfo
from ...program.while_loops import bind_both_ways
from ..kernel import Chunk, ChunkResult, Kernel, Loss
from ..linearization.same_step import scalar_loss
from ..state import LearnerState
from ..step.stages import stages_of
from ..uses.traced_uses import entering_variables


class StepFunctions:
    """One step as a function of flat vectors: the floating-point state, and the entering variables."""

    def __init__(self, info: ModuleInfo) -> None:
        self.info = info
        self.variables = entering_variables(info)
        before = [*info.hidden_invars, *info.other_invars]
        after = [*info.hidden_outvars, *info.other_outvars]
        # A state that the step returns as it is has the identity for its rows of A, and nothing reaches it: in h it
        # would only make A and J larger. Integers have no derivative.
        changing = [(v, w) for v, w in zip(before, after, strict=True) if v is not w and is_floating(dtype_of(v))]
        self.states: tuple[Var, ...] = tuple(v for v, _ in changing)
        self.new_states: tuple[Any, ...] = tuple(w for _, w in changing)

    @cached_property
    def size(self) -> int:
        """Elements of the state."""
        return sum(map(real_size, self.states))

    @cached_property
    def weights(self) -> int:
        """Elements of the entering variables."""
        return sum(map(real_size, self.variables))

    @property
    def variable_sizes(self) -> list[int]:
        """Real numbers of each entering variable."""
        return [real_size(var) for var in self.variables]

    @cached_property
    def state_names(self) -> list[str]:
        """The name of the state that each element of the flat state belongs to."""
        before = (*self.info.hidden_invars, *self.info.other_invars)
        names = {var: path_text(slot.path) for var, slot in zip(before, self.info.state_slots, strict=True)}
        return [names[var] for var in self.states for _ in range(real_size(var))]

    @cached_property
    def dtype(self) -> Any:
        """The real dtype that holds all states and variables, and sums in at least single precision."""
        dtypes = (dtype_of(var) for var in (*self.states, *self.variables))
        return jnp.zeros((), jnp.result_type(jnp.float32, *dtypes)).real.dtype

    def flat(self, values: Sequence[Any]) -> jax.Array:
        """One real vector of all values; of complex ones first the real parts, then the imaginary parts."""
        parts = []
        for value in map(jnp.asarray, values):
            # The step need not be holomorphic: as two real numbers, a change of each part has an effect of its own,
            # which one complex number of A could not hold.
            both = (value.real, value.imag) if is_complex(value.dtype) else (value,)
            parts += [part.reshape(-1).astype(self.dtype) for part in both]
        return jnp.concatenate(parts) if parts else jnp.zeros(0, self.dtype)

    def parts(self, variables: Sequence[Var], flat: jax.Array, *, gradient: bool = False) -> dict[Var, jax.Array]:
        """Values by variable from a flat vector, or a gradient in JAX's convention, dL/d(re) - i dL/d(im)."""
        by_variable, start = {}, 0
        for var in variables:
            end = start + real_size(var)
            part = flat[start:end]
            if is_complex(dtype_of(var)):
                real, imaginary = jnp.split(part, 2)
                part = real - 1j * imaginary if gradient else real + 1j * imaginary
            by_variable[var] = part.reshape(shape_of(var)).astype(dtype_of(var))
            start = end
        return by_variable

    def step(
        self, static: Environment, state: LearnerState, inputs: Sequence[Any], h: jax.Array, w: jax.Array
    ) -> tuple[jax.Array, list[Any], list[Any], list[Any]]:
        """New flat state, output leaves, new hidden leaves and new leaves of other states."""
        info, stages = self.info, stages_of(self.info)
        values = {**static, **dict(zip(info.input_invars, inputs, strict=True))}
        values.update(zip((*info.hidden_invars, *info.other_invars), [*state.hidden, *state.other], strict=True))
        # The state that is differentiated goes last: it replaces the leaves it was made of, integers stay as they are.
        values.update(self.parts(self.states, h))
        values.update(self.parts(self.variables, w))
        run_equations(stages.changing, values, bind_both_ways)
        outputs, hidden, other = stages.results(values)
        after = dict(zip((*info.hidden_invars, *info.other_invars), [*hidden, *other], strict=True))
        return self.flat([after[var] for var in self.states]), outputs, hidden, other

    def old(self, state: LearnerState) -> jax.Array:
        """The flat state."""
        before = dict(
            zip((*self.info.hidden_invars, *self.info.other_invars), [*state.hidden, *state.other], strict=True)
        )
        return self.flat([before[var] for var in self.states])


def real_size(var: Var) -> int:
    """Real numbers that a variable holds."""
    return size_of(var) * (2 if is_complex(dtype_of(var)) else 1)


def check_real(functions: StepFunctions, rule: str) -> None:
    """Raises :class:`RuleError` where states or parameters are complex."""
    if any(is_complex(dtype_of(var)) for var in (*functions.states, *functions.variables)):
        raise RuleError(f"{rule} works only with real states and parameters; use RTRL or D_RTRL for complex ones.")


FlatStep = Callable[[jax.Array, jax.Array], jax.Array]
"""New flat state from the old one and the weights."""


class StepwiseKernel(Kernel):
    """A rule whose memory takes one step at a time.

    Attributes:
        info: the program.
    """

    chunked = False

    @cached_property
    def functions(self) -> StepFunctions:
        return StepFunctions(self.info)

    @abc.abstractmethod
    def temporal(self, by_state: jax.Array, memory: Any) -> jax.Array:
        """The temporal part of the gradient, ``[weights]``, from dl_t / dh_{t-1} and the memory before the step."""

    @abc.abstractmethod
    def advanced(self, step: FlatStep, h: jax.Array, w: jax.Array, memory: Any) -> Any:
        """The memory after the step at h and w."""

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        functions = self.functions
        w = functions.flat([static[var] for var in functions.variables])

        def step(carry: tuple[LearnerState, jax.Array], data: Any) -> Any:
            state, total = carry
            inputs, target, weight = data

            def losses(h: jax.Array, w: jax.Array) -> Any:
                _, outputs, hidden, other = functions.step(static, state, inputs, h, w)
                output = jax.tree.unflatten(self.info.output_treedef, outputs)
                return weight * scalar_loss(loss, output, target), (outputs, hidden, other)

            h = functions.old(state)
            # One reverse pass over one step gives both parts: dl_t/dw with h_{t-1} held fixed, which is exact under
            # every rule, and dl_t/dh_{t-1}, which meets the memory.
            value, pull, (outputs, hidden, other) = jax.vjp(losses, h, w, has_aux=True)
            by_state, same_step = pull(jnp.ones_like(value))
            total = total + same_step + self.temporal(by_state, state.memory)
            # J_{t-1}, from before the step, is what dl_t/dh_{t-1} meets: the step's own I is in the same-step part
            # already.
            memory = self.advanced(lambda h, w: functions.step(static, state, inputs, h, w)[0], h, w, state.memory)
            return (LearnerState(hidden, other, memory), total), (value, outputs)

        # Of every step only the loss and the outputs are recorded: no activations, however long the sequence is.
        carry = (state, jnp.zeros_like(w))
        (state, total), (losses, outputs) = jax.lax.scan(step, carry, (chunk.inputs, chunk.targets, chunk.weights))
        return ChunkResult(functions.parts(functions.variables, total, gradient=True), losses, outputs, state)
