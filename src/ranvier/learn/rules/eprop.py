"""``EProp``.

For example, ``v' = 0.5 v + w x; z = v'`` into a readout ``y' = 0.8 y + z``, x = (1, 0) and the loss y at the second
step: eps is 1, then 0.5, and so is e. Filtered it is 1, then 0.8 * 1 + 0.5 = 1.3, which is dl/dw. Without a filter it
would be 0.5: what the readout remembers of the first step would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import RuleError
from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.program import ModuleInfo
from ..options import check_number, check_whole
from ..rule import Rule
from ..traces.feedback import Feedback
from ..traces.filters import (
    FilteredOutput,
    Filters,
    check_kept_together,
    feedback_equations,
    filtered_readout_outputs_of,
    filtered_readouts,
    readout_filters,
    with_filters,
)
from ..traces.trace_kernel import TraceKernel
from ..traces.traces import traces_of

FEEDBACKS = ("symmetric", "random", "adaptive")


@dataclass(frozen=True)
class EProp(Rule):
    """E-prop: eligibility traces filtered like the readout, and a choice of feedback weights (Bellec et al., Nature
    Communications 2020, doi 10.1038/s41467-020-17236-y).

    With the eligibility vector ``eps_t = D_t eps_{t-1} + f_t (x) x_t`` and the spike z, ``e_t = dz_t/dh_t . eps_t``,
    the gradient is ``sum_t L_t . F(e)_t`` with ``F(e)_t = kappa F(e)_{t-1} + e_t``, kappa the readout's decay, and L_t
    = B dl_t/dy_t the learning signal through feedback weights B of the readout: its transpose (symmetric), random and
    fixed, or random and adapted with the readout's own gradient. Parameters that are not traced have their same-step
    gradient.

    Readouts with different decays have a filter each, up to 16 decays.

    Memory: as D_RTRL and one number per weight and sample for every filter. Cost: as D_RTRL. Exact, with
    symmetric feedback, where D_RTRL is and also through a readout with memory.

    Attributes:
        feedback: ``"symmetric"``, ``"random"`` or ``"adaptive"``.
        filter: ``"readout"`` takes kappa from the readout; a number gives it; None means no filter.
        seed: of random feedback weights.
        feedback_rate: for adaptive feedback, B changes by minus this times the readout's gradient, every chunk.
        feedback_decay: and loses this fraction.
    """

    feedback: str = "symmetric"
    filter: str | float | None = "readout"
    seed: int = 0
    feedback_rate: float = 1e-3
    feedback_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.feedback not in FEEDBACKS:
            raise RuleError(f"EProp(feedback={self.feedback!r}) is unknown; use one of {', '.join(FEEDBACKS)}.")
        if self.filter is not None and self.filter != "readout":
            check_number(
                "EProp(filter=", self.filter, "it is a decay; or use 'readout', or None for no filter", below=1
            )
        check_whole("EProp(seed=", self.seed, "write, for example, EProp(seed=0)")
        check_number("EProp(feedback_rate=", self.feedback_rate, "it is a learning rate, such as 1e-3")
        check_number("EProp(feedback_decay=", self.feedback_decay, "it is the fraction lost in every chunk", most=1)

    def prepare(self, info: ModuleInfo) -> ModuleInfo:
        # F(e)_t = kappa F(e)_{t-1} + e_t is the eligibility trace of one more hidden state, m_t = kappa m_{t-1} + z_t.
        # With m in the program, D has the entry kappa, and traces, plan and chunks need not know of filters.
        of_emissions = {emission.var: self._filters(info, emission) for emission in filtered_readout_outputs_of(info)}
        # A decay of 0 filters nothing: its state would cost a number per weight and change no gradient.
        filters = {var: x for var, x in of_emissions.items() if x is not None}
        if not filters:
            return info
        filtered = with_filters(info, filters)
        # D holds m only if m is a state of the neurons that emit z. Elsewhere the trace of m would stay at zero, and
        # the gradient would silently lose its temporal part.
        check_kept_together(info, filtered, filters)
        return filtered

    def _filters(self, info: ModuleInfo, emission: FilteredOutput) -> Filters | None:
        if self.filter == "readout":
            return readout_filters(info, emission)
        return Filters.with_decay(emission, float(self.filter)) if self.filter else None

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_traces(
            self.name, "Σ w·(s + 1)", lambda t: t.pairs * (t.states + 1), lambda t: f"{t.pairs}·{t.states + 1}"
        )

    def kernel(self, info: ModuleInfo) -> TraceKernel:
        # With the readout's own kappa, the filter holds all that the readout remembers of z, and the plan must not list
        # that path as left out. With any other number it does not, and the plan says so.
        readouts = filtered_readouts(info) if self.filter == "readout" else frozenset()
        remarks = ()
        if self.filter is not None and self.filter != "readout":
            remarks = (
                f"approximation: the output of every population is filtered with {self.filter:g}, no matter "
                "what reads it",
            )
        # The reverse pass multiplies by the transposed readout anyway, so symmetric feedback needs no weights B.
        if self.feedback == "symmetric":
            return TraceKernel(info, traces_of(info), readouts=readouts, remarks=remarks)
        equations = feedback_equations(info)
        if not equations:
            raise RuleError(
                f"EProp(feedback={self.feedback!r}) found no readout whose weights are a parameter; use 'symmetric'."
            )
        # Random feedback is adaptive feedback that stands still.
        adaptive = self.feedback == "adaptive"
        rate, decay = (self.feedback_rate, self.feedback_decay) if adaptive else (0.0, 0.0)
        return TraceKernel(
            info, traces_of(info), Feedback(equations, self.seed, rate, decay), readouts=readouts, remarks=remarks
        )
