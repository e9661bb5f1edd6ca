"""Inputs on which two graphs differ, with both graphs, in one file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GraphError
from ..ir.files import read_arrays, write_arrays
from ..ir.graph.snn_graph import SNNGraph
from ..ir.graph.storage import from_bytes, to_bytes

GRAPHS = ("original", "optimized")
INPUT = "input."


@dataclass(frozen=True, eq=False)
class Counterexample:
    """Two graphs and inputs on which they differ.

    Attributes:
        original, optimized: the graphs.
        inputs: by name, ``[T, *shape]``.
    """

    original: SNNGraph
    optimized: SNNGraph
    inputs: Mapping[str, np.ndarray]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes one .npz file, for :func:`ranvier.replay` and ``ranvier verify``."""
        arrays = {f"{INPUT}{name}": np.asarray(values) for name, values in self.inputs.items()}
        for name, graph in zip(GRAPHS, (self.original, self.optimized), strict=True):
            arrays[name] = np.frombuffer(to_bytes(graph), np.uint8)
        write_arrays(Path(path), arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Counterexample:
        """What :meth:`save` wrote.

        Raises:
            GraphError: the file cannot be read, or holds no counterexample.
        """
        try:
            arrays = read_arrays(Path(path))
        except ValueError as error:
            raise GraphError(f"{os.fspath(path)!r} holds no counterexample: {error}.") from error
        if not set(GRAPHS) <= set(arrays):
            raise GraphError(
                f"{os.fspath(path)!r} holds no counterexample: it has {sorted(arrays)}, not {list(GRAPHS)}."
            )
        inputs = {name.removeprefix(INPUT): value for name, value in arrays.items() if name.startswith(INPUT)}
        graphs = [from_bytes(arrays[name].tobytes(), f"{name} in {os.fspath(path)!r}") for name in GRAPHS]
        return cls(graphs[0], graphs[1], inputs)
