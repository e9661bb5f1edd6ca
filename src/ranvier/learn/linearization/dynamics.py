"""Linear dynamics by position over a chunk of steps: D, f, adjoints and propagators.

Values by position are ``[..., P]``, with P = 1 where all positions share one value
(see :mod:`ranvier.learn.uses.alignment`).

For example, states v and a at 2 positions, ``v' = 0.9 v - a; a' = a + 0.5 v``: D is [[0.9, -1], [0.5, 1]] at both, so
its four entries have P = 1. An adjoint of (1, 0) after a step is D^T (1, 0) = (0.9, -1) before it, and the propagator
over two steps is D D = [[0.31, -1.9], [0.95, 0.5]].
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program.analysis.transition import EntryFacts
from ...program.interpret import Environment
from ..uses.alignment import Alignment
from .same_step import SameStep

Entries = dict[tuple[int, int], jax.Array]
"""(to component, from component) to values by position."""
Components = dict[int, jax.Array]
"""Component to values by position."""

FEW_TERMS = 256
"""Up to this many products of entries are computed one by one."""


class TraceDynamics(abc.ABC):
    """The dynamics that carry eligibility traces: components at every position of a group, with D, f and L.

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
    def f(self, lanes: Alignment, values: Environment) -> Components:
        """f of one step in the connection's order of lanes, ``[lanes]`` or ``[1]``, for the components y reaches."""

    @abc.abstractmethod
    def uniform_f(self, lanes: Alignment) -> Mapping[int, bool]:
        """The components that y reaches within the step, and whether f is the same at all lanes."""

    @abc.abstractmethod
    def constant_f(self, lanes: Alignment) -> Mapping[int, float] | None:
        """f by component, where it is one constant for each; else None."""

    @abc.abstractmethod
    def signal(self, same: SameStep) -> Components:
        """L at all steps, ``[K, P]``."""

    @abc.abstractmethod
    def bypass(self, same: SameStep) -> Components:
        """R at all steps, ``[K, P]``, for the components that have it (see :mod:`.same_step`)."""

    @property
    def lasting(self) -> frozenset[int]:
        """The components whose trace of a step is read in later ones."""
        return frozenset(self.components)

    def reached(self, lanes: Alignment) -> tuple[int, ...]:
        """The components that y reaches now or later."""
        return self.reached_from(self.uniform_f(lanes))

    def reached_from(self, components: Iterable[int]) -> tuple[int, ...]:
        """The components that these reach now or later."""
        # A closure over the entries of D: what y reaches in a later step is reached through a component it reaches now.
        reached = set(components)
        while more := {a for a, b in self.entries if b in reached} - reached:
            reached |= more
        return tuple(sorted(reached))

    def factorized(self, lanes: Alignment) -> frozenset[int]:
        """The components whose trace is just a presynaptic trace: all paths into them are uniform."""
        # Start from all that could be uniform and take away what is fed by something that is not, until nothing
        # changes: one uneven path into a component makes its trace differ from position to position, and a presynaptic
        # trace cannot.
        reached, even = set(self.reached(lanes)), self.uniform_f(lanes)
        alike = {a for a in reached if even.get(a, True)}
        while True:
            uneven = {
                a
                for (a, b), fact in self.entries.items()
                if a in alike and b in reached and not (fact.uniform and b in alike)
            }
            if not uneven:
                return frozenset(alike)
            alike -= uneven

    def width(self, key: tuple[int, int]) -> int:
        """P of an entry of D."""
        return 1 if self.entries[key].uniform else self.positions

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(a, b) for which component b acts on component a over time, and every (a, a)."""
        # The transitive closure of D's pattern. The propagator is zero elsewhere for any number of steps, so those
        # entries are neither stored nor multiplied: a chain of S states has S (S + 1) / 2 pairs instead of S * S.
        reached = {(a, a) for a in self.components}
        while True:
            more = {(a, b) for a, c in reached for c2, b in self.entries if c == c2} - reached
            if not more:
                return tuple(sorted(reached))
            reached |= more

    def pair_width(self, pair: tuple[int, int]) -> int:
        """P of the propagator from b to a: 1 where all paths from b to a are uniform."""
        a, b = pair
        # A product is uniform only if all its factors are; any D on a path from b to a may be one of them.
        known = set(self.pairs)
        on_path = [key for key in self.entries if (a, key[0]) in known and (key[1], b) in known]
        return max((self.width(key) for key in on_path), default=1)

    def no_future(self) -> Components:
        """The adjoint after the last step."""
        return {a: jnp.zeros(self.positions, self.dtype) for a in self.components}

    def adjoint(self, after: Components, d: Entries, signal: Components, bypass: Components) -> Components:
        """``b_{s-1} = D_s^T (L_s + b_s) + R_s``, the future's cotangent before a step (design, section 3).

        Args:
            after: b_s, ``[P]``.
            d: D of the step.
            signal: L of the step, ``[P]``.
            bypass: R of the step, ``[P]``.
        """
        # L_s is felt at the new state, so it goes back through D_s; R_s is felt at the old state already.
        pulled = self._transposed(d, {a: signal[a] + after[a] for a in self.components}, after)
        return {a: pulled[a] + bypass[a] if a in bypass else pulled[a] for a in pulled}

    def _transposed(self, d: Entries, a: Components, like: Components) -> Components:
        terms = {b: [(key, key[0]) for key in self.entries if key[1] == b] for b in self.components}
        pulled = products(d, a, terms)
        # Shapes stay those of ``like``: the carry of a scan must not change, whatever is uniform or zero in D.
        return {b: jnp.broadcast_to(pulled[b], x.shape) if b in pulled else jnp.zeros_like(x) for b, x in like.items()}

    def identity(self) -> Entries:
        """The propagator after the last step."""
        return {(a, b): jnp.full(self.pair_width((a, b)), float(a == b), self.dtype) for a, b in self.pairs}

    def propagator(self, after: Entries, d: Entries) -> Entries:
        """``P_{s-1} = P_s D_s`` by entry, for the pairs that are not structural zeros."""
        entries = products(d, after, self._propagator_terms)
        return {
            pair: jnp.broadcast_to(entries[pair], x.shape) if pair in entries else jnp.zeros_like(x)
            for pair, x in after.items()
        }

    @cached_property
    def _propagator_terms(self) -> dict[Any, list[tuple[Any, Any]]]:
        """For every pair the entries of D and the pairs of the propagator whose products add up to it."""
        known, by_column = set(self.pairs), {b: [key for key in self.entries if key[1] == b] for b in self.components}
        return {(a, b): [(key, (a, key[0])) for key in by_column[b] if (a, key[0]) in known] for a, b in self.pairs}


def products(
    first: Mapping[Any, jax.Array], second: Mapping[Any, jax.Array], terms: Mapping[Any, Sequence[tuple[Any, Any]]]
) -> dict[Any, jax.Array]:
    """Sums of products by position: a few one by one, many as one, which is compiled much faster.

    Args:
        first: values ``[P]`` or ``[1]`` by key.
        second: likewise.
        terms: for each result the keys of the products that are added up; results without any are left out.
    """
    # Few products are written out, so that XLA fuses them with what reads them. Many would make a program that grows
    # with the number of states squared and compiles for minutes; they become one gather, one product and one sum.
    wanted = {key: pairs for key, pairs in terms.items() if pairs}
    if sum(map(len, wanted.values())) <= FEW_TERMS:
        entries = {}
        for key, pairs in wanted.items():
            parts = [first[k] * second[m] for k, m in pairs]
            entries[key] = sum(parts[1:], parts[0])
        return entries
    width = max(x.shape[-1] for x in (*first.values(), *second.values()))
    left, right = ({key: n for n, key in enumerate(values)} for values in (first, second))
    rows_left, rows_right = (
        jnp.stack([jnp.broadcast_to(x, (width,)) for x in values.values()]) for values in (first, second)
    )
    at = np.array([(left[k], right[m], n) for n, pairs in enumerate(wanted.values()) for k, m in pairs])
    added = rows_left[at[:, 0]] * rows_right[at[:, 1]]
    total = jax.ops.segment_sum(added, at[:, 2], len(wanted), indices_are_sorted=True)
    # A result of uniform factors is one number again, as the products written out one by one have it.
    narrow = {key: max(max(first[k].shape[-1], second[m].shape[-1]) for k, m in pairs) for key, pairs in wanted.items()}
    return {key: total[n, : narrow[key]] for n, key in enumerate(wanted)}
