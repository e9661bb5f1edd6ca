"""Equations that carry other equations: calls, branches and loops, under one description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax

from ._jax import Atom, Equation, Literal, Var, dtype_of, is_floating, open_jaxpr, scan_operand_counts, size_of, trace
from .derivatives import as_function
from .interpret import needed_equations
from .primitives import Kind, on_change, rule_of

CALLS = frozenset(["jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_lin"])


@dataclass(frozen=True)
class Loop:
    """A ``scan`` or ``while`` equation.

    Attributes:
        body: one turn; its operands are loop constants, carried values and scanned slices, in this order.
        length: number of turns; 0 for a ``while``, whose data decide.
        reverse: whether a scan takes the last slice first.
        first: operands of the equation before the loop constants: those of a ``while``'s condition.
        num_constants: of the loop constants.
        num_carried: of the carried values.
        condition: of a ``while``: whether to take another turn.
    """

    body: Any
    length: int
    reverse: bool
    first: int
    num_constants: int
    num_carried: int
    condition: Any | None = None

    @property
    def invars(self) -> Sequence[Var]:
        return open_jaxpr(self.body)[0].invars

    @property
    def outvars(self) -> Sequence[Atom]:
        return open_jaxpr(self.body)[0].outvars

    @property
    def may_end_at_once(self) -> bool:
        """Whether there may be no turn at all."""
        return self.length == 0

    @property
    def may_turn(self) -> bool:
        """Whether there may be a turn."""
        return self.length > 0 or self.condition is not None

    def split(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """Loop constants, carried values and scanned operands."""
        start = self.first + self.num_constants
        end = start + self.num_carried
        return list(operands[self.first : start]), list(operands[start:end]), list(operands[end:])


def is_call(eqn: Equation) -> bool:
    """Whether the equation only wraps others and can be replaced by them."""
    return eqn.primitive.name in CALLS or rule_of(eqn.primitive).expand is not None


def has_own_derivative(eqn: Equation) -> bool:
    """Whether the derivative is declared beside the function, as for a surrogate gradient."""
    return rule_of(eqn.primitive).surrogate


def branches_of(eqn: Equation) -> tuple[Any, ...]:
    return tuple(eqn.params["branches"])


def is_loop(eqn: Equation) -> bool:
    return eqn.primitive.name in ("scan", "while")


def loop_of(eqn: Equation) -> Loop:
    """The description of a ``scan`` or ``while`` equation."""
    params = eqn.params
    if eqn.primitive.name == "while":
        first, constants = params["cond_nconsts"], params["body_nconsts"]
        carried = len(eqn.invars) - first - constants
        return Loop(params["body_jaxpr"], 0, False, first, constants, carried, params["cond_jaxpr"])
    constants, carried = scan_operand_counts(params)
    return Loop(params["jaxpr"], params["length"], params["reverse"], 0, constants, carried)


def called_body(eqn: Equation) -> Any | None:
    """The body of an equation that runs it once on all its operands; None for branches and loops."""
    rule = rule_of(eqn.primitive)
    if rule.expand is not None:
        return _expanded(eqn)
    for key in ("call_jaxpr", "jaxpr", "call"):
        if not is_loop(eqn) and key in eqn.params:
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
    if is_loop(eqn):
        return (loop_of(eqn).body,)
    body = called_body(eqn)
    return () if body is None else (body,)


def contains(eqn: Equation, name: str) -> bool:
    """Whether the equation is of this primitive, or runs one in its branches, loops or calls.

    What a function with a derivative of its own does inside is its own affair.
    """
    if eqn.primitive.name == name:
        return True
    inside = () if has_own_derivative(eqn) else bodies(eqn)
    return any(contains(inner, name) for body in inside for inner in open_jaxpr(body)[0].eqns)


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
    if is_loop(eqn) and not carries_all(eqn):
        return Kind.MIXING
    return Kind.ELEMENTWISE if kinds else Kind.OPAQUE


def mixes(eqn: Equation, operand: int) -> bool:
    """Whether a derivative passes from an operand through a mixing of positions; a branch or a turn is enough."""
    if classify(eqn) is not Kind.MIXING:
        return False
    if eqn.primitive.name == "cond":
        return operand > 0 and any(_mixes_argument(branch, operand - 1) for branch in branches_of(eqn))
    if is_loop(eqn):
        loop = loop_of(eqn)
        return operand >= loop.first and _mixes_argument(loop.body, operand - loop.first, loop)
    return True


def _mixes_argument(closed: Any, argument: int, loop: Loop | None = None) -> bool:
    return any(mixes(eqn, k) for eqn, reads in on_derivative_path(closed, argument, loop) for k in reads)


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
