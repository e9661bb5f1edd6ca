"""Kinds of neurons: parameters, states and equations. Names are NIR's where NIR has the kind.

A kind is one class, and its equations stand in its ``update`` only: the reference interpreter, simulation, learning and
exported source all run that, each with its own arithmetic (``ops.py``). For example, a LIF with tau = 2, r = 1,
v_leak = 0 and threshold 1 that starts at v = 0.5 and gets a current of 4 moves in a step of dt = 1 to
0.5 + 1 / 2 * (4 - 0.5) = 2.25, fires, and is reset to v_reset = 0. CONTRIBUTING.md says how to add a kind.

Parameters are arrays of the population's shape, or of shape ``[]`` where all neurons share one value. Time constants
are in seconds; voltages, currents and resistances are in the model's own unit. In the equations ``I`` is the summed
input of the step and ``z`` the output spike (0 or 1).

Choices that the equations leave open are fields of their own:

- ``reset``: after a spike, ``"zero"`` sets v to v_reset, ``"subtract"`` takes v_threshold away.
- ``integration``: how an equation ``tau x' = a - x`` is taken over a time step. ``"euler"``: ``x + dt / tau (a - x)``.
  ``"exponential"``: ``a + (x - a) exp(-dt / tau)``, exact while a stands still.
- ``fires``: a spike where v is ``">"`` or ``">="`` the threshold.
- ``current``: whether v is driven by the ``"old"`` or the ``"new"`` synaptic current of the step. Do not confuse the
  choice with the argument ``current`` of :meth:`Neuron.update`, which is an array: the summed input, ``I``.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from .arrays import constant
from .ops import Array, NeuronOps, State

Values = Any
"""A number or an array; stored as a read-only numpy array."""
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

NEURONS: dict[str, type[Neuron]] = {}
"""Every kind by its name in text and files."""


@dataclass(frozen=True, eq=False)
class Neuron:
    """A kind of neuron; its fields are its parameters and choices.

    A subclass is known by its name to text and files from its definition on; ``named=False`` in the class statement is
    for classes that are no kind of their own.

    Attributes:
        inputs, outputs: names of its ports.
        states: names of its states.
        spikes: whether its output is a spike.
        threshold_parameter: the parameter that a spiking neuron's potential is compared with.
        potential: the state that a spiking neuron compares; where there is none, its input.
        gain: the parameter that multiplies the summed input, or None.
        in_nir: whether NIR has this kind, under the same name and with the same parameters.
        trained: names of the parameters that learning changes.

    Raises:
        TypeError: another class has the same name.
    """

    inputs: ClassVar[tuple[str, ...]] = (IN,)
    outputs: ClassVar[tuple[str, ...]] = (OUT,)
    trained: ClassVar[frozenset[str]] = frozenset()
    states: ClassVar[tuple[str, ...]] = ()
    spikes: ClassVar[bool] = False
    threshold_parameter: ClassVar[str] = "v_threshold"
    potential: ClassVar[str] = "v"
    gain: ClassVar[str | None] = None
    in_nir: ClassVar[bool] = False

    def __init_subclass__(cls, named: bool = True) -> None:
        if not named:
            return
        known = NEURONS.get(cls.__name__)
        # A class that is defined again, as when its module is reloaded, replaces the one before. Two kinds of one name
        # would read each other's files.
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__}: {known.__module__} already has a neuron with this name; give "
                "the class another name."
            )
        NEURONS[cls.__name__] = cls

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
        """Whether neurons do not affect one another."""
        return True

    @property
    def options(self) -> dict[str, Any]:
        """Options that are printed beside the parameters."""
        return self.choices

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        """The states after a time step, and the output in it.

        Equations hold by element, so arrays may have axes of samples in front of the population's.

        Args:
            ops: what arrays are computed with; the parameters are its arrays, too.
            state: states and memory before the step, by name.
            current: the summed input ``I``; not the choice ``current`` of neurons with a synaptic current.
            dt: the time step in seconds.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no equations: define update(self, ops, state, current, dt)."
        )

    def firing_threshold(self, state: State) -> Array:
        """What a spiking neuron's potential is compared with, from the states before the step."""
        return getattr(self, self.threshold_parameter)

    def memory(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of what a population of some shape carries beside its states; it is zero before the first step."""
        return {}

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

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """The neuron with parameters of another arithmetic, such as expressions, for :meth:`update`."""
        # The constructor would make numpy arrays of them.
        neuron = copy(self)
        for name, array in arrays.items():
            object.__setattr__(neuron, name, array)
        return neuron


def leak(ops: NeuronOps, integration: Integration, tau: Array, x: Array, rest: Array, dt: float) -> Array:
    """``tau x' = rest - x`` over a time step."""
    if integration == "euler":
        return x + dt / tau * (rest - x)
    return rest + (x - rest) * ops.exp(-dt / tau)


def after_spike(ops: NeuronOps, neuron: Any, v: Array, z: Array) -> Array:
    """The potential after the reset, where z says who has fired.

    By ``"subtract"`` the potential depends on z, so gradients pass through the spike's surrogate derivative; by
    ``"zero"`` z only chooses, and none pass.

    Args:
        ops: what arrays are computed with.
        neuron: of a kind with ``reset``, ``v_threshold`` and ``v_reset``.
        v: the potential before the reset.
        z: the spikes.
    """
    if neuron.reset == "subtract":
        return v - z * neuron.v_threshold
    return ops.where(z == 1, neuron.v_reset, v)


@dataclass(frozen=True, eq=False)
class Relay(Neuron):
    """``out = I``, in the same step: a point where projections meet or part."""

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        return state, current


@dataclass(frozen=True, eq=False)
class Threshold(Neuron):
    """``z = I > threshold``, without a state."""

    spikes = True
    threshold_parameter = "threshold"
    in_nir = True
    threshold: Values
    fires: Comparison = ">"

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        return state, ops.spike(current, self.firing_threshold(state), self.fires)


@dataclass(frozen=True, eq=False)
class I(Neuron):  # noqa: E742
    """``v' = r I``; the output is v."""

    states = ("v",)
    gain = "r"
    in_nir = True
    r: Values

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        v = state["v"] + dt * self.r * current
        return {"v": v}, v


@dataclass(frozen=True, eq=False)
class IF(Neuron):
    """``v' = r I; z = v > v_threshold``, then the reset."""

    states = ("v",)
    spikes = True
    gain = "r"
    in_nir = True
    r: Values
    v_threshold: Values
    v_reset: Values = 0.0
    reset: Reset = "zero"
    fires: Comparison = ">"

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        v = state["v"] + dt * self.r * current
        z = ops.spike(v, self.firing_threshold(state), self.fires)
        return {"v": after_spike(ops, self, v, z)}, z


@dataclass(frozen=True, eq=False)
class LI(Neuron):
    """``tau v' = v_leak - v + r I``; the output is v."""

    states = ("v",)
    gain = "r"
    in_nir = True
    tau: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    integration: Integration = "euler"

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        v = leak(ops, self.integration, self.tau, state["v"], self.v_leak + self.r * current, dt)
        return {"v": v}, v


@dataclass(frozen=True, eq=False)
class LIF(Neuron):
    """``tau v' = v_leak - v + r I; z = v > v_threshold``, then the reset."""

    states = ("v",)
    spikes = True
    gain = "r"
    in_nir = True
    tau: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    v_threshold: Values = 1.0
    v_reset: Values = 0.0
    reset: Reset = "zero"
    integration: Integration = "euler"
    fires: Comparison = ">"

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        v = leak(ops, self.integration, self.tau, state["v"], self.v_leak + self.r * current, dt)
        z = ops.spike(v, self.firing_threshold(state), self.fires)
        return {"v": after_spike(ops, self, v, z)}, z


@dataclass(frozen=True, eq=False)
class ALIF(Neuron):
    """LIF with an adaptive threshold: ``tau v' = v_leak - v + r I; z = v > v_threshold + beta a``, then the reset and
    ``tau_a a' = -a``, where a jumps by one at each spike. The threshold of a step reads the a of the step before.
    """

    states = ("v", "a")
    spikes = True
    gain = "r"
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

    def firing_threshold(self, state: State) -> Array:
        return self.v_threshold + self.beta * state["a"]

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        v = leak(ops, self.integration, self.tau, state["v"], self.v_leak + self.r * current, dt)
        z = ops.spike(v, self.firing_threshold(state), self.fires)
        a = leak(ops, self.integration, self.tau_a, state["a"], 0.0, dt) + z
        return {"v": after_spike(ops, self, v, z), "a": a}, z


def current_and_voltage(
    ops: NeuronOps, neuron: CubaLI | CubaLIF, state: State, current: Array, dt: float
) -> tuple[Array, Array]:
    """The synaptic current and the potential after a step; ``neuron.current`` says which current drives it."""
    i = leak(ops, neuron.integration, neuron.tau_syn, state["i"], neuron.w_in * current, dt)
    driving = state["i"] if neuron.current == "old" else i
    return i, leak(ops, neuron.integration, neuron.tau_mem, state["v"], neuron.v_leak + neuron.r * driving, dt)


@dataclass(frozen=True, eq=False)
class CubaLI(Neuron):
    """``tau_syn i' = -i + w_in I; tau_mem v' = v_leak - v + r i``; the output is v.

    ``current`` chooses which synaptic current drives v: i from before the step, ``"old"``, or after it, ``"new"``. (The
    argument ``current`` of :meth:`update` is the summed input ``I``.)
    """

    states = ("i", "v")
    gain = "w_in"
    in_nir = True
    tau_syn: Values
    tau_mem: Values
    r: Values = 1.0
    v_leak: Values = 0.0
    w_in: Values = 1.0
    integration: Integration = "euler"
    current: Current = "old"

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        i, v = current_and_voltage(ops, self, state, current, dt)
        return {"i": i, "v": v}, v


@dataclass(frozen=True, eq=False)
class CubaLIF(Neuron):
    """``tau_syn i' = -i + w_in I; tau_mem v' = v_leak - v + r i; z = v > v_threshold``, then the reset.

    ``current`` chooses which synaptic current drives v: i from before the step, ``"old"``, or after it, ``"new"``. (The
    argument ``current`` of :meth:`update` is the summed input ``I``.)
    """

    states = ("i", "v")
    spikes = True
    gain = "w_in"
    in_nir = True
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

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        i, v = current_and_voltage(ops, self, state, current, dt)
        z = ops.spike(v, self.firing_threshold(state), self.fires)
        return {"i": i, "v": after_spike(ops, self, v, z)}, z


@dataclass(frozen=True, eq=False)
class Delay(Neuron):
    """``out_t = I_(t - steps)``, zero before the first step; every element has a delay of its own."""

    steps: Values

    def memory(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        longest = int(self.steps.max(initial=0))
        return {"queue": (longest, *shape)} if longest else {}

    def update(self, ops: NeuronOps, state: State, current: Array, dt: float) -> tuple[State, Array]:
        if "queue" not in state:
            return state, current
        queue = ops.push(state["queue"], current)
        return {"queue": ops.drop_last(queue)}, ops.look_back(queue, self.steps)
