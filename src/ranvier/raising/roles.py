"""What each equation of a step is for a graph: arithmetic at positions, a move, an affine map, or something else."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..program._jax import (
    Equation,
    Literal,
    Var,
    bind,
    dtype_of,
    is_floating,
    is_key,
    is_real,
    shape_of,
    size_of,
    variables_of,
)
from ..program.analysis.binding_time import BindingTimes, binding_times_of
from ..program.analysis.dependence import Dependences, equation_dependences
from ..program.analysis.hidden_groups import analyse_groups
from ..program.analysis.parameter_use import ParameterUse, UseKind
from ..program.analysis.parameter_uses import parameter_uses_of
from ..program.analysis.position_map import ONLY_IDENTITY, PositionMap
from ..program.interpret import Apply, Environment, needed_equations, run_equations
from ..program.nested import classify
from ..program.primitives import Kind, rule_of
from ..program.program import ModuleInfo
from ..program.scalar import is_scalable
from .references import Earlier, MovedSource, OldState, Register, Root, Terms, joined

MOVES = frozenset(
    [
        "reshape",
        "squeeze",
        "expand_dims",
        "broadcast_in_dim",
        "slice",
        "concatenate",
        "transpose",
        "rev",
        "pad",
        "split",
        "stack",
        "unstack",
        "tile",
        "dynamic_slice",
        "gather",
        "dynamic_update_slice",
        "scatter",
        "scatter-add",
        "sharding_constraint",
        "device_put",
    ]
)
"""Equations that only move values, where the places are known."""
SUMS = frozenset(["add", "add_any"])


class EquationKind(enum.Enum):
    """What an equation is for a graph."""

    ARITHMETIC = "arithmetic"
    """Every position on its own."""
    MOVE = "move"
    """A sum of moved values."""
    MAP = "map"
    """The last equation of an affine map of one operand."""
    INSIDE = "inside"
    """Another equation of an affine map."""
    WHOLE = "whole"
    """Works on whole arrays in another way."""


@dataclass(eq=False)
class EquationKinds:
    """The equations of a step that change from step to step, with their roles.

    Attributes:
        info: the program.
        equations: those that states and outputs depend on, in order.
        role: of an equation, by ``id``.
        maps: by its result the affine map.
        terms: of every changing variable, what it is made up of.
        sizes: number of elements of every root.
        noise: results that random keys, and the bits they give, decide.
        registers: parts of states that only pass values on; they are none of the components any more.
        static: values of what does not change, with the model's own parameters.
    """

    info: ModuleInfo
    equations: list[Equation] = field(init=False)
    role: dict[int, EquationKind] = field(default_factory=dict)
    maps: dict[Var, ParameterUse] = field(default_factory=dict)
    terms: dict[Var, Terms] = field(default_factory=dict)
    sizes: dict[Root, int] = field(default_factory=dict)
    noise: set[Var] = field(default_factory=set)
    registers: dict[OldState, Register] = field(default_factory=dict)
    register_elements: dict[OldState, np.ndarray | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        info = self.info
        results = [*info.hidden_outvars, *info.other_outvars, *info.output_outvars]
        live = needed_equations(info.equations, results)
        self.equations = [e for e in live if e.outvars and not all(self.levels.is_static(v) for v in e.outvars)]
        self._inputs_and_states()
        maps = self._maps()
        for eqn in self.equations:
            self.role[id(eqn)] = maps.get(id(eqn)) or self._role(eqn)
            if self.role[id(eqn)] is EquationKind.MOVE:
                self._move(eqn)
            elif self.role[id(eqn)] is not EquationKind.INSIDE:
                for out in eqn.outvars:
                    self._root(out, out)

    @cached_property
    def arithmetic_results(self) -> set[Var]:
        """What is computed position by position."""
        return {out for e in self.equations if self.role[id(e)] is EquationKind.ARITHMETIC for out in e.outvars}

    def is_move(self, eqn: Equation) -> bool:
        """Whether an equation only moves values."""
        return self.role[id(eqn)] is EquationKind.MOVE

    @cached_property
    def levels(self) -> BindingTimes:
        return binding_times_of(self.info)

    @cached_property
    def consumers(self) -> dict[Var, int]:
        """How many equations, new states and outputs read a variable."""
        found: dict[Var, int] = {}
        results = [*self.info.hidden_outvars, *self.info.other_outvars, *self.info.output_outvars]
        for eqn in self.equations:
            for atom in dict.fromkeys(variables_of(eqn.invars)):
                found[atom] = found.get(atom, 0) + 1
        for atom in variables_of(results):
            found[atom] = found.get(atom, 0) + 1
        return found

    @cached_property
    def state_vars(self) -> list[tuple[Var, Any]]:
        """Old and new variable of every state, hidden states first."""
        info = self.info
        return [
            *zip(info.hidden_invars, info.hidden_outvars, strict=True),
            *zip(info.other_invars, info.other_outvars, strict=True),
        ]

    @cached_property
    def components(self) -> dict[OldState, np.ndarray | None]:
        """Of every part of a state its elements, in order; None for the whole state."""
        found: dict[OldState, np.ndarray | None] = {}
        packed = self._packed()
        for number, (old, _) in enumerate(self.state_vars):
            if self.levels.is_static(old):
                continue
            for c, elements in enumerate(packed.get(number, [None])):
                found[OldState(number, c)] = elements
        return found

    def _packed(self) -> dict[int, list[np.ndarray | None]]:
        """States that hold several numbers of each neuron, with the elements of each."""
        found: dict[int, list[np.ndarray | None]] = {}
        for group in analyse_groups(self.info).groups:
            for place, state in enumerate(group.state_indices):
                parts = [c.elements for c in group.positions.components if c.state == place]
                size = size_of(self.info.hidden_invars[state])
                covered = np.sort(np.concatenate(parts))
                if 1 < len(parts) <= group.positions.size and np.array_equal(covered, np.arange(size)):
                    found[state] = list(parts)
        return found

    def of(self, atom: Any) -> Terms:
        """What a variable is made up of."""
        if self.levels.is_static(atom):
            self.sizes.setdefault(atom, size_of(atom))
            return (MovedSource(atom),)
        return self.terms[atom]

    def new_state(self, part: OldState) -> Terms:
        """What a part of a state is after the step."""
        new, elements = self.state_vars[part.state][1], self.components[part]
        if isinstance(new, Literal):
            return ()
        if elements is None:
            return self.of(new)
        found = []
        for term in self.of(new):
            index = elements if term.index is None else term.index[elements]
            found.append(MovedSource(term.root, PositionMap.of(index, self.sizes[term.root]).index))
        return tuple(t for t in found if t.index is None or np.any(t.index >= 0))

    def is_static(self, root: Root) -> bool:
        """Whether a root does not change from step to step."""
        return not isinstance(root, (OldState, Earlier)) and self.levels.is_static(root)

    def _root(self, var: Var, root: Root) -> None:
        self.sizes[root] = size_of(var)
        self.terms[var] = (MovedSource(root),)

    def _inputs_and_states(self) -> None:
        for var in self.info.input_invars:
            self._root(var, var)
        for part, elements in self.components.items():
            old = self.state_vars[part.state][0]
            if elements is None:
                self._root(old, part)
                continue
            self.sizes[part] = elements.size
            index = np.full(size_of(old), -1)
            index[elements] = np.arange(elements.size)
            self.terms[old] = (*self.terms.get(old, ()), MovedSource(part, index))

    def _move(self, eqn: Equation) -> None:
        for out, found in zip(eqn.outvars, self._dependences(eqn), strict=True):
            terms: list[MovedSource] = []
            for (operand, _), maps in found.items():
                for term in self.of(eqn.invars[operand]):
                    moved = [term.moved(position_map, self.sizes[term.root]) for position_map in maps or ()]
                    terms += [t for t in moved if t.index is None or np.any(t.index >= 0)]
            self.terms[out] = joined(terms, self.sizes)

    def _dependences(self, eqn: Equation) -> list[Dependences]:
        return equation_dependences(eqn, self.levels.constant_value)

    def _role(self, eqn: Equation) -> EquationKind:
        changing = [a for a in variables_of(eqn.invars) if not self.levels.is_static(a)]
        if eqn.effects or any(not crosses(dtype_of(a)) for a in (*changing, *eqn.outvars)) or self._is_noise(eqn):
            self.noise.update(eqn.outvars)
            return EquationKind.WHOLE
        if self._is_move(eqn) or (eqn.primitive.name in SUMS and self._is_sum_of_maps(eqn)):
            return EquationKind.MOVE
        if is_scalable(eqn) and self._is_at_positions(eqn):
            return EquationKind.ARITHMETIC
        return EquationKind.WHOLE

    def _is_noise(self, eqn: Equation) -> bool:
        """Whether an equation shapes random numbers and nothing else."""
        atoms = variables_of(eqn.invars)
        changing = [a for a in atoms if not self.levels.is_static(a)]
        return all(a in self.noise for a in changing) and not any(
            self.is_learned(a) for a in atoms if a not in changing
        )

    def _is_move(self, eqn: Equation) -> bool:
        name = eqn.primitive.name
        if name not in MOVES:
            return False
        first = rule_of(eqn.primitive).index_operands
        numbers = range(len(eqn.invars)) if first is None else _carried(eqn, first)
        values = [eqn.invars[k] for k in numbers]
        if any(isinstance(a, Literal) and np.any(np.asarray(a.val) != 0) for a in values):
            return False
        indices = [a for k, a in enumerate(eqn.invars) if k not in numbers]
        if any(self.levels.constant_value(a) is None for a in indices):
            return False
        if name == "gather" and not _fills_with_zero(eqn):
            return False
        found = self._dependences(eqn)
        reached = {operand for d in found for operand, _ in d}
        wanted = [k for k in numbers if not isinstance(eqn.invars[k], Literal)]
        if name == "scatter-add":
            return all(k in reached for k in wanted)
        return bool(found)

    def _is_sum_of_maps(self, eqn: Equation) -> bool:
        """Whether what is added comes from affine maps and from what does not change, and is used for nothing else."""
        if not is_floating(dtype_of(eqn.outvars[0])):
            return False
        operands = variables_of(eqn.invars)
        if len(operands) != 2 or operands[0] is operands[1]:
            return False
        if any(size_of(a) != size_of(eqn.outvars[0]) for a in operands):
            return False
        for atom in operands:
            static = self.levels.is_static(atom)
            if not static and self.consumers[atom] > 1:
                return False
            if not all(self.is_static(t.root) or t.root in self.maps for t in self.of(atom)):
                return False
        return True

    def _is_at_positions(self, eqn: Equation) -> bool:
        size = size_of(eqn.outvars[0])
        if any(size_of(out) != size for out in eqn.outvars):
            return False
        if any(size_of(a) not in (1, size) for a in variables_of(eqn.invars)):
            return False
        for found in self._dependences(eqn):
            for (operand, _), maps in found.items():
                if size_of(eqn.invars[operand]) == size and maps != ONLY_IDENTITY:
                    return False
        return True

    def _maps(self) -> dict[int, EquationKind]:
        """EquationKinds of the equations of affine maps."""
        found: dict[int, EquationKind] = {}
        for operation in parameter_uses_of(self.info):
            if operation.kind in (UseKind.AFFINE, UseKind.CONV, UseKind.SPARSE):
                self._try_map(operation, found)
        for eqn in self.equations:
            changing = {a for a in variables_of(eqn.invars) if not self.levels.is_static(a)}
            mixes = classify(eqn) is Kind.MIXING or eqn.primitive.name == "scatter-add"
            if id(eqn) not in found and mixes and len(eqn.outvars) == 1 and len(changing) == 1:
                if eqn.primitive.name == "scatter-add" and self._is_placement(eqn):
                    continue
                static = tuple(dict.fromkeys(a for a in variables_of(eqn.invars) if a not in changing))
                y, reason = eqn.outvars[0], "mixes one operand"
                operation = ParameterUse(
                    UseKind.OTHER, y, tuple(changing), static, (eqn,), frozenset(), 0, reason, self.info
                )
                self._try_map(operation, found)
        return found

    def _is_placement(self, eqn: Equation) -> bool:
        """Whether a sum into places adds at most one element to each, so that it only moves."""
        reached = {operand for found in self._dependences(eqn) for operand, _ in found}
        return all(k in reached for k in (0, 2) if not isinstance(eqn.invars[k], Literal))

    def _try_map(self, operation: ParameterUse, found: dict[int, EquationKind]) -> None:
        atoms = (operation.y, *operation.xs)
        if len(operation.xs) != 1 or not all(is_real(dtype_of(a)) for a in atoms):
            return
        if any(id(e) in found or e.effects for e in operation.equations):
            return
        if any(id(e) not in self._numbers for e in operation.equations) or not self._is_affine(operation):
            return
        found.update((id(e), EquationKind.INSIDE) for e in operation.equations)
        found[id(operation.equations[-1])] = EquationKind.MAP
        self.maps[operation.y] = operation

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(eqn): number for number, eqn in enumerate(self.equations)}

    def _is_affine(self, operation: ParameterUse) -> bool:
        """Whether an operation keeps sums and multiples, tried on random values."""
        (x,) = operation.xs
        dtype = dtype_of(x)
        generator = np.random.default_rng(0)
        a, b = (jnp.asarray(generator.normal(size=shape_of(x)), dtype) for _ in range(2))
        operands = [self.static[var] for var in operation.operands]
        try:
            run = jax.jit(lambda *xs: [operation([value], operands) for value in xs])
            zero, f_a, f_b, both = (np.asarray(y, np.float64) for y in run(jnp.zeros_like(a), a, b, a + 2.5 * b))
        except Exception:  # a primitive of another library that cannot be run here is no affine map for us
            return False
        expected = f_a + 2.5 * f_b - 2.5 * zero
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        return bool(np.all(np.isfinite(both))) and np.allclose(
            both, expected, rtol=0, atol=scale * 2e3 * float(jnp.finfo(dtype).eps)
        )

    @cached_property
    def static(self) -> Environment:
        """Values of all that does not change, with the model's own parameters."""
        return self.static_values([leaf for slot in self.info.parameters for leaf in slot.initial])

    def static_values(self, parameters: Iterable[Any], apply: Apply = bind) -> Environment:
        """Values of all that does not change, from the leaves of all parameters."""
        info = self.info
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        initial = [leaf for slot in info.other for leaf in slot.initial]
        pairs = zip(info.other_invars, initial, strict=True)
        environment.update((var, leaf) for var, leaf in pairs if self.levels.is_static(var))
        environment.update(zip(info.weight_invars, parameters, strict=True))
        run_equations(self._static_equations, environment, apply)
        return environment

    @cached_property
    def _static_equations(self) -> list[Equation]:
        static = [e for e in self.info.equations if e.outvars and all(self.levels.is_static(v) for v in e.outvars)]
        return [e for e in static if not e.effects]

    def is_learned(self, var: Var) -> bool:
        """Whether a value that does not change has a derivative by a parameter."""
        return bool(self.levels.learned_of(var))

    def shared(self, var: Var) -> Var:
        """The single number that a static variable repeats, where it was made of one; else the variable."""
        eqn = self.levels.producers.get(var)
        while eqn is not None and eqn.primitive.name in ("broadcast_in_dim", "reshape"):
            source = eqn.invars[0]
            if isinstance(source, Literal) or (size_of(source) != size_of(var) and size_of(source) != 1):
                break
            if size_of(source) == 1:
                return source
            eqn = self.levels.producers.get(source)
        return var


def crosses(dtype: Any) -> bool:
    """Whether values can go from one node of a graph to another as real numbers."""
    if is_key(dtype):
        return False
    return is_real(dtype) or dtype == np.bool_ or np.issubdtype(dtype, np.signedinteger)


def _carried(eqn: Equation, first: int) -> list[int]:
    """Numbers of the operands that carry values, not places."""
    if eqn.primitive.name.startswith("scatter"):
        return [0, 2]
    return list(range(first))


def _fills_with_zero(eqn: Equation) -> bool:
    fill: Mapping[str, Any] = eqn.params
    return fill.get("fill_value") in (None, 0)
