"""``D_RTRL``."""

from __future__ import annotations

from dataclasses import dataclass

from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.program import ModuleInfo
from ..rule import Rule
from ..traces.trace_kernel import TraceKernel
from ..traces.traces import traces_of


@dataclass(frozen=True)
class D_RTRL(Rule):
    """Diagonal real-time recurrent learning: eligibility traces through each neuron's own states.

    ``e_t = D_t e_{t-1} + f_t (x) dy_t/dw``; the gradient is the same-step gradient of every parameter plus
    ``sum_t L_t . (D_t e_{t-1})`` (Wang et al., Nature Communications 2026, doi 10.1038/s41467-026-68453-w).

    Memory: one number per weight, sample and reachable state, O(N) where the trace factorizes; nothing that grows with
    time. Cost: the forward pass and one matrix product over steps and samples per weight, as backpropagation has; where
    traces are kept from call to call, also reading and writing them once per chunk.

    Exact where hidden states reach the next step position by position only (no recurrent projection, or a linear
    recurrent unit, in one layer); otherwise the paths of D through recurrent projections, and through the
    states of other groups, are left out of the temporal part.
    """

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_full_traces(self.name)

    def kernel(self, info: ModuleInfo) -> TraceKernel:
        # D-RTRL is the plain case of the shared machinery. D follows elementwise and structural paths only: with
        # recurrent projections in it, e would need a number for every weight and every neuron, as RTRL has. L is the
        # true dl/dh, so no feedback weights. And the same-step part stays the exact one, so that a plan with nothing
        # left out means a gradient equal to BPTT's.
        return TraceKernel(info, traces_of(info))
