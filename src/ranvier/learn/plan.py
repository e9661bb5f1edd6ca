"""What a learner does with a model, for a person: chunk, memory, the structure used, and what is left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax

from ..analyses.feeds import transfers_of
from ..analyses.hidden_groups import analyse_groups
from ..analyses.memory import size_text
from ..analyses.reasons import equation_text
from ..analyses.relations import analyse_relations
from ..ir.diagnostic import Diagnostic, DiagnosticKind
from ..ir.paths import path_text
from ..ir.program import ModuleInfo
from ..ir.table import table
from .blocks import CACHE_BYTES
from .forms import Zeros
from .kernel import Kernel
from .terms import terms_of

MEMORY_LIMIT = 256 * 2**20
"""Bytes of activations that a chunk may take, unless told otherwise."""

LEFT_OUT = (
    DiagnosticKind.MIXED_PATH,
    DiagnosticKind.STATE_MIXED,
    DiagnosticKind.STATE_THROUGH_OTHER,
    DiagnosticKind.OTHER_STATE_PARAMETER,
    DiagnosticKind.POSITIONS_MOVE,
    DiagnosticKind.STATE_BROADCAST,
    DiagnosticKind.INDIRECT_PARAMETER,
)
"""Findings of the analyses that tell what eligibility traces do not carry."""


@dataclass(frozen=True, eq=False)
class Plan:
    """The decisions behind a learner; print it.

    Attributes:
        rule: name of the rule.
        chunk: largest number of steps in a chunk; None for the whole sequence.
        reason: why.
        memory_bytes: what the rule keeps between steps.
        step_bytes: activations kept for every step of a chunk, about.
        dropped: what the rule leaves out of the temporal part.
        is_chosen: whether the chunk was left to Ranvier.
    """

    rule: str
    chunk: int | None
    reason: str
    memory_bytes: int
    step_bytes: int
    dropped: tuple[str, ...]
    is_chosen: bool
    _info: ModuleInfo
    _kernel: Kernel

    def __str__(self) -> str:
        chunk = "whole sequence" if self.chunk is None else f"up to {self.chunk} step{'s' * (self.chunk != 1)}"
        rows = [
            ("chunk", f"{chunk}: {self.reason}"),
            ("rule's memory", f"{size_text(self.memory_bytes)}, the same for any number of steps"),
            ("activations", f"about {size_text(self.step_bytes)} for every step of a chunk"),
        ]
        lines = [f"{self._info.name} learns by {self.rule}", *table(("", ""), rows)[1:]]
        lines += ["", "Parameters", *table(("parameter", "gradient", "kept between steps"), self._parameters())]
        lines += ["", "Left out of the temporal part", *([f"  {line}" for line in self.dropped] or ["  nothing"])]
        return "\n".join(lines)

    __repr__ = __str__

    def _parameters(self) -> Iterator[tuple[str, str, str]]:
        kept = self._kernel.kept()
        for number, slot in enumerate(self._info.parameters):
            found = [text for slots, text in kept if number in slots]
            gradient = "same step and in time" if found else "same step, exact"
            for k, text in enumerate(found or [""]):
                yield (path_text(slot.path), gradient, text) if k == 0 else ("", "", text)


def make_plan(info: ModuleInfo, kernel: Kernel, rule: str, chunk: int | None, memory_limit: int | None) -> Plan:
    """Chooses the chunk and writes the decisions down."""
    memory = jax.tree.leaves(jax.eval_shape(lambda: kernel.init(Zeros())))
    memory_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in memory)
    step_bytes = kernel.step_bytes()
    weights = sum(leaf.nbytes for slot in info.parameters for leaf in slot.initial)
    most, reason = _chunk(kernel, chunk, memory_bytes, step_bytes, memory_limit or MEMORY_LIMIT, weights)
    dropped = tuple(_dropped(info, kernel))
    return Plan(rule, most, reason, memory_bytes, step_bytes, dropped, chunk is None, info, kernel)


def _chunk(
    kernel: Kernel, chunk: int | None, memory_bytes: int, step_bytes: int, limit: int, weights: int
) -> tuple[int | None, str]:
    """The length of a chunk, and why. The gradients, of the size of the weights, are added up once per chunk."""
    if not kernel.chunked:
        return None, "this rule takes the steps of a call as they come"
    if chunk is not None:
        return chunk, "as asked for"
    within = f"the limit of {size_text(limit)}"
    room = max(CACHE_BYTES, 2 * weights)
    if kernel.in_cache and limit > room:
        cached, large = f"a cache of {size_text(room)}", f"twice the {size_text(weights)} of the gradients"
        limit, within = room, cached if room == CACHE_BYTES else large
    most = max(1, limit // max(step_bytes, 1))
    fits = f"the activations of {most} step{'s' * (most != 1)} fit {within}"
    if memory_bytes:
        return most, f"{fits}, and the traces of {size_text(memory_bytes)} are read and written once per chunk"
    return most, fits


def _dropped(info: ModuleInfo, kernel: Kernel) -> Iterator[str]:
    yield from kernel.left_out()
    if not kernel.by_position:
        return
    yield from _transfers(info, kernel)
    found: list[Diagnostic] = [*analyse_groups(info).diagnostics, *analyse_relations(info).diagnostics]
    yield from dict.fromkeys(str(d) for d in found if d.kind in LEFT_OUT)


def _transfers(info: ModuleInfo, kernel: Kernel) -> Iterator[str]:
    """Ways from hidden states through mixing operations into hidden states."""
    group_of = [analyse_groups(info).group_of[slot.path].index for slot in info.hidden]
    by_y = {id(eqn): term for term in terms_of(info) for eqn in term.equations}
    for transfer in transfers_of(info):
        if id(transfer.equation) in kernel.carried:
            continue
        term = by_y.get(id(transfer.equation))
        names = [path_text(info.parameters[k].path) for k in term.slots] if term else []
        by = ", ".join(names) or equation_text(transfer.equation)
        into = sorted({group_of[j] for j in transfer.targets})
        recurrent = any(group_of[j] in into for j in transfer.sources)
        yield (
            f"{'recurrent-projection' if recurrent else 'projection'}: "
            f"{', '.join(path_text(info.hidden[j].path) for j in transfer.sources)} into group "
            f"{', '.join(map(str, into))} through {by} (and what follows it in time)"
        )
