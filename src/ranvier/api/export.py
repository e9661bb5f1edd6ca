"""``ranvier.export_artifact``, ``ranvier.export_source`` and ``ranvier.load_artifact``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from ..export.artifact import Artifact, check_can_export, write_artifact
from ..export.source import write_source
from ..frontends.extract import extract_module_info
from ..graph.snn_graph import SNNGraph
from ..raising.raised import raise_model
from ..simulation.lower import lower


def export_artifact(model: Any, path: str | os.PathLike[str], *example_inputs: Any, batched: bool = False) -> Path:
    """Writes a model into a file that runs without Ranvier's compiler and without the model's code.

    The file holds a time step as StableHLO for CPU, CUDA and TPU, the parameters and the initial states.
    :func:`ranvier.load_artifact` and ``ranvier run`` run it.

    Args:
        model: a :class:`ranvier.SNNGraph`, a brainstate module with initialized states, :func:`ranvier.step_function`,
            or a program.
        path: of the file; an existing one is replaced once the new one is complete.
        *example_inputs: example inputs of one step; not needed for a graph.
        batched: whether the model itself has an axis of samples. Without one, the artifact runs for any number of
            samples.

    Raises:
        GraphError, ModelError, InputError: the model is not valid, or cannot be traced with these inputs.
        ExportError: the step cannot be exported, or the file cannot be written.
    """
    check_can_export()
    if not isinstance(model, SNNGraph):
        return write_artifact(extract_module_info(model, *example_inputs), path, batched=batched)
    example = {name: jnp.zeros(node.shape) for name, node in model.inputs.items()}
    info = extract_module_info(lower(model), example, stateless=True)
    outputs = sorted(model.outputs)  # as JAX flattens a dictionary
    return write_artifact(info, path, batched=batched, outputs=outputs)


def export_source(model: Any, path: str | os.PathLike[str], *example_inputs: Any) -> Path:
    """Writes one time step of a model as readable Python source that needs only JAX, not Ranvier.

    The module has ``load()``, ``initial_state(arrays)`` and ``step(arrays, state, inputs)``; its arrays are in an
    ``.npz`` file of the same name beside it.

    Args:
        model: a :class:`ranvier.SNNGraph`; or a brainstate module with initialized states,
            :func:`ranvier.step_function` or a program, which is raised to a graph first.
        path: of the ``.py`` file; existing files are replaced once the new ones are complete.
        *example_inputs: example inputs of one step; not needed for a graph.

    Raises:
        GraphError, ModelError, InputError: the model is not valid, or cannot be traced with these inputs.
        ExportError: a part of the model cannot be written as source, or a file cannot be written.
    """
    graph = model if isinstance(model, SNNGraph) else raise_model(model, *example_inputs).graph
    return write_source(graph, path)


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Loads the model in a file that :func:`ranvier.export_artifact` wrote.

    Raises:
        ExportError: there is no such file, or it holds no artifact that this version can read.
    """
    return Artifact.load(path)
