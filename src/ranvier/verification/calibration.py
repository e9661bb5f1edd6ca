"""Data on which networks are measured, and its division into a part that fits weights and a part that judges them.

For example, 8 samples with the labels 0 0 0 0 1 1 1 1. Four of them fit and four judge, two of each class in both, so
that neither part lacks a class.
"""

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
from .metric import Metric, checked_metric, class_scores, number
from .ties import Run

LABELS = "labels"
MASK = "mask"
TARGETS = (LABELS, MASK)
"""Entries of a mapping of inputs that are not inputs."""
ONLY = ("inputs", "input", "x", "xs", "data")
"""Names under which a file may hold the values of a graph's only input."""
SPLIT_SEED = 0


def with_own_name(arrays: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, Any]:
    """Arrays by name. A single array with one of the usual names takes the name of a graph's single input."""
    if len(names) == 1 and len(arrays) == 1 and next(iter(arrays)) in ONLY:
        return {names[0]: next(iter(arrays.values()))}
    return arrays


@dataclass(frozen=True, eq=False)
class Calibration:
    """Inputs, and what a network should make of them.

    Attributes:
        inputs: by name, ``[T, samples, *shape]``.
        labels: class of every sample, integers ``[samples]``, or targets of every step, ``[T, samples, ...]``; None if
            there are none.
        run: what runs a graph on the inputs.
        metric: how good outputs are; None for the accuracy if there are labels.
        mask: weights of the steps, ``[T]``; None if all count the same.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    run: Run = interpret
    metric: Metric | None = None
    mask: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        graph: SNNGraph,
        data: Any,
        labels: Any = None,
        run: Run = interpret,
        *,
        metric: Metric | None = None,
        mask: Any = None,
    ) -> Calibration:
        """From inputs as :func:`ranvier.simulate` takes them.

        In a mapping, the entries ``"labels"`` and ``"mask"`` hold these, unless an input of the graph has that name.

        Args:
            graph: the network.
            data: inputs.
            labels: class of every sample, ``[samples]``, or targets of every step, ``[T, samples, ...]``.
            run: what runs a graph on the inputs.
            metric: ``metric(outputs, labels, mask) -> number``, time first and larger for better outputs.
            mask: weights of the steps, ``[T]``.

        Raises:
            InputError: the inputs do not fit the graph, or labels, mask or metric do not fit the inputs.
        """
        if isinstance(data, Calibration):
            metric = data.metric if metric is None else checked_metric(metric, data.mask)
            return replace(data, run=run, metric=metric)
        if isinstance(data, Mapping):
            data = dict(data)
            # An input of the graph may have one of these names; then the entry is that input.
            own = {name: data.pop(name) for name in TARGETS if name in data and name not in graph.inputs}
            labels, mask = own.get(LABELS, labels), own.get(MASK, mask)
            data = with_own_name(data, list(graph.inputs))
        values, samples = batched_inputs(graph, data)
        inputs = {name: array if samples is not None else array[:, None] for name, array in values.items()}
        broken = [name for name, value in inputs.items() if not np.all(np.isfinite(value))]
        if broken:
            raise InputError(f"the data for {', '.join(map(repr, broken))} holds values that are not finite.")
        steps = len(next(iter(inputs.values())))
        weights = None if mask is None else _checked_mask(mask, steps)
        measure = None if metric is None else checked_metric(metric, weights)
        targets = None if labels is None else _with_sample_axis(np.asarray(labels), steps, samples)
        if targets is not None and measure is None:
            _check_classes(targets, graph, steps, samples or 1)
        return cls(inputs, targets, run, measure, weights)

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
        return self.taken(np.arange(min(samples, self.samples)))

    def taken(self, chosen: np.ndarray) -> Calibration:
        """Only some samples, by their numbers."""
        labels = self.labels
        if labels is not None:
            labels = labels[chosen] if labels.ndim == 1 else labels[:, chosen]
        return replace(self, inputs={name: x[:, chosen] for name, x in self.inputs.items()}, labels=labels)

    def halves(self) -> tuple[Calibration, Calibration]:
        """Two parts without common samples: one to fit on, one to judge on. Both have their share of every class."""
        order = np.random.default_rng(SPLIT_SEED).permutation(self.samples)
        if (classes := self._classes()) is not None:
            order = order[np.argsort(classes[order], kind="stable")]
        return self.taken(np.sort(order[::2])), self.taken(np.sort(order[1::2]))

    def _classes(self) -> np.ndarray | None:
        """The class of every sample; of labels for every step, that of the last."""
        labels = self.labels
        if labels is None or labels.ndim > 2 or not np.issubdtype(labels.dtype, np.integer):
            return None
        return labels if labels.ndim == 1 else labels[-1]

    def simulation(self, graph: SNNGraph, record: list[str] | None = None) -> Simulation:
        """What a graph does on these inputs."""
        return self.run(graph, self.inputs, record=record or [])

    @property
    def scored(self) -> bool:
        """Whether outputs are good or bad, by a metric or by labels."""
        return self.labels is not None or self.metric is not None

    def accuracy(self, graph: SNNGraph) -> float:
        """The metric of a graph's outputs: by default the fraction of the samples that are classified correctly. The
        class is the element of the only output with the largest sum over time.

        Raises:
            InputError: there are neither labels nor a metric.
        """
        outputs = self.simulation(graph).outputs
        if self.metric is not None:
            return number(self.metric(outputs_as_returned(outputs), self.labels, self.mask))
        if self.labels is None:
            raise InputError("an accuracy needs labels: one class for every sample.")
        return float(class_scores(only_output(outputs), self.labels, self.mask).mean())

    def divergence(self, before: Simulation, graph: SNNGraph) -> float:
        """Root mean square of the change of the outputs, relative to that of the outputs before."""
        after = self.simulation(graph)
        apart = sum(float(((after.outputs[n] - x) ** 2).sum()) for n, x in before.outputs.items())
        size = sum(float((x.astype(np.float64) ** 2).sum()) for x in before.outputs.values())
        return float(np.sqrt(apart / size)) if size else float(apart > 0) * float("inf")


def only_output(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The values of the only output.

    Raises:
        InputError: there are several.
    """
    if len(outputs) != 1:
        raise InputError(
            f"labels are given, but the network has {len(outputs)} outputs, {list(outputs)}; pass a metric that says "
            "which of them answers."
        )
    return next(iter(outputs.values()))


