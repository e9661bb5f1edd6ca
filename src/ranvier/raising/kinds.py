"""What each equation of a step is for a graph: arithmetic at positions, a move, an affine map, or something else.

The six equations of the example in ``step.py``, with what their results are made up of::

    a = 0.9 * v                  arithmetic    a
    b = concatenate([x, z])      move          x at [0, 1, 2, -1, -1]  +  old z at [-1, -1, -1, 0, 1]
    c = b @ w                    map           c
    v' = a + c                   arithmetic    v'
    d = v' > 1                   arithmetic    d
    z' = float(d)                arithmetic    z'

Had the step added a bias, ``c + bias`` would be a move, too, though it adds: a port sums what projections bring, so a
sum of maps and fixed values needs no population to compute it. A sort or a random number works on whole arrays.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, is_key, is_real, size_of, variables_of
from ..program.analysis.position_map import ONLY_IDENTITY, PositionMap
from ..program.scalar import is_scalable
from .affine_maps import AffineMaps
from .moves import only_moves
from .references import MovedSource, OldState, Register, Terms, joined
from .step import StepView

SUMS = frozenset(["add", "add_any"])


class EquationKind(enum.Enum):
    """What an equation is for a graph."""

    ARITHMETIC = "arithmetic"
    """Every position on its own."""
    MOVE = "move"
    """A sum of moved values."""
    MAP = "map"
    """The last equation of an affine map of one operand."""
    INSIDE = "inside"
    """Another equation of an affine map."""
    WHOLE = "whole"
    """Works on whole arrays in another way."""


@dataclass(frozen=True, eq=False)
class EquationKinds:
    """The equations of a step with their kinds, and every array as a sum of moved sources.

    Attributes:
        step: the step.
        maps: its affine maps.
        kind: of an equation, by ``id``.
        terms: of every changing variable, what it is made up of.
        noise: results that random keys, and the bits they give, decide.
        parts: of the states, those that are no registers, with their elements.
        registers: parts of states that only pass values on.
    """

    step: StepView
    maps: AffineMaps
    kind: Mapping[int, EquationKind]
    terms: Mapping[Var, Terms]
    noise: frozenset[Var]
    parts: Mapping[OldState, np.ndarray | None]
    registers: Mapping[OldState, Register]

    def of_kind(self, *kinds: EquationKind) -> list[Equation]:
        """The equations of some kinds, in order."""
        return [eqn for eqn in self.step.equations if self.kind[id(eqn)] in kinds]

    def terms_of(self, atom: Any) -> Terms:
        """What a variable is made up of."""
        return _terms_of(self.step, self.terms, atom)

    def new_terms(self, part: OldState) -> Terms:
        """What a part of a state is after the step."""
        new, elements = self.step.states[part.state][1], self.step.parts[part]
        if isinstance(new, Literal):
            return ()
        if elements is None:
            return self.terms_of(new)
        chosen = []
        for term in self.terms_of(new):
            index = elements if term.index is None else term.index[elements]
            chosen.append(MovedSource(term.root, PositionMap.of(index, self.step.size(term.root)).index))
        return tuple(term for term in chosen if not term.is_empty)

    @cached_property
    def arithmetic_results(self) -> frozenset[Var]:
        """What is computed position by position."""
        return frozenset(out for eqn in self.of_kind(EquationKind.ARITHMETIC) for out in eqn.outvars)


def classify_equations(step: StepView, maps: AffineMaps) -> EquationKinds:
    """The kind of every equation, and what every array is made up of."""
    classifier = _Classifier(step, maps, _terms_at_start(step), _count_readers(step))
    for eqn in step.equations:
        classifier.visit(eqn)
    return EquationKinds(step, maps, classifier.kind, classifier.terms, frozenset(classifier.noise), step.parts, {})


def crosses(dtype: Any) -> bool:
    """Whether values can go from one node of a graph to another as real numbers."""
    if is_key(dtype):
        return False
    return is_real(dtype) or dtype == np.bool_ or np.issubdtype(dtype, np.signedinteger)


@dataclass(eq=False)
class _Classifier:
    """A walk through the equations in order.

    Kinds and terms come from one pass, since whether a sum is a move depends on what its operands are made up of.
    """

    step: StepView
    maps: AffineMaps
    terms: dict[Var, Terms]
    readers: Mapping[Var, int]
    kind: dict[int, EquationKind] = field(default_factory=dict)
    noise: set[Var] = field(default_factory=set)

    def visit(self, eqn: Equation) -> None:
        kind = self.kind[id(eqn)] = self._kind_of(eqn)
        if kind is EquationKind.MOVE:
            self.terms.update(zip(eqn.outvars, self._moved(eqn), strict=True))
        elif kind is not EquationKind.INSIDE:
            self.terms.update((out, (MovedSource(out),)) for out in eqn.outvars)

    def _kind_of(self, eqn: Equation) -> EquationKind:
        if id(eqn) in self.maps.equations:
            return EquationKind.MAP if id(eqn) in self.maps.last else EquationKind.INSIDE
        changing = [a for a in variables_of(eqn.invars) if not self.step.is_static(a)]
        # Random keys and their bits are no real numbers, so no projection can bring them: what handles them stays
        # together on whole arrays, down to the numbers that are drawn.
        if eqn.effects or any(not crosses(dtype_of(a)) for a in (*changing, *eqn.outvars)) or self._is_noise(eqn):
            self.noise.update(eqn.outvars)
            return EquationKind.WHOLE
        if only_moves(self.step, eqn) or (eqn.primitive.name in SUMS and self._is_sum_of_maps(eqn)):
            return EquationKind.MOVE
        if is_scalable(eqn) and self._is_at_positions(eqn):
            return EquationKind.ARITHMETIC
        return EquationKind.WHOLE

    def _is_noise(self, eqn: Equation) -> bool:
        """Whether an equation shapes random numbers and nothing else."""
        atoms = variables_of(eqn.invars)
        changing = [a for a in atoms if not self.step.is_static(a)]
        return all(a in self.noise for a in changing) and not any(
            self.step.is_learned(a) for a in atoms if a not in changing
        )

    def _is_sum_of_maps(self, eqn: Equation) -> bool:
        """Whether what is added comes from affine maps and from what does not change, and is used for nothing else.

        Then the graph adds it up: two projections into one port, without a population in between.
        """
        if not is_floating(dtype_of(eqn.outvars[0])):
            return False
        operands = variables_of(eqn.invars)
        if len(operands) != 2 or operands[0] is operands[1]:
            return False
        if any(size_of(a) != size_of(eqn.outvars[0]) for a in operands):
            return False
        for atom in operands:
            if not self.step.is_static(atom) and self.readers[atom] > 1:
                return False
            terms = _terms_of(self.step, self.terms, atom)
            if not all(self.step.is_static(t.root) or t.root in self.maps.by_result for t in terms):
                return False
        return True

    def _is_at_positions(self, eqn: Equation) -> bool:
        size = size_of(eqn.outvars[0])
        if any(size_of(out) != size for out in eqn.outvars):
            return False
        # A single number is the same at every position: a scalar state that scales a whole population.
        if any(size_of(a) not in (1, size) for a in variables_of(eqn.invars)):
            return False
        for dependences in self.step.dependences(eqn):
            for (operand, _), maps in dependences.items():
                if size_of(eqn.invars[operand]) == size and maps != ONLY_IDENTITY:
                    return False
        return True

    def _moved(self, eqn: Equation) -> list[Terms]:
        """What the results of a move are made up of."""
        results = []
        for dependences in self.step.dependences(eqn):
            moved: list[MovedSource] = []
            for (operand, _), maps in dependences.items():
                for term in _terms_of(self.step, self.terms, eqn.invars[operand]):
                    moved += [term.moved(position_map, self.step.size(term.root)) for position_map in maps or ()]
            results.append(joined([term for term in moved if not term.is_empty], self.step.size))
        return results


def _terms_of(step: StepView, terms: Mapping[Var, Terms], atom: Any) -> Terms:
    return (MovedSource(atom),) if step.is_static(atom) else terms[atom]


def _terms_at_start(step: StepView) -> dict[Var, Terms]:
    """What inputs and old states are made up of: of themselves, and of their parts."""
    terms: dict[Var, Terms] = {var: (MovedSource(var),) for var in step.info.input_invars}
    for part, elements in step.parts.items():
        old = step.states[part.state][0]
        index = None
        if elements is not None:
            index = np.full(size_of(old), -1)
            index[elements] = np.arange(elements.size)
        terms[old] = (*terms.get(old, ()), MovedSource(part, index))
    return terms


def _count_readers(step: StepView) -> dict[Var, int]:
    """How many equations, new states and outputs read a variable."""
    count: dict[Var, int] = {}
    results = [*(new for _, new in step.states), *step.info.output_outvars]
    for eqn in step.equations:
        for atom in dict.fromkeys(variables_of(eqn.invars)):
            count[atom] = count.get(atom, 0) + 1
    for atom in variables_of(results):
        count[atom] = count.get(atom, 0) + 1
    return count
