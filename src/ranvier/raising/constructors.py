"""Graphs of models, as functions and as class methods of :class:`ranvier.SNNGraph`."""

from __future__ import annotations

from typing import Any

from ..graph.snn_graph import SNNGraph as SNNGraph
from .raised import raise_model, raise_program


def to_graph(model: Any, *inputs: Any, dt: float | None = None) -> SNNGraph:
    """The graph of a model: its populations, and the projections between them.

    Args:
        model: a brainstate module with initialized states, :func:`ranvier.step_function`, or a program.
        *inputs: example inputs of one step; of a program they are known.
        dt: time step in seconds; where the model does not say it itself.

    Raises:
        ModelError, InputError: the model cannot be traced with these inputs.
        GraphError: a part of the model has no counterpart in a graph.
    """
    return raise_model(model, *inputs, dt=dt).graph


@SNNGraph.constructor
def from_module(model: Any, *inputs: Any, dt: float | None = None) -> SNNGraph:
    """The graph of a brainstate module or step function: see :func:`to_graph`."""
    return to_graph(model, *inputs, dt=dt)


@SNNGraph.constructor
def from_program(info: Any, *, dt: float | None = None) -> SNNGraph:
    """The graph of a program: see :func:`ranvier.raise_program`."""
    return raise_program(info, dt=dt).graph
