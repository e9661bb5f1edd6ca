"""``ranvier.export_artifact`` and the jobs behind ``ranvier export`` and ``ranvier run``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from ..errors import ExportError, InputError
from ..export.artifact import Artifact, check_can_export, write_artifact
from ..export.source import write_source
from ..frontends.extract import extract_module_info
from ..ir.files import read_arrays, write_arrays
from ..ir.graph.nir_notes import NirNotes
from ..ir.graph.snn_graph import SNNGraph
from ..raising.raised import raise_model
from ..simulation.lower import lower
from ..validation.calibration import LABELS, with_own_name
from .graph_file import check_results_target, check_target
from .nir import to_nir
from .progress import steps_shown
from .show import print_plain

ENDING, SOURCE, NIR = ".rva", ".py", ".nir"


def export_artifact(model: Any, path: str | os.PathLike[str], *example_inputs: Any, batched: bool = False) -> Path:
    """Writes a model into one file that runs without Ranvier's compiler and without the model's code.

    The file holds a time step as StableHLO for CPU, CUDA and TPU, the parameters and the initial states.
    :func:`ranvier.load_artifact` and ``ranvier run`` run it.

    Args:
        model: a :class:`ranvier.SNNGraph`, a brainstate module with initialised states, :func:`ranvier.step_function`,
            or a program.
        path: of the file; an existing one is replaced once the new one is complete.
        *example_inputs: example inputs of one step; of a graph they are known.
        batched: whether the model has an axis of samples of its own; others run for any number of samples.

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
    """Writes one time step of a model as readable Python source that runs with JAX alone, without Ranvier.

    The module has ``load()``, ``initial_state(arrays)`` and ``step(arrays, state, inputs)``; its arrays are in an
    ``.npz`` file of the same name beside it.

    Args:
        model: a :class:`ranvier.SNNGraph`; or a brainstate module with initialised states,
            :func:`ranvier.step_function` or a program, which is raised to a graph first.
        path: of the ``.py`` file; existing files are replaced once the new ones are complete.
        *example_inputs: example inputs of one step; of a graph they are known.

    Raises:
        GraphError, ModelError, InputError: the model is not valid, or cannot be traced with these inputs.
        ExportError: a part of the model cannot be written as source, or a file cannot be written.
    """
    graph = model if isinstance(model, SNNGraph) else raise_model(model, *example_inputs).graph
    return write_source(graph, path)


def load_artifact(path: str | os.PathLike[str]) -> Artifact:
    """The model in a file that :func:`ranvier.export_artifact` wrote.

    Raises:
        ExportError: there is no such file, or it holds no artifact that this version reads.
    """
    return Artifact.load(path)


def run_export(console: Console, model: Any, inputs: tuple[Any, ...], output: Path, *, batched: bool) -> None:
    """Exports a model in the form that the file's ending says, and prints where to."""
    ending = output.suffix.lower()
    if ending not in (ENDING, SOURCE, NIR):
        raise ExportError(f"{str(output)!r}: artifacts end in {ENDING}, Python source in {SOURCE}, NIR files in {NIR}.")
    check_target(output)
    note = ""
    with steps_shown(console) as show:
        show("lowering" if ending == ENDING else "raising")
        if ending == ENDING:
            export_artifact(model, output, *inputs, batched=batched)
        elif ending == SOURCE:
            export_source(model, output, *inputs)
        else:
            note = NirNotes.of(to_nir(model, *inputs, path=output).metadata).text
    told = f"{load_artifact(output)!r} " if ending == ENDING else ""
    print_plain(console, f"{told}written to {output}, {output.stat().st_size:,} bytes")
    if note:
        print_plain(console, note)


def run_artifact(console: Console, path: Path, inputs: Path, output: Path | None, seed: int) -> None:
    """Runs an artifact on the inputs of a file, prints what comes out, and writes it."""
    if output is not None:
        check_results_target(output)
    artifact = load_artifact(path)
    try:
        arrays = read_arrays(inputs)
    except ValueError as error:
        raise InputError(f"{str(inputs)!r} cannot be read: {error}.") from error
    names = [one.name for one in artifact.inputs]
    if LABELS not in names:
        arrays.pop(LABELS, None)
    with steps_shown(console) as show:
        show(f"running {artifact.name}")
        found = artifact.run(with_own_name(arrays, names), seed=seed)
    for name, values in found.items():
        told = f"{list(values.shape)}, from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
        print_plain(console, f"{name}: {told}")
    if output is not None:
        write_arrays(output, found)
        print_plain(console, f"written to {output}")
