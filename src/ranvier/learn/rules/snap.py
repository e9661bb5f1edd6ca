"""``SnAp``.

For example, three neurons in a ring, each of which feeds the next one, and one input weight for each: SnAp(1) keeps one
element for every weight, its own neuron; SnAp(2) keeps two; SnAp(3) keeps all three, and is RTRL.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.analysis.pattern import dependence_pattern
from ...program.program import ModuleInfo
from ..options import check_whole
from ..rule import Rule
from ..sensitivity.influence import InfluenceKernel, padded
from ..sensitivity.stepwise import StepFunctions, check_real


@dataclass(frozen=True)
class SnAp(Rule):
    """Sparse n-step approximation of RTRL (Menick et al., ICLR 2021, arXiv 2006.07232).

    ``J_t = A_t J_{t-1} + I_t``, kept where a weight acts on an element of the state within n steps. Unlike D-RTRL, A
    contains recurrent projections. Exact once n reaches every element that a weight ever acts on; ``SnAp(1)`` keeps the
    elements a weight acts on at once. What a step's loss feels of the kept part of the step before goes through all of
    A, also to elements that are not kept themselves; the published form leaves these out at that step already.

    Memory: for every weight the elements of the state it reaches within n steps. Cost: per step, for every weight the
    square of these. For small networks.

    Attributes:
        n: steps, at least 1.
    """

    n: int = 1

    def __post_init__(self) -> None:
        check_whole("SnAp(n=", self.n, "SnAp(1) is the cheapest", least=1)

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_full_traces(f"{self.name}({self.n})")

    def kernel(self, info: ModuleInfo) -> InfluenceKernel:
        functions = StepFunctions(info)
        # The patterns below count elements; a complex element would be two real numbers of the flat vectors.
        check_real(functions, self.name)
        new_states = functions.new_states
        by_weight = dependence_pattern(info, functions.variables, new_states).T
        by_state = dependence_pattern(info, functions.states, new_states).T
        # The pattern of I + A I + ... + A^(n-1) I. It is fixed at compile time, from which elements can reach which:
        # taken from the numbers of a run, rows would change with the data and every change would recompile.
        for _ in range(self.n - 1):
            # numpy multiplies Boolean matrices element by element; in float32 it is one BLAS product.
            more = by_weight | (by_weight.astype(np.float32) @ by_state.astype(np.float32) > 0)
            # Nothing new: further steps reach nothing either, and the rule is exact.
            if (more == by_weight).all():
                break
            by_weight = more
        return InfluenceKernel(info, padded([np.flatnonzero(row) for row in by_weight]))
