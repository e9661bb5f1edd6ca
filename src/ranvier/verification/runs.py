"""Runs of graphs with a cache of results, so that a chain of checks runs every graph once."""

# An example: passes turn the graph g into h and then into k, and each check compares two graphs on the same inputs. The
# checks (g, h), (h, k) and at last (g, k) are six runs; with the cache there are three.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph.interpreter import Nudge, interpret
from ..graph.recording import Simulation
from ..graph.snn_graph import SNNGraph

LATEST = 2
"""Graphs in the cache besides the first one, with which the last check compares."""

Key = tuple[object, ...]


class RunCache:
    """Interprets graphs. The same graph object with the same arrays gives the same result without running again."""

    def __init__(self) -> None:
        self._graphs: list[SNNGraph] = []
        self._results: list[dict[Key, tuple[Any, Simulation]]] = []

    def __call__(
        self, graph: SNNGraph, inputs: Mapping[str, np.ndarray], *, record: Any = (), nudges: Sequence[Nudge] = ()
    ) -> Simulation:
        """As :func:`ranvier.interpret`, from inputs by name."""
        # Runs with moved thresholds are steps of a search, and are not repeated.
        if nudges:
            return interpret(graph, inputs, record=record, nudges=nudges)
        results = self._of(graph)
        key = (*((name, id(values)) for name, values in inputs.items()), *record)
        if key not in results:
            # The cache refers to the arrays: an id is unique only as long as its object lives.
            results[key] = dict(inputs), interpret(graph, inputs, record=record)
        return results[key][1]

    def _of(self, graph: SNNGraph) -> dict[Key, tuple[Any, Simulation]]:
        for known, results in zip(self._graphs, self._results, strict=True):
            if known is graph:
                return results
        self._graphs.append(graph)
        self._results.append({})
        if len(self._graphs) > 1 + LATEST:
            del self._graphs[1], self._results[1]
        return self._results[-1]
