"""Which elements of an equation's operands each element of its results depends on, without mixing.

A dependence through a mixing or opaque equation is left out here: populations end there.

For ``z = where(mask, a, b[::-1])`` of 3 elements, z depends on a by the identity and on b by the map [2, 1, 0], with a
derivative, and on mask by the identity without one. The map of the reversal is not derived by rule: the equation itself
runs on the numbers 0, 1, 2 of b's elements, and what comes out, [2, 1, 0], is the map. Any move that JAX can run is
covered this way, with its own padding and index conventions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from .._jax import Atom, Equation, Literal, Var, dtype_of, is_floating, open_jaxpr, shape_of, size_of
from ..bodies import bodies, called_body, has_own_derivative, is_loop, loop_of
from ..folding import run_known
from ..interpret import Environment
from ..nested import mixes, tangents_of
from ..primitives import Kind, PrimitiveRule, rule_of
from ..turn_axes import TurnAxes, turn_axes_in
from .addressing import MOST_CHOICES, ConstantValue, Indices, index_operands, possible_indices
from .dependences import Dependences, add_dependence, chained
from .loop_dependence import loop_dependences
from .position_map import MAX_MAPS, MAX_TURNS, ONLY_IDENTITY, Maps, PositionMap
from .position_sums import sums_within_positions
from .turn_maps import maps_within_turns


@dataclass(frozen=True, eq=False)
class Sources:
    """How the operands of an equation come about.

    Attributes:
        producers: variable to the equation that computes it.
        is_fixed: whether no derivative passes into a value; None where sums count as mixing.
        samples: independent samples of the program.
        turn_axes: variables that hold the turns of a loop, with the axes along which they do.
        most_places: how many places are distinguished where an index is not known.
    """

    producers: Mapping[Var, Equation]
    is_fixed: Callable[[Atom], bool] | None = None
    samples: int = 1
    turn_axes: TurnAxes = field(default_factory=dict)
    most_places: int = MOST_CHOICES


def equation_dependences(
    eqn: Equation, constant_value: ConstantValue, sources: Sources | None = None
) -> list[Dependences]:
    """For each result, the position maps to each operand.

    Args:
        eqn: the equation.
        constant_value: gives the value of constant operands, such as the indices of a static gather.
        sources: how the operands come about. With it, what is read or written at places that change from step to
            step depends on all places that are possible, and a sum over a few elements of a position on these; without
            it, on what stays in place only.

    Returns:
        One dictionary per result; keys are (operand number, whether a derivative passes).
    """
    rule = rule_of(eqn.primitive)
    if rule.kind is Kind.ELEMENTWISE:
        results = [_elementwise(eqn, out, rule.differentiable) for out in eqn.outvars]
    elif rule.kind is Kind.STRUCTURAL:
        results = _structural(eqn, rule, constant_value, sources)
    elif rule.kind is Kind.NESTED:
        results = _nested(eqn, constant_value, sources is not None)
    elif rule.kind is Kind.MIXING and sources is not None:
        sums = maps_within_turns(eqn, sources.turn_axes)
        if not sums and sources.is_fixed is not None:
            sums = sums_within_positions(eqn, constant_value, sources.is_fixed, sources.producers, sources.samples)
        results = [{(k, is_floating(dtype_of(eqn.invars[k]))): maps for k, maps in sums.items()} for _ in eqn.outvars]
    else:
        results = [{} for _ in eqn.outvars]
    # An integer has no derivative, whatever it is made of.
    return [_without_gradient(d) if not is_floating(dtype_of(out)) else d for d, out in zip(results, eqn.outvars)]


def _without_gradient(dependences: Dependences) -> Dependences:
    return {(operand, False): maps for (operand, _), maps in dependences.items()}


def _elementwise(eqn: Equation, out: Var, differentiable: bool) -> Dependences:
    dependences: Dependences = {}
    size = size_of(out)
    for k, atom in enumerate(eqn.invars):
        # A literal is a constant of the program: nothing depends on where it comes from.
        if isinstance(atom, Literal):
            continue
        gradient = differentiable and is_floating(dtype_of(atom))
        dependences[k, gradient] = ONLY_IDENTITY if size_of(atom) == size else _broadcast(shape_of(atom), shape_of(out))
    return dependences


@lru_cache(maxsize=64)
def _broadcast(source: tuple[int, ...], target: tuple[int, ...]) -> Maps:
    """Axes of size one, and scalars, feed every element along the target's axis."""
    elements = np.arange(math.prod(source)).reshape(source)
    return (PositionMap.of(np.broadcast_to(elements, target), elements.size),)


