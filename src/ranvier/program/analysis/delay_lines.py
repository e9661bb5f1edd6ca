"""Ring buffers that a counter addresses, as delay lines.

A step that writes slot ``k % D`` of a buffer and reads slot ``(k - d) % D`` moves nothing, but every step goes to
another slot. Seen from the counter, the slots stand still and their contents move: with
``line[j] = buffer[(k + j) % D]`` the step reads and writes at constant places, and ``line`` is turned by one place
before the next step. That is the same delay line as with ``roll`` or ``concatenate``, whose D is constant.

With D = 3 and d = 2 the step writes place 0 of the line and reads place 1, for k - 2 and k + 1 are the same modulo 3.
Then the line is turned by 1: what was written at place 0 is at place 2 in the next step and at place 1, where it is
read, in the one after.

It needs that all indices are congruent to ``k + offset`` modulo D, entry by entry (:class:`Residues`), and stay within
the buffer (:func:`.addressing.bounded_indices`). Other buffers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import Atom, Equation, Literal, Var, bind, dtype_of, shape_of
from ..interpret import Environment, needed_equations, run_equations
from ..normalize import normalize
from ..primitives import rule_of
from ..program import ModuleInfo
from .addressing import bounded_indices, index_operands, is_integer
from .binding_time import BindingTimes, binding_times_of
from .cache import cached_by_program
from .positions import MAX_COMPONENTS


@dataclass(frozen=True, eq=False)
class Residues:
    """Integers modulo D: entry by entry either a constant, or ``counter + offset``.

    Attributes:
        counted: whether the counter is part of an entry.
        offset: the constant, or the offset.
    """

    counted: np.ndarray
    offset: np.ndarray

    @property
    def is_constant(self) -> bool:
        return not self.counted.any()


@dataclass(frozen=True, eq=False)
class DelayLine:
    """A hidden state that is a ring buffer.

    Attributes:
        state: index of the hidden state.
        axis: the axis along which the slots are.
        counter: index of the leaf among other states that counts.
        start: value of the counter before the first step.
        turn: places by which the line moves on with every step.
        places: by ``id`` of an equation that reads or writes it, constant values for its indices.
    """

    state: int
    axis: int
    counter: int
    start: int
    turn: int
    places: dict[int, dict[int, np.ndarray]]


@cached_by_program
def with_delay_lines(info: ModuleInfo) -> ModuleInfo:
    """The program with the slots of its ring buffers in the order of the counter; itself where there are none.

    Hidden states keep their names and shapes; those of ring buffers hold their slots in another order.
    """
    lines = delay_lines_of(info)
    if not lines:
        return info
    places = {key: place for line in lines for key, place in line.places.items()}

    # The equations stay; only the indices that go with the counter are replaced by places of the line.
    def apply(eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        for k, value in places.get(id(eqn), {}).items():
            operands[k] = jnp.asarray(value, dtype_of(eqn.invars[k]))
        return bind(eqn, operands)

    def step(*operands: Any) -> list[Any]:
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        environment.update(zip(info.jaxpr.invars, operands, strict=True))
        run_equations(info.equations, environment, apply)
        results = [jnp.asarray(a.val if isinstance(a, Literal) else environment[a]) for a in info.jaxpr.outvars]
        for line in lines:
            at = len(info.output_outvars) + line.state
            results[at] = jnp.roll(results[at], -line.turn, line.axis)
        return results

    first = len(info.output_outvars)
    closed = normalize(step, [var.aval for var in info.jaxpr.invars], slice(first, first + len(info.hidden)))
    hidden = list(info.hidden)
    # A counter that starts at 2 sees slot 2 of the initial buffer as place 0 of the line.
    for line in lines:
        slot = hidden[line.state]
        turned = tuple(jnp.roll(leaf, -line.start, line.axis) for leaf in slot.initial)
        hidden[line.state] = replace(slot, initial=turned)
    return replace(info, closed_jaxpr=closed, hidden=tuple(hidden))


def delay_lines_of(info: ModuleInfo) -> list[DelayLine]:
    """The hidden states that are ring buffers addressed by one counter."""
    binding_times = binding_times_of(info)
    first_lines = []
    for state, var in enumerate(info.hidden_invars):
        # Sizes and counters are tried one after the other; what is never addressed by index is not tried at all.
        sizes = {size for size in shape_of(var) if 1 < size <= MAX_COMPONENTS}
        counters = _counters(info) if sizes and _is_addressed(info, var) else ()
        tries = ((size, counter) for size in sorted(sizes) for counter in counters)
        lines = (_delay_line(info, binding_times, state, size, counter) for size, counter in tries)
        first_lines += [line for line in lines if line is not None][:1]
    return first_lines


def _counters(info: ModuleInfo) -> list[int]:
    """Indices of the leaves of other states that are one changing integer, wide enough not to overflow."""
    pairs = enumerate(zip(info.other_invars, info.other_outvars, strict=True))
    changing = [(n, var) for n, (var, new) in pairs if new is not var and is_integer(var) and not shape_of(var)]
    return [n for n, var in changing if dtype_of(var).itemsize >= 4]


def _is_addressed(info: ModuleInfo, var: Var) -> bool:
    """Whether anything is read from a state, or what it is moved to, by index."""
    moved = {var}
    for eqn in info.equations:
        if not isinstance(eqn.invars[0] if eqn.invars else None, Var) or eqn.invars[0] not in moved:
            continue
        if rule_of(eqn.primitive).index_operands is not None:
            return True
        if eqn.primitive.name in MOVED_WHOLE:
            moved.update(eqn.outvars)
    return False


MOVED_WHOLE = ("copy", "transpose")
"""Equations that leave the slots of a ring buffer whole."""


def _delay_line(info: ModuleInfo, binding_times: BindingTimes, state: int, size: int, counter: int) -> DelayLine | None:
    """A state as a delay line of a size along one axis, seen from a counter; None where it is not one."""
    start = int([leaf for slot in info.other for leaf in slot.initial][counter])
    seen = _Seen.of(info, binding_times, counter, start, size)
    advanced = seen.residue(info.other_outvars[counter])
    if advanced is None or not advanced.counted.all():
        return None
    var, new = info.hidden_invars[state], info.hidden_outvars[state]
    for axis in [a for a, n in enumerate(shape_of(var)) if n == size]:
        places = _constant_places(info, seen, var, new, axis)
        if places:
            return DelayLine(state, axis, counter, start, int(advanced.offset) % size, places)
    return None


def _constant_places(
    info: ModuleInfo, seen: _Seen, old: Var, new: Var, axis: int
) -> dict[int, dict[int, np.ndarray]] | None:
    """For every equation that reads or writes the buffer the indices as seen from the counter.

    None where the buffer, or its slots, are used in another way.
    """
    axes, places = {old: axis}, {}
    for eqn in info.equations:
        buffers = [k for k, atom in enumerate(eqn.invars) if not isinstance(atom, Literal) and atom in axes]
        if not buffers:
            continue
        # The buffer as an index, as an update, or twice in one equation: no place of a line says what happens there.
        if buffers != [0]:
            return None
        along = axes[eqn.invars[0]]
        if eqn.primitive.name in MOVED_WHOLE:
            order = eqn.params.get("permutation", range(len(shape_of(eqn.invars[0]))))
            axes[eqn.outvars[0]] = list(order).index(along)
            continue
        place = _place(eqn, seen, along)
        if place is None:
            return None
        places[id(eqn)] = place
        if eqn.primitive.name in WRITES:
            axes[eqn.outvars[0]] = along
    # Who sees the whole buffer sees the order of its slots, and that is another one in the line.
    used_whole = [
        atom for atom in (*info.output_outvars, *info.other_outvars) if isinstance(atom, Var) and atom in axes
    ]
    moved = any(var is not new and atom is var for atom in info.hidden_outvars for var in axes)
    return places if axes.get(new) == axis and not used_whole and not moved else None


WRITES = ("scatter", "scatter-add", "scatter-sub", "dynamic_update_slice")


def _place(eqn: Equation, seen: _Seen, along: int) -> dict[int, np.ndarray] | None:
    """The indices of an equation with the counter taken to be zero, for a buffer with its slots along an axis."""
    operands = index_operands(eqn)
    known = {k: residue for k in operands if (residue := seen.residue(eqn.invars[k])) is not None}
    if not operands or len(known) < len(operands) or not _addresses_slots(eqn, known, along):
        return None
    if not seen.stays_inside(eqn, known):
        return None
    return {k: np.where(r.counted, r.offset % seen.size, r.offset) for k, r in known.items()}


def _addresses_slots(eqn: Equation, known: dict[int, Residues], along: int) -> bool:
    """Whether the counter decides the slot and nothing else, one slot at a time.

    A constant place along the axis of the slots is no place of the delay line.
    """
    shape, name = shape_of(eqn.invars[0]), eqn.primitive.name
    if name in ("dynamic_slice", "dynamic_update_slice"):
        window = eqn.params["slice_sizes"] if name == "dynamic_slice" else shape_of(eqn.invars[1])
        columns = {axis: residue.counted for axis, residue in enumerate(known.values())}
        taken = window[along]
    else:
        numbers = eqn.params["dimension_numbers"]
        (residue,) = known.values()
        order = numbers.start_index_map if name == "gather" else numbers.scatter_dims_to_operand_dims
        columns = {axis: residue.counted[..., n] for n, axis in enumerate(order)}
        inserted = numbers.collapsed_slice_dims if name == "gather" else numbers.inserted_window_dims
        taken = 1 if along in inserted else shape[along]
    others = [counted.any() for axis, counted in columns.items() if axis != along]
    return taken == 1 and along in columns and bool(columns[along].all()) and not any(others)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Integers of a step as seen from a counter.

    A counter that comes back to where it was takes few values, and what is made of it is computed for each. One that
    goes on for ever is followed through the equations.

    Attributes:
        info: the program.
        binding_times: what is known of its variables.
        counter: variable of the counter.
        size: D.
        orbit: all values of the counter; none where it goes on.
        residues: by variable, for a counter that goes on.
    """

    info: ModuleInfo
    binding_times: BindingTimes
    counter: Var
    size: int
    orbit: np.ndarray
    residues: dict[Var, Residues]

    @classmethod
    def of(cls, info: ModuleInfo, binding_times: BindingTimes, counter: int, start: int, size: int) -> _Seen:
        var = info.other_invars[counter]
        orbit = _orbit(info, binding_times, counter, start)
        return cls(
            info, binding_times, var, size, orbit, {} if orbit.size else residues_of(info, binding_times, var, size)
        )

    def residue(self, atom: Atom) -> Residues | None:
        """An integer as a constant or the counter with an offset, entry by entry; None where it is neither."""
        if not self.orbit.size:
            return _residue(atom, self.residues, self.binding_times)
        if not is_integer(atom) or isinstance(atom, Literal) or self.binding_times.is_static(atom):
            return _residue(atom, {}, self.binding_times)
        values = _at_values(self.info, self.binding_times, atom, self.counter, self.orbit)
        if values is None:
            return None
        offsets = (values - self.orbit.reshape(-1, *[1] * (values.ndim - 1))) % self.size
        constant = (values == values[0]).all(0)
        counted = ~constant & (offsets == offsets[0]).all(0) & ((values >= 0) & (values < self.size)).all(0)
        return Residues(counted, np.where(counted, offsets[0], values[0])) if (constant | counted).all() else None

    def stays_inside(self, eqn: Equation, known: dict[int, Residues]) -> bool:
        """Whether the indices that the counter is part of are always places of the buffer."""
        if self.orbit.size or all(residue.is_constant for residue in known.values()):
            return True  # values on an orbit have been looked at one by one
        choices = bounded_indices(eqn, list(known), self.binding_times.constant_value, self.binding_times.producers)
        return choices is not None and all(
            ((choice[k] >= 0) & (choice[k] < self.size))[residue.counted].all()
            for choice in choices
            for k, residue in known.items()
        )


