"""Kinds of neurons: parameters, choices and equations. Names are NIR's where NIR has the kind.

Parameters are arrays of the population's shape, or of shape ``[]`` where all neurons share one value. Time constants
are in seconds; voltages, currents and resistances are in the model's own unit. In the equations ``I`` is the summed
input of the step and ``z`` the output spike (0 or 1).

Choices that the equations leave open are fields of their own:

- ``reset``: after a spike, ``"zero"`` sets v to v_reset, ``"subtract"`` takes v_threshold away.
- ``integration``: how an equation ``tau x' = a - x`` is taken over a time step. ``"euler"``: ``x + dt / tau (a - x)``.
  ``"exponential"``: ``a + (x - a) exp(-dt / tau)``, exact while a stands still.
- ``fires``: a spike where v is ``">"`` or ``">="`` the threshold.
- ``current``: whether v is driven by the ``"old"`` or the ``"new"`` synaptic current of the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from .arrays import constant

Values = Any
"""A number or an array; kept as a numpy array that cannot be written."""
Reset = Literal["zero", "subtract"]
Integration = Literal["euler", "exponential"]
Comparison = Literal[">", ">="]
Current = Literal["old", "new"]

IN, OUT = "in", "out"
"""Names of the input and the output of neurons that have one of each."""

CHOICES: dict[str, tuple[str, ...]] = {
    "reset": ("zero", "subtract"),
    "integration": ("euler", "exponential"),
    "fires": (">", ">="),
    "current": ("old", "new"),
}
"""Every choice of neurons and its values."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """A kind of neuron; its fields are choices, and parameters beside them.

    Attributes:
        inputs, outputs: names of its ports.
        states: names of its states.
        spikes: whether its output is a spike.
        level: the parameter that a spiking neuron compares with.
        trained: names of the parameters that learning changes.
    """

    inputs: ClassVar[tuple[str, ...]] = (IN,)
    outputs: ClassVar[tuple[str, ...]] = (OUT,)
    trained: ClassVar[frozenset[str]] = frozenset()
    states: ClassVar[tuple[str, ...]] = ()
    spikes: ClassVar[bool] = False
    level: ClassVar[str] = "v_threshold"

    def __post_init__(self) -> None:
        for name in self.parameter_names():
            object.__setattr__(self, name, constant(getattr(self, name)))

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.name not in CHOICES)

    @classmethod
    def choice_names(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls) if f.name in CHOICES)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in self.parameter_names()}

    @property
    def choices(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.choice_names()}

    @property
    def by_position(self) -> bool:
        """Whether every neuron is on its own."""
        return True

    @property
    def options(self) -> dict[str, Any]:
        """What its text says beside its parameters."""
        return self.choices

    def shape_of(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a port, state or parameter, in a population of some shape."""
        return shape

    def replace(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def map(self, change: Any) -> Self:
        """The neuron with ``change(parameter)`` for every parameter."""
        return self.with_parameters({name: change(value) for name, value in self.parameters.items()})

    def with_parameters(self, changed: Mapping[str, Any]) -> Self:
        """The neuron with other values of some parameters."""
        return self.replace(**changed)


@dataclass(frozen=True, eq=False)
class Relay(Neuron):
    """``out = I``, in the same step: a point where projections meet or part."""


@dataclass(frozen=True, eq=False)
class Threshold(Neuron):
    """``z = I > threshold``, without a state."""

    spikes = True
    level = "threshold"
    threshold: Values
    fires: Comparison = ">"


@dataclass(frozen=True, eq=False)
class I(Neuron):  # noqa: E742
    """``v' = r I``; the output is v."""

    states = ("v",)
    r: Values


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """``v' = r I; z = v > v_threshold``, then the reset."""

    states = ("v",)
    spikes = True
    r: Values
    v_threshold: Values
    v_reset: Values = 0.0
    reset: Reset = "zero"
    fires: Comparison = ">"


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """``tau v' = v_leak - v + r I``; the output is v."""

    states = ("v",)
    tau: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    integration: Integration = "euler"


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """``tau v' = v_leak - v + r I; z = v > v_threshold``, then the reset."""

    states = ("v",)
    spikes = True
    tau: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    v_threshold: Values = 1.0
    v_reset: Values = 0.0
    reset: Reset = "zero"
    integration: Integration = "euler"
    fires: Comparison = ">"


@dataclass(frozen=True, eq=False)
class ALIF(Neuron):
    """LIF with an adaptive threshold: ``tau v' = v_leak - v + r I; z = v > v_threshold + beta a``, then the reset and
    ``tau_a a' = -a`` with a jump of one by every spike. The threshold of a step reads the a of the step before.
    """

    states = ("v", "a")
    spikes = True
    tau: Values
    tau_a: Values
    beta: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    v_threshold: Values = 1.0
    v_reset: Values = 0.0
    reset: Reset = "zero"
    integration: Integration = "euler"
    fires: Comparison = ">"


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """``tau_syn i' = -i + w_in I; tau_mem v' = v_leak - v + r i``; the output is v."""

    states = ("i", "v")
    tau_syn: Values
    tau_mem: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    w_in: Values = 1.0
    integration: Integration = "euler"
    current: Current = "old"


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """``tau_syn i' = -i + w_in I; tau_mem v' = v_leak - v + r i; z = v > v_threshold``, then the reset."""

    states = ("i", "v")
    spikes = True
    tau_syn: Values
    tau_mem: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    v_threshold: Values = 1.0
    v_reset: Values = 0.0
    w_in: Values = 1.0
    reset: Reset = "zero"
    integration: Integration = "euler"
    fires: Comparison = ">"
    current: Current = "old"


@dataclass(frozen=True, eq=False)
class Delay(Neuron):
    """``out_t = I_(t - steps)``, zero before the first step; every element has a delay of its own."""

    steps: Values


NEURONS: dict[str, type[Neuron]] = {
    kind.__name__: kind for kind in (Relay, Threshold, I, IF, LI, LIF, ALIF, CubaLI, CubaLIF, Delay)
}
"""Every kind by its name in text and files."""
