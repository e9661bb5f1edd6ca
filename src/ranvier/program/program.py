"""The program: one traced time step whose operands and results are partitioned by name.

A layer of 4 leaky neurons with 3 inputs, ``v' = 0.9 v + x @ w``, which gives v' as its output, is a jaxpr with the
operands [x, w, v] and the results [v', v']. Its program says that x is an input, w a parameter of shape [3, 4] with its
initial value, v a hidden state of shape [4] that starts at zero, and that of the results the first is the output and
the second the new v.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pickle import PicklingError
from typing import Any

import jax

from ..errors import InputError, ModelError
from ..util.counting import counted
from ..util.table import table
from ._jax import Var, open_jaxpr
from .diagnostic import Diagnostic
from .inputs import check_names
from .interpret import Environment, evaluate, run_equations
from .names import letters, variable_text
from .paths import Path, leaf_path, path_text
from .remade import Recipe, Remade, check_pickles
from .while_loops import bind_both_ways


class SlotRole(enum.Enum):
    """What a slot holds."""

    HIDDEN = "hidden"
    OTHER = "other"
    PARAMETER = "parameter"


@dataclass(frozen=True, eq=False)
class Slot:
    """A named place of a program; its class says what it holds, as in ``type(slot).__name__``.

    Attributes:
        path: its name.
        role: what it holds.
        treedef: how ``leaves`` make up the model's own value.
        leaves: abstract values (shape, dtype) of its arrays; a hidden state has exactly one.
        initial: the arrays that the model had when it was traced.
        unit: physical unit as text, ``""`` where there is none.
        label: what kind of state it is for a person, e.g. ``"HiddenState"``, ``"RandomState"``.
        handle: the model's own object (a brainstate ``State``), or None.
    """

    path: Path
    role: SlotRole
    treedef: Any
    leaves: tuple[Any, ...]
    initial: tuple[Any, ...]
    unit: str = ""
    label: str = ""
    handle: Any = None

    @property
    def value(self) -> Any:
        """The initial value in the model's own form, units included."""
        return jax.tree.unflatten(self.treedef, self.initial)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the single leaf."""
        return tuple(self.leaves[0].shape)

    @property
    def dtype(self) -> Any:
        """Dtype of the single leaf."""
        return self.leaves[0].dtype

    @cached_property
    def leaf_names(self) -> tuple[str, ...]:
        """Names of the leaves: the slot's own, with the leaf's key where there are several."""
        name = path_text(self.path)
        if len(self.leaves) == 1:
            return (name,)
        numbered = jax.tree.unflatten(self.treedef, list(range(len(self.leaves))))
        with_paths, _ = jax.tree_util.tree_flatten_with_path(numbered)
        keys = [[str(part) for part in leaf_path(path)] for path, _ in with_paths]
        # Parts after the first few that tell all leaves apart, such as a wrapper's own field, only make names longer.
        distinct = [len({tuple(key[: k + 1]) for key in keys}) for k in range(max(map(len, keys)))]
        needed = next(k + 1 for k, count in enumerate(distinct) if count == len(keys))
        return tuple(".".join([name, *key[:needed]]) for key in keys)

    @property
    def shapes_text(self) -> str:
        return " ".join(shape_text(leaf.shape) for leaf in self.leaves)

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return f"{path_text(self.path)} {self.leaves[0].dtype}{self.shapes_text}{unit}"


class HiddenState(Slot):
    """A slot whose values are carried from step to step and have a derivative."""


class ParamState(Slot):
    """A slot whose values are trained."""


class OtherState(Slot):
    """A slot whose values are carried without a derivative, or never change."""


KINDS: dict[SlotRole, type[Slot]] = {
    SlotRole.HIDDEN: HiddenState,
    SlotRole.PARAMETER: ParamState,
    SlotRole.OTHER: OtherState,
}


def slot_of(path: Path, role: SlotRole, *fields: Any, **options: Any) -> Slot:
    """A slot of the class that its role names; arguments are those of :class:`Slot`."""
    return KINDS[role](path, role, *fields, **options)


def shape_text(shape: Sequence[int]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"


@dataclass(frozen=True, eq=False)
class ModuleInfo(Remade):
    """A model's time step as a jaxpr in normal form, with every operand and result named.

    The operands of ``closed_jaxpr`` are, in this order, the leaves of inputs, parameters, hidden states and
    other states; its results are the leaves of outputs, new hidden states and new other states.

    Attributes:
        closed_jaxpr: the step; calls are inlined and short loops unrolled.
        input_treedef: structure of the step's inputs, a tuple of arguments.
        output_treedef: structure of the step's output.
        input_avals: abstract values of the input leaves.
        output_avals: abstract values of the output leaves.
        parameters: slots of trainable parameters.
        hidden: slots of hidden states, one leaf each.
        other: slots of states that are carried but not hidden.
        name: the model's name, for headings.
        notes: what the frontend reports, e.g. about states without derivative.
        samples: independent samples that the program was mapped over, along a leading axis.
        origin: what made it from a model, which is what is pickled; None for a program made of another one.
    """

    closed_jaxpr: Any
    input_treedef: Any
    output_treedef: Any
    input_avals: tuple[Any, ...]
    output_avals: tuple[Any, ...]
    parameters: tuple[Slot, ...]
    hidden: tuple[Slot, ...]
    other: tuple[Slot, ...]
    name: str = "model"
    notes: tuple[Diagnostic, ...] = field(default=())
    samples: int = 1
    origin: Recipe | None = None

    def recipe(self) -> Recipe:
        if self.origin is None:
            raise PicklingError(
                f"the program of {self.name} was derived from another program and cannot be pickled; pickle the "
                "program that ranvier.extract_module_info returns."
            )
        function, arguments = self.origin
        check_pickles(arguments, f"the program of {self.name}")
        initial = [slot.initial for slot in (*self.parameters, *self.hidden, *self.other)]
        return function, (*arguments, initial)

    def with_initial(self, initial: Sequence[tuple[Any, ...]]) -> ModuleInfo:
        """The program with other initial values, for its parameters, hidden states and other states in this order."""
        values = iter(initial)
        parts = {
            name: tuple(replace(slot, initial=next(values)) for slot in getattr(self, name))
            for name in ("parameters", "hidden", "other")
        }
        return replace(self, **parts)

    @cached_property
    def jaxpr(self) -> Any:
        return open_jaxpr(self.closed_jaxpr)[0]

    @cached_property
    def consts(self) -> list[Any]:
        """Values of ``jaxpr.constvars``."""
        return open_jaxpr(self.closed_jaxpr)[1]

    @cached_property
    def equations(self) -> list[Any]:
        return list(self.jaxpr.eqns)

    @cached_property
    def _invars(self) -> dict[str, list[Var]]:
        counts = {
            "inputs": len(self.input_avals),
            "parameters": sum(len(slot.leaves) for slot in self.parameters),
            "hidden": len(self.hidden),
            "other": sum(len(slot.leaves) for slot in self.other),
        }
        return _cut(self.jaxpr.invars, counts)

    @cached_property
    def _outvars(self) -> dict[str, list[Any]]:
        counts = {
            "outputs": len(self.output_avals),
            "hidden": len(self.hidden),
            "other": sum(len(slot.leaves) for slot in self.other),
        }
        return _cut(self.jaxpr.outvars, counts)

    @property
    def input_invars(self) -> list[Var]:
        return self._invars["inputs"]

    @property
    def weight_invars(self) -> list[Var]:
        """Operands that are parameter leaves."""
        return self._invars["parameters"]

    @property
    def hidden_invars(self) -> list[Var]:
        return self._invars["hidden"]

    @property
    def other_invars(self) -> list[Var]:
        return self._invars["other"]

    @property
    def output_outvars(self) -> list[Any]:
        return self._outvars["outputs"]

    @property
    def hidden_outvars(self) -> list[Var]:
        return self._outvars["hidden"]

    @property
    def other_outvars(self) -> list[Any]:
        return self._outvars["other"]

    @cached_property
    def hidden_path_to_invar(self) -> dict[Path, Var]:
        return {slot.path: var for slot, var in zip(self.hidden, self.hidden_invars, strict=True)}

    @cached_property
    def hidden_path_to_outvar(self) -> dict[Path, Var]:
        return {slot.path: var for slot, var in zip(self.hidden, self.hidden_outvars, strict=True)}

    @cached_property
    def invar_to_hidden_path(self) -> dict[Var, Path]:
        return {var: path for path, var in self.hidden_path_to_invar.items()}

    @cached_property
    def outvar_to_hidden_path(self) -> dict[Var, Path]:
        return {var: path for path, var in self.hidden_path_to_outvar.items()}

    @cached_property
    def hidden_outvar_to_invar(self) -> dict[Var, Var]:
        return dict(zip(self.hidden_outvars, self.hidden_invars, strict=True))

    @cached_property
    def weight_path_to_invars(self) -> dict[Path, list[Var]]:
        """Parameter path to the operands that are its leaves."""
        return _by_slot(self.parameters, self.weight_invars)

    @cached_property
    def invar_to_weight_path(self) -> dict[Var, Path]:
        return {var: path for path, leaves in self.weight_path_to_invars.items() for var in leaves}

    @cached_property
    def other_path_to_invars(self) -> dict[Path, list[Var]]:
        return _by_slot(self.other, self.other_invars)

    @cached_property
    def state_slots(self) -> list[Slot]:
        """The slot of every state leaf, in the order of ``hidden_invars`` and ``other_invars``."""
        return [slot for slot in (*self.hidden, *self.other) for _ in slot.leaves]

    @cached_property
    def slots(self) -> dict[Path, Slot]:
        """All slots by path."""
        return {slot.path: slot for slot in (*self.hidden, *self.parameters, *self.other)}

    @property
    def retrieved_model_states(self) -> dict[Path, Slot]:
        """All slots by path, also those that the step neither reads nor writes."""
        return self.slots

    @property
    def num_var_out(self) -> int:
        """Number of leaves of the outputs, the first results of ``closed_jaxpr``."""
        return len(self.output_outvars)

    @property
    def num_var_state(self) -> int:
        """Number of leaves of new states, the other results; brainscale counts parameters among these."""
        return len(self.jaxpr.outvars) - self.num_var_out

    @cached_property
    def compiled_model_states(self) -> tuple[Slot, ...]:
        """Slots that the step reads or writes: hidden states, parameters, then other states."""
        used = {atom for eqn in self.equations for atom in eqn.invars if isinstance(atom, Var)}
        used.update(atom for atom in self.jaxpr.outvars if isinstance(atom, Var))
        by_slot = self.weight_path_to_invars | self.other_path_to_invars
        return (*self.hidden, *(s for s in (*self.parameters, *self.other) if used & set(by_slot[s.path])))

    def flat_operands(
        self,
        *inputs: Any,
        params: Mapping[Path, Any] | None = None,
        hidden: Mapping[Path, Any] | None = None,
        other: Mapping[Path, Any] | None = None,
    ) -> list[Any]:
        """The operands of ``closed_jaxpr`` for these inputs, with the model's initial values for everything else.

        Args:
            *inputs: the step's arguments, as the model takes them.
            params: parameter path to value, for those to replace.
            hidden: hidden state path to value, likewise.
            other: other state path to value, likewise.

        Raises:
            InputError: wrong structure or shape of an input, or a path that the program does not have.
        """
        leaves, treedef = jax.tree.flatten(inputs)
        expected = [shape_text(aval.shape) for aval in self.input_avals]
        shapes = [shape_text(jax.numpy.shape(leaf)) for leaf in leaves]
        if treedef != self.input_treedef or shapes != expected:
            check_names(inputs, jax.tree.unflatten(self.input_treedef, self.input_avals), self.name)
            raise InputError(
                f"{self.name} was traced with inputs of shapes {', '.join(expected) or 'none'}, but got "
                f"{', '.join(shapes) or 'none'}; pass inputs of the traced shapes or extract the model again."
            )
        return [
            *leaves,
            *_slot_values(self.parameters, params or {}, "parameter"),
            *_slot_values(self.hidden, hidden or {}, "hidden state"),
            *_slot_values(self.other, other or {}, "other state"),
        ]

    def step(self, *inputs: Any, **states: Any) -> tuple[Any, dict[Path, Any], dict[Path, Any]]:
        """Runs one time step; takes what :meth:`flat_operands` takes.

        Returns:
            The output in the model's own form, the new hidden states and the new other states by path.
        """
        results = evaluate(self.closed_jaxpr, self.flat_operands(*inputs, **states), bind_both_ways)
        parts = _cut(results, {name: len(atoms) for name, atoms in self._outvars.items()})
        output = jax.tree.unflatten(self.output_treedef, parts["outputs"])
        return output, _values(self.hidden, parts["hidden"]), _values(self.other, parts["other"])

    def values(self, *inputs: Any, **states: Any) -> Environment:
        """The value of every variable of ``jaxpr`` in one step; takes what :meth:`flat_operands` takes."""
        environment: Environment = dict(zip(self.jaxpr.constvars, self.consts, strict=True))
        environment.update(zip(self.jaxpr.invars, self.flat_operands(*inputs, **states), strict=True))
        run_equations(self.equations, environment)
        return environment

    @cached_property
    def variable_names(self) -> dict[Var, str]:
        """Short names: slot paths for operands, ``path'`` for new states, letters in order for the rest."""
        names: dict[Var, str] = {var: f"x{index}" for index, var in enumerate(self.input_invars)}
        for slots, invars in ((self.parameters, self.weight_invars), (self.other, self.other_invars)):
            names.update(zip(invars, (name for slot in slots for name in slot.leaf_names), strict=True))
        names.update({var: path_text(path) for path, var in self.hidden_path_to_invar.items()})
        names.update({var: f"{path_text(path)}'" for path, var in self.hidden_path_to_outvar.items()})
        results = [var for eqn in self.equations for var in eqn.outvars]
        unnamed = [var for var in (*results, *self.jaxpr.constvars) if var not in names]
        names.update(zip(unnamed, letters(), strict=False))
        return names

    def text(self, atom: Any) -> str:
        """A variable or literal for a person: short name, dtype and shape."""
        return variable_text(atom, self.variable_names)

    def __str__(self) -> str:
        count = len(self.equations)
        head = f"{self.name}: one time step, {counted(count, 'equation')}"
        lines = [("input", f"x{i}", _leaf_text(aval), "", "") for i, aval in enumerate(self.input_avals)]
        lines += [
            (slot.role.value, name, _leaf_text(leaf), slot.unit, slot.label)
            for slot in (*self.hidden, *self.other, *self.parameters)
            for name, leaf in zip(slot.leaf_names, slot.leaves, strict=True)
        ]
        lines += [("output", f"y{i}", _leaf_text(aval), "", "") for i, aval in enumerate(self.output_avals)]
        return "\n".join([head, *table(("role", "name", "array", "unit", "kind"), lines)])

    __repr__ = __str__


