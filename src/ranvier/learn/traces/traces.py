"""D-RTRL's machinery: eligibility traces with any dynamics by position, in chunks, without approximation.

See section 3 of the design. The loop over a chunk's steps holds elementwise work alone; all products run over the whole
chunk at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from ...program.interpret import Environment
from ...program.program import ModuleInfo, shape_text
from ...program.while_loops import bind_both_ways
from ..carried import Traces
from ..kernel import Chunk, ChunkResult, Kernel, Loss, added, no_gradients
from ..linearization.dynamics import Components, Entries, TraceDynamics
from ..linearization.group_dynamics import GroupDynamics
from ..linearization.same_step import SameStep, SameStepPass, bypassing_states
from ..state import LearnerState
from ..step.blocks import backward, block_length, reversed_scan
from ..step.stages import over_steps, stages_of
from ..uses.alignment import Alignment
from ..uses.bilinear import BilinearMap, Zeros, stacked, weighted
from ..uses.traced_uses import TracedUse, entering_variables, traced_uses_of
from .feedback import Feedback


@dataclass(frozen=True, eq=False)
class Trace:
    """The trace of one term in one group.

    Attributes:
        term: the projection's operand.
        lanes: the way from the projection's result into the group.
        dynamics: the group's dynamics.
    """

    term: TracedUse
    lanes: Alignment
    dynamics: TraceDynamics

    @property
    def form(self) -> BilinearMap:
        return self.term.form

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
    def factorised(self) -> frozenset[int]:
        """Components for which a presynaptic trace, of the size of X, holds everything."""
        return self.dynamics.factorised(self.lanes)

    def by_lane(self, f: Components) -> Components:
        """f in layers of lanes."""
        return {a: self.lanes.from_lanes(value) for a, value in f.items()}

    def by_lane_from_positions(self, d: Entries) -> Entries:
        """D at the lanes' positions."""
        return {key: self.lanes.from_positions(value) for key, value in d.items()}

    def kept(self) -> str:
        """What the trace keeps, for a person."""
        names = self.dynamics.names
        parts = []
        for a in self.kept_components:
            size = int(np.prod(self.shape(a), dtype=np.int64)) * self.dtype.itemsize
            how = "presynaptic trace (uniform decay)" if a in self.factorised else "full trace"
            parts.append(f"{names[a]}: {how} {shape_text(self.shape(a))}, {size_text(size)}")
        return "; ".join([self.form.name, *(parts or ["nothing: no later step reads it"])])

    def shape(self, a: int) -> tuple[int, ...]:
        """Shape of what is kept for a component."""
        return self.form.presynaptic_aval.shape if a in self.factorised else self.form.trace_shape(self.lanes.layers)

    def zeros(self) -> dict[int, jax.Array]:
        """No trace, by component."""
        return {a: jnp.zeros(self.shape(a), self.dtype) for a in self.kept_components}

    def cotangent(self, factor: Components, values: Components) -> jax.Array:
        """The cotangent of y, ``[K, *y]``, from factors by lane and values by position."""
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
            c = self._full(self.lanes.from_positions(b0[a]))
            if a in self.factorised:
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
            By component ``[K]`` where the trace is factorised, else ``[K, L, *y]`` or what broadcasts to it.
        """
        found = {}
        for a in self.kept_components:
            parts = [self._carried(a, f[b], p[a, b]) for b in f if (a, b) in p]
            if parts:
                found[a] = sum(parts[1:], parts[0])
        return found

    def _carried(self, a: int, f: jax.Array, p: jax.Array) -> jax.Array:
        if a in self.factorised:
            return (f * p)[:, 0]
        return self.lanes.from_lanes(f) * self.lanes.from_positions(p)

    def advanced(
        self, memory: dict[int, jax.Array] | None, x: jax.Array, carried: Components, p0: Entries
    ) -> dict[int, jax.Array]:
        """The trace after the chunk; ``memory`` is None where it was zero before."""
        found = {a: self._advanced(a, memory, x, carried.get(a), p0) for a in self.kept_components}
        return {a: value.astype(self.dtype) for a, value in found.items()}

    def _advanced(
        self, a: int, memory: dict[int, jax.Array] | None, x: jax.Array, carried: jax.Array | None, p0: Entries
    ) -> jax.Array:
        old = {} if memory is None else {b: memory[b] for b in self.kept_components if (a, b) in p0}
        if a in self.factorised:
            found = [p0[a, b].reshape(()) * value for b, value in old.items()]
            found += [] if carried is None else [weighted(carried, x)]
            return sum(found[1:], found[0])
        rows_x, rows_u = ([], []) if carried is None else ([x], [self._full(carried)])
        kept = []
        for b, value in old.items():
            if b in self.factorised:
                rows_x.append(value[None])
                rows_u.append(self._full(self.lanes.from_positions(p0[a, b]))[None])
            elif p0[a, b].shape[-1] == 1:
                kept.append(p0[a, b] * value)
            else:
                kept.append(self.form.spread(self._full(self.lanes.from_positions(p0[a, b]))) * value)
        if rows_x:
            kept.append(self.form.outer(stacked(rows_x), stacked(rows_u)))
        return sum(kept[1:], kept[0])

    def _full(self, u: jax.Array) -> jax.Array:
        """Values by lane at their full shape."""
        shape = (self.lanes.layers, *self.form.y_shape)
        return jnp.broadcast_to(u, (*u.shape[: u.ndim - len(shape)], *shape))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """What D-RTRL's machinery keeps.

    Attributes:
        traces: for every trace its arrays by component.
        feedback: feedback weights, if any.
    """

    traces: list[dict[int, jax.Array]]
    feedback: list[jax.Array]


@dataclass(frozen=True, eq=False)
class TraceKernel(Kernel):
    """Traces for the terms given; all other uses of parameters have their same-step gradient alone.

    Attributes:
        info: the program.
        traces: one for every term and group.
        feedback: feedback weights, where the way back is not the readout's own.
        replaces_same_step: whether L replaces the same-step gradient of the terms, for rules whose L is no gradient.
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
    def terms(self) -> tuple[TracedUse, ...]:
        return tuple(dict.fromkeys(trace.term for trace in self.traces))

    @cached_property
    def dynamics(self) -> tuple[TraceDynamics, ...]:
        return tuple(dict.fromkeys(trace.dynamics for trace in self.traces))

    @cached_property
    def same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.terms)

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
        return [(trace.term.slots, trace.kept()) for trace in self.traces]

    def carries(self) -> Traces:
        return Traces(self.traces, self.readouts)

    def only(self, parameters: frozenset[int]) -> TraceKernel:
        # Feedback weights that adapt follow the gradients of the readout, so what these need stays.
        if self.feedback and self.feedback.rate:
            return self
        return replace(self, traces=tuple(t for t in self.traces if parameters & set(t.term.slots)))

    def approximations(self) -> list[str]:
        remarks = list(self.remarks)
        if self.feedback:
            remarks.append("approximation: learning signals come through feedback weights of their own")
        if self.replaces_same_step and self.traces:
            remarks.append("approximation: the learning signal is one number, the same for all neurons")
        own = {type(d).__name__ for d in self.dynamics if not isinstance(d, GroupDynamics)}
        if own and not self.replaces_same_step:
            remarks.append(f"approximation: D, f and the learning signal are those of {', '.join(sorted(own))}")
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
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        apply = self.feedback.apply(state.memory.feedback) if self.feedback else bind_both_ways

        def block(future: _Future, given: Any) -> tuple[_Future, _Found]:
            values, targets, weights = given
            at_steps = stages.replay(static, dict(zip(recorded, values, strict=True)))
            same = self.same_step(loss, static, at_steps, targets, weights, apply)
            return self._block(future, same, static, at_steps, keep)

        given = (list(recorded.values()), chunk.targets, chunk.weights)
        length = block_length(chunk.length, self._block_bytes())
        future, found = backward(block, self._end(keep), given, chunk.length, length)
        gradients, read = dict(zip(variables, future.gradients, strict=True)), []
        memory = None if fresh else state.memory.traces
        for trace, old in zip(self.traces, memory or (), strict=bool(memory)):
            if not old:
                continue
            part = trace.old_gradient(old, future.adjoints[self.dynamics.index(trace.dynamics)])
            gradients[trace.term.operand] += part
            read.append(part)
        after = self._advanced(memory, found, future.propagators, read) if keep else state.memory.traces
        weights = self.feedback.advanced(state.memory.feedback, gradients) if self.feedback else []
        state = LearnerState(hidden, other, Memory(after, weights))
        return ChunkResult(gradients, found.losses, found.outputs, state)

    def _end(self, keep: bool) -> _Future:
        """What the last block of a chunk starts from."""
        return _Future(
            adjoints=[dynamics.no_future() for dynamics in self.dynamics],
            propagators=[dynamics.identity() for dynamics in self.dynamics] if keep else [],
            gradients=no_gradients(entering_variables(self.info)),
        )

    def _block(
        self, future: _Future, same: SameStep, static: Environment, at_steps: Environment, keep: bool
    ) -> tuple[_Future, _Found]:
        """A block's part of the gradient; what later blocks did is in ``future``."""
        length = same.losses.shape[0]
        presynaptic, d, f = over_steps(lambda values: self._linearised({**static, **values}), at_steps)
        signals = [(dynamics.signal(same), dynamics.bypass(same)) for dynamics in self.dynamics]
        start = (future.adjoints, future.propagators)
        (first, before), (adjoints, propagators) = reversed_scan(self._back, start, (d, signals), length)
        gradients = dict(same.entering)
        for term, x in zip(self.terms, presynaptic, strict=True):
            gradients[term.operand] += term.form.pull(x, self._cotangent(term, same, f, adjoints))
        totals = added(future.gradients, gradients, entering_variables(self.info))
        found = _Found(same.losses, jax.tree.leaves(same.outputs))
        if keep:
            pairs = zip(self.traces, f, strict=True)
            carried = [trace.carried(f_t, propagators[self.dynamics.index(trace.dynamics)]) for trace, f_t in pairs]
            found = replace(found, presynaptic=presynaptic, carried=carried)
        return _Future(first, before, totals), found

    def _back(self, after: Any, given: Any) -> tuple[Any, Any]:
        """Adjoints and propagators before a step from those after it."""
        (adjoints, propagators), (d, signals) = after, given
        by_dynamics = zip(self.dynamics, adjoints, d, signals, strict=True)
        new = [dynamics.adjoint(b, d_s, *both) for dynamics, b, d_s, both in by_dynamics]
        kept = zip(self.dynamics, propagators, d, strict=True) if propagators else ()
        return (new, [dynamics.propagator(p, d_s) for dynamics, p, d_s in kept]), after

    def _linearised(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        presynaptic = [term.form.presynaptic(values) for term in self.terms]
        d = [dynamics.d(values) for dynamics in self.dynamics]
        f = [trace.dynamics.f(trace.lanes, values) for trace in self.traces]
        return presynaptic, d, f

    def _cotangent(
        self, term: TracedUse, same: SameStep, f: Sequence[Components], adjoints: Sequence[Components]
    ) -> jax.Array:
        """The cotangent of y, ``[K, *y]``: of the same step, and of the future through the traces' dynamics."""
        parts = [same.results[term.y]] if term.equations else []
        if self.replaces_same_step:
            parts = [] if term.equations else [-same.results[term.y]]
        for trace, f_t in zip(self.traces, f, strict=True):
            if trace.term is term:
                by_lane = trace.by_lane(f_t)
                parts.append(trace.cotangent(by_lane, adjoints[self.dynamics.index(trace.dynamics)]))
                if self.replaces_same_step:
                    parts.append(trace.cotangent(by_lane, trace.dynamics.signal(same)))
        return sum(parts[1:], parts[0])

    def _advanced(
        self,
        memory: list[dict[int, jax.Array]] | None,
        found: _Found,
        propagators: Sequence[Entries],
        read: Sequence[jax.Array],
    ) -> list[dict[int, jax.Array]]:
        propagators = [ordered_after(p0, read) for p0 in propagators]
        return [
            trace.advanced(
                None if memory is None else memory[k],
                found.presynaptic[self.terms.index(trace.term)],
                found.carried[k],
                propagators[self.dynamics.index(trace.dynamics)],
            )
            for k, trace in enumerate(self.traces)
        ]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Future:
    """What the steps after a block tell the block, and their part of the gradients.

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
class _Found:
    """What a block gives for each of its steps.

    Attributes:
        losses: times the weights.
        outputs: output leaves.
        presynaptic: X of every term, where traces are kept.
        carried: what every trace is given, as factors of X.
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
    token = sum(first[1:], first[0])
    return {key: jnp.where(token == token, value, token.astype(value.dtype)) for key, value in values.items()}


def dynamics_bytes(found: Sequence[TraceDynamics]) -> int:
    """D, L, adjoints and propagators of one step, about."""
    itemsize, total = jnp.zeros(0).dtype.itemsize, 0
    for dynamics in found:
        wide = sum(dynamics.width(key) > 1 for key in dynamics.entries)
        pairs = sum(dynamics.pair_width(pair) > 1 for pair in dynamics.pairs)
        total += dynamics.positions * (wide + pairs + 2 * len(dynamics.components)) * itemsize
    return total


def check_holomorphic(path: Slice) -> None:
    """Raises :class:`RuleError` where a complex value has no complex derivative on its way to a state.

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
                f"[{source_line(eqn)}]; keep real and imaginary part as two real states, or use RTRL or BPTT."
            )
        moving.update(eqn.outvars)


@cached_by_program
def traces_of(info: ModuleInfo) -> tuple[Trace, ...]:
    """D-RTRL's traces of a program: one for every term and every group that it reaches.

    Raises:
        RuleError: D of a group is not known by position.
    """
    terms = traced_uses_of(info)
    by_group: dict[HiddenGroup, list[Connection]] = {}
    for term in terms:
        for connection in term.connections:
            by_group.setdefault(connection.group, []).append(connection)
    for group, found in by_group.items():
        for path in (group.transition.path, *(connection.path for connection in found)):
            check_holomorphic(path)
    try:
        dynamics = {group: GroupDynamics.of(group, found, bypassing_states(info)) for group, found in by_group.items()}
        for found in dynamics.values():
            jax.eval_shape(lambda found=found: found.d(Zeros()))
    except AnalysisError as error:
        raise RuleError(f"eligibility traces need D by position. {error}") from error
    return tuple(Trace(term, lanes, dynamics[lanes.connection.group]) for term in terms for lanes in term.lanes)
