"""Which hidden states belong together: dependences between states, and the clusters they make.

A LIF layer of 3 neurons with a synaptic current, ``g' = 0.9 g + x @ w; v' = 0.8 v + g'``, and a readout of 2 neurons,
``r' = 0.95 r + v' @ u``: v' depends on v and on g position by position, so v and g are one cluster of 3 positions. r'
depends on v' through a product, which mixes, so r is a cluster of its own. Had the readout been
``r' = 0.95 r + sum(v')``, one number, it would depend on every v, and would be apart for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from .._jax import size_of
from ..diagnostic import Diagnostic, DiagnosticKind
from ..paths import path_text
from ..program import ModuleInfo, Slot
from .position_map import ONLY_IDENTITY, Maps, is_injective, union
from .positions import Positions, arrange, simple_positions
from .reachability import Feeds, feeds_of

StateEdges = dict[tuple[int, int], dict[bool, Maps]]
"""(target state, source state) to maps by whether a derivative passes."""

Links = dict[tuple[int, int], Maps]
"""(target state, source state) to the maps that join the two into one population."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class ClusterEdges:
    """The dependences inside one cluster of states: all of them, and those that join."""

    by_state: StateEdges
    links: Links


def clusters_of(info: ModuleInfo, diagnostics: list[Diagnostic]) -> list[tuple[list[int], ClusterEdges]]:
    """The hidden states that belong together, by index, with the dependences among them.

    Args:
        info: the program.
        diagnostics: findings are added here.
    """
    edges = _state_edges(info, feeds_of(info))
    links = _links(info, edges, diagnostics)
    clusters = _clusters(len(info.hidden), links)
    inside = map(ClusterEdges, _by_cluster(clusters, edges), _by_cluster(clusters, links))
    return list(zip(clusters, inside, strict=True))


def _state_edges(info: ModuleInfo, feeds: Feeds) -> StateEdges:
    """Dependences of new hidden states on old ones, and on other new ones."""
    edges: StateEdges = {}
    for source in range(len(info.hidden)):
        for var, is_new in ((info.hidden_invars[source], False), (info.hidden_outvars[source], True)):
            for (target, gradient), maps in feeds.of(var).items():
                # A new state feeds itself by the identity; as a link it would say nothing.
                if is_new and target == source:
                    continue
                by_gradient = edges.setdefault((target, source), {})
                size, source_size = size_of(info.hidden_outvars[target]), size_of(var)
                # D is total: what one new state does to another is already in the derivative by old states, so a path
                # from a new state joins the two but adds nothing to D.
                passes = gradient and not is_new
                known = by_gradient.get(passes, maps)
                by_gradient[passes] = union(known, maps, size, source_size)
    return edges


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
    # Loose dependences are judged against the positions that the firm ones make: a scalar that drives all neurons must
    # not merge them, while a flag per neuron belongs to its neuron.
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
    position = [np.arange(size_of(var)) for var in info.hidden_outvars]
    clusters = _clusters(len(info.hidden), links)
    for members, inside in zip(clusters, _by_cluster(clusters, links), strict=True):
        place = {k: n for n, k in enumerate(members)}
        local = {(place[t], place[s]): maps for (t, s), maps in inside.items()}
        positions = arrange([info.hidden[k].shape for k in members], local) if local else None
        if positions is not None:
            for k in members:
                position[k] = positions.of_elements(place[k], position[k].size)
    return position


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
        f"{path_text(target.path)} {target.shapes_text}, so the two are not one population; learning rules that keep "
        "D within a population leave out this path in time.",
        paths=(source.path, target.path),
    )


def _clusters(count: int, links: Links) -> list[list[int]]:
    """The states that links join, each cluster in order, the cluster of the first state first."""
    joined = DisjointSet(range(count))
    for target, source in links:
        joined.merge(target, source)
    return sorted(map(sorted, joined.subsets()))


def _by_cluster(
    clusters: list[list[int]], pairs: Mapping[tuple[int, int], Value]
) -> list[dict[tuple[int, int], Value]]:
    """Deals out what is keyed by (target, source) to the clusters of the targets."""
    cluster_of = {k: n for n, members in enumerate(clusters) for k in members}
    dealt: list[dict[tuple[int, int], Value]] = [{} for _ in clusters]
    for pair, value in pairs.items():
        dealt[cluster_of[pair[0]]][pair] = value
    return dealt


def arranged(
    info: ModuleInfo, members: list[int], edges: ClusterEdges, diagnostics: list[Diagnostic]
) -> list[tuple[list[int], Positions]]:
    """A cluster with its positions; where there are none, its parts that are joined by the identity."""
    links = edges.links
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
            "every step moves elements of this state to other positions, so no block of D per position covers them; "
            "D covers what stays in place, and learning rules built on D leave out the rest in time.",
            paths=paths,
        )
    )
    in_place = {
        pair: ONLY_IDENTITY for pair, maps in links.items() if maps is not None and any(m.is_identity for m in maps)
    }
    parts = []
    for part in _clusters(len(members), {(place[t], place[s]): m for (t, s), m in in_place.items()}):
        states = [members[n] for n in part]
        parts.append((states, simple_positions([info.hidden[k].shape for k in states])))
    return parts
