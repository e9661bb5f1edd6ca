"""Hidden-parameter relations: which projections, with which parameters, drive which populations.

In ``y = x @ w; v' = 0.9 v + concatenate([y, 2 y])`` with y of 2 elements and 4 neurons, the relation of w reaches one
group over 4 lanes: (0, 0), (1, 1), (0, 2), (1, 3), each an element of y and the position that it feeds. f = dv'/dy is
[1, 1, 2, 2] by lane. Each element of y feeds two positions, but no position is fed by two elements, so one forward-mode
product with a tangent of ones gives all four numbers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import Var, size_of, trace
from ..diagnostic import Diagnostic
from ..paths import Path, path_text
from ..program import ModuleInfo, Slot
from ..remade import Recipe, Remade
from .binding_time import BindingTime, binding_times_of
from .cache import cached_by_program
from .coloring import color
from .explanations import parameter_diagnostics, second_mixing_diagnostics
from .hidden_groups import HiddenGroup, analyse_groups, element_positions
from .parameter_use import ParameterUse
from .parameter_uses import parameter_uses_of
from .reachability import Feeds, feeds_of, reach_by_gradient
from .slices import Slice, slice_between
from .transition import EntryFacts, take_component
from .uniformity import jaxpr_facts

MANY_COLORS = 4
"""From this many more seeds than one f is computed for all of them at once."""


@dataclass(frozen=True, eq=False)
class Connection:
    """How the result y of a relation reaches one group.

    A lane is a pair (element of y, position of the group) with a path between them. Where every element of y
    feeds one position, lanes are the elements of y.

    Attributes:
        group: the group reached.
        states: indices of the hidden states reached, within the group.
        y_index: int64 ``[lanes]``, flat index in y.
        position: int64 ``[lanes]``, flat position in the group.
    """

    group: HiddenGroup
    states: tuple[int, ...]
    y_index: np.ndarray
    position: np.ndarray
    _y: Var
    _info: ModuleInfo
    _feeds: Feeds

    @cached_property
    def path(self) -> Slice:
        """The equations from y to the group's new hidden states."""
        return slice_between(self._info, self._feeds, [self._y], [self.group.state_indices[s] for s in self.states])

    @property
    def hidden_paths(self) -> tuple[Path, ...]:
        return tuple(self.group.hidden_paths[state] for state in self.states)

    @property
    def is_identity(self) -> bool:
        """Whether element k of y feeds position k and nothing else."""
        size = self.group.positions.size
        straight = np.arange(size)
        return np.array_equal(self.y_index, straight) and np.array_equal(self.position, straight)

    def f(self, values: Mapping[Var, Any]) -> jax.Array:
        """f = dh/dy for the step that ``values`` come from, along elementwise and structural paths.

        Args:
            values: variable to array, from :meth:`ranvier.ModuleInfo.values`.

        Returns:
            ``[lanes, S]``; entry ``[l, a]`` is d component a at ``position[l]`` / d element ``y_index[l]`` of y.
        """
        (y,) = self.path.sources_from(values)
        columns = self.columns_at(y, self.path.residuals_from(values))
        zero = jnp.zeros(self.y_index.size, y.dtype)
        return jnp.stack([columns.get(a, zero) for a in range(self.group.num_state)], axis=-1)

    def columns_at(self, y: Any, residuals: Sequence[Any]) -> dict[int, jax.Array]:
        """f at this y and these residuals: component to ``[lanes]``, for the components that y can reach."""
        # Elements of y that meet at a position get different colors, and a product of its own each; otherwise their
        # derivatives would add up and could not be separated.
        colors = self._colors
        last = int(colors.max(initial=0))
        if last >= MANY_COLORS:
            return self._columns_at_once(y, residuals)
        columns: dict[int, jax.Array] = {}
        for c in range(last + 1):
            seed = jnp.asarray(colors == c, dtype=y.dtype).reshape(y.shape)
            _, pushed = jax.jvp(lambda value: self.path([value], residuals), (y,), (seed,))
            answers = jnp.asarray(colors[self.y_index] == c, dtype=y.dtype) if last else None
            for a in self.components:
                entry = self._read(pushed, a)
                entry = entry if answers is None else entry * answers
                columns[a] = columns[a] + entry if a in columns else entry
        return columns

    def _columns_at_once(self, y: Any, residuals: Sequence[Any]) -> dict[int, jax.Array]:
        """As :meth:`columns_at`, with one product for all colors, so that the program does not grow with them."""
        colors = self._colors
        seeds = jnp.asarray(np.arange(colors.max() + 1)[:, None] == colors, y.dtype).reshape(-1, *y.shape)

        def push(seed: jax.Array) -> list[jax.Array]:
            pushed = jax.jvp(lambda value: self.path([value], residuals), (y,), (seed,))[1]
            return [self._read(pushed, a) for a in self.components]

        lane = np.arange(self.y_index.size)
        by_component = jax.vmap(push)(seeds)
        return {a: x[colors[self.y_index], lane] for a, x in zip(self.components, by_component, strict=True)}

    @cached_property
    def components(self) -> tuple[int, ...]:
        """The components of the group that y reaches within the step."""
        return tuple(a for a, c in enumerate(self.group.positions.components) if c.state in self.states)

    @cached_property
    def facts(self) -> dict[int, EntryFacts]:
        """What is known of f before any data is seen, by component."""
        (source,), residuals = self.path.sources, self.path.residuals
        binding_times = binding_times_of(self._info)
        traced = trace(
            lambda y, *rest: list(self.columns_at(y, rest).values()), [var.aval for var in (source, *residuals)]
        )
        operand_binding_times = [BindingTime.DYNAMIC, *(binding_times.of(var) for var in residuals)]
        constants = [None, *(binding_times.constant_value(var) for var in residuals)]
        facts = jaxpr_facts(traced, operand_binding_times, constants)
        return {a: EntryFacts(*fact) for a, fact in zip(self.components, facts, strict=True)}

    def _read(self, pushed: Sequence[Any], a: int) -> jax.Array:
        component = self.group.positions.components[a]
        state = pushed[self.states.index(component.state)]
        size = self.group.positions.size
        straight = self.position.size == size and np.array_equal(self.position, np.arange(size))
        return take_component(state, component, None if straight else self.position)

    @cached_property
    def _colors(self) -> np.ndarray:
        """Colors of y's elements so that a position is fed by at most one element of each color."""
        order = np.argsort(self.position, kind="stable")
        position, y_index = self.position[order], self.y_index[order]
        conflicts = []
        for distance in range(1, self._most_per_position(position)):
            same = position[distance:] == position[:-distance]
            conflicts.append((y_index[distance:][same], y_index[:-distance][same]))
        return color(size_of(self.path.sources[0]), conflicts)

    @staticmethod
    def _most_per_position(position: np.ndarray) -> int:
        return int(np.bincount(position).max(initial=0)) if position.size else 0