def _structural(
    eqn: Equation, rule: PrimitiveRule, constant_value: ConstantValue, sources: Sources | None
) -> list[Dependences]:
    indices = index_operands(eqn)
    # A counter that runs through a ring buffer takes few values; each is tried, and the maps of all are joined. Indices
    # that data decide could be anything, so only what certainly stays in place is known.
    choices = _choices(eqn, indices, constant_value, sources)
    if choices is None:
        return [_kept_in_place(eqn) for _ in eqn.outvars]
    results: list[Dependences] = [{} for _ in eqn.outvars]
    for (k, atom), choice in itertools.product(enumerate(eqn.invars), choices):
        if k in indices or isinstance(atom, Literal):
            continue
        key = k, rule.differentiable and is_floating(dtype_of(atom))
        for d, out, index in zip(results, eqn.outvars, _move(eqn, rule, k, choice), strict=True):
            position_map = PositionMap.of(index, size_of(atom))
            if not position_map.is_empty:
                add_dependence(d, key, (position_map,), size_of(out), size_of(atom))
    return results


def _choices(
    eqn: Equation, indices: Sequence[int], constant_value: ConstantValue, sources: Sources | None
) -> Sequence[Indices] | None:
    """The values that the indices can have: one choice where they are constant."""
    constants = {k: value for k in indices if (value := constant_value(eqn.invars[k])) is not None}
    if len(constants) == len(indices):
        return [constants]
    if sources is None:
        return None
    array = eqn.invars[0]
    turns = sources.turn_axes.get(array, frozenset()) if isinstance(array, Var) else frozenset()

    def most_along(axis: int) -> int:
        # Any turn of a loop is at the same position as any other, and a body is walked for one of them.
        return MAX_TURNS if axis in turns else sources.most_places

    return possible_indices(eqn, indices, constant_value, sources.producers, most_along)


def has_known_places(eqn: Equation, constant_value: ConstantValue, sources: Sources | None) -> bool:
    """Whether all places are known that an equation can read or write."""
    return _choices(eqn, index_operands(eqn), constant_value, sources) is not None


def _kept_in_place(eqn: Equation) -> Dependences:
    """Written at positions that data decide: every other element of the first operand stays where it is."""
    writes = eqn.primitive.name.startswith("scatter") or eqn.primitive.name == "dynamic_update_slice"
    if not writes or isinstance(eqn.invars[0], Literal):
        return {}
    return {(0, is_floating(dtype_of(eqn.invars[0]))): ONLY_IDENTITY}


def _move(eqn: Equation, rule: PrimitiveRule, traced: int, constants: Indices) -> Sequence[np.ndarray]:
    """Where the elements of one operand go: the equation run on their numbers, -1 everywhere else."""
    operands: list[Any] = []
    for k, atom in enumerate(eqn.invars):
        if k in constants:
            operands.append(constants[k])
        elif k == traced:
            operands.append(np.arange(size_of(atom), dtype=np.int32).reshape(shape_of(atom)))
        else:
            operands.append(np.full(shape_of(atom), -1, dtype=np.int32))
    if rule.move is not None:
        return [rule.move(eqn.params, operands)]
    if eqn.primitive.name in ("scatter-add", "scatter-sub"):
        return [_moved_by_scatter_add(eqn, operands, traced)]
    return [np.asarray(result) for result in _run_on_indices(eqn, operands)]


