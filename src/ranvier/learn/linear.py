"""The linear dynamics of a group over a chunk: D, f, adjoints and propagators.

Values by position are ``[..., P]``, with P = 1 where all positions share one value (see :mod:`.lanes`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..analyses.hidden_groups import HiddenGroup
from ..analyses.memory import reachable_components
from ..analyses.relations import Connection
from ..analyses.transition import EntryFacts, take_component
from ..ir.interpret import Environment
from .lanes import Lanes

Entries = dict[tuple[int, int], jax.Array]
"""(to component, from component) to values by position."""
Components = dict[int, jax.Array]
"""Component to values by position."""

UNROLLED = 4
"""Chunks up to this length are not worth a loop."""


@dataclass(frozen=True, eq=False)
class GroupDynamics:
    """The part of a group's dynamics that its traces need.

    Attributes:
        group: the hidden group.
        components: the components that carry a trace for some parameter.
        entries: the entries of D among them that are not structural zeros, with what is known of each.
    """

    group: HiddenGroup
    components: tuple[int, ...]
    entries: Mapping[tuple[int, int], EntryFacts]

    @classmethod
    def of(cls, group: HiddenGroup, connections: Sequence[Connection]) -> GroupDynamics:
        reached = sorted(set().union(*(reachable_components(c) for c in connections)))
        facts = group.transition.entries
        entries = {(a, b): facts[a][b] for a in reached for b in reached}
        return cls(group, tuple(reached), {key: fact for key, fact in entries.items() if fact is not None})

    @property
    def positions(self) -> int:
        return self.group.positions.size

    def width(self, key: tuple[int, int]) -> int:
        """P of an entry of D."""
        return 1 if self.entries[key].uniform else self.positions

    def d(self, values: Environment) -> Entries:
        """D of one step."""
        transition = self.group.transition
        wanted = frozenset(key for key, fact in self.entries.items() if fact.value is None)
        hidden, residuals = transition.path.sources_from(values), transition.path.residuals_from(values)
        found = transition.columns_at(hidden, residuals, wanted) if wanted else {}
        dtype = jnp.result_type(*hidden)
        return {key: self._entry(key, fact, found, dtype) for key, fact in self.entries.items()}

    def _entry(self, key: tuple[int, int], fact: EntryFacts, found: Entries, dtype: Any) -> jax.Array:
        if fact.value is not None:
            return jnp.full(1, fact.value, dtype)
        return found[key][:1] if fact.uniform else found[key]

    def f(self, lanes: Lanes, values: Environment) -> Components:
        """f of one step in the connection's order of lanes, ``[lanes]`` or ``[1]``, for the components y reaches."""
        path, facts = lanes.connection.path, lanes.connection.facts
        (y,) = path.sources_from(values)
        if all(fact.value is not None for fact in facts.values()):
            return {a: jnp.full(1, fact.value, y.dtype) for a, fact in facts.items()}
        found = lanes.connection.columns_at(y, path.residuals_from(values))
        return {a: column[:1] if facts[a].uniform else column for a, column in found.items()}

    def uniform_f(self, lanes: Lanes) -> frozenset[int]:
        """The components whose f is the same at all lanes."""
        return frozenset(a for a, fact in lanes.connection.facts.items() if fact.uniform)

    def reached(self, lanes: Lanes) -> tuple[int, ...]:
        """The components that y reaches now or later."""
        return tuple(sorted(reachable_components(lanes.connection)))

    def factorised(self, lanes: Lanes) -> frozenset[int]:
        """The components whose trace is a presynaptic trace alone: all ways into them are uniform."""
        reached, direct, even = set(self.reached(lanes)), lanes.connection.components, self.uniform_f(lanes)
        found = {a for a in reached if a in even or a not in direct}
        while True:
            uneven = {
                a
                for (a, b), fact in self.entries.items()
                if a in found and b in reached and not (fact.uniform and b in found)
            }
            if not uneven:
                return frozenset(found)
            found -= uneven

    def signal(self, signals: Mapping[Any, jax.Array]) -> Components:
        """L by component, from signals by new hidden state with leading axes of their own."""
        components = self.group.positions.components
        found = {}
        for a in self.components:
            signal = signals[self.group.hidden_outvars[components[a].state]]
            found[a] = jax.vmap(lambda s, c=components[a]: take_component(s, c))(signal)
        return found

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(a, b) for which component b acts on component a over time, and every (a, a)."""
        reached = {(a, a) for a in self.components}
        while True:
            more = {(a, b) for a, c in reached for c2, b in self.entries if c == c2} - reached
            if not more:
                return tuple(sorted(reached))
            reached |= more

    def pair_width(self, pair: tuple[int, int]) -> int:
        """P of the propagator from b to a: 1 where all ways from b to a are uniform."""
        a, b = pair
        known = set(self.pairs)
        on_the_way = [key for key in self.entries if (a, key[0]) in known and (key[1], b) in known]
        return max((self.width(key) for key in on_the_way), default=1)

    def adjoint(self, d: Entries, signal: Components) -> tuple[Components, Components]:
        """b_s, the future's cotangent at every step, from L.

        ``a_s = L_s + b_s`` and ``b_{s-1} = D_s^T a_s`` with ``b_K = 0`` (design, section 3).

        Args:
            d: D, ``[K, P]``.
            signal: L, ``[K, P]``.

        Returns:
            b at the steps 1 to K, ``[K, P]``, and b_0, ``[P]``.
        """
        start = {a: jnp.zeros_like(signal[a][0]) for a in self.components}

        def back(b: Components, given: tuple[Entries, Components]) -> tuple[Components, Components]:
            d_s, l_s = given
            total = {a: l_s[a] + b[a] for a in self.components}
            return self._transposed(d_s, total, b), b

        length = next(iter(signal.values())).shape[0]
        before, at_steps = reversed_scan(back, start, (d, signal), length)
        return at_steps, before

    def _transposed(self, d: Entries, a: Components, like: Components) -> Components:
        found = {}
        for b in self.components:
            parts = [d[key] * a[key[0]] for key in self.entries if key[1] == b]
            total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(like[b])
            found[b] = jnp.broadcast_to(total, like[b].shape).astype(like[b].dtype)
        return found

    def propagators(self, d: Entries, length: int) -> tuple[Entries, Entries]:
        """``P_s = D_K ... D_{s+1}`` by entry, for the pairs that are not structural zeros.

        Returns:
            P at the steps 1 to K, ``[K, P]``, and P_0, ``[P]``.
        """
        dtype = jnp.result_type(*d.values()) if d else jnp.float32
        start = {(a, b): jnp.full(self.pair_width((a, b)), 1.0 if a == b else 0.0, dtype) for a, b in self.pairs}

        def back(p: Entries, d_s: Entries) -> tuple[Entries, Entries]:
            found = {}
            for a, b in self.pairs:
                parts = [d_s[key] * p[a, key[0]] for key in self.entries if key[1] == b and (a, key[0]) in p]
                total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(p[a, b])
                found[a, b] = jnp.broadcast_to(total, p[a, b].shape).astype(dtype)
            return found, p

        before, at_steps = reversed_scan(back, start, d, length)
        return at_steps, before


def reversed_scan(step: Callable[[Any, Any], tuple[Any, Any]], start: Any, given: Any, length: int) -> tuple[Any, Any]:
    """``lax.scan`` from the last step to the first; a few steps are written out."""
    if length > UNROLLED:
        return jax.lax.scan(step, start, given, length, reverse=True)
    carry, results = start, []
    for s in reversed(range(length)):
        carry, result = step(carry, jax.tree.map(lambda x, s=s: x[s], given))
        results.append(result)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts[::-1]), *results)