@dataclass(frozen=True, eq=False)
class HiddenParamOpRelation(Remade):
    """One parameter's part in one projection.

    Attributes:
        path: the parameter's name.
        leaves: variables of the parameter's stored leaves that take part.
        operation: the projection ``y = op(xs, transform(parameter))``, its kind and why it has that kind.
        connections: the groups reached from y without mixing in between.
        indirect_groups: groups that y reaches only through another mixing operation of the same step. With no
            connection at all the relation is weight to weight: the parameter has its exact same-step gradient
            and no trace.
    """

    path: Path
    leaves: tuple[Var, ...]
    operation: ParameterUse
    connections: tuple[Connection, ...]
    indirect_groups: tuple[HiddenGroup, ...]
    _info: ModuleInfo

    def recipe(self) -> Recipe:
        return _relation, (self._info, analyse_relations(self._info).relations.index(self))

    @property
    def x(self) -> Var | tuple[Var, ...] | None:
        """The data operand; None for an elementwise parameter, a tuple where there are several."""
        xs = self.operation.xs
        return xs[0] if len(xs) == 1 else xs or None

    @property
    def y(self) -> Var:
        """The result of the projection; for an elementwise parameter the operand itself."""
        return self.operation.y

    @property
    def kind(self) -> str:
        """The class of the relation: ``"affine"``, ``"conv"``, ..., or ``"weight-to-weight"``."""
        return self.operation.kind.value if self.connections else "weight-to-weight"

    @property
    def reason(self) -> str:
        """Why the relation has its class."""
        if self.connections:
            return self.operation.reason
        return "every path to a hidden state goes through a mixing operation of the same step"

    @property
    def weight(self) -> Slot:
        """The parameter, with its value."""
        return self._info.slots[self.path]

    @cached_property
    def y_to_hidden_group_jaxprs(self) -> list[Any]:
        """For every group a closed jaxpr from y to the hidden states that it reaches there.

        Operands are y, then the residuals of the connection's path.
        """
        paths = [connection.path for connection in self.connections]
        return [
            trace(lambda y, *rest, path=path: path([y], rest), [var.aval for var in (*path.sources, *path.residuals)])
            for path in paths
        ]

    def y_to_hidden_groups(
        self, y_val: Any, const_vals: Mapping[Var, Any], concat_hidden_vals: bool = True
    ) -> list[Any]:
        """New hidden states of every group for another y.

        Args:
            y_val: y, of its shape.
            const_vals: values of the other variables of the step, from :meth:`ranvier.ModuleInfo.values`.
            concat_hidden_vals: whether the states of a group are put together, ``[*varshape, num_state]``.
        """
        new_states = []
        for connection in self.connections:
            group, path = connection.group, connection.path
            values = dict(zip(path.targets, path([y_val], path.residuals_from(const_vals)), strict=True))
            states = [values[var] if var in values else const_vals[var] for var in group.hidden_outvars]
            new_states.append(group.concat_hidden(states) if concat_hidden_vals else states)
        return new_states

    @property
    def hidden_groups(self) -> tuple[HiddenGroup, ...]:
        return tuple(connection.group for connection in self.connections)

    @property
    def connected_hidden_paths(self) -> tuple[Path, ...]:
        return tuple(path for connection in self.connections for path in connection.hidden_paths)

    def __str__(self) -> str:
        text = self._info.text
        xs = ", ".join(text(x) for x in self.operation.xs) or "none"
        rows = [
            ("parameter", ", ".join(text(leaf) for leaf in self.leaves)),
            ("x", xs),
            ("y", text(self.y)),
            ("kind", f"{self.kind}: {self.reason}"),
        ]
        for connection in self.connections:
            names = ", ".join(map(path_text, connection.hidden_paths))
            rows.append((f"group {connection.group.index}", names + _lanes_text(connection, size_of(self.y))))
        for group in self.indirect_groups:
            rows.append((f"group {group.index}", "through a mixing operation: same-step gradient, no trace"))
        width = max(len(label) for label, _ in rows)
        head = f"HiddenParamOpRelation {path_text(self.path)}"
        return "\n".join([head, *(f"  {label.ljust(width)}  {value}" for label, value in rows)])

    __repr__ = __str__


