"""Delay lines: parts of states whose elements only pass values on, as a shift register does.

Where an element of a state is, after every step, what another element or a result of the step is, reading it is reading
that result some steps later. So no population is needed to hold it: a projection has a delay.

With ``line = concatenate([h[None], line[:-1]])``, h of 2 neurons and a line of 3 rows, elements 0 and 1 of the new line
are h, and element k is the old element k - 2. Followed back to what is no element of the line, elements 0 to 5 are
elements 0, 1, 0, 1, 0, 1 of h, from 1, 1, 2, 2, 3, 3 steps ago. ``line[-1]`` is then ``Earlier(h, 3)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..program._jax import Literal, Var, dtype_of, is_real, variables_of
from .kinds import EquationKind, EquationKinds
from .references import NOTHING, MovedSource, OldState, Register, Root, Terms, is_whole, joined
from .step import StepView

MOST_TAPS = 16
"""Where something reads more steps of one line at once, a state that holds them all is simpler than so many
projections."""


def read_past_registers(kinds: EquationKinds) -> EquationKinds:
    """The same equations, which read what registers pass on directly from where it comes from."""
    registers = find_registers(kinds)
    return replace(
        kinds,
        registers=registers,
        parts={part: elements for part, elements in kinds.parts.items() if part not in registers},
        terms={var: substituted(terms, registers, kinds.step) for var, terms in kinds.terms.items()},
    )


def find_registers(kinds: EquationKinds) -> dict[OldState, Register]:
    """The parts of states that only pass values on, none of which is read at too many steps at once."""
    registers = _follow(kinds, {part for part in kinds.parts if _only_passes_on(kinds, part)})
    while True:
        spread = {part for part in registers if _count_taps(kinds, part, registers[part]) > MOST_TAPS}
        if not spread:
            return registers
        # A line that stays a state is the end of the way back for the lines behind it, so their steps change.
        registers = _follow(kinds, registers.keys() - spread)


def substituted(terms: Terms, registers: Mapping[OldState, Register], step: StepView) -> Terms:
    """Terms in which registers are replaced by what they pass on."""
    if not any(term.root in registers for term in terms):
        return terms
    parts: list[MovedSource] = []
    for term in terms:
        parts += registers[term.root].terms(term.index) if term.root in registers else [term]
    return tuple(_without_idle_index(term, step.size(term.root)) for term in joined(parts, step.size))


def _without_idle_index(term: MovedSource, size: int) -> MovedSource:
    """A term without an index where it moves nothing."""
    whole = term.index is not None and term.index.size == size and np.array_equal(term.index, np.arange(size))
    return MovedSource(term.root) if whole else term


def _only_passes_on(kinds: EquationKinds, part: OldState) -> bool:
    """Whether a part of a state starts from zero and gets moved values only, one for each element."""
    step = kinds.step
    old, new = step.states[part.state]
    # A delayed projection brings zeros before its first value arrives; a register that starts otherwise cannot be one.
    if isinstance(new, Literal) or not is_real(dtype_of(old)) or np.any(step.initial_part(part)):
        return False
    terms = kinds.new_terms(part)
    if not terms or (is_whole(terms) and terms[0].root in kinds.arithmetic_results):
        return False
    # An element that is a sum of two moved values would need a population to add them.
    filled = np.zeros(step.size(part), int)
    for term in terms:
        filled += 1 if term.index is None else term.index >= 0
    changing = all(not step.is_static(t.root) and _starts_from_zero(kinds, t.root) for t in terms)
    return changing and bool(np.all(filled <= 1))


def _starts_from_zero(kinds: EquationKinds, root: Root) -> bool:
    """Whether what a root was before the first step is zero, as a register has it that starts from zero."""
    if root in kinds.noise or not is_real(_dtype(kinds, root)):
        return False
    if isinstance(root, OldState):
        return not np.any(kinds.step.initial_part(root))
    new = [part for part in kinds.parts if is_whole(terms := kinds.new_terms(part)) and terms[0].root is root]
    return not any(np.any(kinds.step.initial_part(part)) for part in new)


def _dtype(kinds: EquationKinds, root: Root) -> Any:
    return dtype_of(kinds.step.states[root.state][0] if isinstance(root, OldState) else root)


def _follow(kinds: EquationKinds, parts: set[OldState]) -> dict[OldState, Register]:
    """Follows elements of the parts back to what is none of them; what only goes round is left out."""
    # All parts in one row, so that a line that hands over to another is followed like one long line.
    starts, size = {}, 0
    for part in parts:
        starts[part] = size
        size += kinds.step.size(part)
    before = np.full(size, NOTHING)
    source, element = np.full(size, NOTHING), np.full(size, NOTHING)
    roots: dict[Root, int] = {}
    for part in parts:
        for term in kinds.new_terms(part):
            index = np.arange(kinds.step.size(part)) if term.index is None else term.index
            here = starts[part] + np.flatnonzero(index >= 0)
            taken = index[index >= 0]
            if term.root in starts:
                before[here] = starts[term.root] + taken
            else:
                source[here], element[here] = roots.setdefault(term.root, len(roots)), taken
    at, steps = _ends(before)
    endless = before[at] >= 0
    rows = {part: slice(starts[part], starts[part] + kinds.step.size(part)) for part in parts}
    if endless.any():
        # A rotation that nothing enters has no end. What reads from it has none either, unless it stays a state.
        return _follow(kinds, {part for part in parts if not endless[rows[part]].any()})
    return {part: Register(tuple(roots), source[at[row]], element[at[row]], steps[row]) for part, row in rows.items()}


def _ends(before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every element the last one on the way back, and after how many steps; one that goes round has none."""
    steps = np.ones(before.size, int)
    at = np.arange(before.size)
    for _ in range(before.size):
        moving = before[at] >= 0
        if not moving.any():
            break
        at = np.where(moving, before[at], at)
        steps += moving
    return at, steps


def _count_taps(kinds: EquationKinds, part: OldState, register: Register) -> int:
    """How many steps of a line are read at once."""
    most = 0
    for terms in _reads(kinds):
        chosen = [np.arange(register.steps.size) if t.index is None else t.index for t in terms if t.root == part]
        numbers = np.concatenate(chosen) if chosen else np.zeros(0, int)
        most = max(most, np.unique(register.steps[numbers[numbers >= 0]]).size)
    return most


def _reads(kinds: EquationKinds) -> list[Terms]:
    """What is read by all that does not only move it."""
    atoms: dict[Var, None] = {}
    for eqn in kinds.step.equations:
        if kinds.kind[id(eqn)] is not EquationKind.MOVE:
            atoms.update(dict.fromkeys(variables_of(eqn.invars)))
    atoms.update(dict.fromkeys(variables_of(kinds.step.info.output_outvars)))
    return [kinds.terms_of(atom) for atom in atoms if not kinds.step.is_static(atom) and atom in kinds.terms]
