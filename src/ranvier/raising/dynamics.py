"""The dynamics of a population: the arithmetic of a place, traced as a function of the numbers at one position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..program._jax import Equation, Literal, Tracer, Var, dtype_of, located_at, open_jaxpr, trace
from ..program.bodies import called_body, has_own_derivative
from ..program.precision import TracedFunction
from ..program.scalar import apply_to_numbers, forward_of
from .clusters import Clusters, PlannedPopulation
from .references import OldState, Root

Key = Any  # Var | OldState | tuple[OldState, str]
"""What an operand of dynamics is: a variable, a part of a state before the step, or after it."""


def kept(part: OldState) -> Key:
    """The port of a state that only keeps what it gets."""
    return part, "in"


@dataclass(eq=False)
class PositionFunction:
    """The arithmetic of a place.

    Attributes:
        clusters: of all places.
        place: this one.
        equations: in order.
        states: parts of states whose new values are made here.
        ports: operands that come from elsewhere.
        parameters: operands that do not change.
        outputs: results that are read elsewhere and are no new state.
        same: for outputs that are the same function as another one, or as a new state, that one.
        function: new states and outputs from ports, states and parameters.
    """

    clusters: Clusters
    place: PlannedPopulation
    equations: list[Equation]
    states: list[OldState]
    outputs: list[Var]
    ports: dict[Key, None] = field(default_factory=dict)
    parameters: dict[Var, None] = field(default_factory=dict)
    same: dict[Var, Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._retimed = self._retimed_equations()
        self._made = {out for eqn in (*self.equations, *self._retimed) for out in eqn.outvars}
        self.ports.update(dict.fromkeys(kept(part) for part in self.states if self.clusters.own_result(part) is None))
        for eqn in [*self.equations, *self._retimed]:
            for atom in eqn.invars:
                self._resolve(eqn, atom)
        self.function = self._traced()

    @property
    def size(self) -> int:
        root: Root = self.states[0] if self.states else self.equations[0].outvars[0]
        return self.clusters.roles.sizes[root]

    def _resolve(self, eqn: Equation, atom: Any) -> Callable[[dict[Any, Any]], Any]:
        """How an operand is read; ports and parameters are written down."""
        roles = self.clusters.roles
        if isinstance(atom, Literal):
            value = np.asarray(atom.val, dtype_of(atom))
            return lambda known: value
        if roles.levels.is_static(atom):
            shared = roles.shared(atom)
            self.parameters[shared] = None
            return lambda known: known[shared]
        root = self.clusters.inner(eqn, atom)
        if root is not None and (root in self.states or root in self._made):
            return lambda known: known[root]
        key: Key = atom if root is None else root
        self.ports[key] = None
        return lambda known: known[key]

    def _retimed_equations(self) -> list[Equation]:
        """Those that make outputs out of old states; they are run on new states instead."""
        wanted = [v for v in self.outputs if v in self.clusters.retimed]
        found: dict[int, Equation] = {}
        while wanted:
            eqn = self.clusters.maker[wanted.pop()]
            if id(eqn) in found:
                continue
            found[id(eqn)] = eqn
            roots = [self.clusters.inner(eqn, a) for a in eqn.invars if not isinstance(a, Literal)]
            wanted += [r for r in roots if r is not None and not isinstance(r, OldState)]
        return [e for e in self.clusters.arithmetic if id(e) in found]

    def _traced(self) -> TracedFunction:
        keys = [*self.ports, *self.states, *self.parameters]
        avals = [jax.ShapeDtypeStruct((), self._dtype(key)) for key in keys]

        def run(*operands: Any) -> list[Any]:
            seen: dict[int, Key] = {}  # by identity, of values that live to the end of the run
            known: dict[Any, Any] = dict(zip(keys, operands, strict=True))
            apply = _Once()
            self._evaluate(self.equations, known, apply)
            new = [self._new_value(part, known) for part in self.states]
            later = {**known, **dict(zip(self.states, new, strict=True))}
            self._evaluate(self._retimed, later, apply)
            results = []
            for part, value in zip(self.states, new, strict=True):
                results.append(value)
                seen.setdefault(id(value), part)
            for var in self.outputs:
                value = (later if var in self.clusters.retimed else known)[var]
                if seen.setdefault(id(value), var) is var:
                    results.append(value)
                else:
                    self.same[var] = seen[id(value)]
            return results

        return TracedFunction(trace(run, avals))

    def _evaluate(self, equations: Sequence[Equation], known: dict[Any, Any], apply: _Once) -> None:
        for eqn in equations:
            operands = [self._resolve(eqn, atom)(known) for atom in eqn.invars]
            with located_at(eqn):
                known.update(zip(eqn.outvars, apply(eqn, operands), strict=True))

    def _new_value(self, part: OldState, known: dict[Any, Any]) -> Any:
        if self.clusters.own_result(part) is None:
            return known[kept(part)]
        return known[self.clusters.roles.new_state(part)[0].root]

    def _dtype(self, key: Any) -> Any:
        part = key[0] if isinstance(key, tuple) else key
        if isinstance(part, OldState):
            return dtype_of(self.clusters.roles.state_vars[part.state][0])
        return dtype_of(part)


@dataclass
class _Once:
    """Applies equations to numbers; what was applied to the same operands before is not applied again."""

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
