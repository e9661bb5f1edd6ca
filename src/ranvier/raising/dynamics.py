"""The dynamics of a population: its arithmetic, traced as a function of the numbers at one position.

In the example of ``step.py``, with ``in`` for what the matrix brings::

    v', z = function(in, v)        v' = 0.9 * v + in        z = float(v' > 1)

on single numbers, though the step works on arrays of 2. So neurons can be taken out by slicing parameters, and other
passes can try the function on whatever numbers they like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..program._jax import Equation, Literal, Tracer, Var, dtype_of, located_at, open_jaxpr, trace
from ..program.bodies import called_body, has_own_derivative
from ..program.precision import TracedFunction
from ..program.scalar import apply_to_numbers, forward_of
from .arithmetic import Arithmetic
from .contents import Contents
from .population_plan import PopulationPlan
from .references import OldState

Key = Any  # Var | OldState | tuple[OldState, str]
"""What an operand of dynamics is: a variable, a part of a state before the step, or after it."""


@dataclass(frozen=True, eq=False)
class PositionFunction:
    """What a population computes at a position.

    Attributes:
        contents: its equations, states and outputs.
        ports: operands that come from elsewhere.
        parameters: operands that do not change.
        function: new states and outputs from ports, states and parameters.
        same: for outputs that are the same function as another one, or as a new state, that one; they are no results of
            the function.
    """

    contents: Contents
    ports: tuple[Key, ...]
    parameters: tuple[Var, ...]
    function: TracedFunction
    same: Mapping[Var, Key]


def trace_dynamics(plan: PopulationPlan, contents: Contents) -> PositionFunction:
    """The contents of a population as a function of numbers."""
    operands = _Operands(plan.arithmetic, contents, _retimed_equations(plan, contents))
    ports, parameters = operands.ports(), operands.parameters()
    keys = [*ports, *contents.states, *parameters]
    avals = [jax.ShapeDtypeStruct((), _dtype(plan.arithmetic, key)) for key in keys]
    same: dict[Var, Key] = {}

    def run(*values: Any) -> list[Any]:
        known: dict[Any, Any] = dict(zip(keys, values, strict=True))
        apply = _Once()
        operands.evaluate(contents.equations, known, apply)
        new = [operands.new_value(part, known) for part in contents.states]
        # What is retimed is computed for the next step, so it reads the new states in place of the old ones.
        later = {**known, **dict(zip(contents.states, new, strict=True))}
        operands.evaluate(operands.retimed, later, apply)
        outputs = [(later if var in plan.retimed else known)[var] for var in contents.outputs]
        first: dict[int, Key] = {}  # by identity, of values that live to the end of the run
        for part, value in zip(contents.states, new, strict=True):
            first.setdefault(id(value), part)
        distinct = []
        for var, value in zip(contents.outputs, outputs, strict=True):
            if first.setdefault(id(value), var) is var:
                distinct.append(value)
            else:
                same[var] = first[id(value)]
        return [*new, *distinct]

    return PositionFunction(contents, tuple(ports), tuple(parameters), TracedFunction(trace(run, avals)), same)


def port_of_new(part: OldState) -> Key:
    """The port through which a state gets its new value, where no arithmetic of the population makes it."""
    return part, "in"


def _retimed_equations(plan: PopulationPlan, contents: Contents) -> list[Equation]:
    """Those that make outputs out of old states; they are run on new states instead."""
    arithmetic = plan.arithmetic
    wanted = [var for var in contents.outputs if var in plan.retimed]
    needed: set[int] = set()
    while wanted:
        eqn = arithmetic.maker[wanted.pop()]
        if id(eqn) in needed:
            continue
        needed.add(id(eqn))
        roots = [arithmetic.inner(eqn, atom) for atom in eqn.invars if not isinstance(atom, Literal)]
        wanted += [root for root in roots if root is not None and not isinstance(root, OldState)]
    return [eqn for eqn in arithmetic.equations if id(eqn) in needed]


@dataclass(frozen=True, eq=False)
class _Operands:
    """The operands of a population's equations, and how they are read at one position."""

    arithmetic: Arithmetic
    contents: Contents
    retimed: Sequence[Equation]

    def ports(self) -> list[Key]:
        """What comes from elsewhere: first what states keep, then operands of equations."""
        equations = (*self.contents.equations, *self.retimed)
        own = {*self.contents.states, *(out for eqn in equations for out in eqn.outvars)}
        passive = [port_of_new(part) for part in self.contents.states if self.arithmetic.own_result(part) is None]
        brought = [key for key in self._keys() if not self._is_parameter(key) and key not in own]
        return list(dict.fromkeys([*passive, *brought]))

    def parameters(self) -> list[Var]:
        return list(dict.fromkeys(key for key in self._keys() if self._is_parameter(key)))

    def evaluate(self, equations: Sequence[Equation], known: dict[Any, Any], apply: _Once) -> None:
        """Computes results of equations on numbers."""
        for eqn in equations:
            values = [self._value(eqn, atom, known) for atom in eqn.invars]
            with located_at(eqn):
                known.update(zip(eqn.outvars, apply(eqn, values), strict=True))

    def new_value(self, part: OldState, known: Mapping[Any, Any]) -> Any:
        """What a state becomes, once the equations are evaluated."""
        if self.arithmetic.own_result(part) is None:
            return known[port_of_new(part)]
        return known[self.arithmetic.new_value(part)]

    def _value(self, eqn: Equation, atom: Any, known: Mapping[Any, Any]) -> Any:
        return np.asarray(atom.val, dtype_of(atom)) if isinstance(atom, Literal) else known[self._key(eqn, atom)]

    def _keys(self) -> list[Key]:
        equations = (*self.contents.equations, *self.retimed)
        return [self._key(eqn, a) for eqn in equations for a in eqn.invars if not isinstance(a, Literal)]

    def _key(self, eqn: Equation, atom: Var) -> Key:
        """What an operand is: a shared number, a root of the same cluster, or a variable that is brought."""
        step = self.arithmetic.kinds.step
        if step.is_static(atom):
            return step.repeated_number(atom)
        root = self.arithmetic.inner(eqn, atom)
        return atom if root is None else root

    def _is_parameter(self, key: Key) -> bool:
        return self.arithmetic.kinds.step.is_static(key)


