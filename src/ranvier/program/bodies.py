"""Equations that carry other equations (calls, branches and loops) under one description.

A ``scan`` of 10 turns with one loop constant w, one carried value v and one scanned operand x of shape [10, 3] has the
operands [w, v, x] and is ``Loop(length=10, first=0, num_constants=1, num_carried=1)``; its body takes w, v and one row
[3] of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._jax import Atom, Equation, Var, dtype_of, is_floating, open_jaxpr, scan_operand_counts, trace
from .primitives import Kind, rule_of

CALLS = frozenset(["jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "custom_lin"])


@dataclass(frozen=True)
class Loop:
    """A ``scan`` or ``while`` equation.

    Attributes:
        body: one turn; its operands are loop constants, carried values and scanned slices, in this order.
        length: number of turns; 0 for a ``while``, whose data decide.
        reverse: whether a scan takes the last slice first.
        first: operands of the equation before the loop constants: those of a ``while``'s condition.
        num_constants: number of loop constants.
        num_carried: number of carried values.
        condition: for a ``while``, the body that says whether to take another turn; None for a ``scan``.
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
