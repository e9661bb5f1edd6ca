"""``ThreeFactor``.

For example, a decay of 0.9, dz/dy = 1, x = (1, 0) and a modulator of (0, 2): e is 1, then 0.9, and the gradient is
0 * 1 + 2 * 0.9 = 1.8. A reward at the second step reaches the weight that was active at the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import InputError, RuleError
from ...program.analysis.hidden_groups import HiddenGroup, analyse_groups
from ...program.analysis.memory import MemorySizes, RuleMemory, batch_size
from ...program.analysis.reachability import reach
from ...program.analysis.transition import EntryFacts
from ...program.interpret import Environment
from ...program.paths import path_text
from ...program.program import ModuleInfo
from ..linearization.dynamics import Components, Entries, TraceDynamics
from ..linearization.group_dynamics import GroupDynamics
from ..linearization.same_step import SameStep
from ..options import check_function, check_number
from ..rule import Rule
from ..traces.filters import FILTERED, Filters, filtered_outputs_of, with_filters
from ..traces.trace_kernel import TraceKernel
from ..traces.traces import Trace, traces_of
from ..uses.alignment import Alignment
from ..uses.traced_uses import traced_uses_of

Modulator = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class ThreeFactor(Rule):
    """A three-factor rule: a local trace of pre- and postsynaptic activity, gated by a signal that all neurons share.

    ``e_t = decay e_{t-1} + (dz_t / dy_t) (x) x_t`` with z what the population emits and y its input current, and the
    gradient of a traced weight is ``sum_t M_t e_t`` (Fremaux & Gerstner, Frontiers in Neural Circuits 2016, doi
    10.3389/fncir.2015.00085). Weights that drive no emitting population, a readout's say, have their exact same-step
    gradient.

    Memory: one number per weight and sample. Cost: as D_RTRL with one state. Approximate.

    Attributes:
        decay: of the trace, exp(-dt / tau).
        modulator: ``modulator(output, target)`` gives M of a step: a scalar, or one number per sample of a batch; it
            is weighted like the step's loss. By default the outputs' errors dl/d output, summed over the outputs of
            each sample.
    """

    decay: float = 0.9
    modulator: Modulator | None = None

    def __post_init__(self) -> None:
        check_number("ThreeFactor(decay=", self.decay, "0.9 is a common choice", below=1)
        if self.modulator is not None:
            example = "lambda output, target: (output - target).sum()"
            check_function("modulator", self.modulator, ("output", "target"), example, RuleError)

    def prepare(self, info: ModuleInfo) -> ModuleInfo:
        filters = {emission.var: Filters((self.decay,)) for emission in filtered_outputs_of(info)}
        if not filters and (stored := _read_later(info)):
            raise RuleError(
                f"the outputs of {info.name} read {', '.join(stored)} of an earlier step only, such as the end of a "
                "delay line or of a ring buffer, but the postsynaptic factor of ThreeFactor is the activity of the "
                "same step; let a projection to the outputs read that, or use D_RTRL or EProp, whose traces go "
                "through delays."
            )
        if not filters:
            raise RuleError(
                f"ThreeFactor found no population in {info.name} whose activity a projection carries to the outputs, "
                "so no weight has a postsynaptic factor; use another rule, such as D_RTRL."
            )
        # e_t = decay e_{t-1} + dz_t/dy_t (x) x_t is the trace of a filter of z that feels the step's projections only.
        # Were it not detached from the old states, the membrane's D would carry e too, on top of the rule's own decay.
        return with_filters(info, filters, detached=True)

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_traces(self.name, "Σ w", lambda t: t.pairs, lambda t: f"{t.pairs}")

    def kernel(self, info: ModuleInfo) -> TraceKernel:
        filters = {slot.path for slot in info.hidden if slot.label == FILTERED}
        dynamics: dict[HiddenGroup, _Modulated] = {}
        for group in analyse_groups(info).groups:
            # The filter is the only component with a trace. With the other states of the neuron, the memory would be
            # that of D-RTRL, and D would mix them into e.
            parts = enumerate(group.positions.components)
            components = tuple(a for a, part in parts if group.hidden_paths[part.state] in filters)
            if components:
                dynamics[group] = _Modulated.of(group, components, self.modulator, batch_size(info))
        # A weight that drives no population with a filter, such as a readout's, has no postsynaptic factor: without a
        # trace it has its same-step gradient.
        traces = [
            Trace(trace.use, trace.lanes, modulated)
            for trace in traces_of(info)
            if (modulated := dynamics.get(trace.lanes.connection.group)) and modulated.uniform_f(trace.lanes)
        ]
        # M e_t has the step's own x_t in it. The same-step gradient beside it would count that step twice, once by M
        # and once by the loss.
        return TraceKernel(info, tuple(traces), replaces_same_step=True)


def _read_later(info: ModuleInfo) -> list[str]:
    """The states of populations with traced weights whose old values act on the outputs other than through new ones."""
    groups = dict.fromkeys(connection.group for use in traced_uses_of(info) for connection in use.connections)
    within = reach(info, by_gradient=True, past_hidden=False)
    old = [(path, var) for group in groups for path, var in zip(group.hidden_paths, group.hidden_invars, strict=True)]
    return [path_text(path) for path, var in old if within.outputs(var)]


@dataclass(frozen=True, eq=False)
class _Modulated(TraceDynamics):
    """Only the filtered emissions of a group, with the modulator as their learning signal."""

    inner: GroupDynamics
    modulator: Modulator | None
    batch: int

    @classmethod
    def of(cls, group: HiddenGroup, components: tuple[int, ...], modulator: Modulator | None, batch: int) -> _Modulated:
        facts = group.transition.entries
        entries = {(a, b): fact for a in components for b in components if (fact := facts[a][b]) is not None}
        return cls(GroupDynamics(group, components, entries, frozenset(components)), modulator, batch)

    @property
    def components(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.components

    @property
    def entries(self) -> Mapping[tuple[int, int], EntryFacts]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.entries

    @property
    def positions(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.positions

    @property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.names

    @property
    def dtype(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.dtype

    def d(self, values: Environment) -> Entries:
        return self.inner.d(values)

    def f(self, lanes: Alignment, values: Environment) -> Components:
        return {a: value for a, value in self.inner.f(lanes, values).items() if a in self.components}

    def uniform_f(self, lanes: Alignment) -> Mapping[int, bool]:
        return {a: uniform for a, uniform in self.inner.uniform_f(lanes).items() if a in self.components}

    def constant_f(self, lanes: Alignment) -> Mapping[int, float] | None:
        known = self.inner.constant_f(lanes)
        return None if known is None else {a: value for a, value in known.items() if a in self.components}

    def signal(self, same: SameStep) -> Components:
        modulators = self._modulators(same)
        samples = modulators.shape[-1]
        # Positions go sample by sample, so each M is repeated for all neurons of its sample.
        at_positions = jnp.repeat(modulators.astype(self.dtype), self.positions // samples, axis=-1)
        return dict.fromkeys(self.components, at_positions)

    def _modulators(self, same: SameStep) -> jax.Array:
        """M at all steps, ``[K, samples]`` or ``[K, 1]``."""
        if self.modulator is not None:
            modulators = jnp.asarray(jax.vmap(self.modulator)(same.outputs, same.targets))
            modulators = modulators.reshape(modulators.shape[0], -1)
            if modulators.shape[1] not in (1, self.batch):
                several = f", or {self.batch} for a batch of {self.batch}" if self.batch > 1 else ""
                raise InputError(
                    f"modulator(output, target) returned {modulators.shape[1]} numbers, but must return one{several}."
                )
            # A step that the mask leaves out of the loss must not teach by its modulator either.
            return modulators * same.weights[:, None]
        errors = same.errors()
        shared = all(error.ndim > 1 and error.shape[1] == self.batch for error in errors) and self.batch > 1
        samples = self.batch if shared else 1
        return sum((error.reshape(error.shape[0], samples, -1).sum(-1) for error in errors), jnp.zeros(()))

    def bypass(self, same: SameStep) -> Components:
        return {}
