"""Runs the equations of a step over many steps: once for what is fixed, in phases for the rest.

For example, ``v' = a v + x @ softplus(w)`` with a constant ``a = exp(-0.1)``, over 100 steps:

    known      a, at compile time
    static     softplus(w), once per call
    forward    x @ softplus(w) of all steps, then a loop of v'; recorded are x, the product, and v before each step
    replay     a v and the sum again, for all steps at once: what the derivatives of the steps need
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program._jax import Equation, Literal, Var, dtype_of, is_key
from ...program.analysis.binding_time import BindingTime, binding_times_of
from ...program.analysis.cache import cached_by_program
from ...program.analysis.uniformity import all_equal
from ...program.interpret import Environment, read, run_equations
from ...program.program import ModuleInfo
from ...program.while_loops import bind_both_ways
from .schedule import Phase, StatePair, is_costly, schedule


@dataclass(frozen=True, eq=False)
class Stages:
    """The equations of a step, grouped by when they run.

    Attributes:
        static: made of parameters, constants and unchanging states: once per call.
        changing: the rest, which depends on inputs or states.
    """

    info: ModuleInfo
    static: tuple[Equation, ...]
    changing: tuple[Equation, ...]

    def static_values(self, params: Sequence[Any], other: Sequence[Any]) -> Environment:
        """Values of all static variables from parameter leaves and the leaves of other states."""
        info = self.info
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        environment.update(zip(info.weight_invars, params, strict=True))
        environment.update((v, x) for v, x in zip(info.other_invars, other, strict=True) if v in self.unchanged)
        environment.update((var, _array(value, even)) for var, (value, even) in self._known.items())
        # ``bind_both_ways``: gradients are pulled back through these equations, also through a ``while``.
        run_equations((eqn for eqn in self.static if not self._is_known(eqn)), environment, bind_both_ways)
        return environment

    @cached_property
    def _known(self) -> dict[Var, tuple[np.ndarray, bool]]:
        """Values of the constants that other equations read, and whether all elements are equal.

        The compiler has nothing left to compute there, and a number for all elements needs no memory.
        """
        made = {var for eqn in self.static if self._is_known(eqn) for var in eqn.outvars}
        read_by = [atom for eqn in (*self.static, *self.changing) if not self._is_known(eqn) for atom in eqn.invars]
        atoms = dict.fromkeys(a for a in (*read_by, *self.info.jaxpr.outvars) if not isinstance(a, Literal))
        values = {var: binding_times_of(self.info).constant_value(var) for var in atoms if var in made}
        return {var: (value, all_equal(value)) for var, value in values.items() if value is not None}

    def _is_known(self, eqn: Equation) -> bool:
        binding_times = binding_times_of(self.info)
        # A random key is no numpy array.
        known = (binding_times.of(var) is BindingTime.CONSTANT and not is_key(dtype_of(var)) for var in eqn.outvars)
        return bool(eqn.outvars) and not eqn.effects and all(known)

    @cached_property
    def unchanged(self) -> frozenset[Var]:
        """Other states that the step returns as they are."""
        pairs = zip(self.info.other_invars, self.info.other_outvars, strict=True)
        return frozenset(before for before, after in pairs if after is before)

    @cached_property
    def _costly(self) -> tuple[Var, ...]:
        return tuple(var for eqn in self.changing if is_costly(eqn) for var in eqn.outvars)

    @cached_property
    def _states(self) -> tuple[StatePair, ...]:
        """The states that change."""
        info = self.info
        pairs = zip((*info.hidden_invars, *info.other_invars), (*info.hidden_outvars, *info.other_outvars), strict=True)
        return tuple(StatePair(before, after) for before, after in pairs if before not in self.unchanged)

    @cached_property
    def _phases(self) -> list[Phase]:
        return schedule(self.changing, self._states, self._costly, binding_times_of(self.info))

    @property
    def recorded(self) -> tuple[Var, ...]:
        """What :meth:`forward` records of a step: inputs, old states and the results that are costly to compute."""
        return (*self.info.input_invars, *(state.before for state in self._states), *self._costly)

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
            What is ``recorded`` at every step, ``[K, ...]``; then the hidden and the other leaves after the chunk.
        """
        info = self.info
        # What tasks can make of static values, rows of a weight or a matrix of synapses, is made once and not per step.
        static = dict(static)
        for phase in self._phases:
            for task in phase.tasks:
                static.update(task.fixed(static))
        after = dict(zip((*info.hidden_invars, *info.other_invars), [*hidden, *other], strict=True))
        at_steps: Environment = dict(zip(info.input_invars, inputs, strict=True))
        for phase in self._phases:
            if phase.is_loop:
                self._run_loop(phase, static, at_steps, after, length)
            elif phase.recorded:
                results = over_steps(
                    lambda step, phase=phase: self._run(phase, static, step), _read_by(phase, at_steps)
                )
                at_steps.update(zip(phase.recorded, results, strict=True))
        recorded = {var: at_steps[var] for var in self.recorded}
        return recorded, [after[v] for v in info.hidden_invars], [after[v] for v in info.other_invars]

    def _run(self, phase: Phase, static: Environment, at_step: Environment) -> list[Any]:
        values = {**static, **at_step}
        phase.run(values)
        return [values[key] for key in phase.recorded]

    def _run_loop(
        self, phase: Phase, static: Environment, at_steps: Environment, after: Environment, length: int
    ) -> None:
        """Runs a loop; puts what it keeps into ``at_steps`` and the states after it into ``after``."""
        states = [self._states[number] for number in phase.states]
        # Old states are recorded, new ones are not: D_t is taken at h_{t-1}, and h_t is the old state of the next step.
        written = (*(state.before for state in states), *phase.recorded)
        at_each_step = _read_by(phase, at_steps, [state.after for state in states])

        def step(carry: list[Any], at_step: Environment) -> tuple[list[Any], list[Any]]:
            values = {**static, **at_step, **{state.before: x for state, x in zip(states, carry, strict=True)}}
            phase.run(values)
            return [jnp.asarray(read(values, state.after)) for state in states], [values[key] for key in written]

        keys = list(at_each_step)
        carry, records = jax.lax.scan(
            lambda carry, xs: step(carry, dict(zip(keys, xs, strict=True))),
            [after[state.before] for state in states],
            list(at_each_step.values()),
            length,
        )
        at_steps.update(zip(written, records, strict=True))
        after.update({state.before: x for state, x in zip(states, carry, strict=True)})

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
        run_equations(self.changing, environment)
        return self.results(environment)

    def replay(self, static: Environment, recorded: Mapping[Var, Any]) -> Environment:
        """All changing variables at every step, ``[K, ...]``, from what :meth:`forward` recorded."""
        replayed = [
            eqn for eqn in self.changing if not is_costly(eqn) and not all(var in recorded for var in eqn.outvars)
        ]
        variables = [var for eqn in replayed for var in eqn.outvars]

        def one(at_step: Environment) -> list[Any]:
            values = {**static, **at_step}
            run_equations(replayed, values)
            return [values[var] for var in variables]

        return {**recorded, **dict(zip(variables, over_steps(one, recorded), strict=True))}


