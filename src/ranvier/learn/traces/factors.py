"""Traces kept as a product of a presynaptic and a postsynaptic factor: memory of the size of the states.

``e_t ~ eps_f (x) eps_x`` with ``eps_x <- decay eps_x + x`` and, by component, ``eps_f <- decay D eps_f + (1 - decay)
f``. Without a postsynaptic trace, its place is taken by the cotangent dl_t / dy_t of the projection's result itself.

Over a chunk the sum of ``c_t (x) eps_x,t`` is that of ``C_t (x) x_t`` with ``C_t = c_t + decay C_{t+1}``, and what the
trace before the chunk adds: one product for all the cotangents that a projection has. This is done where products are
dear, for sparse rows; matrices are faster with a product for each.

For example, a decay of 0.5, D = 0.8, f = 1 and x = 2, then 3, from nothing: eps_x is 2, then 0.5 * 2 + 3 = 4; eps_f is
0.5, then 0.5 * 0.8 * 0.5 + 0.5 = 0.7. The second trace is 0.7 * 4 = 2.8, where the full one is 0.8 * 2 + 3 = 4.6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import Any

import jax
import jax.numpy as jnp

from ...program._jax import Var, dtype_of, size_of
from ...program.analysis.binding_time import BindingTime
from ...program.interpret import Environment
from ...program.program import ModuleInfo, shape_text
from ..carried import Traces
from ..kernel import Chunk, ChunkResult, Kernel, Loss
from ..linearization.dynamics import Components, Entries, TraceDynamics
from ..linearization.same_step import SameStep, SameStepPass, bypassing_states
from ..state import LearnerState
from ..step.cache_blocks import reversed_scan
from ..step.stages import over_steps, stages_of
from ..uses.bilinear import Sparse
from ..uses.traced_uses import TracedUse
from .traces import Trace

Memory = dict[str, Any]


@dataclass(frozen=True, eq=False)
class FactorKernel(Kernel):
    """Factorized traces for some uses of parameters; all other uses have only their same-step gradient.

    Attributes:
        info: the program.
        traces: one for every use and group.
        decays: the decay of every trace.
        postsynaptic: whether there are postsynaptic traces.
    """

    info: ModuleInfo
    traces: tuple[Trace, ...]
    decays: tuple[float, ...]
    postsynaptic: bool
    in_cache = True

    @cached_property
    def uses(self) -> tuple[TracedUse, ...]:
        return tuple(dict.fromkeys(trace.use for trace in self.traces))

    @cached_property
    def _same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.uses)

    @cached_property
    def _pre(self) -> tuple[tuple[TracedUse, float], ...]:
        """The presynaptic traces: use and decay."""
        return tuple(dict.fromkeys((trace.use, a) for trace, a in zip(self.traces, self.decays, strict=True)))

    @cached_property
    def _post(self) -> tuple[PostsynapticTrace, ...]:
        """The postsynaptic traces; uses with the same f and the same decay share one."""
        pairs = zip(self.traces, self.decays, strict=True) if self.postsynaptic else ()
        return tuple(dict.fromkeys(PostsynapticTrace.of(trace, a) for trace, a in pairs))

    def init(self, static: Environment) -> Memory:
        avals = [use.form.presynaptic_aval for use, _ in self._pre]
        x = [jnp.zeros(aval.shape, aval.dtype) for aval in avals]
        return {"x": x, "f": self._no_f()}

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        rows = []
        for trace, decay in zip(self.traces, self.decays, strict=True):
            text = f"{trace.form.name}; presynaptic {shape_text(trace.form.presynaptic_aval.shape)}, decay {decay:.4g}"
            if self.postsynaptic:
                post, names = PostsynapticTrace.of(trace, decay), trace.dynamics.names
                parts = [f"{shape_text(post.shape(a))} for {names[a]}" for a in trace.components]
                text += f"; postsynaptic {', '.join(parts)}"
            rows.append((trace.use.slots, text))
        return rows

    def carries(self) -> Traces:
        return Traces(self.traces)

    def only(self, parameters: frozenset[int]) -> FactorKernel:
        wanted = [bool(parameters & set(trace.use.slots)) for trace in self.traces]
        traces, decays = (tuple(compress(all_of, wanted)) for all_of in (self.traces, self.decays))
        return replace(self, traces=traces, decays=decays)

    def approximations(self) -> list[str]:
        if all(self._is_exact(trace, decay) for trace, decay in zip(self.traces, self.decays, strict=True)):
            return []
        return ["approximation: a trace is kept as one product of a presynaptic and a postsynaptic factor"]

    def _is_exact(self, trace: Trace, decay: float) -> bool:
        """Whether the product of both factors is the trace itself, and the loss feels it as it feels y."""
        reached, entries = set(trace.components), trace.dynamics.entries
        # With a decay of 0 both factors are those of this step. Their product is the trace where D carries nothing on.
        felt = {key: fact for key, fact in entries.items() if key[1] in reached}
        if self.postsynaptic:
            return decay == 0 and not felt
        steady = all(fact.binding_time is not BindingTime.DYNAMIC for fact in trace.lanes.connection.facts.values())
        # One constant decay for every component that y reaches, and nothing between them: then e = f (x) eps_x.
        alike = all(a == b and fact.value == decay for (a, b), fact in felt.items()) and (decay == 0 or len(felt) > 0)
        direct = reached == set(trace.dynamics.uniform_f(trace.lanes)) and {a for a, _ in felt} in (reached, set())
        group, old = trace.lanes.connection.group, bypassing_states(self.info)
        # R_t meets the trace of the step before; dl_t/dy_t knows of y_t only, so such a path is lost.
        bypassed = any(group.hidden_invars[group.positions.components[a].state] in old for a in reached)
        return trace.use.is_direct and steady and alike and direct and not bypassed

    def step_bytes(self) -> int:
        """Activations, both kinds of traces with what they are made of, and cotangents, about."""
        x = sum(use.form.presynaptic_aval.size * use.form.presynaptic_aval.dtype.itemsize for use, _ in self._pre)
        y = sum(size_of(use.y) * dtype_of(use.y).itemsize for use in self.uses)
        f = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(self._no_f)))
        return super().step_bytes() + 2 * (x + f) + y

    def _no_f(self) -> list[Components]:
        return [post.zeros() for post in self._post]

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        stages = stages_of(self.info)
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        # Elementwise values of all steps, computed again at once: that is cheaper than recording them in the loop.
        at_steps = stages.replay(static, recorded)
        same = self._same_step(loss, static, at_steps, chunk.targets, chunk.weights)
        # What the loop below needs of every step, so that it only scales and adds.
        x, d, f = over_steps(lambda values: self._linearized({**static, **values}), at_steps)
        after, (eps_x, eps_f) = jax.lax.scan(self._advance, state.memory, (x, d, f), chunk.length)
        gradients = self._beside_the_uses(same)
        for use in self.uses:
            signals = self._signals(use, same, f, state.memory["f"], eps_f)
            numbers = self._numbers(use)
            x_t = x[next(iter(numbers.values()))]
            before = {a: state.memory["x"][n] for a, n in numbers.items()}
            # A product over synapses picks elements one by one and is dear, so all cotangents are made one first. For
            # matrices, another product costs less than that backward loop.
            if isinstance(use.form, Sparse):
                pairs = [signals.pair(x_t, before)]
            else:
                pairs = signals.pairs(x_t, before, {a: eps_x[n] for a, n in numbers.items()})
            gradients[use.operand] += sum(use.form.pull(*pair) for pair in pairs)
        return ChunkResult(gradients, same.losses, jax.tree.leaves(same.outputs), LearnerState(hidden, other, after))

    def _beside_the_uses(self, same: SameStep) -> dict[Var, jax.Array]:
        """The same-step gradients of all uses without a trace; of a direct elementwise use, the trace has all."""
        by_trace = {use.operand for use in self.uses if use.is_direct and not use.equations}
        return {var: jnp.zeros_like(g) if var in by_trace else g for var, g in same.entering.items()}

    def _linearized(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        """X of every presynaptic trace; D and f of every postsynaptic one."""
        x = [use.form.presynaptic(values) for use, _ in self._pre]
        return x, [post.d(values) for post in self._post], [post.f(values) for post in self._post]

    def _advance(self, memory: Memory, at_step: Any) -> tuple[Memory, Any]:
        x, d, f = at_step
        new_x = [a * old + new for (_, a), old, new in zip(self._pre, memory["x"], x, strict=True)]
        new_f = [post.advanced(*parts) for post, *parts in zip(self._post, memory["f"], d, f, strict=True)]
        # Sparse uses are multiplied with x itself; recorded, their traces would be one more array of K steps.
        recorded = [None if isinstance(t.form, Sparse) else x for (t, _), x in zip(self._pre, new_x, strict=True)]
        return {"x": new_x, "f": new_f}, (recorded, new_f)

    def _signals(
        self, use: TracedUse, same: SameStep, f: Sequence[Components], f_before: Sequence[Components], eps_f: Any
    ) -> Signals:
        """The cotangents of y: L on the traces of a step, R on those of the step before."""
        signals = Signals()
        if not self.postsynaptic:
            # All traces of a use have one decay here: dl_t/dy_t is one cotangent, whichever group it came through.
            ((_, decay), *_) = self._of(use)
            signals.add(decay, same.results[use.y])
            # The gradient of an elementwise parameter is among the same-step ones already; the trace has x_t in it once
            # more.
            if not (use.equations or use.is_direct):
                signals.direct.append(-same.results[use.y])
            return signals
        by_trace = []
        for trace, decay in self._of(use):
            post = PostsynapticTrace.of(trace, decay)
            n = self._post.index(post)
            signal, bypass = trace.dynamics.signal(same), trace.dynamics.bypass(same)
            signals.add(decay, post.cotangent(trace, eps_f[n], signal))
            # L_t . f_t, what the step itself does through the group: the trace has it, smoothed.
            by_trace.append(post.cotangent(trace, f[n], signal))
            # R_t is felt by the old state, so it meets both factors as they were before the step.
            if felt := [a for a in eps_f[n] if a in bypass]:
                old_f = {a: _shifted(f_before[n][a], eps_f[n][a]) for a in felt}
                signals.add_earlier(decay, post.cotangent(trace, old_f, bypass))
        if not use.is_direct:
            signals.direct.append(self._beside_the_traces(use, same, by_trace))
        return signals

    def _numbers(self, use: TracedUse) -> dict[float, int]:
        """By decay, the numbers of a use's presynaptic traces."""
        return {a: n for n, (t, a) in enumerate(self._pre) if t is use}

    def _of(self, use: TracedUse) -> list[tuple[Trace, float]]:
        return [(trace, a) for trace, a in zip(self.traces, self.decays, strict=True) if trace.use is use]

    def _beside_the_traces(self, use: TracedUse, same: SameStep, direct: Sequence[jax.Array]) -> jax.Array:
        """The cotangent of y on the paths of the same step that no trace holds."""
        # dl_t/dy_t less its part through the groups, or that part would count twice: here, and by L_t . eps_f.
        through_groups = sum(direct[1:], direct[0])
        return same.results[use.y] - through_groups if use.equations else -through_groups


