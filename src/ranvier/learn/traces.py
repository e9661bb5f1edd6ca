"""D-RTRL's machinery: eligibility traces with any dynamics by position, in chunks, without approximation.

See section 3 of the design. The loop over a chunk's steps holds elementwise work alone; all products run over the whole
chunk at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..analyses.cache import cached_by_program
from ..analyses.hidden_groups import HiddenGroup
from ..analyses.memory import size_text
from ..analyses.relations import Connection
from ..analyses.slices import Slice
from ..errors import AnalysisError, RuleError
from ..ir._jax import Literal, bind, dtype_of, is_complex, source_line
from ..ir.interpret import Environment
from ..ir.nested import has_own_derivative
from ..ir.program import ModuleInfo, shape_text
from .feedback import Feedback
from .forms import Form, Zeros, stacked, weighted
from .group_dynamics import GroupDynamics
from .kernel import Chunk, ChunkResult, Kernel, Loss
from .lanes import Lanes
from .linear import Components, Dynamics, Entries
from .same_step import SameStep, SameStepPass
from .stages import over_steps, stages_of
from .state import LearnerState
from .terms import Term, terms_of


@dataclass(frozen=True, eq=False)
class Trace:
    """The trace of one term in one group.

    Attributes:
        term: the projection's operand.
        lanes: the way from the projection's result into the group.
        dynamics: the group's dynamics.
    """

    term: Term
    lanes: Lanes
    dynamics: Dynamics

    @property
    def form(self) -> Form:
        return self.term.form

    @cached_property
    def components(self) -> tuple[int, ...]:
        return self.dynamics.reached(self.lanes)

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
        for a in self.components:
            shape = (
                self.form.presynaptic_aval.shape if a in self.factorised else self.form.trace_shape(self.lanes.layers)
            )
            size = int(np.prod(shape, dtype=np.int64)) * self.form.presynaptic_aval.dtype.itemsize
            how = "presynaptic trace (uniform decay)" if a in self.factorised else "full trace"
            parts.append(f"{names[a]}: {how} {shape_text(shape)}, {size_text(size)}")
        return f"{self.form.name}; " + "; ".join(parts)

    def zeros(self, x: jax.ShapeDtypeStruct) -> dict[int, jax.Array]:
        """No trace, by component."""
        full = self.form.trace_shape(self.lanes.layers)
        return {a: jnp.zeros(x.shape if a in self.factorised else full, x.dtype) for a in self.components}

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

    def old_rows(self, memory: dict[int, jax.Array], b0: Components) -> list[tuple[jax.Array, jax.Array]]:
        """The factorised old traces as more rows (X, cotangent of y) of the weight gradient's product."""
        rows = []
        for a in sorted(self.factorised):
            cotangent = jnp.broadcast_to(self.lanes.from_positions(b0[a]), (self.lanes.layers, *self.form.y_shape))
            rows.append((memory[a][None], cotangent.sum(0)[None]))
        return rows

    def old_gradient(self, memory: dict[int, jax.Array], b0: Components) -> jax.Array | None:
        """What the full old traces add to the gradient."""
        parts = [
            self.form.contract(self._full(self.lanes.from_positions(b0[a])), memory[a])
            for a in self.components
            if a not in self.factorised
        ]
        return sum(parts[1:], parts[0]) if parts else None

    def advanced(
        self, memory: dict[int, jax.Array] | None, x: jax.Array, f: Components, p: Entries, p0: Entries
    ) -> dict[int, jax.Array]:
        """The trace after the chunk; ``memory`` is None where it was zero before."""
        return {a: self._advanced(a, memory, x, f, p, p0) for a in self.components}

    def _advanced(
        self, a: int, memory: dict[int, jax.Array] | None, x: jax.Array, f: Components, p: Entries, p0: Entries
    ) -> jax.Array:
        direct = [b for b in f if (a, b) in p]
        old = [] if memory is None else [b for b in self.components if (a, b) in p0]
        if a in self.factorised:
            found = [p0[a, b].reshape(()) * memory[b] for b in old] if memory is not None else []
            found += [weighted((f[b] * p[a, b]).reshape(-1), x) for b in direct]
            return sum(found[1:], found[0])
        parts = [self.lanes.from_lanes(f[b]) * self.lanes.from_positions(p[a, b]) for b in direct]
        u = sum(parts[1:], parts[0]) if parts else None
        rows_x, rows_u = ([], []) if u is None else ([x], [self._full(u)])
        kept = []
        for b in old:
            assert memory is not None
            if b in self.factorised:
                rows_x.append(memory[b][None])
                rows_u.append(self._full(self.lanes.from_positions(p0[a, b]))[None])
            elif p0[a, b].shape[-1] == 1:
                kept.append(p0[a, b] * memory[b])
            else:
                kept.append(self.form.spread(self._full(self.lanes.from_positions(p0[a, b]))) * memory[b])
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
    """

    info: ModuleInfo
    traces: tuple[Trace, ...]
    feedback: Feedback | None = None
    replaces_same_step: bool = False

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        return tuple(dict.fromkeys(trace.term for trace in self.traces))

    @cached_property
    def dynamics(self) -> tuple[Dynamics, ...]:
        return tuple(dict.fromkeys(trace.dynamics for trace in self.traces))

    @cached_property
    def same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.terms)

    def init(self, static: Environment) -> Memory:
        traces = [trace.zeros(trace.form.presynaptic_aval) for trace in self.traces]
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

    def step_bytes(self) -> int:
        return super().step_bytes() + sum(trace.step_bytes() for trace in self.traces) + dynamics_bytes(self.dynamics)

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        stages = stages_of(self.info)
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        apply = self.feedback.apply(state.memory.feedback) if self.feedback else bind
        same = self.same_step(loss, static, recorded, chunk.targets, chunk.weights, apply)
        presynaptic, d, f = over_steps(lambda given: self._linearised(stages.replay(static, given)), recorded)
        adjoints = [
            dynamics.adjoint(d_g, dynamics.signal(same), dynamics.bypass(same))
            for dynamics, d_g in zip(self.dynamics, d, strict=True)
        ]
        memory = None if fresh else state.memory.traces
        gradients, read = dict(same.entering), []
        for number, term in enumerate(self.terms):
            rows = [(presynaptic[number], self._cotangent(term, same, f, [b for b, _ in adjoints]))]
            for k, trace in enumerate(self.traces):
                if trace.term is term and memory is not None:
                    b0 = adjoints[self.dynamics.index(trace.dynamics)][1]
                    rows += trace.old_rows(memory[k], b0)
                    if (part := trace.old_gradient(memory[k], b0)) is not None:
                        gradients[term.operand] += part
                        read.append(part)
            xs, cs = zip(*rows, strict=True)
            gradients[term.operand] += term.form.pull(stacked(xs), stacked(cs))
        after = self._advanced(memory, presynaptic, d, f, chunk.length, read) if keep else state.memory.traces
        weights = self.feedback.advanced(state.memory.feedback, gradients) if self.feedback else []
        state = LearnerState(hidden, other, Memory(after, weights))
        return ChunkResult(gradients, same.losses, jax.tree.leaves(same.outputs), state)

    def _linearised(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        presynaptic = [term.form.presynaptic(values) for term in self.terms]
        d = [dynamics.d(values) for dynamics in self.dynamics]
        f = [trace.dynamics.f(trace.lanes, values) for trace in self.traces]
        return presynaptic, d, f

    def _cotangent(
        self, term: Term, same: SameStep, f: Sequence[Components], adjoints: Sequence[Components]
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
        presynaptic: Sequence[jax.Array],
        d: Sequence[Entries],
        f: Sequence[Components],
        length: int,
        read: Sequence[jax.Array],
    ) -> list[dict[int, jax.Array]]:
        propagators = [dynamics.propagators(d_g, length) for dynamics, d_g in zip(self.dynamics, d, strict=True)]
        propagators = [(p, ordered_after(p0, read)) for p, p0 in propagators]
        found = []
        for k, trace in enumerate(self.traces):
            p, p0 = propagators[self.dynamics.index(trace.dynamics)]
            x = presynaptic[self.terms.index(trace.term)]
            found.append(trace.advanced(None if memory is None else memory[k], x, f[k], p, p0))
        return found


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


def dynamics_bytes(found: Sequence[Dynamics]) -> int:
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
    terms = terms_of(info)
    by_group: dict[HiddenGroup, list[Connection]] = {}
    for term in terms:
        for connection in term.connections:
            by_group.setdefault(connection.group, []).append(connection)
    for group, found in by_group.items():
        for path in (group.transition.path, *(connection.path for connection in found)):
            check_holomorphic(path)
    try:
        dynamics = {group: GroupDynamics.of(group, found) for group, found in by_group.items()}
        for found in dynamics.values():
            jax.eval_shape(lambda found=found: found.d(Zeros()))
    except AnalysisError as error:
        raise RuleError(f"eligibility traces need D by position. {error}") from error
    return tuple(Trace(term, lanes, dynamics[lanes.connection.group]) for term in terms for lanes in term.lanes)
