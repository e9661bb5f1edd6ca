"""Elementwise programs as calls of numpy: the same numbers as JAX in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ranvier.program.in_numpy import FUNCTIONS, NumpyProgram

TWO = {
    "add": lax.add, "sub": lax.sub, "mul": lax.mul, "div": lax.div, "max": lax.max, "min": lax.min,
    "pow": lambda x, y: lax.pow(lax.abs(x), y), "atan2": lax.atan2, "gt": lax.gt, "ge": lax.ge, "lt": lax.lt,
    "le": lax.le, "eq": lax.eq, "ne": lax.ne, "and": lambda x, y: (x > 0) & (y > 0),
    "or": lambda x, y: (x > 0) | (y > 0), "xor": lambda x, y: (x > 0) ^ (y > 0),
    "clamp": lambda x, y: lax.clamp(-0.5, x, lax.abs(y)),
    "a choice": lambda x, y: jnp.where(x > y, x, y * 2),
    "a surrogate": lambda x, y: _spike(x - y) * y,
    "a jitted body": jax.jit(lambda x, y: x * y + jnp.tanh(y)),
    "constants": lambda x, y: (3.0 * x + 1, y, 2.0),
}  # fmt: skip
ONE = {
    "neg": lax.neg, "abs": lax.abs, "sign": lax.sign, "floor": lax.floor, "ceil": lax.ceil, "exp": lax.exp,
    "exp2": lax.exp2, "expm1": lax.expm1, "log": lambda x: lax.log(lax.abs(x)),
    "log1p": lambda x: lax.log1p(lax.abs(x)), "sqrt": lambda x: lax.sqrt(lax.abs(x)), "tanh": lax.tanh, "sin": lax.sin,
    "cos": lax.cos, "tan": lax.tan, "sinh": lax.sinh, "cosh": lax.cosh, "square": lax.square, "logistic": lax.logistic,
    "erf": lax.erf, "is_finite": lax.is_finite, "not": lambda x: ~(x > 0), "stop_gradient": lax.stop_gradient,
    "rsqrt": lambda x: lax.rsqrt(lax.abs(x)), "a whole power": lambda x: x**3, "an inverse power": lambda x: x**-2,
    "a whole number": lambda x: (x * 3).astype(jnp.int32) + 2, "float32": lambda x: x.astype(jnp.float32) * 3,
}  # fmt: skip


@jax.custom_jvp
def _spike(v: Any) -> Any:
    return (v > 0).astype(v.dtype)


_spike.defjvp(lambda primals, tangents: (_spike(*primals), tangents[0]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", [*ONE, *TWO])
def test_numpy_gives_the_numbers_of_jax(name: str) -> None:
    function, count = (ONE[name], 1) if name in ONE else (TWO[name], 2)
    generator = np.random.default_rng(0)
    values = [np.r_[generator.normal(0, 2, 40), 0.0, 1.0] for _ in range(count)]
    program = NumpyProgram.of(jax.make_jaxpr(function)(*(1.0 for _ in values)))
    assert program is not None
    with np.errstate(all="ignore"):
        results = program(values)
    expected = jax.tree.leaves(jax.vmap(function, out_axes=0)(*values)) if name != "constants" else None
    if expected is None:
        expected = [3.0 * values[0] + 1, values[1], 2.0]
    for result, exact in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, exact, rtol=1e-12, atol=1e-300)
        assert np.asarray(result).dtype == np.asarray(exact).dtype


def test_every_function_is_tried() -> None:
    assert {*FUNCTIONS} - {*ONE, *TWO} == {"add_any", "copy", "exprel"}


@pytest.mark.parametrize(
    "function",
    [
        lambda x: lax.fori_loop(0, 3, lambda _, y: y * 2, x),
        lambda x: lax.cond(x > 0, lambda y: y, lambda y: 2 * y, x),
        lambda x: x.astype(jnp.int32) // 2,
        lambda x: x + jax.random.normal(jax.random.key(0)),
    ],
)
def test_what_has_no_form_is_left_to_jax(function: Any) -> None:
    assert NumpyProgram.of(jax.make_jaxpr(function)(1.0)) is None
