"""Optimization of a model that is not a graph, in four steps: trace, raise, shrink, rebuild.

For example, a step function with ``x @ w`` of a 100 x 50 weight into 50 LIF neurons, of which 8 never fire:

    arguments   one step of the calibration data, [100]
    raised      inputs "x" (100), a projection of 100 x 50, a population of 50
    data        the calibration data under the name "x", [T, samples, 100]
    shrunk      a projection of 100 x 42, a population of 42
    rebuilt     a step function again, with parameters named after projections and populations, and with the shapes,
                dtypes and units of the model's inputs and outputs
"""

from __future__ import annotations

from dataclasses import replace
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
from ..passes.options import OptimizeOptions
from ..program.inputs import check_names
from ..program.program import ModuleInfo
from ..raising.raised import Raised, raise_model
from ..raising.rebuild import rebuilt
from ..report.optimization import OptimizationReport
from ..verification.calibration import TARGETS, with_own_name
from ..verification.metric import Metric, checked_metric
from .chosen_passes import ChosenPasses
from .optimize_graph import Data, Samples, shrink


def optimize_model(
    model: Any, inputs: Any, dt: float | None, chosen: ChosenPasses, data: Data, options: OptimizeOptions
) -> tuple[Any, OptimizationReport]:
    """:func:`ranvier.optimize` of a brainstate module or step function.

    Args:
        model: for one sample.
        inputs: example inputs of a step: an array or a tuple of the step's arguments.
        dt: of the graph, in seconds.
        chosen: the passes.
        data: with inputs as the model takes them, ``[T, samples, ...]``, in a tuple if a step takes several.
        options: how the passes run.

    Raises:
        ModelError, InputError, GraphError, PassError: as :func:`ranvier.optimize`.
    """
    arguments = _arguments(model, inputs, None if data.calibration is None else data.calibration.inputs)
    raised = raise_model(model, *arguments, dt=dt)
    named = Data(
        _by_name(raised, "calibration", data.calibration),
        _by_name(raised, "validation", data.validation),
        None if data.metric is None else _of_model_outputs(raised, data),
        data.finetune,
    )
    graph, report = shrink(
        raised.graph, chosen.with_zero_biases(), named, options, partial(rebuilt, raised.info, as_module=False)
    )
    is_module = not isinstance(model, (StepFunction, ModuleInfo))
    carry = partial(_carry, raised, graph.copy(), report.origins, is_module)
    return rebuilt(raised.info, graph, as_module=is_module), replace(report, find_carry=carry)


def _carry(raised: Raised, graph: SNNGraph, origins: Provenance, is_module: bool) -> OptimizerStateMap:
    """The map from the model's parameters to those of the rebuilt model."""
    shapes = {s.path: tuple(tuple(leaf.shape) for leaf in s.leaves) for s in raised.info.parameters}
    moved = moved_index(raised.graph, graph, origins)
    if is_module:
        from ..frontends.step_module import attribute

        moved = {tuple(map(attribute, path)): index for path, index in moved.items()}
    return optimizer_state_map(shapes, raised.index(), moved)


def _arguments(model: Any, inputs: Any, calibration: Any) -> tuple[Any, ...]:
    """Example arguments of a step, from the caller or from the calibration data.

    Raises:
        InputError: there are neither, or the calibration data has no axes of time and samples.
    """
    if inputs is not None:
        return inputs if isinstance(inputs, tuple) else (inputs,)
    if calibration is None or hasattr(calibration, "inputs"):
        raise InputError(
            f"optimize: {type(model).__name__} is traced with example inputs of one step; pass them, as in "
            "optimize(model, inputs=jnp.ones(100))."
        )
    data, _ = _without_targets(calibration)
    shapes = [np.shape(x) for x in jax.tree.leaves(data)]
    if any(len(shape) < 2 for shape in shapes):
        raise InputError(
            f"optimize: calibration has the shape {[*map(list, shapes)]}; expected [T, samples, ...], time first. For "
            "a single sample, also pass example inputs of one step, as in optimize(model, calibration=xs, "
            "inputs=xs[0])."
        )
    first = jax.tree.map(lambda x: np.asarray(x)[0, 0], data)
    return first if isinstance(first, tuple) else (first,)


def _of_model_outputs(raised: Raised, data: Data) -> Metric:
    """A metric of the graph's outputs, from one of what a step of the model returns, with time and samples first."""
    info, names = raised.info, list(raised.graph.outputs)
    metric = checked_metric(data.metric, None if data.calibration is None else data.calibration.mask)

    def of_graph(outputs: Any, labels: Any, mask: Any) -> Any:
        values = [outputs] if len(names) == 1 else [outputs[name] for name in names]
        leaves = [x.reshape(*x.shape[:2], *aval.shape) for x, aval in zip(values, info.output_avals, strict=True)]
        return metric(jax.tree.unflatten(info.output_treedef, leaves), labels, mask)

    return of_graph


def _by_name(raised: Raised, keyword: str, samples: Samples | None) -> Samples | None:
    """Data with inputs under the names of the graph's inputs.

    Raises:
        InputError: names, numbers of arrays or shapes do not fit the model.
    """
    if samples is None or hasattr(samples.inputs, "inputs"):
        return samples
    return replace(samples, inputs=_inputs_by_name(raised, keyword, samples.inputs))


def _inputs_by_name(raised: Raised, keyword: str, inputs: Any) -> dict[str, Any]:
    info, graph = raised.info, raised.graph
    values, targets = _without_targets(inputs)
    if isinstance(values, dict):
        values = with_own_name(values, list(graph.inputs))
    if isinstance(values, dict) and set(values) == set(graph.inputs):
        return {**values, **targets}
    expected = jax.tree.unflatten(info.input_treedef, info.input_avals)
    if isinstance(values, dict) and not (len(expected) == 1 and isinstance(expected[0], dict)):
        raise InputError(f"optimize: got {keyword} for {sorted(values)}, but the model has {sorted(graph.inputs)}.")
    check_names(values if isinstance(values, tuple) else (values,), expected, "a step")
    leaves, nodes = jax.tree.leaves(values), list(graph.inputs.values())
    if len(leaves) != len(nodes):
        raise InputError(f"optimize: {keyword} has {len(leaves)} arrays, a step takes {len(nodes)}.")
    shapes = [tuple(aval.shape) for aval in info.input_avals]
    triples = zip(nodes, shapes, leaves, strict=True)
    return {**{n.name: _in_node(n, shape, np.asarray(x), keyword) for n, shape, x in triples}, **targets}


def _without_targets(calibration: Any) -> tuple[Any, dict[str, Any]]:
    """Calibration inputs, and the labels and mask among them as a mapping."""
    if not isinstance(calibration, dict):
        return calibration, {}
    inputs = {name: x for name, x in calibration.items() if name not in TARGETS}
    return inputs, {name: x for name, x in calibration.items() if name in TARGETS}


def _in_node(node: Input, shape: tuple[int, ...], x: np.ndarray, keyword: str) -> np.ndarray:
    """Data of one input in the shape of the graph, ``[T, *node.shape]`` or ``[T, samples, *node.shape]``."""
    axes = x.ndim - len(shape)
    if axes not in (1, 2) or x.shape[axes:] != shape:
        sizes = ", ".join(map(str, shape))
        raise InputError(
            f"optimize: {keyword} of {node.name!r} has shape {list(x.shape)}, but the model takes {list(shape)} in a "
            f"step; expected [T, samples, {sizes}], or [T, {sizes}] for one sample."
        )
    return x.reshape(*x.shape[:axes], *node.shape)
