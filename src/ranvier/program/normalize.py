"""Normal form of a traced step: calls inlined, short loops unrolled, sums over turns taken within the loop, declared
derivatives as forward rules, and one equation for every state.

The step is traced again by an interpreter, so no jaxpr is ever put together by hand, and custom derivatives, random
keys and source lines survive.

A step that calls a jitted ``h = 0.5 * v``, adds w in a loop of 3 turns and returns h as its output and as the new value
of two states becomes ``a = 0.5 * v; b = a + w; c = b + w; d = c + w; e = copy(d)``: d is the output and the first new
state, e the second. Without the copy a perturbation of one state would be one of the other as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Equation, bind, copy, dtype_of, is_literal, num_closed_over, open_jaxpr, shape_of, trace
from .bodies import bodies, called_body, is_call, loop_of
from .declared import BACKWARD, closed_over, with_forward_rule
from .interpret import apply_with_bodies, evaluate
from .loop_arrays import with_arrays_by_turn
from .loop_sums import with_sums_in_loops
from .nested import classify, contains, tangents_of
from .primitives import Kind, rule_of

UNROLL_LENGTH = 32
UNROLL_EQUATIONS = 512
UNROLL_ARITHMETIC = 64
"""Equations up to which a loop of arithmetic is unrolled: nothing that analyses look for would come to light in more,
and each one is compiled as often as the loop turns."""


def normalize(
    function: Callable[..., Sequence[Any]], avals: Sequence[Any], hidden: slice, arithmetic: int = UNROLL_ARITHMETIC
) -> Any:
    """Traces a function of flat arrays and brings it into normal form.

    Args:
        function: takes and returns flat arrays.
        avals: abstract values of the operands.
        hidden: which of the outputs are the new values of hidden states.
        arithmetic: equations up to which a short loop is unrolled that computes position by position.

    Returns:
        A closed jaxpr without calls and short loops, in which every ``custom_vjp`` whose backward rule can be
        transposed is a ``custom_jvp``, and the new value of every hidden state is a variable of its own, computed by an
        equation.
    """
    traced = trace(function, avals)
    inline = _Inline(arithmetic)
    # Tracing again takes as long as the first time, so a step that is in normal form already is left alone.
    needed = any(inline.replaces(eqn) for eqn in open_jaxpr(traced)[0].eqns)
    inlined = trace(lambda *operands: evaluate(traced, operands, inline), avals) if needed else traced
    inlined = with_sums_in_loops(with_arrays_by_turn(inlined, avals), avals)
    shared = _without_own_variable(inlined, hidden)
    if not shared:
        return inlined

    def with_copies(*operands: Any) -> list[Any]:
        results = evaluate(inlined, operands)
        for k in shared:
            results[k] = copy(jnp.asarray(results[k]))
        return results

    return trace(with_copies, avals)


def _without_own_variable(closed: Any, hidden: slice) -> list[int]:
    """Numbers of the hidden results that no equation computes for them and for no state before them."""
    jaxpr, _ = open_jaxpr(closed)
    # A variable that an equation computes belongs to the first state that has it as its new value.
    free = {var for eqn in jaxpr.eqns for var in eqn.outvars}
    shared = []
    for k, atom in list(enumerate(jaxpr.outvars))[hidden]:
        if is_literal(atom) or atom not in free:
            shared.append(k)
        else:
            free.remove(atom)
    return shared


@dataclass(frozen=True)
class _Inline:
    """Applies equations with calls inlined and short loops unrolled."""

    arithmetic: int

    def __call__(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if is_call(eqn):
            return evaluate(called_body(eqn), operands, self)
        if self._is_short(eqn):
            return self._unroll(eqn, operands)
        # No derivative is declared by what a function closes over; taking one is an error, and must not give zero.
        if count := num_closed_over(eqn):
            operands = [*(closed_over(eqn, value) for value in operands[:count]), *operands[count:]]
        if eqn.primitive.name == BACKWARD and not tangents_of(eqn).missing:
            return with_forward_rule(eqn, operands, lambda *values: evaluate(called_body(eqn), values, self))
        if eqn.primitive.name in ("cond", "scan", "while") and contains(eqn, BACKWARD):
            return apply_with_bodies(eqn, operands, self)
        return bind(eqn, operands)

    def replaces(self, eqn: Equation) -> bool:
        return is_call(eqn) or self._is_short(eqn) or contains(eqn, BACKWARD) or num_closed_over(eqn) > 0

    def _is_short(self, eqn: Equation) -> bool:
        if eqn.primitive.name != "scan":
            return False
        loop = loop_of(eqn)
        size = loop.length * len(open_jaxpr(loop.body)[0].eqns)
        # One turn is not a loop: it is unrolled whatever it computes.
        most = self.arithmetic if loop.length > 1 and is_arithmetic(loop.body) else UNROLL_EQUATIONS
        return loop.length <= UNROLL_LENGTH and size <= most

    def _unroll(self, eqn: Equation, operands: list[Any]) -> list[Any]:
        loop = loop_of(eqn)
        constants, carried, scanned = loop.split(operands)
        order = range(loop.length)[::-1] if loop.reverse else range(loop.length)
        rows: dict[int, list[Any]] = {}
        for turn in order:
            slices = [jax.lax.index_in_dim(x, turn, keepdims=False) for x in scanned]
            results = evaluate(loop.body, [*constants, *carried, *slices], self)
            carried, rows[turn] = results[: loop.num_carried], results[loop.num_carried :]
        per_output = zip(*(rows[turn] for turn in range(loop.length)), strict=True)
        # Without a turn there are no rows to stack, but the results have shapes all the same.
        if not loop.length:
            empty = [jnp.zeros(shape_of(var), dtype_of(var)) for var in eqn.outvars[loop.num_carried :]]
            return [*carried, *empty]
        return [*carried, *(_stack(values) for values in per_output)]


def is_arithmetic(closed: Any) -> bool:
    """Whether a body only computes position by position and moves elements to places that are known."""
    for eqn in open_jaxpr(closed)[0].eqns:
        moves = rule_of(eqn.primitive).kind is Kind.STRUCTURAL and rule_of(eqn.primitive).index_operands is None
        inside = bodies(eqn)
        computes = all(map(is_arithmetic, inside)) if inside else classify(eqn) is Kind.ELEMENTWISE
        if eqn.effects or not (moves or computes):
            return False
    return True


def _stack(values: Sequence[Any]) -> Any:
    return jax.lax.concatenate([jax.lax.expand_dims(value, (0,)) for value in values], 0)
