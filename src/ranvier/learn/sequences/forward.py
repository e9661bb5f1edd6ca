"""A sequence without gradients: outputs, and where a state stops being finite."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ...program.interpret import Environment
from ...program.paths import Path
from ...program.program import ModuleInfo
from ..state import LearnerState
from ..step.stages import stages_of


def outputs_of(
    info: ModuleInfo, static: Environment, inputs: list[jax.Array], state: LearnerState, length: int
) -> tuple[Any, list[jax.Array]]:
    """Outputs at all steps, and for every hidden state whether it is finite after each step, ``[T]``."""
    stages = stages_of(info)

    def step(carry: Any, leaves: list[jax.Array]) -> Any:
        values = {**static, **dict(zip(info.input_invars, leaves, strict=True))}
        outputs, hidden, other = stages.step(values, *carry)
        return (hidden, other), (outputs, [jnp.isfinite(h).all() for h in hidden])

    _, (outputs, is_finite) = jax.lax.scan(step, (state.hidden, state.other), inputs, length)
    return jax.tree.unflatten(info.output_treedef, outputs), is_finite


def first_not_finite(info: ModuleInfo, is_finite: list[jax.Array]) -> tuple[Path, int] | None:
    """The first state to become non-finite, and the step; of several at the same step, the program's first."""
    # The earliest step first: from there on NaN spreads, and states that only caught it are not where to look.
    bad = [(int(jnp.argmin(ok)), k) for k, ok in enumerate(is_finite) if not bool(ok.all())]
    if not bad:
        return None
    step, number = min(bad)
    return info.hidden[number].path, step
