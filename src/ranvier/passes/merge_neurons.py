"""merge-neurons: neurons that fire alike become one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ..analyses.graph.partition import neuron_classes
from ..analyses.graph.reach import exposed
from ..errors import PassError
from ..ir.graph.elements import Population
from ..ir.graph.snn_graph import SNNGraph
from ..validation.promise import Promise
from .base import Pass, Rewriting
from .surgery import can_take


@dataclass(frozen=True)
class MergeNeurons(Pass):
    """Merges neurons with equal states and spikes on every input, also recurrent ones (algebraic).

    The coarsest stable partition of the network finds them: see :mod:`ranvier.analyses.graph.partition`. One neuron of
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
        fixed = {name: _reason(rewriting, name) for name in rewriting.graph.populations}
        classes = rewriting.fact(neuron_classes)
        if _tell_missed(rewriting, fixed, classes):
            classes = neuron_classes(rewriting.graph, frozenset(name for name, reason in fixed.items() if reason))
        for name, found in classes.items():
            _, first, into = np.unique(found, return_index=True, return_inverse=True)
            told = "neurons with others that fire alike"
            _merge(rewriting, name, first[into.ravel()], told, Promise.ALGEBRAIC)
        if self.similarity is not None:
            for name in [name for name, reason in fixed.items() if reason is None]:
                self._merge_similar(rewriting, name)

    def _merge_similar(self, rewriting: Rewriting, name: str) -> None:
        population = rewriting.graph.populations[name]
        if not population.neuron.spikes:
            return
        if population.activity is None or population.activity.partner is None:
            told = "no measured spikes; measure them with ranvier.profile(graph, data), or give --calibration data.npz"
            rewriting.missed(name, told)
            return
        leader = _leaders(rewriting.graph, population, self.similarity)
        told = f"neurons with others that are alike to {self.similarity:g}"
        _merge(rewriting, name, leader, told, Promise.APPROXIMATE)


def _merge(rewriting: Rewriting, name: str, leader: np.ndarray, told: str, promise: Promise) -> None:
    """Merges every neuron of a population into its leader."""
    kept = np.flatnonzero(leader == np.arange(leader.size))
    if kept.size == leader.size:
        return
    merged = np.flatnonzero(leader != np.arange(leader.size))
    rewriting.merge(name, kept, np.searchsorted(kept, leader))
    rewriting.did(name, f"merged {merged.size} of {leader.size} {told}", promise, merged)


def _reason(rewriting: Rewriting, name: str) -> str | None:
    """Why the neurons of a population stay as they are."""
    graph = rewriting.graph
    return "an output shows its neurons one by one" if name in exposed(graph) else can_take(graph, name)


def _tell_missed(rewriting: Rewriting, fixed: dict[str, str | None], classes: dict[str, np.ndarray]) -> bool:
    """Tells of populations that stay as they are although neurons fire alike; whether there are any."""
    told = False
    for name, reason in fixed.items():
        if reason is not None and (alike := classes[name].size - np.unique(classes[name]).size):
            rewriting.missed(name, f"{alike} neurons fire like others, but {reason}")
            told = True
    return told


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
    found = [np.zeros(a.size)]
    if maps:
        biases = [sparse.csr_array(np.broadcast_to(offset, population.size)[:, None]) for _, offset in maps]
        found = [_relative(sparse.csr_array(sparse.hstack([*(rows for rows, _ in maps), *biases])), a, b)]
    for value in population.neuron.parameters.values():
        found.append(_relative(sparse.csr_array(np.broadcast_to(value, population.size)[:, None]), a, b))
    return np.max(found, axis=0)


def _relative(rows: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The distance of rows as a part of the longer one."""

    def length(found: Any) -> np.ndarray:
        return np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())

    size = np.maximum(length(rows[a]), length(rows[b]))
    return length(rows[a] - rows[b]) / np.where(size == 0, 1.0, size)
