"""Hidden groups: the hidden states of one population, and their transition.

For ``g' = 0.9 g + x @ w; v' = 0.8 v + g'`` with 3 neurons there is one group with 3 positions and S = 2 states, and

    D = d(g', v') / d(g, v) = [[0.9, 0  ],
                               [0.9, 0.8]]

at every position: v' feels the old g through the new one, since D is total within the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...util.counting import counted
from ...util.table import table
from .._jax import Var, trace
from ..diagnostic import Diagnostic, DiagnosticKind
from ..paths import Path, path_text
from ..program import ModuleInfo, Slot, shape_text
from ..remade import Recipe, Remade
from .cache import cached_by_program
from .positions import Positions
from .reachability import feeds_of, reach_by_gradient
from .state_clusters import StateEdges, arranged, clusters_of
from .transition import Entry, Transition, take_component


@dataclass(frozen=True, eq=False)
class HiddenGroup(Remade):
    """The hidden states of one population.

    A hidden state may hold several components: a state of shape ``(2N,)`` whose halves belong to the same
    neurons counts twice in ``num_state``.

    Attributes:
        index: number of the group.
        hidden_paths: names of the hidden states, in the model's order.
        hidden_states: their slots, with shapes, units and initial values.
        hidden_invars: variables of their old values.
        hidden_outvars: variables of their new values.
        positions: how their elements are arranged.
        transition: new values as a function of old ones, and D.
        state_indices: numbers of the states among those of the program.
    """

    index: int
    hidden_paths: tuple[Path, ...]
    hidden_states: tuple[Slot, ...]
    hidden_invars: tuple[Var, ...]
    hidden_outvars: tuple[Var, ...]
    positions: Positions
    transition: Transition
    state_indices: tuple[int, ...]

    def recipe(self) -> Recipe:
        return _group, (self.transition.info, self.index)

    @property
    def varshape(self) -> tuple[int, ...]:
        """Shape of the population: positions without the states."""
        return self.positions.shape

    @property
    def num_state(self) -> int:
        """S, the number of components at each position."""
        return len(self.positions.components)

    @property
    def transition_jaxpr_constvars(self) -> tuple[Var, ...]:
        """Variables of the step that the transition reads beside the old values."""
        return self.transition.residual_vars

    @cached_property
    def transition_jaxpr(self) -> Any:
        """The transition as a closed jaxpr: operands are the old values, then ``transition_jaxpr_constvars``."""
        count = len(self.hidden_paths)
        variables = (*self.hidden_invars, *self.transition_jaxpr_constvars)
        return trace(lambda *values: self.transition(values[:count], values[count:]), [var.aval for var in variables])

    def diagonal_jacobian(self, hidden_vals: Sequence[Any], input_vals: Sequence[Any]) -> jax.Array:
        """D at these old values and values of ``transition_jaxpr_constvars``: ``[*varshape, num_state, num_state]``."""
        return self.transition.jacobian_at(hidden_vals, input_vals)

    def concat_hidden(self, values: Sequence[Any]) -> jax.Array:
        """Arrays of the hidden states, in order, as one ``[*varshape, num_state]``."""
        columns = [take_component(values[c.state], c) for c in self.positions.components]
        return jnp.stack(columns, axis=-1).reshape(*self.varshape, self.num_state)

    def split_hidden(self, values: jax.Array) -> list[jax.Array]:
        """The arrays that :meth:`concat_hidden` put together, each in its state's dtype."""
        flat = values.reshape(self.positions.size, self.num_state)
        arrays = [jnp.zeros(int(np.prod(slot.shape, dtype=np.int64)), values.dtype) for slot in self.hidden_states]
        for a, component in enumerate(self.positions.components):
            present = component.elements >= 0
            # A state may hold several components, each at its own elements, so they are put in one after the other.
            state = arrays[component.state]
            arrays[component.state] = state.at[component.elements[present]].set(flat[present, a])
        states = zip(arrays, self.hidden_states, strict=True)
        return [array.reshape(slot.shape).astype(slot.dtype) for array, slot in states]

    @cached_property
    def component_names(self) -> tuple[str, ...]:
        return tuple(path_text(self.hidden_paths[c.state]) + c.suffix for c in self.positions.components)

    def __str__(self) -> str:
        head = (
            f"HiddenGroup {self.index}: {counted(self.num_state, 'state')} at "
            f"{counted(self.positions.size, 'position')} {shape_text(self.varshape)}"
        )
        entries = self.transition.entries
        rows = [
            (name, *(_entry_text(entries[a][b]) for b in range(self.num_state)))
            for a, name in enumerate(self.component_names)
        ]
        header = ("D = dh/dh", *self.component_names)
        return "\n".join([head, *table(header, rows)])

    __repr__ = __str__


