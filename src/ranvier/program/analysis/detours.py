"""Ways within a step that no position-by-position path covers.

Eligibility traces follow a source (an old state, or the result of a projection) through equations that keep positions
apart. Where a source meets an equation that mixes positions and still reaches a state, the trace does not follow: that
is a detour. In ``y = x @ w; a' = 0.8 a + y; b' = 0.9 b + tanh(y) @ u`` the source y reaches a' straight and b' by a
detour through ``@ u``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .._jax import Equation, Var
from ..bodies import has_derivative
from ..program import ModuleInfo
from .reachability import differentiated_operands, feeds_of, is_mixed, reach


@dataclass(frozen=True, eq=False)
class Detour:
    """The first mixing equation on ways from sources to states.

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


def detours(info: ModuleInfo, sources: Sequence[Iterable[Var]], without: frozenset[int] = frozenset()) -> list[Detour]:
    """All detours of a program, each way named once, at its first mixing equation.

    Args:
        info: the program.
        sources: for every source the variables where it starts. The first ``len(info.hidden)`` are the hidden states; a
            path through a new hidden state counts as a path of that state.
        without: ``id`` of equations that are no detour, since what passes them is carried by other means.
    """
    reached, feeds = reach(info, by_gradient=True, past_hidden=False, without=without), feeds_of(info)
    own = {var: 1 << j for j, var in enumerate(info.hidden_outvars)}
    # Forward, with the sources that arrive at each variable straight. The first equation that mixes one takes it out of
    # the set, so that a way through two products is named once, where it was lost.
    straight: dict[Var, int] = {}
    for number, variables in enumerate(sources):
        for var in variables:
            straight[var] = straight.get(var, 0) | 1 << number
    first: list[Detour] = []
    for eqn in info.equations:
        if not has_derivative(eqn):
            continue
        mixed = unmixed = 0
        operands: list[Var] = []
        for k, atom in differentiated_operands(eqn):
            if is_mixed(feeds, eqn, k):
                mixed |= straight.get(atom, 0)
                operands += [atom] if straight.get(atom) else []
            else:
                unmixed |= straight.get(atom, 0)
        targets = 0
        for var in eqn.outvars:
            targets |= reached.mask(var)
            # A new hidden state is a source of its own: what reached it is carried by D, or lost before.
            straight[var] = straight.get(var, 0) | (0 if var in own else unmixed)
        if mixed and targets and id(eqn) not in without:
            first.append(Detour(eqn, mixed, targets, tuple(operands)))
    return first
