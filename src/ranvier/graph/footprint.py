"""How much memory a run of a graph takes; more than :class:`ranvier.types.Limits` allow is refused before it runs.

A delay of d steps keeps d values of everything that is on the way, so a few declared numbers can ask for gigabytes.
"""

from __future__ import annotations

from math import prod

from ..errors import GraphError
from ..util.counting import counted
from ..util.limits import CARRIED, RESULTS, MemoryBudget, TooLarge
from .order import delayed_ports
from .recording import SUMMED, Recording
from .snn_graph import SNNGraph

BYTES_PER_NEURON = 8
"""What a declared element of an input, population or output takes at least, once it is run."""


def check_declared(graph: SNNGraph, budget: MemoryBudget, source: str) -> None:
    """Passes where the shapes that a file declares are in proportion to its size.

    Raises:
        GraphError: they are not; the message names the element.
    """
    for node in graph.nodes.values():
        try:
            budget.spend(max(node.size, 0) * BYTES_PER_NEURON, f"{node.name!r} of the shape {list(node.shape)}")
        except TooLarge as error:
            raise GraphError(f"{source}: {error}.") from error


def check_carried(graph: SNNGraph, samples: int, itemsize: int) -> None:
    """Passes where states, and what delays have still to bring, fit into memory.

    Raises:
        GraphError: they do not.
    """
    CARRIED.check(samples * itemsize * _carried(graph), f"{graph.name!r} with {samples} sample{'s'[: samples != 1]}")


def check_recorded(graph: SNNGraph, wanted: Recording, steps: int, samples: int, itemsize: int) -> None:
    """Passes where the outputs of all steps, and what is recorded, fit into memory.

    Raises:
        InputError: they do not.
    """
    sizes = [node.size for node in graph.outputs.values()]
    for name, port in wanted.wanted.values():
        population = graph.populations[name]
        sizes.append(population.size if port == SUMMED else prod(population.neuron.shape_of(port, population.shape)))
    RESULTS.check(
        steps * samples * itemsize * sum(sizes),
        f"{counted(steps, 'step')} of {graph.name!r} with {counted(samples, 'sample')}",
    )


def _carried(graph: SNNGraph) -> int:
    """Numbers that one sample carries from step to step."""
    total = 0
    for population in graph.populations.values():
        neuron, shape = population.neuron, population.shape
        total += sum(prod(neuron.shape_of(state, shape)) for state in neuron.states)
        total += sum(map(prod, neuron.memory(shape).values()))
    for (name, port), depth in delayed_ports(graph.projections.values()).items():
        total += depth * prod(graph.port_shape(name, port))
    return total
