"""Data on which networks are measured."""

# An example: two samples with the labels 1 and 0, and an output of two elements whose sums over time are [3 5] for the
# first sample and [2 4] for the second. Both samples are classified as 1, so the accuracy is 0.5.

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
    """Arrays by name. A single array with one of the usual names takes the name of a graph's single input."""
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in ONLY:
        return {names[0]: next(iter(arrays.values()))}
    return arrays


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs, and the classes that are expected for them.

    Attributes:
        inputs: by name, ``[T, samples, *shape]``.
        labels: class of every sample, integers ``[samples]``; None if there are no classes.
        run: what runs a graph on the inputs.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    run: Run = interpret

    @classmethod
    def of(cls, graph: SNNGraph, data: Any, labels: Any = None, run: Run = interpret) -> Calibration:
        """From inputs as :func:`ranvier.simulate` takes them. In a mapping, the entry ``"labels"`` holds the classes.

        Raises:
            InputError: the inputs do not fit the graph, or the labels do not fit the inputs.
        """
        if isinstance(data, Calibration):
            return replace(data, run=run)
        if isinstance(data, Mapping):
            data = dict(data)
            # An input of the graph may have the name "labels"; then the entry is that input.
            if LABELS in data and LABELS not in graph.inputs:
                labels = data.pop(LABELS)
            data = with_own_name(data, list(graph.inputs))
        values, samples = batched_inputs(graph, data)
        inputs = {name: array if samples is not None else array[:, None] for name, array in values.items()}
        broken = [name for name, value in inputs.items() if not np.all(np.isfinite(value))]
        if broken:
            raise InputError(f"the data for {', '.join(map(repr, broken))} holds values that are not finite.")
        classes = None if labels is None else np.asarray(labels)
        if classes is not None and (classes.shape != (samples or 1,) or not np.issubdtype(classes.dtype, np.integer)):
            raise InputError(
                f"labels are {classes.dtype}{list(classes.shape)}; one whole number for each of the {samples or 1} "
                "samples is expected."
            )
        if classes is not None and len(graph.outputs) == 1:
            count = next(iter(graph.outputs.values())).size
            if classes.min() < 0 or classes.max() >= count:
                raise InputError(
                    f"labels run from {classes.min()} to {classes.max()}, but the output has {count} elements, one for "
                    f"each class; labels from 0 to {count - 1} are expected."
                )
        return cls(inputs, classes, run)

    @classmethod
    def load(cls, path: str | os.PathLike[str], graph: SNNGraph, run: Run = interpret) -> Calibration:
        """From a .npz file that holds an array for every input, and ``labels`` if there are classes.

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
        """Sixteen hexadecimal digits that identify the inputs."""
        digest = hashlib.sha256()
        for name in sorted(self.inputs):
            values = np.ascontiguousarray(self.inputs[name])
            digest.update(f"{name} {values.dtype} {values.shape}".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]

    def first(self, samples: int) -> Calibration:
        """Only the first samples."""
        labels = None if self.labels is None else self.labels[:samples]
        return replace(self, inputs={name: x[:, :samples] for name, x in self.inputs.items()}, labels=labels)

    def simulation(self, graph: SNNGraph, record: list[str] | None = None) -> Simulation:
        """What a graph does on these inputs."""
        return self.run(graph, self.inputs, record=record or [])

    def accuracy(self, graph: SNNGraph) -> float:
        """Fraction of the samples whose label is the element of the only output with the largest sum over time.

        Raises:
            InputError: there are no labels.
        """
        if self.labels is None:
            raise InputError("an accuracy needs labels: one class for every sample.")
        scores = self.simulation(graph).output.sum(axis=0).reshape(self.samples, -1)
        return float((scores.argmax(axis=1) == self.labels).mean())

    def divergence(self, before: Simulation, graph: SNNGraph) -> float:
        """Root mean square of the change of the outputs, relative to that of the outputs before."""
        after = self.simulation(graph)
        apart = sum(float(((after.outputs[n] - x) ** 2).sum()) for n, x in before.outputs.items())
        size = sum(float((x.astype(np.float64) ** 2).sum()) for x in before.outputs.values())
        return float(np.sqrt(apart / size)) if size else float(apart > 0) * float("inf")
