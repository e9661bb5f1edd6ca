"""brainstate modules; besides its neighbors in this folder, the only code that imports brainstate and brainunit."""

# An example: a module with the parameter w, the potential v in a HiddenState, and an input current i in a
# ShortTermState. The first program has the slots w (parameter), v (hidden) and i (other). In it w reaches v of a later
# step through i, so i is hidden by use, and a second program with i as a hidden state replaces the first one.

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import brainstate
import brainunit
import jax
import jax.numpy as jnp

from ..errors import InputError, ModelError, RanvierError, reason_text
from ..program._jax import is_floating, open_jaxpr, variables_of
from ..program.analysis.learning_states import other_states_that_learn
from ..program.diagnostic import Diagnostic, DiagnosticKind
from ..program.interpret import needed_equations
from ..program.paths import Path, path_text
from ..program.program import ModuleInfo, Slot, SlotRole, shape_text, slot_of
from .brainstate_time import Clock, at_time
from .build import build_program, named_leaves
from .units import unit_text


def environment_dt() -> float | None:
    """The dt of ``brainstate.environ`` in seconds; a number without a unit counts as seconds."""
    dt = brainstate.environ.get("dt", None)
    if dt is None:
        return None
    return float(dt.to_decimal(brainunit.second)) if isinstance(dt, brainunit.Quantity) else float(dt)


def trace_module(model: brainstate.nn.Module, *inputs: Any) -> ModuleInfo:
    """The program of one call ``model(*inputs)``.

    Raises:
        ModelError: states are not initialized, there is no hidden state, or a hidden state is not floating-point.
        InputError: the module cannot run on these inputs.
    """
    call = _Call.of(model, inputs)
    roles = {id(state): _role(state) for state in call.states}
    info = call.program(roles)
    # A state is hidden by what the step does with it: an input current stored for the next step is, whatever its class.
    learning = _states_that_learn(info)
    if not learning:
        return info
    return call.program(roles | dict.fromkeys(map(id, learning), SlotRole.HIDDEN), learning)


