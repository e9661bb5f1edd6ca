"""Graphs in files of every kind that Ranvier reads and writes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..errors import GraphError, InputError
from ..graph.snn_graph import SNNGraph
from ..graph.storage import load, save
from ..nir.options import NirOptions
from ..nir.read import nir_structure, read_nir
from ..nir.write import write_nir

ENDINGS = (".nir", ".snn")


def is_graph_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file's name ends like that of a graph."""
    return Path(path).suffix.lower() in ENDINGS


def read_graph(path: str | os.PathLike[str], options: NirOptions) -> SNNGraph:
    """A graph from a .nir or .snn file. The options are for facts that a .nir file does not state.

    Raises:
        GraphError: the file cannot be read, something that NIR does not store is missing, or a .snn file has options.
    """
    source = Path(path)
    if source.suffix.lower() == ".nir":
        return read_nir(source, options)
    if source.suffix.lower() == ".snn":
        if options.names:
            raise GraphError(
                f"{os.fspath(path)!r} already states its {' and '.join(options.names)}; leave out these options."
            )
        return load(source)
    raise GraphError(f"{os.fspath(path)!r}: graphs end in {' or '.join(ENDINGS)}.")


def read_structure(path: str | os.PathLike[str], options: NirOptions) -> tuple[SNNGraph, list[str]]:
    """A graph to look at but not to run, and what its file does not state; see :func:`read_graph`."""
    if Path(path).suffix.lower() == ".nir":
        return nir_structure(Path(path), options)
    return read_graph(path, options), []


def check_graph_target(path: str | os.PathLike[str]) -> None:
    """Raises :class:`GraphError` unless a graph can be written to a file of this name."""
    if not is_graph_file(path):
        raise GraphError(f"{os.fspath(path)!r}: graphs end in {' or '.join(ENDINGS)}.")
    check_target(path)


def with_range(graph: SNNGraph, low: float, high: float) -> SNNGraph:
    """A graph with a declared range for all inputs."""
    copy = graph.copy()
    copy.inputs = {name: replace(node, low=low, high=high) for name, node in graph.inputs.items()}
    return copy


def check_target(path: str | os.PathLike[str]) -> None:
    """Raises :class:`GraphError` unless the folder of a file to be written exists."""
    target = Path(path)
    if not target.absolute().parent.is_dir():
        raise GraphError(f"the folder {str(target.parent)!r} does not exist; create it first or choose another.")


def check_results_target(path: Path) -> None:
    """Raises :class:`InputError` or :class:`GraphError` unless arrays can be written to a file of this name."""
    if path.suffix != ".npz":
        raise InputError(f"{str(path)!r}: results are written as .npz.")
    check_target(path)


def write_graph(graph: SNNGraph, path: str | os.PathLike[str]) -> None:
    """Writes a graph as .nir or .snn, completely or not at all.

    Raises:
        GraphError: the format cannot express the graph, or the file cannot be written.
    """
    check_graph_target(path)
    if Path(path).suffix.lower() == ".nir":
        write_nir(graph, path)
    else:
        save(graph, path)
