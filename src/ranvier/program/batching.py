"""A program for one sample as a program for a batch of samples.

A step with input [3], weight [3, 4], hidden state [4] and a counter becomes, for 8 samples, one with input [8, 3] and
state [8, 4]. The weight stays [3, 4], and the counter stays one number: all samples count alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from ._jax import Equation, Literal, Var, bind, dtype_of, is_floating, is_key, open_jaxpr, variables_of
from .bodies import branches_of
from .interpret import evaluate
from .normalize import normalize
from .program import ModuleInfo, Slot
from .random import is_random


def batched(info: ModuleInfo, size: int) -> ModuleInfo:
    """The program of ``size`` independent samples: inputs, states and outputs get a leading batch axis.

    Parameters stay without one, and so do states that are the same for all samples: those that the step never changes,
    and counters. Random keys are split, so that samples have noise of their own.
    """
    shared = _shared_states(info)
    axes = {
        "inputs": [0] * len(info.input_invars),
        "parameters": [None] * len(info.weight_invars),
        "hidden": [0] * len(info.hidden_invars),
        "other": [None if var in shared else 0 for var in info.other_invars],
    }
    in_axes = [axis for part in axes.values() for axis in part]
    out_axes = [0] * len(info.output_outvars) + axes["hidden"] + axes["other"]
    vmapped = jax.vmap(
        lambda *operands: tuple(_arrays(_run(info.closed_jaxpr, operands, [axis == 0 for axis in in_axes]))),
        in_axes=tuple(in_axes),
        out_axes=tuple(out_axes),
        axis_size=size,
    )
    avals = [
        var.aval if axis is None else _batched_aval(var.aval, size)
        for var, axis in zip(info.jaxpr.invars, in_axes, strict=True)
    ]
    start = len(info.output_outvars)
    closed = normalize(lambda *operands: list(vmapped(*operands)), avals, slice(start, start + len(info.hidden)))
    return ModuleInfo(
        closed_jaxpr=closed,
        input_treedef=info.input_treedef,
        output_treedef=info.output_treedef,
        input_avals=tuple(_batched_aval(aval, size) for aval in info.input_avals),
        output_avals=tuple(_batched_aval(aval, size) for aval in info.output_avals),
        parameters=info.parameters,
        hidden=tuple(_batched_slot(slot, size, [0]) for slot in info.hidden),
        other=_batched_others(info, size, axes["other"]),
        name=info.name,
        notes=info.notes,
        samples=size,
    )


def _shared_states(info: ModuleInfo) -> set[Var]:
    """The states that stay the same for all samples, since nothing of a sample enters them."""
    pairs = list(zip(info.other_invars, info.other_outvars, strict=True))
    slots = [slot for slot in info.other for _ in slot.leaves]
    shared = {
        before for (before, after), slot in zip(pairs, slots, strict=True) if after is before or not is_random(slot)
    }
    # A state is shared until something of a sample enters its new value, and then all that reads it is of a sample too.
    while True:
        differing = {*info.input_invars, *info.hidden_invars, *(before for before, _ in pairs if before not in shared)}
        for eqn in info.equations:
            if eqn.effects or not differing.isdisjoint(variables_of(eqn.invars)):
                differing.update(eqn.outvars)
        entered = {
            before for before, after in pairs if before in shared and not differing.isdisjoint(variables_of([after]))
        }
        if not entered:
            return shared
        shared -= entered


def _run(closed: Any, operands: Sequence[Any], by_sample: Sequence[bool]) -> list[Any]:
    """Runs a jaxpr for one sample of a mapped batch.

    A ``cond`` on data takes every sample its own way, so all its branches run. What samples share stays one operand of
    theirs: ``jax.vmap`` would give each sample a copy of the weights.

    Args:
        closed: the closed jaxpr.
        operands: its operands.
        by_sample: for each, whether it differs between samples.
    """
    jaxpr, _ = open_jaxpr(closed)
    mapped = {var for var, differs in zip(jaxpr.invars, by_sample, strict=True) if differs}

    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        differs = [not isinstance(atom, Literal) and atom in mapped for atom in eqn.invars]
        if any(differs):
            mapped.update(eqn.outvars)
        if eqn.primitive.name == "cond" and differs[0]:
            return _all_branches(eqn, operands, differs)
        return bind(eqn, operands)

    return evaluate(closed, operands, apply)


def _all_branches(eqn: Equation, operands: list[Any], by_sample: Sequence[bool]) -> list[Any]:
    index, *rest = operands
    index = jnp.clip(jnp.asarray(index, jnp.int32), 0, len(branches_of(eqn)) - 1)
    results = []
    for number, branch in enumerate(branches_of(eqn)):
        # No derivative enters a branch that is not taken, where it may be infinite.
        taken = [
            jnp.where(index == number, x, jax.lax.stop_gradient(x)) if differs and is_floating(dtype_of(atom)) else x
            for atom, x, differs in zip(eqn.invars[1:], rest, by_sample[1:], strict=True)
        ]
        results.append(_arrays(_run(branch, taken, by_sample[1:])))
    return [jax.lax.select_n(jnp.broadcast_to(index, case[0].shape), *case) for case in zip(*results, strict=True)]


def _arrays(results: list[Any]) -> list[Any]:
    return [jnp.asarray(result.val if isinstance(result, Literal) else result) for result in results]


def _batched_others(info: ModuleInfo, size: int, axes: list[int | None]) -> tuple[Slot, ...]:
    slots, start = [], 0
    for slot in info.other:
        end = start + len(slot.leaves)
        slots.append(_batched_slot(slot, size, axes[start:end]))
        start = end
    return tuple(slots)


def _batched_slot(slot: Slot, size: int, axes: list[int | None]) -> Slot:
    initial = tuple(
        value if axis is None else _batched_value(slot, value, size)
        for value, axis in zip(slot.initial, axes, strict=True)
    )
    return replace(slot, initial=initial, leaves=tuple(jax.typeof(value) for value in initial))


def _batched_value(slot: Slot, value: Any, size: int) -> Any:
    # A value, not a tracer, also where a learner of another batch size is made inside of a function that JAX traces.
    with jax.ensure_compile_time_eval():
        return jax.random.split(value, size) if is_random(slot) else jnp.broadcast_to(value, (size, *value.shape))


def _batched_aval(aval: Any, size: int) -> Any:
    return (
        jax.typeof(jnp.zeros((size, *aval.shape), aval.dtype))
        if not is_key(aval.dtype)
        else aval.update(shape=(size, *aval.shape))
    )
