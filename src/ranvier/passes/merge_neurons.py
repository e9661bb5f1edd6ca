"""merge-neurons: neurons that fire alike become one."""

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

    The coarsest stable partition of the network finds them: see :mod:`ranvier.graph.analysis.partition`. One neuron of
    each class stays; its weights to other neurons are the sums over the class.

    With a similarity, also near duplicates (approximate): neurons whose incoming weights, parameters and spikes on the
    calibration data are alike. Weights that point the same way but differ in size are not.

    Attributes:
        similarity: of near duplicates, from 0 to 1: least correlation of the spikes, and 1 minus the largest distance
            of the incoming weights as a part of their size; ``auto`` searches the smallest that a budget allows.
    """

    name = "merge-neurons"
    promise = Promise.ALGEBRAIC
    search: ClassVar[Mapping[str, tuple[float, float]]] = {"similarity": (1.0, 0.5)}
    similarity: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.similarity, (int, float)) and not isinstance(self.similarity, bool)
        if self.similarity is not None and self.similarity != "auto" and not (number and 0 < self.similarity <= 1):
            raise PassError(f"merge-neurons: similarity {self.similarity!r} is no number from 0 to 1, such as 0.95.")

    def run(self, rewriting: Rewriting) -> None:
        tied = [replace(bundle, fixed=bundle.fixed or _made(rewriting, bundle)) for bundle in bundles(rewriting.graph)]
        classes = rewriting.fact(neuron_classes)
        if _tell_missed(rewriting, tied, classes):
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
            told = "no measured spikes; measure them with ranvier.profile(graph, data), or give --calibration data.npz"
            rewriting.missed(name, told)
            return
        leader = _leaders(rewriting.graph, population, self.similarity)
        present = replace(bundle, units=population.size)
        _merge(rewriting, present, leader, f"with others that are alike to {self.similarity:g}", Promise.APPROXIMATE)


def _made(rewriting: Rewriting, bundle: Bundle) -> str | None:
    """Why weights out of a bundle cannot be added up; None where they can."""
    return rewriting.shared(*(p.name for name in bundle.names for p in rewriting.graph.out_of(name)))


def _first_alike(bundle: Bundle, classes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Of every unit the first one all of whose neurons are alike."""
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


def _tell_missed(rewriting: Rewriting, tied: list[Bundle], classes: Mapping[str, np.ndarray]) -> bool:
    """Tells of bundles that stay as they are although units fire alike; whether there are any."""
    any_missed = False
    for bundle in tied:
        leader = _first_alike(bundle, classes)
        if bundle.fixed is not None and (alike := np.count_nonzero(leader != np.arange(leader.size))):
            message = f"{alike} {bundle.kind} fire like others, but {bundle.fixed}"
            rewriting.missed(", ".join(bundle.names), message)
            any_missed = True
    return any_missed


def _leaders(graph: SNNGraph, population: Population, similarity: float) -> np.ndarray:
    """Of every neuron the one it is merged into: itself, or one that is alike and stays."""
    activity = population.activity
    assert activity is not None
    assert activity.partner is not None
    assert activity.correlation is not None
    partner = activity.partner.astype(np.int64)
    candidates = np.flatnonzero((partner >= 0) & (activity.correlation >= similarity))
    alike = candidates[_distance(graph, population, candidates, partner[candidates]) <= 1 - similarity]
    leader, led = np.arange(population.size), np.zeros(population.size, bool)
    for neuron in alike[np.argsort(-activity.correlation[alike], kind="stable")]:
        other = partner[neuron]
        if leader[neuron] == neuron and not led[neuron] and leader[other] == other:
            leader[neuron], led[other] = other, True
    return leader


def _distance(graph: SNNGraph, population: Population, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of pairs of neurons the largest relative difference: of all incoming weights and biases, or of a parameter."""
    maps = [graph.affine_map(projection) for projection in graph.into(population.name)]
    distances = [np.zeros(a.size)]
    if maps:
        biases = [sparse.csr_array(np.broadcast_to(offset, population.size)[:, None]) for _, offset in maps]
        distances = [_relative(sparse.csr_array(sparse.hstack([*(rows for rows, _ in maps), *biases])), a, b)]
    for value in population.neuron.parameters.values():
        distances.append(_relative(sparse.csr_array(np.broadcast_to(value, population.size)[:, None]), a, b))
    return np.max(distances, axis=0)


def _relative(rows: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance of rows as a part of the longer one."""

    def length(found: Any) -> np.ndarray:
        return np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())

    size = np.maximum(length(rows[a]), length(rows[b]))
    return length(rows[a] - rows[b]) / np.where(size == 0, 1.0, size)
