"""Which arithmetic belongs together: equations that read the same positions, with the states that they compute.

In the example of ``step.py``, ``0.9 * v``, the sum with what the matrix brings, ``v > 1`` and the conversion read one
another as they stand, and make the new v and the new z: one cluster of four equations and two states. Two layers
between which a matrix stands are two clusters, since the second reads the first through an affine map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from .arithmetic import Arithmetic, Member


@dataclass(frozen=True, eq=False)
class Clusters:
    """The arithmetic of a step, grouped into clusters.

    Attributes:
        arithmetic: of the step.
        of: of every equation of arithmetic, by ``id``, and of every part of a state the member that stands for its
            cluster.
    """

    arithmetic: Arithmetic
    of: Mapping[Member, Member]


def cluster_arithmetic(arithmetic: Arithmetic) -> Clusters:
    """Groups arithmetic, and the states that it reads and computes, into clusters."""
    members: list[Member] = [*map(id, arithmetic.equations), *arithmetic.kinds.parts]
    sets = DisjointSet(members)
    anchor = {member: member for member in members}
    for first, second in _links(arithmetic):
        # The state that is read last stands for the cluster. A state whose new value no arithmetic makes thereby joins
        # the population that reads it, instead of becoming a population of its own.
        of_both = anchor[sets[second]]
        sets.merge(first, second)
        anchor[sets[second]] = of_both
    return Clusters(arithmetic, {member: anchor[sets[member]] for member in members})


def _links(arithmetic: Arithmetic) -> Iterator[tuple[Member, Member]]:
    for eqn in arithmetic.equations:
        for atom in eqn.invars:
            root = arithmetic.inner(eqn, atom)
            member = None if root is None else arithmetic.member_of(root)
            if member is not None:
                yield id(eqn), member
    for part in arithmetic.kinds.parts:
        maker = arithmetic.own_result(part)
        if maker is not None:
            yield part, id(maker)
