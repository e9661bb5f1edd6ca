"""A population's transition and D, the S x S block of its Jacobian at every position.

Two neurons with states v and a, ``v' = 0.9 v - a; a' = 0.5 v' + a``, have D = [[0.9, -1], [0.45, 0.5]] at each: a'
feels v through v'. The 2 x 2 old values need only S = 2 forward-mode products, not 4: a tangent of
ones along v moves all positions at once, and since no position feels another, the results are the column of v at each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import AnalysisError
from .._jax import Var, dtype_of, shape_of, trace
from ..paths import path_text
from ..program import ModuleInfo
from .binding_time import BindingTime, binding_times_of
from .coloring import color
from .positions import Component, Edges, Positions
from .reachability import feeds_of
from .slices import Slice, slice_between
from .uniformity import jaxpr_facts


@dataclass(frozen=True)
class EntryFacts:
    """What is known of an entry of D (or f) before any data is seen.

    Attributes:
        binding_time: whether it is the same in every run, fixed while parameters are, or different in every step.
        uniform: whether all positions share one value.
        value: its value where it is constant and uniform.
    """

    binding_time: BindingTime
    uniform: bool
    value: float | None = None

    def __str__(self) -> str:
        if self.value is not None:
            return f"{self.value:.6g}"
        spread = " (uniform)" if self.uniform else ""
        return {BindingTime.CONSTANT: "const", BindingTime.STATIC: "param", BindingTime.DYNAMIC: "varies"}[
            self.binding_time
        ] + spread


Entry = EntryFacts | None
"""None stands for a structural zero."""


class Transition:
    """New values of a population's hidden states as a function of their old values.

    Only elementwise and structural paths are part of it: what comes through mixing operations, inputs and
    parameters are residuals, values of the same step.

    Attributes:
        info: the program.
        path: the equations, with ``sources`` (old values) and ``residuals``.
    """

    def __init__(self, info: ModuleInfo, states: tuple[int, ...], positions: Positions, edges: Edges) -> None:
        self.info = info
        self._states = states
        self._positions = positions
        self._edges = edges

    @cached_property
    def path(self) -> Slice:
        old = [self.info.hidden_invars[j] for j in self._states]
        return slice_between(self.info, feeds_of(self.info), old, self._states)

    @property
    def residual_vars(self) -> tuple[Var, ...]:
        return self.path.residuals

    def __call__(self, hidden: Sequence[Any], residuals: Sequence[Any]) -> list[Any]:
        """New values of the hidden states.

        Args:
            hidden: old values as plain arrays, in the group's order.
            residuals: arrays for ``residual_vars``, e.g. ``path.residuals_from(info.values(...))``.
        """
        return self.path(hidden, residuals)

    def jacobian(self, values: Mapping[Var, Any]) -> jax.Array:
        """D for the step that ``values`` come from, by forward-mode products.

        Args:
            values: variable to array, from :meth:`ranvier.ModuleInfo.values`.

        Returns:
            ``[*varshape, S, S]``; entry ``[..., a, b]`` is d new component a / d old component b. S products
            are taken, more only where a state reaches itself at another position.

        Raises:
            AnalysisError: the state depends on itself at so many positions that no block can be separated.
        """
        return self.jacobian_at(self.path.sources_from(values), self.path.residuals_from(values))

    def jacobian_at(self, hidden: Sequence[Any], residuals: Sequence[Any]) -> jax.Array:
        """D at these old values and residuals; see :meth:`jacobian`."""
        size, count = self._positions.size, len(self._positions.components)
        dtype = jnp.result_type(*hidden)
        columns = self.columns_at(hidden, residuals)
        zero = jnp.zeros(size, dtype)
        rows = [[columns.get((a, b), zero) for b in range(count)] for a in range(count)]
        stacked = jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
        return stacked.reshape(*self._positions.shape, count, count)

    def columns_at(
        self, hidden: Sequence[Any], residuals: Sequence[Any], wanted: frozenset[tuple[int, int]] | None = None
    ) -> dict[tuple[int, int], jax.Array]:
        """The entries (a, b) of D that are not structural zeros, or those wanted, each ``[positions]``."""
        columns: dict[tuple[int, int], jax.Array] = {}
        wanted = self.nonzero if wanted is None else wanted
        for b, component in enumerate(self._positions.components):
            rows = [a for a in range(len(self._positions.components)) if (a, b) in wanted]
            # A column of structural zeros costs no product; many states (a refractory counter, say) feed nothing.
            if not rows:
                continue
            push = self._push(hidden, residuals, component.state)
            # One seed where every position feels only itself. Where a state reaches itself at another position, the
            # seeds are colored so that no two of one color meet in a result, and the parts are added up.
            for seed, at in self._seeds(b):
                old = hidden[component.state]
                pushed = push(jnp.asarray(seed, dtype=old.dtype).reshape(old.shape))
                for a in rows:
                    entry = self._read(pushed, a, at)
                    columns[a, b] = columns[a, b] + entry if (a, b) in columns else entry
        return columns

    def _push(self, hidden: Sequence[Any], residuals: Sequence[Any], state: int) -> Callable[[jax.Array], list[Any]]:
        """Forward-mode product along one state; the others have no tangent at all, not a zero one."""

        def new_states(old: jax.Array) -> list[Any]:
            return self.path([old if k == state else h for k, h in enumerate(hidden)], residuals)

        return lambda tangent: jax.jvp(new_states, (hidden[state],), (tangent,))[1]

    def _read(self, pushed: Sequence[Any], a: int, at: np.ndarray | None) -> jax.Array:
        component = self._positions.components[a]
        taken = take_component(pushed[component.state], component)
        return taken if at is None else taken * jnp.asarray(at, dtype=taken.dtype)

    def _seeds(self, b: int) -> list[tuple[np.ndarray, np.ndarray | None]]:
        """Seed vectors for component b, each with a mask of the positions it answers for (None: all)."""
        component = self._positions.components[b]
        size = self._state_size(component.state)
        colors = color(component.elements.size, self._conflicts(b))
        seeds = []
        for c in range(int(colors.max(initial=0)) + 1):
            seed = np.zeros(size)
            seed[component.elements[(colors == c) & (component.elements >= 0)]] = 1.0
            seeds.append((seed, None if colors.max(initial=0) == 0 else colors == c))
        return seeds

    def _state_size(self, state: int) -> int:
        return int(np.prod(self.info.hidden[self._states[state]].shape, dtype=np.int64))

    def _conflicts(self, b: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of positions of component b that reach one and the same result."""
        component = self._positions.components[b]
        position = component.scatter(self._state_size(component.state))
        pairs = []
        for (target, source), maps in self._edges.items():
            if source != component.state:
                continue
            if maps is None:
                path = path_text(self.info.hidden[self._states[target]].path)
                raise AnalysisError(
                    f"D of {path} cannot be separated by position: the step combines too many moved copies of the "
                    "state. Write the combination as one matrix product or convolution, which then counts as a "
                    "projection."
                )
            target_size = self._state_size(target)
            here = [_lookup(position, m.indices(target_size)) for m in maps]
            here += [c.scatter(target_size) for c in self._positions.components if c.state == target]
            pairs += [(p, q) for n, p in enumerate(here) for q in here[n + 1 :]]
        return pairs

    @cached_property
    def nonzero(self) -> frozenset[tuple[int, int]]:
        """The entries (a, b) of D that are not structural zeros."""
        nonzero = set()
        components = self._positions.components
        for (target, source), maps in self._edges.items():
            rows = [a for a, c in enumerate(components) if c.state == target]
            columns = [b for b, c in enumerate(components) if c.state == source]
            indices = None if maps is None else [m.indices(self._state_size(target)) for m in maps]
            for a in rows:
                for b in columns:
                    here, there = components[a].elements, components[b].elements
                    both = (here >= 0) & (there >= 0)
                    if indices is None or any((index[here[both]] == there[both]).any() for index in indices):
                        nonzero.add((a, b))
        return frozenset(nonzero)

    @cached_property
    def entries(self) -> tuple[tuple[Entry, ...], ...]:
        """The S x S facts about D: None for structural zeros, else what is known of the entry.

        A constant uniform entry (the decay of an exponential synapse, say) is known with its value.
        """
        facts = self._facts()
        count = len(self._positions.components)
        return tuple(tuple(facts.get((a, b)) for b in range(count)) for a in range(count))

    def constant_entry(self, a: int, b: int) -> np.ndarray | None:
        """The values of an entry of D at all positions; None where they are not constant."""
        fact = self.entries[a][b]
        if fact is None:
            return np.zeros(self._positions.size)
        if fact.binding_time is not BindingTime.CONSTANT:
            return None
        if fact.value is not None:
            return np.full(self._positions.size, fact.value)
        binding_times = binding_times_of(self.info)
        with jax.ensure_compile_time_eval():
            # What is no constant has no part in the entry, so any number will do for it.
            values = [jnp.ones(shape_of(var), dtype_of(var)) for var in self.path.sources]
            known = [binding_times.constant_value(var) for var in self.path.residuals]
            pairs = zip(known, self.path.residuals, strict=True)
            rest = [jnp.ones(shape_of(var), dtype_of(var)) if x is None else x for x, var in pairs]
            return np.asarray(self.columns_at(values, rest, frozenset([(a, b)]))[a, b])

    def _facts(self) -> dict[tuple[int, int], EntryFacts]:
        order = sorted(self.nonzero)
        if not order:
            return {}
        sources, residuals = self.path.sources, self.path.residuals
        # Where positions mix, D cannot be computed as columns, so nothing is known of its entries.
        if any(maps is None for maps in self._edges.values()):
            return dict.fromkeys(order, EntryFacts(BindingTime.DYNAMIC, False))

        def entries(*operands: Any) -> list[Any]:
            columns = self.columns_at(operands[: len(sources)], operands[len(sources) :])
            return [columns[key] for key in order]

        traced = trace(entries, [var.aval for var in (*sources, *residuals)])
        binding_times = binding_times_of(self.info)
        operand_binding_times = [BindingTime.DYNAMIC] * len(sources) + [binding_times.of(var) for var in residuals]
        constants = [None] * len(sources) + [binding_times.constant_value(var) for var in residuals]
        of_entries = jaxpr_facts(traced, operand_binding_times, constants)
        facts = {key: EntryFacts(*fact) for key, fact in zip(order, of_entries, strict=True)}
        # An entry that is always zero is as good as a path that does not exist.
        return {key: fact for key, fact in facts.items() if fact.value != 0.0}


def take_component(state: jax.Array, component: Component, at: np.ndarray | None = None) -> jax.Array:
    """The elements of a component, at all positions or at these; zero where the state has none."""
    flat = state.reshape(-1)
    if component.whole and at is None:
        return flat
    elements = component.elements if at is None else component.elements[at]
    taken = flat[np.maximum(elements, 0)]
    return taken if (elements >= 0).all() else taken * jnp.asarray(elements >= 0, dtype=taken.dtype)


def _lookup(position: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.where(index >= 0, position[index], -1)