def outputs_as_returned(outputs: Mapping[str, np.ndarray]) -> Any:
    """What a metric gets: the only output, or a dictionary of several."""
    return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)


def _checked_mask(mask: Any, steps: int) -> np.ndarray:
    weights = np.asarray(mask, np.float64)
    if weights.shape != (steps,) or not np.all(np.isfinite(weights) & (weights >= 0)) or not weights.any():
        raise InputError(
            f"mask has the shape {list(weights.shape)}; a weight from 0 on is expected for each of the {steps} steps, "
            "at least one of them above 0."
        )
    return weights


def _with_sample_axis(labels: np.ndarray, steps: int, samples: int | None) -> np.ndarray:
    """Labels ``[samples]`` or ``[T, samples, ...]``, also where the inputs have no axis of samples."""
    if samples is None and labels.ndim and labels.shape[0] == steps and labels.shape != (1,):
        return labels[:, None]
    return labels


def _check_classes(labels: np.ndarray, graph: SNNGraph, steps: int, samples: int) -> None:
    """Raises InputError unless labels are classes, one for every sample or for every step of every sample."""
    by_sample, by_step = (samples,), (steps, samples)
    if labels.shape not in (by_sample, by_step) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels are {labels.dtype}{list(labels.shape)}; one whole number for each of the {samples} samples is "
            f"expected, {list(by_sample)}, or for each of their steps, {list(by_step)}. For other targets, pass a "
            "metric."
        )
    if len(graph.outputs) == 1:
        count = next(iter(graph.outputs.values())).size
        if labels.min() < 0 or labels.max() >= count:
            raise InputError(
                f"labels run from {labels.min()} to {labels.max()}, but the output has {count} elements, one for each "
                f"class; labels from 0 to {count - 1} are expected."
            )
