"""``ranvier.compile``."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from ..analyses.reasons import opaque_diagnostics
from ..errors import RuleError
from ..frontends.extract import extract_module_info
from ..ir._jax import dtype_of, is_key
from ..ir.batching import batched
from ..ir.program import ModuleInfo
from .learner import Learner
from .plan import make_plan
from .rule import Rule


def compile(
    model: Any,
    rule: Rule,
    *example_inputs: Any,
    batch_size: int | None = None,
    chunk: int | None = None,
    reduction: str = "sum",
    memory_limit: int | None = None,
) -> Learner:
    """Makes a learner of a model.

    Args:
        model: a brainstate module with initialised states, or :func:`ranvier.step_function`.
        rule: the learning rule, e.g. ``ranvier.D_RTRL()``.
        *example_inputs: example inputs of one step; only shapes, dtypes and units count.
        batch_size: run this many samples at once; inputs, outputs and targets then have a batch axis behind the time
            axis. None for a model as it is: unbatched, or with a batch axis of its own.
        chunk: steps whose products are taken together; gradients do not depend on it. None chooses as many as
            ``memory_limit`` has room for; ``learner.plan`` says what was chosen and why.
        reduction: ``"sum"`` or ``"mean"`` of the losses of the steps.
        memory_limit: bytes that the activations of a chunk may take; 256 MiB by default.

    Raises:
        ModelError, InputError: the model cannot be traced with these inputs.
        RuleError: the rule cannot be applied to the model, or an option makes no sense.
    """
    if not isinstance(rule, Rule):
        raise RuleError(f"compile(model, rule, ...) needs a rule second, got {rule!r}; pass ranvier.D_RTRL(), say.")
    if reduction not in ("sum", "mean"):
        raise RuleError(f"reduction={reduction!r} is unknown; use 'sum' or 'mean'.")
    for name, value in (("batch_size", batch_size), ("chunk", chunk), ("memory_limit", memory_limit)):
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise RuleError(f"{name}={value!r} must be a whole number of at least 1, or None.")
    one = extract_module_info(model, *example_inputs)
    check_differentiable(one)
    check_keys(one)

    def make(batch_size: int | None) -> Learner:
        info = rule.prepare(one if batch_size is None else batched(one, batch_size))
        kernel = rule.kernel(info)
        plan = make_plan(info, kernel, rule.name, chunk, memory_limit)
        return Learner(model, info, rule, kernel, plan, reduction, batch_size, make)

    return make(batch_size)


def check_keys(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for random keys that give other numbers when several steps draw at once."""
    variables = [*info.jaxpr.invars, *info.jaxpr.constvars, *(v for eqn in info.equations for v in eqn.outvars)]
    for var in variables:
        if is_key(dtype_of(var)) and "fry" not in str(dtype_of(var)):
            raise RuleError(
                f"{info.name} draws random numbers with keys {dtype_of(var)}, which give other numbers when "
                "several steps or samples draw at once; use jax.random.key(seed) with JAX's own threefry2x32."
            )


def check_differentiable(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` where no derivative passes through an equation on the way of learning."""
    if found := opaque_diagnostics(info):
        told = "; ".join(map(str, found))
        raise RuleError(f"{info.name} cannot learn: {told}")
