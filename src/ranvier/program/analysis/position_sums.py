"""Sums within a position: compartments that a constant matrix mixes inside every neuron.

``V @ A.T`` for ``V [neurons, compartments]`` is a mixing operation, but what it mixes stays within the neuron, and the
block D holds it. Each of its position maps says where the m-th element of the sum comes from, counted from the
element's own place, so that every map is one to one where the matrix is square. Other linear equations, such as the
convolution with a constant kernel or the solution of a constant system of equations, are written out as the matrix that
they are.

Two neurons with three compartments in a row, A = [[1, 1, 0], [1, 1, 1], [0, 1, 1]]: every compartment is fed by itself
and its neighbors. The maps from V' to V are the identity, [1, 2, -1, 4, 5, -1] for the next compartment, which the last
one of a neuron does not have, and [-1, 0, 1, -1, 3, 4] for the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .._jax import Atom, Equation, Var, bind, dtype_of, is_real, shape_of, size_of, variables_of
from .position_map import Maps, PositionMap

MAX_MIXED = 8
"""A result that adds up more elements than this is a projection."""

MAX_LENGTH = 64
"""Longest sum that is looked at; where a constant matrix has zeros, few of its elements count."""

SOLUTIONS = frozenset(["triangular_solve", "tridiagonal_solve", "custom_linear_solve"])
LINEAR = SOLUTIONS | {"conv_general_dilated", "cumsum", "reduce_window_sum"}
"""Mixing equations that are linear in each operand that can be data."""

MAX_MATRIX = 2**20
"""Elements that the matrix of such an equation may have."""


def sums_within_positions(
    eqn: Equation,
    constant_value: Callable[[Atom], np.ndarray | None],
    is_fixed: Callable[[Atom], bool],
    producers: Mapping[Var, Equation],
    samples: int,
) -> dict[int, Maps]:
    """The position maps of a sum over few elements, by operand; none where it is a projection.

    Args:
        eqn: the equation.
        constant_value: gives the value of constants.
        is_fixed: whether no derivative passes from parameters, states or inputs into an operand.
        producers: variable to the equation that computes it.
        samples: independent samples of the program; that these do not mix makes no neurons of them.
    """
    if eqn.primitive.name == "reduce_sum":
        # A product of two values that change, summed, is a matrix product written out, which is a projection.
        made = next((producers[var] for var in variables_of(eqn.invars) if var in producers), None)
        is_product = made is not None and made.primitive.name == "mul" and not any(map(is_fixed, made.invars))
        return {} if is_product else _of_sum(eqn, samples)
    if eqn.primitive.name in LINEAR:
        return _of_linear(eqn, constant_value, is_fixed, samples)
    if eqn.primitive.name != "dot_general":
        return {}
    # Two fixed sides make a fixed value, and two that change are a projection.
    fixed = [is_fixed(atom) for atom in eqn.invars]
    if fixed[0] == fixed[1]:
        return {}
    side = fixed.index(False)
    maps = _of_product(eqn, side, constant_value(eqn.invars[1 - side]), samples)
    return {side: maps} if maps else {}


def _of_sum(eqn: Equation, samples: int) -> dict[int, Maps]:
    (operand,) = eqn.invars
    axes = eqn.params["axes"]
    numbers = np.moveaxis(_numbers(operand), axes, range(-len(axes), 0)).reshape(size_of(eqn.outvars[0]), -1)
    if not 1 < numbers.shape[1] <= MAX_MIXED or numbers.shape[0] <= samples:
        return {}
    return {0: tuple(PositionMap.of(column, numbers.size) for column in numbers.T)}


def _of_product(eqn: Equation, side: int, matrix: np.ndarray | None, samples: int) -> tuple[PositionMap, ...]:
    """The maps from a product to its operand on one side, the other one being fixed."""
    contracted, batch = eqn.params["dimension_numbers"]
    data = _arranged(_numbers(eqn.invars[side]), contracted[side], batch[side])
    weights = np.ones(shape_of(eqn.invars[1 - side])) if matrix is None else matrix
    weights = _arranged(weights, contracted[1 - side], batch[1 - side])
    length, outputs = data.shape[2], weights.shape[1]
    widest = max(outputs, length)
    if widest > MAX_LENGTH:
        return ()
    maps = []
    for offset in range(widest):
        place = (np.arange(outputs) + offset) % widest
        taken = np.minimum(place, length - 1)
        used = (place < length) & (weights[:, np.arange(outputs), taken] != 0)
        index = np.where(used[:, None, :], data[:, :, taken], -1)
        index = index if side == 0 else np.moveaxis(index, 1, 2)
        if (index >= 0).any():
            maps.append(PositionMap.of(index, size_of(eqn.invars[side])))
    return _where_parts(maps, eqn, side, samples)


def _where_parts(maps: Sequence[PositionMap], eqn: Equation, operand: int, samples: int) -> tuple[PositionMap, ...]:
    """The maps, or none where they are too many or lead everywhere from everywhere."""
    # One part per sample would make each sample one neuron: within it, everything is mixed.
    size = size_of(eqn.invars[operand])
    has_parts = 0 < len(maps) <= MAX_MIXED and _parts(maps, size, size_of(eqn.outvars[0])) > samples
    return tuple(maps) if has_parts else ()


def _of_linear(
    eqn: Equation,
    constant_value: Callable[[Atom], np.ndarray | None],
    is_fixed: Callable[[Atom], bool],
    samples: int,
) -> dict[int, Maps]:
    """The maps of an equation that is linear in its one operand that is not constant."""
    values = [constant_value(atom) for atom in eqn.invars]
    data = [k for k, value in enumerate(values) if value is None]
    if len(data) != 1 or len(eqn.outvars) != 1 or is_fixed(eqn.invars[data[0]]):
        return {}
    (k,) = data
    size, result = size_of(eqn.invars[k]), size_of(eqn.outvars[0])
    if not is_real(dtype_of(eqn.invars[k])) or not 0 < size * result <= MAX_MATRIX:
        return {}

    def column(unit: jax.Array) -> jax.Array:
        operands = [unit.reshape(shape_of(eqn.invars[k])) if value is None else value for value in values]
        return bind(eqn, operands)[0].reshape(-1)

    with jax.ensure_compile_time_eval():
        columns = np.asarray(jax.jit(jax.vmap(column))(np.eye(size, dtype=dtype_of(eqn.invars[k]))))
    maps = _where_parts(_one_to_one(columns.T != 0), eqn, k, samples)
    return {k: maps} if maps else {}


def _one_to_one(nonzero: np.ndarray) -> list[PositionMap]:
    """Maps, one to one each, that together lead from every row to all columns where the matrix is not zero."""
    rows, columns = nonzero.shape
    if nonzero.sum(axis=1).max(initial=0) > MAX_MIXED or nonzero.sum(axis=0).max(initial=0) > MAX_MIXED:
        return []
    of_row, of_column = np.zeros((2 * MAX_MIXED, rows), bool), np.zeros((2 * MAX_MIXED, columns), bool)
    index = np.full((2 * MAX_MIXED, rows), -1)
    # A greedy edge coloring: every map takes an entry whose row and column it has not used. Twice the largest degree
    # is always enough, for an entry meets at most MAX_MIXED - 1 others in its row and as many in its column.
    for row, column in zip(*np.nonzero(nonzero), strict=True):
        free = int(np.argmin(of_row[:, row] | of_column[:, column]))
        of_row[free, row] = of_column[free, column] = True
        index[free, row] = column
    return [PositionMap.of(places, columns) for places in index if (places >= 0).any()]


def _parts(maps: Sequence[PositionMap], source_size: int, target_size: int) -> int:
    """The number of parts that do not mix with one another."""
    indices = [position_map.indices(target_size) for position_map in maps]
    rows = np.concatenate([np.flatnonzero(index >= 0) for index in indices]) + source_size
    columns = np.concatenate([index[index >= 0] for index in indices])
    total = source_size + target_size
    graph = coo_array((np.ones(rows.size, bool), (rows, columns)), shape=(total, total))
    _, part = connected_components(graph, directed=False)
    return np.unique(part[rows]).size


def _numbers(atom: Atom) -> np.ndarray:
    return np.arange(size_of(atom)).reshape(shape_of(atom))


def _arranged(values: np.ndarray, contracted: tuple[int, ...], batch: tuple[int, ...]) -> np.ndarray:
    """``[batch, free, contracted]``, each flat."""
    free = [axis for axis in range(values.ndim) if axis not in (*contracted, *batch)]
    sizes = [int(np.prod([values.shape[a] for a in axes], dtype=np.int64)) for axes in (batch, free, contracted)]
    return np.transpose(values, (*batch, *free, *contracted)).reshape(sizes)
