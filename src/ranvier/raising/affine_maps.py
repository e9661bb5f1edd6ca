"""The affine maps of a step: groups of equations whose result is a matrix times one operand, plus a constant.

In the example of ``step.py``, ``concatenate([x, z]) @ params["w"]`` is an affine map of one equation. Were w and b two
leaves of one parameter p, ``(x @ p["w"]) * 0.5 + p["b"]`` would be one of three equations. A cumulative sum, in which
no parameter takes part, is one too. Whether something is affine is not read off the primitives but tried: with random a
and b, ``f(a + 2.5 b)`` must be ``f(a) + 2.5 f(b) - 2.5 f(0)`` and ``f(-a)`` must be ``2 f(0) - f(a)``, up to rounding.
So primitives of other libraries can be affine maps without a table that lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..program._jax import Equation, Literal, Var, dtype_of, is_real, shape_of, variables_of
from ..program.analysis.parameter_use import ParameterUse, UseKind
from ..program.analysis.parameter_uses import parameter_uses_of
from ..program.nested import classify
from ..program.primitives import Kind
from ..util.compiled import compiled
from .step import StepView

TRIES = 4
"""So many pairs of random values are tried."""
AffineMap = ParameterUse
"""An affine map of one operand; of no parameter where it is a fixed sum."""


@dataclass(frozen=True, eq=False)
class AffineMaps:
    """The affine maps of a step.

    Attributes:
        by_result: each by the variable of its result.
    """

    by_result: Mapping[Var, AffineMap]

    @cached_property
    def last(self) -> frozenset[int]:
        """The ``id`` of the last equation of every map."""
        return frozenset(id(affine.equations[-1]) for affine in self.by_result.values())

    @cached_property
    def equations(self) -> frozenset[int]:
        """The ``id`` of every equation of every map."""
        return frozenset(id(eqn) for affine in self.by_result.values() for eqn in affine.equations)


def find_affine_maps(step: StepView) -> AffineMaps:
    """The affine maps of a step; no equation is in two of them."""
    by_result: dict[Var, AffineMap] = {}
    free = {id(eqn) for eqn in step.equations}
    # Uses of parameters come first: they know which scales and biases after a product belong to it. A product that
    # was taken by itself would leave its bias to the arithmetic of a population.
    learned = [
        use for use in parameter_uses_of(step.info) if use.kind in (UseKind.AFFINE, UseKind.CONV, UseKind.SPARSE)
    ]
    for candidate in learned:
        if _is_one(step, candidate, free):
            by_result[candidate.y] = candidate
            free.difference_update(map(id, candidate.equations))
    for eqn in step.equations:
        candidate = _fixed_map(step, eqn) if id(eqn) in free else None
        if candidate is not None and _is_one(step, candidate, free):
            by_result[candidate.y] = candidate
            free.remove(id(eqn))
    return AffineMaps(by_result)


def is_learned(step: StepView, affine: AffineMap) -> bool:
    """Whether a map has a derivative by a parameter."""
    return any(step.is_learned(var) for var in affine.operands)


def _fixed_map(step: StepView, eqn: Equation) -> AffineMap | None:
    """An equation that mixes elements of one changing operand, as a map that may be affine."""
    changing = {a for a in variables_of(eqn.invars) if not step.binding_times.is_static(a)}
    adds_up = eqn.primitive.name == "scatter-add"
    if not (classify(eqn) is Kind.MIXING or adds_up) or len(eqn.outvars) != 1 or len(changing) != 1:
        return None
    # An update of a few elements is a scatter-add, too. As a move it needs no matrix.
    if adds_up and _is_placement(step, eqn):
        return None
    static = tuple(dict.fromkeys(a for a in variables_of(eqn.invars) if a not in changing))
    y, reason = eqn.outvars[0], "mixes one operand"
    return ParameterUse(UseKind.OTHER, y, tuple(changing), static, (eqn,), frozenset(), 0, reason, step.info)


def _is_placement(step: StepView, eqn: Equation) -> bool:
    """Whether a sum into places adds at most one element to each, so that it only moves."""
    reached = {operand for dependences in step.dependences(eqn) for operand, _ in dependences}
    return all(k in reached for k in (0, 2) if not isinstance(eqn.invars[k], Literal))


def _is_one(step: StepView, candidate: AffineMap, free: set[int]) -> bool:
    """Whether a candidate is an affine map of one real operand, and its equations are of no other map."""
    atoms = (candidate.y, *candidate.xs)
    if len(candidate.xs) != 1 or not all(is_real(dtype_of(a)) for a in atoms):
        return False
    if any(id(e) not in free or e.effects for e in candidate.equations):
        return False
    return _is_affine(step, candidate)


def _is_affine(step: StepView, candidate: AffineMap) -> bool:
    """Whether a map keeps sums and multiples, tried on random values."""
    (x,) = candidate.xs
    dtype = dtype_of(x)
    generator = np.random.default_rng(0)
    operands = [step.static[var] for var in candidate.operands]
    origin = jnp.zeros(shape_of(x), dtype)
    try:
        # Parameters are operands, not constants: then maps that are alike are compiled once.
        program = compiled(lambda value, others: candidate([value], others), origin, operands)
        zero = np.asarray(program(origin, operands), np.float64)
        for _ in range(TRIES):
            a, b = (jnp.asarray(generator.normal(size=shape_of(x)), dtype) for _ in range(2))
            values = (a, b, -a, a + 2.5 * b)
            f_a, f_b, f_mirrored, f_both = (np.asarray(program(value, operands), np.float64) for value in values)
            # A maximum keeps sums of values that are largest at the same place, and so does a sort of values in the
            # same order. Mirrored values are largest elsewhere.
            if not _agree(f_mirrored, 2 * zero - f_a, dtype):
                return False
            if not _agree(f_both, f_a + 2.5 * f_b - 2.5 * zero, dtype):
                return False
    except Exception:  # a primitive of another library that cannot be run here is no affine map for us
        return False
    return True


def _agree(values: np.ndarray, expected: np.ndarray, dtype: Any) -> bool:
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    # 2000 units in the last place: a long sum in single precision is that far off, anything curved is further.
    tolerance = scale * 2e3 * float(jnp.finfo(dtype).eps)
    return bool(np.all(np.isfinite(values))) and np.allclose(values, expected, rtol=0, atol=tolerance)
