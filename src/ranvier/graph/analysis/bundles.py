"""Populations whose neurons can only be removed together: images, and operations that keep channels separate.

Pooling, flattening, a grouped convolution and the scaling of an image map each channel to one channel. A channel is
therefore removed from all populations that are connected by such operations, or from none.
"""

# An example: a population p of shape (2, 4, 4) is pooled by 2 into q of shape (2, 2, 2), which is flattened into r of
# shape (8,). Both projections keep the 2 channels separate, so p, q and r form one bundle of 2 units. Unit 1 is the
# neurons 16 to 31 of p and 4 to 7 of q and r. A population of shape (8,) behind a dense projection from r is a bundle
# by itself and has 8 units: each of its neurons can be removed.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from ..elements import Projection
from ..operations import Constant, Conv, Flatten, Identity, Linear, Scale, Select, SumPool
from ..snn_graph import SNNGraph
from ..traced import Mapped


@dataclass(frozen=True)
class Bundle:
    """Populations whose channels correspond to each other.

    Attributes:
        names: the populations.
        units: the number of units, which are removed or merged as a whole: the channels of all populations, or the
            neurons of a single one-dimensional population.
        fixed: why no unit can be removed; None if units can be removed.
        images: whether units are channels.
    """

    names: tuple[str, ...]
    units: int
    fixed: str | None
    images: bool

    def by_unit(self, values: np.ndarray) -> np.ndarray:
        """Values of the neurons of a population as ``[units, neurons per unit]``."""
        return values.reshape(self.units, -1)

    def neurons(self, size: int, chosen: np.ndarray) -> np.ndarray:
        """Flat numbers of the neurons in the chosen units of a population with ``size`` neurons."""
        return self.by_unit(np.arange(size))[chosen].ravel()

    @property
    def kind(self) -> str:
        """The word for units in messages."""
        return "channels" if self.images else "neurons"


def bundles(graph: SNNGraph) -> list[Bundle]:
    """All populations, each in one bundle, in the order of the graph."""
    # Inputs and outputs take part: a population pooled straight into an output must keep its channels.
    tied = DisjointSet(graph.nodes)
    for projection in graph.projections.values():
        if _is_tie(graph, projection):
            tied.merge(projection.source, projection.target)
    members: dict[str, list[str]] = {}
    for name in graph.nodes:
        members.setdefault(tied[name], []).append(name)
    touching: dict[str, list[Projection]] = {name: [] for name in graph.nodes}
    for projection in graph.projections.values():
        for name in {projection.source, projection.target}:
            touching[name].append(projection)
    candidates = (_bundle(graph, names, touching) for names in members.values())
    return [bundle for bundle in candidates if bundle is not None]


def _bundle(graph: SNNGraph, names: list[str], touching: dict[str, list[Projection]]) -> Bundle | None:
    """The bundle of some tied nodes; None if they are inputs and outputs only."""
    populations = tuple(name for name in names if name in graph.populations)
    if not populations:
        return None
    shapes = [graph.nodes[name].shape for name in names]
    images = any(len(shape) > 1 for shape in shapes)
    # A flattened image has its neurons on the first axis, so only shapes with more axes show the number of channels.
    units = min(shape[0] for shape in shapes if len(shape) > 1) if images else shapes[0][0]
    reason = next((f"{name!r} keeps its channels" for name in names if name not in graph.populations), None)
    # Ties hold per channel only if the channels fill all populations evenly. Otherwise the neurons are one block.
    if any(graph.nodes[name].size % units for name in names):
        reason, units = "its channels are mixed", 1
    for name in populations:
        if not graph.populations[name].neuron.by_position:
            return Bundle(populations, 1, f"{name!r} works on whole arrays", images)
        reason = reason or next(filter(None, (_reason_against(graph, p) for p in touching[name])), None)
    return Bundle(populations, units, reason, images)


def _is_tie(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection maps each channel of an image to one channel."""
    operation = projection.operation
    if isinstance(operation, Conv):
        return operation.groups > 1
    if isinstance(operation, (Identity, Scale)):
        return len(graph.source_shape(projection)) > 1
    return isinstance(operation, (SumPool, Flatten))


def _reason_against(graph: SNNGraph, projection: Projection) -> str | None:
    """Why single units cannot be removed from a population at one end of a projection; None if they can."""
    operation = projection.operation
    if isinstance(operation, Mapped):
        return f"{projection.name!r} cannot be split"
    if isinstance(operation, Select) and max(map(len, (graph.source_shape(projection), operation.index.shape))) > 1:
        return f"{projection.name!r} moves them individually"
    # An output keeps its shape. Only an operation with a matrix or bias of its own can lose columns and still fill it.
    if projection.target in graph.outputs and not isinstance(operation, (Linear, Conv, Constant)):
        return "an output shows them individually"
    if isinstance(operation, Conv) and operation.groups > 1:
        channels = graph.source_shape(projection)[0]
        if not operation.groups == channels == operation.weight.shape[0]:
            return f"{projection.name!r} has groups of channels"
    return None
