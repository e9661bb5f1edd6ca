"""fuse: consecutive operations become one, and so do populations side by side."""

# An example: x (8 elements) -> relay (2) -> y (8), with the matrices A [2, 8] and B [8, 2].
#
#   B A is [8, 8]: 64 numbers instead of 16 + 16 = 32. Not fused, unless grow=true.
#   If y has 1 element, B A is [1, 8]: 8 numbers instead of 16 + 2 = 18. Fused.

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import sparse

from ..graph.elements import Projection
from ..graph.neurons import Relay
from ..graph.operations import Identity, Linear, Operation, Scale
from ..graph.size import stored_bytes
from ..verification.promise import Promise
from .base import Pass, Rewriting
from .composition import PASSING, composed, only_moves
from .moving_scales import move_scales, starts_apart
from .side_by_side import join, reason_against, with_the_same_ends


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuses consecutive operations and populations side by side (algebraic).

    Consecutive: the operations before and after a relay become one, such as two affine maps, a scale or a folded batch
    norm after a matrix or convolution, a pool after a convolution, or a matrix after a flatten. A scale moves through
    pools and flattens to an operation that takes it up. If all input of a population is scaled alike, the scale moves
    into the neurons' resistance. Side by side: populations of one kind with the same sources and targets
    become one. Nothing is fused that would take more memory for weights, unless requested.

    Attributes:
        grow: whether weights may take more memory, for the sake of fewer operations.
        populations: whether populations side by side are joined.
    """

    name = "fuse"
    promise = Promise.ALGEBRAIC
    grow: bool = False
    populations: bool = True

    def run(self, rewriting: Rewriting) -> None:
        rewriting.repeat(self._consecutive)
        if self.populations:
            rewriting.repeat(self._side_by_side)

    def _consecutive(self, rewriting: Rewriting) -> None:
        self._relays(rewriting)
        move_scales(rewriting, self.grow)
        self._scales(rewriting)

    def _relays(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for name in [n for n, p in graph.populations.items() if isinstance(p.neuron, Relay)]:
            before, after = graph.into(name), graph.out_of(name)
            if not before or not after or any(p.target == name for p in after):
                continue
            old = sum(stored_bytes(p.operation) for p in (*before, *after))
            # A bound from the shapes, since the product itself may be too large to compute.
            least = sum(_least_stored(b.operation, a.operation) for b in after for a in before)
            fused = _fused(rewriting, before, after) if self.grow or least <= old else []
            if isinstance(fused, str):
                rewriting.missed(name, fused)
                continue
            new = sum(stored_bytes(p.operation) for p, _ in fused) if fused else least
            if new > old and not self.grow:
                reason = f"not fused: {new} bytes would be stored instead of {old}; allow it with grow=true"
                rewriting.missed(name, reason)
                continue
            self._replace(rewriting, name, before, after, fused)

    def _replace(
        self,
        rewriting: Rewriting,
        name: str,
        before: list[Projection],
        after: list[Projection],
        fused: list[Fused],
    ) -> None:
        # A copy, because the loop sets bindings to shared parameters under names that it may still have to read.
        uses = dict(rewriting.graph.bindings)
        for projection, origin in fused:
            taken = projection.name in {p.name for p in after}
            new_name = projection.name if taken else rewriting.new_name(projection.name)
            rewriting.set_projection(projection.replace(name=new_name))
            bindings = {label: uses[origin, label] for label in projection.operation.arrays if (origin, label) in uses}
            rewriting.graph.bindings.update({(new_name, label): use for label, use in bindings.items()})
        for projection in before:
            rewriting.remove_projection(projection.name)
        del rewriting.graph.populations[name]
        rewriting.origins = rewriting.origins.without(name)
        # Composing with the identity or a flatten leaves the numbers as they are. Several inputs change the order of
        # the sums.
        exact = len(before) == 1 and all(_passes_on(a, b) for a in before for b in after)
        message = f"fused {', '.join(p.name for p in before)} with {', '.join(p.name for p in after)}"
        rewriting.did(name, message, Promise.BITWISE if exact else Promise.ALGEBRAIC)

    def _scales(self, rewriting: Rewriting) -> None:
        """Moves a scale that applies to all input of a population into its neurons."""
        graph = rewriting.graph
        for name, population in list(graph.populations.items()):
            into = graph.into(name)
            gain = population.neuron.gain
            if gain is None or not into or not all(isinstance(p.operation, Scale) for p in into):
                continue
            scales = [p.operation.scale for p in into if isinstance(p.operation, Scale)]
            if any(not np.array_equal(scale, scales[0]) for scale in scales[1:]):
                continue
            if rewriting.leaves(name, "scales not fused", *(p.name for p in into), name):
                continue
            changed = population.neuron.replace(**{gain: getattr(population.neuron, gain) * scales[0]})
            graph.populations[name] = population.replace(neuron=changed)
            for projection in into:
                rewriting.set_projection(projection.replace(operation=Identity()))
            rewriting.did(name, f"scale of {', '.join(p.name for p in into)} is now in {gain}", Promise.ALGEBRAIC)

    def _side_by_side(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for a, b in [pair for alike in with_the_same_ends(graph) for pair in combinations(alike, 2)]:
            if a in graph.populations and b in graph.populations and reason_against(graph, a, b) is None:
                join(rewriting, a, b)
                rewriting.did(a, f"joined with {b!r}, which has the same sources and targets", Promise.ALGEBRAIC)


Fused = tuple[Projection, str]
"""A projection that replaces two, and the name of the one that its arrays come from, if they come from one."""


def _fused(rewriting: Rewriting, before: list[Projection], after: list[Projection]) -> list[Fused] | str:
    """The projections that replace those into and out of a relay, or the reason why there are none."""
    fused, graph = [], rewriting.graph
    for b in after:
        for number, a in enumerate(before):
            source = graph.source_shape(a)
            # A delay reads the relay's initial value first. Fused, it would read the initial value of the source.
            if b.delay and starts_apart(graph, a):
                return f"not fused: {b.name!r} has a delay, and {a.source!r} or {a.target!r} does not start from zero"
            if a.trained != b.trained and not any(only_moves(p.operation) for p in (a, b)):
                return f"not fused: only one of {a.name!r} and {b.name!r} is trained"
            if not _passes_on(a, b) and (reason := rewriting.shared(a.name, b.name)) is not None:
                return f"not fused: {reason}"
            if b.delay and a.operation.offset(source) is not None:
                return f"not fused: {b.name!r} has a delay, and before it the constant of {a.name!r} has not arrived"
            # The relay is summed before b applies, so b's bias counts once, not once per input.
            operation = composed(b.operation if number == 0 else _without_offset(b.operation), a.operation, source)
            if operation is None:
                kinds = f"{type(a.operation).__name__} and {type(b.operation).__name__}"
                return f"not fused: {kinds} cannot be combined into one operation"
            name = b.name if number == 0 else f"{b.name}.{a.name}"
            owner = b if b.operation.arrays else a
            delay, masked = a.delay + b.delay, a.masked or b.masked
            projection = Projection(
                name, a.source, b.target, operation, delay, a.source_port, b.target_port, owner.trained, masked
            )
            fused.append((projection, owner.name))
    return fused


def _passes_on(a: Projection, b: Projection) -> bool:
    """Whether one of two projections leaves the numbers as they are."""
    return isinstance(a.operation, PASSING) or isinstance(b.operation, PASSING)


def _without_offset(operation: Operation) -> Operation:
    return operation if getattr(operation, "bias", None) is None else operation.replace(bias=None)


def _least_stored(second: Operation, first: Operation) -> int:
    """Bytes that the product of two operations takes at least, from their shapes; zero if unknown."""
    if not (isinstance(second, Linear) and isinstance(first, Linear)):
        return 0
    if sparse.issparse(second.weight) and sparse.issparse(first.weight):
        return 0
    item = np.result_type(second.weight.dtype, first.weight.dtype).itemsize
    return second.weight.shape[0] * first.weight.shape[1] * item
