"""Which states learning has to do with: those that some parameter reaches, now or in a later step.

The others are data to every learning rule: an input trace, a running statistic, a constant that is passed on. They
carry no eligibility trace, and a person may prefer to call them other states. And where a state that is not called
hidden is reached, and a later loss feels it, learning has to follow it all the same.
"""

from __future__ import annotations

from .._jax import is_copy
from ..paths import Path
from ..program import ModuleInfo
from .cache import cached_by_program
from .lasting import lasting_states
from .reachability import bits_of, reach_onward


@cached_by_program
def states_of_parameters(info: ModuleInfo) -> int:
    """Bit mask, laid out as in :class:`.Reach`, of the states that a derivative by a parameter ever reaches."""
    through = reach_onward(info)
    reached = 0
    for var in info.weight_invars:
        reached |= through.mask(var)
    old = [*info.hidden_invars, None, *info.other_invars]
    # From state to state, step by step, until a round adds none.
    while True:
        more = reached
        for bit in bits_of(reached):
            more |= 0 if old[bit] is None else through.mask(old[bit])
        if more == reached:
            return reached
        reached = more


def states_without_parameters(info: ModuleInfo) -> tuple[int, ...]:
    """Indices of the hidden states that no derivative by a parameter ever reaches, in order."""
    reached = states_of_parameters(info)
    return tuple(j for j in range(len(info.hidden)) if not reached >> j & 1)


def other_states_that_learn(info: ModuleInfo) -> tuple[int, ...]:
    """Indices of the leaves of other states that parameters reach and a later loss feels, in order."""
    return tuple(bits_of((states_of_parameters(info) & lasting_states(info)) >> len(info.hidden) + 1))


def unchanged_states(info: ModuleInfo) -> tuple[Path, ...]:
    """Paths of the hidden states that the step returns as they came, in order."""
    made = {var: eqn for eqn in info.equations for var in eqn.outvars}
    return tuple(
        slot.path
        for slot, old, new in zip(info.hidden, info.hidden_invars, info.hidden_outvars, strict=True)
        if new is old or (is_copy(made.get(new)) and made[new].invars[0] is old)
    )
