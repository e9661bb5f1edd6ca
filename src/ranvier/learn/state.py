"""What a learner carries from call to call, and what a call returns besides the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from ..program.paths import Path


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LearnerState:
    """Everything that one call passes on to the next.

    Attributes:
        hidden: hidden states, arrays in the program's order.
        other: leaves of other states, likewise.
        memory: what the rule keeps, e.g. eligibility traces; a pytree of the rule's own.
    """

    hidden: list[jax.Array]
    other: list[jax.Array]
    memory: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Aux:
    """What :meth:`Learner.grad` returns besides the gradients.

    Attributes:
        loss: the number whose gradient was taken, ``[]``.
        losses: what every step adds to ``loss``, ``[T]``: the step's loss times its mask, and with
            ``reduction="mean"`` divided by the sum of the mask.
        outputs: the model's output at every step, time-major.
        state: what to pass to the next call; None where it was not kept.
    """

    loss: jax.Array
    losses: jax.Array
    outputs: Any
    state: LearnerState | None


Gradients = dict[Path, Any]
