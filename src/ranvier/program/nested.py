"""The kind of every equation, and whether it mixes positions, by its body where it has one.

A body is as bad as the worst of its equations: opaque, then mixing, then structural, then elementwise. So
``cond(p, v -> 2 v, v -> a @ v)`` is mixing, for one branch is. A loop ``v -> 2 v`` of three turns is elementwise, but
mixing once it stacks v along time as well: the rows of the result stand for turns, and element 4 of the result of a
loop over 3 neurons is no position 4.

A function with a declared derivative has two kinds. ``z = spike(v)`` computes ``v > 1``, and its surrogate gradient
``t -> t / (1 + |v|)^2`` is a function from tangents to tangents with a kind of its own; analyses of gradients ask for
that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ._jax import Equation, Literal, Var, bind, dtype_of, is_floating, open_jaxpr, trace, variables_of
from .bodies import Loop, bodies, branches_of, called_body, has_derivative, has_own_derivative, is_loop, loop_of
from .declared import BACKWARD, backward_of, declared_operands, pushed, why_not_forward
from .interpret import apply_with_bodies, evaluate
from .linearity import vanishes
from .primitives import Kind, on_change, rule_of
from .turn_axes import turn_mixing_in


def contains(eqn: Equation, name: str) -> bool:
    """Whether the equation is of this primitive, or runs one in its branches, loops or calls.

    What a function with a derivative of its own does inside is its own affair.
    """
    if eqn.primitive.name == name:
        return True
    inside = () if has_own_derivative(eqn) else bodies(eqn)
    return any(contains(inner, name) for body in inside for inner in open_jaxpr(body)[0].eqns)


def differentiates_through(eqn: Equation, name: str) -> bool:
    """Whether a derivative that passes through the equation passes through one of this primitive.

    In branches, loops and calls what ``stop_gradient`` cuts off from operands or results does not count.
    """
    if eqn.primitive.name == name:
        return True
    inside = () if has_own_derivative(eqn) else bodies(eqn)
    return any(differentiates_through(inner, name) for body in inside for inner in _differentiated(body))


def _differentiated(closed: Any) -> list[Equation]:
    """The equations of a body through which a derivative passes from its operands to its results."""
    body, _ = open_jaxpr(closed)
    # Forward from the operands, then backward from the results: what is cut off on either side drops out.
    made_of_operands, reach_results = set(body.invars), set(variables_of(body.outvars))
    fed = []
    for eqn in body.eqns:
        if has_derivative(eqn) and not made_of_operands.isdisjoint(_floating(eqn.invars)):
            fed.append(eqn)
            made_of_operands.update(_floating(eqn.outvars))
    passed = []
    for eqn in reversed(fed):
        if not reach_results.isdisjoint(_floating(eqn.outvars)):
            passed.append(eqn)
            reach_results.update(_floating(eqn.invars))
    return passed


def _floating(atoms: Sequence[Any]) -> list[Var]:
    return [var for var in variables_of(atoms) if is_floating(dtype_of(var))]


def classify(eqn: Equation) -> Kind:
    """What the equation does to positions, by the table or, for nested equations, by the body.

    Args:
        eqn: an equation of a jaxpr.

    Returns:
        One of the four kinds; never ``Kind.NESTED``.
    """
    return _kind(eqn, False)


def classify_derivative(eqn: Equation) -> Kind:
    """What the equation's derivative does to positions: as :func:`classify`, but of a function whose derivative is
    declared it is the declared one that counts, whatever the function itself does."""
    return _kind(eqn, True)


def _kind(eqn: Equation, of_derivative: bool) -> Kind:
    kind = rule_of(eqn.primitive).kind
    if kind is not Kind.NESTED:
        return kind
    if of_derivative and has_own_derivative(eqn):
        return _declared_kind(eqn)
    verdict = _worst({_body_kind(_Hashed(body), of_derivative) for body in bodies(eqn)})
    # Slices along time, and turns that data decide, mix positions whatever a turn does.
    if is_loop(eqn) and not carries_all(eqn) and verdict is not Kind.OPAQUE:
        return Kind.MIXING
    return verdict if bodies(eqn) else Kind.OPAQUE


def _worst(kinds: set[Kind]) -> Kind:
    return next((kind for kind in (Kind.OPAQUE, Kind.MIXING, Kind.STRUCTURAL) if kind in kinds), Kind.ELEMENTWISE)


def _declared_kind(eqn: Equation) -> Kind:
    """The kind of a declared derivative, as a map from tangents to tangents."""
    tangents = tangents_of(eqn)
    if tangents.missing and not tangents.seeds:
        return Kind.MIXING
    return _worst({_path_kind(tangents.closed, argument) for argument in tangents.seeds.values()})


def mixes(eqn: Equation, operand: int) -> bool:
    """Whether a derivative passes from an operand through a mixing of positions; a branch or a turn is enough."""
    if rule_of(eqn.primitive).kind is Kind.NESTED and has_own_derivative(eqn):
        return _declared_mixes(eqn, operand)
    if classify_derivative(eqn) is not Kind.MIXING:
        return False
    if eqn.primitive.name == "cond":
        return operand > 0 and any(_mixes_argument(branch, operand - 1) for branch in branches_of(eqn))
    if is_loop(eqn):
        loop = loop_of(eqn)
        return operand >= loop.first and _mixes_argument(loop.body, operand - loop.first, loop)
    return True


def _declared_mixes(eqn: Equation, operand: int) -> bool:
    tangents = tangents_of(eqn)
    if operand in tangents.missing:
        return True
    kind = _path_kind(tangents.closed, tangents.seeds[operand]) if operand in tangents.seeds else Kind.ELEMENTWISE
    return kind in (Kind.MIXING, Kind.OPAQUE)


def _path_kind(closed: Any, argument: int) -> Kind:
    """The kind of a linear function by one argument: that of the equations on the path from it."""
    body, _ = open_jaxpr(closed)
    made_of_it, kinds = {body.invars[argument]}, set()
    for eqn in body.eqns:
        reads = [k for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in made_of_it]
        if reads:
            kind = classify_derivative(eqn)
            kinds.add(kind if kind is not Kind.MIXING or any(mixes(eqn, k) for k in reads) else Kind.ELEMENTWISE)
            made_of_it.update(eqn.outvars)
    return _worst(kinds)


def _mixes_argument(closed: Any, argument: int, loop: Loop | None = None) -> bool:
    mixing = [(e, k) for e, reads in on_derivative_path(closed, argument, loop) for k in reads if mixes(e, k)]
    return bool(mixing) and not turn_mixing_in(closed).issuperset((id(e), k) for e, k in mixing)


def on_derivative_path(closed: Any, argument: int, loop: Loop | None = None) -> list[tuple[Equation, list[int]]]:
    """The equations of a body through which a derivative by an argument passes, each with the operands that carry it.

    Args:
        closed: the body.
        argument: number of the argument.
        loop: the loop whose body it is: what a turn makes of the argument is then followed into the next one.
    """
    body, _ = open_jaxpr(closed)
    made_of_it = {body.invars[argument]}
    passed: list[tuple[Equation, list[int]]] = []
    before = 0
    # A turn may hand on what the next one reads earlier in its body, so the body is walked until nothing is added.
    while len(made_of_it) > before:
        before, passed = len(made_of_it), []
        for eqn in body.eqns:
            reads = [k for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in made_of_it]
            if reads and has_derivative(eqn):
                passed.append((eqn, reads))
                made_of_it.update(var for var in eqn.outvars if is_floating(dtype_of(var)))
        if loop is not None:
            made_of_it.update(_carried_on(loop, made_of_it))
    return passed


def _carried_on(loop: Loop, values: set[Var]) -> list[Var]:
    """The carried operands of the next turn that are made of these values of a turn."""
    carried = zip(loop.invars[loop.num_constants :], loop.outvars[: loop.num_carried], strict=False)
    return [var for var, new in carried if not isinstance(new, Literal) and new in values]


def carries_all(eqn: Equation) -> bool:
    """Whether positions keep their place, and no position has a say in the turns that another one takes: a loop that
    neither reads nor writes along time, with a fixed number of turns."""
    loop = loop_of(eqn)
    straight = len(eqn.outvars) == loop.num_carried and len(eqn.invars) == loop.num_constants + loop.num_carried
    return straight and loop.condition is None


@dataclass(frozen=True, eq=False)
class _Hashed:
    """A body under its identity, for caches: equal jaxprs need not be the same object."""

    body: Any
    equation: Equation | None = None

    def __hash__(self) -> int:
        return id(self.body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.body is self.body


@dataclass(frozen=True)
class Tangents:
    """A declared derivative as a function of operands and tangents.

    Attributes:
        closed: closed jaxpr; takes all operands, then the tangents of those in ``seeds``; gives the tangents of the
            floating-point results.
        seeds: number of an operand to the number of its tangent among the arguments.
        results: numbers of the floating-point results.
        missing: operands by which the derivative has no forward mode, with the reason.
    """

    closed: Any
    seeds: dict[int, int]
    results: tuple[int, ...]
    missing: dict[int, str]


def tangents_of(eqn: Equation) -> Tangents:
    """The declared derivative of a function."""
    return _tangents_of(_Hashed(called_body(eqn), eqn))


@lru_cache(maxsize=4096)
def _tangents_of(hashed: _Hashed) -> Tangents:
    eqn = hashed.equation
    assert eqn is not None
    missing = _missing(eqn)
    moving, count = [k for k in declared_operands(eqn) if k not in missing], len(eqn.invars)
    results = tuple(k for k, out in enumerate(eqn.outvars) if is_floating(dtype_of(out)))

    def tangents(*flat: Any) -> list[Any]:
        # A rule that refuses some operands may refuse them in company too, so the others are pushed one by one.
        together = [moving] if not missing else [[k] for k in moving]
        parts = [pushed(eqn, flat[:count], part, [flat[count + moving.index(k)] for k in part])[1] for part in together]
        return [sum((part[k] for part in parts[1:]), parts[0][k]) for k in results] if parts else []

    avals = [atom.aval for atom in (*eqn.invars, *(eqn.invars[k] for k in moving))]
    closed = _plain(trace(tangents, avals), avals)
    return Tangents(closed, {k: count + n for n, k in enumerate(moving)}, results if moving else (), missing)


def _missing(eqn: Equation) -> dict[int, str]:
    """Operands by which the declared derivative has no forward mode, with the reason.

    A rule may refuse some operands and take others; a backward rule is transposed as a whole.
    """
    moving = declared_operands(eqn)
    reason = why_not_differentiated(eqn, moving)
    if reason is None:
        return {}
    if eqn.primitive.name == BACKWARD:
        return dict.fromkeys(moving, reason)
    # All together it fails; which operands are to blame shows one by one.
    reasons = {k: why_not_forward(eqn, [k]) for k in moving}
    return {k: reason for k, reason in reasons.items() if reason is not None}


def why_not_differentiated(eqn: Equation, moving: Sequence[int]) -> str | None:
    """Why the declared derivative by these operands has no forward mode; None where it has one."""
    reason = why_not_forward(eqn, moving)
    if reason is not None or eqn.primitive.name != BACKWARD:
        return reason
    closed = backward_of(eqn)
    avals = [var.aval for var in open_jaxpr(closed)[0].invars]
    linear = vanishes(_plain(closed, avals), range(len(eqn.invars), len(avals)))
    return None if linear else "what it gives for a cotangent of zero is not zero"


def _plain(closed: Any, avals: Sequence[Any]) -> Any:
    return trace(lambda *flat: evaluate(closed, flat, _without_declared), avals)


def _without_declared(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
    """Applies an equation without declared derivatives: a derivative is linear and not derived again, and its rule may
    call the function itself without end."""
    if called_body(eqn) is not None:
        return evaluate(called_body(eqn), operands, _without_declared)
    return apply_with_bodies(eqn, operands, _without_declared) if bodies(eqn) else bind(eqn, operands)


@lru_cache(maxsize=4096)
def _body_kind(hashed: _Hashed, of_derivative: bool) -> Kind:
    return _worst({_kind(eqn, of_derivative) for eqn in open_jaxpr(hashed.body)[0].eqns})


on_change(_body_kind.cache_clear)
