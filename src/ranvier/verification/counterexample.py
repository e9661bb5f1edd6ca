"""Inputs on which two graphs differ, saved together with both graphs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GraphError, reason_text
from ..graph.provenance import NeuronPlace, Provenance
from ..graph.snn_graph import SNNGraph
from ..graph.storage import from_bytes, to_bytes
from ..util.files import read_arrays, write_arrays
from .promise import Promise

GRAPHS = ("original", "optimized")
INPUT = "input."
ORIGIN = "origin."
FACTS = "told"
"""Name of the array that holds the promise and the names of populations, as JSON."""


@dataclass(frozen=True, eq=False)
class Counterexample:
    """Two graphs and inputs on which they differ.

    Attributes:
        original, optimized: the graphs.
        inputs: by name, ``[T, *shape]``.
        origins: where the neurons of the original graph are in the optimized one.
        promise: the broken promise; None if there was none.
    """

    original: SNNGraph
    optimized: SNNGraph
    inputs: Mapping[str, np.ndarray]
    origins: Provenance
    promise: Promise | None = None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes a .npz file, which :func:`ranvier.replay` and ``ranvier verify`` read."""
        arrays = {f"{INPUT}{name}": np.asarray(values) for name, values in self.inputs.items()}
        for name, graph in zip(GRAPHS, (self.original, self.optimized), strict=True):
            arrays[name] = np.frombuffer(to_bytes(graph), np.uint8)
        places = self.origins.places
        arrays |= {f"{ORIGIN}{name}": place.numbers for name, place in places.items()}
        facts = {
            "promise": None if self.promise is None else str(self.promise),
            "populations": {name: place.population for name, place in places.items()},
        }
        arrays[FACTS] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        write_arrays(Path(path), arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Counterexample:
        """Reads a file that :meth:`save` wrote.

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
        if other := [name for name in arrays if name not in (*GRAPHS, FACTS) and not name.startswith((INPUT, ORIGIN))]:
            raise GraphError(
                f"{os.fspath(path)!r} holds no counterexample: {', '.join(map(repr, other))} is none of its arrays, "
                f"which are {', '.join((*GRAPHS, FACTS))}, {INPUT}<name> and {ORIGIN}<population>."
            )
        inputs = {name.removeprefix(INPUT): value for name, value in arrays.items() if name.startswith(INPUT)}
        size = Path(path).stat().st_size
        graphs = [from_bytes(arrays[name].tobytes(), f"{name} in {os.fspath(path)!r}", size) for name in GRAPHS]
        # Nothing in the file can be trusted to be what :meth:`save` wrote; wrong types and missing names surface here.
        try:
            promise, origins = _read_facts(arrays, graphs[0], graphs[1])
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise GraphError(f"{os.fspath(path)!r} holds no counterexample: {reason_text(error)}.") from error
        return cls(graphs[0], graphs[1], inputs, origins, promise)


def _read_facts(
    arrays: Mapping[str, np.ndarray], original: SNNGraph, optimized: SNNGraph
) -> tuple[Promise | None, Provenance]:
    """The broken promise, and the places of the original neurons.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, RecursionError: the arrays are not those that :meth:`save`
            writes.
    """
    facts = json.loads(arrays[FACTS].tobytes())
    places = {}
    for name, population in original.populations.items():
        other, numbers = facts["populations"][name], arrays[f"{ORIGIN}{name}"]
        last = -1 if other is None else optimized.populations[other].size - 1
        are_numbers = numbers.shape == (population.size,) and np.issubdtype(numbers.dtype, np.integer)
        if not are_numbers or numbers.min() < -1 or numbers.max() > last:
            raise ValueError(f"the places of {name!r} are not in the other graph")
        places[name] = NeuronPlace(other, numbers.astype(np.int64))
    return None if facts["promise"] is None else Promise[facts["promise"].upper()], Provenance(places)
