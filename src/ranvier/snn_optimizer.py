"""The names of ``sc_neurocore.snn_optimizer``, and those of its documentation."""

from .api.optimize import optimize as optimize
from .compat.sc_neurocore import SNNOptimizer as SNNOptimizer
from .compat.sc_neurocore import dead_neuron_elimination as dead_neuron_elimination
from .compat.sc_neurocore import layer_fusion as layer_fusion
from .compat.sc_neurocore import redundancy_elimination as redundancy_elimination
from .compat.sc_neurocore import redundant_connection_removal as redundant_connection_removal
from .compat.sc_neurocore import weight_pruning as weight_pruning
from .graph.layer_node import LayerNode as LayerNode
from .graph.snn_graph import SNNGraph as SNNGraph
from .passes.outcome import PassResult as PassResult
from .report.optimization import OptimizationReport as OptimizationReport

__all__ = [
    "LayerNode",
    "OptimizationReport",
    "PassResult",
    "SNNGraph",
    "SNNOptimizer",
    "dead_neuron_elimination",
    "layer_fusion",
    "optimize",
    "redundancy_elimination",
    "redundant_connection_removal",
    "weight_pruning",
]