def _run_on_indices(eqn: Equation, operands: list[Any]) -> list[Any]:
    # An index out of bounds fills with a value of the model's, which could be mistaken for the number of an element.
    params = dict(eqn.params)
    if "fill_value" in params:
        params["fill_value"] = -1
    with jax.ensure_compile_time_eval():
        results = eqn.primitive.bind(*map(jax.numpy.asarray, operands), **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def _moved_by_scatter_add(eqn: Equation, operands: list[Any], traced: int) -> np.ndarray:
    """Addition keeps the old value in place; updates that hit one element twice would mix."""
    operand, indices, updates = operands

    def placed(values: np.ndarray) -> np.ndarray:
        numbers, mode = eqn.params["dimension_numbers"], eqn.params["mode"]
        with jax.ensure_compile_time_eval():
            zeros = jax.numpy.zeros(operand.shape, np.int32)
            return np.asarray(jax.lax.scatter_add(zeros, jax.numpy.asarray(indices), values, numbers, mode=mode))

    if traced == 0:
        return operand
    # Two updates of one element are a sum over positions: no map can say that, so the operand counts as mixed.
    if placed(np.ones(updates.shape, np.int32)).max(initial=0) > 1:
        return np.full(operand.shape, -1)
    return placed((updates + 1).astype(np.int32)) - 1


def _nested(eqn: Equation, constant_value: ConstantValue, at_changing_places: bool) -> list[Dependences]:
    if eqn.primitive.name == "cond":
        return _of_branches(eqn, at_changing_places)
    if is_loop(eqn):
        return loop_dependences(eqn, body_dependences(loop_of(eqn).body, (), at_changing_places))
    body = called_body(eqn)
    if body is None:
        return [{} for _ in eqn.outvars]
    constants = [constant_value(atom) if _is_index_like(atom) else None for atom in eqn.invars]
    dependences = body_dependences(body, constants, at_changing_places)
    return _with_declared(eqn, dependences, constants, at_changing_places) if has_own_derivative(eqn) else dependences


def _is_index_like(atom: Atom) -> bool:
    return not is_floating(dtype_of(atom))


def _with_declared(
    eqn: Equation, values: list[Dependences], constants: Sequence[np.ndarray | None], at_changing_places: bool
) -> list[Dependences]:
    """Dependences of a function with a declared derivative: a derivative passes where the declared one says so,
    whatever the function's own would do, such as a spike's zero."""
    results = [_without_gradient(d) for d in values]
    tangents = tangents_of(eqn)
    operand_of = {seed: operand for operand, seed in tangents.seeds.items() if not mixes(eqn, operand)}
    by_tangent = body_dependences(tangents.closed, constants, at_changing_places)
    for number, slopes in zip(tangents.results, by_tangent, strict=True):
        for (argument, passes), maps in slopes.items():
            if passes and argument in operand_of:
                # The value depends on the operand anyway; where the slope does in the same way, one entry says both.
                operand = operand_of[argument]
                results[number][operand, True] = maps
                if results[number].get((operand, False)) == maps:
                    del results[number][operand, False]
    return results


def _of_branches(eqn: Equation, at_changing_places: bool) -> list[Dependences]:
    sizes = [size_of(atom) for atom in eqn.invars]
    merged: list[Dependences] = [{} for _ in eqn.outvars]
    for branch in bodies(eqn):
        results = body_dependences(branch, (), at_changing_places)
        for d, of_branch, out in zip(merged, results, eqn.outvars, strict=True):
            for (operand, gradient), maps in of_branch.items():
                add_dependence(d, (operand + 1, gradient), maps, size_of(out), sizes[operand + 1])
    # All elements of all results depend on which branch is taken, without a derivative.
    if not isinstance(eqn.invars[0], Literal):
        for d, out in zip(merged, eqn.outvars, strict=True):
            d[0, False] = (PositionMap(np.zeros(size_of(out), dtype=np.int64)),)
    return merged


def body_dependences(
    body: Any, constants: Sequence[np.ndarray | None] = (), at_changing_places: bool = False
) -> list[Dependences]:
    """For each result of a jaxpr, the position maps to each of its operands.

    Args:
        body: the jaxpr.
        constants: values of the operands that are known.
        at_changing_places: whether to follow what is read or written at places that are not constant.
    """
    jaxpr, _ = open_jaxpr(body)
    sizes = [size_of(var) for var in jaxpr.invars]
    of_variable: dict[Var, Dependences] = {
        var: {(k, is_floating(dtype_of(var))): ONLY_IDENTITY} for k, var in enumerate(jaxpr.invars)
    }
    constant_value = constants_of_body(body, constants)
    sources = sources_in_body(body) if at_changing_places else None
    for eqn in jaxpr.eqns:
        for out, of_eqn in zip(eqn.outvars, equation_dependences(eqn, constant_value, sources), strict=True):
            total: Dependences = {}
            for (operand, gradient), maps in of_eqn.items():
                source = eqn.invars[operand]
                inner = {} if isinstance(source, Literal) else of_variable.get(source, {})
                for key, through in chained(maps, gradient, inner, size_of(out), sizes).items():
                    add_dependence(total, key, through, size_of(out), sizes[key[0]])
            of_variable[out] = total
    return [{} if isinstance(atom, Literal) else of_variable.get(atom, {}) for atom in jaxpr.outvars]


def constants_of_body(body: Any, constants: Sequence[np.ndarray | None] = ()) -> ConstantValue:
    """What gives the values of a body's constants, from those of its operands that are known."""
    jaxpr, consts = open_jaxpr(body)
    known: Environment = dict(zip(jaxpr.constvars, consts, strict=True))
    known.update({v: c for v, c in zip(jaxpr.invars, constants, strict=False) if c is not None})

    def constant_value(atom: Atom) -> np.ndarray | None:
        value = atom.val if isinstance(atom, Literal) else known.get(atom)
        return None if value is None else np.asarray(value)

    for eqn in jaxpr.eqns:
        _fold_constants(eqn, known, constant_value)
    return constant_value


def sources_in_body(body: Any) -> Sources:
    """How the operands of a body's equations come about."""
    producers = {var: eqn for eqn in open_jaxpr(body)[0].eqns for var in eqn.outvars}
    return Sources(producers, turn_axes=turn_axes_in(body), most_places=MAX_MAPS)


def _fold_constants(eqn: Equation, known: Environment, constant_value: ConstantValue) -> None:
    """Computes integer values made of constants, which may address positions later."""
    if any(is_floating(dtype_of(out)) for out in eqn.outvars) or bodies(eqn) or eqn.effects:
        return
    moves_or_counts = rule_of(eqn.primitive).kind in (Kind.ELEMENTWISE, Kind.STRUCTURAL)
    if moves_or_counts and all(constant_value(atom) is not None for atom in eqn.invars):
        run_known([eqn], known)
