"""The inputs and results of a simulation, the same for every way of running a graph."""

# An example: a graph with the input x of shape [3] and a LIF population n of shape [5]. Inputs of the shape [50, 8, 3]
# are 50 steps of 8 samples. With record=["n", "n.v", "n.input"], the simulation gives the spikes of n, its potential,
# and the sum that it receives, each [50, 8, 5]. Inputs of the shape [50, 3] are one sample, and results are [50, 5].

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import GraphError, InputError
from ..program.inputs import inputs_by_name
from .neurons import IN, OUT
from .snn_graph import SNNGraph


@dataclass(frozen=True)
class Simulation:
    """Results of a simulation, ``[T, *shape]`` or ``[T, samples, *shape]``.

    Attributes:
        outputs: by name.
        recorded: by the names in ``record``.
    """

    outputs: dict[str, np.ndarray]
    recorded: dict[str, np.ndarray]

    @property
    def output(self) -> np.ndarray:
        """The values of the only output."""
        if len(self.outputs) != 1:
            raise GraphError(f"there are {len(self.outputs)} outputs, {list(self.outputs)}; use .outputs[name].")
        return next(iter(self.outputs.values()))

    def __getitem__(self, name: str) -> np.ndarray:
        """What was recorded under a name, or the output of that name.

        Raises:
            GraphError: there is neither.
        """
        results = self.recorded if name in self.recorded else self.outputs
        if name not in results:
            names = ", ".join([*self.recorded, *self.outputs]) or "nothing"
            raise GraphError(f"{name!r} was not recorded, only {names}; ask for it with record=[{name!r}].")
        return results[name]


SUMMED = "input"
"""The sum that a population receives, which can be recorded as if it were a state."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What is to be recorded.

    Attributes:
        wanted: population, and its output or state, by name.
    """

    wanted: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, graph: SNNGraph, names: Sequence[str]) -> Recording:
        """From population names, ``"population.state"`` and ``"population.input"``.

        Raises:
            GraphError: there is no such population or state.
        """
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise GraphError(f"record={names!r}: expected a list of names, as in record=['population'].")
        return cls({name: _resolved(graph, name) for name in names})

    def pick(self, values: Mapping[Any, Any], summed: Mapping[Any, Any]) -> dict[str, Any]:
        """What is to be recorded of a step.

        Args:
            values: outputs and states of all populations after the step, by population and port.
            summed: what populations received in the step, by population and port.
        """

        def one(population: str, port: str) -> Any:
            return summed[population, IN] if port == SUMMED else values[population, port]

        return {name: one(population, port) for name, (population, port) in self.wanted.items()}

    def simulation(
        self,
        graph: SNNGraph,
        outputs: Mapping[str, np.ndarray],
        recorded: Mapping[str, np.ndarray],
        samples: int | None,
    ) -> Simulation:
        """The results from flat values of all steps, ``[T, samples, size]``."""
        lead = () if samples is None else (samples,)

        def shaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
            return values.reshape(len(values), *lead, *shape)

        populations = {
            name: graph.populations[population].neuron.shape_of(port, graph.populations[population].shape)
            for name, (population, port) in self.wanted.items()
        }
        return Simulation(
            {name: shaped(values, graph.outputs[name].shape) for name, values in outputs.items()},
            {name: shaped(values, populations[name]) for name, values in recorded.items()},
        )


def batched_inputs(graph: SNNGraph, inputs: Any) -> tuple[dict[str, np.ndarray], int | None]:
    """Inputs by name, ``[T, *shape]`` or ``[T, samples, *shape]``, and the number of samples; None without that axis.

    Raises:
        InputError: an input is missing, unknown or not of finite real numbers, or shapes do not fit.
    """
    arrays = {name: np.asarray(x) for name, x in inputs_by_name(inputs, list(graph.inputs), "the graph").items()}
    for name, values in arrays.items():
        if not (np.issubdtype(values.dtype, np.floating) or values.dtype.kind in "biu"):
            hint = f"; ranvier.Calibration.load({inputs!r}, graph) reads a file" if isinstance(inputs, str) else ""
            raise InputError(f"input {name!r} is an array of {values.dtype}; expected real numbers{hint}.")
        if not _is_finite(values):
            raise InputError(f"input {name!r} has values that are not finite; a step with them is not defined.")
    leads = {name: _lead(name, values.shape, graph.inputs[name].shape) for name, values in arrays.items()}
    if len(set(leads.values())) > 1:
        raise InputError(
            f"the inputs differ in their numbers of steps or samples: { {k: list(v) for k, v in leads.items()} }."
        )
    lead = next(iter(leads.values()))
    return arrays, lead[1] if len(lead) == 2 else None


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are finite. If the sum of their squares is, which is quick to compute, all of them are."""
    if values.dtype.kind in "biu":
        return True
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _lead(name: str, actual: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of time and samples in front of the shape of an input.

    Raises:
        InputError: there are no such axes, or too many.
    """
    axes = len(actual) - len(shape)
    if axes not in (1, 2) or actual[axes:] != shape or min(actual[:axes]) < 1:
        expected = ", ".join(str(n) for n in shape)
        raise InputError(
            f"input {name!r} has shape {list(actual)}; expected [T, {expected}] or [T, samples, {expected}], time "
            "first."
        )
    return actual[:axes]


def _resolved(graph: SNNGraph, name: str) -> tuple[str, str]:
    """Population and port of a name. Populations may have dots in their names, so every split is tried.

    Raises:
        GraphError: there is no such population or port.
    """
    if name in graph.populations and OUT in graph.populations[name].neuron.outputs:
        return name, OUT
    parts = name.split(".")
    mismatch = ""
    if name in graph.populations:
        neuron = graph.populations[name].neuron
        ports = [f"{name}.{port}" for port in (*neuron.states, *neuron.outputs)]
        raise GraphError(f"record: {name!r} has no output of that name; record one of {ports}.")
    for k in range(1, len(parts)):
        population, port = ".".join(parts[:k]), ".".join(parts[k:])
        if population not in graph.populations:
            continue
        neuron = graph.populations[population].neuron
        ports = (*neuron.states, *(o for o in neuron.outputs if o != OUT), *([SUMMED] if IN in neuron.inputs else []))
        if port in ports:
            return population, port
        mismatch = f"{population!r} is {type(neuron).__name__} with {list(ports)}, but has no {port!r}"
    if mismatch:
        raise GraphError(f"record: {mismatch}.")
    raise GraphError(f"record: there is no population {name!r}; the populations are {list(graph.populations)}.")
