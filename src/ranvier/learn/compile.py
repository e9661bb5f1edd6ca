"""``ranvier.compile``."""

from __future__ import annotations

from typing import Any

from ..errors import RuleError
from ..frontends.extract import extract_module_info
from ..ir.batching import batched
from .learner import Learner
from .rule import Rule


def compile(
    model: Any,
    rule: Rule,
    *example_inputs: Any,
    batch_size: int | None = None,
    chunk: int | None = None,
    reduction: str = "sum",
) -> Learner:
    """Makes a learner of a model.

    Args:
        model: a brainstate module with initialised states, or :func:`ranvier.step_function`.
        rule: the learning rule, e.g. ``ranvier.D_RTRL()``.
        *example_inputs: example inputs of one step; only shapes, dtypes and units count.
        batch_size: run this many samples at once; inputs, outputs and targets then have a batch axis behind the time
            axis. None for a model as it is: unbatched, or with a batch axis of its own.
        chunk: steps whose weights are held fixed and whose products are taken together; None chooses.
        reduction: ``"sum"`` or ``"mean"`` of the losses of the steps.

    Raises:
        ModelError, InputError: the model cannot be traced with these inputs.
        RuleError: the rule cannot be applied to the model, or an option makes no sense.
    """
    if not isinstance(rule, Rule):
        raise RuleError(f"compile(model, rule, ...) needs a rule second, got {rule!r}; pass ranvier.D_RTRL(), say.")
    if reduction not in ("sum", "mean"):
        raise RuleError(f"reduction={reduction!r} is unknown; use 'sum' or 'mean'.")
    for name, value in (("batch_size", batch_size), ("chunk", chunk)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise RuleError(f"{name}={value!r} must be a whole number of at least 1, or None.")
    info = extract_module_info(model, *example_inputs)
    if batch_size is not None:
        info = batched(info, batch_size)
    info = rule.prepare(info)
    return Learner(model, info, rule, rule.kernel(info), chunk, reduction)
