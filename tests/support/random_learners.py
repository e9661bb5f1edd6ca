"""Random models whose parameters meet the step in many places, for properties of learning rules.

A model is a list of instructions over a growing list of vectors: the old states, the input, and what instructions make
of them. All functions are smooth and none is linear in a way that cancels, so that a path which is there is felt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import ranvier

SIZE = 4
PARAMETERS = ("w", "u", "b", "tau")

Instruction = tuple[str, int, int]

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "sin": lambda a: jnp.sin(a + 0.3),
    "leak": lambda a: 0.7 * a,
    "reversed twice": lambda a: jnp.tanh(a[::-1])[::-1],
    "nested jit": jax.jit(lambda a: jnp.arctan(a) + 0.1 * a),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {"add": jnp.add, "mul": lambda a, b: (a + 1.0) * jnp.tanh(b - 0.2)}
WITH_PARAMETER: dict[str, Callable[[Any, Any], Any]] = {
    "x @ w": lambda p, a: a @ p["w"],
    "x @ w.T": lambda p, a: a @ p["w"].T,
    "x @ u": lambda p, a: a @ p["u"],
    "w * x summed": lambda p, a: (p["w"] * a).sum(-1),
    "+ b": lambda p, a: a + p["b"],
    "* tau": lambda p, a: a * p["tau"],
    "softplus": lambda p, a: a * jax.nn.softplus(p["tau"]),
    "affine": lambda p, a: a @ p["u"] + p["b"],
}
ELSEWHERE: dict[str, Callable[[Any], Any]] = {
    "constant matrix": lambda a: a @ jnp.asarray(np.random.default_rng(1).normal(size=(SIZE, SIZE)), a.dtype),
    "mean": lambda a: jnp.tanh(a) - 0.5 * jnp.tanh(a).mean(),
    "stopped": lambda a: jax.lax.stop_gradient(a),
    "rolled": lambda a: jnp.roll(a, 1),
}


@dataclass(frozen=True)
class RandomLearner:
    """A step over ``num_states`` vectors and one input.

    Attributes:
        num_states: number of states.
        instructions: name, first and second operand.
        results: which values become the new states.
        seen: which states and values the output is made of.
    """

    num_states: int
    instructions: tuple[Instruction, ...]
    results: tuple[int, ...]
    seen: tuple[int, ...]

    def __call__(self, p: Any, state: dict, x: jax.Array) -> tuple[dict, jax.Array]:
        values = [*(state[f"h{k}"] for k in range(self.num_states)), x]
        for name, a, b in self.instructions:
            first, second = values[a % len(values)], values[b % len(values)]
            if name in UNARY:
                values.append(UNARY[name](first))
            elif name in BINARY:
                values.append(BINARY[name](first, second))
            elif name in ELSEWHERE:
                values.append(ELSEWHERE[name](first))
            else:
                values.append(WITH_PARAMETER[name](p, first))
        new = {f"h{k}": 0.5 * jnp.tanh(values[index % len(values)]) for k, index in enumerate(self.results)}
        read = [*values, *new.values()]
        output = sum((jnp.sin(read[k % len(read)] + number) for number, k in enumerate(self.seen)), jnp.zeros(SIZE))
        return new, output


def random_learners() -> st.SearchStrategy[RandomLearner]:
    number = st.integers(0, 40)
    names = st.one_of(*(st.sampled_from(sorted(table)) for table in (UNARY, BINARY, WITH_PARAMETER, ELSEWHERE)))
    weighted = st.one_of(st.sampled_from(sorted(WITH_PARAMETER)), names)
    return st.integers(1, 3).flatmap(
        lambda count: st.builds(
            RandomLearner,
            st.just(count),
            st.lists(st.tuples(weighted, number, number), min_size=2, max_size=7).map(tuple),
            st.lists(number, min_size=count, max_size=count).map(tuple),
            st.lists(number, min_size=1, max_size=2).map(tuple),
        )
    )


def random_model(step: RandomLearner, seed: int, steps: int) -> tuple[ranvier.types.StepFunction, jax.Array]:
    """The model with random parameters and states, and inputs over time."""
    rng = np.random.default_rng(seed)
    shapes = {"w": (SIZE, SIZE), "u": (SIZE, SIZE), "b": (SIZE,), "tau": (SIZE,)}
    params = {name: jnp.asarray(rng.normal(0.0, 0.6, shape)) for name, shape in shapes.items()}
    state = {f"h{k}": jnp.asarray(rng.normal(0.0, 0.5, SIZE)) for k in range(step.num_states)}
    model = ranvier.step_function(partial(step), params, state, name="random")
    return model, jnp.asarray(rng.normal(size=(steps, SIZE)))
