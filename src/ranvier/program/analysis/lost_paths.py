"""Paths of derivatives through branches and loops on which positions are lost.

``lax.scan`` with a body that computes ``v = 0.9 v + y; buffer = buffer.at[k].set(v)``, where the data decide k, takes v
to the new v position by position, but to the buffer by a path that nothing can follow: the row could be any. So the
path from v, and from y, to the second result is lost; that to the first is not.
"""

from __future__ import annotations

from typing import Any

from .._jax import Atom, Equation, Literal, Var, dtype_of, is_floating, open_jaxpr
from ..bodies import bodies, has_derivative, has_own_derivative, is_loop, loop_of
from ..nested import mixes
from ..primitives import Kind, rule_of
from .addressing import ConstantValue
from .dependence import Sources, constants_of_body, equation_dependences, has_known_places, sources_in_body
from .dependences import Dependences

Pair = tuple[int, int]
"""Numbers of an operand and of a result."""


def lost_paths(
    eqn: Equation, dependences: list[Dependences], constant_value: ConstantValue, sources: Sources | None
) -> frozenset[Pair]:
    """The pairs between which a derivative passes, but not, or not only, position by position.

    Args:
        eqn: the equation.
        dependences: of its results, by operand.
        constant_value: gives the value of constants.
        sources: how the operands come about.
    """
    if not has_derivative(eqn):
        return frozenset()
    floating = [r for r, out in enumerate(eqn.outvars) if is_floating(dtype_of(out))]
    moving = [k for k, a in enumerate(eqn.invars) if not isinstance(a, Literal) and is_floating(dtype_of(a))]
    rule = rule_of(eqn.primitive)
    if rule.kind is Kind.NESTED and has_own_derivative(eqn):
        return frozenset((k, r) for k in moving if mixes(eqn, k) for r in floating)
    if rule.kind is Kind.NESTED:
        return _inside(eqn)
    # Written over by constant places, or added to nothing, no derivative passes; at unknown places one may.
    unknown = rule.kind is Kind.STRUCTURAL and not has_known_places(eqn, constant_value, sources)
    if rule.kind is Kind.MIXING or unknown or eqn.primitive.name in ("scatter-add", "scatter-sub"):
        return frozenset((k, r) for k in moving for r in floating if (k, True) not in dependences[r])
    return frozenset()


def _inside(eqn: Equation) -> frozenset[Pair]:
    """The lost paths of branches, loops and calls."""
    first = 1 if eqn.primitive.name == "cond" else loop_of(eqn).first if is_loop(eqn) else 0
    lost: set[Pair] = set()
    for body in bodies(eqn):
        lost |= {(k + first, r) for k, r in _of_body(body, eqn)}
    return frozenset(lost)


def _of_body(body: Any, eqn: Equation) -> set[Pair]:
    """The lost paths of a body; for a loop, through any number of turns."""
    jaxpr, _ = open_jaxpr(body)
    paths = _paths_of_equations(body)
    carried: list[tuple[Var, Any]] = []
    if is_loop(eqn):
        loop = loop_of(eqn)
        carried = list(zip(loop.invars[loop.num_constants :], loop.outvars[: loop.num_carried], strict=False))
    made: dict[Atom, frozenset[int]] = {
        var: frozenset([k]) for k, var in enumerate(jaxpr.invars) if is_floating(dtype_of(var))
    }
    lost: dict[Atom, frozenset[int]] = {}
    # A turn hands on what the next one starts with, so the body is walked until nothing is added.
    while True:
        before = (dict(made), dict(lost))
        for inner, straight, off in paths:
            for k, r in straight | off:
                atom, out = inner.invars[k], inner.outvars[r]
                made[out] = made.get(out, frozenset()) | made.get(atom, frozenset())
                here = made.get(atom, frozenset()) if (k, r) in off else frozenset()
                lost[out] = lost.get(out, frozenset()) | lost.get(atom, frozenset()) | here
        for var, new in carried:
            if not isinstance(new, Literal) and var in made:
                made[var] |= made.get(new, frozenset())
                lost[var] = lost.get(var, frozenset()) | lost.get(new, frozenset())
        if (made, lost) == before:
            break
    results = [(r, atom) for r, atom in enumerate(jaxpr.outvars) if not isinstance(atom, Literal)]
    return {(k, r) for r, atom in results for k in lost.get(atom, ())}


def _paths_of_equations(body: Any) -> list[tuple[Equation, frozenset[Pair], frozenset[Pair]]]:
    """For every equation of a body the pairs that it joins position by position, and the lost ones."""
    jaxpr, _ = open_jaxpr(body)
    constant_value, sources = constants_of_body(body), sources_in_body(body)
    paths = []
    for eqn in jaxpr.eqns:
        if has_derivative(eqn):
            dependences = equation_dependences(eqn, constant_value, sources)
            straight = frozenset((k, r) for r, d in enumerate(dependences) for k, passes in d if passes)
            variables = {k for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal)}
            off = lost_paths(eqn, dependences, constant_value, sources)
            paths.append((eqn, frozenset(pair for pair in straight if pair[0] in variables), off))
    return paths
