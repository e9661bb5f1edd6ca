"""Simulation of a graph, compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..graph.footprint import check_carried, check_recorded
from ..graph.recording import Recording, Simulation, batched_inputs
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..util.compiled import compiled
from .engine import Engine

FLOATING = tuple(jnp.dtype(name) for name in ("float16", "float32", "float64"))
"""What can be computed in: what numpy has too."""


def simulate(graph: SNNGraph, inputs: Any, *, record: Sequence[str] = (), dtype: Any = jnp.float32) -> Simulation:
    """Runs a graph over a sequence; to run one often, make a :class:`Simulator`.

    A random key is a state like others, so all samples get the same random numbers; learners and artifacts give each
    sample its own.

    Args:
        graph: a valid graph.
        inputs: values of the input ``[T, *shape]`` or ``[T, samples, *shape]``, time first, or a mapping by name where
            there are several inputs.
        record: populations whose output is wanted, states as ``"population.state"``, as they are after the step, and
            what a population gets in the step as ``"population.input"``.
        dtype: to compute in; ``float64`` is there whether or not JAX's x64 mode is on.

    Returns:
        Outputs and what was recorded, ``[T, *shape]`` or ``[T, samples, *shape]``, as numpy arrays.

    Raises:
        GraphError: the graph is not valid, something to be recorded is not there, or what the graph carries from step
            to step takes more memory than :class:`ranvier.types.Limits` allow.
        InputError: the inputs do not fit, the dtype is not floating-point, or the results take too much memory.
    """
    return Simulator(graph, record=record, dtype=dtype)(inputs)


class Simulator:
    """A graph compiled to be run over sequences, once for every number of steps and samples.

    Populations that nothing feeds back to are run layer by layer over all steps, so that their projections are one
    product each; only loops are run step by step. Small populations of one kind are updated as one. Where few neurons
    are active, large projections add up the weights of those alone: looked for at every step, unless the measured
    activity of a population (:func:`ranvier.profile`) says that it is not worth it.

    Attributes:
        graph: a copy, so that later changes of the original do not reach it.
    """

    def __init__(self, graph: SNNGraph, *, record: Sequence[str] = (), dtype: Any = jnp.float32) -> None:
        """As :func:`simulate`."""
        check(graph)
        _check_dtype(dtype)
        self.graph = graph.copy()
        self._dtype, self._wanted = dtype, Recording.of(graph, record)
        self._engines: dict[int, tuple[Engine, Any]] = {}
        self._programs: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def __call__(self, inputs: Any) -> Simulation:
        """Outputs and what is recorded for inputs as :func:`simulate` takes them."""
        by_input, samples = batched_inputs(self.graph, inputs)
        itemsize = jnp.dtype(self._dtype).itemsize
        check_carried(self.graph, samples or 1, itemsize)
        check_recorded(self.graph, self._wanted, len(next(iter(by_input.values()))), samples or 1, itemsize)
        with jax.enable_x64(jnp.dtype(self._dtype).itemsize == 8 or jax.config.read("jax_enable_x64")):
            by_input = {name: self._in_dtype(inputs, name, values) for name, values in by_input.items()}
            if samples is None:
                by_input = {name: values[:, None] for name, values in by_input.items()}
            results = jax.tree.map(np.asarray, self._run(samples or 1, by_input))
        if samples is None:
            results = jax.tree.map(lambda x: x[:, 0], results)
        return Simulation(*results)

    def _in_dtype(self, inputs: Any, name: str, values: np.ndarray) -> Any:
        """An input in the dtype to compute in; an array of JAX that has it stays where it is."""
        value = inputs[name] if isinstance(inputs, Mapping) else inputs
        if isinstance(value, jax.Array) and value.dtype == self._dtype:
            return value
        return np.asarray(values, self._dtype)

    def _run(self, samples: int, inputs: Mapping[str, Any]) -> Any:
        """Outputs and what is recorded, for inputs ``[T, samples, *shape]``."""
        if samples not in self._engines:
            engine = Engine(self.graph, self._dtype, samples, self._wanted)
            self._engines[samples] = engine, jax.tree.map(jnp.asarray, engine.arrays)
        engine, arrays = self._engines[samples]
        # A program runs on the devices that it was compiled for, so inputs elsewhere have one of their own.
        placed = (x.sharding for x in inputs.values() if isinstance(x, jax.Array))
        key = (samples, len(next(iter(inputs.values()))), *placed)
        if key not in self._programs:
            self._programs[key] = compiled(engine.run, arrays, inputs)
        return self._programs[key](arrays, inputs)


def _check_dtype(dtype: Any) -> None:
    try:
        known = jnp.dtype(dtype) in FLOATING
    except TypeError:
        known = False
    if not known:
        raise InputError(f"dtype={dtype!r}: expected one of {[str(known) for known in FLOATING]}.")
