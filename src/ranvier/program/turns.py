"""Integers of a loop whose value in every turn is known beforehand.

``fori_loop(0, 4, lambda i, v: ..., v)`` carries a counter i that is [0, 1, 2, 3] in its four turns, whatever the data
are, and so does a ``scan`` over ``arange(4)``. What the body makes of it, such as ``(i + 1) % 3``, is known too:
[1, 2, 0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from ._jax import Equation, Literal, Var, dtype_of, is_floating, is_key, is_literal, open_jaxpr, shape_of, variables_of
from .bodies import Loop, bodies, loop_of
from .folding import run_known
from .interpret import Environment, needed_equations, read, run_equations

MAX_TURNS = 2**16
"""Loops of more turns are not looked at turn by turn."""

Integers = dict[Var, np.ndarray]
"""Variables to their values; in a body with one value for every turn, ``[turns, *shape]``."""


def known_integers(closed: Any, known: Mapping[Var, np.ndarray]) -> Integers:
    """The integers of a jaxpr that are constants, by variable.

    Args:
        closed: the jaxpr.
        known: those of its operands that are.
    """
    jaxpr, consts = open_jaxpr(closed)
    values: Environment = dict(known)
    values.update((var, value) for var, value in zip(jaxpr.constvars, consts, strict=True) if is_integer(var))
    for eqn in jaxpr.eqns:
        if _counts(eqn) and all(is_literal(atom) or atom in values for atom in eqn.invars):
            if eqn.primitive.name == "iota":
                values[eqn.outvars[0]] = _iota(eqn)
            else:
                run_known([eqn], values)
    return {var: np.asarray(value) for var, value in values.items()}


def value_of(atom: Any, known: Mapping[Var, np.ndarray]) -> np.ndarray | None:
    """The value of an integer that is known."""
    if isinstance(atom, Literal):
        return np.asarray(atom.val) if is_integer(atom) else None
    return known.get(atom)


def is_integer(atom: Any) -> bool:
    return not is_key(dtype_of(atom)) and not is_floating(dtype_of(atom))


def _counts(eqn: Equation) -> bool:
    plain = not eqn.effects and not bodies(eqn) and len(eqn.outvars) == 1
    return plain and all(is_integer(atom) for atom in (*eqn.invars, *eqn.outvars))


def _iota(eqn: Equation) -> np.ndarray:
    shape, axis = eqn.params["shape"], eqn.params["dimension"]
    along = [size if k == axis else 1 for k, size in enumerate(shape)]
    return np.broadcast_to(np.arange(shape[axis], dtype=eqn.params["dtype"]).reshape(along), shape)


def integers_by_turn(loop: Loop, operands: Sequence[np.ndarray | None]) -> Integers:
    """The integer operands of a loop's body whose value in every turn is known, ``[turns, *shape]``.

    The values are in the order of the slices: those of a loop that takes the last slice first are last first too.

    Args:
        loop: a loop with a fixed number of turns.
        operands: for every operand of the equation its value where it is a known integer.
    """
    if not 0 < loop.length <= MAX_TURNS:
        return {}
    constants, starts, scanned = loop.split(list(operands))
    variables = list(loop.invars)
    first = loop.num_constants + loop.num_carried
    slices = {var: x for var, x in zip(variables[first:], scanned, strict=True) if x is not None}
    fixed = {var: x for var, x in zip(variables, constants, strict=False) if x is not None}
    carried = variables[loop.num_constants : first]
    counters = {
        k: x for k, (var, x) in enumerate(zip(carried, starts, strict=True)) if x is not None and is_integer(var)
    }
    equations = _equations_of_counters(loop, carried, counters, {*slices, *fixed})
    by_turn = {var: np.broadcast_to(x, (loop.length, *x.shape)) for var, x in fixed.items()} | slices
    by_turn.update(_run(loop, carried, counters, equations, fixed, slices))
    return by_turn


def _equations_of_counters(
    loop: Loop, carried: Sequence[Var], counters: dict[int, np.ndarray], known: set[Var]
) -> list[Equation]:
    """The equations of a turn that compute the next values of counters; takes away what is made of other data too."""
    body, _ = open_jaxpr(loop.body)
    while True:
        following = [loop.outvars[k] for k in counters]
        equations = needed_equations([eqn for eqn in body.eqns if not eqn.effects], following)
        made = {var for eqn in equations for var in eqn.outvars}
        open_ = made | known | {carried[k] for k in counters} | set(body.constvars)
        unknown = {var for eqn in equations for var in variables_of(eqn.invars)} - open_
        unknown |= set(variables_of(following)) - open_
        if not unknown:
            return equations
        # A counter that reads what is no counter is none itself, and neither is what reads that one.
        dropped = [k for k in counters if _reads(equations, loop.outvars[k], unknown)]
        for k in dropped:
            del counters[k]


def _reads(equations: Sequence[Equation], result: Any, variables: set[Var]) -> bool:
    needed = needed_equations(equations, [result])
    read_here = {var for eqn in needed for var in variables_of(eqn.invars)} | set(variables_of([result]))
    return not variables.isdisjoint(read_here)


def _run(
    loop: Loop,
    carried: Sequence[Var],
    counters: Mapping[int, np.ndarray],
    equations: Sequence[Equation],
    fixed: Mapping[Var, np.ndarray],
    slices: Mapping[Var, np.ndarray],
) -> Integers:
    """The values of counters in all turns."""
    if not counters:
        return {}
    steps = {k: step for k in counters if (step := _constant_step(loop, carried[k], k)) is not None}
    if len(steps) == len(counters):
        order = np.arange(loop.length)[::-1] if loop.reverse else np.arange(loop.length)
        return {carried[k]: (start + order * steps[k]).astype(start.dtype) for k, start in counters.items()}
    body, consts = open_jaxpr(loop.body)

    def turn(values: list[jax.Array], of_turn: list[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        environment: Environment = dict(zip(body.constvars, consts, strict=True)) | dict(fixed)
        environment.update(zip(slices, of_turn, strict=True))
        environment.update(zip([carried[k] for k in counters], values, strict=True))
        run_equations(equations, environment)
        following = [jax.numpy.asarray(read(environment, loop.outvars[k])) for k in counters]
        return following, values

    def run(values: list[jax.Array], rows: list[jax.Array]) -> list[jax.Array]:
        return jax.lax.scan(turn, values, rows, loop.length, reverse=loop.reverse)[1]

    start = [np.asarray(x, dtype_of(carried[k])) for k, x in counters.items()]
    values = computed(run, start, list(slices.values()))
    return {carried[k]: np.asarray(x) for k, x in zip(counters, values, strict=True)}


def _constant_step(loop: Loop, counter: Var, number: int) -> int | None:
    """By how much a scalar counter grows in every turn, where that is a literal in the equation that computes it."""
    new = loop.outvars[number]
    if shape_of(counter) or new is counter:
        return 0 if new is counter else None
    made = next((eqn for eqn in open_jaxpr(loop.body)[0].eqns if new in eqn.outvars), None)
    if made is None or made.primitive.name not in ("add", "sub") or made.invars[0] is not counter:
        return None
    step = made.invars[1]
    sign = 1 if made.primitive.name == "add" else -1
    return sign * int(step.val) if isinstance(step, Literal) else None


def made_of_counters(
    closed: Any, outputs: Sequence[Any], by_turn: Mapping[Var, np.ndarray], turns: int
) -> list[np.ndarray] | None:
    """Values in all turns, ``[turns, *shape]``, of variables of a body; None where other data take part.

    Args:
        closed: the body.
        outputs: variables or literals of it.
        by_turn: its operands that are known in every turn.
        turns: how many there are.
    """
    body, consts = open_jaxpr(closed)
    equations = needed_equations([eqn for eqn in body.eqns if not eqn.effects], outputs)
    made = {var for eqn in equations for var in eqn.outvars} | set(body.constvars)
    read_here = {var for eqn in equations for var in variables_of(eqn.invars)} | set(variables_of(outputs))
    needed = [var for var in read_here if var not in made]
    if any(var not in by_turn for var in needed):
        return None

    def one(values: list[jax.Array]) -> list[jax.Array]:
        environment: Environment = dict(zip(body.constvars, consts, strict=True))
        environment.update(zip(needed, values, strict=True))
        run_equations(equations, environment)
        return [jax.numpy.asarray(read(environment, atom)) for atom in outputs]

    if not needed:
        return [np.broadcast_to(x, (turns, *np.shape(x))) for x in computed(one, [])]
    return [np.asarray(x) for x in computed(jax.vmap(one), [by_turn[var] for var in needed])]


def computed(function: Any, *operands: Any) -> Any:
    """The results of a function of concrete arrays, also while JAX is tracing."""
    lowered = jax.jit(function).lower(*operands)
    return lowered.compile()(*operands)


def number_of_turns(eqn: Equation, operands: Sequence[np.ndarray | None]) -> int | None:
    """How many turns a ``while`` takes, where counters alone decide that; None where data do, or for very many.

    Args:
        eqn: the ``while``.
        operands: for every operand its value where it is a known integer.
    """
    loop = loop_of(eqn)
    most = Loop(loop.body, MAX_TURNS, False, loop.first, loop.num_constants, loop.num_carried)
    by_turn = integers_by_turn(most, operands)
    condition, _ = open_jaxpr(loop.condition)
    known = {
        var: np.broadcast_to(x, (MAX_TURNS, *x.shape))
        for var, x in zip(condition.invars, operands[: loop.first], strict=False)
        if x is not None
    }
    carried = zip(condition.invars[loop.first :], loop.invars[loop.num_constants :], strict=True)
    known |= {var: by_turn[of_body] for var, of_body in carried if of_body in by_turn}
    goes_on = made_of_counters(loop.condition, condition.outvars, known, MAX_TURNS)
    if goes_on is None or goes_on[0].all():
        return None
    return int(np.argmin(goes_on[0]))
