"""Counts of a network's operations on data, from a run that records every source."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..graph.analysis.operation_counts import (
    Nonzeros,
    OperationCounts,
    has_neurons,
    operation_counts,
    source_name,
)
from ..graph.neurons import OUT
from ..graph.snn_graph import SNNGraph, check_is_graph
from ..verification.calibration import Calibration
from .profile import BYTES
from .simulate import Simulator, simulate


def count_operations(graph: SNNGraph, inputs: Any, *, dtype: Any = jnp.float32) -> OperationCounts:
    """Counts synaptic operations per sample, multiply-adds, parameters and bytes, and measures sparsity.

    The definitions are those of NeuroBench's harness: dense operations count all weights and values, effective ones
    only those that are not zero, as accumulates (ACs) in steps whose values are all -1, 0 or 1, else as
    multiply-accumulates (MACs). Biases and pools have no synaptic operations. Unlike there, a scale has one for every
    element, since a diagonal matrix may be stored as a scale.

    Args:
        graph: a valid graph.
        inputs: as :func:`ranvier.simulate` takes them, or a :class:`ranvier.Calibration`. Which steps have accumulates
            is decided for all samples together, as NeuroBench decides it for a batch.
        dtype: to compute in.

    Returns:
        The counts by projection and in total.

    Raises:
        GraphError: the graph is not valid.
        InputError: the inputs do not fit.
    """
    check_is_graph(graph)
    data = Calibration.of(graph, inputs, run=simulate)
    names = _recorded(graph)
    run = Simulator(graph, record=names, dtype=dtype)
    recorded = sum(population.size for population in graph.populations.values())
    at_once = max(1, BYTES // (4 * data.steps * max(1, recorded)))
    total: dict[str, Nonzeros] = {}
    for start in range(0, data.samples, at_once):
        part = {name: values[:, start : start + at_once] for name, values in data.inputs.items()}
        simulation = run(part)
        values = {**part, **{name: simulation[name] for name in names}}
        nonzeros = {name: Nonzeros.of(value) for name, value in values.items()}
        total = {name: total[name] + n if name in total else n for name, n in nonzeros.items()}
    return operation_counts(graph, total)


def _recorded(graph: SNNGraph) -> list[str]:
    """What has to be recorded: the sources of projections, and the outputs of neurons."""
    sources = {source_name(p) for p in graph.projections.values() if p.source in graph.populations}
    neurons = {name for name, p in graph.populations.items() if has_neurons(p) and OUT in p.neuron.outputs}
    return sorted(sources | neurons)
