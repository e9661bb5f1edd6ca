"""Projections of a program: where parameters meet data, and how far each operation extends.

A layer of 4 neurons with 3 inputs, ``p = x @ w; y = p + b; v' = decay * v + y``, in which (w, b) is one parameter and
decay another, has two uses. The product mixes, so w is an affine use with 12 pairs; it goes on to the addition of b,
which belongs to the same parameter, and ends at y with 12 + 4 = 16. decay only scales each v: it is an elementwise use.

1. Every equation that reads a static value made of parameters and something that changes is a meeting.
2. Where it mixes, it is a use of its own; uses that are parts of one projection are joined (:mod:`.joined_uses`).
3. What enters without mixing and is part of no use so far is a sum of products written out, or elementwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._jax import Equation, Literal, Var, open_jaxpr, shape_of, size_of
from ..bodies import bodies, has_own_derivative, is_loop
from ..nested import classify_derivative
from ..nested import mixes as derivative_mixes
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from .binding_time import BindingTime
from .joined_uses import joined_uses
from .parameter_flow import ParameterFlow
from .parameter_use import ParameterUse, UseKind


def parameter_uses_of(info: ModuleInfo) -> list[ParameterUse]:
    """All operations with an operand that is made of parameters: those that mix in program order, then the others."""
    flow = ParameterFlow(info)
    meetings = [meeting for eqn in info.equations if (meeting := _meeting(flow, eqn)) is not None]
    mixing = [use for meeting in meetings for use in _mixing_uses(flow, meeting)]
    joined = joined_uses(flow, mixing)
    unused = _outside(flow, joined, _entering(flow, meetings))
    return [*joined, *(_summed_product(flow, var) or _elementwise_use(flow, var) for var in unused)]


# Meetings of parameters and data -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Meeting:
    """An equation where parameters meet data.

    Attributes:
        equation: the equation.
        mixed: its operands that are made of parameters and take part in mixing.
        unmixed: its operands that are made of parameters and enter position by position.
    """

    equation: Equation
    mixed: tuple[Var, ...]
    unmixed: tuple[Var, ...]


def _meeting(flow: ParameterFlow, eqn: Equation) -> Meeting | None:
    operands = flow.parameter_operands(eqn)
    # Parameters among themselves (softplus(w), A @ B) make an operand; they meet no data yet.
    if not operands or all(flow.binding_times.is_static(atom) for atom in eqn.invars):
        return None
    if classify_derivative(eqn) is Kind.OPAQUE:
        return None
    mixed = {k: var for k, var in operands.items() if mixes(eqn, k)}
    unmixed = {k: var for k, var in operands.items() if k not in mixed}
    return Meeting(eqn, tuple(mixed.values()), tuple(unmixed.values()))


def _entering(flow: ParameterFlow, meetings: Iterable[Meeting]) -> list[Var]:
    """Variables that enter the changing part of a step position by position, each once."""
    at_meetings = [var for meeting in meetings for var in meeting.unmixed]
    # A new state made only of parameters (v' = w) meets no data in this step, but the next step reads it.
    new_states = [var for var in flow.info.hidden_outvars if flow.is_made_of_parameters(var)]
    return list(dict.fromkeys((*at_meetings, *new_states)))


# Uses that mix -----------------------------------------------------------------------------------------------------


def _mixing_uses(flow: ParameterFlow, meeting: Meeting) -> Iterator[ParameterUse]:
    """One use for every result of an equation that mixes parameters; none where it mixes none."""
    if not meeting.mixed:
        return
    eqn = meeting.equation
    variables = [atom for atom in eqn.invars if not isinstance(atom, Literal)]
    changing = dict.fromkeys(var for var in variables if not flow.binding_times.is_static(var))
    static = dict.fromkeys(var for var in variables if flow.binding_times.of(var) is BindingTime.STATIC)
    slots = frozenset().union(*map(flow.slots_of, meeting.mixed))
    kind, reason = _kind_of(eqn)
    for y in eqn.outvars:
        pairs = _count_pairs(kind, eqn, y, meeting.mixed)
        yield ParameterUse(kind, y, tuple(changing), tuple(static), (eqn,), slots, pairs, reason, flow.info)


_BY_OPERATION = {
    "affine": UseKind.AFFINE,
    "conv": UseKind.CONV,
    "sparse": UseKind.SPARSE,
    "embedding": UseKind.EMBEDDING,
    "slice": UseKind.EMBEDDING,
}


def _kind_of(eqn: Equation) -> tuple[UseKind, str]:
    name = eqn.primitive.name
    if name == "cond":
        return UseKind.BRANCH, "mixes inside a cond, which is differentiated as a whole, branch by branch"
    if is_loop(eqn):
        return UseKind.LOOP, "mixes inside a loop that is not unrolled, which is differentiated as a whole"
    operation = rule_of(eqn.primitive).operation
    kind = _BY_OPERATION.get(operation or "", UseKind.OTHER)
    return kind, f"is an operand of {name}"


def _count_pairs(kind: UseKind, eqn: Equation, y: Var, operands: Sequence[Var]) -> int:
    """(element of y, weight element) pairs; an upper bound where the operation is not known in detail."""
    size = size_of(y)
    weights = sum(size_of(var) for var in operands)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * int(np.prod([shape_of(eqn.invars[0])[d] for d in contracted], dtype=np.int64))
    if kind is UseKind.CONV:
        features = eqn.params["dimension_numbers"].rhs_spec[0]
        return size * (weights // max(shape_of(eqn.invars[1])[features], 1))
    if kind is UseKind.SPARSE:
        return weights * max(1, size // max(shape_of(y)[0], 1)) if len(shape_of(y)) > 1 else weights
    if kind is UseKind.EMBEDDING:
        picked = int(np.prod(eqn.params.get("slice_sizes", (1,)), dtype=np.int64))
        return size * max(1, weights // max(picked, 1))
    return size * weights


# Uses that do not mix by themselves --------------------------------------------------------------------------------


def _outside(flow: ParameterFlow, uses: Iterable[ParameterUse], entering: Iterable[Var]) -> list[Var]:
    """The entering variables that are not all used up by these uses: a bias that was joined is."""
    inside = {id(eqn) for use in uses for eqn in use.equations}

    def is_covered(var: Var) -> bool:
        readers = flow.feeds.consumers.get(var, [])
        return bool(readers) and all(id(flow.info.equations[k]) in inside for k in readers)

    return [var for var in entering if not is_covered(var)]


def _summed_product(flow: ParameterFlow, w: Var) -> ParameterUse | None:
    """A matrix product written as an elementwise product and a sum: ``(w * x).sum(axis)``, or into constant places
    as ``jnp.zeros(n).at[post].add(w * x[pre])`` and ``jax.ops.segment_sum`` have it."""
    product = flow.only_reader(w)
    if product is None or product.primitive.name != "mul":
        return None
    path = flow.path_of(product.outvars[0])
    kind = None if path.next is None else _kind_of_sum(flow, path.next, path.end)
    if path.next is None or kind is None:
        return None
    return ParameterUse(
        kind,
        y=path.next.outvars[0],
        xs=tuple(atom for atom in product.invars if atom is not w and not isinstance(atom, Literal)),
        operands=(w,),
        equations=(product, *path.equations, path.next),
        slots=flow.slots_of(w),
        pairs=size_of(product.outvars[0]),
        reason="an elementwise product that is summed is a matrix product",
        _info=flow.info,
    )


def _kind_of_sum(flow: ParameterFlow, eqn: Equation, y: Var) -> UseKind | None:
    """The kind of matrix product that an equation makes of elementwise products; None where it does not sum them."""
    if eqn.primitive.name == "reduce_sum":
        return UseKind.AFFINE
    constant = all(flow.binding_times.of(a) is BindingTime.CONSTANT for a in eqn.invars if a is not y)
    if eqn.primitive.name == "scatter-add" and eqn.invars[2] is y and constant:
        return UseKind.SPARSE
    return None


def _elementwise_use(flow: ParameterFlow, var: Var) -> ParameterUse:
    return ParameterUse(
        UseKind.ELEMENTWISE,
        y=var,
        xs=(),
        operands=(var,),
        equations=(),
        slots=flow.slots_of(var),
        pairs=size_of(var),
        reason="enters position by position, without mixing",
        _info=flow.info,
    )


# What mixes ---------------------------------------------------------------------------------------------------------


def mixes(eqn: Equation, operand: int) -> bool:
    """Whether the operand takes part in mixing, in this equation or in its body."""
    rule = rule_of(eqn.primitive)
    if rule.kind is Kind.NESTED and has_own_derivative(eqn):
        return derivative_mixes(eqn, operand)
    if rule.kind is Kind.NESTED:
        return any(_body_mixes(eqn, body, operand) for body in bodies(eqn))
    if rule.index_operands is not None and operand == 0 and rule.operation is not None:
        return True  # rows or elements picked by data
    return rule.kind is Kind.MIXING


def _body_mixes(eqn: Equation, body: Any, operand: int) -> bool:
    jaxpr, _ = open_jaxpr(body)
    number = operand - 1 if eqn.primitive.name == "cond" else operand
    if number < 0 or number >= len(jaxpr.invars):
        return False
    tainted = {jaxpr.invars[number]}
    for inner in jaxpr.eqns:
        hit = [k for k, a in enumerate(inner.invars) if not isinstance(a, Literal) and a in tainted]
        if any(mixes(inner, k) or rule_of(inner.primitive).kind is Kind.OPAQUE for k in hit):
            return True
        if hit:
            tainted.update(inner.outvars)
    return False
