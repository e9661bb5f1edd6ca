"""``rule="auto"``: for every parameter, the rule whose gradient is closest to the exact one within a memory limit.

Candidates are measured on a sample. Every parameter starts with the rule that needs least memory for it. Then, as long
as memory is left, the change that lowers a parameter's error most is made: with D_RTRL at 100 bytes and an error of 0.5
and ES_D_RTRL at 10 bytes and 0.9, a limit of 50 bytes leaves ES_D_RTRL, one of 100 takes D_RTRL.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from ...errors import RuleError
from ...program.paths import Path
from ...program.program import ModuleInfo
from ..plan import memory_bytes
from ..rule import Rule
from ..rules.by_parameter import ByParameter
from ..rules.d_rtrl import D_RTRL
from ..rules.eprop import EProp
from ..rules.es_d_rtrl import ES_D_RTRL
from ..rules.rtrl import RTRL
from ..rules.snap import SnAp
from .compare import Agreement, RuleComparison

CANDIDATES: tuple[Rule, ...] = (D_RTRL(), EProp(), ES_D_RTRL(decay=0.9), ES_D_RTRL(decay=0.5), SnAp(1), RTRL())

DENSE_LIMIT = 2**24
"""Elements of a dense influence matrix above which rules that keep one are not even tried."""


def candidates_for(program: ModuleInfo, limit: int) -> list[Rule]:
    """The candidate rules for a program: those whose memory fits the limit on its own."""
    states = sum(math.prod(slot.shape) for slot in program.hidden)
    weights = sum(leaf.size for slot in program.parameters for leaf in slot.initial)
    # Even to measure them, J would have to be made; 4 bytes for each number.
    dense = states * weights <= DENSE_LIMIT and states * weights * 4 <= limit
    return [rule for rule in CANDIDATES if dense or not isinstance(rule, SnAp | RTRL)]


def choose(program: ModuleInfo, rules: Sequence[Rule], comparison: RuleComparison, limit: int) -> ByParameter:
    """Chooses a rule for every parameter.

    Args:
        program: the model's program.
        rules: the candidates.
        comparison: the candidates on a sample, in the same order.
        limit: bytes that all rules together may keep between steps.

    Raises:
        RuleError: no candidate can be applied, or even the smallest needs more than the limit.
    """
    usable = [
        (rule, result.parameters) for rule, result in zip(rules, comparison.results, strict=True) if not result.refused
    ]
    if not usable:
        raise RuleError(f"no rule works for {program.name}: {comparison}")
    sizes = [_sizes(program, rule) for rule, _ in usable]
    paths = [slot.path for slot in program.parameters]
    # From the smallest up, so that every step on the way fits: the other way round, the start might need more than the
    # machine has.
    chosen = {path: min(range(len(usable)), key=lambda n: (sizes[n](k), n)) for k, path in enumerate(paths)}
    free = limit - sum(sizes[n](k) for k, n in enumerate(chosen.values()))
    if free < 0:
        raise RuleError(
            f"the smallest rules for {program.name} keep {limit - free} bytes between steps, which is more than "
            f"memory_limit={limit}; raise the limit, or use a smaller batch."
        )
    # A change may also free memory, so sizes count as differences. Every change lowers an error by more than rounding,
    # so no pair of rules can take turns for ever.
    while (change := _best_change(usable, sizes, paths, chosen, free)) is not None:
        k, n = change
        free -= sizes[n](k) - sizes[chosen[paths[k]]](k)
        chosen[paths[k]] = n
    return ByParameter(tuple((path, usable[n][0]) for path, n in chosen.items()))


def _sizes(program: ModuleInfo, rule: Rule) -> Callable[[int], int]:
    """Bytes that a rule keeps for one parameter, by its index."""
    kernel = rule.kernel(rule.prepare(program))
    known: dict[int, int] = {}

    def of(k: int) -> int:
        # Every round asks for all sizes again, and each means tracing the ``init`` of a kernel.
        if k not in known:
            known[k] = memory_bytes(kernel.only(frozenset({k})))
        return known[k]

    return of


def _best_change(
    usable: Sequence[tuple[Rule, Mapping[Path, Agreement]]],
    sizes: Sequence[Callable[[int], int]],
    paths: Sequence[Path],
    chosen: Mapping[Path, int],
    free: int,
) -> tuple[int, int] | None:
    """The parameter and the new rule that fit the limit and lower an error most; None if no change lowers any."""
    best, most = None, 1e-6
    for k, path in enumerate(paths):
        now = usable[chosen[path]][1][path].error
        for n, (_, agreements) in enumerate(usable):
            gain = now - agreements[path].error
            if gain > most and sizes[n](k) - sizes[chosen[path]](k) <= free:
                best, most = (k, n), gain
    return best
