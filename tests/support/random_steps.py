"""Random step functions built from a table of operations, for property tests.

A step is a list of instructions over a growing list of vectors. It can be run with the mixing operations cut
(no derivative through them), which is the reference for D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

SIZE = 5

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "scale": lambda a: 0.7 * a,
    "exp": lambda a: jnp.exp(-(a**2)),
    "softplus": jax.nn.softplus,
    "remat": jax.checkpoint(lambda a: jnp.cos(a) * a),
    "nested jit": jax.jit(lambda a: jax.jit(jnp.arctan)(a) + a),
    "scan": lambda a: jax.lax.scan(lambda c, _: (0.5 * jnp.tanh(c), None), a, None, length=3)[0],
    "long scan": lambda a: jax.lax.fori_loop(0, 40, lambda _, c: 0.9 * jnp.sin(c), a),
    "vmap": jax.vmap(lambda a: jnp.cosh(0.1 * a)),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": jnp.add,
    "mul": jnp.multiply,
    "where": lambda a, b: jnp.where(a > 0, a, 0.5 * b),
    "cond": lambda a, b: jax.lax.cond(a[0] > 0, lambda: a + b, lambda: a - 0.3 * b),
    "max": lambda a, b: jnp.maximum(a, b),
}
STRUCTURAL: dict[str, Callable[[Any], Any]] = {
    "flip twice": lambda a: jnp.flip(jnp.flip(a) * 0.9),
    "cut and join": lambda a: jnp.concatenate([a[:2], a[2:]]),
    "reshape": lambda a: a.reshape(SIZE, 1).T.reshape(-1),
    "gather": lambda a: a[np.arange(SIZE)[::-1].copy()][::-1],
    "set": lambda a: a.at[1].set(0.5 * a[1]),
}
MOVING: dict[str, Callable[[Any], Any]] = {
    "roll": lambda a: jnp.roll(a, 1),
    "flip": jnp.flip,
    "permute": lambda a: a[np.array([2, 0, 3, 1, 4])],
    "repeat": lambda a: jnp.broadcast_to(a[0], (SIZE,)),
}
MIXING: dict[str, Callable[[Any], Any]] = {
    "matrix": lambda a: jnp.asarray(np.random.default_rng(0).normal(size=(SIZE, SIZE))) @ a,
    "sum": lambda a: jnp.broadcast_to(a.sum(), (SIZE,)),
    "cumsum": jnp.cumsum,
    "sort": jnp.sort,
}


@dataclass(frozen=True)
class RandomStep:
    """A step over ``num_states`` vectors and one input; the last values become the new states."""

    num_states: int
    instructions: tuple[tuple[str, str, int, int], ...]
    results: tuple[int, ...]

    def __call__(self, params: Any, state: dict, x: jax.Array, *, cut: bool = False) -> tuple[dict, jax.Array]:
        values = [*(state[f"h{k}"] for k in range(self.num_states)), x]
        for family, name, a, b in self.instructions:
            first, second = values[a % len(values)], values[b % len(values)]
            if family == "unary":
                values.append(UNARY[name](first))
            elif family == "binary":
                values.append(BINARY[name](first, second))
            elif family == "structural":
                values.append(STRUCTURAL[name](first))
            elif family == "moving":
                values.append(MOVING[name](first))
            else:
                values.append(MIXING[name](jax.lax.stop_gradient(first) if cut else first))
        new = {f"h{k}": values[index % len(values)] for k, index in enumerate(self.results)}
        return new, values[-1]


def random_steps(*, moving: bool = False) -> st.SearchStrategy[RandomStep]:
    """Random steps; with ``moving``, some operations move elements to other positions."""
    families = {"unary": UNARY, "binary": BINARY, "structural": STRUCTURAL, "mixing": MIXING}
    if moving:
        families["moving"] = MOVING
    number = st.integers(0, 30)
    instruction = st.sampled_from(sorted(families)).flatmap(
        lambda family: st.tuples(st.just(family), st.sampled_from(sorted(families[family])), number, number)
    )
    return st.integers(1, 3).flatmap(
        lambda count: st.builds(
            RandomStep,
            st.just(count),
            st.lists(instruction, min_size=2, max_size=9).map(tuple),
            st.lists(number, min_size=count, max_size=count).map(tuple),
        )
    )