def _orbit(info: ModuleInfo, binding_times: BindingTimes, counter: int, start: int) -> np.ndarray:
    """All values that a counter takes, in order; none where they are many, or where other data change it."""
    var, new = info.other_invars[counter], info.other_outvars[counter]
    following = _function_of(info, binding_times, new, var)
    if following is None:
        return np.zeros(0, np.int64)
    run, values = jax.jit(following), [start]
    # Twice the longest line: a counter may go around more than once before it comes back.
    while len(values) <= 2 * MAX_COMPONENTS:
        value = int(run(jnp.asarray(values[-1], dtype_of(var))))
        if value in values:
            return np.array(values)
        values.append(value)
    return np.zeros(0, np.int64)


def _at_values(
    info: ModuleInfo, binding_times: BindingTimes, atom: Var, counter: Var, values: np.ndarray
) -> np.ndarray | None:
    """A variable at these values of a counter, ``[values, *shape]``; None where it is made of other data too."""
    function = _function_of(info, binding_times, atom, counter)
    if function is None:
        return None
    return np.asarray(jax.jit(jax.vmap(function))(jnp.asarray(values, dtype_of(counter)))).astype(np.int64)


def _function_of(
    info: ModuleInfo, binding_times: BindingTimes, atom: Atom, counter: Var
) -> Callable[[Any], Any] | None:
    """A variable as a function of a counter; None where it is made of other data too."""
    bit = binding_times.bits[counter]
    if isinstance(atom, Literal) or binding_times.sources[atom] & ~bit:
        return None
    made = [
        eqn
        for eqn in info.equations
        if not eqn.effects and not any(binding_times.sources[v] & ~bit for v in eqn.outvars)
    ]
    equations = needed_equations(made, [atom])

    def function(value: Any) -> Any:
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        environment[counter] = value
        run_equations(equations, environment)
        return environment[atom]

    return function


