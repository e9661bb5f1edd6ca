"""``ranvier.optimize`` for models that are no graph: raised, made smaller, and given back as what they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ..errors import InputError
from ..frontends.step_function import StepFunction
from ..graph.elements import Input
from ..graph.provenance import Provenance
from ..graph.snn_graph import SNNGraph
from ..passes.optimizer_state import OptimizerStateMap, moved_index, optimizer_state_map
from ..program.inputs import check_names
from ..program.program import ModuleInfo
from ..raising.raised import Raised, raise_model
from ..raising.rebuild import rebuilt
from ..report.optimization import OptimizationReport
from ..verification.calibration import LABELS, with_own_name

Optimize = Callable[..., tuple[SNNGraph, OptimizationReport]]


def optimize_model(
    run: Optimize, model: Any, inputs: Any, dt: float | None, calibration: Any
) -> tuple[Any, OptimizationReport, Callable[[], OptimizerStateMap]]:
    """A smaller model of the same kind, the report, and a function that gives what takes optimizer states along.

    Args:
        run: ``run(graph, calibration)`` optimizes the graph.
        model: a brainstate module or step function, for one sample.
        inputs: example inputs of a step: an array or a tuple of the step's arguments.
        dt: of the graph.
        calibration: inputs as the model takes them, ``[T, samples, ...]``, a tuple where a step takes several.
    """
    arguments = _arguments(model, inputs, calibration)
    raised = raise_model(model, *arguments, dt=dt)
    graph, report = run(raised.graph, _by_name(raised, calibration))
    is_module = not isinstance(model, (StepFunction, ModuleInfo))
    carry = partial(_carry, raised, graph.copy(), report.origins, is_module)
    return rebuilt(raised.info, graph, as_module=is_module), report, carry


def _carry(raised: Raised, graph: SNNGraph, origins: Provenance, is_module: bool) -> OptimizerStateMap:
    """From the model's parameters to those of what came back."""
    shapes = {s.path: tuple(tuple(leaf.shape) for leaf in s.leaves) for s in raised.info.parameters}
    moved = moved_index(raised.graph, graph, origins)
    if is_module:
        from ..frontends.step_module import attribute

        moved = {tuple(map(attribute, path)): index for path, index in moved.items()}
    return optimizer_state_map(shapes, raised.index(), moved)


def _arguments(model: Any, inputs: Any, calibration: Any) -> tuple[Any, ...]:
    """Example arguments of a step."""
    if inputs is not None:
        return inputs if isinstance(inputs, tuple) else (inputs,)
    if calibration is None or hasattr(calibration, "inputs"):
        raise InputError(
            f"optimize: {type(model).__name__} is traced with example inputs of one step; pass them, as in "
            "optimize(model, inputs=jnp.ones(100))."
        )
    data, _ = _parted(calibration)
    shapes = [np.shape(x) for x in jax.tree.leaves(data)]
    if any(len(shape) < 2 for shape in shapes):
        raise InputError(
            f"optimize: calibration has the shape {[*map(list, shapes)]}; [T, samples, ...] is expected, time first. "
            "Of one sample give example inputs of a step too, as in optimize(model, calibration=xs, inputs=xs[0])."
        )
    first = jax.tree.map(lambda x: np.asarray(x)[0, 0], data)
    return first if isinstance(first, tuple) else (first,)


def _by_name(raised: Raised, calibration: Any) -> Any:
    """Calibration inputs under the names of the graph's inputs, with the labels that are among them."""
    if calibration is None or hasattr(calibration, "inputs"):
        return calibration
    info, graph = raised.info, raised.graph
    given, labels = _parted(calibration)
    if isinstance(given, dict):
        given = with_own_name(given, list(graph.inputs))
    if isinstance(given, dict) and set(given) == set(graph.inputs):
        return {**given, **labels}
    expected = jax.tree.unflatten(info.input_treedef, info.input_avals)
    if isinstance(given, dict) and not (len(expected) == 1 and isinstance(expected[0], dict)):
        raise InputError(f"optimize: calibration is given for {sorted(given)}, the model has {sorted(graph.inputs)}.")
    check_names(given if isinstance(given, tuple) else (given,), expected, "a step")
    leaves, nodes = jax.tree.leaves(given), list(graph.inputs.values())
    if len(leaves) != len(nodes):
        raise InputError(f"optimize: calibration has {len(leaves)} arrays, a step takes {len(nodes)}.")
    shapes = [tuple(aval.shape) for aval in info.input_avals]
    named = {n.name: _in_node(n, shape, np.asarray(x)) for n, shape, x in zip(nodes, shapes, leaves, strict=True)}
    return {**named, **labels}


def _parted(calibration: Any) -> tuple[Any, dict[str, Any]]:
    """Inputs, and labels where there are any."""
    if not isinstance(calibration, dict):
        return calibration, {}
    inputs = {name: x for name, x in calibration.items() if name != LABELS}
    return inputs, {LABELS: calibration[LABELS]} if LABELS in calibration else {}


def _in_node(node: Input, shape: tuple[int, ...], x: np.ndarray) -> np.ndarray:
    """Calibration of one input, ``[T, *node.shape]`` or ``[T, samples, *node.shape]``, from what the model takes."""
    axes = x.ndim - len(shape)
    if axes not in (1, 2) or x.shape[axes:] != shape:
        own = ", ".join(map(str, shape))
        raise InputError(
            f"optimize: calibration of {node.name!r} has shape {list(x.shape)}, and the model takes {list(shape)} in a "
            f"step; [T, samples, {own}] is expected, or [T, {own}] of one sample."
        )
    return x.reshape(*x.shape[:axes], *node.shape)
