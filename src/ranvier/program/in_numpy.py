"""Elementwise programs in numpy: for small arrays a step then takes microseconds, where a call into XLA takes longer
than its arithmetic.

``z = where(v > 1, 1, 0); v' = 0.9 * (v - z)`` of 8 samples and 16 neurons is five calls of numpy, about 10
microseconds. A compiled function takes a hundred, and each of a graph's populations has to be compiled first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy import special

from ._jax import Equation, Literal, dtype_of, is_floating, open_jaxpr
from .bodies import called_body
from .folding import ELEMENTARY, EXACT
from .scalar import MOVES

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **EXACT, **ELEMENTARY,
    "add_any": np.add, "div": np.divide, "pow": np.power, "square": np.square, "sign": np.sign, "exp2": np.exp2,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "atan2": np.arctan2, "sinh": np.sinh, "cosh": np.cosh,
    "erf": special.erf, "is_finite": np.isfinite,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}  # fmt: skip
"""Equations without options, whose numpy functions do the same to every number."""
OF_FLOATS = frozenset(["div", "pow", "integer_pow", "floor", "ceil", "sign"])
"""Those that numpy defines otherwise for whole numbers."""


@dataclass(frozen=True, eq=False)
class NumpyProgram:
    """Calls of numpy, one after the other, on a list of values: operands first, then each call's result.

    Attributes:
        constants: values by their place.
        calls: function, places of its operands, place of its result.
        results: their places.
        size: number of places.
    """

    constants: tuple[tuple[int, Any], ...]
    calls: tuple[tuple[Callable[..., Any], tuple[int, ...], int], ...]
    results: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, closed: Any) -> NumpyProgram | None:
        """A closed jaxpr of single numbers as calls of numpy; None where an equation has no form in numpy."""
        writer = _Writer()
        operands = [writer.place() for _ in open_jaxpr(closed)[0].invars]
        try:
            results = writer.write(closed, operands)
        except _NoForm:
            return None
        return cls(tuple(writer.constants), tuple(writer.calls), tuple(results), writer.size)

    def __call__(self, operands: Sequence[Any]) -> list[Any]:
        values: list[Any] = [*operands, *self._after_operands[len(operands) :]]
        for function, sources, target in self.calls:
            values[target] = function(*[values[source] for source in sources])
        return [values[place] for place in self.results]

    @cached_property
    def _after_operands(self) -> list[Any]:
        """All places, with the constants filled in."""
        constants = dict(self.constants)
        return [constants.get(place) for place in range(self.size)]


class _NoForm(Exception):
    """An equation has no form in numpy."""


class _Writer:
    """Writes the calls of a program; bodies of called functions are written in place."""

    def __init__(self) -> None:
        self.size = 0
        self.constants: list[tuple[int, Any]] = []
        self.calls: list[tuple[Callable[..., Any], tuple[int, ...], int]] = []

    def place(self) -> int:
        self.size += 1
        return self.size - 1

    def write(self, closed: Any, operands: Sequence[int]) -> list[int]:
        """Writes a closed jaxpr; the places of its results."""
        jaxpr, consts = open_jaxpr(closed)
        places = dict(zip(jaxpr.invars, operands, strict=True))
        places.update((var, self._constant(value)) for var, value in zip(jaxpr.constvars, consts, strict=True))

        def place_of(atom: Any) -> int:
            return self._constant(atom.val) if isinstance(atom, Literal) else places[atom]

        for eqn in jaxpr.eqns:
            places.update(zip(eqn.outvars, self._equation(eqn, [*map(place_of, eqn.invars)]), strict=True))
        return [place_of(atom) for atom in jaxpr.outvars]

    def _constant(self, value: Any) -> int:
        if np.ndim(value):
            raise _NoForm
        place = self.place()
        self.constants.append((place, np.asarray(value)[()]))
        return place

    def _equation(self, eqn: Equation, operands: list[int]) -> list[int]:
        if eqn.primitive.name in MOVES:
            return operands[:1]
        if called_body(eqn) is not None:
            # Derivatives do not matter here, so a function with a derivative of its own is what it computes.
            return self.write(called_body(eqn), operands)
        target = self.place()
        self.calls.append((_function_of(eqn), tuple(operands), target))
        return [target]


def _function_of(eqn: Equation) -> Callable[..., Any]:
    name = eqn.primitive.name
    if eqn.effects or (name in OF_FLOATS and not all(is_floating(dtype_of(atom)) for atom in eqn.invars)):
        raise _NoForm
    if name == "select_n" and len(eqn.invars) == 3:
        return lambda condition, otherwise, chosen: np.where(condition, chosen, otherwise)
    if name == "integer_pow":
        return partial(_power, float(eqn.params["y"]))
    if name == "convert_element_type":
        return partial(_converted, np.dtype(eqn.params["new_dtype"]))
    if name not in FUNCTIONS:
        raise _NoForm
    return FUNCTIONS[name]


def _power(exponent: float, x: Any) -> Any:
    return np.power(x, exponent)


def _converted(dtype: np.dtype, x: Any) -> Any:
    return np.asarray(x).astype(dtype)
