"""When each equation of a step has to run: once, for all steps at once, or step after step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ..analyses.cache import cached_by_program
from ..analyses.levels import Level, levels_of
from ..ir._jax import Equation, Literal, Var
from ..ir.interpret import Environment, read, run_equations
from ..ir.nested import classify
from ..ir.primitives import Kind
from ..ir.program import ModuleInfo


@dataclass(frozen=True, eq=False)
class Stages:
    """The equations of a step by when they run.

    Attributes:
        static: made of parameters, constants and unchanging states: once per call.
        parallel: made of inputs beside these: for all steps of a chunk at once.
        sequential: the rest, which needs the state of the step before.
    """

    info: ModuleInfo
    static: tuple[Equation, ...]
    parallel: tuple[Equation, ...]
    sequential: tuple[Equation, ...]

    def static_values(self, params: Sequence[Any], other: Sequence[Any]) -> Environment:
        """Values of all static variables from parameter leaves and the leaves of other states."""
        info = self.info
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        environment.update(zip(info.weight_invars, params, strict=True))
        environment.update((v, x) for v, x in zip(info.other_invars, other, strict=True) if v in self.unchanged)
        run_equations(self.static, environment)
        return environment

    @cached_property
    def unchanged(self) -> frozenset[Var]:
        """Other states that the step returns as they are."""
        pairs = zip(self.info.other_invars, self.info.other_outvars, strict=True)
        return frozenset(before for before, after in pairs if after is before)

    @cached_property
    def _kept_parallel(self) -> tuple[Var, ...]:
        """Results of the parallel stage that later stages read or that are costly."""
        later = _variables_read(self.sequential) | {a for a in self.info.jaxpr.outvars if not isinstance(a, Literal)}
        return tuple(v for e in self.parallel for v in e.outvars if v in later or is_costly(e))

    @cached_property
    def _kept_sequential(self) -> tuple[Var, ...]:
        return tuple(v for e in self.sequential if is_costly(e) for v in e.outvars)

    def forward(
        self, static: Environment, inputs: Sequence[Any], hidden: Sequence[Any], other: Sequence[Any], length: int
    ) -> tuple[Environment, list[Any], list[Any]]:
        """Runs a chunk of steps.

        Args:
            static: from :meth:`static_values`.
            inputs: input leaves ``[K, ...]``.
            hidden: hidden leaves before the chunk.
            other: leaves of other states before the chunk.
            length: K.

        Returns:
            For each step ``[K, ...]`` its inputs, old states and the results that are costly to compute again; then
            the hidden and the other leaves after the chunk.
        """
        info = self.info
        stacked: Environment = dict(zip(info.input_invars, inputs, strict=True))
        if self._kept_parallel:
            stacked.update(zip(self._kept_parallel, over_steps(self._run_parallel(static), stacked), strict=True))

        given_vars, written = list(stacked), (*self._old_states, *self._kept_sequential)

        def step(carry: Any, given: Any) -> tuple[Any, Any]:
            environment: Environment = {**static, **dict(zip(given_vars, given, strict=True))}
            environment.update(zip((*info.hidden_invars, *info.other_invars), [*carry[0], *carry[1]], strict=True))
            run_equations(self.sequential, environment)
            _, new_hidden, new_other = self.results(environment)
            return (new_hidden, new_other), [environment[var] for var in written]

        start = (list(hidden), list(other))
        (hidden, other), records = jax.lax.scan(step, start, list(stacked.values()), length)
        stacked.update(zip(written, records, strict=True))
        return stacked, list(hidden), list(other)

    @property
    def recorded(self) -> tuple[Var, ...]:
        """What :meth:`forward` records of a step."""
        return (*self.info.input_invars, *self._kept_parallel, *self._old_states, *self._kept_sequential)

    @cached_property
    def _old_states(self) -> tuple[Var, ...]:
        return (*self.info.hidden_invars, *(v for v in self.info.other_invars if v not in self.unchanged))

    def results(self, environment: Environment) -> tuple[list[Any], list[Any], list[Any]]:
        """Output leaves, new hidden leaves and new leaves of other states, from the values of a step."""
        parts = (self.info.output_outvars, self.info.hidden_outvars, self.info.other_outvars)
        outputs, hidden, other = ([jnp.asarray(read(environment, atom)) for atom in part] for part in parts)
        return outputs, hidden, other

    def step(
        self, values: Environment, hidden: Sequence[Any], other: Sequence[Any]
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """One whole step from static values, inputs and old states; results as :meth:`results` has them."""
        environment = dict(values)
        environment.update(zip((*self.info.hidden_invars, *self.info.other_invars), [*hidden, *other], strict=True))
        run_equations((*self.parallel, *self.sequential), environment)
        return self.results(environment)

    def replay(self, static: Environment, recorded: Mapping[Var, Any]) -> Environment:
        """All variables of one step, from what :meth:`forward` recorded of it."""
        environment: Environment = {**static, **recorded}
        for eqn in (*self.parallel, *self.sequential):
            if eqn.outvars and not all(var in recorded for var in eqn.outvars):
                if is_costly(eqn):
                    continue
                run_equations([eqn], environment)
        return environment

    def _run_parallel(self, static: Environment) -> Callable[[Environment], list[Any]]:
        def run(given: Environment) -> list[Any]:
            environment = {**static, **given}
            run_equations(self.parallel, environment)
            return [environment[var] for var in self._kept_parallel]

        return run


def is_costly(eqn: Equation) -> bool:
    """Whether to keep a result rather than compute it again: products, reductions, random numbers."""
    return bool(eqn.effects) or classify(eqn) in (Kind.MIXING, Kind.OPAQUE)


def over_steps(function: Callable[..., Any], recorded: Mapping[Var, Any], *more: Any) -> Any:
    """``function(recorded of one step, *more of one step)`` for all steps of a chunk at once."""
    keys = list(recorded)

    def one(values: Sequence[Any], *rest: Any) -> Any:
        return function(dict(zip(keys, values, strict=True)), *rest)

    return jax.vmap(one)(list(recorded.values()), *more)


@cached_by_program
def stages_of(info: ModuleInfo) -> Stages:
    """The stages of a program."""
    levels = levels_of(info)
    changing = 0
    for var, after in zip(
        (*info.hidden_invars, *info.other_invars), (*info.hidden_outvars, *info.other_outvars), strict=True
    ):
        changing |= 0 if after is var else levels.bits[var]
    parts: dict[str, list[Equation]] = {"static": [], "parallel": [], "sequential": []}
    for eqn in info.equations:
        if eqn.effects:
            parts["sequential"].append(eqn)
        elif all(levels.of(var) is not Level.DYNAMIC for var in eqn.outvars):
            parts["static"].append(eqn)
        elif any(levels.sources[var] & changing for var in eqn.outvars):
            parts["sequential"].append(eqn)
        else:
            parts["parallel"].append(eqn)
    return Stages(info, *(tuple(part) for part in parts.values()))


def _variables_read(equations: Sequence[Equation]) -> set[Var]:
    return {a for eqn in equations for a in eqn.invars if not isinstance(a, Literal)}
