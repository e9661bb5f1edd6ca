"""``RTRL``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.program import ModuleInfo
from ..rule import Rule
from ..sensitivity.influence import InfluenceKernel
from ..sensitivity.stepwise import StepFunctions


@dataclass(frozen=True)
class RTRL(Rule):
    """Real-time recurrent learning with the full influence matrix (Williams & Zipser, Neural Computation 1989, doi
    10.1162/neco.1989.1.2.270).

    ``J_t = A_t J_{t-1} + I_t`` with A = dh_t/dh_{t-1} and I = dh_t/dw within the step, for all elements of the state
    and all weights; the gradient is the same-step gradient plus ``sum_t (dl_t/dh_{t-1}) J_{t-1}``.

    Memory: elements of the state times elements of the weights. Cost: per step, that times the elements of the state.
    Exact. For small networks, as a reference.
    """

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        numbers, elements = f"{sizes.hidden}·{sizes.parameters}", sizes.hidden * sizes.parameters
        return sizes.row(self.name, "H·P", numbers, elements)

    def kernel(self, info: ModuleInfo) -> InfluenceKernel:
        functions = StepFunctions(info)
        # J has all rows for all weights, so no pattern of A is computed and nothing is left out. As all weights share
        # one set of rows, A J is one matrix product. Complex states are fine here: they are two rows each.
        return InfluenceKernel(info, np.broadcast_to(np.arange(functions.size), (functions.weights, functions.size)))
