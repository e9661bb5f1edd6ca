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
from .lower import GraphStep


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
        step = GraphStep(graph, dtype)
        run = _scan if samples is None else jax.vmap(_scan, in_axes=(None, None, None, 1), out_axes=1)
        given = {name: np.asarray(values, dtype) for name, values in given.items()}
        outputs, recorded = jax.jit(run, static_argnums=(0, 1))(step, wanted, step.params, given)
        found = jax.tree.map(np.asarray, (outputs, recorded))
    return Simulation(*found)


def _check_dtype(dtype: Any) -> None:
    try:
        known = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        known = False
    if not known:
        raise InputError(f"dtype={dtype!r}: a floating-point type is expected, such as 'float32' or 'float64'.")


def _scan(step: GraphStep, wanted: Recording, params: Any, inputs: Any) -> tuple[Any, Any]:
    def one(state: Any, given: Any) -> tuple[Any, Any]:
        found = step.run(params, state, given)
        return found.state, (found.outputs, wanted.pick(found.values, found.summed))

    _, found = jax.lax.scan(one, step.state, inputs)
    return found
