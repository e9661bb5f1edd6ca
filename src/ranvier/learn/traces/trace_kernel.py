"""D-RTRL's machinery: eligibility traces with any dynamics by position, in chunks, without approximation.

See section 3 of the design. The loop over a chunk's steps does elementwise work only; all products run over the whole
chunk at once. For example, ``v' = 0.5 v + w x`` with the loss v at both steps of a chunk, x = (2, 3), and a trace of
4 from the steps before. Step by step the trace is 0.5 * 4 + 2 = 4, then 0.5 * 4 + 3 = 5, and the gradient 4 + 5 = 9.
Here:

    same step   1 * 2 + 1 * 3 = 5                       of the losses by w with the old v fixed
    adjoints    a_2 = 1;  a_1 = 1 + 0.5 * 1 = 1.5       backward, elementwise
    future      (1.5 - 1) * 2 + (1 - 1) * 3 = 1         what steps of the chunk do to later ones of it; a - L, because
                                                        L itself is the same step's, which is counted already
    old trace   0.5 * 1.5 * 4 = 3                       the only reading of the trace; in all 5 + 1 + 3 = 9
    new trace   0.25 * 4 + 0.5 * 2 + 1 * 3 = 5          propagators 0.5^2, 0.5, 1 from each step to the chunk's end

A chunk is gone through backward in blocks, so that what is linearized at once fits the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ...program._jax import Var
from ...program.interpret import Environment
from ...program.program import ModuleInfo
from ...program.while_loops import bind_both_ways
from ..carried import Traces
from ..kernel import Chunk, ChunkResult, Kernel, Loss, added, no_gradients
from ..linearization.dynamics import Components, Entries, TraceDynamics
from ..linearization.group_dynamics import GroupDynamics
from ..linearization.same_step import SameStep, SameStepPass
from ..state import LearnerState
from ..step.cache_blocks import backward, block_length, reversed_scan
from ..step.stages import over_steps, stages_of
from ..uses.traced_uses import TracedUse, entering_variables
from .feedback import Feedback
from .traces import Trace


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """The memory of D-RTRL's machinery.

    Attributes:
        traces: for every trace its arrays by component.
        feedback: feedback weights, if any.
    """

    traces: list[dict[int, jax.Array]]
    feedback: list[jax.Array]


@dataclass(frozen=True, eq=False)
class TraceKernel(Kernel):
    """Traces for some uses of parameters; all other uses have only their same-step gradient.

    Attributes:
        info: the program.
        traces: one for every use and group.
        feedback: feedback weights, where the errors do not go back through the readout's own.
        replaces_same_step: whether L replaces the same-step gradient of the uses, for rules whose L is no gradient.
        readouts: ``id`` of the equations of readouts whose memory a filter stands for.
        remarks: where else a number is no derivative, for the plan.
    """

    info: ModuleInfo
    traces: tuple[Trace, ...]
    feedback: Feedback | None = None
    replaces_same_step: bool = False
    readouts: frozenset[int] = frozenset()
    remarks: tuple[str, ...] = ()

    @cached_property
    def uses(self) -> tuple[TracedUse, ...]:
        return tuple(dict.fromkeys(trace.use for trace in self.traces))

    @cached_property
    def dynamics(self) -> tuple[TraceDynamics, ...]:
        return tuple(dict.fromkeys(trace.dynamics for trace in self.traces))

    @cached_property
    def same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.uses)

    def init(self, static: Environment) -> Memory:
        traces = [trace.zeros() for trace in self.traces]
        return Memory(traces, self.feedback.init(static) if self.feedback else [])

    @property
    def outlives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.feedback is not None

    def lasting(self, memory: Memory) -> list[jax.Array]:
        return memory.feedback

    def restarted(self, memory: Memory, lasting: list[jax.Array], seed: Any) -> Memory:
        return Memory(memory.traces, lasting)

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        return [(trace.use.slots, trace.memory_text()) for trace in self.traces]

    def carries(self) -> Traces:
        return Traces(self.traces, self.readouts)

    def only(self, parameters: frozenset[int]) -> TraceKernel:
        # Feedback weights that adapt follow the gradients of the readout, so what these need stays.
        if self.feedback and self.feedback.rate:
            return self
        return replace(self, traces=tuple(t for t in self.traces if parameters & set(t.use.slots)))

    def approximations(self) -> list[str]:
        remarks = list(self.remarks)
        if self.feedback:
            remarks.append("approximation: learning signals come through separate feedback weights")
        if self.replaces_same_step and self.traces:
            remarks.append("approximation: the learning signal is one number, the same for all neurons")
        others = {type(d).__name__ for d in self.dynamics if not isinstance(d, GroupDynamics)}
        if others and not self.replaces_same_step:
            remarks.append(f"approximation: D, f and the learning signal are those of {', '.join(sorted(others))}")
        return remarks

    def step_bytes(self) -> int:
        return super().step_bytes() + sum(trace.step_bytes() for trace in self.traces)

    def _block_bytes(self) -> int:
        """Values of one step within a block, about."""
        return self.step_bytes() + dynamics_bytes(self.dynamics)

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        stages, variables = stages_of(self.info), entering_variables(self.info)
        # Forward, with products of all steps at once where no state leads back to them.
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        apply = self.feedback.apply(state.memory.feedback) if self.feedback else bind_both_ways

        def block(future: _Future, data: Any) -> tuple[_Future, _AtSteps]:
            values, targets, weights = data
            at_steps = stages.replay(static, dict(zip(recorded, values, strict=True)))
            same = self.same_step(loss, static, at_steps, targets, weights, apply)
            return self._block(future, same, static, at_steps, keep)

        # Backward. Blocks do not change a number; they keep D, f, L and all else that is linearized within the cache.
        data = (list(recorded.values()), chunk.targets, chunk.weights)
        length = block_length(chunk.length, self._block_bytes())
        future, at_steps = backward(block, self._end(keep), data, chunk.length, length)
        gradients = dict(zip(variables, future.gradients, strict=True))
        # None rather than zeros: the program then has no product with the trace at all.
        memory = None if fresh else state.memory.traces
        read = self._add_old_traces(gradients, memory, future.adjoints)
        # Without ``keep``, at the end of a sequence, the largest product of the chunk is not needed: nobody reads the
        # trace.
        after = self._advanced(memory, at_steps, future.propagators, read) if keep else state.memory.traces
        weights = self.feedback.advanced(state.memory.feedback, gradients) if self.feedback else []
        state = LearnerState(hidden, other, Memory(after, weights))
        return ChunkResult(gradients, at_steps.losses, at_steps.outputs, state)

    def _add_old_traces(
        self, gradients: dict[Var, jax.Array], memory: list[dict[int, jax.Array]] | None, adjoints: list[Components]
    ) -> list[jax.Array]:
        """Adds what steps before the chunk contribute to the gradients; gives these parts."""
        parts = []
        for trace, old in zip(self.traces, memory or (), strict=bool(memory)):
            if not old:
                continue
            part = trace.old_gradient(old, adjoints[self.dynamics.index(trace.dynamics)])
            # (D_1^T a_1) . e_0: all that earlier chunks do to this one, however many steps there were.
            gradients[trace.use.operand] += part
            parts.append(part)
        return parts

    def _end(self, keep: bool) -> _Future:
        """What the last block of a chunk starts from."""
        return _Future(
            adjoints=[dynamics.no_future() for dynamics in self.dynamics],
            propagators=[dynamics.identity() for dynamics in self.dynamics] if keep else [],
            gradients=no_gradients(entering_variables(self.info)),
        )

    def _block(
        self, future: _Future, same: SameStep, static: Environment, at_steps: Environment, keep: bool
    ) -> tuple[_Future, _AtSteps]:
        """A block's part of the gradient; what later blocks did is in ``future``."""
        length = same.losses.shape[0]
        # X, D and f of all steps: one vectorized pass, since each depends on values of its own step only.
        presynaptic, d, f = over_steps(lambda values: self._linearized({**static, **values}), at_steps)
        signals = [(dynamics.signal(same), dynamics.bypass(same)) for dynamics in self.dynamics]
        start = (future.adjoints, future.propagators)
        # The only sequential part, b_{s-1} = D_s^T (L_s + b_s) + R_s and P_{s-1} = P_s D_s, is elementwise. A product
        # in it would be taken step by step, at the speed of the memory.
        (first, before), (adjoints, propagators) = reversed_scan(self._back, start, (d, signals), length)
        # The exact same-step gradients of all that no trace follows; then one product over the block for each use.
        gradients = dict(same.entering)
        for use, x in zip(self.uses, presynaptic, strict=True):
            gradients[use.operand] += use.form.pull(x, self._cotangent(use, same, f, adjoints))
        # In at least single precision: in bfloat16 a sum over many blocks stops growing.
        totals = added(future.gradients, gradients, entering_variables(self.info))
        block = _AtSteps(same.losses, jax.tree.leaves(same.outputs))
        if keep:
            pairs = zip(self.traces, f, strict=True)
            carried = [trace.carried(f_t, propagators[self.dynamics.index(trace.dynamics)]) for trace, f_t in pairs]
            block = replace(block, presynaptic=presynaptic, carried=carried)
        return _Future(first, before, totals), block

    def _back(self, after: Any, at_step: Any) -> tuple[Any, Any]:
        """Adjoints and propagators before a step from those after it."""
        (adjoints, propagators), (d, signals) = after, at_step
        by_dynamics = zip(self.dynamics, adjoints, d, signals, strict=True)
        new = [dynamics.adjoint(b, d_s, *both) for dynamics, b, d_s, both in by_dynamics]
        # The results are those *after* each step: b_s and P_s, which meet f_s.
        wanted = zip(self.dynamics, propagators, d, strict=True) if propagators else ()
        return (new, [dynamics.propagator(p, d_s) for dynamics, p, d_s in wanted]), after

    def _linearized(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        presynaptic = [use.form.presynaptic(values) for use in self.uses]
        d = [dynamics.d(values) for dynamics in self.dynamics]
        f = [trace.dynamics.f(trace.lanes, values) for trace in self.traces]
        return presynaptic, d, f

    def _cotangent(
        self, use: TracedUse, same: SameStep, f: Sequence[Components], adjoints: Sequence[Components]
    ) -> jax.Array:
        """The cotangent of y, ``[K, *y]``: of the same step, and of the future through the traces' dynamics."""
        # dl_s/dy_s of the step itself; for an elementwise parameter that is among the same-step gradients already. b_s
        # leaves L_s out, so that the two together are f_s^T a_s and no path is counted twice.
        parts = [same.results[use.y]] if use.equations else []
        if self.replaces_same_step:
            # M f takes the place of dl_s/dy_s, also where that was counted already.
            parts = [] if use.equations else [-same.results[use.y]]
        for trace, f_t in zip(self.traces, f, strict=True):
            if trace.use is use:
                by_lane = trace.by_lane(f_t)
                parts.append(trace.cotangent(by_lane, adjoints[self.dynamics.index(trace.dynamics)]))
                if self.replaces_same_step:
                    parts.append(trace.cotangent(by_lane, trace.dynamics.signal(same)))
        return sum(parts[1:], parts[0])

    def _advanced(
        self,
        memory: list[dict[int, jax.Array]] | None,
        at_steps: _AtSteps,
        propagators: Sequence[Entries],
        read: Sequence[jax.Array],
    ) -> list[dict[int, jax.Array]]:
        # e_K = P_0 e_0 + sum_s P_s f_s (x) x_s, in place of the old trace.
        propagators = [ordered_after(p0, read) for p0 in propagators]
        return [
            trace.advanced(
                None if memory is None else memory[k],
                at_steps.presynaptic[self.uses.index(trace.use)],
                at_steps.carried[k],
                propagators[self.dynamics.index(trace.dynamics)],
            )
            for k, trace in enumerate(self.traces)
        ]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Future:
    """What a block needs of the steps after it, and their part of the gradients.

    Attributes:
        adjoints: by dynamics, the adjoint at the block's last step.
        propagators: by dynamics, from there to the chunk's end; none where no trace is kept.
        gradients: by entering variable.
    """

    adjoints: list[Components]
    propagators: list[Entries]
    gradients: list[jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _AtSteps:
    """What a block, or a whole chunk, gives for each of its steps.

    Attributes:
        losses: times the weights.
        outputs: output leaves.
        presynaptic: X of every use, where traces are kept.
        carried: what each step adds to every trace, as factors of X.
    """

    losses: jax.Array
    outputs: list[jax.Array]
    presynaptic: list[jax.Array] = field(default_factory=list)
    carried: list[Components] = field(default_factory=list)


def ordered_after(values: Entries, read: Sequence[jax.Array]) -> Entries:
    """The values, which XLA cannot have before ``read`` is computed (and which are NaN if that is).

    What was computed from the old traces is then known to be finished when they are replaced, and XLA replaces them in
    place. Without this order it copies every trace at every step.
    """
    if not read:
        return values
    first = [part.reshape(-1)[0] for part in read]
    # A true dependence on the parts that were read: one XLA cannot simplify away, since NaN is not equal to itself.
    token = sum(first[1:], first[0])
    return {key: jnp.where(token == token, value, token.astype(value.dtype)) for key, value in values.items()}


def dynamics_bytes(all_dynamics: Sequence[TraceDynamics]) -> int:
    """D, L, adjoints and propagators of one step, about."""
    itemsize, total = jnp.zeros(0).dtype.itemsize, 0
    for dynamics in all_dynamics:
        wide = sum(dynamics.width(key) > 1 for key in dynamics.entries)
        pairs = sum(dynamics.pair_width(pair) > 1 for pair in dynamics.pairs)
        total += dynamics.positions * (wide + pairs + 2 * len(dynamics.components)) * itemsize
    return total
