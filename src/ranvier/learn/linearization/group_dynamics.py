"""The dynamics of a hidden group: D, f and L as the model has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...program._jax import Var, dtype_of
from ...program.analysis.hidden_groups import HiddenGroup
from ...program.analysis.memory import reachable_components
from ...program.analysis.relations import Connection
from ...program.analysis.transition import EntryFacts, take_component
from ...program.interpret import Environment
from ..uses.alignment import Alignment
from .dynamics import Components, Entries, TraceDynamics
from .same_step import SameStep


@dataclass(frozen=True, eq=False)
class GroupDynamics(TraceDynamics):
    """The part of a group's dynamics that its traces need.

    Attributes:
        group: the hidden group.
        components: the components that carry a trace for some parameter.
        entries: the entries of D among them that are not structural zeros, with what is known of each.
        bypassing: the components that act past the group's new states.
    """

    group: HiddenGroup
    components: tuple[int, ...]
    entries: Mapping[tuple[int, int], EntryFacts]
    bypassing: frozenset[int]

    @classmethod
    def of(cls, group: HiddenGroup, connections: Sequence[Connection], bypassing: Sequence[Var]) -> GroupDynamics:
        reached = sorted(set().union(*(reachable_components(c) for c in connections)))
        # Only the components that a trace ever reaches: the rest of D would be computed at every step for nobody.
        facts = group.transition.entries
        entries = {(a, b): facts[a][b] for a in reached for b in reached}
        known = {key: fact for key, fact in entries.items() if fact is not None}
        states = enumerate(group.positions.components)
        past = frozenset(a for a, part in states if group.hidden_invars[part.state] in bypassing)
        return cls(group, tuple(reached), known, past.intersection(reached))

    @property
    def lasting(self) -> frozenset[int]:
        # A trace is read by D in the next step, or by R. One with neither, a spike's that is sent on within the step,
        # is no more than the f of its step, which the cotangent of y has already.
        return self.bypassing.union(b for _, b in self.entries)

    @property
    def positions(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.group.positions.size

    @property
    def names(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.group.component_names

    @property
    def dtype(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return jnp.result_type(*map(dtype_of, self.group.hidden_invars))

    def d(self, values: Environment) -> Entries:
        transition = self.group.transition
        # Entries that are constants of the program, as an exponential decay, need no derivative at run time.
        wanted = frozenset(key for key, fact in self.entries.items() if fact.value is None)
        hidden, residuals = transition.path.sources_from(values), transition.path.residuals_from(values)
        columns = transition.columns_at(hidden, residuals, wanted) if wanted else {}
        return {key: self._value(fact, columns.get(key)) for key, fact in self.entries.items()}

    def _value(self, fact: EntryFacts, values: jax.Array | None) -> jax.Array:
        """An entry of D or f, ``[1]`` where it is one number for all positions."""
        if values is None:
            assert fact.value is not None
            return jnp.full(1, fact.value, self.dtype)
        # One number where all positions share it: broadcasting does the rest, and a factorized trace needs it to be
        # one.
        return (values[:1] if fact.uniform else values).astype(self.dtype)

    def f(self, lanes: Alignment, values: Environment) -> Components:
        path, facts = lanes.connection.path, lanes.connection.facts
        (y,) = path.sources_from(values)
        known = all(fact.value is not None for fact in facts.values())
        columns = {} if known else lanes.connection.columns_at(y, path.residuals_from(values))
        return {a: self._value(fact, columns.get(a)) for a, fact in facts.items()}

    def uniform_f(self, lanes: Alignment) -> Mapping[int, bool]:
        return {a: fact.uniform for a, fact in lanes.connection.facts.items()}

    def constant_f(self, lanes: Alignment) -> Mapping[int, float] | None:
        facts = lanes.connection.facts
        known = {a: fact.value for a, fact in facts.items() if fact.value is not None}
        return known if len(known) == len(facts) else None

    def signal(self, same: SameStep) -> Components:
        return self._by_position(self.group.hidden_outvars, same.signals)

    def bypass(self, same: SameStep) -> Components:
        return self._by_position(self.group.hidden_invars, same.bypasses)

    def _by_position(self, variables: Sequence[Var], signals: Mapping[Var, jax.Array]) -> Components:
        by_component = {}
        for a in self.components:
            component = self.group.positions.components[a]
            if (var := variables[component.state]) in signals:
                at_positions = jax.vmap(lambda s, c=component: take_component(s, c))(signals[var])
                by_component[a] = at_positions.astype(self.dtype)
        return by_component
