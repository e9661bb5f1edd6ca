"""The functions that users of sc-neurocore know, by their names and signatures.

They change the graph that they are given. What they leave as it was is stricter than there: see each function.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ..api.optimize import optimize
from ..errors import PassError
from ..graph.snn_graph import SNNGraph, check_is_graph
from ..passes.base import Pass
from ..passes.common_projections import CommonProjections
from ..passes.connections import Connections
from ..passes.dead_neurons import DeadNeurons
from ..passes.fuse import Fuse
from ..passes.manager import PassManager
from ..passes.merge_neurons import MergeNeurons
from ..passes.outcome import PassResult as PassResult
from ..passes.prune import Prune
from ..report.optimization import OptimizationReport as OptimizationReport
from ..verification.inputs import trials_of


def dead_neuron_elimination(graph: SNNGraph, threshold: float = 0.001, *, live: bool = False) -> PassResult:
    """Removes neurons that never fire, or that no output can see.

    Args:
        graph: is changed.
        threshold: with ``live``, the rate in spikes per step up to which neurons go.
        live: whether neurons that did fire, but rarely, go too. Without it only those go that never fired where rates
            were measured, and those that are proved to do nothing.
    """
    return _run(graph, "dead_neuron_elimination", [DeadNeurons(threshold=threshold if live else 0.0)])


def redundancy_elimination(graph: SNNGraph, correlation_threshold: float = 0.99) -> PassResult:
    """Merges neurons that fire alike, and sums their outgoing weights.

    Exact duplicates are found without data. Near duplicates need measured spikes (:func:`ranvier.profile`): their
    correlation is at least the threshold, and so is the likeness of their incoming weights.
    """
    return _run(graph, "redundancy_elimination", [MergeNeurons(similarity=correlation_threshold)])


def layer_fusion(graph: SNNGraph) -> PassResult:
    """Fuses linear operations in a row; spiking layers are never taken for linear ones, and the graph never grows."""
    return _run(graph, "layer_fusion", [Fuse()])


def weight_pruning(graph: SNNGraph, threshold: float | None = None, sparsity: float | None = None) -> PassResult:
    """Sets weights of small magnitude to zero.

    Args:
        graph: is changed.
        threshold: magnitude below which weights go; 0.001 where no sparsity is given.
        sparsity: in place of it, part of the weights of each projection that shall be zero.
    """
    threshold = 1e-3 if threshold is None and sparsity is None else threshold
    return _run(graph, "weight_pruning", [Prune(sparsity=sparsity, threshold=threshold)])


def redundant_connection_removal(graph: SNNGraph) -> PassResult:
    """Removes projections that bring nothing, joins parallel ones, and shares equal ones."""
    return _run(graph, "redundant_connection_removal", [Connections(), CommonProjections()])


def _run(graph: SNNGraph, name: str, passes: Sequence[Pass]) -> PassResult:
    check_is_graph(graph)
    result = PassManager(passes, trials=trials_of(graph)).run(graph)
    graph.become(result.graph)
    return PassResult.of(name, result.runs)


class SNNOptimizer:
    """Passes by short names: ``"prune"`` (half of the weights of each projection), ``"fuse"``, ``"eliminate_dead"``,
    ``"merge"``, ``"connections"``.
    """

    PASSES: ClassVar[dict[str, str]] = {
        "prune": "prune{sparsity=0.5}",
        "fuse": "fuse",
        "eliminate_dead": "dead-neurons{threshold=0}",
        "merge": "merge-neurons",
        "connections": "connections",
    }

    def optimize(self, model: SNNGraph, passes: Sequence[str] | None = None) -> tuple[SNNGraph, OptimizationReport]:
        """A smaller copy of a graph, and a report. Weights are pruned last: firing rates hold for the network as given.

        Raises:
            PassError: a name is not known; the message lists those that are.
        """
        names = list(self.PASSES) if passes is None else list(passes)
        if unknown := [name for name in names if name not in self.PASSES]:
            raise PassError(f"there is no pass {unknown[0]!r}; there are {', '.join(self.PASSES)}.")
        names.sort(key=lambda name: name == "prune")
        return optimize(model, ",".join(self.PASSES[name] for name in names))