def _group(info: ModuleInfo, index: int) -> HiddenGroup:
    return analyse_groups(info).groups[index]


def _entry_text(entry: Entry) -> str:
    return "0" if entry is None else str(entry)


@dataclass(frozen=True, eq=False)
class GroupAnalysis:
    """All hidden groups of a program, and what could not be arranged."""

    groups: tuple[HiddenGroup, ...]
    group_of: dict[Path, HiddenGroup]
    diagnostics: tuple[Diagnostic, ...]


def find_hidden_groups_from_minfo(info: ModuleInfo) -> tuple[list[HiddenGroup], dict[Path, HiddenGroup]]:
    """Finds the hidden groups of a program.

    Args:
        info: from :func:`ranvier.extract_module_info`.

    Returns:
        The groups, ordered by their first hidden state, and a dictionary from hidden path to group.
    """
    analysis = analyse_groups(info)
    return list(analysis.groups), dict(analysis.group_of)


@cached_by_program
def analyse_groups(info: ModuleInfo) -> GroupAnalysis:
    """Hidden groups with the diagnostics of finding them."""
    diagnostics: list[Diagnostic] = []
    groups: list[HiddenGroup] = []
    for members, edges in clusters_of(info, diagnostics):
        for states, positions in arranged(info, members, edges, diagnostics):
            groups.append(_make_group(info, len(groups), states, positions, edges.by_state))
    diagnostics += _mixed_state_diagnostics(info)
    group_of = {path: group for group in groups for path in group.hidden_paths}
    return GroupAnalysis(tuple(groups), {slot.path: group_of[slot.path] for slot in info.hidden}, tuple(diagnostics))


def _mixed_state_diagnostics(info: ModuleInfo) -> list[Diagnostic]:
    feeds, by_gradient = feeds_of(info), reach_by_gradient(info)
    message = (
        "reaches the next step only through mixing operations, so D is zero for it and learning rules built on D carry "
        "nothing through it."
    )
    return [
        Diagnostic(DiagnosticKind.STATE_MIXED, message, paths=(slot.path,))
        for slot, var in zip(info.hidden, info.hidden_invars, strict=True)
        if by_gradient.hidden(var) and not any(gradient for _, gradient in feeds.of(var))
    ]


def _make_group(
    info: ModuleInfo, index: int, states: list[int], positions: Positions, edges: StateEdges
) -> HiddenGroup:
    place = {k: n for n, k in enumerate(states)}
    gradient_edges = {
        (place[t], place[s]): by_gradient[True]
        for (t, s), by_gradient in edges.items()
        if t in place and s in place and True in by_gradient
    }
    return HiddenGroup(
        index=index,
        hidden_paths=tuple(info.hidden[k].path for k in states),
        hidden_states=tuple(info.hidden[k] for k in states),
        hidden_invars=tuple(info.hidden_invars[k] for k in states),
        hidden_outvars=tuple(info.hidden_outvars[k] for k in states),
        positions=positions,
        transition=Transition(info, tuple(states), positions, gradient_edges),
        state_indices=tuple(states),
    )


def element_positions(group: HiddenGroup, state: int) -> np.ndarray:
    """For every element of a group's state its position."""
    size = int(np.prod(group.hidden_states[state].shape, dtype=np.int64))
    return group.positions.of_elements(state, size)
