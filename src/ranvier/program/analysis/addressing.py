"""The places that an equation can read or write when its indices change from step to step.

A ring buffer is addressed by a counter: the slot that is written changes with every step, but is one of few. Each of
these choices moves every value to one place, so all of them together say which elements can depend on which, and a
derivative taken with the step's own indices picks the right one.

The choices come from the *roots* of the indices: the integers from which only arithmetic and moves lead to them. Where
every root is known to take few values (a remainder by a constant, a clipped number), the indices are computed for each.
Otherwise one open coordinate of the indices may take any place along its axis.

``buffer[(k + 1) % 3]`` has one root, the remainder of k + 1 by 3, which takes the values -2 to 2. The two further steps
of ``%``, which add 3 to a negative remainder, turn them into the choices 0, 1 and 2. Of ``buffer[k]`` the root is k
itself, which may be anything; but the buffer has the places 0, 1 and 2 along that axis, and these are the choices.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from .._jax import Atom, Equation, Literal, Var, dtype_of, is_key, shape_of
from ..interpret import Environment, read, run_equations
from ..primitives import Kind, rule_of

Indices = dict[int, np.ndarray]
"""Values of the operands that are indices, by number of the operand."""

ConstantValue = Callable[[Atom], np.ndarray | None]

MOST_CHOICES = 16
"""More places than this are not distinguished: each is a component of D at every position."""

MOST_COMBINATIONS = 1024
"""Combinations of root values that are tried."""


def possible_indices(
    eqn: Equation,
    operands: Sequence[int],
    constant_value: ConstantValue,
    producers: Mapping[Var, Equation],
    most_along: Callable[[int], int] = lambda axis: MOST_CHOICES,
) -> list[Indices] | None:
    """All values that the indices of an equation can have, as far as they lead to places inside the array.

    Args:
        eqn: an equation that reads or writes at indices.
        operands: numbers of the operands that are indices.
        constant_value: gives the value of constants.
        producers: variable to the equation that computes it.
        most_along: how many places are distinguished along an axis of the array.

    Returns:
        The distinct choices; None where they are too many or not known.
    """
    indices = bounded_indices(eqn, operands, constant_value, producers)
    if indices and len(indices) <= MOST_CHOICES:
        return indices
    origin, atoms = _origin_of(eqn, operands, constant_value, producers)
    choices = None if origin is None else _by_axis(eqn, origin, atoms, most_along)
    by_axis = _distinct(choices or (), operands)
    # A step may bound the indices without naming a few places: a remainder by 100 in a buffer of 100, say.
    return by_axis or None


def bounded_indices(
    eqn: Equation, operands: Sequence[int], constant_value: ConstantValue, producers: Mapping[Var, Equation]
) -> list[Indices] | None:
    """As :func:`possible_indices`, where the step itself bounds the indices: all values that they ever have."""
    origin, atoms = _origin_of(eqn, operands, constant_value, producers)
    choices = None if origin is None else _by_roots(origin, atoms)
    return None if choices is None else _distinct(choices, operands)


def index_operands(eqn: Equation) -> list[int]:
    """Numbers of the operands that address positions; none where the equation has no such."""
    first = rule_of(eqn.primitive).index_operands
    if first is None:
        return []
    return [1] if eqn.primitive.name.startswith("scatter") else list(range(first, len(eqn.invars)))


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What the equations of a step say about the integers that they compute."""

    constant_value: ConstantValue
    producers: Mapping[Var, Equation]

    def is_root(self, atom: Var) -> bool:
        """Whether an integer is followed no further back."""
        eqn = self.producers.get(atom)
        if eqn is None or self.range_of(eqn) is not None or not _is_counted(eqn):
            return True
        # A flag has two values; integers that it is made of may have too many.
        return dtype_of(atom) == np.bool_ and not self._is_bounded(atom)

    def values_of_root(self, atom: Var) -> range | None:
        """The values that a root can take; None where nothing bounds them."""
        if dtype_of(atom) == np.bool_:
            return range(2)
        eqn = self.producers.get(atom)
        return None if eqn is None else self.range_of(eqn)

    def _is_bounded(self, atom: Atom) -> bool:
        """Whether all that an integer is made of takes few values."""
        if isinstance(atom, Literal) or self.constant_value(atom) is not None:
            return True
        eqn = self.producers.get(atom)
        if eqn is None or self.range_of(eqn) is not None:
            return eqn is not None
        return _is_counted(eqn) and all(map(self._is_bounded, eqn.invars))

    def range_of(self, eqn: Equation) -> range | None:
        """The values that a result can take, where the equation itself bounds them."""
        name, out = eqn.primitive.name, eqn.outvars[0]
        if name in ("argmax", "argmin"):
            return range(int(np.prod([shape_of(eqn.invars[0])[axis] for axis in eqn.params["axes"]])))
        if name == "rem" and (bound := self._number(eqn.invars[1])):
            return range(0 if np.issubdtype(dtype_of(out), np.unsignedinteger) else 1 - abs(bound), abs(bound))
        if name == "clamp":
            low, high = self._number(eqn.invars[0]), self._number(eqn.invars[2])
            return None if low is None or high is None else range(low, high + 1)
        masks = [self._number(a) for a in eqn.invars] if name == "and" else []
        bounds = [mask for mask in masks if mask is not None and mask >= 0]
        return range(min(bounds) + 1) if bounds else None

    def _number(self, atom: Atom) -> int | None:
        """The one integer that a constant holds everywhere."""
        value = self.constant_value(atom) if is_integer(atom) else None
        if value is None or not value.size or (value != value.reshape(-1)[0]).any():
            return None
        return int(value.reshape(-1)[0])


