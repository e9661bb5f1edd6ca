"""Equations that carry other equations: calls, branches and loops, under one description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax

from ._jax import Atom, Equation, Literal, dtype_of, is_floating, open_jaxpr, scan_operand_counts, size_of, trace
from .derivatives import as_function
from .interpret import needed_equations
from .primitives import Kind, on_change, rule_of

CALLS = frozenset(["jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_lin"])


@dataclass(frozen=True)
class Loop:
    """A ``scan`` equation: operands are loop constants, carried values, scanned inputs, in this order."""

    body: Any
    length: int
    reverse: bool
    num_constants: int
    num_carried: int

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        end = self.num_constants + self.num_carried
        return list(operands[: self.num_constants]), list(operands[self.num_constants : end]), list(operands[end:])


def is_call(eqn: Equation) -> bool:
    """Whether the equation only wraps others and can be replaced by them."""
    return eqn.primitive.name in CALLS or rule_of(eqn.primitive).expand is not None


def has_own_derivative(eqn: Equation) -> bool:
    """Whether the derivative is declared beside the function, as for a surrogate gradient."""
    return rule_of(eqn.primitive).surrogate


def branches_of(eqn: Equation) -> tuple[Any, ...]:
    return tuple(eqn.params["branches"])


def loop_of(eqn: Equation) -> Loop:
    constants, carried = scan_operand_counts(eqn.params)
    return Loop(eqn.params["jaxpr"], eqn.params["length"], eqn.params["reverse"], constants, carried)


def called_body(eqn: Equation) -> Any | None:
    """The body of an equation that runs it once on all its operands; None for branches and loops."""
    rule = rule_of(eqn.primitive)
    if rule.expand is not None:
        return _expanded(eqn)
    for key in ("call_jaxpr", "jaxpr", "call"):
        if eqn.primitive.name != "scan" and key in eqn.params:
            return eqn.params[key]
    return None


def _expanded(eqn: Equation) -> Any:
    function = rule_of(eqn.primitive).expand
    assert function is not None
    return trace(function(**eqn.params), [atom.aval for atom in eqn.invars])


def has_derivative(eqn: Equation) -> bool:
    """Whether a derivative can pass through the equation from any floating-point operand."""
    rule = rule_of(eqn.primitive)
    if rule.kind is Kind.OPAQUE or not rule.differentiable:
        return False
    return any(is_floating(dtype_of(out)) for out in eqn.outvars)


def bodies(eqn: Equation) -> tuple[Any, ...]:
    """All jaxprs inside a nested equation."""
    if eqn.primitive.name == "cond":
        return branches_of(eqn)
    if eqn.primitive.name == "scan":
        return (eqn.params["jaxpr"],)
    body = called_body(eqn)
    return () if body is None else (body,)


def classify(eqn: Equation) -> Kind:
    """What the equation does to positions, by the table or, for nested equations, by the body.

    Args:
        eqn: an equation of a jaxpr.

    Returns:
        One of the four kinds; never ``Kind.NESTED``. A function whose declared derivative mixes is mixing.
    """
    return _kind(eqn, True)


def _kind(eqn: Equation, with_derivatives: bool) -> Kind:
    kind = rule_of(eqn.primitive).kind
    if kind is not Kind.NESTED:
        return kind
    kinds = {_body_kind(_Hashed(body), with_derivatives) for body in bodies(eqn)}
    if with_derivatives and eqn.primitive.name in ("custom_jvp_call", "custom_vjp_call"):
        kinds.add(_derivative_kind(_Hashed(called_body(eqn), eqn)))
    for verdict in (Kind.OPAQUE, Kind.MIXING, Kind.STRUCTURAL):
        if verdict in kinds:
            return verdict
    if eqn.primitive.name == "scan" and not _carries_all(eqn):
        return Kind.MIXING
    return Kind.ELEMENTWISE if kinds else Kind.OPAQUE


def mixes(eqn: Equation, operand: int) -> bool:
    """Whether the equation mixes the positions of one operand: of a cond, whether a branch does."""
    if eqn.primitive.name != "cond" or classify(eqn) is not Kind.MIXING:
        return classify(eqn) is Kind.MIXING
    return operand > 0 and any(_mixes_argument(open_jaxpr(branch)[0], operand - 1) for branch in branches_of(eqn))


def _mixes_argument(body: Any, argument: int) -> bool:
    made_of_it = {body.invars[argument]}
    for eqn in body.eqns:
        reads = [k for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in made_of_it]
        if any(mixes(eqn, k) for k in reads):
            return True
        if reads and has_derivative(eqn):
            made_of_it.update(eqn.outvars)
    return False


def _carries_all(eqn: Equation) -> bool:
    """Whether a loop neither reads nor writes along time, so that positions keep their place."""
    loop = loop_of(eqn)
    return len(eqn.outvars) == loop.num_carried and len(eqn.invars) == loop.num_constants + loop.num_carried


@dataclass(frozen=True, eq=False)
class _Hashed:
    """A body under its identity, for caches: equal jaxprs need not be the same object."""

    body: Any
    equation: Equation | None = None

    def __hash__(self) -> int:
        return id(self.body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and other.body is self.body


@lru_cache(maxsize=4096)
def _body_kind(hashed: _Hashed, with_derivatives: bool) -> Kind:
    kinds = {_kind(eqn, with_derivatives) for eqn in open_jaxpr(hashed.body)[0].eqns}
    for verdict in (Kind.OPAQUE, Kind.MIXING, Kind.STRUCTURAL):
        if verdict in kinds:
            return verdict
    return Kind.ELEMENTWISE


@lru_cache(maxsize=4096)
def _derivative_kind(hashed: _Hashed) -> Kind:
    """Mixing where a declared derivative, unlike the function itself, mixes positions."""
    eqn = hashed.equation
    assert eqn is not None
    moving = [k for k, atom in enumerate(eqn.invars) if is_floating(dtype_of(atom))]
    size = max((size_of(out) for out in eqn.outvars), default=0)
    derivative = trace(_derivative_of(eqn, moving), [atom.aval for atom in (*eqn.invars, *_seeds(eqn, moving))])
    jaxpr, _ = open_jaxpr(derivative)
    full = [atom for atom in jaxpr.outvars if size_of(atom) == size]
    kinds = {_kind(inner, False) for inner in needed_equations(jaxpr.eqns, full)}
    return Kind.MIXING if kinds & {Kind.MIXING, Kind.OPAQUE} else Kind.ELEMENTWISE


def _seeds(eqn: Equation, moving: Sequence[int]) -> list[Atom]:
    """Variables with the shapes of what the derivative is applied to: tangents, or cotangents for a custom_vjp."""
    return list(eqn.outvars) if eqn.primitive.name == "custom_vjp_call" else [eqn.invars[k] for k in moving]


def _derivative_of(eqn: Equation, moving: Sequence[int]) -> Callable[..., Any]:
    count = len(eqn.invars)

    def derivative(*operands: Any) -> Any:
        given, seeds = operands[:count], list(operands[count:])
        values = [given[k] for k in moving]
        if eqn.primitive.name == "custom_vjp_call":
            return jax.vjp(as_function(eqn, given, moving), *values)[1](tuple(seeds))
        return jax.jvp(as_function(eqn, given, moving), values, seeds)[1]

    return derivative


on_change(_body_kind.cache_clear)
on_change(_derivative_kind.cache_clear)
