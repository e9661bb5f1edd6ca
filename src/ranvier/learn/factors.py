"""Traces kept as a product of a presynaptic and a postsynaptic factor: memory of the size of the states.

``e_t ~ eps_f (x) eps_x`` with ``eps_x <- decay eps_x + x`` and, by component, ``eps_f <- decay D eps_f + (1 - decay)
f``. Without a postsynaptic trace, its place is taken by the cotangent dl_t / dy_t of the projection's result itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..ir.interpret import Environment
from ..ir.program import ModuleInfo, shape_text
from .forms import stacked
from .kernel import Chunk, ChunkResult, Kernel, Loss
from .linear import Components, Entries
from .same_step import SameStep, SameStepPass
from .stages import over_steps, stages_of
from .state import LearnerState
from .terms import Term
from .traces import Trace

Memory = dict[str, Any]


@dataclass(frozen=True, eq=False)
class FactorKernel(Kernel):
    """Factorised traces for the terms given; all other uses of parameters have their same-step gradient alone.

    Attributes:
        info: the program.
        traces: one for every term and group.
        decays: the decay of every trace.
        postsynaptic: whether there are postsynaptic traces.
    """

    info: ModuleInfo
    traces: tuple[Trace, ...]
    decays: tuple[float, ...]
    postsynaptic: bool

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        return tuple(dict.fromkeys(trace.term for trace in self.traces))

    @cached_property
    def _same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.terms)

    def init(self, static: Environment) -> Memory:
        x = [jnp.zeros(t.form.presynaptic_aval.shape, t.form.presynaptic_aval.dtype) for t in self.traces]
        return {"x": x, "f": [self._no_f(trace) for trace in self.traces] if self.postsynaptic else []}

    def _no_f(self, trace: Trace) -> Components:
        shape = (trace.lanes.layers, *trace.form.y_shape)
        return {a: jnp.zeros(shape, trace.form.presynaptic_aval.dtype) for a in trace.components}

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        found = []
        for trace, decay in zip(self.traces, self.decays, strict=True):
            text = f"{trace.form.name}; presynaptic {shape_text(trace.form.presynaptic_aval.shape)}, decay {decay:.4g}"
            if self.postsynaptic:
                names = ", ".join(trace.dynamics.names[a] for a in trace.components)
                text += f"; postsynaptic {shape_text(trace.form.y_shape)} for {names}"
            found.append((trace.term.slots, text))
        return found

    def left_out(self) -> list[str]:
        return ["approximation: a trace is kept as one product of a presynaptic and a postsynaptic factor"]

    def step_bytes(self) -> int:
        return super().step_bytes() + 2 * sum(trace.step_bytes() for trace in self.traces)

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        stages = stages_of(self.info)
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        same = self._same_step(loss, static, recorded, chunk.targets, chunk.weights)
        x, d, f = over_steps(lambda given: self._linearised(stages.replay(static, given)), recorded)
        after, factors = jax.lax.scan(self._advance, state.memory, (x, d, f))
        gradients = dict(same.entering)
        for term in self.terms:
            of_term = [k for k, trace in enumerate(self.traces) if trace.term is term]
            if self.postsynaptic:
                rows = [(x[of_term[0]], self._beside_the_traces(term, of_term, same, f))]
                for k in of_term:
                    rows += self._rows(self.traces[k], same, factors["x"][k], factors["f"][k], state.memory, k)
            else:
                eps_x, (first, *_) = factors["x"], of_term
                rows = [(eps_x[first] if term.equations else eps_x[first] - x[first], same.results[term.y])]
            xs, cs = zip(*((a, c) for a, c in rows if c is not None), strict=True)
            gradients[term.operand] += term.form.pull(stacked(xs), stacked(cs))
        return ChunkResult(gradients, same.losses, jax.tree.leaves(same.outputs), LearnerState(hidden, other, after))

    def _linearised(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        """X of every trace; D and f by lane, where postsynaptic traces need them."""
        x = [trace.form.presynaptic(values) for trace in self.traces]
        if not self.postsynaptic:
            return x, [], []
        d = [trace.by_lane_from_positions(trace.dynamics.d(values)) for trace in self.traces]
        f = [trace.by_lane(trace.dynamics.f(trace.lanes, values)) for trace in self.traces]
        return x, d, f

    def _advance(self, memory: Memory, given: Any) -> tuple[Memory, Memory]:
        x, d, f = given
        new_x = [decay * old + new for decay, old, new in zip(self.decays, memory["x"], x, strict=True)]
        parts = zip(self.traces, self.decays, memory["f"], d, f, strict=True) if self.postsynaptic else ()
        after = {"x": new_x, "f": [_advanced_f(*given) for given in parts]}
        return after, after

    def _rows(
        self, trace: Trace, same: SameStep, eps_x: jax.Array, eps_f: Components, before: Memory, k: int
    ) -> list[tuple[jax.Array, jax.Array]]:
        """Rows (X, cotangent of y) of the product: L on the traces of a step, and R on those of the step before."""
        signal, bypass = trace.dynamics.signal(same), trace.dynamics.bypass(same)
        rows = [(eps_x, trace.cotangent(eps_f, signal))]
        felt = [a for a in eps_f if a in bypass]
        if felt:
            old_f = {a: _shifted(before["f"][k][a], eps_f[a]) for a in felt}
            rows.append((_shifted(before["x"][k], eps_x), trace.cotangent(old_f, bypass)))
        return rows

    def _beside_the_traces(
        self, term: Term, of_term: Sequence[int], same: SameStep, f: Sequence[Components]
    ) -> jax.Array | None:
        """The cotangent of y on the paths of the same step that no trace holds; None for most projections."""
        if term.is_direct and term.equations:
            return None
        parts = [self.traces[k].cotangent(f[k], self.traces[k].dynamics.signal(same)) for k in of_term]
        held = sum(parts[1:], parts[0])
        return same.results[term.y] - held if term.equations else -held


def _advanced_f(trace: Trace, decay: float, old: Components, d: Entries, f: Components) -> Components:
    found = {}
    for a in trace.components:
        parts = [decay * d[a, b] * old[b] for b in old if (a, b) in d]
        parts += [(1 - decay) * f[a]] if a in f else []
        total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(old[a])
        found[a] = jnp.broadcast_to(total, old[a].shape).astype(old[a].dtype)
    return found


def _shifted(before: jax.Array, at_steps: jax.Array) -> jax.Array:
    """Values one step earlier."""
    return jnp.concatenate([before[None], at_steps[:-1]])
