"""Which equation keeps a traced population from being named, or from being written as anything but a program."""

# The degree of a value is its degree as a polynomial in inputs and states, up to 2, ignoring jumps. An example:
#
#   a = 0.9 * v            1   a product of degrees 0 and 1
#   b = i - v              1   a sum has the highest degree of its terms
#   z = v > 1              0   constant between its jumps
#   c = select(z, a, b)    1   each branch is affine
#   d = b * v              2   a product of degrees 1 and 1: the first curved equation, no leaky integrator

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...program._jax import Equation, Literal, open_jaxpr
from ...program.analysis.explanations import equation_text
from ...program.bodies import bodies, called_body
from ...program.scalar import MOVES, is_scalable
from ..traced import Traced

CONSTANT, AFFINE, CURVED = range(3)
"""The degree of a value as a function of inputs and states, apart from jumps."""
SUMS = frozenset(["add", "add_any", "sub", "neg", "convert_element_type", "real", "reduce_precision", *MOVES])
STEPS = frozenset(
    ["gt", "ge", "lt", "le", "eq", "ne", "sign", "floor", "ceil", "round", "not", "and", "or", "is_finite"]
)
"""Primitives whose result is constant between its jumps."""


def whole_array_equation(neuron: Traced) -> str | None:
    """The first equation that cannot be computed for a single position; None if there is none."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    return next((equation_text(_innermost(eqn)) for eqn in jaxpr.eqns if not is_scalable(eqn)), None)


def _innermost(eqn: Equation) -> Equation:
    """The equation within the bodies of an equation that is the cause; the equation itself if it has no bodies."""
    causes = (e for body in bodies(eqn) for e in open_jaxpr(body)[0].eqns if not is_scalable(e))
    inner = next(causes, None)
    return eqn if inner is None else _innermost(inner)


def result_equation(neuron: Traced, name: str) -> str | None:
    """The equation that computes a new state or an output; None if there is no such equation or name."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    results = dict(zip((*neuron.states, *neuron.outputs), jaxpr.outvars, strict=True))
    producers = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    result = results.get(name)
    if result is None or isinstance(result, Literal) or result not in producers:
        return None
    return equation_text(producers[result])


def curved_equation(neuron: Traced) -> str | None:
    """The first equation that is not affine in inputs and states, such as a product of two of them."""
    jaxpr, _ = open_jaxpr(neuron.function.jaxpr)
    moving = len(neuron.inputs) + len(neuron.states)
    degrees = [AFFINE] * moving + [CONSTANT] * (len(jaxpr.invars) - moving)
    _, curved = _degree_of_function(neuron.function.jaxpr, degrees)
    return None if curved is None else equation_text(curved)


def _degree_of_function(closed: Any, operand_degrees: Sequence[int]) -> tuple[int, Equation | None]:
    """The highest degree of the results of a function, and the first equation with a curved result."""
    jaxpr, _ = open_jaxpr(closed)
    known = dict(zip(jaxpr.invars, operand_degrees, strict=True))
    first = None

    def read(atom: Any) -> int:
        return CONSTANT if isinstance(atom, Literal) else known.get(atom, CONSTANT)

    for eqn in jaxpr.eqns:
        degrees = [read(atom) for atom in eqn.invars]
        degree, curved = _degree_of_equation(eqn, degrees)
        known.update(dict.fromkeys(eqn.outvars, degree))
        first = first or curved
    return max(map(read, jaxpr.outvars), default=CONSTANT), first


def _degree_of_equation(eqn: Equation, degrees: Sequence[int]) -> tuple[int, Equation | None]:
    """The degree of an equation's results, and the equation at fault if they are curved and no operand is."""
    name, highest = eqn.primitive.name, max(degrees, default=CONSTANT)
    if highest == CONSTANT or name in STEPS:
        return CONSTANT, None
    body = called_body(eqn)
    if body is not None:
        return _degree_of_function(body, degrees)
    if name in SUMS:
        degree = highest
    elif name == "mul":
        degree = min(CURVED, sum(degrees))
    elif name == "div" and degrees[1] == CONSTANT:
        degree = highest
    elif name == "select_n":  # the condition jumps, so its degree does not count
        degree = max(degrees[1:])
    else:
        degree = CURVED
    return degree, eqn if degree == CURVED and highest < CURVED else None
