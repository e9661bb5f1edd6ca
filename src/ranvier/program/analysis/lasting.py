"""Which states a later loss feels.

The new value of a state matters beyond its own step only if the next step reads it, with a derivative, on a path to an
output or to another state that matters. With ``a' = a + x``, ``b' = 0.9 b + a'`` and the output
``tanh(b')``, both last; add ``c' = 0.5 c + a'`` that nothing but itself reads, and c does not: no derivative of a loss
ever passes through it, so nothing is lost where no trace follows it.
"""

from __future__ import annotations

from ..program import ModuleInfo
from .cache import cached_by_program
from .reachability import reach_onward


@cached_by_program
def lasting_states(info: ModuleInfo) -> int:
    """Bit mask, laid out as :class:`.Reach` has it, of the hidden and other states that a later loss feels."""
    through = reach_onward(info)
    hidden = len(info.hidden)
    old = dict(enumerate(info.hidden_invars))
    old |= {hidden + 1 + k: var for k, var in enumerate(info.other_invars)}
    outputs = 1 << hidden
    lasting = 0
    while True:
        # One more round of the fixed point: states whose old value reaches an output or a state known to last.
        more = lasting
        for bit, var in old.items():
            if through.mask(var) & (outputs | lasting):
                more |= 1 << bit
        if more == lasting:
            return lasting
        lasting = more
