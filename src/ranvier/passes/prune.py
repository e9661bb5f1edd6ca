"""prune: removes the least important weights or neurons."""

# An example: the weights [[0.1 0.2] [0.3 0.9]], pruned to a sparsity of 0.5 by magnitude.
#
#   scope=projection   0.1 and 0.2 are removed, all weights of the first neuron
#   scope=neuron       0.1 and 0.3 are removed, the smaller one of each row

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

from ..errors import PassError
from ..graph.analysis.bundles import Bundle, bundles
from ..graph.arrays import as_rows
from ..graph.elements import Projection
from ..graph.operations import Conv, Linear
from ..graph.shared import numbers_of, parameters_of
from ..graph.snn_graph import SNNGraph
from ..util.ranking import lowest
from ..verification.calibration import Calibration
from ..verification.promise import Promise
from .base import Facts, Pass, Rewriting
from .saliency import LARGEST, Presynaptic, by_weight, compensated, presynaptic, saliency

SCOPES = ("global", "projection", "neuron")
METHODS = ("magnitude", "saliency")
PER = ("weights", "synops")
SELDOM = 1e-6
"""The least activity of a source that importance is taken relative to."""


@dataclass(frozen=True)
class Prune(Pass):
    """Sets the least important weights to zero, or removes whole neurons or channels (approximate).

    The importance of a weight is its magnitude or its saliency. Saliency is the mean square change of the neuron's
    summed input on the calibration data if the weight is removed and the others compensate, ``w^2 / [H^-1]_jj`` with H
    the second moments of the presynaptic activity (Hassibi & Stork, NeurIPS 1992; Frantar & Alistarh, NeurIPS 2022,
    arXiv 2208.11580). With saliency, the remaining weights are then refitted, row by row.

    Attributes:
        sparsity: fraction of the weights (or of the neurons) to remove: of all entries of dense matrices, of the stored
            entries of sparse rows; ``auto`` searches for the largest that a budget allows.
        threshold: instead of the sparsity, the importance below which weights are removed.
        scope: whether weights are ranked over the whole network (``"global"``), by ``"projection"``, or by target
            ``"neuron"``.
        method: ``"magnitude"`` or ``"saliency"``, which needs calibration data. Convolutions and weights from more than
            2048 sources are ranked by ``w^2 E[x^2]`` and not refitted.
        per: what the sparsity makes fewer: ``"weights"``, or ``"synops"``, synaptic operations; then the importance of
            a weight counts relative to how often its source is active on the calibration data.
        structured: remove whole neurons, those with the least important outgoing weights.
        regrow: whether training may bring removed weights back; if not, their synapses are absent for good.

    Raises:
        PassError: an option is unknown, out of range, or in conflict with another.
    """

    name = "prune"
    promise = Promise.APPROXIMATE
    once = True
    search: ClassVar[Mapping[str, tuple[float, float]]] = {"sparsity": (0.0, 0.999)}
    sparsity: Any = None
    threshold: float | None = None
    scope: str = "projection"
    method: str = "magnitude"
    per: str = "weights"
    structured: bool = False
    regrow: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = (("scope", self.scope, SCOPES), ("method", self.method, METHODS), ("per", self.per, PER))
        for name, value, known in choices:
            if value not in known:
                raise PassError(f"prune: {name} {value!r} is unknown; use one of {', '.join(known)}.")
        if self.sparsity is not None and self.threshold is not None:
            raise PassError("prune: pass a sparsity or a threshold, not both.")
        if self.structured and self.scope == "neuron":
            raise PassError("prune: whole neurons have no scope=neuron; write scope=projection or scope=global.")
        for name, value in (("sparsity", self.sparsity), ("threshold", self.threshold)):
            if value is None or (name == "sparsity" and value == "auto"):
                continue
            number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
            if not 0 <= number <= (1 if name == "sparsity" else np.inf):
                raise PassError(f"prune: {name} {value!r} is out of range; write, for example, prune{{sparsity=0.8}}.")

    def run(self, rewriting: Rewriting) -> None:
        if self.sparsity is None and self.threshold is None:
            rewriting.missed(rewriting.graph.name, "nothing to prune without a sparsity or a threshold")
            return
        if self._measures and rewriting.calibration is None:
            needy, other = (
                ("saliency", "method=magnitude") if self.method == "saliency" else ("per=synops", "per=weights")
            )
            reason = f"{needy} needs calibration data: pass --calibration data.npz, or use {other}"
            rewriting.missed(rewriting.graph.name, reason)
            return
        measured = self._measured(rewriting)
        if self.structured:
            self._neurons(rewriting, measured)
        else:
            self._weights(rewriting, measured)

    def prepared(self, graph: SNNGraph, calibration: Calibration) -> Facts:
        return {presynaptic: presynaptic(graph, calibration)} if self._measures else {}

    @property
    def _measures(self) -> bool:
        """Whether it needs to know what projections read."""
        return self.method == "saliency" or self.per == "synops"

    def _measured(self, rewriting: Rewriting) -> dict[str, Presynaptic]:
        """The moments of what projections read, where they are needed."""
        if not self._measures:
            return {}
        graph, calibration = rewriting.graph, rewriting.calibration
        assert calibration is not None
        measured = rewriting.facts.get(presynaptic) or presynaptic(graph, calibration)
        for name, moments in measured.items():
            if moments.moments is None and isinstance(graph.projections[name].operation, Linear):
                rewriting.missed(name, f"more than {LARGEST} inputs: the remaining weights are not refitted")
        return measured

    def size(self, graph: SNNGraph) -> int:
        """The number of weights, or of neurons and channels, that a sparsity is a part of."""
        if self.structured:
            return sum(bundle.units for bundle in _removable(graph).values())
        return sum(numbers_of(p.operation.weight).size for p in _prunable(graph) if not parameters_of(graph, p.name))

    def _weights(self, rewriting: Rewriting, measured: dict[str, Presynaptic]) -> None:
        weights = {
            p.name: p.operation.weight
            for p in _prunable(rewriting.graph)
            if not rewriting.leaves(p.name, "not pruned", p.name)
        }
        salient = measured if self.method == "saliency" else {}
        scores = {name: _importance(weight, salient.get(name)) for name, weight in weights.items()}
        if self.scope == "global" and self.sparsity is not None and salient:
            scores = _relative_to_input(rewriting.graph, weights, scores, measured)
        if self.per == "synops":
            for name, weight in weights.items():
                scores[name] = scores[name] / by_weight(weight, np.maximum(measured[name].active, SELDOM))
        if self.scope == "neuron" and self.sparsity is not None:
            gone = {name: _lowest_of_rows(weight, scores[name], self.sparsity) for name, weight in weights.items()}
        else:
            gone = self._weakest(scores)
        for name in weights:
            self._prune(rewriting, rewriting.graph.projections[name], gone[name], salient)

    def _weakest(self, scores: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Masks of what is removed, by name."""
        if self.threshold is not None:
            return {name: score < self.threshold for name, score in scores.items()}
        if self.scope == "projection" or not scores:
            return {name: lowest(score, self.sparsity) for name, score in scores.items()}
        sizes = np.cumsum([score.size for score in scores.values()])
        together = lowest(np.concatenate([score.ravel() for score in scores.values()]), self.sparsity)
        parts = np.split(together, sizes[:-1])
        return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}

    def _prune(
        self, rewriting: Rewriting, projection: Projection, gone: np.ndarray, measured: dict[str, Presynaptic]
    ) -> None:
        operation = projection.operation
        assert isinstance(operation, (Linear, Conv))
        values = numbers_of(operation.weight)
        gone = gone & (values != 0)
        if not gone.any():
            return
        weight = _with_values(operation.weight, np.where(gone, values.dtype.type(0), values))
        moments = measured.get(projection.name)
        if moments is not None and isinstance(operation, Linear):
            weight = compensated(operation.weight, weight, moments)
        masked = projection.masked or not self.regrow
        rewriting.set_projection(projection.replace(operation=operation.replace(weight=weight), masked=masked))
        message = f"{np.count_nonzero(gone)} of {np.count_nonzero(values)} weights pruned by {self.method}"
        rewriting.did(projection.name, message, Promise.APPROXIMATE)

    def _neurons(self, rewriting: Rewriting, measured: dict[str, Presynaptic]) -> None:
        graph, removable = rewriting.graph, _removable(rewriting.graph)
        scores = {about: _unit_importance(rewriting, bundle, measured) for about, bundle in removable.items()}
        for about, gone in self._weakest(scores).items():
            bundle = removable[about]
            # An empty population would cut the network in two, so the most important unit always stays.
            if gone.all():
                gone[np.argmax(scores[about])] = False
            if gone.any():
                numbers = np.flatnonzero(gone)
                message = f"removed the {numbers.size} least important of {gone.size} {bundle.kind} by {self.method}"
                rewriting.did(about, message, Promise.APPROXIMATE, numbers)
                rewriting.keep({name: bundle.neurons(graph.populations[name].size, ~gone) for name in bundle.names})


def _prunable(graph: SNNGraph) -> list[Any]:
    """Projections with weights that are trained."""
    return [p for p in graph.projections.values() if isinstance(p.operation, (Linear, Conv)) and p.trained]


def _removable(graph: SNNGraph) -> dict[str, Bundle]:
    """Bundles whose units can be removed, by their names."""
    # A bundle of relays only has no neurons, so removing its channels is left to the populations around it.
    return {
        ", ".join(bundle.names): bundle
        for bundle in bundles(graph)
        if bundle.fixed is None and any(graph.populations[name].neuron.states for name in bundle.names)
    }


def _importance(weight: Any, moments: Presynaptic | None) -> np.ndarray:
    """The importance of every stored weight."""
    return np.abs(numbers_of(weight)) if moments is None else saliency(weight, moments)


def _relative_to_input(
    graph: SNNGraph, weights: dict[str, Any], scores: dict[str, np.ndarray], measured: dict[str, Presynaptic]
) -> dict[str, np.ndarray]:
    """Saliencies relative to the mean total input ``w^2 E[x^2]`` of the target's neurons.

    Saliencies are in units of the target's input, whose scale differs between populations. Without this, a ranking
    over the whole network would prefer to remove the weights of populations that work with small inputs.
    """
    power: dict[tuple[str, str], float] = {}
    for name, weight in weights.items():
        projection = graph.projections[name]
        port = projection.target, projection.target_port
        uncompensated = Presynaptic(measured[name].power, measured[name].active)
        power[port] = power.get(port, 0.0) + float(saliency(weight, uncompensated).sum()) / weight.shape[0]
    return {
        name: score / (power[graph.projections[name].target, graph.projections[name].target_port] or 1.0)
        for name, score in scores.items()
    }


def _with_values(weight: Any, values: np.ndarray) -> Any:
    """A matrix with other values; sparse rows without the values that are zero."""
    if not sparse.issparse(weight):
        return values
    return as_rows(sparse.csr_array((values, weight.indices, weight.indptr), shape=weight.shape))


def _lowest_of_rows(weight: Any, scores: np.ndarray, part: float) -> np.ndarray:
    """A mask of the lowest values of every row."""
    if sparse.issparse(weight):
        rows = np.split(scores, weight.indptr[1:-1])
        return np.concatenate([lowest(row, part) for row in rows])
    return np.stack([lowest(row, part) for row in scores])


def _unit_importance(rewriting: Rewriting, bundle: Bundle, measured: dict[str, Presynaptic]) -> np.ndarray:
    """The norm of each unit's weights to other populations, weighted by its measured activity if there is any."""
    graph = rewriting.graph
    total = np.zeros(bundle.units)
    for name in bundle.names:
        for projection in graph.out_of(name):
            # Within the bundle, a unit leads to itself, which is removed along with it.
            if projection.target in bundle.names and projection.target != name:
                continue
            rows, _ = graph.affine_map(projection)
            squares = np.asarray((rows.multiply(rows)).sum(axis=0)).ravel()
            moments = measured.get(projection.name)
            power = np.ones(1) if moments is None else moments.power
            total += bundle.by_unit(squares * np.repeat(power, squares.size // power.size)).sum(axis=1)
    return np.sqrt(total)
