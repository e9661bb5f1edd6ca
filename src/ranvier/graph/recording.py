"""What goes into a simulation of a graph and what comes out of it, whichever way it is run."""

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
        recorded: what was asked for, by the name it was asked by.
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
        """What was recorded, or else the output, of a name.

        Raises:
            GraphError: there is neither.
        """
        found = self.recorded if name in self.recorded else self.outputs
        if name not in found:
            told = ", ".join([*self.recorded, *self.outputs]) or "nothing"
            raise GraphError(f"{name!r} was not recorded; there is {told}. Ask for it with record=[{name!r}].")
        return found[name]


SUMMED = "input"
"""What a population gets, recorded as if it were a state."""


@dataclass(frozen=True, eq=False)
class Recording:
    """What is to be recorded: by name the population, and its output or state."""

    wanted: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, graph: SNNGraph, names: Sequence[str]) -> Recording:
        """From population names, ``"population.state"`` and ``"population.input"``.

        Raises:
            GraphError: there is no such population or state.
        """
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise GraphError(f"record={names!r}: a list of names is expected, as in record=['population'].")
        return cls({name: _resolved(graph, name) for name in names})

    def pick(self, values: Mapping[Any, Any], summed: Mapping[Any, Any]) -> dict[str, Any]:
        """What is wanted, from the outputs and states of all populations after a step, and what they got in it, each by
        population and port."""

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
        """From flat values of all steps, ``[T, samples, size]``."""
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
        InputError: an input is missing or unknown, or shapes do not fit.
    """
    given = {name: np.asarray(x) for name, x in inputs_by_name(inputs, list(graph.inputs), "the graph").items()}
    for name, values in given.items():
        if not (np.issubdtype(values.dtype, np.floating) or values.dtype.kind in "biu"):
            hint = f"; ranvier.Calibration.load({inputs!r}, graph) reads a file" if isinstance(inputs, str) else ""
            raise InputError(f"input {name!r} is an array of {values.dtype}; real numbers are expected{hint}.")
        if not _is_finite(values):
            raise InputError(f"input {name!r} has values that are not finite; a step with them is not defined.")
    leads = {name: _lead(name, values.shape, graph.inputs[name].shape) for name, values in given.items()}
    if len(set(leads.values())) > 1:
        raise InputError(f"steps and samples of the inputs differ: { {k: list(v) for k, v in leads.items()} }.")
    lead = next(iter(leads.values()))
    return given, lead[1] if len(lead) == 2 else None


def _is_finite(values: np.ndarray) -> bool:
    """Whether all values are finite; told by the sum of their squares, which is quick, where that is."""
    if values.dtype.kind in "biu":
        return True
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.dot(flat, flat))) or bool(np.isfinite(flat).all())


def _lead(name: str, found: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = len(found) - len(shape)
    if axes not in (1, 2) or found[axes:] != shape or min(found[:axes]) < 1:
        expected = ", ".join(str(n) for n in shape)
        raise InputError(
            f"input {name!r} has shape {list(found)}; time first, [T, {expected}] or [T, samples, {expected}] is "
            "expected."
        )
    return found[:axes]


def _resolved(graph: SNNGraph, name: str) -> tuple[str, str]:
    if name in graph.populations and OUT in graph.populations[name].neuron.outputs:
        return name, OUT
    parts = name.split(".")
    told = ""
    if name in graph.populations:
        neuron = graph.populations[name].neuron
        known = [f"{name}.{port}" for port in (*neuron.states, *neuron.outputs)]
        raise GraphError(f"record: {name!r} has no output of that name; record one of {known}.")
    for k in range(1, len(parts)):
        population, port = ".".join(parts[:k]), ".".join(parts[k:])
        if population not in graph.populations:
            continue
        neuron = graph.populations[population].neuron
        known = (*neuron.states, *(o for o in neuron.outputs if o != OUT), *([SUMMED] if IN in neuron.inputs else []))
        if port in known:
            return population, port
        told = f"{population!r} is {type(neuron).__name__} with {list(known)}, {port!r} is none of them"
    if told:
        raise GraphError(f"record: {told}.")
    raise GraphError(f"record: there is no population {name!r}; there are {list(graph.populations)}.")