def _dtype(arithmetic: Arithmetic, key: Key) -> Any:
    part = key[0] if isinstance(key, tuple) else key
    return dtype_of(arithmetic.kinds.step.states[part.state][0] if isinstance(part, OldState) else part)


@dataclass
class _Once:
    """Applies equations to numbers; what was applied to the same operands before is not applied again.

    Retimed equations repeat ones that made a new state; the repetition must give the very same value, so that it is
    seen to be the same and needs no output of its own.
    """

    known: dict[Any, tuple[Any, Any]] = field(default_factory=dict)

    def __call__(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        key = _signature(eqn), tuple(map(_identity, operands))
        if key not in self.known:
            self.known[key] = operands, apply_to_numbers(eqn, operands)
        return self.known[key][1]


def _identity(x: Any) -> Any:
    return id(x) if isinstance(x, Tracer) else (str(np.asarray(x).dtype), np.asarray(x).tobytes())


def _signature(eqn: Equation) -> Any:
    """Equal for equations that are the same function with the same derivative."""
    if has_own_derivative(eqn) and called_body(eqn) is not None:
        return eqn.primitive.name, _text(called_body(eqn)), _text(forward_of(eqn))
    return eqn.primitive.name, str(sorted((k, str(v)) for k, v in eqn.params.items()))


def _text(closed: Any) -> Any:
    jaxpr, consts = open_jaxpr(closed)
    return str(jaxpr), tuple(np.asarray(c).tobytes() for c in consts)
