"""The entry point for every kind of model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..errors import ModelError
from ..program.program import ModuleInfo
from .step_function import StepFunction, trace_step_function


def extract_module_info(model: Any, *inputs: Any, stateless: bool = False) -> ModuleInfo:
    """Traces one time step of a model and names its operands and results.

    Args:
        model: a ``brainstate.nn.Module`` with initialized states, or a step function wrapped by
            :func:`ranvier.step_function`. The model needs no annotations.
        *inputs: example inputs of one step, as the model takes them; only shapes, dtypes and units matter.
        stateless: whether a step function may be without a hidden state, which it needs only for learning.

    Returns:
        The program, with the fields of brainscale's ``ModuleInfo``.

    Raises:
        ModelError: the object is not a model, its states are not initialized, or it has no hidden state.
        InputError: the model cannot be traced with these inputs.
    """
    if isinstance(model, ModuleInfo):
        return model
    check_is_model(model)
    return replace(_traced(model, inputs, stateless), origin=(_extracted_again, (model, inputs, stateless)))


def _traced(model: Any, inputs: tuple[Any, ...], stateless: bool) -> ModuleInfo:
    if isinstance(model, StepFunction):
        return trace_step_function(model, *inputs, stateless=stateless)
    from .brainstate_module import trace_module

    return trace_module(model, *inputs)


def _extracted_again(
    model: Any, inputs: tuple[Any, ...], stateless: bool, initial: Sequence[tuple[Any, ...]]
) -> ModuleInfo:
    """The program of an unpickled model, with the initial values that the pickled one had."""
    return extract_module_info(model, *inputs, stateless=stateless).with_initial(initial)


def time_step() -> float | None:
    """The time step of brainstate's environment in seconds; None if it is not set or brainstate is not in use."""
    if "brainstate" not in sys.modules:
        return None
    from .brainstate_module import environment_dt

    return environment_dt()


def check_is_model(model: Any) -> None:
    """Raises :class:`ModelError` unless a frontend reads this object."""
    brainstate = sys.modules.get("brainstate")
    is_module = brainstate is not None and isinstance(model, brainstate.nn.Module)
    if is_module or isinstance(model, (ModuleInfo, StepFunction)):
        return
    hint = (
        "wrap a step function with ranvier.step_function(step, params, state)"
        if callable(model) and not isinstance(model, type)
        else "pass a brainstate.nn.Module or ranvier.step_function(step, params, state)"
    )
    raise ModelError(f"{type(model).__name__} {_short(model)} is not a model that Ranvier can read; {hint}.")


def _short(model: Any) -> str:
    text = repr(model).splitlines()[0]
    return text if len(text) <= 60 else text[:57] + "..."