def _states_that_learn(info: ModuleInfo) -> list[Any]:
    """Floating-point states that are not hidden by their class, but through which parameters act on later losses."""
    slot_of_leaf = [slot for slot in info.other for _ in slot.leaves]
    slots = {id(slot): slot for slot in (slot_of_leaf[k] for k in other_states_that_learn(info))}
    return [s.handle for s in slots.values() if all(is_floating(leaf.dtype) for leaf in s.leaves)]


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a module, as a function of the states it touches.

    Attributes:
        model: the module.
        inputs: example inputs.
        clock: the time of the step.
        timed: whether the call reads the clock, so that the number of the step is a state of the program.
        function: the traced call.
        touched: the states that the call reads or writes, in the function's order.
        states: all parameters, and the states that the call touches.
        paths: path of every state by its ``id``.
    """

    model: Any
    inputs: tuple[Any, ...]
    clock: Clock
    timed: bool
    function: Any
    touched: list[Any]
    states: list[Any]
    paths: dict[int, Path]

    @classmethod
    def of(cls, model: Any, inputs: tuple[Any, ...]) -> _Call:
        clock, name = Clock.of_environment(), type(model).__name__
        touched, function = _traced_states(model, name, clock, inputs)
        timed = _reads_time(function, clock, inputs, name)
        states = list({id(s): s for s in (*_parameters_of(model), *touched)}.values())
        return cls(model, inputs, clock, timed, function, touched, states, _state_paths(model, touched))

    def program(self, roles: Mapping[int, SlotRole], promoted: Sequence[Any] = ()) -> ModuleInfo:
        """The program in which the states have some roles.

        Args:
            roles: role of every state by its ``id``.
            promoted: states that are hidden by use and not by class, for the notes.

        Raises:
            ModelError: there is no hidden state.
            InputError: the module cannot run on these inputs.
        """
        name, timed = type(self.model).__name__, self.timed
        by_role = {role: [s for s in self.states if roles[id(s)] is role] for role in SlotRole}
        slots = {
            role: [slot for s in by_role[role] for slot in _slots_of(s, self.paths[id(s)], role)] for role in SlotRole
        }
        notes = [*_notes(slots[SlotRole.OTHER]), *(_promotion(self.paths[id(state)], state) for state in promoted)]
        if timed:
            slots[SlotRole.OTHER].append(self.clock.slot())
        if not slots[SlotRole.HIDDEN]:
            raise ModelError(
                f"{name} has no hidden state: none of the {len(self.touched)} states it uses is a "
                "brainstate.HiddenState. Keep membrane potentials and currents in brainstate.HiddenState and read them "
                "in update()."
            )

        def step(args: Any, params: list[Any], hidden: list[Any], other: list[Any]) -> tuple[Any, list[Any], list[Any]]:
            number = other[-1] if timed else self.clock.first
            values = _values(by_role, {SlotRole.PARAMETER: params, SlotRole.HIDDEN: hidden, SlotRole.OTHER: other})
            now = (number, self.clock.time(number))
            old = [values[id(state)] for state in self.touched]
            new_values, output = self.function.jaxpr_call(old, *now, *args)
            values.update({id(state): new for state, new in zip(self.touched, new_values, strict=True)})
            new_other = [*_leaves(by_role[SlotRole.OTHER], values), *([number + 1] if timed else [])]
            return output, _leaves(by_role[SlotRole.HIDDEN], values), new_other

        return build_program(
            step,
            self.inputs,
            slots[SlotRole.PARAMETER],
            slots[SlotRole.HIDDEN],
            slots[SlotRole.OTHER],
            name=name,
            notes=notes,
            remedy="check shapes and units of the inputs",
        )


def _values(by_role: Mapping[SlotRole, list[Any]], leaves_of: Mapping[SlotRole, list[Any]]) -> dict[int, Any]:
    """The value of every state by its ``id``, from the leaves by role."""
    values: dict[int, Any] = {}
    for role, leaves in leaves_of.items():
        rest = list(leaves)
        for state in by_role[role]:
            treedef = jax.tree.structure(state.value)
            values[id(state)] = jax.tree.unflatten(treedef, rest[: treedef.num_leaves])
            rest = rest[treedef.num_leaves :]
    return values


def _promotion(path: Path, state: Any) -> Diagnostic:
    message = (
        f"is a {type(state).__name__} through which parameters act on later steps, so it counts as a hidden state; "
        "stop its gradient with jax.lax.stop_gradient if they should not."
    )
    return Diagnostic(DiagnosticKind.HIDDEN_BY_USE, message, paths=(path,))


def _traced_states(model: Any, name: str, clock: Clock, inputs: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The states that a call reads or writes, and the call as a function of their values, the number and the time of
    the step, and the inputs."""

    def call(number: Any, time: Any, *args: Any) -> Any:
        with at_time(number, time):
            return model(*args)

    function = brainstate.transform.StatefulFunction(call, return_only_write=False)
    try:
        now = (clock.first, clock.time(clock.first))
        function.make_jaxpr(*now, *inputs)
        return list(function.get_states(*now, *inputs)), function
    except RanvierError:
        raise
    except Exception as error:
        raise _tracing_error(model, name, inputs, error) from error


def _reads_time(function: Any, clock: Clock, inputs: tuple[Any, ...], name: str) -> bool:
    """Whether a call reads the number or the time of its step.

    Raises:
        ModelError: the call reads the time, and there is no time step.
    """
    time = clock.time(clock.first)
    jaxpr, _ = open_jaxpr(function.get_jaxpr(clock.first, time, *inputs))
    # brainstate computes the time for every call, so only equations that the results depend on show what is read.
    needed = needed_equations(jaxpr.eqns, jaxpr.outvars)
    read = {*variables_of(jaxpr.outvars), *(atom for eqn in needed for atom in variables_of(eqn.invars))}
    reads_number, *reads_time = (var in read for var in jaxpr.invars[: 1 + len(jax.tree.leaves(time))])
    if any(reads_time) and clock.dt is None:
        raise ModelError(_setting_text(name, "t", "it reads the time of its step, t = i dt"))
    return reads_number or any(reads_time)


def _setting_text(name: str, key: str, reason: str) -> str:
    """The message for a model that reads a setting that brainstate's environment lacks."""
    if key in ("dt", "t"):
        return (
            f"{name} needs the time step dt ({reason}). "
            "Call brainstate.environ.set(dt=0.1 * brainunit.ms), with your value, before analyzing it."
        )
    return (
        f"{name} reads {key!r} from brainstate's environment, which has none ({reason}). "
        f"Call brainstate.environ.set({key}=...), with your value, before analyzing it; the program keeps that value."
    )


