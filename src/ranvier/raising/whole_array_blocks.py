"""Blocks of equations on whole arrays: each equation is a population of its own, or shares one with the equations that
it passes random keys to.

A ``jnp.sort(0.9 * h + y)`` is a block of one equation, with one port and one output. Dropout is one of several: a key
is split, bits are drawn from it and become uniform numbers. Keys and bits cannot go over a projection, which brings
real numbers, so these equations are one population, with the key as its state and the numbers as its output.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from ..program._jax import Equation, Literal, Var, dtype_of, is_key, shape_of, trace, variables_of
from ..program.interpret import run_equations
from ..program.precision import TracedFunction
from .kinds import EquationKind, EquationKinds, crosses
from .references import OldState, base, node_shape


@dataclass(frozen=True, eq=False)
class Block:
    """A block of equations on whole arrays.

    Attributes:
        equations: in order.
        ports: what they read that changes.
        states: states that only these equations read and make.
        parameters: what they read that is learned.
        outputs: what others read of their results.
        function: new states and outputs from ports, states and parameters.
        shapes: of ports, states, parameters and outputs, in order.
    """

    equations: tuple[Equation, ...]
    ports: tuple[Var, ...]
    states: tuple[OldState, ...]
    parameters: tuple[Var, ...]
    outputs: tuple[Var, ...]
    function: TracedFunction
    shapes: tuple[tuple[int, ...], ...]


def find_blocks(kinds: EquationKinds) -> list[Block]:
    """All blocks, in the order of their first equations."""
    groups = _groups(kinds)
    makers = {out: k for k, group in enumerate(groups) for eqn in group for out in eqn.outvars}
    states = _owned_states(kinds, groups, makers)
    read = _read_outside(kinds, groups, makers)
    outputs = [[v for eqn in group for v in eqn.outvars if v in read[k]] for k, group in enumerate(groups)]
    return [_trace_block(kinds, group, states[k], outputs[k]) for k, group in enumerate(groups)]


def packed(value: Any) -> np.ndarray:
    """A random key as its numbers; other values as they are."""
    return np.asarray(_packed(value))


def _groups(kinds: EquationKinds) -> list[list[Equation]]:
    """Equations that hand each other what cannot leave a population go together."""
    equations = kinds.of_kind(EquationKind.WHOLE)
    old_of_new = {new: old for old, new in kinds.step.states if not isinstance(new, Literal)}
    sets = DisjointSet(range(len(equations)))
    first: dict[Any, int] = {}
    for k, eqn in enumerate(equations):
        for var in variables_of((*eqn.invars, *eqn.outvars)):
            cannot_leave = not crosses(dtype_of(var)) or var in kinds.noise
            if cannot_leave and not kinds.step.is_static(var):
                # A key that is handed on as a state is handed to whoever reads that state in the next step.
                for name in (var, old_of_new.get(var, var)):
                    sets.merge(k, first.setdefault(name, k))
    groups: dict[int, list[Equation]] = {}
    for k, eqn in enumerate(equations):
        groups.setdefault(sets[k], []).append(eqn)
    return list(groups.values())


def _owned_states(
    kinds: EquationKinds, groups: Sequence[Sequence[Equation]], makers: dict[Var, int]
) -> list[list[OldState]]:
    """Of every block the states that cannot leave it."""
    owned: list[list[OldState]] = [[] for _ in groups]
    for part in kinds.parts:
        old, new = kinds.step.states[part.state]
        if not crosses(dtype_of(old)):
            owned[makers[new]].append(part)
    return owned


def _read_outside(
    kinds: EquationKinds, groups: Sequence[Sequence[Equation]], makers: dict[Var, int]
) -> list[AbstractSet[Var]]:
    """Of every block what others read of its results."""
    block_of = {id(eqn): k for k, group in enumerate(groups) for eqn in group}
    results: list[set[Var]] = [set() for _ in groups]

    def read(atom: Any, reader: int | None) -> None:
        if isinstance(atom, Literal) or kinds.step.is_static(atom) or atom not in kinds.terms:
            return
        for term in kinds.terms_of(atom):
            root = base(term.root)
            maker = makers.get(root)
            # Within a block a result is handed on as it is; what was moved on the way comes back through a port.
            if maker is not None and (maker != reader or atom is not root) and crosses(dtype_of(root)):
                results[maker].add(root)

    for eqn in kinds.step.equations:
        for atom in eqn.invars:
            read(atom, block_of.get(id(eqn)))
    for affine in kinds.maps.by_result.values():
        read(affine.xs[0], None)
    for atom in (*kinds.step.info.output_outvars, *(new for _, new in kinds.step.states)):
        read(atom, None)
    return [*results]


def _trace_block(
    kinds: EquationKinds, equations: Sequence[Equation], states: Sequence[OldState], outputs: Sequence[Var]
) -> Block:
    step = kinds.step
    made = {out for eqn in equations for out in eqn.outvars}
    old = [step.states[part.state][0] for part in states]
    new = [step.states[part.state][1] for part in states]
    read = dict.fromkeys(variables_of(atom for eqn in equations for atom in eqn.invars))
    parameters = [atom for atom in read if step.is_static(atom) and step.is_learned(atom)]
    ports = [atom for atom in read if not step.is_static(atom) and atom not in made and atom not in old]
    operands = [*ports, *old, *parameters]

    def run(*values: Any) -> list[Any]:
        known = dict(step.static)
        known.update((var, _unpacked(var, x)) for var, x in zip(operands, values, strict=True))
        run_equations(equations, known)
        results = [atom.val if isinstance(atom, Literal) else known[atom] for atom in new]
        return [*map(_packed, results), *(known[var].reshape(node_shape(shape_of(var))) for var in outputs)]

    avals = [_packed_aval(var) for var in operands]
    shapes = (*(tuple(aval.shape) for aval in avals), *(node_shape(shape_of(var)) for var in outputs))
    function = TracedFunction(trace(run, avals))
    return Block(tuple(equations), tuple(ports), tuple(states), tuple(parameters), tuple(outputs), function, shapes)


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
