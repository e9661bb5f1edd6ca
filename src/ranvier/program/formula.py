"""A function of arrays as a list of operations with names, which text can hold and JAX can run.

Values are numbered: first the operands, then the result of every step. The result of the last step is the function's.
``tanh(x @ w) + 1`` has the operands x (0) and w (1) and three steps: ``dot_general(0, 1)`` gives value 2, ``tanh(2)``
value 3, and ``add(3, 1.0)`` value 4, the result. The number 1.0 is an array that does not change and stands
in its step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import RanvierError
from ._jax import Equation, Literal, Var, dtype_of, is_key, open_jaxpr, trace
from .bodies import called_body, has_own_derivative
from .precision import TracedFunction

MODULES = {"jnp": jnp, "lax": lax, "jax.nn": jax.nn}
"""Where the functions of operations are, by the name that source text has for it."""
GATHER = (
    "offset_dims",
    "collapsed_slice_dims",
    "start_index_map",
    "operand_batching_dims",
    "start_indices_batching_dims",
)
SCATTER = (
    "update_window_dims",
    "inserted_window_dims",
    "scatter_dims_to_operand_dims",
    "operand_batching_dims",
    "scatter_indices_batching_dims",
)
SCATTERS = frozenset(["scatter", "scatter_add", "scatter_mul"])
NUMBERED = {
    "gather": ("lax.GatherDimensionNumbers", GATHER),
    **dict.fromkeys(SCATTERS, ("lax.ScatterDimensionNumbers", SCATTER)),
}
"""By operation the class of its dimension numbers, the operand after the arrays, and which options are fields of it."""
MODES = {
    lax.GatherScatterMode.CLIP: "clip",
    lax.GatherScatterMode.FILL_OR_DROP: "fill",
    lax.GatherScatterMode.PROMISE_IN_BOUNDS: "promise_in_bounds",
}
"""What is done about places outside of an array."""
FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{name: (f"lax.{name}", ()) for name in (
        "add", "sub", "mul", "div", "rem", "pow", "max", "min", "neg", "abs", "sign", "floor", "ceil", "round", "exp",
        "exp2", "log", "log1p", "expm1", "sqrt", "rsqrt", "cbrt", "square", "sin", "cos", "tan", "sinh", "cosh", "tanh",
        "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2", "logistic", "erf", "erfc", "erf_inv", "is_finite",
        "gt", "ge", "lt", "le", "eq", "ne", "clamp", "select_n", "stop_gradient",
    )},
    "add_any": ("lax.add", ()),
    "and": ("jnp.bitwise_and", ()),
    "or": ("jnp.bitwise_or", ()),
    "not": ("jnp.bitwise_not", ()),
    "integer_pow": ("lax.integer_pow", ("y",)),
    "convert_element_type": ("lax.convert_element_type", ("new_dtype",)),
    "reshape": ("lax.reshape", ("new_sizes",)),
    "squeeze": ("lax.squeeze", ("dimensions",)),
    "expand_dims": ("lax.expand_dims", ("dimensions",)),
    "broadcast_in_dim": ("lax.broadcast_in_dim", ("shape", "broadcast_dimensions")),
    "transpose": ("lax.transpose", ("permutation",)),
    "rev": ("lax.rev", ("dimensions",)),
    "slice": ("lax.slice", ("start_indices", "limit_indices", "strides")),
    "pad": ("lax.pad", ("padding_config",)),
    "concatenate": ("lax.concatenate", ("dimension",)),
    "iota": ("lax.broadcasted_iota", ("dtype", "shape", "dimension")),
    "dot_general": ("lax.dot_general", ("dimension_numbers",)),
    "reduce_sum": ("lax.reduce_sum", ("axes",)),
    "reduce_max": ("lax.reduce_max", ("axes",)),
    "reduce_min": ("lax.reduce_min", ("axes",)),
    **{name: (f"lax.{name}", ("axis", "reverse")) for name in (
        "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp",
    )},
    **{name: (f"lax.{name}", ("axes",)) for name in ("reduce_prod", "reduce_and", "reduce_or")},
    "sort": ("lax.sort", ("dimension", "is_stable", "num_keys")),
    "dynamic_slice": ("lax.dynamic_slice", ("slice_sizes",)),
    "dynamic_update_slice": ("lax.dynamic_update_slice", ()),
    "gather": ("lax.gather", (*GATHER, "slice_sizes", "mode")),
    **{name: (f"lax.{name}", (*SCATTER, "unique_indices", "mode")) for name in sorted(SCATTERS)},
    "logaddexp": ("jnp.logaddexp", ()),
    "relu": ("jax.nn.relu", ()),
}  # fmt: skip
"""By name of an operation its function and the options that it takes; names are those of JAX's primitives, or of
functions with a derivative of their own."""
WITH_DERIVATIVE = {"logaddexp": 2, "relu": 1}
"""Functions with a derivative of their own, and how many operands they take."""
AS_IT_IS = {name: {"allow_negative_indices": False} for name in ("dynamic_slice", "dynamic_update_slice")}
"""Options that are always the same: starts are counted from the end by steps of their own, which stand before."""
LISTED = {"concatenate": 0, "dynamic_slice": 1, "dynamic_update_slice": 2}
"""Operations that take a list of operands, and how many come before it."""


class NoFormula(RanvierError):
    """An equation has no name here.

    Attributes:
        equation: of a jaxpr.
    """

    def __init__(self, equation: Equation) -> None:
        super().__init__(f"the equation {equation.primitive.name} is not an operation that a formula can contain.")
        self.equation = equation


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Attributes:
        operation: its name.
        operands: numbers of values, or arrays that do not change.
        options: by name: numbers, texts, and tuples of these.
    """

    operation: str
    operands: tuple[int | np.ndarray, ...]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Formula:
    """A function of arrays.

    Attributes:
        count: number of operands.
        steps: in order.
    """

    count: int
    steps: tuple[Step, ...]

    @property
    def constants(self) -> list[np.ndarray]:
        """The arrays that do not change, in order."""
        return [x for step in self.steps for x in step.operands if not isinstance(x, int)]

    def __call__(self, *operands: Any) -> Any:
        """The result, in JAX."""
        return self._run(operands, apply_step)

    def traced(self, avals: Sequence[Any], spend: Callable[[int, str], None]) -> TracedFunction:
        """The function for operands of some shapes and dtypes.

        Args:
            avals: of the operands.
            spend: called with the bytes of every value on the way and with its name, before any is computed; may
                raise.

        Raises:
            TypeError, ValueError: the operations do not fit.
        """

        def shape(step: Step, operands: list[Any]) -> Any:
            result = jax.eval_shape(lambda *xs: apply_step(step, list(xs)), *operands)
            spend(prod(result.shape) * result.dtype.itemsize, f"the result of {step.operation}")
            return result

        with jax.enable_x64(any(aval.dtype.itemsize == 8 for aval in avals) or jax.config.read("jax_enable_x64")):
            # Shapes first: a formula read from a file may ask for more memory than there is.
            self._run(avals, shape)
            return TracedFunction(trace(lambda *operands: [self(*operands)], avals))

    def _run(self, operands: Sequence[Any], apply: Any) -> Any:
        values = list(operands)
        for step in self.steps:
            values.append(apply(step, [values[x] if isinstance(x, int) else x for x in step.operands]))
        return values[-1]


