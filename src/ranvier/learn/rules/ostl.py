"""``OSTL``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...program._jax import size_of
from ...program.analysis.hidden_groups import analyse_groups
from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.analysis.reachability import reach_by_gradient
from ...program.program import ModuleInfo
from ..rule import Rule
from ..sensitivity.influence import InfluenceKernel, padded
from ..sensitivity.stepwise import StepFunctions, check_real


@dataclass(frozen=True)
class OSTL(Rule):
    """Online spatio-temporal learning (Bohnstingl et al., IEEE TNNLS 2023, doi 10.1109/TNNLS.2022.3153985).

    Every hidden group is a layer. The traces of a layer's parameters follow the layer's own states, through its
    recurrent projections too; what one layer carries into another from step to step is left out, while the same-step
    gradient goes through all layers. Exact for one recurrent layer with a readout that has no memory; for
    feed-forward layers that send on what new states give, it is D-RTRL.

    ``J_t = A_t J_{t-1} + I_t`` with only the entries of A within a layer, kept for the layers that a weight acts on;
    the gradient is the same-step gradient plus ``sum_t (dl_t/dh_{t-1}) J_{t-1}``.

    Memory: for every weight the elements of the states of the layers it acts on. Cost: per step, that times the
    elements of a layer. For small networks.
    """

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        return sizes.of_full_traces(self.name)

    def kernel(self, info: ModuleInfo) -> InfluenceKernel:
        functions = StepFunctions(info)
        # Below, an element of a weight has one row of J; a complex one would be two real numbers, with two rows.
        check_real(functions, self.name)
        layer = _layer_of_elements(info, functions)
        reach, group_of = reach_by_gradient(info), _group_of_state(info)
        rows = []
        for var in functions.variables:
            # I reaches these layers within the step. The recurrent projection of a layer spreads it over all neurons of
            # the layer, so J keeps all of them: fewer rows are SnAp, and not exact for one recurrent layer.
            layers = sorted({group_of[j] for j in reach.hidden(var)})
            rows += [np.flatnonzero(np.isin(layer, layers))] * size_of(var)
        # A weight may have rows in two layers. A is cut at their border even so: an entry between layers is what OSTL
        # leaves out in time, and with it the rule would be RTRL.
        return InfluenceKernel(info, padded(rows), layer[:, None] == layer[None, :])


def _group_of_state(info: ModuleInfo) -> dict[int, int]:
    return {j: group.index for group in analyse_groups(info).groups for j in group.state_indices}


def _layer_of_elements(info: ModuleInfo, functions: StepFunctions) -> np.ndarray:
    """For every element of the flat state the index of its group; -1 for states that are not hidden."""
    group_of = _group_of_state(info)
    by_variable = {var: group_of[j] for j, var in enumerate(info.hidden_invars)}
    return np.concatenate([np.full(size_of(var), by_variable.get(var, -1)) for var in functions.states])
