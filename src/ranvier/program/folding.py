"""Running equations on known values: the usual ones in numpy at once, the others as one compiled program.

A compiled program takes some tens of milliseconds to make, which is much where there are many small ones. Numpy takes
the operations that IEEE 754 rounds in one way only, those that move values, and elementary functions, which it computes
in double precision and rounds once, so that they are as close to the true value as the dtype allows.

Of ``a = 2 * 3; b = sort(w); c = b + a; d = a - 1``, a and d are folded at once to 6 and 5. sort has no numpy form here,
so it waits, and c waits with it; both are then compiled together, with w and a as their operands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from scipy import special

from ._jax import Equation, Var, dtype_of, is_complex, is_floating, variables_of
from .interpret import Environment, read, run_equations

Fold = Callable[[Mapping[str, Any], list[np.ndarray]], "np.ndarray | None"]
"""Result of an equation from its parameters and operands; None where numpy's answer could be another."""


def run_known(equations: Sequence[Equation], environment: Environment) -> None:
    """Runs equations in order on concrete values, also while JAX is tracing; writes into ``environment``."""
    later: list[Equation] = []
    unknown: set[Var] = set()
    for eqn in equations:
        # What reads the result of an equation that waits has to wait too.
        result = None if unknown.intersection(variables_of(eqn.invars)) else _folded(eqn, environment)
        if result is None:
            later.append(eqn)
            unknown.update(eqn.outvars)
        else:
            environment[eqn.outvars[0]] = result
    if later:
        _run_compiled(later, environment)


def _folded(eqn: Equation, environment: Environment) -> np.ndarray | None:
    fold, dtypes = FOLDS.get(eqn.primitive.name), [dtype_of(a) for a in (*eqn.invars, *eqn.outvars)]
    if fold is None or not all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return None
    with np.errstate(all="ignore"):
        result = fold(eqn.params, [np.asarray(read(environment, atom)) for atom in eqn.invars])
        return None if result is None else result.astype(dtypes[-1], copy=False)


def _run_compiled(equations: Sequence[Equation], environment: Environment) -> None:
    operands: dict[Var, Any] = {}
    results: list[Var] = []
    for eqn in equations:
        operands.update({var: environment[var] for var in variables_of(eqn.invars) if var in environment})
        results += eqn.outvars

    def run(values: list[Any]) -> list[Any]:
        inside: Environment = dict(zip(operands, values, strict=True))
        run_equations(equations, inside)
        return [inside[var] for var in results]

    values = list(operands.values())
    # Lowered and compiled by hand: a call of a jitted function would be traced into a program that is being traced.
    environment.update(zip(results, jax.jit(run).lower(values).compile()(values), strict=True))


def _elementwise(function: Callable[..., Any]) -> Fold:
    return lambda params, operands: np.asarray(function(*operands))


def _elementary(function: Callable[[np.ndarray], np.ndarray]) -> Fold:
    def fold(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray | None:
        (x,) = operands
        return function(x.astype(np.float64)) if is_floating(x.dtype) and not is_complex(x.dtype) else None

    return fold


def _broadcast(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    shape, dimensions = params["shape"], params["broadcast_dimensions"]
    spread = [1] * len(shape)
    for axis, size in zip(dimensions, operands[0].shape, strict=True):
        spread[axis] = size
    return np.broadcast_to(operands[0].reshape(spread), shape)


def _select(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray:
    which, *cases = operands
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(np.broadcast_to(which, cases[0].shape), cases)


def _divide(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray | None:
    # XLA rounds the quotient of integers toward zero, and has results of its own for a division by zero.
    return np.true_divide(*operands) if is_floating(operands[0].dtype) else None


def _convert(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray | None:
    # What an integer becomes of NaN, or of a number beyond its range, is not the same in numpy and in XLA.
    lossy = is_floating(operands[0].dtype) and not is_floating(params["new_dtype"])
    return None if lossy else operands[0].astype(params["new_dtype"])


def _gather(params: Mapping[str, Any], operands: list[np.ndarray]) -> np.ndarray | None:
    """Elements of a vector by number."""
    values, index = operands
    numbers = params["dimension_numbers"]
    simple = values.ndim == 1 and params["slice_sizes"] == (1,) and numbers.collapsed_slice_dims == (0,)
    inside = index.size == 0 or (index.min() >= 0 and index.max() < values.size)
    return values[index[..., 0]] if simple and inside else None


EXACT: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs,
    "max": np.maximum, "min": np.minimum, "floor": np.floor, "ceil": np.ceil,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "copy": np.asarray, "stop_gradient": np.asarray,
}  # fmt: skip
"""Elementwise equations that are rounded in one way only, or not at all, by their functions in numpy."""
ELEMENTARY: dict[str, Callable[..., Any]] = {
    "sqrt": np.sqrt, "exp": np.exp, "expm1": np.expm1, "exprel": special.exprel, "log": np.log, "log1p": np.log1p,
    "tanh": np.tanh, "logistic": special.expit,
}  # fmt: skip
"""Elementary functions of real numbers, likewise."""
FOLDS: dict[str, Fold] = {
    **{name: _elementwise(function) for name, function in EXACT.items()},
    **{name: _elementary(function) for name, function in ELEMENTARY.items()},
    "div": _divide,
    "select_n": _select,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, operands: operands[0].reshape(params["new_sizes"]),
    "squeeze": lambda params, operands: np.squeeze(operands[0], tuple(params["dimensions"])),
    "transpose": lambda params, operands: np.transpose(operands[0], params["permutation"]),
    "convert_element_type": _convert,
    "gather": _gather,
}
