"""Equations that work on whole arrays: each is a population of its own, or shares one with those it hands random keys
and the like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..program._jax import Equation, Literal, Var, dtype_of, is_key, shape_of, trace, variables_of
from ..program.interpret import run_equations
from ..program.precision import TracedFunction
from .references import OldState, base, node_shape
from .roles import EquationKind, EquationKinds, crosses


@dataclass(eq=False)
class Block:
    """Some equations on whole arrays.

    Attributes:
        roles: of all equations.
        equations: in order.
        states: states that only these equations read and make.
        ports, parameters, outputs: what they read that changes, what they read that does not, what others read.
        function: new states and outputs from ports, states and parameters.
    """

    roles: EquationKinds
    equations: list[Equation]
    states: list[OldState]
    outputs: list[Var]
    ports: dict[Var, None] = field(default_factory=dict)
    parameters: dict[Var, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = {out for e in self.equations for out in e.outvars}
        old = {self.roles.state_vars[part.state][0] for part in self.states}
        for atom in variables_of(a for e in self.equations for a in e.invars):
            if self.roles.is_learned(atom) and self.roles.levels.is_static(atom):
                self.parameters[atom] = None
            elif not self.roles.levels.is_static(atom) and atom not in made and atom not in old:
                self.ports[atom] = None
        self.function = self._traced()

    def _traced(self) -> TracedFunction:
        roles = self.roles
        old = [roles.state_vars[part.state][0] for part in self.states]
        new = [roles.state_vars[part.state][1] for part in self.states]
        operands = [*self.ports, *old, *self.parameters]

        def run(*given: Any) -> list[Any]:
            known = dict(roles.static)
            known.update((v, _unpacked(v, x)) for v, x in zip(operands, given, strict=True))
            run_equations(self.equations, known)
            results = [a.val if isinstance(a, Literal) else known[a] for a in new]
            return [*map(_packed, results), *(known[v].reshape(node_shape(shape_of(v))) for v in self.outputs)]

        return TracedFunction(trace(run, [_packed_aval(v) for v in operands]))

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of ports, states, parameters and outputs, in order."""
        old = [self.roles.state_vars[part.state][0] for part in self.states]
        found = [tuple(_packed_aval(v).shape) for v in (*self.ports, *old, *self.parameters)]
        return [*found, *(node_shape(shape_of(v)) for v in self.outputs)]


def packed(value: Any) -> np.ndarray:
    """A random key as its numbers; other values as they are."""
    return np.asarray(_packed(value))


def _packed(value: Any) -> Any:
    if is_key(jax.typeof(value).dtype):
        return jax.random.key_data(value)
    return value.reshape(node_shape(value.shape))


def _unpacked(var: Var, value: Any) -> Any:
    dtype = dtype_of(var)
    return jax.random.wrap_key_data(value, impl=dtype._impl.name) if is_key(dtype) else value.reshape(shape_of(var))


def _packed_aval(var: Var) -> Any:
    if not is_key(dtype_of(var)):
        return jax.ShapeDtypeStruct(node_shape(shape_of(var)), dtype_of(var))
    return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape_of(var), dtype_of(var)))


def blocks_of(roles: EquationKinds) -> list[Block]:
    """All blocks, in the order of their first equations."""
    equations = [e for e in roles.equations if roles.role[id(e)] is EquationKind.WHOLE]
    groups = _groups(roles, equations)
    made = {out: k for k, group in enumerate(groups) for e in group for out in e.outvars}
    states = _owned_states(roles, groups, made)
    read = _read_outside(roles, groups)
    outputs = [[v for e in group for v in e.outvars if v in read[k]] for k, group in enumerate(groups)]
    return [Block(roles, group, states[k], outputs[k]) for k, group in enumerate(groups)]


def _groups(roles: EquationKinds, equations: list[Equation]) -> list[list[Equation]]:
    """Equations that hand each other what cannot leave a population go together."""
    leader = list(range(len(equations)))

    def find(k: int) -> int:
        while leader[k] != k:
            leader[k] = leader[leader[k]]
            k = leader[k]
        return k

    first: dict[Any, int] = {}
    old_of_new = {new: old for old, new in roles.state_vars if not isinstance(new, Literal)}
    for k, eqn in enumerate(equations):
        for var in variables_of((*eqn.invars, *eqn.outvars)):
            handed = not crosses(dtype_of(var)) or var in roles.noise
            if handed and not roles.levels.is_static(var):
                for name in (var, old_of_new.get(var, var)):
                    leader[find(k)] = find(first.setdefault(name, k))
    found: dict[int, list[Equation]] = {}
    for k, eqn in enumerate(equations):
        found.setdefault(find(k), []).append(eqn)
    return list(found.values())


def _owned_states(roles: EquationKinds, groups: list[list[Equation]], made: dict[Var, int]) -> list[list[OldState]]:
    """Of every block the states that cannot leave it."""
    found: list[list[OldState]] = [[] for _ in groups]
    for part in roles.components:
        old, new = roles.state_vars[part.state]
        if not crosses(dtype_of(old)):
            found[made[new]].append(part)
    return found


def _read_outside(roles: EquationKinds, groups: list[list[Equation]]) -> list[set[Var]]:
    """Of every block what others read of its results."""
    of_block = {id(e): k for k, group in enumerate(groups) for e in group}
    found: list[set[Var]] = [set() for _ in groups]
    made = {out: k for k, group in enumerate(groups) for e in group for out in e.outvars}

    def read(atom: Any, reader: int | None) -> None:
        if isinstance(atom, Literal) or roles.levels.is_static(atom) or atom not in roles.terms:
            return
        for term in roles.of(atom):
            root = base(term.root)
            k = made.get(root)
            if k is not None and (k != reader or atom is not root) and crosses(dtype_of(root)):
                found[k].add(root)

    for eqn in roles.equations:
        for atom in eqn.invars:
            read(atom, of_block.get(id(eqn)))
    for operation in roles.maps.values():
        read(operation.xs[0], None)
    for atom in (*roles.info.output_outvars, *(new for _, new in roles.state_vars)):
        read(atom, None)
    return found
