"""Which hidden states learning has to do with: those that some parameter reaches, now or in a later step.

The others are data to every learning rule: an input trace, a running statistic, a constant that is passed on. They
carry no eligibility trace, and a person may prefer to call them other states.
"""

from __future__ import annotations

from ..ir.program import ModuleInfo
from .cache import cached_by_program
from .feeds import bits_of, reach


@cached_by_program
def states_without_parameters(info: ModuleInfo) -> tuple[int, ...]:
    """Indices of the hidden states that no derivative by a parameter ever reaches, in order."""
    through = reach(info, by_gradient=True, past_hidden=True)
    reached = 0
    for var in info.weight_invars:
        reached |= through.mask(var)
    old = [*info.hidden_invars, None, *info.other_invars]
    # From state to state, step by step; one round more than there are states changes nothing.
    while True:
        more = reached
        for bit in bits_of(reached):
            more |= 0 if old[bit] is None else through.mask(old[bit])
        if more == reached:
            return tuple(j for j in range(len(info.hidden)) if not reached >> j & 1)
        reached = more
