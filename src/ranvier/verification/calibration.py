"""Data that a network is measured on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.interpreter import interpret
from ..graph.recording import Simulation, batched_inputs
from ..graph.snn_graph import SNNGraph
from ..util.files import read_arrays
from .ties import Run

LABELS = "labels"
ONLY = ("inputs", "input", "x", "xs", "data")
"""Names under which a file may hold the values of a graph's only input."""


def with_own_name(arrays: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Arrays by name; the only one goes by the name of the only input where it has one of the usual names."""
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in ONLY:
        return {names[0]: next(iter(arrays.values()))}
    return arrays


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs with what is expected of them.

    Attributes:
        inputs: by name, ``[T, samples, *shape]``.
        labels: class of every sample, ``[samples]``; None where there are no classes.
        run: what runs a graph on them.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    run: Run = interpret

    @classmethod
    def of(cls, graph: SNNGraph, data: Any, labels: Any = None, run: Run = interpret) -> Calibration:
        """From inputs as :func:`ranvier.simulate` takes them; of a mapping, ``"labels"`` are the classes.

        Raises:
            InputError: the inputs do not fit the graph, or the labels not the inputs.
        """
        if isinstance(data, Calibration):
            return replace(data, run=run)
        if isinstance(data, Mapping):
            data = dict(data)
            if LABELS in data and LABELS not in graph.inputs:
                labels = data.pop(LABELS)
            data = with_own_name(data, list(graph.inputs))
        given, samples = batched_inputs(graph, data)
        inputs = {name: value if samples is not None else value[:, None] for name, value in given.items()}
        broken = [name for name, value in inputs.items() if not np.all(np.isfinite(value))]
        if broken:
            raise InputError(f"the data for {', '.join(map(repr, broken))} holds values that are not finite.")
        found = None if labels is None else np.asarray(labels)
        if found is not None and (found.shape != (samples or 1,) or not np.issubdtype(found.dtype, np.integer)):
            raise InputError(
                f"labels are {found.dtype}{list(found.shape)}; one whole number for each of the {samples or 1} samples "
                "is expected."
            )
        if found is not None and len(graph.outputs) == 1:
            classes = next(iter(graph.outputs.values())).size
            if found.min() < 0 or found.max() >= classes:
                raise InputError(
                    f"labels run from {found.min()} to {found.max()}, but the output has {classes} elements, one for "
                    f"each class; labels from 0 to {classes - 1} are expected."
                )
        return cls(inputs, found, run)

    @classmethod
    def load(cls, path: str | os.PathLike[str], graph: SNNGraph, run: Run = interpret) -> Calibration:
        """From a .npz file with an array for every input, and ``labels`` if there are any.

        Raises:
            InputError: the file cannot be read or does not fit.
        """
        try:
            arrays = read_arrays(Path(path))
        except ValueError as error:
            raise InputError(f"{os.fspath(path)!r} cannot be read: {error}.") from error
        return cls.of(graph, arrays, run=run)

    @property
    def steps(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def samples(self) -> int:
        return next(iter(self.inputs.values())).shape[1]

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that tell these inputs from others."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            values = np.ascontiguousarray(self.inputs[name])
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]

    def first(self, samples: int) -> Calibration:
        """The first samples alone."""
        labels = None if self.labels is None else self.labels[:samples]
        return replace(self, inputs={name: x[:, :samples] for name, x in self.inputs.items()}, labels=labels)

    def simulation(self, graph: SNNGraph, record: list[str] | None = None) -> Simulation:
        """What a graph does on these inputs."""
        return self.run(graph, self.inputs, record=record or [])

    def accuracy(self, graph: SNNGraph) -> float:
        """Part of the samples whose label is the element that the only output has most of, summed over time."""
        if self.labels is None:
            raise InputError("an accuracy needs labels: one class for every sample.")
        scores = self.simulation(graph).output.sum(axis=0).reshape(self.samples, -1)
        return float((scores.argmax(axis=1) == self.labels).mean())

    def divergence(self, before: Simulation, graph: SNNGraph) -> float:
        """Root mean square of the change of the outputs, as a part of that of the outputs before."""
        after = self.simulation(graph)
        apart = sum(float(((after.outputs[n] - x) ** 2).sum()) for n, x in before.outputs.items())
        size = sum(float((x.astype(np.float64) ** 2).sum()) for x in before.outputs.values())
        return float(np.sqrt(apart / size)) if size else float(apart > 0) * float("inf")
