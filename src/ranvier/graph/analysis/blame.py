"""Which equation of a traced population is in the way of a name for it, or of other text than a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...program._jax import Equation, Literal, open_jaxpr
from ...program.analysis.explanations import equation_text
from ...program.bodies import bodies, called_body
from ...program.scalar import MOVES, is_scalable
from ..traced import Traced

CONSTANT, AFFINE, CURVED = range(3)
"""What a value is as a function of inputs and states, apart from places where it jumps."""
SUMS = frozenset(["add", "add_any", "sub", "neg", "convert_element_type", "real", "reduce_precision", *MOVES])
STEPS = frozenset(
    ["gt", "ge", "lt", "le", "eq", "ne", "sign", "floor", "ceil", "round", "not", "and", "or", "is_finite"]
)
"""What is constant wherever it does not jump."""


def whole_array_equation(neuron: Traced) -> str | None:
    """The first equation that cannot be run at one position."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    return next((equation_text(_innermost(eqn)) for eqn in jaxpr.eqns if not is_scalable(eqn)), None)


def _innermost(eqn: Equation) -> Equation:
    inner = (e for body in bodies(eqn) for e in open_jaxpr(body)[0].eqns if not is_scalable(e))
    found = next(inner, None)
    return eqn if found is None else _innermost(found)


def result_equation(neuron: Traced, name: str) -> str | None:
    """The equation whose result is a new state or an output; None where there is none, or no such name."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    results = dict(zip((*neuron.states, *neuron.outputs), jaxpr.outvars, strict=True))
    made = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    result = results.get(name)
    return None if result is None or isinstance(result, Literal) or result not in made else equation_text(made[result])


def curved_equation(neuron: Traced) -> str | None:
    """The first equation that is not affine in inputs and states, such as a product of two of them."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    moving = len(neuron.inputs) + len(neuron.states)
    _, curved = _walked(neuron.function.jaxpr, [AFFINE] * moving + [CONSTANT] * (len(jaxpr.invars) - moving))
    return None if curved is None else equation_text(curved)


def _walked(closed: Any, given: Sequence[int]) -> tuple[int, Equation | None]:
    """What the results of a function are at most, and the first equation that makes something curved."""
    jaxpr, _ = open_jaxpr(closed)
    known = dict(zip(jaxpr.invars, given, strict=True))
    first = None

    def read(atom: Any) -> int:
        return CONSTANT if isinstance(atom, Literal) else known.get(atom, CONSTANT)

    for eqn in jaxpr.eqns:
        degrees = [read(atom) for atom in eqn.invars]
        degree, curved = _applied(eqn, degrees)
        known.update(dict.fromkeys(eqn.outvars, degree))
        first = first or curved
    return max(map(read, jaxpr.outvars), default=CONSTANT), first


def _applied(eqn: Equation, degrees: Sequence[int]) -> tuple[int, Equation | None]:
    """What an equation makes of operands, and which equation makes it curved if none of them is."""
    name, highest = eqn.primitive.name, max(degrees, default=CONSTANT)
    if highest == CONSTANT or name in STEPS:
        return CONSTANT, None
    body = called_body(eqn)
    if body is not None:
        return _walked(body, degrees)
    if name in SUMS:
        degree = highest
    elif name == "mul":
        degree = min(CURVED, sum(degrees))
    elif name == "div" and degrees[1] == CONSTANT:
        degree = highest
    elif name == "select_n":
        degree = max(degrees[1:])
    else:
        degree = CURVED
    return degree, eqn if degree == CURVED and highest < CURVED else None
