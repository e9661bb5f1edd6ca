"""Sums over the turns of a loop, taken within the loop.

What a loop stacks up and the step then adds up along time is a carried value in disguise: the count of the spikes of
all turns, say. As a carried value, every element of the sum stays at its position.

``v, z = scan(turn, v, length=100); total = sum(z, axis=0)`` with 4 neurons stacks z of shape [100, 4], and the sum over
its first axis looks like a mixing of positions. Rewritten, the loop carries (v, total), and ``total + z`` is one more
elementwise equation of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Equation, Literal, bind, dtype_of, is_floating, open_jaxpr, shape_of, trace
from .bodies import loop_of
from .interpret import evaluate


def with_sums_in_loops(closed: Any, avals: Sequence[Any]) -> Any:
    """The function with every sum along the first axis of a stacked result of a ``scan`` computed turn by turn."""
    sums = _sums_of_stacked(closed)
    if not sums:
        return closed
    totals: dict[int, Any] = {}

    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if id(eqn) in totals:
            return [totals[id(eqn)]]
        if id(eqn) not in sums:
            return bind(eqn, operands)
        results, values = _scan_with_sums(eqn, operands, [number for _, number in sums[id(eqn)]])
        # The sums come after the loop; each finds its value here instead of being applied.
        totals.update((id(total), value) for (total, _), value in zip(sums[id(eqn)], values, strict=True))
        return results

    return trace(lambda *operands: evaluate(closed, operands, apply), avals)


def _sums_of_stacked(closed: Any) -> dict[int, list[tuple[Equation, int]]]:
    """By ``id`` of a ``scan`` the equations that add up its stacked results, with the numbers of these."""
    stacked: dict[Any, tuple[Equation, int]] = {}
    sums: dict[int, list[tuple[Equation, int]]] = {}
    for eqn in open_jaxpr(closed)[0].eqns:
        if eqn.primitive.name == "scan":
            first = loop_of(eqn).num_carried
            stacked.update((var, (eqn, first + k)) for k, var in enumerate(eqn.outvars[first:]))
        elif eqn.primitive.name == "reduce_sum" and eqn.params["axes"] == (0,):
            (atom,) = eqn.invars
            # Integers have no derivative, so nothing follows them along positions.
            if not isinstance(atom, Literal) and atom in stacked and is_floating(dtype_of(atom)):
                loop, number = stacked[atom]
                sums.setdefault(id(loop), []).append((eqn, number))
    return sums


def _scan_with_sums(eqn: Equation, operands: list[Any], numbers: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """Results of a ``scan``, and the sums over all turns of the results with these numbers."""
    loop = loop_of(eqn)
    constants, carried, scanned = loop.split(operands)
    zeros = [jnp.zeros(shape_of(eqn.outvars[k])[1:], dtype_of(eqn.outvars[k])) for k in numbers]

    def turn(carry: Any, slices: Any) -> Any:
        values, totals = carry
        results = evaluate(loop.body, [*constants, *values, *slices])
        added = [total + results[k] for total, k in zip(totals, numbers, strict=True)]
        return (results[: loop.num_carried], added), results[loop.num_carried :]

    start = (list(carried), zeros)
    (last, totals), rows = jax.lax.scan(turn, start, scanned, loop.length, reverse=loop.reverse)
    return [*last, *rows], totals