def _origin_of(
    eqn: Equation, operands: Sequence[int], constant_value: ConstantValue, producers: Mapping[Var, Equation]
) -> tuple[_Origin | None, list[Atom]]:
    """How the indices of an equation come about, None where they are no integers; and the indices."""
    atoms = [eqn.invars[k] for k in operands]
    if not all(isinstance(atom, Literal) or is_integer(atom) for atom in atoms):
        return None, atoms
    bounds = _Bounds(constant_value, producers)
    equations: dict[int, Equation] = {}
    roots: dict[Var, range | None] = {}
    constants: dict[Var, np.ndarray] = {}

    def add(atom: Atom) -> None:
        if isinstance(atom, Literal) or atom in roots or atom in constants:
            return
        if (value := constant_value(atom)) is not None:
            constants[atom] = value
        elif bounds.is_root(atom):
            roots[atom] = bounds.values_of_root(atom)
        elif id(producers[atom]) not in equations:
            # Operands first, so that the equations can be run in the order in which they are added.
            for operand in producers[atom].invars:
                add(operand)
            equations[id(producers[atom])] = producers[atom]

    for atom in atoms:
        add(atom)
    return _Origin(tuple(equations.values()), roots, constants), atoms


@dataclass(frozen=True, eq=False)
class _Origin:
    """How indices come about.

    Attributes:
        equations: the equations that compute them, in order.
        roots: the integers that these start from, with the values that each can take; None where they are not bounded.
        constants: the values of the constants that these read.
    """

    equations: tuple[Equation, ...]
    roots: Mapping[Var, range | None]
    constants: Mapping[Var, np.ndarray]

    def computed(self, atoms: Sequence[Atom], values: Mapping[Var, np.ndarray]) -> list[np.ndarray]:
        """The indices for several values of the roots, each ``[choices, *shape]``."""

        def one(roots: list[jax.Array]) -> list[jax.Array]:
            environment: Environment = dict(self.constants)
            environment.update(zip(values, roots, strict=True))
            run_equations(self.equations, environment)
            return [jax.numpy.asarray(read(environment, atom)) for atom in atoms]

        with jax.ensure_compile_time_eval():
            return [np.asarray(index) for index in jax.jit(jax.vmap(one))(list(values.values()))]

    def open_entries(self, atoms: Sequence[Atom]) -> list[np.ndarray]:
        """Which entries of the indices are made of roots."""
        entries: Environment = {var: np.zeros(shape_of(var), bool) for var in self.constants}
        entries.update({var: np.ones(shape_of(var), bool) for var in self.roots})

        def of(atom: Atom) -> np.ndarray:
            return np.zeros(shape_of(atom), bool) if isinstance(atom, Literal) else entries[atom]

        for eqn in self.equations:
            operands = [of(atom) for atom in eqn.invars]
            move = rule_of(eqn.primitive).move
            for out in eqn.outvars:
                if rule_of(eqn.primitive).kind is Kind.ELEMENTWISE:
                    spread = [np.broadcast_to(x, shape_of(out)) for x in operands]
                    entries[out] = np.logical_or.reduce(spread)
                elif move is not None:
                    entries[out] = move(eqn.params, operands).reshape(shape_of(out))
                else:
                    entries[out] = np.full(shape_of(out), any(x.any() for x in operands))
        return [of(atom) for atom in atoms]


def is_integer(atom: Atom) -> bool:
    dtype = dtype_of(atom)
    return not is_key(dtype) and (dtype == np.bool_ or np.issubdtype(dtype, np.integer))


