"""Linear dynamics by position over a chunk of steps: D, f, adjoints and propagators.

Values by position are ``[..., P]``, with P = 1 where all positions share one value (see :mod:`.lanes`).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..analyses.transition import EntryFacts
from ..ir.interpret import Environment
from .lanes import Lanes
from .same_step import SameStep

Entries = dict[tuple[int, int], jax.Array]
"""(to component, from component) to values by position."""
Components = dict[int, jax.Array]
"""Component to values by position."""

UNROLLED = 4
"""Chunks up to this length are not worth a loop."""


class Dynamics(abc.ABC):
    """Components at every position of a group, with D, f and L: what eligibility traces are carried by.

    Attributes:
        components: the components that carry a trace for some parameter.
        entries: the entries of D among them that are not structural zeros, with what is known of each.
        positions: P.
        names: names of all components of the group.
        dtype: of D, f, L and all that is made of them.
    """

    components: tuple[int, ...]
    entries: Mapping[tuple[int, int], EntryFacts]
    positions: int
    names: tuple[str, ...]
    dtype: Any

    @abc.abstractmethod
    def d(self, values: Environment) -> Entries:
        """D of one step, ``[P]`` or ``[1]`` where uniform."""

    @abc.abstractmethod
    def f(self, lanes: Lanes, values: Environment) -> Components:
        """f of one step in the connection's order of lanes, ``[lanes]`` or ``[1]``, for the components y reaches."""

    @abc.abstractmethod
    def uniform_f(self, lanes: Lanes) -> Mapping[int, bool]:
        """The components that y reaches within the step, and whether f is the same at all lanes."""

    @abc.abstractmethod
    def constant_f(self, lanes: Lanes) -> Mapping[int, float] | None:
        """f by component, where it is one constant for each; else None."""

    @abc.abstractmethod
    def signal(self, same: SameStep) -> Components:
        """L at all steps, ``[K, P]``."""

    @abc.abstractmethod
    def bypass(self, same: SameStep) -> Components:
        """R at all steps, ``[K, P]``, for the components that have it (see :mod:`.same_step`)."""

    def reached(self, lanes: Lanes) -> tuple[int, ...]:
        """The components that y reaches now or later."""
        return self.reached_from(self.uniform_f(lanes))

    def reached_from(self, components: Iterable[int]) -> tuple[int, ...]:
        """The components that these reach now or later."""
        found = set(components)
        while more := {a for a, b in self.entries if b in found} - found:
            found |= more
        return tuple(sorted(found))

    def factorised(self, lanes: Lanes) -> frozenset[int]:
        """The components whose trace is a presynaptic trace alone: all ways into them are uniform."""
        reached, even = set(self.reached(lanes)), self.uniform_f(lanes)
        found = {a for a in reached if even.get(a, True)}
        while True:
            uneven = {
                a
                for (a, b), fact in self.entries.items()
                if a in found and b in reached and not (fact.uniform and b in found)
            }
            if not uneven:
                return frozenset(found)
            found -= uneven

    def width(self, key: tuple[int, int]) -> int:
        """P of an entry of D."""
        return 1 if self.entries[key].uniform else self.positions

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

    def no_future(self) -> Components:
        """The adjoint after the last step."""
        return {a: jnp.zeros(self.positions, self.dtype) for a in self.components}

    def adjoint(
        self, d: Entries, signal: Components, bypass: Components, after: Components
    ) -> tuple[Components, Components]:
        """b_s, the future's cotangent at every step, from L and R.

        ``a_s = L_s + b_s`` and ``b_{s-1} = D_s^T a_s + R_s`` (design, section 3).

        Args:
            d: D, ``[K, P]``.
            signal: L, ``[K, P]``.
            bypass: R, ``[K, P]``.
            after: b_K, ``[P]``.

        Returns:
            b at the steps 1 to K, ``[K, P]``, and b_0, ``[P]``.
        """

        def back(b: Components, given: tuple[Entries, Components, Components]) -> tuple[Components, Components]:
            d_s, l_s, r_s = given
            total = {a: l_s[a] + b[a] for a in self.components}
            pulled = self._transposed(d_s, total, b)
            return {a: pulled[a] + r_s[a] if a in r_s else pulled[a] for a in pulled}, b

        length = next(iter(signal.values())).shape[0]
        before, at_steps = reversed_scan(back, after, (d, signal, bypass), length)
        return at_steps, before

    def _transposed(self, d: Entries, a: Components, like: Components) -> Components:
        found = {}
        for b in self.components:
            parts = [d[key] * a[key[0]] for key in self.entries if key[1] == b]
            total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(like[b])
            found[b] = jnp.broadcast_to(total, like[b].shape)
        return found

    def identity(self) -> Entries:
        """The propagator after the last step."""
        return {(a, b): jnp.full(self.pair_width((a, b)), float(a == b), self.dtype) for a, b in self.pairs}

    def propagators(self, d: Entries, after: Entries, length: int) -> tuple[Entries, Entries]:
        """``P_s = P_K D_K ... D_{s+1}`` by entry, for the pairs that are not structural zeros.

        Args:
            d: D, ``[K, P]``.
            after: P_K, ``[P]``.
            length: K.

        Returns:
            P at the steps 1 to K, ``[K, P]``, and P_0, ``[P]``.
        """

        def back(p: Entries, d_s: Entries) -> tuple[Entries, Entries]:
            found = {}
            for a, b in self.pairs:
                parts = [d_s[key] * p[a, key[0]] for key in self.entries if key[1] == b and (a, key[0]) in p]
                total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(p[a, b])
                found[a, b] = jnp.broadcast_to(total, p[a, b].shape)
            return found, p

        before, at_steps = reversed_scan(back, after, d, length)
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
