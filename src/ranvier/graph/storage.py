"""Graphs in files: zip archives of the text form and its arrays, without pickles, written completely or not at all."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np

from ..errors import GraphError, reason_text
from ..program.formula import NoFormula, formula_of
from ..util.files import open_archive, replacing, write_member
from ..util.limits import TooLarge
from .parser import parse
from .printer import to_text
from .shared import ParameterBinding
from .snn_graph import SNNGraph
from .traced import Mapped, Traced
from .verifier import check

TEXT = "graph.txt"
INDEX = "arrays.json"
"""The names of the arrays in order; array number 3 is the member 3.npy, whatever characters its name has."""


def save(graph: SNNGraph, path: str | os.PathLike[str]) -> Path:
    """Writes a graph into a file; an existing file is replaced once the new one is complete.

    Raises:
        GraphError: the graph is not valid, or the file cannot be written.
    """
    check(graph)
    _check_named(graph)
    text, arrays = to_text(graph)
    target = Path(path)
    try:
        with replacing(target) as temporary:
            _write(temporary, text, arrays)
    except OSError as error:
        raise GraphError(f"{str(target)!r} cannot be written: {reason_text(error)}.") from error
    return target


def _check_named(graph: SNNGraph) -> None:
    """Raises :class:`GraphError` if a graph has traced programs, which the text form cannot express."""
    traced = [p.name for p in graph.populations.values() if isinstance(p.neuron, Traced)]
    mapped = [p.name for p in graph.projections.values() if isinstance(p.operation, Mapped)]
    bound = [".".join(array) for array, use in graph.bindings.items() if not _has_formula(use)]
    if bound and not traced and not mapped:
        raise GraphError(
            f"{', '.join(map(repr, bound))} of {graph.name} are computed from parameters by a program, which a graph "
            "file cannot hold; the pass 'untie' makes them separate parameters, and ranvier.export_artifact(graph, "
            "path) writes any graph as a program."
        )
    if traced or mapped:
        raise GraphError(
            f"{', '.join(map(repr, (*traced, *mapped)))} of {graph.name} have a traced program, which a graph "
            "file cannot hold; ranvier.recognise(graph) names the neurons that it recognizes, and "
            "ranvier.export_artifact(graph, path) writes any graph as a program."
        )


def _has_formula(use: ParameterBinding) -> bool:
    try:
        return use.function is None or bool(formula_of(use.function).steps)
    except NoFormula:
        return False


def load(path: str | os.PathLike[str]) -> SNNGraph:
    """Loads the graph in a file that :func:`save` wrote.

    Raises:
        GraphError: there is no such file, it holds no graph, or the graph is not valid.
    """
    source = Path(path)
    if not source.is_file():
        raise GraphError(f"there is no file {str(source)!r}.")
    return _load(source, repr(str(source)))


def to_bytes(graph: SNNGraph) -> bytes:
    """The contents of a file that :func:`save` would write."""
    buffer = io.BytesIO()
    _write(buffer, *to_text(graph))
    return buffer.getvalue()


def from_bytes(data: bytes, name: str, size: int | None = None) -> SNNGraph:
    """The graph in the result of :func:`to_bytes`.

    Args:
        data: the bytes.
        name: how errors call them.
        size: bytes of the file that contains them, if it is larger; limits follow from it.

    Raises:
        GraphError: they hold no graph, or it is not valid.
    """
    return _load(io.BytesIO(data), name, size)


def _load(source: Path | io.BytesIO, name: str, size: int | None = None) -> SNNGraph:
    try:
        with open_archive(source, size) as archive:
            # The arrays and what the text declares share one budget: neither alone shows what the file takes.
            budget = archive.budget
            text = archive.text(TEXT).decode("utf-8")
            arrays = {key: archive.array(f"{number}.npy") for number, key in enumerate(_index(archive.text(INDEX)))}
    except TooLarge as error:
        raise GraphError(f"{name}: {error}.") from error
    except Exception as error:  # a damaged archive raises errors of many kinds
        raise GraphError(f"{name} does not hold a graph: {reason_text(error)}.") from error
    graph = parse(text, arrays, budget)
    check(graph)
    return graph


def _index(text: bytes) -> list[str]:
    """Names of the arrays, in order."""
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{INDEX} is not a list of names")
    return names


def _write(file: Path | io.BytesIO, text: str, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(TEXT, text)
        archive.writestr(INDEX, json.dumps(list(arrays)))
        for number, value in enumerate(arrays.values()):
            write_member(archive, f"{number}.npy", value)