@dataclass(frozen=True)
class Signals:
    """Cotangents of a projection's result y at the steps of a chunk, ``[K, *y]``.

    Attributes:
        of_trace: by decay, those that meet the presynaptic trace of their step.
        of_earlier: by decay, those that meet the presynaptic trace of the step before.
        direct: those that meet x itself.
    """

    of_trace: dict[float, jax.Array] = field(default_factory=dict)
    of_earlier: dict[float, jax.Array] = field(default_factory=dict)
    direct: list[jax.Array] = field(default_factory=list)

    def add(self, decay: float, c: jax.Array) -> None:
        self.of_trace[decay] = self.of_trace[decay] + c if decay in self.of_trace else c

    def add_earlier(self, decay: float, c: jax.Array) -> None:
        self.of_earlier[decay] = self.of_earlier[decay] + c if decay in self.of_earlier else c

    def pairs(
        self, x: jax.Array, before: Mapping[float, jax.Array], eps_x: Mapping[float, jax.Array]
    ) -> list[tuple[jax.Array, jax.Array]]:
        """What is multiplied for the gradient: X and the cotangent of y, ``[K, ...]``.

        Args:
            x: X at all steps.
            before: the presynaptic traces before the chunk, by decay.
            eps_x: these traces at all steps.
        """
        pairs = [(eps_x[a], c) for a, c in self.of_trace.items()]
        pairs += [(_shifted(before[a], eps_x[a]), c) for a, c in self.of_earlier.items()]
        return [*pairs, *((x, c) for c in self.direct)]

    def pair(self, x: jax.Array, before: Mapping[float, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The same as one pair, with a row for every trace before the chunk."""
        smoothed = {a: self.smoothed(a) for a in self.of_trace}
        at_steps = [*(c for c, _ in smoothed.values()), *self.direct]
        # The trace before the chunk is one more row of X, so that it needs no product of its own.
        rows = [(before[a][None], first[None]) for a, (_, first) in smoothed.items()]
        rows.append((x, sum(at_steps[1:], at_steps[0])))
        rows_x, rows_c = zip(*rows, strict=True)
        return jnp.concatenate(rows_x), jnp.concatenate(rows_c)

    def smoothed(self, decay: float) -> tuple[jax.Array, jax.Array]:
        """C at all steps, ``[K, *y]``, and the cotangent ``[*y]`` of the trace before the chunk."""
        c, late = self.of_trace[decay], self.of_earlier.get(decay)
        if late is not None:
            # R of the next step meets the trace of this one. R of the first step meets the trace before the chunk.
            c = c + jnp.concatenate([late[1:], jnp.zeros_like(late[:1])])

        def back(after: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = now + decay * after
            return total, total

        first, at_steps = reversed_scan(back, jnp.zeros_like(c[0]), c, c.shape[0])
        return at_steps, decay * first if late is None else decay * first + late[0]


@dataclass(frozen=True)
class PostsynapticTrace:
    """``eps_f`` of the traces that share it.

    Attributes:
        dynamics: what carries it.
        decay: the decay of the smoothing.
        constant: f by component where it is one constant; then the trace is kept by position.
        uniform: the components for which it is then one number for all positions.
        trace: the only trace it is for where f is no constant; then it is kept by lane.
    """

    dynamics: TraceDynamics
    decay: float
    constant: tuple[tuple[int, float], ...] | None
    uniform: frozenset[int]
    trace: Trace | None

    @classmethod
    def of(cls, trace: Trace, decay: float) -> PostsynapticTrace:
        # With f one constant, eps_f is the same for every projection into the group: one is kept by position, and
        # shared.
        known = trace.dynamics.constant_f(trace.lanes)
        if known is None:
            return cls(trace.dynamics, decay, None, frozenset(), trace)
        return cls(trace.dynamics, decay, tuple(sorted(known.items())), trace.factorized, None)

    def shape(self, a: int) -> tuple[int, ...]:
        """Shape of what is kept for a component."""
        if self.trace is None:
            return (1 if a in self.uniform else self.dynamics.positions,)
        return (self.trace.lanes.layers, *self.trace.form.y_shape)

    @property
    def _components(self) -> tuple[int, ...]:
        if self.trace is None:
            return self.dynamics.reached_from(dict(self.constant or ()))
        return self.trace.components

    def zeros(self) -> Components:
        return {a: jnp.zeros(self.shape(a), self.dynamics.dtype) for a in self._components}

    def d(self, values: Environment) -> Entries:
        d = self.dynamics.d(values)
        return d if self.trace is None else self.trace.by_lane_from_positions(d)

    def f(self, values: Environment) -> Components:
        if self.trace is None:
            return {a: jnp.full(1, value, self.dynamics.dtype) for a, value in self.constant or ()}
        return self.trace.by_lane(self.dynamics.f(self.trace.lanes, values))

    def advanced(self, old: Components, d: Entries, f: Components) -> Components:
        """``eps_f <- decay D eps_f + (1 - decay) f``."""
        factors = {}
        for a in old:
            parts = [self.decay * d[a, b] * old[b] for b in old if (a, b) in d]
            parts += [(1 - self.decay) * f[a]] if a in f else []
            total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(old[a])
            factors[a] = jnp.broadcast_to(total, self.shape(a))
        return factors

    def cotangent(self, trace: Trace, factor: Components, signal: Components) -> jax.Array:
        """The cotangent of y, ``[K, *y]``, from eps_f or f and a signal by position."""
        if self.trace is not None:
            return trace.cotangent(factor, signal)
        parts = [factor[a] * signal[a] for a in factor if a in signal]
        total = trace.lanes.from_positions(sum(parts[1:], parts[0])).sum(1)
        return jnp.broadcast_to(total, (total.shape[0], *trace.form.y_shape))


def _shifted(before: jax.Array, at_steps: jax.Array) -> jax.Array:
    """Values one step earlier."""
    return jnp.concatenate([before[None], at_steps[:-1]])