def _is_counted(eqn: Equation) -> bool:
    """Whether an equation does arithmetic with integers or moves them."""
    return rule_of(eqn.primitive).kind in (Kind.ELEMENTWISE, Kind.STRUCTURAL) and all(map(is_integer, eqn.invars))


def _by_roots(origin: _Origin, atoms: Sequence[Atom]) -> list[tuple[np.ndarray, ...]] | None:
    """The indices for every combination of what the roots can be."""
    ranges = [values for values in origin.roots.values() if values is not None]
    count = int(np.prod([len(values) for values in ranges], dtype=np.int64))
    if len(ranges) < len(origin.roots) or not ranges or count > MOST_COMBINATIONS:
        return None
    grid = np.array(list(itertools.product(*ranges)))
    values = {
        root: np.broadcast_to(column.reshape(-1, *[1] * len(shape_of(root))), (count, *shape_of(root))).astype(
            dtype_of(root)
        )
        for root, column in zip(origin.roots, grid.T, strict=True)
    }
    indices = origin.computed(atoms, values)
    # All elements of a root were given one value, but one element may decide one coordinate and another the next.
    has_elements = any(shape_of(root) for root in origin.roots)
    if has_elements and _varying_coordinates(indices) > 1:
        return None
    return list(zip(*indices, strict=True))


def _varying_coordinates(indices: Sequence[np.ndarray]) -> int:
    """How many coordinates of the indices differ between choices; scalars are one coordinate each."""
    columns = [x.reshape(x.shape[0], -1, x.shape[-1] if x.ndim > 1 else 1) for x in indices]
    return sum(int((x != x[:1]).any(axis=(0, 1)).sum()) for x in columns)


def _by_axis(
    eqn: Equation, origin: _Origin, atoms: Sequence[Atom], most_along: Callable[[int], int]
) -> list[tuple[np.ndarray, ...]] | None:
    """The indices with every place along the axis of the one coordinate that is not known."""
    limits = _last_places(eqn)
    zero = {root: np.zeros((1, *shape_of(root)), dtype_of(root)) for root in origin.roots}
    values = [index[0] for index in origin.computed(atoms, zero)]
    opened = origin.open_entries(atoms)
    scalars = len(atoms) > 1 or not values[0].ndim
    columns = opened if scalars else list(np.moveaxis(opened[0], -1, 0))
    varying = [number for number, column in enumerate(columns) if column.any()]
    # With two open coordinates the choices would be all pairs of places.
    if len(varying) != 1 or limits[varying[0]] >= most_along(_axes_addressed(eqn)[varying[0]]):
        return None
    choices = []
    for place in range(limits[varying[0]] + 1):
        choice = [np.where(is_open, place, x).astype(x.dtype) for x, is_open in zip(values, opened, strict=True)]
        choices.append(tuple(choice))
    return choices


def _axes_addressed(eqn: Equation) -> Sequence[int]:
    """For every coordinate of the indices the axis of the array that it runs along."""
    if eqn.primitive.name in ("dynamic_slice", "dynamic_update_slice"):
        return range(len(shape_of(eqn.invars[0])))
    numbers = eqn.params["dimension_numbers"]
    return numbers.start_index_map if eqn.primitive.name == "gather" else numbers.scatter_dims_to_operand_dims


def _last_places(eqn: Equation) -> list[int]:
    """For every coordinate of the indices the last place at which a window fits."""
    shape = shape_of(eqn.invars[0])
    if eqn.primitive.name == "dynamic_slice":
        return [size - taken for size, taken in zip(shape, eqn.params["slice_sizes"], strict=True)]
    if eqn.primitive.name == "dynamic_update_slice":
        return [size - taken for size, taken in zip(shape, shape_of(eqn.invars[1]), strict=True)]
    numbers = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "gather":
        return [shape[axis] - eqn.params["slice_sizes"][axis] for axis in numbers.start_index_map]
    missing = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window_axes = [axis for axis in range(len(shape)) if axis not in missing]
    window = dict(zip(window_axes, (shape_of(eqn.invars[2])[d] for d in numbers.update_window_dims), strict=True))
    return [shape[axis] - window.get(axis, 1) for axis in numbers.scatter_dims_to_operand_dims]


def _distinct(choices: Sequence[tuple[np.ndarray, ...]], operands: Sequence[int]) -> list[Indices]:
    """The choices without repetition."""
    by_content = {b"".join(x.tobytes() for x in choice): choice for choice in choices}
    return [dict(zip(operands, choice, strict=True)) for choice in by_content.values()]
