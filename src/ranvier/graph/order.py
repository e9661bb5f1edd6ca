"""The order of operations inside a time step.

1. Inputs have their values.
2. Populations are updated one after the other, each after the sources of its projections without delay. The projections
   to it are summed in the order of the graph, and the neurons update their states and emit their outputs. A projection
   with a delay of d steps brings what its source emitted d steps ago.
3. Outputs sum what their projections bring.
"""

# An example: x -> a, a -> b, b -> a with a delay of one step, b -> y. In a step, a is updated with the new x and the
# spikes of b from the step before, then b with the new spikes of a, then y. Without the delay, a and b would wait for
# each other, and there would be no order.

from __future__ import annotations

from collections.abc import Hashable, Iterable
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

import numpy as np
from scipy import sparse

from .elements import Projection
from .neurons import IN
from .snn_graph import SNNGraph

Name = TypeVar("Name", bound=Hashable)
Port = tuple[str, str]
"""Name of an input, population or output, and of its port or state."""


def input_ports(graph: SNNGraph) -> dict[Port, tuple[int, ...]]:
    """The ports to which projections can lead, with their shapes."""
    ports = {
        (name, port): p.neuron.shape_of(port, p.shape)
        for name, p in graph.populations.items()
        for port in p.neuron.inputs
    }
    return ports | {(name, IN): node.shape for name, node in graph.outputs.items()}


def delayed_ports(projections: Iterable[Projection]) -> dict[Port, int]:
    """The ports that delayed projections read, with the longest delay in steps."""
    longest: dict[Port, int] = {}
    for projection in projections:
        if projection.delay:
            port = projection.source, projection.source_port
            longest[port] = max(projection.delay, longest.get(port, 0))
    return longest


def update_order(graph: SNNGraph) -> list[str]:
    """Names of the populations in the order in which they are updated.

    Raises:
        graphlib.CycleError: projections without delay form a cycle.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(graph.populations, ()))
    for projection in graph.projections.values():
        ends = (projection.target, projection.source)
        if projection.delay == 0 and all(end in graph.populations for end in ends):
            sorter.add(*ends)
    return list(sorter.static_order())


def strong_components(names: Iterable[Name], edges: Iterable[tuple[Name, Name]]) -> dict[Name, int]:
    """The number of the strongly connected component of every name: within one, names reach one another."""
    place = {name: k for k, name in enumerate(names)}
    ends = np.array([(place[a], place[b]) for a, b in edges], np.int64).reshape(-1, 2)
    links = sparse.coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(place),) * 2)
    _, component = sparse.csgraph.connected_components(links, connection="strong")
    return dict(zip(place, component.tolist(), strict=True))


def instant_cycle(graph: SNNGraph) -> list[str] | None:
    """Names along a cycle of projections without delay, in the direction of the projections; None if there is none."""
    try:
        update_order(graph)
    except CycleError as error:
        return list(error.args[1])
    return None