def over_steps(function: Callable[..., Any], recorded: Mapping[Var, Any], *more: Any) -> Any:
    """``function(recorded of one step, *more of one step)`` for all steps of a chunk at once."""
    keys = list(recorded)

    def one(values: Sequence[Any], *rest: Any) -> Any:
        return function(dict(zip(keys, values, strict=True)), *rest)

    data = (list(recorded.values()), *more)
    # A chunk of one step, for an update at every step, needs no map; under one, a ``cond`` would run all its branches.
    if all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(data)):
        return jax.tree.map(lambda x: jnp.asarray(x)[None], one(*jax.tree.map(lambda x: x[0], data)))
    return jax.vmap(one)(*data)


@cached_by_program
def stages_of(info: ModuleInfo) -> Stages:
    """The stages of a program."""
    binding_times = binding_times_of(info)
    static, changing = [], []
    for eqn in info.equations:
        # A print or a callback belongs to its step, even if all that it shows is static.
        is_static = not eqn.effects and all(binding_times.of(var) is not BindingTime.DYNAMIC for var in eqn.outvars)
        (static if is_static else changing).append(eqn)
    return Stages(info, tuple(static), tuple(changing))


def _read_by(phase: Phase, at_steps: Environment, more: Sequence[Any] = ()) -> Environment:
    """The values at all steps that a phase reads."""
    keys = dict.fromkeys([key for task in phase.tasks for key in task.reads])
    keys.update(dict.fromkeys(atom for atom in more if not isinstance(atom, Literal)))
    return {key: at_steps[key] for key in keys if key in at_steps}


def _array(value: np.ndarray, even: bool) -> jax.Array:
    return jnp.full(value.shape, value.reshape(-1)[0], value.dtype) if even else jnp.asarray(value)
