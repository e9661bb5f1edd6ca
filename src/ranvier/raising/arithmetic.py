"""The arithmetic of a step: the equations that work on every position separately, and where their operands come from.

In the example of ``step.py``, the product ``0.9 * v``, the sum, the comparison and the conversion to float are
arithmetic. The old v is *inner* to the product, as it has the same 2 positions in the same order. An operand ``x[:2]``
would not be: it is part of an input, so a projection has to bring it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..program._jax import Equation, Literal, Var, dtype_of, size_of, variables_of
from .kinds import EquationKind, EquationKinds, crosses
from .references import OldState, Root, Terms, base, is_whole

Member = int | OldState
"""The ``id`` of an equation, or a part of a state."""


@dataclass(frozen=True, eq=False)
class Arithmetic:
    """The arithmetic of a step.

    Attributes:
        kinds: of all equations.
        equations: those of arithmetic, in order.
        maker: the equation of every result.
    """

    kinds: EquationKinds
    equations: tuple[Equation, ...]
    maker: Mapping[Root, Equation]

    def member_of(self, root: Root) -> Member | None:
        """The member of a cluster that a root is; None for a root that is in no cluster."""
        if isinstance(root, OldState):
            return root if self._can_be_read(root) else None
        return id(self.maker[root]) if root in self.maker else None

    def inner(self, eqn: Equation, atom: Any) -> Root | None:
        """The root that an operand is, unmoved, if it can belong to the equation's own cluster."""
        if isinstance(atom, Literal) or self.kinds.step.is_static(atom):
            return None
        terms = self.kinds.terms_of(atom)
        if not is_whole(terms) or self.member_of(terms[0].root) is None:
            return None
        return terms[0].root if self.kinds.step.size(terms[0].root) == size_of(eqn.outvars[0]) else None

    def brought(self, eqn: Equation) -> list[Terms]:
        """The changing operands of an equation that are not inner to it."""
        step = self.kinds.step
        atoms = [a for a in variables_of(eqn.invars) if not step.is_static(a) and self.inner(eqn, a) is None]
        return [self.kinds.terms_of(atom) for atom in atoms]

    def own_result(self, part: OldState) -> Equation | None:
        """The equation that computes the new value of a part of a state, if it is arithmetic and nothing else happens
        to it."""
        terms = self.kinds.new_terms(part)
        size = self.kinds.step.size
        if not is_whole(terms) or size(terms[0].root) != size(part):
            return None
        return self.maker.get(terms[0].root) if self._can_be_read(part) else None

    def new_value(self, part: OldState) -> Root:
        """The result that is the new value of a part of a state with an own result."""
        return self.kinds.new_terms(part)[0].root

    def crossing(self) -> set[Var]:
        """Results that are read outside of their cluster, or moved."""
        reads = [terms for eqn in self.equations for terms in self.brought(eqn)]
        roots = {base(term.root) for terms in (*reads, *self.outer_reads()) for term in terms}
        return {root for root in roots if root in self.maker}

    def outer_reads(self) -> Iterator[Terms]:
        """What everything other than arithmetic reads."""
        kinds = self.kinds
        for eqn in kinds.of_kind(EquationKind.WHOLE):
            yield from (kinds.terms_of(a) for a in variables_of(eqn.invars))
        for affine in kinds.maps.by_result.values():
            yield from (kinds.terms_of(x) for x in affine.xs)
        for atom in variables_of(kinds.step.info.output_outvars):
            yield kinds.terms_of(atom)
        for part in kinds.parts:
            if self.own_result(part) is None:
                yield kinds.new_terms(part)

    def _can_be_read(self, part: OldState) -> bool:
        return crosses(dtype_of(self.kinds.step.states[part.state][0]))


def select_arithmetic(kinds: EquationKinds) -> Arithmetic:
    """The arithmetic of a step."""
    equations = tuple(kinds.of_kind(EquationKind.ARITHMETIC))
    return Arithmetic(kinds, equations, {out: eqn for eqn in equations for out in eqn.outvars})
