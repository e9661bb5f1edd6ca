"""A sequence in chunks: as many as possible in one loop, the rest written out.

For example, 25 steps in chunks of 10, from the start, with the state after it wanted:

    steps 0 to 9     written out: the rule's memory is known to be empty, so nothing of it is read
    steps 10 to 19   written out: two chunks are not worth a loop
    steps 20 to 24   written out, because it has another length

and 100 steps are a loop of ten chunks, which is compiled once. In a loop all chunks are alike, so the first one reads
an empty memory, and the last one writes a memory even where it is not wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...program.interpret import Environment
from ..kernel import Chunk, ChunkResult, Kernel, Loss, added, no_gradients
from ..state import LearnerState

WRITTEN_OUT = 2
"""Up to this many chunks are written out one by one, so that the first and the last can be simpler."""


@dataclass(frozen=True, eq=False)
class ChunkRunner:
    """Runs the chunks of a sequence.

    Attributes:
        kernel: the rule's code.
        loss: ``loss(output, target) -> scalar``.
        static: values of static variables, the same for all chunks.
    """

    kernel: Kernel
    loss: Loss
    static: Environment

    def run(self, state: LearnerState, sequence: Chunk, size: int, *, fresh: bool, keep: bool) -> ChunkResult:
        """Runs a sequence.

        Args:
            state: what it starts from.
            sequence: all its steps.
            size: steps of a chunk.
            fresh: whether the rule's memory is known to be empty.
            keep: whether the memory after it is wanted.
        """
        looped = self._chunks_in_a_loop(sequence.length // size, fresh, keep)
        parts, start = [], looped * size
        if looped:
            parts.append(self._loop(state, sequence.part(0, start), looped))
            fresh = False
        while start < sequence.length:
            end = min(start + size, sequence.length)
            # The last chunk of a sequence writes no memory that nobody reads: for D-RTRL that is its largest product.
            continues = keep or end < sequence.length
            state = parts[-1].state if parts else state
            part = sequence.part(start, end)
            parts.append(self.kernel.run(self.loss, self.static, state, part, fresh=fresh, keep=continues))
            fresh, start = False, end
        return joined(parts)

    def _chunks_in_a_loop(self, count: int, fresh: bool, keep: bool) -> int:
        """All, or none. A first or last chunk that can be simpler is worth being written out where there are few."""
        # Written out, the program grows with every chunk, and compiling with it. In a loop it is the same for any
        # number.
        are_alike = self.kernel.in_cache or (keep and not fresh)
        return count if count > (1 if are_alike else WRITTEN_OUT) else 0

    def _loop(self, state: LearnerState, sequence: Chunk, count: int) -> ChunkResult:
        variables = self.kernel.variables

        def step(carry: Any, leaves: Any) -> Any:
            state, total = carry
            result = self.kernel.run(self.loss, self.static, state, Chunk(*leaves), fresh=False, keep=True)
            return (result.state, added(total, result.gradients, variables)), (result.losses, result.outputs)

        # Added up in the carry, in at least single precision: gradients by chunk would be as many copies of the
        # weights.
        start = (state, no_gradients(variables))
        (state, total), stacked = jax.lax.scan(step, start, sequence.split(count))
        losses, outputs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), stacked)
        return ChunkResult(dict(zip(variables, total, strict=True)), losses, outputs, state)


def joined(parts: Sequence[ChunkResult]) -> ChunkResult:
    """Chunks one after the other as one."""
    if len(parts) == 1:
        return parts[0]
    gradients = {var: sum((p.gradients[var] for p in parts[1:]), parts[0].gradients[var]) for var in parts[0].gradients}
    losses = jnp.concatenate([p.losses for p in parts])
    outputs = [jnp.concatenate(leaves) for leaves in zip(*(p.outputs for p in parts), strict=True)]
    return ChunkResult(gradients, losses, outputs, parts[-1].state)
