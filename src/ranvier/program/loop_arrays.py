"""Arrays that a loop reads or writes by its counter, as scanned operands and stacked results.

``fori_loop(0, 3, lambda i, v: 0.5 * v + y[i], v)`` reads another row of y in every turn, and a loop that writes
``buffer.at[i].set(v)`` leaves the v of turn i in row i. Seen from one turn the place could be any; but the counter is
[0, 1, 2] whatever the data are, so the loop is a ``scan`` over the rows of y, and the buffer is the stacked v of all
turns. As rows of a scan the elements of a neuron stay at its position, turn by turn.

A ``while`` that ends when a counter says so is a loop of that many turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._jax import Equation, Literal, Var, bind, dtype_of, is_floating, open_jaxpr, shape_of, size_of, trace
from .bodies import Loop, called_body, has_own_derivative, is_call, is_loop, loop_of
from .interpret import Environment, apply_with_bodies, evaluate, needed_equations, read, run_equations
from .nested import contains
from .turns import computed, integers_by_turn, known_integers, made_of_counters, number_of_turns, value_of

MAX_ROWS = 2**22
"""Elements that the rows read in all turns may have together."""

READS = ("gather", "dynamic_slice")
WRITES = {"scatter": (2, 1), "dynamic_update_slice": (1, 2)}
"""Equations that write into their first operand: numbers of the update and of the first index."""


def with_arrays_by_turn(closed: Any, avals: Sequence[Any]) -> Any:
    """The function with what its loops read and write by their counters as scanned operands and stacked results."""
    if not any(contains(eqn, "scan") or contains(eqn, "while") for eqn in open_jaxpr(closed)[0].eqns):
        return closed
    return trace(lambda *operands: evaluate(closed, operands, _ByTurn(known_integers(closed, {}))), avals)


@dataclass(frozen=True)
class _ByTurn:
    """Applies the equations of one jaxpr, of which some integers are known."""

    known: Mapping[Var, np.ndarray]

    def __call__(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if has_own_derivative(eqn) or not (contains(eqn, "scan") or contains(eqn, "while")):
            return bind(eqn, operands)
        if eqn.primitive.name == "cond":
            return apply_with_bodies(eqn, operands, _ByTurn({}))
        if not is_loop(eqn):
            return bind(eqn, operands)
        integers = [value_of(atom, self.known) for atom in eqn.invars]
        loop = loop_of(eqn)
        if loop.condition is not None:
            turns = number_of_turns(eqn, integers)
            if turns is None:
                return apply_with_bodies(eqn, operands, _ByTurn({})) if _has_loops(loop.body) else bind(eqn, operands)
            loop = replace(loop, length=turns, condition=None)
        if _has_loops(loop.body) or _has_calls(loop.body):
            loop = _with_inner_loops(loop, integers)
        return _Rewritten.of(loop, integers_by_turn(loop, integers)).apply(eqn, operands)


def _has_loops(closed: Any) -> bool:
    return any(contains(eqn, "scan") or contains(eqn, "while") for eqn in open_jaxpr(closed)[0].eqns)


def _has_calls(closed: Any) -> bool:
    return any(is_call(eqn) for eqn in open_jaxpr(closed)[0].eqns)


def _with_inner_loops(loop: Loop, integers: Sequence[np.ndarray | None]) -> Loop:
    """The loop with the calls in its body inlined and the loops in it rewritten."""
    constants, _, _ = loop.split(list(integers))
    avals = [var.aval for var in loop.invars]
    body = trace(lambda *operands: evaluate(loop.body, operands, _inlined), avals)
    fixed = {var: x for var, x in zip(open_jaxpr(body)[0].invars, constants, strict=False) if x is not None}
    apply = _ByTurn(known_integers(body, fixed))
    return replace(loop, body=trace(lambda *operands: evaluate(body, operands, apply), avals))


def _inlined(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
    return evaluate(called_body(eqn), operands, _inlined) if is_call(eqn) else bind(eqn, operands)


@dataclass(frozen=True, eq=False)
class _Written:
    """A carried array that a loop only writes into.

    Attributes:
        number: number of the carried value.
        equations: the equations that write, one after the other.
        places: int64, for every element of the array the number of an element of the start value and then the updates
            of all turns, each update as ``[turns, *update]``.
    """

    number: int
    equations: tuple[Equation, ...]
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class _Rewritten:
    """A loop with a fixed number of turns, and what of it becomes scanned operands and stacked results.

    Attributes:
        loop: the loop as it is.
        by_turn: operands of its body that are known in every turn.
        reads: equations of the body that read a loop constant at places of the turn, with these places.
        written: the arrays that the loop writes.
    """

    loop: Loop
    by_turn: Mapping[Var, np.ndarray]
    reads: Mapping[int, tuple[Equation, Mapping[Var, np.ndarray]]]
    written: tuple[_Written, ...]

    @classmethod
    def of(cls, loop: Loop, by_turn: Mapping[Var, np.ndarray]) -> _Rewritten:
        changing = {var: x for var, x in by_turn.items() if var not in loop.invars[: loop.num_constants]}
        if not changing:
            return cls(loop, by_turn, {}, ())
        invariant = _invariant_variables(loop)
        reads = {}
        for eqn in open_jaxpr(loop.body)[0].eqns:
            places = _places_read(loop, eqn, by_turn, invariant)
            if places is not None:
                reads[id(eqn)] = eqn, places
        return cls(loop, by_turn, reads, tuple(_written_arrays(loop, by_turn)))

    def apply(self, eqn: Equation, operands: list[Any]) -> list[Any]:
        """Results of the loop, which the equation is."""
        loop = self.loop
        if loop_of(eqn) == loop and not self.reads and not self.written:
            return bind(eqn, operands)
        constants, carried, scanned = loop.split(operands)
        removed = {written.number for written in self.written}
        rows = self._rows(constants)
        writers = {id(w): None for written in self.written for w in written.equations}

        def turn(carry: Any, slices: Any) -> Any:
            (of_loop, read_here), updates = slices, {}

            def apply_one(inner: Equation, values: list[Any]) -> Sequence[Any]:
                if id(inner) in writers:
                    updates[id(inner)] = values[WRITES[inner.primitive.name][0]]
                    return [None]
                return [read_here[id(inner)]] if id(inner) in read_here else bind(inner, values)

            values = iter(carry)
            whole = [None if k in removed else next(values) for k in range(loop.num_carried)]
            results = evaluate(loop.body, [*constants, *whole, *of_loop], apply_one)
            following = [x for k, x in enumerate(results[: loop.num_carried]) if k not in removed]
            return following, (results[loop.num_carried :], [updates[key] for key in writers])

        start = [jnp.asarray(x) for k, x in enumerate(carried) if k not in removed]
        last, (stacked, updates) = jax.lax.scan(turn, start, (list(scanned), rows), loop.length, reverse=loop.reverse)
        by_writer = dict(zip(writers, updates, strict=True))
        finals = {w.number: _final(w, carried[w.number], [by_writer[id(e)] for e in w.equations]) for w in self.written}
        values = iter(last)
        return [*(finals[k] if k in finals else next(values) for k in range(loop.num_carried)), *stacked]

    def _rows(self, constants: Sequence[Any]) -> dict[int, Any]:
        """For every equation that reads what it reads in all turns, ``[turns, *result]``."""
        if not self.reads:
            return {}
        body, consts = open_jaxpr(self.loop.body)
        environment: Environment = dict(zip(body.constvars, consts, strict=True))
        environment.update(zip(self.loop.invars, constants, strict=False))
        arrays = [eqn.invars[0] for eqn, _ in self.reads.values()]
        run_equations(needed_equations(_invariant_equations(self.loop), arrays), environment)
        return {
            key: _taken(eqn, read(environment, eqn.invars[0]), places, self.loop.length)
            for key, (eqn, places) in self.reads.items()
        }


def _invariant_equations(loop: Loop) -> list[Equation]:
    """The equations of a body that compute the same in every turn."""
    body, _ = open_jaxpr(loop.body)
    same = {*body.constvars, *loop.invars[: loop.num_constants]}
    equations = []
    for eqn in body.eqns:
        if not eqn.effects and all(isinstance(atom, Literal) or atom in same for atom in eqn.invars):
            equations.append(eqn)
            same.update(eqn.outvars)
    return equations


def _invariant_variables(loop: Loop) -> set[Var]:
    body, _ = open_jaxpr(loop.body)
    made = {var for eqn in _invariant_equations(loop) for var in eqn.outvars}
    return {*body.constvars, *loop.invars[: loop.num_constants], *made}


# Reads --------------------------------------------------------------------------------------------------------------


def _places_read(
    loop: Loop, eqn: Equation, by_turn: Mapping[Var, np.ndarray], invariant: set[Var]
) -> dict[Var, np.ndarray] | None:
    """The indices of an equation in all turns, by variable, where it reads a loop constant at places of the turn."""
    if eqn.primitive.name not in READS or not is_floating(dtype_of(eqn.outvars[0])):
        return None
    array, *indices = eqn.invars
    if isinstance(array, Literal) or array not in invariant or loop.length * size_of(eqn.outvars[0]) > MAX_ROWS:
        return None
    moving = [atom for atom in indices if not isinstance(atom, Literal) and atom not in invariant]
    if not moving:
        return None
    known = [atom for atom in indices if not isinstance(atom, Literal)]
    values = made_of_counters(loop.body, known, by_turn, loop.length)
    return None if values is None else dict(zip(known, values, strict=True))


def _taken(eqn: Equation, array: Any, places: Mapping[Var, np.ndarray], turns: int) -> Any:
    """What an equation reads in all turns."""
    numbers = np.arange(size_of(eqn.invars[0]), dtype=np.int32).reshape(shape_of(eqn.invars[0]))
    params = eqn.params | ({"fill_value": -1} if "fill_value" in eqn.params else {})

    def one(values: Any, indices: list[Any], params: Mapping[str, Any]) -> Any:
        by_variable = dict(zip(places, indices, strict=True))
        at = [atom.val if isinstance(atom, Literal) else by_variable[atom] for atom in eqn.invars[1:]]
        return eqn.primitive.bind(values, *map(jnp.asarray, at), **params)

    indices = list(places.values())
    taken = computed(jax.vmap(lambda *at: one(jnp.asarray(numbers), list(at), params)), *indices)
    in_order = _in_order(np.asarray(taken), array)
    return in_order if in_order is not None else jax.vmap(lambda *at: one(array, list(at), eqn.params))(*indices)


def _in_order(numbers: np.ndarray, array: Any) -> Any | None:
    """Elements of an array by number, where the first axis runs along one axis of it and nothing else is moved."""
    own = np.arange(array.size).reshape(array.shape)
    if numbers.size != own.size:
        return None
    for axis in [k for k, size in enumerate(array.shape) if size == numbers.shape[0]]:
        if np.array_equal(np.moveaxis(own, axis, 0).reshape(numbers.shape), numbers):
            return jnp.moveaxis(array, axis, 0).reshape(numbers.shape)
    return None


# Writes -------------------------------------------------------------------------------------------------------------


def _written_arrays(loop: Loop, by_turn: Mapping[Var, np.ndarray]) -> list[_Written]:
    """The carried arrays that a loop writes at places of the turn, and does not read."""
    body, _ = open_jaxpr(loop.body)
    readers: dict[Var, list[Equation | None]] = {}
    for eqn in body.eqns:
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                readers.setdefault(atom, []).append(eqn)
    for atom in body.outvars:
        if not isinstance(atom, Literal):
            readers.setdefault(atom, []).append(None)
    arrays = []
    for number in range(loop.num_carried):
        var, new = loop.invars[loop.num_constants + number], loop.outvars[number]
        equations = _writers(var, new, readers) if is_floating(dtype_of(var)) else None
        places = _places_written(loop, equations, by_turn, var) if equations else None
        if equations and places is not None:
            arrays.append(_Written(number, tuple(equations), places))
    return arrays


def _writers(old: Var, new: Any, readers: Mapping[Var, list[Equation | None]]) -> list[Equation] | None:
    """The equations that make the new value of an array from the old one, where these only write into it."""
    equations: list[Equation] = []
    while old is not new:
        (reader, *others) = readers.get(old, [None])
        if reader is None or others or reader.primitive.name not in WRITES or reader.invars[0] is not old:
            return None
        if any(dtype_of(atom) != dtype_of(old) for atom in (reader.invars[WRITES[reader.primitive.name][0]],)):
            return None
        equations.append(reader)
        old = reader.outvars[0]
    return equations if readers.get(old) == [None] else None


def _places_written(
    loop: Loop, equations: Sequence[Equation], by_turn: Mapping[Var, np.ndarray], array: Var
) -> np.ndarray | None:
    """Where the elements of an array come from after the loop, numbered as :class:`_Written` has it."""
    indices = [[a for k, a in enumerate(eqn.invars) if k in _index_operands(eqn)] for eqn in equations]
    values = made_of_counters(loop.body, [a for atoms in indices for a in atoms], by_turn, loop.length)
    sizes = [size_of(eqn.invars[WRITES[eqn.primitive.name][0]]) for eqn in equations]
    total = size_of(array) + loop.length * sum(sizes)
    if values is None or total > 2**30 or loop.length * sum(sizes) > MAX_ROWS:
        return None
    starts = np.cumsum([size_of(array), *(loop.length * size for size in sizes)])

    def turn(numbers: jax.Array, given: tuple[jax.Array, list[jax.Array]]) -> tuple[jax.Array, None]:
        number, at = given
        places = iter(at)
        for eqn, start, size in zip(equations, starts, sizes, strict=False):
            first, (update, _) = eqn.invars[0], WRITES[eqn.primitive.name]
            written = (start + number * size + jnp.arange(size, dtype=jnp.int32)).astype(jnp.int32)
            operands = [next(places) if k in _index_operands(eqn) else None for k in range(len(eqn.invars))]
            operands[0], operands[update] = numbers, written.reshape(shape_of(eqn.invars[update]))
            numbers = bind_integers(eqn, operands)
            assert numbers.shape == shape_of(first)
        return numbers, None

    def run(values: list[jax.Array]) -> jax.Array:
        start = jnp.arange(size_of(array), dtype=jnp.int32).reshape(shape_of(array))
        turns = jnp.arange(loop.length, dtype=jnp.int32)
        return jax.lax.scan(turn, start, (turns, values), reverse=loop.reverse)[0]

    return np.asarray(computed(run, values))


def bind_integers(eqn: Equation, operands: Sequence[Any]) -> Any:
    return eqn.primitive.bind(*operands, **eqn.params)


def _index_operands(eqn: Equation) -> range:
    _, first = WRITES[eqn.primitive.name]
    return range(first, first + 1) if eqn.primitive.name == "scatter" else range(first, len(eqn.invars))


def _final(written: _Written, start: Any, updates: Sequence[Any]) -> Any:
    """The array after the loop, from its value before and the updates of all turns."""
    start = jnp.asarray(start)
    ends = np.cumsum([start.size, *(update.size for update in updates)])
    # The usual history: one axis of it is time, and what is along it are whole values before the loop or of a turn.
    for axis in range(start.ndim):
        numbers = np.moveaxis(written.places, axis, 0)
        if any(update[0].size != numbers[0].size for update in updates):
            continue
        before = np.moveaxis(np.arange(start.size).reshape(start.shape), axis, 0)
        of_turns = [np.arange(*bounds).reshape(-1, *before.shape[1:]) for bounds in itertools.pairwise(ends)]
        rows = _rows_at(np.concatenate([before, *of_turns]), numbers)
        if rows is not None:
            values = [jnp.moveaxis(start, axis, 0), *(update.reshape(-1, *before.shape[1:]) for update in updates)]
            return jnp.moveaxis(_picked_rows(values, rows), 0, axis)
    return jnp.concatenate([start.reshape(-1), *(update.reshape(-1) for update in updates)])[written.places]


def _rows_at(candidates: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """Which of the candidates each row is; None where one is no whole candidate."""
    if not rows.size:
        return None
    number = {first: k for k, first in enumerate(candidates.reshape(len(candidates), -1)[:, 0].tolist())}
    at = np.array([number.get(first, -1) for first in rows.reshape(len(rows), -1)[:, 0].tolist()])
    return at if (at >= 0).all() and np.array_equal(candidates[at], rows) else None


def _picked_rows(values: Sequence[Any], rows: np.ndarray) -> Any:
    """These rows of several arrays put together."""
    starts = np.cumsum([0, *map(len, values)])
    for value, start in zip(values, starts, strict=False):
        if np.array_equal(rows, np.arange(start, start + len(value))):
            return value
    return jnp.concatenate(values)[rows]
