"""Plain JAX step functions ``step(params, state, *inputs) -> (state, output)`` over pytrees."""

# An example: the parameters {"n": 3, "w": [3,4]} and the state {"count": 0, "v": [4]}, where n and count are integers.
# The slots are w (parameter), v (hidden), and n and count (other). In the order of the leaves, trainable is (False,
# True) and hidden is (False, True); with these the leaves of the slots are put back into the pytrees of the step.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import InputError, ModelError
from ..program._jax import is_floating
from ..program.analysis.learning_states import unchanged_states
from ..program.diagnostic import Diagnostic, DiagnosticKind
from ..program.paths import Path, leaf_path, path_text
from ..program.program import ModuleInfo, Slot, SlotRole, shape_text, slot_of
from .build import build_program, named_leaves
from .units import bare, unit_text


@dataclass(frozen=True, eq=False)
class StepFunction:
    """A step function with its parameters and initial state; made by :func:`step_function`."""

    step: Callable[..., tuple[Any, Any]]
    params: Any
    state: Any
    other: tuple[Path, ...] = ()
    name: str = "step"


def step_function(
    step: Callable[..., tuple[Any, Any]],
    params: Any,
    state: Any,
    *,
    other: Sequence[Any] = (),
    name: str | None = None,
) -> StepFunction:
    """Turns a plain JAX step function into a model that every entry point of Ranvier accepts.

    Args:
        step: ``step(params, state, *inputs) -> (new_state, output)``, traceable by JAX. The new state has
            the structure, shapes and dtypes of the old one.
        params: pytree of parameters. Floating-point leaves are trainable; their key paths are their names.
        state: pytree of the initial state. Floating-point leaves are hidden states, except for those that the step
            returns unchanged. These, and integer, boolean and random-key leaves, are carried as other state.
        other: names (key paths, or single keys) of floating-point state leaves that are not hidden states, such as
            delay buffers or running statistics.
        name: of the model; by default that of the function.

    Returns:
        A model for :func:`ranvier.extract_module_info` and all other entry points.

    Raises:
        ModelError: ``step`` is not callable, a leaf is not an array, or ``other`` names a leaf that does not exist.

    Example:
        >>> def step(params, state, x):
        ...     v = 0.9 * state["v"] + x @ params["w"]
        ...     return {"v": v}, v
        >>> model = step_function(step, {"w": jnp.ones((3, 4))}, {"v": jnp.zeros(4)})
    """
    if not callable(step):
        raise ModelError(
            f"step_function needs a function step(params, state, x) -> (state, y) first, got {type(step).__name__}; "
            "write ranvier.step_function(step, params, state)."
        )
    paths = tuple(tuple(entry) if isinstance(entry, (tuple, list)) else (entry,) for entry in other)
    _check_arrays([*named_leaves(params, "params"), *named_leaves(state, "state")])
    state_paths = [path for path, _ in named_leaves(state, "state")]
    missing = [path_text(path) for path in paths if path not in state_paths]
    if missing:
        raise ModelError(
            f"other={list(other)!r} names {', '.join(missing)}, but the leaves of the state are "
            f"{', '.join(map(path_text, state_paths)) or 'none'}; name one of these."
        )
    return StepFunction(step, params, state, paths, name or getattr(step, "__name__", "step"))


def _check_arrays(leaves: Sequence[tuple[Path, Any]]) -> None:
    """Raises :class:`ModelError` for leaves that are not arrays."""
    wrong = [(path, leaf) for path, leaf in leaves if not _is_array(leaf)]
    if not wrong:
        return
    descriptions = ", ".join(
        f"{path_text(path)} is {leaf!r:.60} of type {type(leaf).__name__}" for path, leaf in wrong[:3]
    )
    more = f", and {len(wrong) - 3} more like that" if len(wrong) > 3 else ""
    remedy = "keep arrays in params and state, and settings in the step function's closure"
    if any(callable(leaf) for _, leaf in wrong):
        remedy += (
            "; an equinox module is taken apart by `params, static = eqx.partition(module, eqx.is_inexact_array)` and "
            "put together in the step by `eqx.combine(params, static)`"
        )
    raise ModelError(
        f"{descriptions}{more}, which {'is not an array' if len(wrong) == 1 else 'are not arrays'}; {remedy}."
    )


