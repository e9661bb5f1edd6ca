"""All rules with their usual options, and what each would keep for a program."""

from __future__ import annotations

from ...program.analysis.memory import RuleMemory, memory_sizes
from ...program.program import ModuleInfo
from ..rule import Rule
from .bptt import BPTT
from .d_rtrl import D_RTRL
from .eprop import EProp
from .es_d_rtrl import ES_D_RTRL
from .ostl import OSTL
from .ottt import OTTT
from .rtrl import RTRL
from .snap import SnAp
from .three_factor import ThreeFactor
from .uoro import UORO

RULES: tuple[Rule, ...] = (
    *(BPTT(), RTRL(), UORO(), SnAp(1), D_RTRL()),
    *(OSTL(), EProp(), ThreeFactor(), ES_D_RTRL(decay=0.9), OTTT()),
)


def rule_memory(info: ModuleInfo) -> list[RuleMemory]:
    """Memory of the learning rules for one sample of a program; a leading batch axis is divided out."""
    rows = [rule.memory(memory_sizes(info)) for rule in RULES]
    return [row for row in rows if row is not None]
