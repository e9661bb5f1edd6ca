"""Running a step with perturbations added to its hidden states, so that learning signals come out partial.

A perturbation of a new hidden state is seen by everything in the step except the computation of its own group's other
states (design, section 3). So a variable between two states of a group has two versions: one for the group itself, and
one for the rest of the step. A perturbation of an old hidden state is seen by everything except the computation of its
own group's new states: it stands for what the state does to the outputs past them.

In ``g' = 0.8 g + x @ w; v' = 0.9 v + g'; out = v' + g'`` g and v are one group with the bit 1. g' is needed in version
1, without the perturbations of the group, for v', and in version 0, with all of them, for out. The sum of v' is run in
version 1 and the perturbation of v' added to it; the sum of out is run in version 0.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from .._jax import Equation, Literal, Var, located_at
from ..interpret import Apply
from ..program import ModuleInfo
from ..while_loops import bind_both_ways
from .hidden_groups import analyse_groups


class PerturbedStep:
    """Which variables are needed in which versions, a version being the set of perturbations it must not see, a bit
    mask: for every group one bit for its new states, and one for its old states in ``old``. A new state is computed
    without the perturbations of its own group."""

    def __init__(self, info: ModuleInfo, old: Sequence[Var] = ()) -> None:
        self.info = info
        group_of = {j: g.index for g in analyse_groups(info).groups for j in g.state_indices}
        wanted = set(old)
        self.old_bit = {var: 2 << 2 * group_of[j] for j, var in enumerate(info.hidden_invars) if var in wanted}
        self.old_mask = functools.reduce(operator.or_, self.old_bit.values(), 0)
        self.own_bit = {
            var: (1 << 2 * group_of[j]) | (2 << 2 * group_of[j]) & self.old_mask
            for j, var in enumerate(info.hidden_outvars)
        }
        self.upstream = self._upstream()
        self.versions = self._versions()

    def _upstream(self) -> dict[Var, int]:
        """For every variable, the perturbations it is made of."""
        upstream: dict[Var, int] = dict(self.old_bit)
        for eqn in self.info.equations:
            mask = self._upstream_of(eqn, upstream)
            for var in eqn.outvars:
                # A new state is computed without the old perturbations of its group, so it hands none of them on.
                group_bits = self.own_bit.get(var, 0)
                upstream[var] = (mask | group_bits) & ~(group_bits & self.old_mask)
        return upstream

    @staticmethod
    def _upstream_of(eqn: Equation, upstream: Mapping[Var, int]) -> int:
        mask = 0
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                mask |= upstream.get(atom, 0)
        return mask

    def _versions(self) -> dict[Var, set[int]]:
        """For every variable, the versions in which something reads it."""
        wanted: dict[Var, set[int]] = {}
        for atom in self.info.jaxpr.outvars:
            if not isinstance(atom, Literal):
                wanted.setdefault(atom, set()).add(0)
        for eqn in reversed(self.info.equations):
            for version in self._runs(eqn, wanted):
                for atom in eqn.invars:
                    # Versions that differ only in perturbations that an operand is not made of are one.
                    if not isinstance(atom, Literal):
                        wanted.setdefault(atom, set()).add(version & self.upstream.get(atom, 0))
        return wanted

    def _runs(self, eqn: Equation, wanted: Mapping[Var, set[int]]) -> set[int]:
        """The versions in which an equation runs."""
        reaching = self._upstream_of(eqn, self.upstream)
        runs = {
            (version | self.own_bit.get(var, 0)) & reaching for var in eqn.outvars for version in wanted.get(var, ())
        }
        return runs | ({0} if eqn.effects else set())

    @cached_property
    def schedule(self) -> tuple[tuple[Equation, tuple[int, ...]], ...]:
        """The equations in order, each with the versions in which it runs."""
        return tuple((eqn, tuple(sorted(self._runs(eqn, self.versions)))) for eqn in self.info.equations)

    def run(
        self,
        values: Mapping[Var, Any],
        added: Mapping[Var, Any],
        schedule: Sequence[tuple[Equation, Sequence[int]]] | None = None,
        apply: Apply = bind_both_ways,
        everywhere: Mapping[Var, Any] | None = None,
    ) -> list[Any]:
        """Results of the step, in the order of the jaxpr.

        Args:
            values: variable to value, for operands, constants and everything else that ``schedule`` does not compute.
            added: new or old hidden state to what is added to it in the versions that see it.
            schedule: the part of :attr:`schedule` to run; all of it by default.
            apply: how to apply an equation.
            everywhere: any variable to what is added to it in all versions, even where it is itself a new state.
        """
        in_all = everywhere or {}
        known: dict[tuple[Var, int], Any] = {}
        for var, plus in (*added.items(), *in_all.items()):
            if var in values:
                known[var, 0] = known.get((var, 0), values[var]) + plus

        def read(atom: Any, version: int) -> Any:
            if isinstance(atom, Literal):
                return atom.val
            computed = known.get((atom, version & self.upstream.get(atom, 0)))
            return values[atom] if computed is None else computed

        for eqn, runs in self.schedule if schedule is None else schedule:
            results: dict[int, Sequence[Any]] = {}
            for version in runs:
                with located_at(eqn):
                    results[version] = apply(eqn, [read(atom, version) for atom in eqn.invars])
            known.update(self._results(eqn, results, added, in_all))
        return [read(atom, 0) for atom in self.info.jaxpr.outvars]

    def _results(
        self,
        eqn: Equation,
        results: Mapping[int, Sequence[Any]],
        added: Mapping[Var, Any],
        in_all: Mapping[Var, Any],
    ) -> Iterator[tuple[tuple[Var, int], Any]]:
        """The results of an equation in every version that is needed, from those in which it ran."""
        reaching = self._upstream_of(eqn, self.upstream)
        for number, var in enumerate(eqn.outvars):
            group_bits = self.own_bit.get(var, 0)
            for version in self.versions.get(var, ()):
                # All versions of a new state come from one run; they differ in whether its own perturbation is added.
                run = (version | group_bits) & reaching
                if run not in results:
                    continue
                value = results[run][number]
                value = value + in_all[var] if var in in_all else value
                is_seen = var in added and not version & group_bits & ~self.old_mask
                yield (var, version), value + added[var] if is_seen else value
