"""Separate feedback weights for the path back from the outputs, in place of the transposed readout weights.

For example, ``y = w z`` with w = 2, z = 3 and a feedback weight b = -1, under the loss y: y is 6, dl/dz = b = -1
instead of 2, and dl/dw = z = 3, the true gradient of the readout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ...program._jax import Equation, Literal, Var, bind
from ...program._jax import operand as operand_of
from ...program.interpret import Apply, Environment
from ...program.while_loops import bind_both_ways


@dataclass(frozen=True, eq=False)
class Feedback:
    """The projections that have feedback weights, and how these weights change.

    Attributes:
        equations: (equation, number of the operand that holds the weight).
        seed: of the random weights.
        rate: how fast a feedback weight follows the gradient of the weight it stands for.
        decay: how much of it is lost with every chunk.
    """

    equations: tuple[tuple[Equation, int], ...]
    seed: int
    rate: float
    decay: float

    def init(self, static: Environment) -> list[jax.Array]:
        """Normal weights with the spread of those they replace, or 1 / sqrt(longest axis) if those are all equal."""
        keys = jax.random.split(jax.random.key(self.seed), max(len(self.equations), 1))
        weights = []
        for key, (eqn, operand) in zip(keys, self.equations, strict=False):
            weight = static[operand_of(eqn, operand)]
            # At the scale of the weights they stand for, so that a learning rate that suits symmetric feedback suits
            # these.
            spread = jnp.std(weight)
            spread = jnp.where(spread > 0, spread, max(weight.shape, default=1) ** -0.5)
            weights.append(spread * jax.random.normal(key, weight.shape, weight.dtype))
        return weights

    def advanced(self, weights: Sequence[jax.Array], gradients: Mapping[Var, jax.Array]) -> list[jax.Array]:
        """The weights after a chunk."""
        changed = []
        for weight, (eqn, operand) in zip(weights, self.equations, strict=True):
            gradient = gradients.get(operand_of(eqn, operand))
            change = 0.0 if gradient is None else self.rate * gradient
            # b follows the gradient as w does. Where both also decay, what their starts differ by fades, and b comes to
            # point along w.
            changed.append((1 - self.decay) * weight - change)
        return changed

    @cached_property
    def _number(self) -> dict[int, int]:
        return {id(eqn): number for number, (eqn, _) in enumerate(self.equations)}

    def apply(self, weights: Sequence[jax.Array]) -> Apply:
        """A function that applies equations such that cotangents go back through the feedback weights."""

        def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
            number = self._number.get(id(eqn))
            if number is None:
                return bind_both_ways(eqn, operands)
            # y is the readout's own, with a derivative by w only; the second term is zero and has the derivative b by
            # z.
            operand, hold = self.equations[number][1], jax.lax.stop_gradient
            forward = [
                x if k == operand or isinstance(a, Literal) else hold(x) for k, (a, x) in _numbered(eqn, operands)
            ]
            back = [weights[number] if k == operand else x for k, x in enumerate(operands)]
            return [y + (b - hold(b)) for y, b in zip(bind(eqn, forward), bind(eqn, back), strict=True)]

        return apply


def _numbered(eqn: Equation, operands: list[Any]) -> Any:
    return enumerate(zip(eqn.invars, operands, strict=True))
