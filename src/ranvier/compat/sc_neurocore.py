"""Functions with the names and signatures that users of sc-neurocore know.

They change the graph in place. They preserve more of its behavior than sc-neurocore's functions; see each of them.
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
        graph: changed in place.
        threshold: with ``live``, the rate in spikes per step up to which neurons are removed.
        live: whether neurons that fired rarely are removed as well. Without it, only those are removed that never fired
            while rates were measured, and those that provably have no effect.
    """
    return _run(graph, "dead_neuron_elimination", [DeadNeurons(threshold=threshold if live else 0.0)])


def redundancy_elimination(graph: SNNGraph, correlation_threshold: float = 0.99) -> PassResult:
    """Merges neurons that fire alike, and sums their outgoing weights.

    Exact duplicates need no data. Near duplicates need measured spikes (:func:`ranvier.profile`): the correlation of
    their spikes is at least the threshold, and so is the similarity of their incoming weights.
    """
    return _run(graph, "redundancy_elimination", [MergeNeurons(similarity=correlation_threshold)])


def layer_fusion(graph: SNNGraph) -> PassResult:
    """Fuses consecutive linear operations. Spiking layers do not count as linear, and the graph never grows."""
    return _run(graph, "layer_fusion", [Fuse()])


def weight_pruning(graph: SNNGraph, threshold: float | None = None, sparsity: float | None = None) -> PassResult:
    """Sets weights of small magnitude to zero.

    Args:
        graph: changed in place.
        threshold: magnitude below which weights become zero; by default 0.001 if there is no sparsity.
        sparsity: in place of the threshold, the fraction of the weights of each projection that are to be zero.
    """
    threshold = 1e-3 if threshold is None and sparsity is None else threshold
    return _run(graph, "weight_pruning", [Prune(sparsity=sparsity, threshold=threshold)])


def redundant_connection_removal(graph: SNNGraph) -> PassResult:
    """Removes projections without effect, joins parallel ones, and shares equal ones."""
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
        """A smaller copy of a graph, and a report. Weights are pruned last, since measured rates are those before
        pruning.

        Raises:
            PassError: a name is not known; the message lists those that are.
        """
        names = list(self.PASSES) if passes is None else list(passes)
        if unknown := [name for name in names if name not in self.PASSES]:
            raise PassError(f"there is no pass {unknown[0]!r}; the passes are {', '.join(self.PASSES)}.")
        names.sort(key=lambda name: name == "prune")
        return optimize(model, ",".join(self.PASSES[name] for name in names))
