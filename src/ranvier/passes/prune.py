"""prune: weights and neurons that matter least."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ..analyses.graph.reach import exposed
from ..errors import PassError
from ..ir.graph.elements import Projection
from ..ir.graph.operations import Conv, Linear
from ..validation.promise import Promise
from .base import Pass, Rewriting
from .saliency import Presynaptic, compensated, presynaptic, second_order
from .surgery import can_take

SCOPES = ("global", "projection", "neuron")
METHODS = ("magnitude", "saliency")


@dataclass(frozen=True)
class Prune(Pass):
    """Sets the weights that matter least to zero, or removes whole neurons (approximate).

    A weight's importance is its magnitude, or its saliency: how much the summed input of its neuron changes on the
    calibration data when it is gone and the others make up for it, ``w^2 / [H^-1]_jj`` with H the second moments of
    the presynaptic activity (Hassibi & Stork, NeurIPS 1992; Frantar & Alistarh, NeurIPS 2022, arXiv 2208.11580). With
    saliency the weights that stay are then fitted again, row by row.

    Attributes:
        sparsity: part of the entries of the weight matrices (or of the neurons) that shall be gone; ``auto`` searches
            the largest that a budget allows.
        threshold: in place of the sparsity, the importance below which weights go.
        scope: whether weights are ranked over the whole network, by projection, or by target neuron.
        method: ``"magnitude"`` or ``"saliency"``, which needs calibration data.
        structured: remove whole neurons, those whose outgoing weights matter least.
    """

    name = "prune"
    promise = Promise.APPROXIMATE
    once = True
    search: ClassVar[Mapping[str, tuple[float, float]]] = {"sparsity": (0.0, 0.999)}
    sparsity: Any = None
    threshold: float | None = None
    scope: str = "projection"
    method: str = "magnitude"
    structured: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (("scope", self.scope, SCOPES), ("method", self.method, METHODS)):
            if value not in known:
                raise PassError(f"prune: {name} {value!r} is unknown; use one of {', '.join(known)}.")
        if self.sparsity is not None and self.threshold is not None:
            raise PassError("prune: give a sparsity or a threshold, not both.")
        for name, value in (("sparsity", self.sparsity), ("threshold", self.threshold)):
            if value is None or (name == "sparsity" and value == "auto"):
                continue
            number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
            if not 0 <= number <= (1 if name == "sparsity" else np.inf):
                raise PassError(f"prune: {name} {value!r} is no number that makes sense; write prune{{sparsity=0.8}}.")

    def run(self, rewriting: Rewriting) -> None:
        if self.sparsity is None and self.threshold is None:
            rewriting.missed(rewriting.graph.name, "nothing to prune without a sparsity or a threshold")
            return
        if self.method == "saliency" and rewriting.calibration is None:
            told = "saliency needs calibration data: give --calibration data.npz, or use method=magnitude"
            rewriting.missed(rewriting.graph.name, told)
            return
        measured = presynaptic(rewriting) if self.method == "saliency" else {}
        if self.structured:
            self._neurons(rewriting, measured)
        else:
            self._weights(rewriting, measured)

    def _weights(self, rewriting: Rewriting, measured: dict[str, Presynaptic]) -> None:
        prunable = [p for p in rewriting.graph.projections.values() if isinstance(p.operation, (Linear, Conv))]
        gone = self._weakest({p.name: _importance(p, measured.get(p.name)) for p in prunable})
        for projection in prunable:
            self._prune(rewriting, projection, gone[projection.name], measured)

    def _weakest(self, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What goes, by name."""
        if self.threshold is not None:
            return {name: found < self.threshold for name, found in scores.items()}
        if self.scope == "projection":
            return {name: _lowest(found, self.sparsity) for name, found in scores.items()}
        if self.scope == "neuron":
            return {name: np.stack([_lowest(row, self.sparsity) for row in found]) for name, found in scores.items()}
        sizes = np.cumsum([found.size for found in scores.values()])
        together = _lowest(np.concatenate([found.ravel() for found in scores.values()]), self.sparsity)
        parts = np.split(together, sizes[:-1])
        return {name: part.reshape(found.shape) for (name, found), part in zip(scores.items(), parts, strict=True)}

    def _prune(
        self, rewriting: Rewriting, projection: Projection, gone: np.ndarray, measured: dict[str, Presynaptic]
    ) -> None:
        operation = projection.operation
        assert isinstance(operation, (Linear, Conv))
        weight = _dense(operation)
        gone = gone & (weight != 0)
        if not gone.any():
            return
        kept = np.where(gone, 0.0, weight).astype(weight.dtype)
        found = measured.get(projection.name)
        if found is not None and isinstance(operation, Linear):
            kept = compensated(weight, kept != 0, found).astype(weight.dtype)
        rewriting.set_projection(projection.replace(operation=operation.replace(weight=_stored(operation, kept))))
        told = f"{np.count_nonzero(gone)} of {np.count_nonzero(weight)} weights pruned by {self.method}"
        rewriting.did(projection.name, told, Promise.APPROXIMATE)

    def _neurons(self, rewriting: Rewriting, measured: dict[str, Presynaptic]) -> None:
        graph = rewriting.graph
        shown = exposed(graph)
        able = [n for n in graph.populations if graph.populations[n].neuron.states and n not in shown]
        able = [name for name in able if can_take(graph, name) is None]
        scores = {name: _neuron_importance(rewriting, name, measured) for name in able}
        for name, gone in self._weakest(scores).items() if scores else ():
            found = scores[name]
            if gone.all():
                gone[np.argmax(found)] = False
            if gone.any():
                numbers = np.flatnonzero(gone)
                told = f"removed {numbers.size} of {gone.size} neurons that matter least by {self.method}"
                rewriting.did(name, told, Promise.APPROXIMATE, numbers)
                rewriting.keep(name, np.flatnonzero(~gone))


def _importance(projection: Projection, found: Presynaptic | None) -> np.ndarray:
    """Of every weight, ``[rows, ...]``."""
    operation = projection.operation
    assert isinstance(operation, (Linear, Conv))
    weight = _dense(operation)
    return second_order(weight, found) if found is not None else np.abs(weight)


def _dense(operation: Linear | Conv) -> np.ndarray:
    weight = operation.weight
    return weight.toarray() if sparse.issparse(weight) else np.asarray(weight)


def _stored(operation: Linear | Conv, weight: np.ndarray) -> Any:
    return sparse.csr_array(weight) if sparse.issparse(operation.weight) else weight


def _lowest(values: np.ndarray, part: float) -> np.ndarray:
    """The lowest values, as many as a part says; of equal ones the first."""
    found = np.zeros(values.size, bool)
    found[np.argsort(values, axis=None, kind="stable")[: round(part * values.size)]] = True
    return found.reshape(values.shape)


def _neuron_importance(rewriting: Rewriting, name: str, measured: dict[str, Presynaptic]) -> np.ndarray:
    """How much targets get from each neuron, root mean square where activity is measured."""
    graph = rewriting.graph
    total = np.zeros(graph.populations[name].size)
    for projection in graph.out_of(name):
        rows, _ = graph.affine_map(projection)
        total += np.asarray((rows.multiply(rows)).sum(axis=0)).ravel()
    found = next((measured[p.name] for p in graph.out_of(name) if p.name in measured), None)
    return np.sqrt(total if found is None else total * np.diag(found.moments))
