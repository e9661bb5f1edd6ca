"""``ES_D_RTRL``."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RuleError
from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.program import ModuleInfo
from ..options import check_number, check_whole
from ..rule import Rule
from ..traces.factors import FactorKernel
from ..traces.traces import traces_of


@dataclass(frozen=True)
class ES_D_RTRL(Rule):
    """D-RTRL with exponentially smoothed, factorized traces (pp_prop): memory of the size of the states.

    With ``a`` the decay, ``eps_x <- a eps_x + x``, ``eps_f <- a D eps_f + (1 - a) f``, and the gradient of a traced
    parameter is ``sum_t (L_t . eps_f) (x) eps_x`` (Wang et al., Nature Communications 2026, doi
    10.1038/s41467-026-68453-w). Paths of the same step that the trace does not hold, and all other parameters, have
    their exact same-step gradient.

    Memory: one number per input of a projection and one per result and reachable state. Cost: as D_RTRL without its
    trace. Approximate; with decay 0, and outputs that read new states only, it is the exact same-step
    gradient.

    Attributes:
        decay: a, from 0 up to 1.
        rank: in place of the decay, the number of steps it stands for: ``a = (rank - 1) / (rank + 1)``.
    """

    decay: float | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        if (self.decay is None) == (self.rank is None):
            raise RuleError(
                f"ES_D_RTRL needs a decay or a rank, got {self!r}; write ES_D_RTRL(decay=0.9) or ES_D_RTRL(rank=19)."
            )
        if self.decay is not None:
            check_number("ES_D_RTRL(decay=", self.decay, "0.9 is a common choice", below=1)
        if self.rank is not None:
            check_whole("ES_D_RTRL(rank=", self.rank, "19 corresponds to a decay of 0.9", least=1)

    @property
    def smoothing(self) -> float:
        """The decay a."""
        # Weights a^k have the mean age a / (1 - a), and a plain average of ``rank`` steps has (rank - 1) / 2; a follows
        # from setting them equal.
        return self.decay if self.rank is None else (self.rank - 1) / (self.rank + 1)  # pyright: ignore[reportReturnType]

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_traces(
            self.name,
            "Σ (x + y·s)",
            lambda t: t.inputs + t.lanes * t.states,
            lambda t: f"{t.inputs} + {t.lanes}·{t.states}",
        )

    def kernel(self, info: ModuleInfo) -> FactorKernel:
        # One decay for all traces: a projection that drives several groups then has one eps_x for all of them. The
        # factor (1 - a) stands at eps_f only. Without it a steady input would count 1 / (1 - a)^2 times, where the sum
        # over a full trace that leaks by a has it 1 / (1 - a) times.
        traces, a = traces_of(info), self.smoothing
        return FactorKernel(info, traces, (a,) * len(traces), postsynaptic=True)
