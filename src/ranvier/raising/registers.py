"""Delay lines: parts of states whose elements only pass values on, as a shift register does.

Where an element of a state is, after every step, what another element or a result of the step is, reading it is reading
that result some steps later. So no population is needed to hold it: a projection has a delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..program._jax import Literal, Var, dtype_of, is_real, variables_of
from .references import NOTHING, Earlier, MovedSource, OldState, Register, Root, Terms, is_whole, joined
from .roles import EquationKinds

MOST_TAPS = 16
"""Where something reads more steps of one line at once, a state that holds them all is simpler than so many
projections."""


def pass_by_registers(roles: EquationKinds) -> None:
    """Reads what parts of states only pass on from where it comes from."""
    roles.registers = registers_of(roles)
    roles.register_elements = {part: roles.components.pop(part) for part in roles.registers}
    for var, terms in roles.terms.items():
        roles.terms[var] = substituted(terms, roles.registers, roles.sizes)


def registers_of(roles: EquationKinds) -> dict[OldState, Register]:
    """The parts of states that only pass values on, none of which is read at too many steps at once."""
    found = _registers(roles, {part for part in roles.components if _only_moves(roles, part)})
    while True:
        spread = {part for part in found if _taps(roles, part, found[part]) > MOST_TAPS}
        if not spread:
            return found
        found = _registers(roles, found.keys() - spread)


def substituted(terms: Terms, registers: Mapping[OldState, Register], sizes: dict[Root, int]) -> Terms:
    """Terms without the old states that are registers."""
    if not any(term.root in registers for term in terms):
        return terms
    parts: list[MovedSource] = []
    for term in terms:
        parts += registers[term.root].terms(term.index) if term.root in registers else [term]
    for term in parts:
        if isinstance(term.root, Earlier):
            sizes[term.root] = sizes[term.root.root]
    return tuple(_plain(term, sizes) for term in joined(parts, sizes))


def _plain(term: MovedSource, sizes: Mapping[Root, int]) -> MovedSource:
    """A term without an index where it moves nothing."""
    size = sizes[term.root]
    whole = term.index is not None and term.index.size == size and np.array_equal(term.index, np.arange(size))
    return MovedSource(term.root) if whole else term


def _only_moves(roles: EquationKinds, part: OldState) -> bool:
    """Whether a part of a state starts from zero and gets moved values only, one for each element."""
    old, new = roles.state_vars[part.state]
    if isinstance(new, Literal) or not is_real(dtype_of(old)) or np.any(_initial(roles, part)):
        return False
    terms = roles.new_state(part)
    if not terms or (is_whole(terms) and terms[0].root in roles.arithmetic_results):
        return False
    filled = np.zeros(roles.sizes[part], int)
    for term in terms:
        filled += 1 if term.index is None else term.index >= 0
    changing = all(not roles.is_static(t.root) and _from_zero(roles, t.root) for t in terms)
    return changing and bool(np.all(filled <= 1))


def _initial(roles: EquationKinds, part: OldState) -> np.ndarray:
    leaves = [leaf for slot in (*roles.info.hidden, *roles.info.other) for leaf in slot.initial]
    value = np.asarray(leaves[part.state]).reshape(-1)
    elements = roles.components[part]
    return value if elements is None else value[elements]


def _from_zero(roles: EquationKinds, root: Root) -> bool:
    """Whether what a root was before the first step is zero, as a register has it that starts from zero."""
    if root in roles.noise or not is_real(_dtype(roles, root)):
        return False
    if isinstance(root, OldState):
        return not np.any(_initial(roles, root))
    new = [part for part in roles.components if is_whole(found := roles.new_state(part)) and found[0].root is root]
    return not any(np.any(_initial(roles, part)) for part in new)


def _dtype(roles: EquationKinds, root: Root) -> Any:
    return dtype_of(roles.state_vars[root.state][0] if isinstance(root, OldState) else root)


def _registers(roles: EquationKinds, parts: set[OldState]) -> dict[OldState, Register]:
    """Follows elements of the parts to what is none of them; what only goes round is left out."""
    starts, size = {}, 0
    for part in parts:
        starts[part] = size
        size += roles.sizes[part]
    following = np.full(size, NOTHING)
    source, element = np.full(size, NOTHING), np.full(size, NOTHING)
    roots: dict[Root, int] = {}
    for part in parts:
        for term in roles.new_state(part):
            index = np.arange(roles.sizes[part]) if term.index is None else term.index
            here = starts[part] + np.flatnonzero(index >= 0)
            taken = index[index >= 0]
            if term.root in starts:
                following[here] = starts[term.root] + taken
            else:
                source[here], element[here] = roots.setdefault(term.root, len(roots)), taken
    steps = np.ones(size, int)
    at = np.arange(size)
    for _ in range(size):
        moving = following[at] >= 0
        if not moving.any():
            break
        at = np.where(moving, following[at], at)
        steps += moving
    endless = following[at] >= 0
    found = {}
    for part in parts:
        own = slice(starts[part], starts[part] + roles.sizes[part])
        if endless[own].any():
            return _registers(roles, {p for p in parts if not endless[starts[p] : starts[p] + roles.sizes[p]].any()})
        found[part] = Register(tuple(roots), source[at[own]], element[at[own]], steps[own])
    return found


def _taps(roles: EquationKinds, part: OldState, register: Register) -> int:
    """How many steps of a line are read at once."""
    most = 0
    for terms in _reads(roles):
        chosen = [np.arange(register.steps.size) if t.index is None else t.index for t in terms if t.root == part]
        numbers = np.concatenate(chosen) if chosen else np.zeros(0, int)
        most = max(most, np.unique(register.steps[numbers[numbers >= 0]]).size)
    return most


def _reads(roles: EquationKinds) -> list[Terms]:
    """What is read by all that does not only move it."""
    atoms: dict[Var, None] = {}
    for eqn in roles.equations:
        if not roles.is_move(eqn):
            atoms.update(dict.fromkeys(variables_of(eqn.invars)))
    atoms.update(dict.fromkeys(variables_of(roles.info.output_outvars)))
    return [roles.of(atom) for atom in atoms if not roles.levels.is_static(atom) and atom in roles.terms]