def _relation(info: ModuleInfo, index: int) -> HiddenParamOpRelation:
    return analyse_relations(info).relations[index]


def _lanes_text(connection: Connection, y_size: int) -> str:
    if connection.is_identity and y_size == connection.group.positions.size:
        return ""
    return f"  ({connection.y_index.size} of {y_size} elements of y to {connection.group.positions.size} positions)"


@dataclass(frozen=True, eq=False)
class RelationAnalysis:
    """All relations of a program, with the reasons for what is no relation."""

    relations: tuple[HiddenParamOpRelation, ...]
    diagnostics: tuple[Diagnostic, ...]


def find_hidden_param_op_relations_from_minfo(
    info: ModuleInfo, hid_path_to_group: Mapping[Path, HiddenGroup] | None = None
) -> list[HiddenParamOpRelation]:
    """Finds the relations between parameters and hidden groups.

    Args:
        info: from :func:`ranvier.extract_module_info`.
        hid_path_to_group: the dictionary from :func:`ranvier.find_hidden_groups_from_minfo`; the program's own
            groups where it is left out.

    Returns:
        One relation per parameter and projection, in program order. Weight-to-weight relations are among
        them, with no hidden groups.
    """
    relations = analyse_relations(info).relations
    if hid_path_to_group is None:
        return list(relations)
    wanted = {id(group) for group in hid_path_to_group.values()}
    return [r for r in relations if not r.connections or any(id(g) in wanted for g in r.hidden_groups)]


