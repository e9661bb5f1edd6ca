"""Elements of the state that weights act on but a rule does not follow, for rules that keep sensitivities by element.

For example, two neurons with recurrent weights, ``A = [[0.9, 0.1], [0.2, 0.9]]``, and an input weight of the first. The
weight acts on element 0 at once and, through A, on element 1 a step later. SnAp(1) follows it at element 0 only, so
element 1 is lost for this weight; RTRL follows both and loses nothing.
"""

from __future__ import annotations

import numpy as np

from ...program._jax import dtype_of, is_floating
from ...program.analysis.pattern import dependence_pattern
from ...program.program import ModuleInfo
from ..carried import Influence
from .stepwise import StepFunctions


def lost_elements(info: ModuleInfo, functions: StepFunctions, influence: Influence) -> np.ndarray:
    """The lasting elements of the state that each weight acts on but is not followed in, ``[weights, size]``."""
    followed = influence.rows >= 0
    if followed.all() and influence.rows.shape[1] == functions.size and influence.within is None:
        return np.zeros((functions.weights, functions.size), bool)
    # Patterns [from, to]: what a weight reaches within a step, and what an element reaches in the next.
    immediate = dependence_pattern(info, functions.variables, functions.new_states).T
    onward = dependence_pattern(info, functions.states, functions.new_states).T
    rows = np.zeros(immediate.shape, bool)
    weight, column = np.nonzero(followed)
    rows[weight, influence.rows[weight, column]] = True
    # One step is enough. A lost element is listed where it is first reached; what it would have carried on to is lost
    # with it.
    reached = immediate | _product(rows, onward)
    lost = reached & ~rows
    if influence.within is not None:
        # A followed element counts as lost, too, where the path into it passes an entry of A that the rule drops.
        lost |= _product(rows, onward & ~influence.within.T)
    # An element that no later loss feels takes nothing with it: listed, it would call an exact gradient approximate.
    return lost & _lasting_elements(info, functions, onward)


def _lasting_elements(info: ModuleInfo, functions: StepFunctions, onward: np.ndarray) -> np.ndarray:
    """The elements of the state that a later loss feels, ``[size]``."""
    outputs = [atom for atom in info.output_outvars if is_floating(dtype_of(atom))]
    lasting: np.ndarray = dependence_pattern(info, functions.states, outputs).sum(axis=0)[:, None] > 0
    # Back from the outputs through any number of steps, until no element is added.
    while (more := lasting | _product(onward, lasting)).sum() > lasting.sum():
        lasting = more
    return lasting[:, 0]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # In float32 this is one BLAS product; only whether a count is zero matters, and that is exact.
    return a.astype(np.float32) @ b.astype(np.float32) > 0
