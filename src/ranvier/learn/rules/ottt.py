"""``OTTT``."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RuleError
from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.paths import path_text
from ...program.program import ModuleInfo
from ..options import check_number
from ..rule import Rule
from ..traces.factors import FactorKernel
from ..traces.traces import Trace, traces_of


@dataclass(frozen=True)
class OTTT(Rule):
    """Online training through time: only a presynaptic trace is carried.

    ``x^_t = decay x^_{t-1} + x_t``, and the gradient of a traced parameter is ``sum_t (dl_t / dy_t) (x) x^_t`` with y
    the projection's result (Xiao et al., NeurIPS 2022, arXiv 2210.04195). Other parameters have their exact same-step
    gradient.

    Memory: one number per input of a projection. Cost: that of the same-step gradient. Exact where the
    current of every earlier step is felt through a constant decay only: one feed-forward layer of leaky neurons with a
    reset that passes no gradient.

    Attributes:
        decay: the membrane's decay per step; None takes it from D, where it is one constant.
    """

    decay: float | None = None

    def __post_init__(self) -> None:
        if self.decay is not None:
            check_number("OTTT(decay=", self.decay, "it is exp(-dt / tau) of the membrane", most=1)

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_traces(self.name, "Σ x", lambda t: t.inputs, lambda t: f"{t.inputs}")

    def kernel(self, info: ModuleInfo) -> FactorKernel:
        traces = traces_of(info)
        decays = tuple(self._decay_of(trace) if self.decay is None else self.decay for trace in traces)
        for trace, decay in zip(traces, decays, strict=True):
            # x^ belongs to the projection, not to the neurons: that is why the memory is the size of x. Two populations
            # with different decays would need two of them, and one would be wrong for the other.
            others = {a for t, a in zip(traces, decays, strict=True) if t.use is trace.use}
            if len(others) > 1:
                names = ", ".join(path_text(info.parameters[k].path) for k in trace.use.slots)
                raise RuleError(
                    f"OTTT keeps one presynaptic trace for {names}, but the populations it drives decay at different "
                    f"rates, {', '.join(f'{a:.4g}' for a in sorted(others))}; give each its own projection, or write "
                    f"OTTT(decay={decay:.4g})."
                )
        # dl_t/dy_t takes the place of L_t . eps_f: it has f of this step in it, and one constant decay needs no more.
        return FactorKernel(info, traces, decays, postsynaptic=False)

    def _decay_of(self, trace: Trace) -> float:
        entries, direct = trace.dynamics.entries, trace.dynamics.uniform_f(trace.lanes)
        # x^ is the same for all neurons that y drives and at all steps, so D must be one number for all of them. A
        # structural zero is a number too: such a neuron forgets at once, and x^ is x.
        facts = {a: entries.get((a, a)) for a in direct}
        values = {0.0 if fact is None else fact.value for fact in facts.values()}
        if len(values) != 1 or None in values:
            names = ", ".join(path_text(path) for c in trace.use.connections for path in c.hidden_paths)
            entries_text = ", ".join("0" if fact is None else str(fact) for fact in facts.values())
            raise RuleError(
                f"OTTT needs one constant decay, but D of {names} is not one constant (entries: {entries_text}); write "
                "OTTT(decay=...) with exp(-dt / tau) of the membrane."
            )
        (value,) = values
        assert value is not None
        return value
