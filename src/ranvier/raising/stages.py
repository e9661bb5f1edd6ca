"""The order of computation within a step, so that no population has to wait for itself.

A gated cell computes a gate r, then the product ``(r * h) @ u``, then from it the candidate. Gate and candidate are one
cluster, as both read h. As one population it would have to give ``r * h`` and wait for the product of it in the same
step. So its equations are divided by depth: the gate has depth 1, as the product of the input comes before it; the
candidate has 3, as the gate and the second product come before it as well. Each depth is a stage, a population of its
own. Clusters that do not wait for themselves, as that of the example in ``step.py``, stay one population.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from ..graph.order import strong_components
from ..program._jax import Equation, Var, variables_of
from .arithmetic import Arithmetic, Member
from .clusters import Clusters
from .kinds import EquationKind
from .references import Earlier, OldState, Root, Terms

KEPT = -1
"""Stage of a part of a state that is apart from the arithmetic that it would have to wait for."""


@dataclass(frozen=True)
class PlannedPopulation:
    """A planned population: some arithmetic of a cluster, or a part of a state that only keeps what it gets.

    Attributes:
        cluster: what stands for the cluster.
        stage: number of the part of the cluster, in the order of the step.
    """

    cluster: Member
    stage: int = 0


def assign_stages(
    clusters: Clusters, crossing: AbstractSet[Var], retimed: AbstractSet[Var]
) -> dict[Member, PlannedPopulation]:
    """The population that each arithmetic equation and each part of a state goes into.

    Args:
        clusters: of the arithmetic.
        crossing: results that are read outside of their cluster.
        retimed: results that are read one step later, so that nothing waits for them.
    """
    arithmetic = clusters.arithmetic
    cyclic = _cyclic_clusters(clusters, retimed)
    stage = _stages(clusters, cyclic, crossing, retimed)
    population: dict[Member, PlannedPopulation] = {
        id(eqn): PlannedPopulation(clusters.of[id(eqn)], stage.get(id(eqn), 0)) for eqn in arithmetic.equations
    }
    for part in arithmetic.kinds.parts:
        maker = arithmetic.own_result(part)
        if maker is not None:
            population[part] = population[id(maker)]
        else:
            population[part] = PlannedPopulation(part, KEPT if clusters.of[part] in cyclic else 0)
    return population


def _stages(
    clusters: Clusters, cyclic: AbstractSet[Member], crossing: AbstractSet[Var], retimed: AbstractSet[Var]
) -> dict[int, int]:
    """The stage of every equation of the cyclic clusters, by ``id``: as late as what reads its results allows.

    As early as the inputs allow would do, too, but would part a result from the only equations that read it.
    """
    arithmetic = clusters.arithmetic
    depth = _depths(arithmetic, retimed)
    readers = _inner_readers(arithmetic)
    new_values = {arithmetic.new_value(p) for p in arithmetic.kinds.parts if arithmetic.own_result(p) is not None}
    stage: dict[int, int] = {}
    # Backward, so that all readers of a result have their stage. What other nodes or new states wait for stays as
    # early as it can be, or these would have to wait longer.
    for eqn in reversed(arithmetic.equations):
        if clusters.of[id(eqn)] not in cyclic:
            continue
        earliest = depth[eqn.outvars[0]]
        is_awaited = any((out in crossing and out not in retimed) or out in new_values for out in eqn.outvars)
        latest = min((stage[id(e)] for out in eqn.outvars for e in readers.get(out, ())), default=earliest)
        stage[id(eqn)] = earliest if is_awaited else latest
    return stage


def _inner_readers(arithmetic: Arithmetic) -> dict[Root, list[Equation]]:
    """The equations of its own cluster that read a result."""
    readers: dict[Root, list[Equation]] = {}
    for eqn in arithmetic.equations:
        for root in {arithmetic.inner(eqn, atom) for atom in variables_of(eqn.invars)}:
            if root is not None:
                readers.setdefault(root, []).append(eqn)
    return readers


def _depths(arithmetic: Arithmetic, retimed: AbstractSet[Var]) -> dict[Root, int]:
    """Of every root the number of nodes that must come before its own within the step."""
    kinds = arithmetic.kinds
    depth: dict[Root, int] = {}

    def after(terms: Terms) -> int:
        return max((depth.get(t.root, 0) + (t.root in depth) for t in terms if t.root not in retimed), default=0)

    for eqn in kinds.of_kind(EquationKind.MAP, EquationKind.ARITHMETIC, EquationKind.WHOLE):
        kind = kinds.kind[id(eqn)]
        if kind is EquationKind.MAP:
            (x,) = kinds.maps.by_result[eqn.outvars[0]].xs
            depth[eqn.outvars[0]] = after(kinds.terms_of(x))
            continue
        own = 0
        for atom in variables_of(eqn.invars):
            if kinds.step.is_static(atom):
                continue
            root = arithmetic.inner(eqn, atom) if kind is EquationKind.ARITHMETIC else None
            # What is inner is computed in the same population, so it adds no node to wait for.
            own = max(own, after(kinds.terms_of(atom)) if root is None else depth.get(root, 0))
        depth.update(dict.fromkeys(eqn.outvars, own))
    return depth


def _cyclic_clusters(clusters: Clusters, retimed: AbstractSet[Var]) -> set[Member]:
    """Clusters that, as one population, would wait for themselves."""
    edges = list(_waits(clusters, retimed))
    if not edges:
        return set()
    component = strong_components(dict.fromkeys(end for edge in edges for end in edge), edges)
    looped = {component[a] for a, b in edges if component[a] == component[b]}
    of_arithmetic = {clusters.of[id(eqn)] for eqn in clusters.arithmetic.equations}
    return {key for key, number in component.items() if key in of_arithmetic and number in looped}


def _waits(clusters: Clusters, retimed: AbstractSet[Var]) -> Iterator[tuple[Any, Any]]:
    """Pairs of a cluster or other node of the step and one that reads it within the step."""
    arithmetic = clusters.arithmetic
    for reader, terms in _reads(clusters):
        for term in terms:
            if isinstance(term.root, (OldState, Earlier)) or term.root in retimed:
                continue
            maker = arithmetic.maker.get(term.root)
            yield (term.root if maker is None else clusters.of[id(maker)]), reader


def _reads(clusters: Clusters) -> Iterator[tuple[Any, Terms]]:
    """What clusters and other nodes of the step read from outside of themselves."""
    arithmetic, kinds = clusters.arithmetic, clusters.arithmetic.kinds
    for result, affine in kinds.maps.by_result.items():
        yield result, kinds.terms_of(affine.xs[0])
    for eqn in arithmetic.equations:
        for terms in arithmetic.brought(eqn):
            yield clusters.of[id(eqn)], terms
    for eqn in kinds.of_kind(EquationKind.WHOLE):
        for out in eqn.outvars:
            for atom in variables_of(eqn.invars):
                yield out, kinds.terms_of(atom)
    for part in kinds.parts:
        if arithmetic.own_result(part) is None:
            yield clusters.of[part], kinds.new_terms(part)
