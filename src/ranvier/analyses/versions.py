"""Running a step with perturbations added to its new hidden states, so that learning signals come out partial.

A perturbation is seen by everything in the step except the computation of its own group's other states (design,
section 3). So a variable between two states of a group has two versions: one for the group itself, and one for the rest
of the step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from ..ir._jax import Equation, Literal, Var, bind, located_at
from ..ir.interpret import Apply
from ..ir.program import ModuleInfo
from .cache import cached_by_program
from .hidden_groups import analyse_groups


class PerturbedStep:
    """Which variables are needed in which versions, a version being the set of groups whose own perturbations it
    must not see (a bit mask); a new state is computed without its own group's perturbations."""

    def __init__(self, info: ModuleInfo) -> None:
        self.info = info
        group_bit = {j: 1 << g.index for g in analyse_groups(info).groups for j in g.state_indices}
        self.own_bit = {var: group_bit[j] for j, var in enumerate(info.hidden_outvars)}
        self.upstream = self._upstream()
        self.versions = self._versions()

    def _upstream(self) -> dict[Var, int]:
        """For every variable, the groups whose new states it is made of."""
        found: dict[Var, int] = {}
        for eqn in self.info.equations:
            mask = self._upstream_of(eqn, found)
            for var in eqn.outvars:
                found[var] = mask | self.own_bit.get(var, 0)
        return found

    @staticmethod
    def _upstream_of(eqn: Equation, found: Mapping[Var, int]) -> int:
        mask = 0
        for atom in eqn.invars:
            if not isinstance(atom, Literal):
                mask |= found.get(atom, 0)
        return mask

    def _versions(self) -> dict[Var, set[int]]:
        wanted: dict[Var, set[int]] = {}
        for atom in self.info.jaxpr.outvars:
            if not isinstance(atom, Literal):
                wanted.setdefault(atom, set()).add(0)
        for eqn in reversed(self.info.equations):
            for version in self._runs(eqn, wanted):
                for atom in eqn.invars:
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
        apply: Apply = bind,
    ) -> list[Any]:
        """Results of the step, in the order of the jaxpr.

        Args:
            values: variable to value, for operands, constants and everything else that ``schedule`` does not compute.
            added: variable to what is added to it once it is computed; new hidden states, and any others.
            schedule: the part of :attr:`schedule` to run; all of it by default.
            apply: how to apply an equation.
        """
        known: dict[tuple[Var, int], Any] = {(var, 0): value for var, value in values.items()}

        def read(atom: Any, version: int) -> Any:
            if isinstance(atom, Literal):
                return atom.val
            value = known.get((atom, version & self.upstream.get(atom, 0)))
            return known[atom, 0] if value is None else value

        for eqn, runs in self.schedule if schedule is None else schedule:
            results = {}
            for version in runs:
                with located_at(eqn):
                    results[version] = apply(eqn, [read(atom, version) for atom in eqn.invars])
            reaching = self._upstream_of(eqn, self.upstream)
            for number, var in enumerate(eqn.outvars):
                own = self.own_bit.get(var, 0)
                for version in self.versions.get(var, ()):
                    value = results[(version | own) & reaching][number]
                    seen = var in added and not version & own
                    known[var, version] = value + added[var] if seen else value
        return [read(atom, 0) for atom in self.info.jaxpr.outvars]


@cached_by_program
def perturbed_step(info: ModuleInfo) -> PerturbedStep:
    """The versions of a program's variables."""
    return PerturbedStep(info)
