"""Parts of one projection that a program computes separately: products and biases of one parameter, products in a row.

A layer with one parameter (W, b), W of shape 3 × 4, is the two equations ``p = x @ W; y = p + b``. Its product has 12
pairs (element of p, weight), and its bias adds 4: both are one use with 16. A low-rank layer ``h = x @ A; y = h @ B``,
A of 3 × 2 and B of 2 × 4, is one use as well, of the matrix A B with its 3 · 4 = 12 pairs.

The uses are taken from the last to the first. The path of each is walked to the equation where it meets something else,
and if that is part of the same projection, the two become one use. The new one is taken next, for it may meet more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .._jax import Equation, Literal, Var, size_of
from .binding_time import BindingTime
from .parameter_flow import LinearPath, ParameterFlow
from .parameter_use import ParameterUse, UseKind


@dataclass(frozen=True, eq=False)
class Join:
    """Uses that are parts of one, and the one that takes their place."""

    parts: tuple[ParameterUse, ...]
    whole: ParameterUse


def joined_uses(flow: ParameterFlow, uses: Sequence[ParameterUse]) -> list[ParameterUse]:
    """The uses, with the parts of each projection joined into one, in program order."""
    product_at = {id(eqn): use for use in uses for eqn in use.equations}
    current = dict.fromkeys(uses)
    ending_at: dict[Var, ParameterUse] = {}
    pending = list(uses)
    while pending:
        use = pending.pop()
        # A use that has become part of another is still in the list.
        if use not in current:
            continue
        path = flow.path_of(use.y)
        # Of two parts that meet in an addition, the first taken meets nothing yet; the second meets the first.
        ending_at[path.end] = use
        addend = _addend(path)
        partner = product_at.get(id(path.next)) if addend is None else ending_at.get(addend)
        join = _join(flow, use, path, addend, partner if partner in current else None)
        if join is not None:
            for part in join.parts:
                del current[part]
            current[join.whole] = None
            pending.append(join.whole)
    return sorted(current, key=lambda use: flow.number_of[id(use.equations[-1])])


def _addend(path: LinearPath) -> Var | None:
    """The variable that the equation after a path adds to its end; None where it adds none."""
    if path.next is None or path.next.primitive.name not in ("add", "add_any", "sub"):
        return None
    rest = [atom for atom in path.next.invars if atom is not path.end and not isinstance(atom, Literal)]
    return rest[0] if len(rest) == 1 else None


def _join(
    flow: ParameterFlow, use: ParameterUse, path: LinearPath, addend: Var | None, partner: ParameterUse | None
) -> Join | None:
    """What a use becomes at the end of its path, together with the bias or the use that it meets there."""
    if (
        addend is not None
        and flow.binding_times.of(addend) is BindingTime.STATIC
        and flow.slots_of(addend) == use.slots
    ):
        return _with_bias(flow, use, path, addend)
    if partner is None or partner is use:
        return None
    if addend is not None:
        return _with_part(flow, use, path, partner)
    return _with_product(flow, use, path, partner)


def _with_bias(flow: ParameterFlow, use: ParameterUse, path: LinearPath, bias: Var) -> Join:
    whole = _whole(flow, (use,), path)
    pairs = use.pairs + size_of(whole.y)
    return Join((use,), replace(whole, operands=tuple(dict.fromkeys((*use.operands, bias))), pairs=pairs))


def _with_part(flow: ParameterFlow, use: ParameterUse, path: LinearPath, other: ParameterUse) -> Join | None:
    """Two products of one parameter that are added: ``x @ W + h @ U`` with the parameter (W, U)."""
    # One weight used twice (x @ W + h @ W) stays two uses: each has its own data, and its own trace.
    if use.slots != other.slots or _leaves_of(flow, use) & _leaves_of(flow, other):
        return None
    return Join((use, other), _whole(flow, (use, other), path, flow.path_of(other.y).equations))


def _leaves_of(flow: ParameterFlow, use: ParameterUse) -> int:
    mask = 0
    for var in use.operands:
        mask |= flow.leaves_of(var)
    return mask


def _with_product(flow: ParameterFlow, use: ParameterUse, path: LinearPath, following: ParameterUse) -> Join | None:
    """``(x @ A) @ B``: a product with a low-rank matrix."""
    if path.next is None or path.next.primitive.name != "dot_general" or use.kind is not UseKind.AFFINE:
        return None
    # A bias in between (``(x @ A + a) @ B``) is no part of A B, so neither may have been joined before.
    if len(use.equations) != 1 or len(following.equations) != 1:
        return None
    inputs = use.pairs // max(size_of(use.y), 1)
    whole = replace(
        _whole(flow, (use, following), path),
        xs=use.xs,
        pairs=inputs * size_of(following.y),
        reason="products in a row whose other operands are static are one product with a low-rank matrix",
    )
    return Join((use, following), whole)


def _whole(
    flow: ParameterFlow, parts: Sequence[ParameterUse], path: LinearPath, between: Iterable[Equation] = ()
) -> ParameterUse:
    """One use with the operands, data and equations of all parts, up to the equation after the first one's path."""
    assert path.next is not None
    equations = {id(e): e for part in parts for e in part.equations}
    equations |= {id(e): e for e in (*path.equations, *between, path.next)}
    return replace(
        parts[0],
        y=path.next.outvars[0],
        xs=tuple(dict.fromkeys(x for part in parts for x in part.xs)),
        operands=tuple(dict.fromkeys(operand for part in parts for operand in part.operands)),
        equations=tuple(sorted(equations.values(), key=lambda eqn: flow.number_of[id(eqn)])),
        slots=frozenset().union(*(part.slots for part in parts)),
        pairs=sum(part.pairs for part in parts),
    )
