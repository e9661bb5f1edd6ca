"""Known values computed in numpy are those that JAX computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

from ranvier.program.folding import run_known
from tests.support.examples import few

FLOATS = np.array([-2.5, -0.0, 0.0, 1.0, 3e38, np.inf, np.nan], np.float32)
WHOLE = np.array([-7, -1, 0, 2, 2**31 - 1, 5, 6], np.int32)

CASES: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "arithmetic": lambda x, n: (x * 3.0 + 0.1) / 0.7 - x[::-1],
    "overflow": lambda x, n: n * 65537 + n,
    "whole division": lambda x, n: jax.lax.div(n, jnp.int32(2)),
    "truncation": lambda x, n: x[:4].astype(jnp.int32),
    "truncation of what does not fit": lambda x, n: x.astype(jnp.int32),
    "widening": lambda x, n: n.astype(jnp.float32),
    "comparison": lambda x, n: jnp.where(x > 0.5, jnp.maximum(x, 2.0), jnp.minimum(x, -1.0)),
    "cases": lambda x, n: jax.lax.select_n(jnp.clip(n, 0, 2), x, -x, x + 1),
    "function": lambda x, n: jnp.exp(-1.0 / x[3:5]) * 2.0,
    "elementary functions": lambda x, n: jnp.stack(
        [f(x[1:4]) for f in (jnp.exp, jnp.expm1, jnp.log, jnp.log1p, jnp.sqrt, jnp.tanh, jax.nn.sigmoid, jnp.abs)]
    ),
    "rounding": lambda x, n: jnp.floor(x) + jnp.ceil(x / 3),
    "exprel": lambda x, n: u.math.exprel(x[:4]),
    "shape": lambda x, n: jnp.broadcast_to(x[:, None], (7, 2)).T.reshape(7, 2),
    "elements": lambda x, n: x[jnp.clip(n, 0, 6)],
    "elements outside": lambda x, n: x.at[n].get(mode="fill", fill_value=4.0),
    "rows": lambda x, n: jnp.stack([x, -x]).T[jnp.clip(n, 0, 6)],
    "random": lambda x, n: jax.random.normal(jax.random.key(n[3]), (4,)),
    "low precision": lambda x, n: x.astype(jnp.bfloat16) * jnp.bfloat16(1.3),
}


@few("case", CASES)
def test_a_known_value_is_jaxs(case: str) -> None:
    operands = (jnp.asarray(FLOATS), jnp.asarray(WHOLE))
    jaxpr = jax.make_jaxpr(CASES[case])(*operands).jaxpr
    known: dict[Any, Any] = dict(zip(jaxpr.invars, operands, strict=True))
    run_known(jaxpr.eqns, known)
    found = known[jaxpr.outvars[0]]
    expected = np.asarray(jax.jit(CASES[case])(*operands))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(expected, np.float64), rtol=3e-7)