def _is_array(leaf: Any) -> bool:
    try:
        jnp.asarray(bare(leaf))
    except (TypeError, ValueError):
        return False
    return True


def trace_step_function(model: StepFunction, *inputs: Any, stateless: bool = False) -> ModuleInfo:
    """The program of a step function for example inputs; see :func:`.extract_module_info`."""
    info = _program(model, inputs, stateless)
    constant = unchanged_states(info)
    if not constant or len(constant) == len(info.hidden):
        return info
    # What a step returns unchanged is a constant of the network that is stored in the state. As a hidden state it would
    # get a group, and traces that cost memory and are always zero.
    info = _program(replace(model, other=(*model.other, *constant)), inputs, stateless)
    message = "is returned as it came, so it is a constant that the state carries, and no hidden state."
    notes = [Diagnostic(DiagnosticKind.UNCHANGED_STATE, message, paths=(path,)) for path in constant]
    return replace(info, notes=(*info.notes, *notes))


def _program(model: StepFunction, inputs: tuple[Any, ...], stateless: bool) -> ModuleInfo:
    parameters, constants = _parameter_slots(model)
    hidden, carried, notes = _state_slots(model)
    if not hidden and not stateless:
        leaves = ", ".join(f"{path_text(s.path)} {s.dtype}{s.shapes_text}" for s in carried) or "no leaves at all"
        raise ModelError(
            f"{model.name} has no hidden state: its state has {leaves}, none of them floating-point. "
            "Keep membrane potentials and currents as floating-point arrays in the state."
        )
    order = _StateOrder.of(model)

    def step(args: Any, params: list[Any], state: list[Any], other: list[Any]) -> tuple[Any, list[Any], list[Any]]:
        fixed, carried_values = other[: len(constants)], other[len(constants) :]
        new_state, output = _split_result(
            model, model.step(order.params(params, fixed), order.state(state, carried_values), *args)
        )
        new_hidden, new_carried = order.parts(_checked_leaves(model, new_state))
        return output, new_hidden, [*fixed, *new_carried]

    return build_program(
        step,
        inputs,
        parameters,
        hidden,
        [*constants, *carried],
        name=model.name,
        notes=notes,
        remedy="check the shapes and the arguments of the step function",
    )


def _parameter_slots(model: StepFunction) -> tuple[list[Slot], list[Slot]]:
    """The slots of trainable parameters, and those of the others."""
    parameters, constants = [], []
    for path, leaf in named_leaves(model.params, "params"):
        trainable = is_floating(jnp.asarray(bare(leaf)).dtype)
        role = SlotRole.PARAMETER if trainable else SlotRole.OTHER
        slot = array_slot(path, role, leaf, "parameter" if trainable else "constant")
        (parameters if trainable else constants).append(slot)
    return parameters, constants


def _state_slots(model: StepFunction) -> tuple[list[Slot], list[Slot], list[Diagnostic]]:
    """The slots of hidden states, those of other states, and notes on states that are not floating-point."""
    hidden, carried, notes = [], [], []
    for path, leaf in named_leaves(model.state, "state"):
        dtype = jnp.asarray(bare(leaf)).dtype
        if path in model.other:
            carried.append(array_slot(path, SlotRole.OTHER, leaf, "other state"))
        elif is_floating(dtype):
            hidden.append(array_slot(path, SlotRole.HIDDEN, leaf, "hidden state"))
        else:
            carried.append(array_slot(path, SlotRole.OTHER, leaf, "other state"))
            notes.append(
                Diagnostic(
                    DiagnosticKind.NON_FLOATING_STATE,
                    f"has dtype {dtype}, for which no derivative exists; it is carried as other state.",
                    paths=(path,),
                )
            )
    return hidden, carried, notes


