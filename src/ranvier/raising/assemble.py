"""Assembles a graph from its nodes and projections, and records what its parts are in the program.

Here parameters that several arrays are made of become parameters of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..graph.arrays import constant
from ..graph.neurons import Relay
from ..graph.snn_graph import SNNGraph
from ..program.program import ModuleInfo
from .correspondence import Correspondence
from .kinds import EquationKinds
from .naming import free
from .nodes import Nodes, SourcePort
from .projections import Projections
from .sharing import Sharing, find_sharing
from .state_locations import StateLocation, by_state


def assemble(
    info: ModuleInfo, kinds: EquationKinds, nodes: Nodes, projections: Projections, *, dt: float
) -> tuple[SNNGraph, Correspondence]:
    """The graph, and how its parameters and states correspond to those of the program.

    Args:
        info: the program as it was raised, before ring buffers were put in order.
        kinds: of the equations.
        nodes, projections: of the graph.
        dt: of the graph, in seconds.
    """
    step = kinds.step
    sharing = find_sharing(step, {**nodes.derived, **projections.derived})
    graph = SNNGraph(
        name=step.info.name,
        dt=dt,
        inputs=nodes.inputs.values(),
        populations=[*nodes.populations.values(), *projections.relays.values()],
        projections=projections.projections.values(),
        outputs=nodes.outputs.values(),
    )
    names = _share(graph, step.info, sharing)
    for name, _ in sharing.masked:
        graph.projections[name] = graph.projections[name].replace(masked=True)
    locations = by_state([*nodes.locations, *_register_locations(kinds, projections)])
    leaves = {name: leaf for leaf, name in names.items()}
    return graph, Correspondence(info, step, sharing.own, leaves, sharing.index, locations)


def _share(graph: SNNGraph, info: ModuleInfo, sharing: Sharing) -> dict[int, str]:
    """Makes the arrays that one parameter is used in, or a function of it, of that parameter: names of the leaves."""
    wanted = [name for slot in info.parameters for name in slot.leaf_names]
    values = [leaf for slot in info.parameters for leaf in slot.initial]
    # A relay is named after the map that leads to it, which is named after the parameter; the parameter has precedence.
    for name in dict.fromkeys(wanted[leaf] for leaf in sharing.leaves):
        if name in graph.populations and isinstance(graph.populations[name].neuron, Relay):
            _rename_relay(graph, name, free({*graph.nodes, *wanted}, f"{name}.sum"))
    # Optimizers see shared parameters and arrays of elements in one tree, so their names must differ.
    taken = {*graph.nodes, *(element for element, _ in sharing.own)}
    names: dict[int, str] = {}
    for leaf in sharing.leaves:
        names[leaf] = free({*taken, *names.values()}, wanted[leaf])
        graph.parameters[names[leaf]] = constant(values[leaf])
    graph.bindings = {array: recipe(names) for array, recipe in sharing.recipes.items()}
    return names


def _rename_relay(graph: SNNGraph, relay: str, name: str) -> None:
    """Gives a relay, which nothing but projections refers to, another name."""
    graph.populations[name] = graph.populations.pop(relay).replace(name=name)
    for key, projection in graph.projections.items():
        source, target = (name if end == relay else end for end in (projection.source, projection.target))
        graph.projections[key] = projection.replace(source=source, target=target)


def _register_locations(kinds: EquationKinds, projections: Projections) -> Iterable[tuple[int, StateLocation]]:
    """Where what registers pass on is: in what delayed projections have still to bring."""
    for part, register in kinds.registers.items():
        elements = kinds.step.parts[part]
        for root, index in register.readings():
            filled = np.flatnonzero(index >= 0)
            source = projections.sources.get(root.root, SourcePort("", ""))
            of_state = filled if elements is None else elements[filled]
            steps = source.delay + root.steps
            yield part.state, StateLocation(source.node, source.port, of_state, steps, index[filled])
