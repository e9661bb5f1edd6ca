"""Populations whose neurons can only go together: images, and what keeps their channels apart.

A pool, a flatten, a convolution by channel and a scale of an image bring one channel into one channel. So a channel
goes from all populations that are tied by these, or from none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..elements import Projection
from ..operations import Constant, Conv, Flatten, Identity, Linear, Scale, Select, SumPool
from ..snn_graph import SNNGraph
from ..traced import Mapped


@dataclass(frozen=True)
class Bundle:
    """Populations that are tied.

    Attributes:
        names: of the populations.
        units: how many things there are that can go: the neurons of a one-dimensional population on its own, else the
            channels of all.
        fixed: why none of them can go; None where they can.
        images: whether units are channels.
    """

    names: tuple[str, ...]
    units: int
    fixed: str | None
    images: bool

    def by_unit(self, values: np.ndarray) -> np.ndarray:
        """Values of the neurons of a population, ``[units, neurons in each]``."""
        return values.reshape(self.units, -1)

    def neurons(self, size: int, chosen: np.ndarray) -> np.ndarray:
        """Numbers of the neurons in some units of a population of some size."""
        return self.by_unit(np.arange(size))[chosen].ravel()

    @property
    def kind(self) -> str:
        """What units are called."""
        return "channels" if self.images else "neurons"


def bundles(graph: SNNGraph) -> list[Bundle]:
    """All populations, each in one bundle, in the order of the graph."""
    leader = {name: name for name in graph.nodes}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for projection in graph.projections.values():
        if _is_tie(graph, projection):
            leader[find(projection.source)] = find(projection.target)
    members: dict[str, list[str]] = {}
    for name in graph.nodes:
        members.setdefault(find(name), []).append(name)
    touching: dict[str, list[Projection]] = {name: [] for name in graph.nodes}
    for projection in graph.projections.values():
        for name in {projection.source, projection.target}:
            touching[name].append(projection)
    found = (_bundle(graph, names, touching) for names in members.values())
    return [bundle for bundle in found if bundle is not None]


def _bundle(graph: SNNGraph, names: list[str], touching: dict[str, list[Projection]]) -> Bundle | None:
    populations = tuple(name for name in names if name in graph.populations)
    if not populations:
        return None
    shapes = [graph.nodes[name].shape for name in names]
    images = any(len(shape) > 1 for shape in shapes)
    units = min(shape[0] for shape in shapes if len(shape) > 1) if images else shapes[0][0]
    reason = next((f"{name!r} keeps its channels" for name in names if name not in graph.populations), None)
    if any(graph.nodes[name].size % units for name in names):
        reason, units = "its channels are mixed", 1
    for name in populations:
        if not graph.populations[name].neuron.by_position:
            return Bundle(populations, 1, f"{name!r} works on whole arrays", images)
        reason = reason or next((told for p in touching[name] if (told := _reason_against(graph, p))), None)
    return Bundle(populations, units, reason, images)


def _is_tie(graph: SNNGraph, projection: Projection) -> bool:
    """Whether a projection brings each channel of an image into one channel."""
    operation = projection.operation
    if isinstance(operation, Conv):
        return operation.groups > 1
    if isinstance(operation, (Identity, Scale)):
        return len(graph.source_shape(projection)) > 1
    return isinstance(operation, (SumPool, Flatten))


def _reason_against(graph: SNNGraph, projection: Projection) -> str | None:
    """Why a projection from or to a population does not let single units of it go."""
    operation = projection.operation
    if isinstance(operation, Mapped):
        return f"{projection.name!r} is not taken apart"
    if isinstance(operation, Select) and max(map(len, (graph.source_shape(projection), operation.index.shape))) > 1:
        return f"{projection.name!r} moves them one by one"
    if projection.target in graph.outputs and not isinstance(operation, (Linear, Conv, Constant)):
        return "an output shows them one by one"
    if isinstance(operation, Conv) and operation.groups > 1:
        channels = graph.source_shape(projection)[0]
        if not operation.groups == channels == operation.weight.shape[0]:
            return f"{projection.name!r} has groups of channels"
    return None
