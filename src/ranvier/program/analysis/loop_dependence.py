"""Dependences of a loop's results from those of one turn of its body, whatever the number of turns.

What a carried value depends on before some turn is the smallest set that holds the value the loop starts with and is
closed under one more turn. Scanned operands and stacked results are followed slice by slice, and laid out along time
at the end.

A loop that rolls three carried values c by one place in every turn: before the first turn c depends on itself by the
identity, after one turn by [2, 0, 1], after two by [1, 2, 0], and after three by the identity again. No turn adds
a fourth map, so c after the loop depends on c before it by these three. A loop ``c = 0.5 c + x`` over the rows of x,
[3, 2], gives a last c that depends on x by three maps, [0, 1], [2, 3] and [4, 5]: one for every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .._jax import Equation, size_of
from ..bodies import Loop, loop_of
from .dependences import Dependences, Key, add_dependence, chained
from .position_map import MAX_MAPS, ONLY_IDENTITY, Maps, PositionMap

MAX_SLICES = 1024
"""A result that depends on more slices than this, each in its own way, counts as mixing them."""


def loop_dependences(eqn: Equation, turn: Sequence[Dependences]) -> list[Dependences]:
    """For each result of a loop, the position maps to each operand.

    Args:
        eqn: a ``scan`` or ``while`` equation.
        turn: for each result of the loop's body the maps to each of the body's operands.
    """
    return _LoopDependence(eqn, loop_of(eqn), turn).results()


@dataclass(frozen=True)
class _LoopDependence:
    eqn: Equation
    loop: Loop
    turn: Sequence[Dependences]

    def results(self) -> list[Dependences]:
        if self.before_any_turn is None:
            return [{} for _ in self.eqn.outvars]
        results = [self._carried_out(j) for j in range(self.loop.num_carried)]
        results += [self._stacked(j) for j in range(self.loop.num_carried, len(self.turn))]
        return [{(k + self.loop.first, gradient): m for (k, gradient), m in d.items() if m} for d in results]

    @cached_property
    def before_any_turn(self) -> list[Dependences] | None:
        """The dependences of every carried value before a turn, whichever it is; None where they come to no end."""
        current: list[Dependences] = [{(k, True): ONLY_IDENTITY} for k in self._carried]
        # Every round adds a map or is the last; more than MAX_MAPS maps become mixing, so more rounds add nothing.
        for _ in range(self.loop.num_carried + MAX_MAPS):
            following = [dict(d) for d in current]
            for j, d in enumerate(following):
                for key, maps in self._after_a_turn(j, current):
                    add_dependence(d, key, maps, self._result_sizes[j], self._sizes[key[0]])
            if following == current:
                return current
            current = following
        return None

    def _after_a_turn(self, number: int, before: Sequence[Dependences]) -> Iterator[tuple[Key, Maps]]:
        """The dependences of a result of the body, in a turn that comes after ``before``."""
        for (operand, gradient), maps in self.turn[number].items():
            if operand in self._carried:
                inner = before[operand - self._carried.start]
                yield from chained(maps, gradient, inner, self._result_sizes[number], self._sizes).items()
            else:
                yield (operand, gradient), maps

    def _carried_out(self, number: int) -> Dependences:
        """The dependences of a carried value after the loop, on the slices of all turns."""
        assert self.before_any_turn is not None
        size = self._result_sizes[number]
        # A loop without a turn gives back what it started with.
        dependences = dict(self.before_any_turn[number]) if self.loop.may_end_at_once else {}
        for key, maps in self._after_a_turn(number, self.before_any_turn) if self.loop.may_turn else ():
            add_dependence(dependences, key, maps, size, self._sizes[key[0]])
        return {key: self._of_all_slices(key[0], maps, size) for key, maps in dependences.items()}

    def _of_all_slices(self, operand: int, maps: Maps, size: int) -> Maps:
        if maps is None or operand not in self._scanned:
            return maps
        return self._laid_out([m.indices(size) + shift for m in maps for shift in self._starts(operand)], operand)

    def _stacked(self, number: int) -> Dependences:
        """The dependences of a stacked result, whose row of a turn depends on the slices of this turn and, by way of
        carried values, of those before."""
        assert self.before_any_turn is not None
        dependences: Dependences = {}
        for (operand, gradient), maps in self.turn[number].items():
            if operand in self._carried:
                inner = self.before_any_turn[operand - self._carried.start]
                through = chained(maps, gradient, inner, self._result_sizes[number], self._sizes)
            else:
                through = {(operand, gradient): maps}
            for key, to_slice in through.items():
                rows = self._rows(key[0], to_slice, number, operand in self._carried)
                add_dependence(dependences, key, rows, size_of(self.eqn.outvars[number]), self._whole_size(key[0]))
        return dependences

    def _rows(self, operand: int, maps: Maps, number: int, earlier: bool) -> Maps:
        """Maps from all rows of a stacked result."""
        if maps is None:
            return None
        turns, size = self.loop.length, self._result_sizes[number]
        in_turn = [np.broadcast_to(m.indices(size), (turns, size)) for m in maps]
        if operand not in self._scanned:
            return self._laid_out(in_turn, operand)
        starts = np.asarray(self._starts(operand), dtype=np.int64)[:, None]
        if not earlier:
            return self._laid_out([np.where(index >= 0, index + starts, -1) for index in in_turn], operand)
        # By way of a carried value: the row of a turn depends on the slice of every turn before it.
        ahead = -1 if self.loop.reverse else 1
        rows = []
        for distance in range(1, turns):
            source = np.arange(turns)[:, None] - ahead * distance
            exists = (source >= 0) & (source < turns)
            starts_there = source * self._sizes[operand]
            rows += [np.where(exists & (index >= 0), index + starts_there, -1) for index in in_turn]
        return self._laid_out(rows, operand)

    def _laid_out(self, indices: Sequence[np.ndarray], operand: int) -> Maps:
        if len(indices) > MAX_SLICES:
            return None
        return tuple(PositionMap.of(index, self._whole_size(operand)) for index in indices)

    def _starts(self, operand: int) -> range:
        """Where the slices of a scanned operand start."""
        return range(0, self._whole_size(operand), self._sizes[operand]) if self._sizes[operand] else range(0)

    def _whole_size(self, operand: int) -> int:
        return size_of(self.eqn.invars[self.loop.first + operand])

    @cached_property
    def _carried(self) -> range:
        return range(self.loop.num_constants, self.loop.num_constants + self.loop.num_carried)

    @property
    def _scanned(self) -> range:
        return range(self._carried.stop, len(self._sizes))

    @cached_property
    def _sizes(self) -> list[int]:
        """Sizes of the body's operands."""
        return [size_of(var) for var in self.loop.invars]

    @cached_property
    def _result_sizes(self) -> list[int]:
        """Sizes of the body's results."""
        return [size_of(atom) for atom in self.loop.outvars]
