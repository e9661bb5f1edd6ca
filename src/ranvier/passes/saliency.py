"""Second-order importance of weights, from the presynaptic activity on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..graph.elements import Projection
from ..graph.neurons import OUT
from ..graph.operations import Conv, Linear
from ..graph.snn_graph import SNNGraph
from .base import Rewriting

LARGEST = 2048
"""Sources up to this size have their second moments taken; the cost is cubic."""
DAMPING = 1e-3
"""Part of the mean second moment that is added to each, so that H can be inverted."""


@dataclass(frozen=True, eq=False)
class Presynaptic:
    """What weights are applied to.

    Attributes:
        power: ``E[x^2]``, ``[in]``; of images ``[channels]``.
        moments: H, ``[in, in]``: means of products over steps and samples, damped; None where they are not taken.
    """

    power: np.ndarray
    moments: np.ndarray | None = None

    @cached_property
    def inverse_diagonal(self) -> np.ndarray:
        """The diagonal of the inverse of H."""
        return np.diag(linalg.inv(self.moments))


def presynaptic(rewriting: Rewriting) -> dict[str, Presynaptic]:
    """By projection with weights; second moments for matrices whose sources are not too large."""
    graph, calibration = rewriting.graph, rewriting.calibration
    assert calibration is not None
    wanted = [p for p in graph.projections.values() if isinstance(p.operation, (Linear, Conv))]
    sources = sorted({_port(p) for p in wanted if p.source in graph.populations})
    simulation = calibration.simulation(graph, sources)
    values = {**calibration.inputs, **{name: simulation[name] for name in sources}}
    by_projection: dict[str, Presynaptic] = {}
    for projection in wanted:
        activity = _felt(graph, projection.target, np.asarray(values[_port(projection)], np.float64))
        by_channel = tuple(k for k in range(activity.ndim) if k != 2)
        power = (activity**2).mean(axis=by_channel)
        moments = None
        if isinstance(projection.operation, Linear):
            if power.size <= LARGEST:
                moments = _moments(activity)
            else:
                rewriting.missed(projection.name, f"more than {LARGEST} inputs: weights that stay are not fitted again")
        by_projection[projection.name] = Presynaptic(power, moments)
    return by_projection


def _port(projection: Projection) -> str:
    """The name under which what a projection reads is recorded."""
    return projection.source if projection.source_port == OUT else f"{projection.source}.{projection.source_port}"


def _felt(graph: SNNGraph, target: str, activity: np.ndarray) -> np.ndarray:
    """Activity ``[T, samples, in]`` as the target's membranes feel it: low-pass filtered with their time constant."""
    population = graph.populations.get(target)
    parameters = population.neuron.parameters if population is not None else {}
    tau: Any = parameters.get("tau", parameters.get("tau_mem"))
    if tau is None:
        return activity
    decay = float(np.exp(-graph.dt / np.mean(tau)))
    filtered, trace = np.empty_like(activity), np.zeros_like(activity[0])
    for t, x in enumerate(activity):
        trace = decay * trace + (1 - decay) * x
        filtered[t] = trace
    return filtered


def _moments(activity: np.ndarray) -> np.ndarray:
    flat = activity.reshape(-1, activity.shape[-1])
    moments = flat.T @ flat / len(flat)
    mean = np.trace(moments) / len(moments) if len(moments) else 0.0
    return moments + (DAMPING * mean or 1.0) * np.eye(len(moments))


def saliency(weight: Any, inputs: Presynaptic) -> np.ndarray:
    """Of every weight that is stored the mean square error that is left when it goes.

    With second moments ``w^2 / [H^-1]_jj``, where the others of its row make up for it; else ``w^2 E[x^2]``.
    """
    of_source = inputs.power if inputs.moments is None else 1 / inputs.inverse_diagonal
    if sparse.issparse(weight):
        return weight.data**2 * of_source[weight.indices]
    groups = of_source.size // weight.shape[1]
    if groups > 1:
        # Each part of the rows of a grouped convolution reads its own part of the channels.
        of_source = np.repeat(of_source.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    else:
        of_source = of_source[None, :]
    return weight**2 * of_source.reshape(*of_source.shape, *(1 for _ in weight.shape[2:]))


def compensated(weight: Any, pruned: Any, inputs: Presynaptic) -> Any:
    """Rows whose kept weights give, in the mean square, what all weights gave; ``kept`` where there are no moments.

    With Q what is kept and P what is gone: ``w_Q + H_QQ^-1 H_QP w_P``.
    """
    if inputs.moments is None:
        return pruned
    result = pruned.copy()
    for row in range(weight.shape[0]):
        old, new = (_dense_row(matrix, row) for matrix in (weight, pruned))
        stays = new != 0
        gone = ~stays & (old != 0)
        if stays.any() and gone.any():
            within = inputs.moments[np.ix_(stays, stays)]
            made_up = linalg.solve(within, inputs.moments[np.ix_(stays, gone)] @ old[gone], assume_a="pos")
            if sparse.issparse(result):
                result.data[result.indptr[row] : result.indptr[row + 1]] += made_up
            else:
                result[row, stays] += made_up
    return result


def _dense_row(matrix: Any, row: int) -> np.ndarray:
    """A row in float64."""
    if not sparse.issparse(matrix):
        return matrix[row].astype(np.float64)
    found = np.zeros(matrix.shape[1])
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    found[matrix.indices[part]] = matrix.data[part]
    return found
