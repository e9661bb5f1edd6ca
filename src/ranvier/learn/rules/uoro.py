"""``UORO``.

For example, one weight that acts on two states with I = (1, 2), from an empty memory and without r0 and r1. Signs v =
(1, 1) give v I = 3 and s t = (3, 3); signs (1, -1) give -1 and (-1, 1); the other two are these once more. The mean is
(1, 2), which is I, while every single one is far from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.interpret import Environment
from ...program.program import ModuleInfo
from ..carried import Everything
from ..options import check_whole
from ..rule import Rule
from ..sensitivity.stepwise import FlatStep, StepwiseKernel
from ..uses.traced_uses import slots_in_time

SMALL = 1e-7
"""Keeps r0 and r1 finite at the first step, where s and t are zero."""


@dataclass(frozen=True)
class UORO(Rule):
    """Unbiased online recurrent optimization (Tallec & Ollivier, ICLR 2018, arXiv 1702.05043).

    The influence matrix is replaced by one product ``s (x) t`` whose expectation it is: with random signs v,
    ``s <- r0 A s + r1 v`` and ``t <- t / r0 + (v I) / r1``, r0 and r1 chosen for least variance. Unbiased, noisy.

    Memory: one number per element of the state and one per weight. Cost: that of a few steps.

    Attributes:
        seed: of the random signs.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("UORO(seed=", self.seed, "write, for example, UORO(seed=0)")

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        numbers, elements = f"{sizes.hidden} + {sizes.parameters}", sizes.hidden + sizes.parameters
        return sizes.row(self.name, "H + P", numbers, elements)

    def kernel(self, info: ModuleInfo) -> StepwiseKernel:
        return _UoroKernel(info, self.seed)


@dataclass(frozen=True, eq=False)
class _UoroKernel(StepwiseKernel):
    info: ModuleInfo
    seed: int
    outlives = True

    def init(self, static: Environment) -> dict[str, Any]:
        functions = self.functions
        return {
            "state": jnp.zeros(functions.size, functions.dtype),
            "weights": jnp.zeros(functions.weights, functions.dtype),
            "key": jax.random.key_data(jax.random.key(self.seed)),
        }

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        functions = self.functions
        text = f"one product of {functions.size} numbers for the state and {functions.weights} for the weights"
        return [(slots_in_time(self.info), text)]

    def carries(self) -> Everything:
        return Everything()

    def approximations(self) -> list[str]:
        return ["approximation: the influence of weights on the state is exact only in expectation"]

    def restarted(self, memory: dict[str, Any], lasting: Any, seed: Any) -> dict[str, Any]:
        # Signs of their own for every sequence: noise that repeats does not average out over a training.
        key = jax.random.fold_in(jax.random.wrap_key_data(memory["key"]), seed)
        return {**memory, "key": jax.random.key_data(key)}

    def temporal(self, by_state: jax.Array, memory: dict[str, Any]) -> jax.Array:
        # (dl_t/dh_{t-1} . s) t: the product s (x) t, of the size of J, is never built.
        return (by_state @ memory["state"]) * memory["weights"]

    def advanced(self, step: FlatStep, h: jax.Array, w: jax.Array, memory: dict[str, Any]) -> dict[str, Any]:
        # With E[v (x) v] = 1, E[s (x) t] becomes A E[s (x) t] + I, which is the recursion of J. That needs signs that
        # are independent of those of earlier steps: the cross terms A s (x) v I and v (x) t average to zero only then,
        # and the gradient would be biased otherwise.
        key, used = jax.random.split(jax.random.wrap_key_data(memory["key"]))
        signs = jax.random.rademacher(used, h.shape, h.dtype)
        # A s by one forward pass, v I by one reverse pass. A and I themselves would take as many passes as the state
        # has elements.
        _, pushed = jax.jvp(lambda h: step(h, w), (h,), (memory["state"],))
        (pulled,) = jax.vjp(lambda w: step(h, w), w)[1](signs)
        # Any positive r0 and r1 leave the expectation as it is. Without them s shrinks with A while t grows step by
        # step, and the variance grows with the sequence.
        r0 = _balance(memory["weights"], pushed)
        r1 = _balance(pulled, signs)
        return {
            "state": r0 * pushed + r1 * signs,
            "weights": memory["weights"] / r0 + pulled / r1,
            "key": jax.random.key_data(key),
        }


def _balance(a: jax.Array, b: jax.Array) -> jax.Array:
    """The factor that makes both norms of a product the same."""
    return jnp.sqrt((jnp.linalg.norm(a) + SMALL) / (jnp.linalg.norm(b) + SMALL)) + SMALL
