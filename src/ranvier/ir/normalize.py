"""Normal form of a traced step: calls inlined, short loops unrolled, one equation for every state.

The step is traced again by an interpreter, so no jaxpr is ever put together by hand and custom
derivatives, random keys and source lines survive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Equation, bind, copy, dtype_of, is_literal, open_jaxpr, shape_of, trace
from .interpret import evaluate
from .nested import called_body, is_call, loop_of

UNROLL_LENGTH = 32
UNROLL_EQUATIONS = 512


def normalize(function: Callable[..., Sequence[Any]], avals: Sequence[Any], hidden: slice) -> Any:
    """Traces a function of flat arrays and brings it into normal form.

    Args:
        function: takes and returns flat arrays.
        avals: abstract values of the operands.
        hidden: which of the outputs are the new values of hidden states.

    Returns:
        A closed jaxpr without calls and short loops, in which the new value of every hidden state is a
        variable of its own, computed by an equation.
    """
    traced = trace(function, avals)
    needed = any(_is_inlined(eqn) for eqn in open_jaxpr(traced)[0].eqns)
    inlined = trace(lambda *operands: evaluate(traced, operands, _inline), avals) if needed else traced
    if _has_own_variables(inlined, hidden):
        return inlined

    def with_copies(*operands: Any) -> list[Any]:
        results = evaluate(inlined, operands)
        results[hidden] = [copy(jnp.asarray(value)) for value in results[hidden]]
        return results

    return trace(with_copies, avals)


def _has_own_variables(closed: Any, hidden: slice) -> bool:
    jaxpr, _ = open_jaxpr(closed)
    computed = {var for eqn in jaxpr.eqns for var in eqn.outvars}
    states = [atom for atom in jaxpr.outvars[hidden] if not is_literal(atom)]
    return len(set(states) & computed) == len(jaxpr.outvars[hidden])


def _is_inlined(eqn: Equation) -> bool:
    return is_call(eqn) or (eqn.primitive.name == "scan" and _is_short(eqn))


def _inline(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
    if is_call(eqn):
        return evaluate(called_body(eqn), operands, _inline)
    if eqn.primitive.name == "scan" and _is_short(eqn):
        return _unroll(eqn, operands)
    return bind(eqn, operands)


def _is_short(eqn: Equation) -> bool:
    loop = loop_of(eqn)
    size = len(open_jaxpr(loop.body)[0].eqns)
    return loop.length <= UNROLL_LENGTH and loop.length * size <= UNROLL_EQUATIONS


def _unroll(eqn: Equation, operands: list[Any]) -> list[Any]:
    loop = loop_of(eqn)
    constants, carried, scanned = loop.split(operands)
    order = range(loop.length)[::-1] if loop.reverse else range(loop.length)
    collected: dict[int, list[Any]] = {}
    for step in order:
        inputs = [jax.lax.index_in_dim(x, step, keepdims=False) for x in scanned]
        results = evaluate(loop.body, [*constants, *carried, *inputs], _inline)
        carried, collected[step] = results[: loop.num_carried], results[loop.num_carried :]
    per_output = zip(*(collected[step] for step in range(loop.length)), strict=True)
    if not loop.length:
        empty = [jnp.zeros(shape_of(var), dtype_of(var)) for var in eqn.outvars[loop.num_carried :]]
        return [*carried, *empty]
    return [*carried, *(_stack(values) for values in per_output)]


def _stack(values: Sequence[Any]) -> Any:
    return jax.lax.concatenate([jax.lax.expand_dims(value, (0,)) for value in values], 0)
