"""Hidden groups: the hidden states of one population, and their transition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from ..ir._jax import Var, size_of
from ..ir.diagnostic import Diagnostic, DiagnosticKind
from ..ir.paths import Path, path_text
from ..ir.program import ModuleInfo, Slot, shape_text
from ..ir.table import table
from .cache import cached_by_program
from .feeds import Feeds, feeds_of, reach_by_gradient
from .position_map import ONLY_IDENTITY, Maps, is_injective, union
from .positions import Positions, arrange, simple_positions
from .transition import Entry, Transition


@dataclass(frozen=True, eq=False)
class HiddenGroup:
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
    """

    index: int
    hidden_paths: tuple[Path, ...]
    hidden_states: tuple[Slot, ...]
    hidden_invars: tuple[Var, ...]
    hidden_outvars: tuple[Var, ...]
    positions: Positions
    transition: Transition
    state_indices: tuple[int, ...]

    @property
    def varshape(self) -> tuple[int, ...]:
        """Shape of the population: positions without the states."""
        return self.positions.shape

    @property
    def num_state(self) -> int:
        """S, the number of components at each position."""
        return len(self.positions.components)

    @cached_property
    def component_names(self) -> tuple[str, ...]:
        return tuple(path_text(self.hidden_paths[c.state]) + c.suffix for c in self.positions.components)

    def __str__(self) -> str:
        head = (
            f"HiddenGroup {self.index}: {self.num_state} state{'s' * (self.num_state != 1)} at "
            f"{self.positions.size} position{'s' * (self.positions.size != 1)} {shape_text(self.varshape)}"
        )
        entries = self.transition.entries
        rows = [
            (name, *(_entry_text(entries[a][b]) for b in range(self.num_state)))
            for a, name in enumerate(self.component_names)
        ]
        header = ("D = dh/dh", *self.component_names)
        return "\n".join([head, *table(header, rows)])

    __repr__ = __str__


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
    feeds = feeds_of(info)
    edges = _state_edges(info, feeds)
    diagnostics: list[Diagnostic] = []
    links = _links(info, edges, diagnostics)
    groups: list[HiddenGroup] = []
    clusters = _clusters(len(info.hidden), links)
    for members, links_inside, edges_inside in zip(
        clusters, _by_cluster(clusters, links), _by_cluster(clusters, edges), strict=True
    ):
        for part, positions in _arranged(info, members, links_inside, diagnostics):
            groups.append(_make_group(info, len(groups), part, positions, edges_inside))
    diagnostics += _mixed_state_diagnostics(info, feeds)
    group_of = {path: group for group in groups for path in group.hidden_paths}
    return GroupAnalysis(tuple(groups), {slot.path: group_of[slot.path] for slot in info.hidden}, tuple(diagnostics))


def _mixed_state_diagnostics(info: ModuleInfo, feeds: Feeds) -> list[Diagnostic]:
    by_gradient = reach_by_gradient(info)
    message = (
        "reaches the next step only through mixing operations, so D is zero for it and learning rules built on D carry "
        "nothing through it."
    )
    return [
        Diagnostic(DiagnosticKind.STATE_MIXED, message, paths=(slot.path,))
        for slot, var in zip(info.hidden, info.hidden_invars, strict=True)
        if by_gradient.hidden(var) and not any(gradient for _, gradient in feeds.of(var))
    ]


StateEdges = dict[tuple[int, int], dict[bool, Maps]]
"""(target state, source state) to maps by whether a derivative passes."""


def _state_edges(info: ModuleInfo, feeds: Feeds) -> StateEdges:
    """Dependences of new hidden states on old ones, and on other new ones."""
    edges: StateEdges = {}
    for source in range(len(info.hidden)):
        for var, is_new in ((info.hidden_invars[source], False), (info.hidden_outvars[source], True)):
            for (target, gradient), maps in feeds.of(var).items():
                if is_new and target == source:
                    continue
                by_gradient = edges.setdefault((target, source), {})
                size, source_size = size_of(info.hidden_outvars[target]), size_of(var)
                passes = gradient and not is_new
                known = by_gradient.get(passes, maps)
                by_gradient[passes] = union(known, maps, size, source_size)
    return edges


Links = dict[tuple[int, int], Maps]
Value = TypeVar("Value")


