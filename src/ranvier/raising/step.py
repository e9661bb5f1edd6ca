"""A program's step as raising sees it: what changes, the states part by part, and the values of what stays fixed.

For example::

    def step(params, state, x):                      # x: 3 numbers; v, z: 2 numbers each
        v = 0.9 * state["v"] + jnp.concatenate([x, state["z"]]) @ params["w"]
        z = (v > 1).astype(v.dtype)
        return {"v": v, "z": z}, z

has two states, which are ``OldState(0, 0)`` and ``OldState(1, 0)``. All six equations depend on x, v or z, so all of
them change from step to step. ``params["w"]`` is the only variable that stays fixed. Had the step masked its weight,
``params["w"] * mask`` would be an equation of fixed values: it belongs to no population, and is evaluated once.
The other modules of this folder go on with this example.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..program._jax import Equation, Literal, Var, bind, dtype_of, is_floating, size_of
from ..program.analysis.binding_time import BindingTimes, binding_times_of
from ..program.analysis.dependence import Dependences, equation_dependences
from ..program.analysis.hidden_groups import analyse_groups
from ..program.interpret import Apply, Environment, needed_equations, run_equations
from ..program.program import ModuleInfo
from .references import Earlier, OldState, Root


@dataclass(frozen=True, eq=False)
class StepView:
    """A step as raising sees it.

    Attributes:
        info: the program.
        binding_times: of all variables.
        equations: those that change from step to step and that states or outputs depend on, in order.
        states: old and new variable of every state, hidden states first.
        parts: of every part of a changing state its elements, in order; None for the whole state.
    """

    info: ModuleInfo
    binding_times: BindingTimes
    equations: tuple[Equation, ...]
    states: tuple[tuple[Var, Any], ...]
    parts: Mapping[OldState, np.ndarray | None]

    def is_static(self, root: Root) -> bool:
        """Whether a root does not change from step to step."""
        return not isinstance(root, (OldState, Earlier)) and self.binding_times.is_static(root)

    def is_learned(self, var: Var) -> bool:
        """Whether a real value that does not change from step to step follows a parameter when that is trained.

        What an argmax of a weight picks, or a comparison with one, has no derivative but follows it all the same.
        """
        bits, times = self.binding_times.bits, self.binding_times
        parameters = sum(bits[leaf] for leaf in self.info.weight_invars)
        follows = is_floating(dtype_of(var)) and bool(times.sources.get(var, 0) & parameters)
        return follows or bool(times.learned_of(var))

    def size(self, root: Root) -> int:
        """Number of elements of a root."""
        if isinstance(root, Earlier):
            return self.size(root.root)
        if not isinstance(root, OldState):
            return size_of(root)
        elements = self.parts[root]
        return size_of(self.states[root.state][0]) if elements is None else elements.size

    def dependences(self, eqn: Equation) -> list[Dependences]:
        """For every result of an equation, where its elements come from."""
        return equation_dependences(eqn, self.binding_times.constant_value)

    def initial_state(self, number: int) -> Any:
        """What a state is before the first step."""
        leaves = [leaf for slot in (*self.info.hidden, *self.info.other) for leaf in slot.initial]
        return leaves[number]

    def initial_part(self, part: OldState) -> np.ndarray:
        """What a part of a state is before the first step, flat."""
        value = np.asarray(self.initial_state(part.state)).reshape(-1)
        elements = self.parts[part]
        return value if elements is None else value[elements]

    @cached_property
    def static(self) -> Environment:
        """Values of all that does not change, with the model's own parameters."""
        return self.static_values([leaf for slot in self.info.parameters for leaf in slot.initial])

    def static_values(self, parameters: Iterable[Any], apply: Apply = bind) -> Environment:
        """Values of all that does not change, from the leaves of all parameters."""
        info = self.info
        environment: Environment = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
        initial = [leaf for slot in info.other for leaf in slot.initial]
        pairs = zip(info.other_invars, initial, strict=True)
        environment.update((var, leaf) for var, leaf in pairs if self.binding_times.is_static(var))
        environment.update(zip(info.weight_invars, parameters, strict=True))
        run_equations(self._static_equations, environment, apply)
        return environment

    @cached_property
    def _static_equations(self) -> list[Equation]:
        is_static = self.binding_times.is_static
        static = [e for e in self.info.equations if e.outvars and all(is_static(v) for v in e.outvars)]
        return [e for e in static if not e.effects]

    def repeated_number(self, var: Var) -> Var:
        """The single number that a static variable repeats, where it was made of one; else the variable.

        So a time constant that all neurons share stays one number of the population, whatever shape it was broadcast
        to.
        """
        producers = self.binding_times.producers
        eqn = producers.get(var)
        while eqn is not None and eqn.primitive.name in ("broadcast_in_dim", "reshape"):
            source = eqn.invars[0]
            if isinstance(source, Literal) or (size_of(source) != size_of(var) and size_of(source) != 1):
                break
            if size_of(source) == 1:
                return source
            eqn = producers.get(source)
        return var


def view_step(info: ModuleInfo) -> StepView:
    """The step of a program, with what changes separated from what stays fixed."""
    binding_times = binding_times_of(info)
    results = [*info.hidden_outvars, *info.other_outvars, *info.output_outvars]
    # Equations that nothing depends on would become populations that nobody reads.
    needed = needed_equations(info.equations, results)
    changing = [e for e in needed if e.outvars and not all(binding_times.is_static(v) for v in e.outvars)]
    states = (
        *zip(info.hidden_invars, info.hidden_outvars, strict=True),
        *zip(info.other_invars, info.other_outvars, strict=True),
    )
    return StepView(info, binding_times, tuple(changing), states, _parts(info, states, binding_times))


def _parts(
    info: ModuleInfo, states: tuple[tuple[Var, Any], ...], binding_times: BindingTimes
) -> dict[OldState, np.ndarray | None]:
    parts: dict[OldState, np.ndarray | None] = {}
    packed = _packed_states(info)
    for number, (old, _) in enumerate(states):
        if binding_times.is_static(old):
            continue
        for component, elements in enumerate(packed.get(number, [None])):
            parts[OldState(number, component)] = elements
    return parts


def _packed_states(info: ModuleInfo) -> dict[int, list[np.ndarray | None]]:
    """States that hold several numbers of each neuron, with the elements of each.

    An LSTM that keeps h and c in one array of 2 n numbers is n neurons with two states, not 2 n neurons.
    """
    packed: dict[int, list[np.ndarray | None]] = {}
    for group in analyse_groups(info).groups:
        for place, state in enumerate(group.state_indices):
            parts = [c.elements for c in group.positions.components if c.state == place]
            size = size_of(info.hidden_invars[state])
            # Only where the parts cover the state exactly once can it be put together again from populations.
            covered = np.sort(np.concatenate(parts))
            if 1 < len(parts) <= group.positions.size and np.array_equal(covered, np.arange(size)):
                packed[state] = list(parts)
    return packed
