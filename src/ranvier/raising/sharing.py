"""Which arrays of a graph are computed from the same parameter of the program, and how.

Every array is a function of the leaves of the program's parameters. Where it only moves numbers of leaves, and no
number goes to two places, the arrays can be trained by themselves: each is a parameter of its own. Otherwise the leaf
becomes a parameter of the graph, and all arrays that it reaches are made of it.

In the example of ``step.py``, the leaf w of 5 x 2 numbers gives two arrays, ``w[:3].T`` and ``w[3:].T``. Every number
goes to one place, so there is nothing to share: number 7 of the leaf, w[3, 1], is number 2 of the second array. Were
the matrix applied to x and to z alike, as in ``x @ w + z @ w``, each number would go to two places: w becomes a
parameter of the graph, and both arrays are ``w.T``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.shared import ArrayName, ParameterBinding
from ..program._jax import Equation, Var, dtype_of, is_floating, open_jaxpr, trace, variables_of
from ..program.bodies import has_derivative
from ..program.interpret import needed_equations, read, run_equations
from ..program.precision import TracedFunction, in_float64
from .affine_operation import Derived
from .step import StepView

NOWHERE = -1
"""In place of the number of a parameter, where an element is not one number of one."""
ABSENT = -2
"""Where an element of a weight is zero whatever the parameters are: a mask has removed this synapse."""
WEIGHT = "weight"
"""The arrays that masks are known of."""
SMALL = (-6.0, -1.0)
"""Exponents of the smallest and the largest of the small numbers that leaves are filled with."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to compute an array from leaves.

    Attributes:
        leaves: numbers of the leaves, in order.
        function: of these; None for one leaf whose elements are moved.
        index: which elements of the leaf, or None.
    """

    leaves: tuple[int, ...]
    function: TracedFunction | None = None
    index: np.ndarray | None = None

    def __call__(self, names: Mapping[int, str]) -> ParameterBinding:
        """The binding, with names for the leaves."""
        return ParameterBinding(tuple(names[leaf] for leaf in self.leaves), self.function, self.index)


@dataclass(frozen=True, eq=False)
class Sharing:
    """The trained arrays of a graph, grouped by what they are computed from.

    Attributes:
        own: arrays that are parameters of their own, with how they are made of what does not change.
        recipes: the other arrays, and how they are made of leaves of the program's parameters.
        index: of every number of an array the number of the leaf's number it is, leaves one after the other; NOWHERE
            where it is of no single one, as in a product or an absolute value, or of none.
        masked: arrays of their own from which synapses are absent.
    """

    own: Mapping[ArrayName, Derived]
    recipes: Mapping[ArrayName, Recipe]
    index: Mapping[ArrayName, np.ndarray]
    masked: AbstractSet[ArrayName]

    @property
    def leaves(self) -> list[int]:
        """The leaves that other arrays are made of, in order."""
        return sorted({leaf for recipe in self.recipes.values() for leaf in recipe.leaves})


def find_sharing(step: StepView, derived: Mapping[ArrayName, Derived]) -> Sharing:
    """Finds which arrays can be trained on their own, and how the others are computed from parameters.

    Args:
        step: of the program.
        derived: by array how it is made of what does not change.
    """
    leaves = _leaves(step)
    # Numbers come before the trace: an index array that JAX has traced in single precision cannot be used in double.
    index = _index(leaves, derived)
    arrays = _trace_arrays(leaves, derived)
    sources, differentiated = _sources(arrays, _any), _sources(arrays, has_derivative)
    for array, numbers in index.items():
        # Numbers that stop_gradient lets through are those of a leaf, but as a parameter of their own they would train.
        if sources[array] and not differentiated[array]:
            index[array] = np.full_like(numbers, NOWHERE)
    shared = _shared_leaves(leaves, sources, index)
    # An array without any leaf is a fixed function of something that is no real number; nothing of it is trained.
    recipes = {
        array: _recipe(arrays, array, sources[array], index[array])
        for array in derived
        if not sources[array] or not shared.isdisjoint(sources[array])
    }
    own = {array: make for array, make in derived.items() if array not in recipes}
    masked = {array for array in own if np.any(index[array] == ABSENT)}
    return Sharing(own, recipes, {array: np.maximum(numbers, NOWHERE) for array, numbers in index.items()}, masked)


@dataclass(frozen=True, eq=False)
class _Leaves:
    """The leaves of the program's parameters.

    Attributes:
        step: of the program.
        avals, initial: shapes with dtypes, and values.
        starts: where the numbers of each leaf begin, and how many there are.
    """

    step: StepView
    avals: Sequence[Any]
    initial: Sequence[Any]
    starts: np.ndarray


@dataclass(frozen=True, eq=False)
class _TracedArrays:
    """All arrays as one program of all leaves.

    Attributes:
        leaves: these.
        jaxpr, consts: from leaves to arrays.
        results: the variable of each array.
    """

    leaves: _Leaves
    jaxpr: Any
    consts: Sequence[Any]
    results: Mapping[ArrayName, Any]


def _leaves(step: StepView) -> _Leaves:
    avals = [leaf for slot in step.info.parameters for leaf in slot.leaves]
    initial = [leaf for slot in step.info.parameters for leaf in slot.initial]
    return _Leaves(step, avals, initial, np.cumsum([0, *(int(np.prod(aval.shape)) for aval in avals)]))


def _index(leaves: _Leaves, derived: Mapping[ArrayName, Derived]) -> dict[ArrayName, np.ndarray]:
    """Of every number of an array the number of the leaf's number it is, NOWHERE or ABSENT.

    The leaves are filled with the numbers 1, 2, 3, ..., and an array where 8 comes out is made of number 7. So that a
    sum which happens to be 8 is not taken for it, nor a threshold that lets only large weights pass, other numbers,
    random ones of either sign and of all sizes, must move in the same way.
    """
    size = int(leaves.starts[-1])
    numbers = np.arange(1.0, 1 + size)
    others = _other_fillings(leaves, size)
    of_numbers, of_others = _through(leaves, derived, numbers), [_through(leaves, derived, x) for x in others]
    index = {}
    for array, value in of_numbers.items():
        at = np.where((value >= 1) & (value <= size) & (value == np.rint(value)), value, 0).astype(np.int64)
        # What comes out of no number is looked up at the end, also where there are no numbers.
        pairs = [(values[array], np.append(filling, np.nan)) for values, filling in zip(of_others, others, strict=True)]
        moved = (at > 0) & np.all([values == filling[at - 1] for values, filling in pairs], axis=0)
        index[array] = np.where(moved, at - 1, NOWHERE)
        if array[1] == WEIGHT and np.any(moved):
            absent = (value == 0) & np.all([values == 0 for values, _ in pairs], axis=0)
            # Afterwards a zero means that there is no synapse, so a weight that happens to be zero must not be there.
            happens = np.any(moved & (pairs[-1][0] == 0))
            index[array] = np.where(absent & (not happens), ABSENT, index[array])
    return _without_padding(leaves, index)


def _without_padding(leaves: _Leaves, index: dict[ArrayName, np.ndarray]) -> dict[ArrayName, np.ndarray]:
    """Without absent elements where a leaf makes arrays that have more elements than it: as parameters of their own,
    they would be more than the model has, such as all of a matrix of which the leaf is the diagonal."""
    leaf = {a: np.searchsorted(leaves.starts, n.max(), "right") - 1 for a, n in index.items() if np.any(n >= 0)}
    for number in {leaf[array] for array in leaf if np.any(index[array] == ABSENT)}:
        arrays = [array for array in leaf if leaf[array] == number]
        if sum(index[array].size for array in arrays) > leaves.starts[number + 1] - leaves.starts[number]:
            index.update({array: np.maximum(index[array], NOWHERE) for array in arrays})
    return index


def _other_fillings(leaves: _Leaves, size: int) -> list[np.ndarray]:
    """Numbers to fill the leaves with: beyond one, small ones, and, last, their own."""
    rng = np.random.default_rng(0)
    large = -1 - rng.uniform(size=size)
    small = 10.0 ** rng.uniform(*SMALL, size) * rng.choice([-1.0, 1.0], size)
    own = [np.ravel(x) if is_floating(a.dtype) else np.zeros(np.size(x)) for a, x in zip(leaves.avals, leaves.initial)]
    return [large, small, np.concatenate([np.zeros(0), *own]).astype(np.float64)]


def _through(leaves: _Leaves, derived: Mapping[ArrayName, Derived], values: np.ndarray) -> dict[ArrayName, np.ndarray]:
    """The arrays from numbers for all real leaves, in double precision."""
    with jax.enable_x64(True):
        filled = [
            jnp.asarray(values[start : start + int(np.prod(aval.shape))].reshape(aval.shape))
            if is_floating(aval.dtype)
            else initial
            for start, aval, initial in zip(leaves.starts, leaves.avals, leaves.initial, strict=False)
        ]
        static = leaves.step.static_values(filled, in_float64)
        return {array: np.asarray(make(static), np.float64) for array, make in derived.items()}


def _trace_arrays(leaves: _Leaves, derived: Mapping[ArrayName, Derived]) -> _TracedArrays:
    def run(*values: Any) -> list[Any]:
        static = leaves.step.static_values(values)
        return [jnp.asarray(make(static)) for make in derived.values()]

    jaxpr, consts = open_jaxpr(trace(run, leaves.avals))
    return _TracedArrays(leaves, jaxpr, consts, dict(zip(derived, jaxpr.outvars, strict=True)))


def _any(eqn: Equation) -> bool:
    return True


def _sources(arrays: _TracedArrays, passes: Callable[[Equation], bool]) -> dict[ArrayName, AbstractSet[int]]:
    """Of every array the real leaves that it is made of, by equations through which one passes."""
    jaxpr = arrays.jaxpr
    reached: dict[Var, set[int]] = {var: {k} for k, var in enumerate(jaxpr.invars) if is_floating(dtype_of(var))}
    for eqn in jaxpr.eqns:
        leaves = set().union(*(reached.get(a, set()) for a in variables_of(eqn.invars) if passes(eqn)))
        reached.update((out, leaves) for out in eqn.outvars)
    return {
        array: set().union(*(reached.get(a, set()) for a in variables_of([atom])))
        for array, atom in arrays.results.items()
    }


def _shared_leaves(
    leaves: _Leaves, sources: Mapping[ArrayName, AbstractSet[int]], index: Mapping[ArrayName, np.ndarray]
) -> AbstractSet[int]:
    """Leaves that make an array by a function, or one of whose numbers goes to several places."""
    size = int(leaves.starts[-1])
    count = np.zeros(size + 1, np.int64)  # one more, for NOWHERE
    for numbers in index.values():
        count += np.bincount(numbers[numbers >= 0], minlength=size + 1)
    shared: set[int] = set()
    for array, numbers in index.items():
        if np.any(numbers == NOWHERE) or np.any(count[numbers[numbers >= 0]] > 1) or len(sources[array]) > 1:
            shared |= sources[array]
    # An array that is made of a shared leaf and of others makes these shared as well, and so on.
    before = -1
    while len(shared) > before:
        before = len(shared)
        for of_array in sources.values():
            shared |= of_array if not shared.isdisjoint(of_array) else set()
    return shared


def _recipe(arrays: _TracedArrays, array: ArrayName, sources: AbstractSet[int], index: np.ndarray) -> Recipe:
    leaves = sorted(sources)
    if len(leaves) == 1 and np.all(index >= 0):
        (leaf,) = leaves
        within = index - arrays.leaves.starts[leaf]
        whole = within.shape == arrays.leaves.avals[leaf].shape and np.array_equal(
            within.ravel(), np.arange(within.size)
        )
        return Recipe((leaf,), None, None if whole else within)
    return Recipe(tuple(leaves), _function(arrays, array, leaves) if leaves else None)


def _function(arrays: _TracedArrays, array: ArrayName, leaves: Sequence[int]) -> TracedFunction:
    """An array from the leaves that it is made of; the others have the values that they have."""
    jaxpr, result = arrays.jaxpr, arrays.results[array]
    equations = needed_equations(jaxpr.eqns, [result])
    known = {
        **dict(zip(jaxpr.invars, arrays.leaves.initial, strict=True)),
        **dict(zip(jaxpr.constvars, arrays.consts, strict=True)),
    }

    def run(*values: Any) -> list[Any]:
        environment = {**known, **{jaxpr.invars[leaf]: x for leaf, x in zip(leaves, values, strict=True)}}
        run_equations(equations, environment)
        return [read(environment, result)]

    return TracedFunction(trace(run, [arrays.leaves.avals[leaf] for leaf in leaves]))
