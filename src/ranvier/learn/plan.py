"""The plan of a learner, to read: chunk, memory, the structure that it uses, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax

from ..program.analysis.learning_states import states_without_parameters
from ..program.analysis.memory import size_text
from ..program.paths import path_text
from ..program.program import ModuleInfo
from ..program.remade import Recipe, Remade, check_pickles
from ..util.counting import counted
from ..util.table import table
from .kernel import Kernel
from .left_out import LeftOut, left_out, merged
from .rules.by_parameter import PartedKernel
from .step.cache_blocks import CACHE_BYTES, even_part
from .uses.bilinear import Zeros

MEMORY_LIMIT = 256 * 2**20
"""Bytes of activations that a chunk may take, where ``memory_limit`` is not passed."""


@dataclass(frozen=True, eq=False)
class Plan(Remade):
    """The decisions behind a learner; print it to read them.

    Attributes:
        rule: name of the rule.
        chunk: largest number of steps in a chunk; None for the whole sequence.
        reason: why.
        memory_bytes: what the rule keeps between steps.
        step_bytes: activations kept for every step of a chunk, about.
        left_out: the paths in time that the rule does not carry.
        approximations: where what it carries is not the derivative itself.
        is_chosen: whether the chunk was left to Ranvier.
    """

    rule: str
    chunk: int | None
    reason: str
    memory_bytes: int
    step_bytes: int
    left_out: tuple[LeftOut, ...]
    approximations: tuple[str, ...]
    is_chosen: bool
    _info: ModuleInfo
    _kernel: Kernel
    _learner: Recipe

    def recipe(self) -> Recipe:
        function, arguments = self._learner
        check_pickles(arguments, f"the plan of {self._info.name}")
        return _plan_of, (function, *arguments)

    def chunk_for(self, length: int) -> int:
        """Steps per chunk for a sequence of this length.

        A chunk that was asked for is taken as it is. One that was chosen may be shorter, so that the parts are about
        equal: 11 steps in chunks of at most 10 are 6 and 5, since a part of one step would read and write the whole
        trace for one step.
        """
        most = self.chunk or length
        return even_part(length, most) if self.is_chosen else most

    @property
    def dropped(self) -> tuple[str, ...]:
        """What the rule leaves out of the temporal part, with a line of text for each path and approximation."""
        return (*self.approximations, *map(str, self.left_out))

    def __str__(self) -> str:
        chunk = "whole sequence" if self.chunk is None else f"up to {counted(self.chunk, 'step')}"
        rows = [
            ("chunk", f"{chunk}: {self.reason}"),
            ("rule's memory", f"{size_text(self.memory_bytes)}, the same for any number of steps"),
            ("activations", f"about {size_text(self.step_bytes)} per step of a chunk"),
        ]
        lines = [f"{self._info.name} learns with {self.rule}", *table(("", ""), rows)[1:]]
        lines += ["", "Parameters", *table(("parameter", "gradient", "kept between steps"), self._parameters())]
        lines += self._idle_states()
        lines += ["", "Left out of the temporal part", *([f"  {line}" for line in self.dropped] or ["  nothing"])]
        return "\n".join(lines)

    __repr__ = __str__

    def _idle_states(self) -> list[str]:
        """States that count as hidden because of their dtype, but that learning does not involve."""
        slots = [self._info.hidden[j] for j in states_without_parameters(self._info)]
        if not slots:
            return []
        names = ", ".join(path_text(slot.path) for slot in slots)
        pronoun = "it is not a state" if len(slots) == 1 else "they are not states"
        return [
            "",
            "Hidden states that no parameter reaches",
            f"  {names}; if {pronoun} of a neuron, declare that: step_function(..., other=[...]), or "
            "brainstate.ShortTermState",
        ]

    def _parameters(self) -> Iterator[tuple[str, str, str]]:
        memory = self._kernel.kept()
        for number, slot in enumerate(self._info.parameters):
            traces = [text for slots, text in memory if number in slots]
            in_part = any(number in path.parameters for path in self.left_out)
            if traces:
                gradient = "same step and in time" + (", in part" if in_part else "")
            else:
                gradient = "same step only" if in_part else "same step, exact"
            for k, text in enumerate(traces or [""]):
                yield (path_text(slot.path), gradient, text) if k == 0 else ("", "", text)


def _plan_of(function: Callable[..., Any], *arguments: Any) -> Plan:
    return function(*arguments).plan


def make_plan(
    info: ModuleInfo, kernel: Kernel, rule: str, chunk: int | None, memory_limit: int | None, learner: Recipe
) -> Plan:
    """Chooses the chunk and records the decisions; ``learner`` is the recipe of the learner that they belong to."""
    kept_bytes = memory_bytes(kernel)
    step_bytes = kernel.step_bytes()
    weights = sum(leaf.nbytes for slot in info.parameters for leaf in slot.initial)
    most, reason = _chunk(kernel, chunk, kept_bytes, step_bytes, memory_limit or MEMORY_LIMIT, weights)
    return Plan(
        rule=rule,
        chunk=most,
        reason=reason,
        memory_bytes=kept_bytes,
        step_bytes=step_bytes,
        left_out=paths_left_out(kernel),
        approximations=tuple(kernel.approximations()),
        is_chosen=chunk is None,
        _info=info,
        _kernel=kernel,
        _learner=learner,
    )


def memory_bytes(kernel: Kernel) -> int:
    """Bytes that a kernel keeps between steps."""
    # Shapes only, from zeros in place of the static values: a plan must not take the memory that it warns of.
    memory = jax.tree.leaves(jax.eval_shape(lambda: kernel.init(Zeros())))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in memory)


def paths_left_out(kernel: Kernel) -> tuple[LeftOut, ...]:
    """The paths in time that a kernel does not carry: for every parameter, those that its own rule leaves out."""
    if not isinstance(kernel, PartedKernel):
        return left_out(kernel.info, kernel.carries())
    # A part's rule misses paths of all parameters; only those of its own parameters show in a gradient.
    by_part = [
        replace(path, parameters=path.parameters & part.parameters)
        for part in kernel.parts
        for path in paths_left_out(part.kernel)
    ]
    return merged(path for path in by_part if path.parameters)


def _chunk(
    kernel: Kernel, chunk: int | None, memory_bytes: int, step_bytes: int, limit: int, weights: int
) -> tuple[int | None, str]:
    """The length of a chunk, and why. The gradients, of the size of the weights, are added up once per chunk."""
    if not kernel.chunked:
        return None, "this rule takes the steps of a call one by one"
    if chunk is not None:
        return chunk, "as requested"
    within = f"the limit of {size_text(limit)}"
    # A rule without traces gains nothing from long chunks, so its activations may stay in the cache. But gradients are
    # added up once per chunk, and where the weights are larger than the cache that would be most of the work.
    room = max(CACHE_BYTES, 2 * weights)
    if kernel.in_cache and limit > room:
        cached, large = f"a cache of {size_text(room)}", f"twice the {size_text(weights)} of the gradients"
        limit, within = room, cached if room == CACHE_BYTES else large
    # One step at least, even where the limit has no room for it.
    most = max(1, limit // max(step_bytes, 1))
    fits = f"the activations of {counted(most, 'step')} fit {within}"
    if memory_bytes:
        return most, f"{fits}, and the traces of {size_text(memory_bytes)} are read and written once per chunk"
    return most, fits
