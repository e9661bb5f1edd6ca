"""What a graph is made of: inputs, populations, projections, outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from .arrays import constant
from .neurons import IN, OUT, Neuron
from .operations import Operation

Shape = tuple[int, ...]
ZERO = constant(0.0)


@dataclass(frozen=True)
class Input:
    """What a graph is given at every step.

    Attributes:
        name: unique among inputs, populations and outputs.
        shape: of one step.
        low, high: the values it can take, which analyses may rely on; None where unknown.
    """

    name: str
    shape: Shape
    low: float | None = None
    high: float | None = None

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Output:
    """What a graph returns at every step: the sum of the projections into it.

    Attributes:
        name: unique among inputs, populations and outputs.
        shape: of one step.
    """

    name: str
    shape: Shape

    @property
    def size(self) -> int:
        return prod(self.shape)


ACTIVITY_ARRAYS = ("rates", "active", "partner", "correlation")
"""What is measured of every neuron."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What was measured of a population.

    Attributes:
        rates: spikes per step and neuron, of the population's shape; the mean output where there are no spikes.
        active: fraction of the samples in which a neuron fired at all, of the population's shape.
        steps: number of steps and samples that were measured.
        data: fingerprint of the data.
        partner: of a one-dimensional spiking population, for every neuron the other one whose spikes are most like its
            own, as a number; -1 where there is none.
        correlation: Pearson's, with that one.
    """

    rates: np.ndarray
    active: np.ndarray | None = None
    steps: int | None = None
    data: str | None = None
    partner: np.ndarray | None = None
    correlation: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name in ACTIVITY_ARRAYS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, constant(getattr(self, name)))

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What there is, by name."""
        return {name: value for name in ACTIVITY_ARRAYS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one kind.

    Attributes:
        name: unique among inputs, populations and outputs.
        shape: of the population.
        neuron: kind, parameters and choices.
        initial: values of states before the first step, and of outputs, which delayed projections bring then; of the
            population's shape or one number, zero where left out.
        activity: what was measured, or None.
    """

    name: str
    shape: Shape
    neuron: Neuron
    initial: Mapping[str, np.ndarray] = field(default_factory=dict)
    activity: Activity | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "initial", {name: constant(value) for name, value in self.initial.items()})

    @property
    def size(self) -> int:
        return prod(self.shape)

    def replace(self, **changes: Any) -> Population:
        """The same with other attributes."""
        return replace(self, **changes)

    def initial_state(self) -> dict[str, np.ndarray]:
        """Every state before the first step, of the population's shape."""
        return {name: self.initial_value(name) for name in self.neuron.states}

    def initial_value(self, port: str) -> np.ndarray:
        """A state or output before the first step."""
        return np.broadcast_to(self.initial.get(port, ZERO), self.neuron.shape_of(port, self.shape))


def side_by_side(values: Sequence[np.ndarray], shapes: Sequence[Shape]) -> np.ndarray:
    """Values of populations one after the other, ``[size]``; one number where all share it."""
    if all(x.ndim == 0 and x == values[0] for x in values):
        return values[0]
    return np.concatenate([np.broadcast_to(x, shape).reshape(-1) for x, shape in zip(values, shapes, strict=True)])


@dataclass(frozen=True, eq=False)
class Projection:
    """An operation from the values of a source into a target, where all projections are summed.

    Attributes:
        name: unique among projections.
        source: an input or a population.
        target: a population or an output.
        operation: what is done to the source's values.
        delay: in steps; 0: the source's values of this step, 1: of the step before. Values before the first step are
            the population's initial ones, zero where it has none.
        source_port: of a population, which of its outputs, or which state, as it is after the step.
        target_port: of a population, which of its inputs.
        trained: whether the arrays of the operation are parameters that learning changes.
        masked: whether zeros of the weight are absent synapses, which stay zero in training; of sparse rows all are.
    """

    name: str
    source: str
    target: str
    operation: Operation
    delay: int = 0
    source_port: str = OUT
    target_port: str = IN
    trained: bool = True
    masked: bool = False

    @property
    def mask(self) -> np.ndarray | None:
        """Where a dense weight has synapses, boolean of the weight's shape; None if nothing is absent from it."""
        weight = self.operation.arrays.get("weight")
        if not self.masked or weight is None or sparse.issparse(weight):
            return None
        present = weight != 0
        return None if present.all() else present

    def replace(self, **changes: Any) -> Projection:
        """The same with other attributes."""
        return replace(self, **changes)
