"""Which arrays of a graph are made of one parameter of the program, and how.

Every array is a function of the leaves of the program's parameters. Where it only moves numbers of leaves, and no
number goes to two places, the arrays can be trained by themselves: each is a parameter of its own. Otherwise the leaf
becomes a parameter of the graph, and all arrays that it reaches are made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.shared import ArrayName, ParameterBinding
from ..program._jax import Var, dtype_of, is_floating, open_jaxpr, trace, variables_of
from ..program.interpret import needed_equations, read, run_equations
from ..program.precision import TracedFunction, in_float64
from .affine import Derived
from .roles import EquationKinds

NOWHERE = -1
"""In place of the number of a parameter, where an element is not one number of one."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """How an array is made of leaves.

    Attributes:
        leaves: numbers of the leaves, in order.
        function: of these; None for one leaf whose elements are moved.
        index: which elements of the leaf, or None.
    """

    leaves: tuple[int, ...]
    function: TracedFunction | None = None
    index: np.ndarray | None = None

    def __call__(self, names: Mapping[int, str]) -> ParameterBinding:
        """The use, with names for the leaves."""
        return ParameterBinding(tuple(names[leaf] for leaf in self.leaves), self.function, self.index)


@dataclass(eq=False)
class Sharing:
    """The arrays of a graph by what they are made of.

    Attributes:
        roles: of the program.
        derived: by array how it is made of what does not change.
    """

    roles: EquationKinds
    derived: Mapping[ArrayName, Derived]

    @cached_property
    def own(self) -> dict[ArrayName, Derived]:
        """Arrays that are parameters of their own."""
        return {array: derived for array, derived in self.derived.items() if array not in self.uses}

    @cached_property
    def leaves(self) -> list[int]:
        """The leaves that other arrays are made of, in order."""
        return sorted({leaf for recipe in self.uses.values() for leaf in recipe.leaves})

    @cached_property
    def uses(self) -> dict[ArrayName, Recipe]:
        """The other arrays, and how they are made."""
        shared = self._shared()
        return {
            a: self._recipe(a) for a in self.derived if not self._sources[a] or not shared.isdisjoint(self._sources[a])
        }

    def _shared(self) -> set[int]:
        """Leaves that make an array by a function, or one of whose numbers goes to several places."""
        size = int(self._starts[-1])
        count = np.zeros(size, np.int64)
        for index in self.index.values():
            count += np.bincount(index[index != NOWHERE], minlength=size)
        found: set[int] = set()
        for array, index in self.index.items():
            if np.any(index == NOWHERE) or np.any(count[index] > 1) or len(self._sources[array]) > 1:
                found |= self._sources[array]
        before = -1
        while len(found) > before:
            before = len(found)
            for sources in self._sources.values():
                found |= sources if not found.isdisjoint(sources) else set()
        return found

    def _recipe(self, array: ArrayName) -> Recipe:
        leaves = sorted(self._sources[array])
        index = self.index[array]
        if len(leaves) == 1 and np.all(index != NOWHERE):
            (leaf,) = leaves
            own = index - self._starts[leaf]
            whole = own.shape == self._avals[leaf].shape and np.array_equal(own.ravel(), np.arange(own.size))
            return Recipe((leaf,), None, None if whole else own)
        return Recipe(tuple(leaves), self._function(array) if leaves else None)

    # The arrays as functions of the leaves

    @cached_property
    def _avals(self) -> list[Any]:
        return [leaf for slot in self.roles.info.parameters for leaf in slot.leaves]

    @cached_property
    def _initial(self) -> list[Any]:
        return [leaf for slot in self.roles.info.parameters for leaf in slot.initial]

    @cached_property
    def _starts(self) -> np.ndarray:
        """Where the numbers of each leaf begin, and how many there are."""
        return np.cumsum([0, *(int(np.prod(aval.shape)) for aval in self._avals)])

    @cached_property
    def _traced(self) -> Any:
        """All arrays from all leaves."""

        def run(*leaves: Any) -> list[Any]:
            static = self.roles.static_values(leaves)
            return [jnp.asarray(derived(static)) for derived in self.derived.values()]

        return open_jaxpr(trace(run, self._avals))

    @cached_property
    def _results(self) -> dict[ArrayName, Any]:
        return dict(zip(self.derived, self._traced[0].outvars, strict=True))

    @cached_property
    def _sources(self) -> dict[ArrayName, set[int]]:
        """Of every array the real leaves that it is made of."""
        jaxpr, _ = self._traced
        numbers = {var: k for k, var in enumerate(jaxpr.invars) if is_floating(dtype_of(var))}
        reached: dict[Var, set[int]] = {var: {k} for var, k in numbers.items()}
        for eqn in jaxpr.eqns:
            found = set().union(*(reached.get(a, set()) for a in variables_of(eqn.invars)))
            reached.update((out, found if is_floating(dtype_of(out)) else set()) for out in eqn.outvars)
        return {
            array: set().union(*(reached.get(a, set()) for a in variables_of([atom])))
            for array, atom in self._results.items()
        }

    def _function(self, array: ArrayName) -> TracedFunction:
        """An array from the leaves that it is made of; the others have the values that they have."""
        jaxpr, consts = self._traced
        leaves, result = sorted(self._sources[array]), self._results[array]
        equations = needed_equations(jaxpr.eqns, [result])
        known = {
            **dict(zip(jaxpr.invars, self._initial, strict=True)),
            **dict(zip(jaxpr.constvars, consts, strict=True)),
        }

        def run(*values: Any) -> list[Any]:
            environment = {**known, **{jaxpr.invars[leaf]: x for leaf, x in zip(leaves, values, strict=True)}}
            run_equations(equations, environment)
            return [read(environment, result)]

        return TracedFunction(trace(run, [self._avals[leaf] for leaf in leaves]))

    @cached_property
    def index(self) -> dict[ArrayName, np.ndarray]:
        """Of every number of an array the number of the leaf's number it is, leaves one after the other; NOWHERE where
        it is of no single one, as in a product or an absolute value."""
        numbers = np.arange(1.0, 1 + self._starts[-1])
        mixed = -1 - np.random.default_rng(0).uniform(size=numbers.size)
        found, checked = self._through(numbers), self._through(mixed)
        index = {}
        for array, value in found.items():
            at = np.where((value >= 1) & (value <= numbers.size) & (value == np.rint(value)), value, 0).astype(np.int64)
            same = (at > 0) & (checked[array] == mixed[np.maximum(at - 1, 0)])
            index[array] = np.where(same, at - 1, NOWHERE)
        return index

    def _through(self, values: np.ndarray) -> dict[ArrayName, np.ndarray]:
        """The arrays from numbers for all real leaves, in double precision."""
        with jax.enable_x64(True):
            leaves = [
                jnp.asarray(values[start : start + int(np.prod(aval.shape))].reshape(aval.shape))
                if is_floating(aval.dtype)
                else initial
                for start, aval, initial in zip(self._starts, self._avals, self._initial, strict=False)
            ]
            static = self.roles.static_values(leaves, in_float64)
            return {array: np.asarray(derived(static), np.float64) for array, derived in self.derived.items()}