def _tracing_error(model: Any, name: str, inputs: tuple[Any, ...], error: Exception) -> RanvierError:
    """An error that says what to change, for one that a call of a module raised."""
    reason = reason_text(error)
    if isinstance(error, NotImplementedError):
        return ModelError(f"{name} cannot run ({reason}). Define update(self, x), one time step, and pass an instance.")
    if type(error).__name__ == "TraceContextError":
        return ModelError(
            f"states of {name} still hold values from inside a function that JAX was tracing (TraceContextError). "
            "Call brainstate.nn.init_all_states(model) again, outside of jit, grad and vmap."
        )
    if not model.states(brainstate.HiddenState):
        return ModelError(
            f"the states of {name} are not initialized ({reason}). Call "
            "brainstate.nn.init_all_states(model) first, or init_all_states(model, batch_size=...) for a batch."
        )
    if isinstance(error, KeyError) and (missing := re.search(r"Key '(\w+)' not found in environment", str(error))):
        return ModelError(_setting_text(name, missing[1], reason))
    shapes = ", ".join(_input_text(leaf) for leaf in jax.tree.leaves(inputs)) or "no inputs"
    return InputError(
        f"{name} cannot be traced with {shapes}: {reason} (check the number, the shapes and the units of the inputs)."
    )


def _input_text(leaf: Any) -> str:
    try:
        return f"{jnp.asarray(leaf).dtype}{shape_text(jnp.shape(leaf))}"
    except (TypeError, ValueError):
        return f"{leaf!r} of type {type(leaf).__name__}"


def _parameters_of(model: Any) -> Iterable[Any]:
    return model.states(brainstate.ParamState).values()


def _state_paths(model: Any, touched: Iterable[Any]) -> dict[int, Path]:
    paths = {id(state): tuple(path) for path, state in model.states().items()}
    for index, state in enumerate(touched):
        outside = "random" if state is brainstate.random.DEFAULT else f"{type(state).__name__}{index}"
        paths.setdefault(id(state), ("brainstate", outside))
    return paths


def _role(state: Any) -> SlotRole:
    """The role of a state by its class. The buffer of a delay is a hidden state, like the states that it delays."""
    if not isinstance(state, (brainstate.ParamState, brainstate.DelayState)):
        return SlotRole.HIDDEN if isinstance(state, brainstate.HiddenState) else SlotRole.OTHER
    if not all(is_floating(jnp.asarray(leaf).dtype) for leaf in jax.tree.leaves(state.value)):
        return SlotRole.OTHER
    return SlotRole.PARAMETER if isinstance(state, brainstate.ParamState) else SlotRole.HIDDEN


def _slots_of(state: Any, path: Path, role: SlotRole) -> list[Slot]:
    if role is not SlotRole.HIDDEN:
        leaves, treedef = jax.tree.flatten(state.value)
        return [_slot(path, role, treedef, leaves, unit_text(state.value), state)]
    slots = []
    parts = named_leaves(state.value, "value")
    for part_path, part in parts:
        leaves, treedef = jax.tree.flatten(part)
        full_path = path if len(parts) == 1 else path + part_path
        _check_floating(full_path, leaves)
        slots.append(_slot(full_path, role, treedef, leaves, unit_text(part), state))
    return slots


def _slot(path: Path, role: SlotRole, treedef: Any, leaves: list[Any], unit: str, state: Any) -> Slot:
    arrays = tuple(jnp.asarray(leaf) for leaf in leaves)
    avals = tuple(jax.typeof(array) for array in arrays)
    return slot_of(path, role, treedef, avals, arrays, unit, type(state).__name__, state)


def _check_floating(path: Path, leaves: list[Any]) -> None:
    for leaf in leaves:
        dtype = jnp.asarray(leaf).dtype
        if not is_floating(dtype):
            raise ModelError(
                f"hidden state {path_text(path)} has dtype {dtype}, for which no derivative exists. Make it a "
                "floating-point array, or keep it in brainstate.ShortTermState if it is a counter or a flag."
            )


def _leaves(states: list[Any], values: dict[int, Any]) -> list[Any]:
    return [leaf for state in states for leaf in jax.tree.leaves(values[id(state)])]


def _notes(other: list[Slot]) -> list[Diagnostic]:
    return [
        Diagnostic(
            DiagnosticKind.NON_FLOATING_STATE,
            f"is a {slot.label} without derivative (dtype {slot.leaves[0].dtype}); it is carried as other state.",
            paths=(slot.path,),
        )
        for slot in other
        if slot.leaves and not is_floating(slot.leaves[0].dtype)
    ]
