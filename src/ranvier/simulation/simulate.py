"""Simulation of a graph, compiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..ir.graph.recording import Recording, Simulation, batched_inputs
from ..ir.graph.snn_graph import SNNGraph
from ..ir.graph.verifier import check
from .engine import Engine


def simulate(graph: SNNGraph, inputs: Any, *, record: Sequence[str] = (), dtype: Any = jnp.float32) -> Simulation:
    """Runs a graph over a sequence.

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
        GraphError: the graph is not valid, or something to be recorded is not there.
        InputError: the inputs do not fit, or the dtype is not floating-point.
    """
    check(graph)
    _check_dtype(dtype)
    wanted = Recording.of(graph, record)
    given, samples = batched_inputs(graph, inputs)
    with jax.enable_x64(jnp.dtype(dtype).itemsize == 8 or jax.config.read("jax_enable_x64")):
        given = {name: np.asarray(values, dtype) for name, values in given.items()}
        if samples is None:
            given = {name: values[:, None] for name, values in given.items()}
        engine = Engine(graph, dtype, samples or 1, wanted)
        found = jax.jit(engine.run)(engine.step.params, given)
        found = jax.tree.map(lambda x: np.asarray(x if samples is not None else x[:, 0]), found)
    return Simulation(*found)


def _check_dtype(dtype: Any) -> None:
    try:
        known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise InputError(f"dtype={dtype!r}: a floating-point type is expected, such as 'float32' or 'float64'.")
