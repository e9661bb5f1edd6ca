"""Where parameters flow within a step: what an operand is made of, and which equations only hand a value on.

For ``y = x @ w; z = reshape(y) * 2; v' = v + z`` with the parameter w, w and y are both made of the parameters {0}, but
only w is static; x makes y change from step to step. The path of y is (reshape, mul), for both are linear, and each is
the only reader of what it takes. It ends in z. The addition comes next and is no part of it: it brings in v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .._jax import Atom, Equation, Literal, Var
from ..nested import classify_derivative
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from .binding_time import BindingTime, BindingTimes, binding_times_of
from .reachability import Feeds, bits_of, feeds_of


@dataclass(frozen=True, eq=False)
class LinearPath:
    """Where a value goes through equations that are linear in it and have no other reader.

    Attributes:
        equations: the equations, in order; empty where there is none.
        end: what the last of them computes; the value itself where there is none.
        next: the one equation that reads ``end``; None if there are several or none, or if it is a result of the step.
    """

    equations: tuple[Equation, ...]
    end: Var
    next: Equation | None


@dataclass(frozen=True, eq=False)
class ParameterFlow:
    """What the operands of a program's equations are made of, and who reads them."""

    info: ModuleInfo

    @cached_property
    def binding_times(self) -> BindingTimes:
        return binding_times_of(self.info)

    @cached_property
    def feeds(self) -> Feeds:
        return feeds_of(self.info)

    @cached_property
    def number_of(self) -> dict[int, int]:
        """Number of every equation, by its ``id``."""
        return {id(eqn): number for number, eqn in enumerate(self.info.equations)}

    # What operands are made of

    @cached_property
    def _slot_of_bit(self) -> dict[int, int]:
        """Number of a leaf's bit to the index of the parameter that the leaf belongs to."""
        return {
            self.binding_times.bits[var].bit_length() - 1: index
            for index, slot in enumerate(self.info.parameters)
            for var in self.info.weight_path_to_invars[slot.path]
        }

    @cached_property
    def _parameter_mask(self) -> int:
        return sum(1 << bit for bit in self._slot_of_bit)

    def leaves_of(self, atom: Atom) -> int:
        """Bit mask of the parameter leaves from which a derivative reaches a value."""
        return self.binding_times.learned_of(atom) & self._parameter_mask

    def slots_of(self, atom: Atom) -> frozenset[int]:
        """Indices of the parameters from which a derivative reaches a value."""
        return frozenset(self._slot_of_bit[bit] for bit in bits_of(self.leaves_of(atom)))

    def parameter_operands(self, eqn: Equation) -> dict[int, Var]:
        """The operands that are made of parameters and do not change while the weights are fixed, by number."""
        variables = {k: atom for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal)}
        return {k: var for k, var in variables.items() if self.is_made_of_parameters(var)}

    def is_made_of_parameters(self, atom: Atom) -> bool:
        return self.binding_times.of(atom) is BindingTime.STATIC and bool(self.leaves_of(atom))

    # Where values go

    @cached_property
    def _results(self) -> frozenset[Var]:
        return frozenset(atom for atom in self.info.jaxpr.outvars if not isinstance(atom, Literal))

    def only_reader(self, var: Var) -> Equation | None:
        """The only equation that reads a variable, if it has one result; None for a result of the step."""
        readers = self.feeds.consumers.get(var, [])
        if var in self._results or len(readers) != 1:
            return None
        eqn = self.info.equations[readers[0]]
        return eqn if len(eqn.outvars) == 1 else None

    def hands_on(self, eqn: Equation, y: Var) -> bool:
        """Whether an equation is linear in y, with constants for the rest: a reshape, a unit conversion."""
        rest = [atom for atom in eqn.invars if atom is not y]
        constant = all(self.binding_times.of(atom) is BindingTime.CONSTANT for atom in rest)
        scaled = eqn.primitive.name in ("mul", "div") and eqn.invars[0] is y
        return constant and (rule_of(eqn.primitive).linear or scaled) and classify_derivative(eqn) is not Kind.MIXING

    def path_of(self, y: Var) -> LinearPath:
        """The path of a value up to the first equation that does more than hand it on."""
        equations: list[Equation] = []
        while (eqn := self.only_reader(y)) is not None and self.hands_on(eqn, y):
            equations.append(eqn)
            y = eqn.outvars[0]
        return LinearPath(tuple(equations), y, eqn)
