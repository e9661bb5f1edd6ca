"""New parameter values for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ..errors import ModelError
from ..program.paths import Path
from ..program.program import ModuleInfo
from .build import named_leaves
from .step_function import StepFunction
from .units import bare


def with_params(model: Any, info: ModuleInfo, params: Mapping[Path, Any], leaves: Sequence[Any]) -> Any:
    """A model with new parameters: a new step function, or the same module with its values replaced.

    Args:
        model: the model from which the program was extracted.
        info: the program.
        params: new values by path.
        leaves: all parameter leaves, including the new ones, in the program's order.

    Raises:
        ModelError: the model is a program, which cannot store values.
    """
    if isinstance(model, StepFunction):
        return _with_new_params(model, info, leaves)
    if isinstance(model, ModuleInfo):
        raise ModelError(
            "this learner was compiled from a program, which holds no parameters of its own to replace; compile it "
            "from the brainstate module or the step function, or pass params= to learner.grad."
        )
    for slot in info.parameters:
        if slot.path in params:
            slot.handle.value = params[slot.path]
    return model


def _with_new_params(model: StepFunction, info: ModuleInfo, leaves: Sequence[Any]) -> StepFunction:
    values = dict(zip((slot.path for slot in info.parameters), leaves, strict=True))
    new = [values.get(path, bare(leaf)) for path, leaf in named_leaves(model.params, "params")]
    return replace(model, params=jax.tree.unflatten(jax.tree.structure(model.params), new))