def _links(info: ModuleInfo, edges: StateEdges, diagnostics: list[Diagnostic]) -> Links:
    """The dependences that join states into one population.

    A dependence without derivative (a refractory flag, say) joins states where it is one to one, and is no
    reason against a population where it is not.
    """
    links: Links = {}
    loose: list[tuple[int, int, bool, Maps]] = []
    for (target, source), by_gradient in edges.items():
        for gradient, maps in by_gradient.items():
            if gradient and (target == source or maps is None or is_injective(maps)):
                links[target, source] = maps
            elif target != source and maps is not None:
                loose.append((target, source, gradient, maps))
    position = _element_positions_by(info, links)
    for target, source, gradient, maps in loose:
        if _is_one_to_one(maps, position[target], position[source]):
            known = links.get((target, source), maps)
            links[target, source] = union(known, maps, position[target].size, position[source].size)
        elif gradient:
            diagnostics.append(_broadcast_diagnostic(info.hidden[source], info.hidden[target]))
    return links


def _element_positions_by(info: ModuleInfo, links: Links) -> list[np.ndarray]:
    """For every hidden state, the positions of its elements in the population that these links make."""
    found: dict[int, np.ndarray] = {}
    for members in _clusters(len(info.hidden), links):
        place = {k: n for n, k in enumerate(members)}
        inside = {(place[t], place[s]): maps for (t, s), maps in links.items() if t in place}
        shapes = [info.hidden[k].shape for k in members]
        arranged = (arrange(shapes, inside) if inside else None) or simple_positions(shapes)
        for k in members:
            size = int(np.prod(info.hidden[k].shape, dtype=np.int64))
            scattered = [
                c.scatter(size) for c in arranged.components if c.state == place[k] and c.elements.max() < size
            ]
            found[k] = np.max([np.full(size, -1), *scattered], axis=0)
    return [found[k] for k in range(len(info.hidden))]


def _is_one_to_one(maps: Maps, target_position: np.ndarray, source_position: np.ndarray) -> bool:
    """Whether the dependence joins each position of the target with one of the source, and the other way."""
    pairs = []
    for position_map in maps or ():
        index = position_map.indices(target_position.size)
        used = index >= 0
        pairs.append(np.stack([target_position[used], source_position[index[used]]]))
    joined = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return all(np.unique(side).size == side.size for side in joined)


def _broadcast_diagnostic(source: Slot, target: Slot) -> Diagnostic:
    return Diagnostic(
        DiagnosticKind.STATE_BROADCAST,
        f"one element of {path_text(source.path)} {source.shapes_text} feeds many positions of "
        f"{path_text(target.path)} {target.shapes_text}, so the two are no population; learning rules that keep D "
        "inside a population leave this path out in time.",
        paths=(source.path, target.path),
    )


def _clusters(count: int, links: Links) -> list[list[int]]:
    parent = list(range(count))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for target, source in links:
        a, b = sorted((root(target), root(source)))
        parent[b] = a
    members: dict[int, list[int]] = {}
    for k in range(count):
        members.setdefault(root(k), []).append(k)
    return list(members.values())


def _by_cluster(
    clusters: list[list[int]], pairs: Mapping[tuple[int, int], Value]
) -> list[dict[tuple[int, int], Value]]:
    """Deals out what is keyed by (target, source) to the clusters of the targets."""
    cluster_of = {k: n for n, members in enumerate(clusters) for k in members}
    dealt: list[dict[tuple[int, int], Value]] = [{} for _ in clusters]
    for pair, value in pairs.items():
        dealt[cluster_of[pair[0]]][pair] = value
    return dealt


def _arranged(
    info: ModuleInfo, members: list[int], links: Links, diagnostics: list[Diagnostic]
) -> list[tuple[list[int], Positions]]:
    """The cluster with its positions; where there are none, its parts joined by identity alone."""
    shapes = [info.hidden[k].shape for k in members]
    place = {k: n for n, k in enumerate(members)}
    inside = {(place[t], place[s]): maps for (t, s), maps in links.items()}
    positions = arrange(shapes, inside) if inside else simple_positions(shapes)
    if positions is not None:
        return [(members, positions)]
    moved = {pair: maps for pair, maps in links.items() if maps != ONLY_IDENTITY}
    paths = tuple(dict.fromkeys(info.hidden[k].path for pair in moved for k in pair))
    diagnostics.append(
        Diagnostic(
            DiagnosticKind.POSITIONS_MOVE,
            "the step moves elements of this state to other positions, without end, so no block of D per position "
            "holds them; D keeps what stays in place and learning rules built on D leave the rest out in time.",
            paths=paths,
        )
    )
    kept = {
        pair: ONLY_IDENTITY for pair, maps in links.items() if maps is not None and any(m.is_identity for m in maps)
    }
    parts = []
    for part in _clusters(len(members), {(place[t], place[s]): m for (t, s), m in kept.items()}):
        states = [members[n] for n in part]
        parts.append((states, simple_positions([info.hidden[k].shape for k in states])))
    return parts


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
