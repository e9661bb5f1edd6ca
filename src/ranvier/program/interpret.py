"""Running a jaxpr equation by equation, with a say in how each equation is applied.

``evaluate(jaxpr of x -> tanh(x @ w), [x], apply)`` calls ``apply(dot_general, [x, w])`` and then ``apply(tanh, [y])``.
With :func:`bind` for ``apply`` it computes; on tracers it traces. Every rewriting of a program is an ``apply`` that
does something else for some of the equations, so that no jaxpr is ever put together by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Atom, Equation, Literal, Var, bind, located_at, open_jaxpr
from .bodies import branches_of, loop_of

Apply = Callable[[Equation, list[Any]], Sequence[Any]]
Environment = dict[Var, Any]


def read(environment: Mapping[Var, Any], atom: Atom) -> Any:
    return atom.val if isinstance(atom, Literal) else environment[atom]


def run_equations(equations: Iterable[Equation], environment: Environment, apply: Apply = bind) -> None:
    """Runs equations in order, reading from and writing into ``environment``."""
    for eqn in equations:
        with located_at(eqn):
            results = apply(eqn, [read(environment, atom) for atom in eqn.invars])
        environment.update(zip(eqn.outvars, results, strict=True))


def evaluate(closed: Any, operands: Sequence[Any], apply: Apply = bind) -> list[Any]:
    """Runs a closed jaxpr on flat operands; the list of its outputs."""
    jaxpr, consts = open_jaxpr(closed)
    environment: Environment = dict(zip(jaxpr.constvars, consts, strict=True))
    environment.update(zip(jaxpr.invars, operands, strict=True))
    run_equations(jaxpr.eqns, environment, apply)
    return [read(environment, atom) for atom in jaxpr.outvars]


def needed_equations(equations: Sequence[Equation], outputs: Iterable[Atom]) -> list[Equation]:
    """The equations that the outputs depend on, in order; also those that act on the outside."""
    wanted = {atom for atom in outputs if not isinstance(atom, Literal)}
    needed = []
    # Backward: when an equation is visited, all that reads its results has been.
    for eqn in reversed(equations):
        if eqn.effects or any(var in wanted for var in eqn.outvars):
            needed.append(eqn)
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, Literal))
    return needed[::-1]


def apply_with_bodies(eqn: Equation, operands: list[Any], apply: Apply) -> Sequence[Any]:
    """Applies ``cond``, ``scan`` or ``while`` with ``apply`` used for every equation of their bodies."""
    if eqn.primitive.name == "cond":
        index, *rest = operands
        branches = [_as_function(branch, apply) for branch in branches_of(eqn)]
        return jax.lax.switch(index, branches, *rest)
    loop = loop_of(eqn)
    constants, carried, scanned = loop.split(operands)
    if loop.condition is not None:
        goes_on = _as_function(loop.condition, apply)
        turn = _as_function(loop.body, apply)
        return _while(lambda *carry: goes_on(*operands[: loop.first], *carry)[0], partial(turn, *constants), carried)

    def step(carry: Any, inputs: Any) -> tuple[Any, Any]:
        results = evaluate(loop.body, [*constants, *carry, *inputs], apply)
        return tuple(results[: len(carry)]), tuple(results[len(carry) :])

    final, stacked = jax.lax.scan(step, tuple(carried), tuple(scanned), length=loop.length, reverse=loop.reverse)
    return [*final, *stacked]


def _while(goes_on: Callable[..., Any], turn: Callable[..., Any], carried: Sequence[Any]) -> Sequence[Any]:
    """A ``while`` loop; where samples of a batch decide for themselves, those that are done wait for the others."""

    def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        going, after = goes_on(*carry), turn(*carry)
        # One condition for all: the loop itself stops in time.
        if not going.ndim:
            return after
        masks = [going.reshape(*going.shape, *(1 for _ in range(x.ndim - going.ndim))) for x in after]
        return tuple(jnp.where(mask, new, old) for mask, new, old in zip(masks, after, carry, strict=True))

    return jax.lax.while_loop(lambda carry: goes_on(*carry).any(), one, tuple(carried))


def _as_function(closed: Any, apply: Apply) -> Callable[..., Any]:
    return lambda *operands: tuple(evaluate(closed, operands, apply))