def residues_of(info: ModuleInfo, binding_times: BindingTimes, counter: Var, size: int) -> dict[Var, Residues]:
    """What integers of a step are modulo a size, as far as they are constants or the counter with an offset."""
    residues = {counter: Residues(np.ones((), bool), np.zeros((), np.int64))}
    for eqn in info.equations:
        if len(eqn.outvars) != 1 or not is_integer(eqn.outvars[0]):
            continue
        known = [_residue(atom, residues, binding_times) for atom in eqn.invars]
        # Constants only make constants, whose values are known already; but "x and 0" is 0 for an x that is not known.
        if all(residue is None or residue.is_constant for residue in known) and eqn.primitive.name != "and":
            continue
        result = _combined(eqn, known, size)
        if result is not None:
            residues[eqn.outvars[0]] = result
    return residues


def _residue(atom: Atom, residues: dict[Var, Residues], binding_times: BindingTimes) -> Residues | None:
    if not isinstance(atom, Literal) and atom in residues:
        return residues[atom]
    value = binding_times.constant_value(atom) if is_integer(atom) else None
    return None if value is None else Residues(np.zeros(value.shape, bool), value.astype(np.int64))


def _combined(eqn: Equation, known: list[Residues | None], size: int) -> Residues | None:
    """The residues of a result; None where they are neither constant nor the counter with an offset."""
    name = eqn.primitive.name
    if name == "select_n":
        return _selected(known, size)
    if name == "and":
        off = [x for x in known if x is not None and x.is_constant and not x.offset.any()]
        return off[0] if off else None
    operands = [x for x in known if x is not None]
    if len(operands) < len(known):
        return None
    if name in ("add", "sub"):
        return _sum(*operands, sign=1 if name == "add" else -1)
    if name in ("rem", "div"):
        return _quotient(eqn, operands, size)
    if name == "ne" and all(x.is_constant for x in operands):
        return _constant(operands[0].offset != operands[1].offset)
    if name in ("copy", "stop_gradient") or (name == "convert_element_type" and _keeps_integers(eqn)):
        return operands[0]
    move = rule_of(eqn.primitive).move
    if move is None:
        return None
    shape = shape_of(eqn.outvars[0])
    counted, offset = move(eqn.params, [x.counted for x in operands]), move(eqn.params, [x.offset for x in operands])
    return Residues(counted.reshape(shape), offset.reshape(shape))


