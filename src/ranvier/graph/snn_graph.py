"""SNNGraph: the IR that passes work on."""

from __future__ import annotations

from ..errors import GraphError
from .layers import Layered


class SNNGraph(Layered):
    """Inputs, populations, projections and outputs of a spiking network.

    In a time step every population, after all that feeds it without delay, sums what its projections bring, updates its
    states and gives its output; an output is the sum of the projections into it. A graph is valid where the projections
    without delay form no cycle and all shapes fit: :func:`ranvier.problems` says what is wrong.

    Elements and arrays are never written in place. The graph itself can be changed: passes do.

    Args:
        layers: one after the other, in place of all elements, as in sc-neurocore; the rest by name, as the attributes.

    Attributes:
        name: for reports.
        dt: time step in seconds; a graph with elements needs one.
        inputs, populations, outputs: by name, in order.
        projections: by name, in the order in which a target sums them.
        metadata: text by key, kept from the source of the graph.
        layers: as a list to edit, for graphs that are a chain of dense layers.
        parameters: by name, what several arrays are made of, or one is by a function of it.
        bindings: how arrays are made of parameters, by the names of the projection or population and of the array; an
            array that is not named here is a parameter of its own.
    """


def check_is_graph(value: object) -> None:
    """Raises :class:`GraphError` for what is no graph."""
    if not isinstance(value, SNNGraph):
        raise GraphError(
            f"expected an SNNGraph, not {type(value).__name__} {value!r:.60}; ranvier.load reads .snn files, "
            "ranvier.from_nir reads .nir files, and ranvier.to_graph(model, *inputs) makes one from a model."
        )
