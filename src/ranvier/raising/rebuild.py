"""A graph as a model of the kind that it was raised from."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..frontends.step_function import StepFunction
from ..graph.snn_graph import SNNGraph
from ..program.program import ModuleInfo
from ..simulation.lower import lower


def rebuilt(info: ModuleInfo, graph: SNNGraph, *, as_module: bool) -> Any:
    """A graph with the interface of the program that it was raised from.

    Args:
        info: the program: its inputs and outputs, units included.
        graph: what its graph has become.
        as_module: whether to make a brainstate module, else a step function.
    """
    step = _with_interface(info, graph)
    if not as_module:
        return step
    from ..frontends.step_module import StepModule

    return StepModule(step)


def _with_interface(info: ModuleInfo, graph: SNNGraph) -> StepFunction:
    dtype = next((slot.dtype for slot in info.hidden), jnp.float32)
    lowered = lower(graph, dtype=dtype)

    def step(params: Any, state: Any, *inputs: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves(inputs)
        by_name = {node.name: jnp.reshape(x, node.shape) for node, x in zip(graph.inputs.values(), leaves, strict=True)}
        state, results = lowered.step(params, state, by_name)
        values = results if isinstance(results, dict) else {next(iter(graph.outputs)): results}
        outputs = [
            jnp.reshape(value, aval.shape).astype(aval.dtype)
            for value, aval in zip(values.values(), info.output_avals, strict=True)
        ]
        return state, jax.tree.unflatten(info.output_treedef, outputs)

    step.__name__ = info.name
    return StepFunction(step, lowered.params, lowered.state, (), info.name)
