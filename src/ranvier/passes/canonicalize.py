"""canonicalize: one form for operations and neurons that compute the same."""

# An example: the matrix [[2 0] [0 2]] with the bias [0 0].
#
#   no bias -> the scale [2 2] -> the scale 2
#
# Each rule is tried once. They are ordered so that a rule comes after those whose results it can simplify: a bias of
# zeros would keep the matrix from being a scale, and a scale of ones has to be one number before it is recognized.

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.arrays import as_rows
from ..graph.neurons import Delay, Neuron, Relay
from ..graph.operations import Flatten, Identity, Linear, Operation, Scale, SumPool
from ..graph.size import bytes_of
from ..util.counting import counted
from ..verification.promise import Promise
from .base import Pass, Rewriting

Simpler = tuple[Operation, str] | None
"""A simpler operation and a description of the change, if there is one."""
Rule = Callable[[Operation, tuple[int, ...]], Simpler]


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Writes operations and neurons in the simplest form that computes the same (bitwise).

    A diagonal matrix becomes a scale. A scale of ones, a pool of single elements and a flatten of one axis become the
    identity. Biases of zeros and stored zeros of sparse rows are removed. A parameter with equal values for all neurons
    becomes one number. A delay population with equal delays becomes a relay with delayed projections.

    Attributes:
        biases: whether biases of zeros are removed from trained projections; if not, they can be learned.
    """

    name = "canonicalize"
    promise = Promise.BITWISE
    biases: bool = True

    def run(self, rewriting: Rewriting) -> None:
        graph = rewriting.graph
        for name, projection in list(graph.projections.items()):
            source = graph.source_shape(projection)
            rules = RULES if self.biases or not projection.trained else RULES[1:]
            simplest, why = _simplest(projection.operation, source, rules)
            if why and not rewriting.leaves(name, f"not done: {', '.join(why)}", name):
                rewriting.set_projection(projection.replace(operation=simplest))
                rewriting.did(name, ", ".join(why), Promise.BITWISE)
        for name, population in list(graph.populations.items()):
            self._uniform(rewriting, name)
            if isinstance(population.neuron, Delay):
                self._delays(rewriting, name, population.neuron)

    def _uniform(self, rewriting: Rewriting, name: str) -> None:
        population = rewriting.graph.populations[name]
        if not population.neuron.by_position:
            return
        # A trained parameter keeps its shape: its values are equal now, but need not stay so.
        trained = population.neuron.trained
        values = {k: v for k, v in population.neuron.parameters.items() if k not in trained}
        shared = {k: v.ravel()[0] for k, v in values.items() if v.ndim and v.size and np.all(v == v.ravel()[0])}
        if shared:
            neuron: Neuron = population.neuron.with_parameters(shared)
            rewriting.graph.populations[name] = population.replace(neuron=neuron)
            rewriting.did(name, f"{', '.join(shared)} shared by all neurons", Promise.BITWISE)

    def _delays(self, rewriting: Rewriting, name: str, neuron: Delay) -> None:
        graph = rewriting.graph
        after = graph.out_of(name)
        steps = int(neuron.steps.ravel()[0]) if neuron.steps.size else 0
        if np.any(neuron.steps != steps) or (steps and any(p.target == name for p in after)):
            return
        if graph.populations[name].initial:
            return
        graph.populations[name] = graph.populations[name].replace(neuron=Relay())
        for projection in after:
            rewriting.set_projection(projection.replace(delay=projection.delay + steps))
        rewriting.did(
            name, f"a relay; the projections after it are delayed by {counted(steps, 'step')} more", Promise.BITWISE
        )


def _simplest(operation: Operation, source: tuple[int, ...], rules: Sequence[Rule]) -> tuple[Operation, list[str]]:
    """An operation in its simplest form, and descriptions of the changes."""
    why = []
    for rule in rules:
        simpler = rule(operation, source)
        if simpler is not None:
            operation, description = simpler
            why.append(description)
    return operation, why


def _no_bias(operation: Operation, source: tuple[int, ...]) -> Simpler:
    if isinstance(operation, Linear) and operation.bias is not None and not np.any(operation.bias):
        return operation.replace(bias=None), "zero bias removed"
    return None


def _no_stored_zeros(operation: Operation, source: tuple[int, ...]) -> Simpler:
    if isinstance(operation, Linear) and sparse.issparse(operation.weight) and not np.all(operation.weight.data):
        return operation.replace(weight=as_rows(operation.weight)), "stored zeros dropped"
    return None


def _diagonal_is_scale(operation: Operation, source: tuple[int, ...]) -> Simpler:
    # A scale keeps the axes of an image, which a matrix reads as one.
    if len(source) != 1:
        return None
    if isinstance(operation, Linear) and operation.bias is None and (diagonal := _diagonal(operation)) is not None:
        return Scale(diagonal), "diagonal matrix replaced by a scale"
    return None


def _one_scale(operation: Operation, source: tuple[int, ...]) -> Simpler:
    if isinstance(operation, Scale) and operation.scale.ndim and _is_uniform(operation.scale):
        return Scale(operation.scale.ravel()[0]), "scale shared by all elements"
    return None


def _no_scale(operation: Operation, source: tuple[int, ...]) -> Simpler:
    if isinstance(operation, Scale) and not operation.scale.ndim and operation.scale == 1:
        return Identity(), "scale of one removed"
    return None


def _no_move(operation: Operation, source: tuple[int, ...]) -> Simpler:
    if isinstance(operation, (SumPool, Flatten)) and _does_nothing(operation, source):
        return Identity(), "operation without effect removed"
    return None


RULES: tuple[Rule, ...] = (_no_bias, _no_stored_zeros, _diagonal_is_scale, _one_scale, _no_scale, _no_move)
"""Tried in order, each on the result of those before it."""


def _is_uniform(values: np.ndarray) -> bool:
    return values.size > 0 and bool(np.all(values == values.ravel()[0]))


def _diagonal(linear: Linear) -> np.ndarray | None:
    """The diagonal of a diagonal matrix; None for other matrices."""
    rows, columns = linear.weight.shape
    if rows != columns or not rows or _is_sparser_than_a_scale(linear.weight):
        return None
    diagonal = np.asarray(linear.weight.diagonal())
    count = linear.synapses((columns,))
    return diagonal if count == np.count_nonzero(diagonal) and np.any(diagonal) else None


def _is_sparser_than_a_scale(weight: Any) -> bool:
    return sparse.issparse(weight) and bytes_of(weight) < weight.shape[0] * weight.dtype.itemsize


def _does_nothing(operation: SumPool | Flatten, source: tuple[int, ...]) -> bool:
    if operation.target_shape(source) != source:
        return False
    return isinstance(operation, Flatten) or all(k == 1 for k in (*operation.kernel, *operation.stride))