Program = ModuleInfo


def check_is_program(value: object) -> None:
    """Passes where the value is a program.

    Raises:
        ModelError: it is something else; the message says how to make one.
    """
    if not isinstance(value, ModuleInfo):
        raise ModelError(
            f"expected a program, not {type(value).__name__} {value!r:.60}; ranvier.extract_module_info(model, "
            "*inputs) makes one from a model."
        )


def _leaf_text(aval: Any) -> str:
    return f"{aval.dtype}{shape_text(aval.shape)}"


def _cut(items: Sequence[Any], counts: Mapping[str, int]) -> dict[str, list[Any]]:
    parts, start = {}, 0
    for name, count in counts.items():
        parts[name], start = list(items[start : start + count]), start + count
    return parts


def _by_slot(slots: Sequence[Slot], leaves: Sequence[Any]) -> dict[Path, list[Any]]:
    by_path, start = {}, 0
    for slot in slots:
        by_path[slot.path], start = list(leaves[start : start + len(slot.leaves)]), start + len(slot.leaves)
    return by_path


def _values(slots: Sequence[Slot], leaves: Sequence[Any]) -> dict[Path, Any]:
    by_path = _by_slot(slots, leaves)
    return {slot.path: jax.tree.unflatten(slot.treedef, by_path[slot.path]) for slot in slots}


def _slot_values(slots: Sequence[Slot], replaced: Mapping[Path, Any], noun: str) -> list[Any]:
    unknown = [path_text(path) for path in replaced if path not in {slot.path for slot in slots}]
    if unknown:
        known = ", ".join(path_text(slot.path) for slot in slots) or "none"
        raise InputError(f"no {noun} is called {', '.join(unknown)}; the program has {known}.")
    leaves: list[Any] = []
    for slot in slots:
        values = jax.tree.leaves(replaced[slot.path]) if slot.path in replaced else list(slot.initial)
        shapes = [tuple(jax.numpy.shape(leaf)) for leaf in values]
        if shapes != [tuple(leaf.shape) for leaf in slot.leaves]:
            raise InputError(
                f"{noun} {path_text(slot.path)} has shape {slot.shapes_text}, but its value has "
                f"{' '.join(map(shape_text, shapes)) or 'no arrays'}; pass a value of that shape."
            )
        leaves += values
    return leaves
