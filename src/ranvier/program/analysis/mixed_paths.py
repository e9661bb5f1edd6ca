"""Paths within a step that pass through an equation that mixes positions.

Eligibility traces follow a source (an old state, or the result of a projection) through equations that keep positions
apart. Where a source meets an equation that mixes positions and still reaches a state, no trace follows: that is a
mixed path. In ``y = x @ w; a' = 0.8 a + y; b' = 0.9 b + tanh(y) @ u`` the source y reaches a' by a direct path, and b'
by a mixed path through ``@ u``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._jax import Equation, Var
from ..bodies import has_derivative
from ..program import ModuleInfo
from .reachability import differentiated_operands, feeds_of, mixed_results, reach


@dataclass(frozen=True, eq=False)
class MixedPath:
    """The first mixing equation on paths from sources to states.

    Attributes:
        equation: the equation.
        sources: bit mask of the sources that enter it without having been mixed before.
        targets: bit mask of what its results reach, up to the first new hidden state, as :class:`.Reach` has it.
        operands: the operands through which the sources enter.
    """

    equation: Equation
    sources: int
    targets: int
    operands: tuple[Var, ...]

    @property
    def cut(self) -> tuple[tuple[Equation, Var], ...]:
        """The equation with each of the operands."""
        return tuple((self.equation, var) for var in self.operands)


def mixed_paths(
    info: ModuleInfo, sources: Sequence[Iterable[Var]], without: frozenset[int] = frozenset()
) -> list[MixedPath]:
    """All mixed paths of a program, each once, at its first mixing equation.

    Args:
        info: the program.
        sources: for every source the variables where it starts. The first ``len(info.hidden)`` are the hidden states; a
            path through a new hidden state counts as a path of that state.
        without: ``id`` of equations that do not count, since the rule carries what passes them by other means.
    """
    reached, feeds = reach(info, by_gradient=True, past_hidden=False, without=without), feeds_of(info)
    own = {var: 1 << j for j, var in enumerate(info.hidden_outvars)}
    # Forward, with the sources that arrive at each variable by a direct path. The first equation that mixes one takes
    # it out of the set, so that a path through two products is listed once, where it is lost.
    direct: dict[Var, int] = {}
    for number, variables in enumerate(sources):
        for var in variables:
            direct[var] = direct.get(var, 0) | 1 << number
    paths: list[MixedPath] = []
    for eqn in info.equations:
        if not has_derivative(eqn):
            continue
        mixed = targets = 0
        operands: list[Var] = []
        for k, atom in differentiated_operands(eqn):
            arriving = direct.get(atom, 0)
            if not arriving:
                continue
            in_results = mixed_results(feeds, eqn, k)
            if in_results:
                mixed |= arriving
                operands.append(atom)
            for var in eqn.outvars:
                if var in in_results:
                    targets |= reached.mask(var)
                # A new hidden state is a source of its own: what reached it is carried by D, or lost before.
                elif var not in own:
                    direct[var] = direct.get(var, 0) | arriving
        if mixed and targets and id(eqn) not in without:
            paths.append(MixedPath(eqn, mixed, targets, tuple(operands)))
    return paths
