"""What a variable is made of: constants only, parameters, or data of the step.

In ``u = softplus(w); y = x @ u; v' = 0.9 v + y`` the number 0.9 is constant, w and u are static, for they stay the same
while the weights do, and y and v' are dynamic. The sources of u are {w}, those of y {x, w}, those of v' {x, w, v}.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .._jax import Atom, Equation, Literal, Var, dtype_of, is_floating
from ..bodies import has_derivative
from ..declared import BACKWARD
from ..folding import run_known
from ..interpret import Environment
from ..nested import contains
from ..program import ModuleInfo
from .cache import cached_by_program


class BindingTime(enum.IntEnum):
    """How a variable's value is bound in time."""

    CONSTANT = 0
    """The same in every run."""
    STATIC = 1
    """Made of parameters and of states that the step never changes: fixed while weights are fixed."""
    DYNAMIC = 2
    """Made of inputs or changing states."""


@dataclass(frozen=True, eq=False)
class BindingTimes:
    """The binding time of every variable, and the set of operands it is made of, as a bit mask.

    Attributes:
        by_variable: variable to its binding time.
        sources: variable to bit mask over ``bits``.
        learned: variable to the part of ``sources`` from which a derivative passes.
        bits: operand to its bit.
        producers: variable to the equation that computes it.
    """

    by_variable: dict[Var, BindingTime]
    sources: dict[Var, int]
    learned: dict[Var, int]
    bits: dict[Var, int]
    producers: dict[Var, Equation]
    _values: Environment = field(default_factory=dict)

    def of(self, atom: Atom) -> BindingTime:
        return BindingTime.CONSTANT if isinstance(atom, Literal) else self.by_variable[atom]

    def is_static(self, atom: Atom) -> bool:
        return self.of(atom) is not BindingTime.DYNAMIC

    def learned_of(self, atom: Atom) -> int:
        return 0 if isinstance(atom, Literal) else self.learned[atom]

    def constant_value(self, atom: Atom) -> np.ndarray | None:
        """The value of a constant variable; None for any other."""
        if isinstance(atom, Literal):
            return np.asarray(atom.val)
        if self.by_variable[atom] is not BindingTime.CONSTANT:
            return None
        # All at once: the constants of a program share equations, and compiling them together takes as long as one.
        if atom not in self._values:
            made_here = [eqn for var, eqn in self.producers.items() if self.by_variable[var] is BindingTime.CONSTANT]
            run_known(list(dict.fromkeys(made_here)), self._values)
        return np.asarray(self._values[atom])


@cached_by_program
def binding_times_of(info: ModuleInfo) -> BindingTimes:
    """Binding times and sources of all variables of a program."""
    unchanged = _unchanged_states(info)
    by_variable: dict[Var, BindingTime] = dict.fromkeys(info.jaxpr.invars, BindingTime.DYNAMIC)
    by_variable.update(dict.fromkeys(info.weight_invars, BindingTime.STATIC))
    by_variable.update(dict.fromkeys(unchanged, BindingTime.STATIC))
    by_variable.update(dict.fromkeys(info.jaxpr.constvars, BindingTime.CONSTANT))
    bits = {var: 1 << k for k, var in enumerate(info.jaxpr.invars)}
    sources = dict(bits) | dict.fromkeys(info.jaxpr.constvars, 0)
    learned = dict(sources)
    producers: dict[Var, Equation] = {}
    for eqn in info.equations:
        # A backward rule that is not linear takes the cotangents of a sequence one by one, not their sum.
        made_of = BindingTime.DYNAMIC if eqn.effects or contains(eqn, BACKWARD) else BindingTime.CONSTANT
        mask = learned_mask = 0
        passes = has_derivative(eqn)
        # A result is bound as late as the latest of its operands.
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                made_of, mask = max(made_of, by_variable[atom]), mask | sources[atom]
                if passes and is_floating(dtype_of(atom)):
                    learned_mask |= learned[atom]
        for var in eqn.outvars:
            by_variable[var], sources[var], producers[var] = made_of, mask, eqn
            learned[var] = learned_mask if is_floating(dtype_of(var)) else 0
    constants = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
    return BindingTimes(by_variable, sources, learned, bits, producers, constants)


def _unchanged_states(info: ModuleInfo) -> Sequence[Var]:
    """Other states that the step returns as they came, such as a mask or a table of delays."""
    pairs = zip(info.other_invars, info.other_outvars, strict=True)
    return [before for before, after in pairs if after is before]
