"""Models of every kind as NIR."""

from __future__ import annotations

import os
from typing import Any

from ..errors import GraphError
from ..graph.snn_graph import SNNGraph
from ..nir.write import write_nir
from ..passes.recognition.recognise import recognise
from ..raising.raised import raise_model


def to_nir(model: Any, *inputs: Any, path: str | os.PathLike[str] | None = None, dt: float | None = None) -> Any:
    """A graph or model as ``nir.NIRGraph``.

    What NIR has no place for (dt, choices of neurons, delays of projections, initial states) is stored as JSON in the
    metadata, where :func:`ranvier.from_nir` reads it. A projection with a delay that closes no cycle gets a Delay node.
    NIR cannot tie weights: if several arrays are computed from one parameter, each has numbers of its own, and the
    metadata says which they are. An adaptive threshold becomes an integrator of spikes that is subtracted from the
    potential. The neurons of a brainstate module or step function are recognized first, see :func:`ranvier.recognise`.

    Args:
        model: a valid graph; or a ``brainstate.nn.Module`` with initialized states, or :func:`ranvier.step_function`,
            for one sample.
        *inputs: for a model, example inputs of one step.
        path: of a ``.nir`` file to write as well; an existing file is replaced once the new one is complete. For a
            graph it may be the second argument.
        dt: for a model, its time step in seconds; by default brainstate's.

    Returns:
        The ``nir.NIRGraph``.

    Raises:
        GraphError: the graph is not valid, NIR has no such neuron, or the file cannot be written.
        ModelError, InputError: the model cannot be traced.
    """
    if isinstance(model, SNNGraph):
        if inputs and (path is not None or len(inputs) > 1):
            raise GraphError("a graph takes no example inputs; write to_nir(graph) or to_nir(graph, path).")
        return write_nir(model, inputs[0] if inputs else path)
    graph = raise_model(model, *inputs, dt=dt).graph
    graph, findings = recognise(graph)
    unknown = [finding for finding in findings if finding.neuron is None]
    if unknown:
        reasons = "\n".join(f"  {finding.population}: {finding.diagnosis}" for finding in unknown)
        raise GraphError(
            f"{graph.name} has dynamics that NIR does not have:\n{reasons}\n"
            "export_artifact(model, path, ...) writes any model."
        )
    return write_nir(graph, path)
