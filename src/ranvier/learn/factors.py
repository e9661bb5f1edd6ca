"""Traces kept as a product of a presynaptic and a postsynaptic factor: memory of the size of the states.

``e_t ~ eps_f (x) eps_x`` with ``eps_x <- decay_x eps_x + x`` and, by component, ``eps_f <- decay_f D eps_f + gain_f f``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..ir.interpret import Environment
from ..ir.program import ModuleInfo
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
        decay_x: factor of the old presynaptic trace of every trace.
        decay_f: factor of the old postsynaptic trace; zero keeps f itself.
        gain_f: factor of f.
    """

    info: ModuleInfo
    traces: tuple[Trace, ...]
    decay_x: tuple[float, ...]
    decay_f: float
    gain_f: float

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        return tuple(dict.fromkeys(trace.term for trace in self.traces))

    @cached_property
    def _same_step(self) -> SameStepPass:
        return SameStepPass(self.info, self.terms)

    def init(self, static: Environment) -> Memory:
        x = [jnp.zeros(t.form.presynaptic_aval.shape, t.form.presynaptic_aval.dtype) for t in self.traces]
        return {"x": x, "f": [self._no_f(trace) for trace in self.traces] if self.decay_f else []}

    def _no_f(self, trace: Trace) -> Components:
        shape = (trace.lanes.layers, *trace.form.y_shape)
        return {a: jnp.zeros(shape, trace.form.presynaptic_aval.dtype) for a in trace.components}

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        stages = stages_of(self.info)
        recorded, hidden, other = stages.forward(static, chunk.inputs, state.hidden, state.other, chunk.length)
        same = self._same_step(loss, static, recorded, chunk.targets, chunk.weights)
        x, d, f = over_steps(lambda given: self._linearised(stages.replay(static, given)), recorded)
        after, (eps_x, eps_f) = jax.lax.scan(self._advance, state.memory, (x, d, f))
        signals = [trace.dynamics.signal(same) for trace in self.traces]
        gradients = dict(same.entering)
        for term in self.terms:
            rows = self._direct_rows(term, same, x, f, signals)
            for k, trace in enumerate(self.traces):
                if trace.term is term:
                    rows.append((eps_x[k], _cotangent(trace, eps_f[k], signals[k])))
            xs, cs = zip(*rows, strict=True)
            gradients[term.operand] += term.form.pull(stacked(xs), stacked(cs))
        return ChunkResult(gradients, same.losses, same.outputs, LearnerState(hidden, other, after))

    def _linearised(self, values: Environment) -> tuple[list[jax.Array], list[Entries], list[Components]]:
        """X, D and f by lane of every trace."""
        x = [trace.form.presynaptic(values) for trace in self.traces]
        d = []
        for trace in self.traces:
            found = trace.dynamics.d(values) if self.decay_f else {}
            d.append({key: trace.lanes.from_positions(value) for key, value in found.items()})
        f = [trace.by_lane(trace.dynamics.f(trace.lanes, values)) for trace in self.traces]
        return x, d, f

    def _advance(self, memory: Memory, given: Any) -> tuple[Memory, Any]:
        x, d, f = given
        new_x = [decay * old + new for decay, old, new in zip(self.decay_x, memory["x"], x, strict=True)]
        if not self.decay_f:
            return {"x": new_x, "f": []}, (new_x, f)
        new_f = [self._advanced_f(*parts) for parts in zip(self.traces, memory["f"], d, f, strict=True)]
        return {"x": new_x, "f": new_f}, (new_x, new_f)

    def _advanced_f(self, trace: Trace, old: Components, d: Entries, f: Components) -> Components:
        found = {}
        for a in trace.components:
            parts = [self.decay_f * d[a, b] * old[b] for b in old if (a, b) in d]
            parts += [self.gain_f * f[a]] if a in f else []
            total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(old[a])
            found[a] = jnp.broadcast_to(total, old[a].shape).astype(old[a].dtype)
        return found

    def _direct_rows(
        self, term: Term, same: SameStep, x: Sequence[Any], f: Sequence[Components], signals: Sequence[Components]
    ) -> list[tuple[jax.Array, jax.Array]]:
        """What the exact same-step gradient has beside the path that the traces hold: none for most projections."""
        if term.is_direct and term.equations:
            return []
        of_term = [k for k, trace in enumerate(self.traces) if trace.term is term]
        direct = [-_cotangent(self.traces[k], f[k], signals[k]) for k in of_term]
        parts = [same.results[term.y], *direct] if term.equations else direct
        return [(x[of_term[0]], sum(parts[1:], parts[0]))]


def _cotangent(trace: Trace, factor: Components, signal: Components) -> jax.Array:
    """The cotangent of y, ``[K, *y]``, from a factor by lane and L by position."""
    return trace.cotangent(factor, {a: signal[a] for a in factor})
