"""merge-neurons: neurons that fire alike become one."""

# An example: neurons 0 and 1 of three have equal parameters and incoming weights, so their spikes are equal, z0 = z1.
# The output reads the three with [1 2 4]. Neuron 0 takes the place of neuron 1 with the sum of their outgoing weights,
# [3 4]: 1 z0 + 2 z1 + 4 z2 = 3 z0 + 4 z2.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ..errors import PassError
from ..graph.analysis.bundles import Bundle, bundles
from ..graph.analysis.partition import neuron_classes
from ..graph.elements import Population
from ..graph.snn_graph import SNNGraph
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class MergeNeurons(Pass):
    """Merges neurons, and channels of images, that have equal states and spikes on every input (algebraic).

    They are the classes of the coarsest stable partition of the network, :mod:`ranvier.graph.analysis.partition`. One
    neuron of each class stays; its weights to other neurons are the sums over the class.

    With a similarity, near duplicates are merged as well (approximate): neurons whose incoming weights, parameters and
    spikes on the calibration data are similar. Incoming weights that differ only by a factor are not similar.

    Attributes:
        similarity: of near duplicates, above 0 and up to 1: the smallest correlation of their spikes, and 1 minus the
            largest distance of their incoming weights relative to the weights' norm; ``auto`` searches for the smallest
            value that a budget allows.

    Raises:
        PassError: the similarity is not such a number.
    """

    name = "merge-neurons"
    promise = Promise.ALGEBRAIC
    search: ClassVar[Mapping[str, tuple[float, float]]] = {"similarity": (1.0, 0.5)}
    similarity: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.similarity, (int, float)) and not isinstance(self.similarity, bool)
        if self.similarity is not None and self.similarity != "auto" and not (number and 0 < self.similarity <= 1):
            raise PassError(f"merge-neurons: similarity {self.similarity!r} is not a number from 0 to 1, such as 0.95.")

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        tied = [replace(b, fixed=b.fixed or _shared_weights(rewriting, b)) for b in bundles(graph)]
        classes = rewriting.fact(neuron_classes)
        # A class may rely on other neurons being merged that must stay as they are. These become classes by themselves,
        # and the partition is refined again from there.
        if _report_missed(rewriting, tied, classes):
            fixed = frozenset(name for bundle in tied if bundle.fixed is not None for name in bundle.names)
            classes = neuron_classes(rewriting.graph, fixed)
        for bundle in tied:
            if bundle.fixed is None:
                _merge(
                    rewriting, bundle, _first_alike(bundle, classes), "with others that fire alike", Promise.ALGEBRAIC
                )
        if self.similarity is not None:
            for bundle in tied:
                if bundle.fixed is None and not bundle.images:
                    self._merge_similar(rewriting, bundle)

    def _merge_similar(self, rewriting: Rewriting, bundle: Bundle) -> None:
        (name,) = bundle.names
        population = rewriting.graph.populations[name]
        if not population.neuron.spikes:
            return
        if population.activity is None or population.activity.partner is None:
            how = "measure them with ranvier.profile(graph, data), or pass --calibration data.npz"
            rewriting.missed(name, f"no measured spikes; {how}")
            return
        leader = _leaders(rewriting.graph, population, self.similarity)
        # The exact merge before may have removed neurons, so the bundle is adjusted to the present size.
        present = replace(bundle, units=population.size)
        _merge(rewriting, present, leader, f"with others of similarity {self.similarity:g}", Promise.APPROXIMATE)


def _shared_weights(rewriting: Rewriting, bundle: Bundle) -> str | None:
    """Why the outgoing weights of a bundle cannot be added up; None if they can."""
    return rewriting.shared(*(p.name for name in bundle.names for p in rewriting.graph.out_of(name)))


def _first_alike(bundle: Bundle, classes: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each unit, the first unit whose neurons are all in the same classes."""
    by_unit = np.concatenate([bundle.by_unit(classes[name]) for name in bundle.names], axis=1)
    _, first, into = np.unique(by_unit, axis=0, return_index=True, return_inverse=True)
    return first[into.ravel()]


def _merge(rewriting: Rewriting, bundle: Bundle, leader: np.ndarray, reason: str, promise: Promise) -> None:
    """Merges every unit of a bundle into its leader."""
    stays = leader == np.arange(leader.size)
    if stays.all():
        return
    remaining, into = {}, {}
    for name in bundle.names:
        size = rewriting.graph.populations[name].size
        place = np.full(size, -1)
        remaining[name] = bundle.neurons(size, stays)
        place[remaining[name]] = np.arange(remaining[name].size)
        into[name] = place[bundle.neurons(size, leader)]
    rewriting.merge(remaining, into)
    merged = np.flatnonzero(~stays)
    message = f"merged {merged.size} of {leader.size} {bundle.kind} {reason}"
    rewriting.did(", ".join(bundle.names), message, promise, merged)


def _report_missed(rewriting: Rewriting, tied: list[Bundle], classes: Mapping[str, np.ndarray]) -> bool:
    """Reports bundles that stay as they are although units fire alike; returns whether there are any."""
    any_missed = False
    for bundle in tied:
        leader = _first_alike(bundle, classes)
        if bundle.fixed is not None and (alike := np.count_nonzero(leader != np.arange(leader.size))):
            message = f"{alike} {bundle.kind} fire like others, but {bundle.fixed}"
            rewriting.missed(", ".join(bundle.names), message)
            any_missed = True
    return any_missed


def _leaders(graph: SNNGraph, population: Population, similarity: float) -> np.ndarray:
    """For each neuron, the neuron that it is merged into: itself, or a similar one that stays."""
    activity = population.activity
    assert activity is not None
    assert activity.partner is not None
    assert activity.correlation is not None
    partner = activity.partner.astype(np.int64)
    candidates = np.flatnonzero((partner >= 0) & (activity.correlation >= similarity))
    alike = candidates[_distance(graph, population, candidates, partner[candidates]) <= 1 - similarity]
    # From the most correlated pair down. Merging is not chained: a merged neuron leads no other, and a leader is never
    # merged, because similarity is not transitive and errors along a chain would add up.
    leader, led = np.arange(population.size), np.zeros(population.size, bool)
    for neuron in alike[np.argsort(-activity.correlation[alike], kind="stable")]:
        other = partner[neuron]
        if leader[neuron] == neuron and not led[neuron] and leader[other] == other:
            leader[neuron], led[other] = other, True
    return leader


def _distance(graph: SNNGraph, population: Population, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For pairs of neurons, the larger relative difference: of incoming weights and biases, or of any parameter."""
    maps = [graph.affine_map(projection) for projection in graph.into(population.name)]
    distances = [np.zeros(a.size)]
    if maps:
        biases = [sparse.csr_array(np.broadcast_to(offset, population.size)[:, None]) for _, offset in maps]
        distances = [_relative(sparse.csr_array(sparse.hstack([*(rows for rows, _ in maps), *biases])), a, b)]
    for value in population.neuron.parameters.values():
        distances.append(_relative(sparse.csr_array(np.broadcast_to(value, population.size)[:, None]), a, b))
    return np.max(distances, axis=0)


def _relative(rows: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distances of pairs of rows relative to the longer row."""

    def length(vectors: Any) -> np.ndarray:
        return np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())

    size = np.maximum(length(rows[a]), length(rows[b]))
    return length(rows[a] - rows[b]) / np.where(size == 0, 1.0, size)