def _constant(value: np.ndarray) -> Residues:
    return Residues(np.zeros(value.shape, bool), value.astype(np.int64))


def _sum(a: Residues, b: Residues, sign: int) -> Residues | None:
    """Sum or difference, in which the counter must be once or, on one side only, not at all."""
    counted = a.counted.astype(int) + sign * b.counted.astype(int)
    if (a.counted & b.counted).any() or (counted < 0).any():
        return None
    return Residues(counted == 1, a.offset + sign * b.offset)


def _quotient(eqn: Equation, operands: list[Residues], size: int) -> Residues | None:
    """A remainder by a multiple of D, or the remainder and the quotient of a division by one."""
    value, divisor = operands
    if not divisor.is_constant:
        return None
    if (divisor.offset == 1).all():
        return value if eqn.primitive.name == "div" else _constant(np.zeros(shape_of(eqn.outvars[0])))
    is_multiple = (divisor.offset != 0) & (divisor.offset % size == 0)
    return value if eqn.primitive.name == "rem" and is_multiple.all() and value.counted.all() else None


def _keeps_integers(eqn: Equation) -> bool:
    """Whether a conversion changes no integer, negative ones among them."""
    before, after = dtype_of(eqn.invars[0]), dtype_of(eqn.outvars[0])
    return np.can_cast(before, after) or (before.kind == after.kind == "i" and after.itemsize >= 4)


def _selected(known: list[Residues | None], size: int) -> Residues | None:
    """One of several values: the one that a constant picks, or what they have in common."""
    which, *cases = known
    if which is not None and which.is_constant and (which.offset == which.offset.reshape(-1)[0]).all():
        return cases[int(which.offset.reshape(-1)[0])]
    if any(case is None for case in cases):
        return None
    first, *rest = (case for case in cases if case is not None)
    for case in rest:
        same = np.where(first.counted, (first.offset - case.offset) % size == 0, first.offset == case.offset)
        if not (same & (first.counted == case.counted)).all():
            return None
    return first