@cached_by_program
def analyse_relations(info: ModuleInfo) -> RelationAnalysis:
    """Relations with the diagnostics about parameters that have none."""
    binding_times, place = binding_times_of(info), _places(info)
    indirect = reach_by_gradient(info)
    relations: list[HiddenParamOpRelation] = []
    notes: list[Diagnostic] = []
    for operation in parameter_uses_of(info):
        connections = connections_of(info, operation.y, feeds_of(info))
        reached = dict.fromkeys(place[j][0] for j in indirect.hidden(operation.y))
        rest = tuple(g for g in reached if all(g is not c.group for c in connections))
        if not connections and not rest:
            continue
        for slot in sorted(operation.slots):
            path = info.parameters[slot].path
            leaves = tuple(
                var
                for var in info.weight_path_to_invars[path]
                if any(binding_times.learned_of(w) & binding_times.bits[var] for w in operation.operands)
            )
            relations.append(HiddenParamOpRelation(path, leaves, operation, connections, rest, info))
        paths = tuple(info.parameters[slot].path for slot in sorted(operation.slots))
        notes += second_mixing_diagnostics(info, paths, operation.y, bool(connections))
    notes += parameter_diagnostics(info, {relation.path for relation in relations})
    return RelationAnalysis(tuple(relations), tuple(notes))


@cached_by_program
def _places(info: ModuleInfo) -> dict[int, tuple[HiddenGroup, int]]:
    """For every hidden state its group and its number there."""
    groups = analyse_groups(info).groups
    return {j: (group, n) for group in groups for n, j in enumerate(group.state_indices)}


def connections_of(info: ModuleInfo, y: Var, feeds: Feeds) -> tuple[Connection, ...]:
    """How a variable of the step reaches hidden groups without mixing in between, along some feeds."""
    fed = {j: maps for (j, gradient), maps in feeds.of(y).items() if gradient}
    if not fed:
        return ()
    place = _places(info)
    reached: dict[HiddenGroup, list[int]] = {}
    for group, state in (place[j] for j in fed):
        reached.setdefault(group, []).append(state)
    connections = []
    for group in sorted(reached, key=lambda group: group.index):
        states = tuple(sorted(reached[group]))
        pairs = []
        for state in states:
            j = group.state_indices[state]
            position = element_positions(group, state)
            for position_map in fed[j] or ():
                index = position_map.indices(position.size)
                used = (index >= 0) & (position >= 0)
                pairs.append(np.stack([index[used], position[used]]))
        if not pairs:
            continue
        y_index, position = _lanes(pairs, group.positions.size)
        connections.append(Connection(group, states, y_index, position, y, info, feeds))
    return tuple(connections)


def _lanes(pairs: Sequence[np.ndarray], positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct (element of y, position) pairs, in order."""
    y_index, position = np.concatenate(pairs, axis=1)
    keys = y_index * positions + position
    if not bool((np.diff(keys) > 0).all()):
        keys = np.unique(keys)
    return keys // positions, keys % positions