def array_slot(path: Path, role: SlotRole, leaf: Any, label: str) -> Slot:
    """The slot of a single array, with its unit if it has one."""
    array = jnp.asarray(bare(leaf))
    return slot_of(path, role, jax.tree.structure(leaf), (jax.typeof(array),), (array,), unit_text(leaf), label)


@dataclass(frozen=True)
class _StateOrder:
    """How the leaves of parameters and state are distributed to slots.

    Attributes:
        params_def, state_def: the structures of the pytrees.
        trainable: for each leaf of the parameters, whether it is trainable.
        hidden: for each leaf of the state, whether it is a hidden state.
    """

    params_def: Any
    state_def: Any
    trainable: tuple[bool, ...]
    hidden: tuple[bool, ...]

    @classmethod
    def of(cls, model: StepFunction) -> _StateOrder:
        params, params_def = jax.tree.flatten(model.params)
        _, state_def = jax.tree.flatten(model.state)
        state = named_leaves(model.state, "state")
        return cls(
            params_def,
            state_def,
            tuple(is_floating(jnp.asarray(leaf).dtype) for leaf in params),
            tuple(path not in model.other and is_floating(jnp.asarray(bare(leaf)).dtype) for path, leaf in state),
        )

    def params(self, trainable: list[Any], fixed: list[Any]) -> Any:
        """The pytree of parameters from the leaves of slots."""
        return jax.tree.unflatten(self.params_def, _interleave(self.trainable, trainable, fixed))

    def state(self, hidden: list[Any], carried: list[Any]) -> Any:
        """The pytree of the state from the leaves of slots."""
        return jax.tree.unflatten(self.state_def, _interleave(self.hidden, hidden, carried))

    def parts(self, leaves: list[Any]) -> tuple[list[Any], list[Any]]:
        """The leaves of hidden states, and those of other states."""
        chosen = [leaf for leaf, first in zip(leaves, self.hidden, strict=True) if first]
        rest = [leaf for leaf, first in zip(leaves, self.hidden, strict=True) if not first]
        return chosen, rest


def _interleave(first: tuple[bool, ...], chosen: list[Any], rest: list[Any]) -> list[Any]:
    """One list from two, where ``first`` says for each element which list it is from."""
    a, b = iter(chosen), iter(rest)
    return [next(a) if is_first else next(b) for is_first in first]


def _split_result(model: StepFunction, result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise ModelError(
            f"{model.name} returned {type(result).__name__}, but a step function returns (new_state, output); "
            "end it with `return state, y`."
        )
    return result


def _checked_leaves(model: StepFunction, new_state: Any) -> list[Any]:
    """The leaves of a new state.

    Raises:
        ModelError: its structure, a shape or a dtype differs from that of the old state.
    """
    old, new = named_leaves(model.state, "state"), jax.tree.leaves(new_state)
    if jax.tree.structure(new_state) != jax.tree.structure(model.state):
        raise ModelError(
            f"{model.name} takes a state of structure {jax.tree.structure(model.state)} and returns one of "
            f"{jax.tree.structure(new_state)}; return the state with the same keys. If the two are swapped, "
            "end the step with `return state, y`."
        )
    for (path, before), after in zip(old, new, strict=True):
        a, b = jax.typeof(jnp.asarray(bare(before))), jax.typeof(after)
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ModelError(
                f"state {path_text(path)} of {model.name} goes in as {a.dtype}{shape_text(a.shape)} and comes out as "
                f"{b.dtype}{shape_text(b.shape)}; keep shape and dtype the same over a step."
            )
    return new


__all__ = ["InputError", "StepFunction", "leaf_path", "step_function", "trace_step_function"]