def apply_step(step: Step, operands: list[Any]) -> Any:
    """The result of a step in JAX."""
    path, _ = FUNCTIONS[step.operation]
    module, _, name = path.rpartition(".")
    arguments = listed(step.operation, operands, lambda rest: rest)
    numbers, options = parted_options(step)
    if numbers:
        arguments = [*arguments, getattr(lax, NUMBERED[step.operation][0].rpartition(".")[2])(**numbers)]
    return getattr(MODULES[module], name)(*arguments, **options)


def listed(operation: str, operands: list[Any], together: Callable[[list[Any]], Any]) -> list[Any]:
    """The operands of an operation, those of a list put together."""
    if operation not in LISTED:
        return operands
    first = LISTED[operation]
    return [*operands[:first], together(operands[first:])]


def parted_options(step: Step) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a step that are dimension numbers, and the others; those that its operation has not left out."""
    known = {key: value for key, value in step.options.items() if key in FUNCTIONS[step.operation][1]}
    fields = NUMBERED.get(step.operation, ("", ()))[1]
    numbers = {key: value for key, value in known.items() if key in fields}
    others = {key: value for key, value in known.items() if key not in numbers}
    return numbers, {**others, **AS_IT_IS.get(step.operation, {})}


def formula_of(function: TracedFunction) -> Formula:
    """A traced function with one result as a formula.

    Raises:
        NoFormula: it does what has no name here.
    """
    jaxpr, _ = open_jaxpr(function.jaxpr)
    steps: list[Step] = []
    operands = list(range(len(jaxpr.invars)))
    (result,) = _walk(function.jaxpr, operands, len(operands), steps)
    # The result of a formula is that of its last step; an operand, or an earlier value, becomes one by adding zero.
    if result != len(operands) + len(steps) - 1 or not steps:
        steps.append(Step("add", (result, np.zeros((), dtype_of(jaxpr.outvars[0]))), {}))
    return Formula(len(operands), tuple(steps))


def _walk(closed: Any, operands: list[Any], count: int, steps: list[Step]) -> list[Any]:
    """Writes the steps of a jaxpr down, and gives the values of its results."""
    jaxpr, consts = open_jaxpr(closed)
    known: dict[Var, Any] = {**dict(zip(jaxpr.invars, operands, strict=True))}
    known.update((var, np.asarray(value)) for var, value in zip(jaxpr.constvars, consts, strict=True))
    for eqn in jaxpr.eqns:
        values = [np.asarray(a.val, dtype_of(a)) if isinstance(a, Literal) else known[a] for a in eqn.invars]
        name = _name(eqn)
        # A call without a name is written as the steps of its body. One with a derivative of its own is not: the steps
        # would have the derivative of the body.
        if name is None and not has_own_derivative(eqn) and called_body(eqn) is not None:
            known.update(zip(eqn.outvars, _walk(called_body(eqn), values, count, steps), strict=True))
            continue
        if name is None or len(eqn.outvars) != 1 or any(is_key(dtype_of(v)) for v in eqn.outvars):
            raise NoFormula(eqn)
        steps.append(Step(name, tuple(values), _options(name, eqn)))
        known[eqn.outvars[0]] = count + len(steps) - 1
    return [np.asarray(a.val) if isinstance(a, Literal) else known[a] for a in jaxpr.outvars]


def _options(name: str, eqn: Equation) -> dict[str, Any]:
    """The options of the operation that an equation is."""
    params = dict(eqn.params)
    if name in NUMBERED:
        numbers = params["dimension_numbers"]
        params.update({key: getattr(numbers, key) for key in NUMBERED[name][1]})
        params["mode"] = MODES.get(params["mode"])
    return {key: _plain(params[key]) for key in FUNCTIONS[name][1] if params.get(key) is not None}


def _name(eqn: Equation) -> str | None:
    """The operation that an equation is."""
    name = eqn.primitive.name.replace("-", "_")
    if name in FUNCTIONS or not has_own_derivative(eqn):
        return name if name in FUNCTIONS else None
    return next((known for known in WITH_DERIVATIVE if _is_call_of(known, eqn)), None)


def _is_call_of(known: str, eqn: Equation) -> bool:
    """Whether an equation with its own derivative is what a function of JAX consists of."""
    module, _, function = FUNCTIONS[known][0].rpartition(".")
    if len(eqn.invars) != WITH_DERIVATIVE[known]:
        return False
    # JAX gives such a call no name of its own, so it is compared with a fresh trace of the function.
    fresh = trace(getattr(MODULES[module], function), [atom.aval for atom in eqn.invars])
    return [str(called_body(e)) for e in open_jaxpr(fresh)[0].eqns if has_own_derivative(e)] == [str(called_body(eqn))]


def _plain(option: Any) -> Any:
    """An option as numbers, texts and tuples."""
    if isinstance(option, (tuple, list)):
        return tuple(_plain(part) for part in option)
    if isinstance(option, (bool, str)):
        return option
    return int(option) if isinstance(option, (int, np.integer)) else np.dtype(option).name
