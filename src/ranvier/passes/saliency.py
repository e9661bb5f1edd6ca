"""Second-order importance of weights, from the presynaptic activity on calibration data."""

# An example: a neuron sums x0 + x1, with the second moments H = [[1 0.8] [0.8 1]].
#
#   [H^-1]_00 = 1 / (1 - 0.64) = 2.78    the saliency of w0 is 1 / 2.78 = 0.36, not w0^2 E[x0^2] = 1
#   w0 = 0, w1 = 1 + 0.8 / 1 = 1.8       x1 takes over what it has in common with x0
#   E[(x0 + x1 - 1.8 x1)^2]              1 - 2 * 0.8 * 0.8 + 0.64 = 0.36, the error that the saliency predicts

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import linalg, sparse

from ..graph.elements import Projection
from ..graph.neurons import OUT
from ..graph.operations import Conv, Linear
from ..graph.shared import numbers_of
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration

LARGEST = 2048
"""The largest source whose second moments are computed; the cost is cubic."""
DAMPING = 1e-3
"""Fraction of the mean second moment added to the diagonal of H, so that it can be inverted."""


@dataclass(frozen=True, eq=False)
class Presynaptic:
    """Moments of the values that a projection reads.

    Attributes:
        power: ``E[x^2]``, float64 ``[in]``; of images ``[channels]``.
        active: part of the time that each is not zero, float64 ``[in]``; of images ``[channels]``.
        moments: H, float64 ``[in, in]``: damped means of products over steps and samples; None if not computed.
    """

    power: np.ndarray
    active: np.ndarray
    moments: np.ndarray | None = None

    @cached_property
    def inverse_diagonal(self) -> np.ndarray:
        """The diagonal of the inverse of H."""
        return np.diag(linalg.inv(self.moments))


def presynaptic(graph: SNNGraph, calibration: Calibration) -> dict[str, Presynaptic]:
    """The moments for each projection with weights; H only for matrices whose source is not larger than LARGEST."""
    weighted = [p for p in graph.projections.values() if isinstance(p.operation, (Linear, Conv))]
    sources = sorted({_port(p) for p in weighted if p.source in graph.populations})
    simulation = calibration.simulation(graph, sources)
    values = {**calibration.inputs, **{name: simulation[name] for name in sources}}
    by_projection: dict[str, Presynaptic] = {}
    for projection in weighted:
        read = np.asarray(values[_port(projection)], np.float64)
        if isinstance(projection.operation, Linear):
            read = read.reshape(*read.shape[:2], -1)
        activity = _filtered(graph, projection.target, read)
        by_channel = tuple(k for k in range(activity.ndim) if k != 2)
        active = (read != 0).mean(axis=by_channel)
        power = (activity**2).mean(axis=by_channel)
        refits = isinstance(projection.operation, Linear) and power.size <= LARGEST
        moments = _moments(activity) if refits else None
        by_projection[projection.name] = Presynaptic(power, active, moments)
    return by_projection


def _port(projection: Projection) -> str:
    """The name under which the values that a projection reads are recorded."""
    return projection.source if projection.source_port == OUT else f"{projection.source}.{projection.source_port}"


def _filtered(graph: SNNGraph, target: str, activity: np.ndarray) -> np.ndarray:
    """Activity ``[T, samples, in]`` after a low-pass filter with the time constant of the target's membranes."""
    # A membrane integrates its input, so two sources are interchangeable if their filtered spikes are alike. Raw spikes
    # often miss each other by a few steps, and H would not show that redundancy.
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
    """For each stored weight, the mean square error that its removal causes.

    With second moments ``w^2 / [H^-1]_jj``, after the others of its row are refitted (Hassibi & Stork, 1992); else
    ``w^2 E[x^2]``.

    Returns:
        The shape of ``weight``; of sparse rows, that of their stored values.
    """
    of_source = inputs.power if inputs.moments is None else 1 / inputs.inverse_diagonal
    return numbers_of(weight) ** 2 * by_weight(weight, of_source)


def by_weight(weight: Any, of_source: np.ndarray) -> np.ndarray:
    """For each stored weight, the number of its source; it broadcasts to the shape of the stored values."""
    if sparse.issparse(weight):
        return of_source[weight.indices]
    groups = of_source.size // weight.shape[1]
    if groups > 1:
        # Each group of kernels of a grouped convolution reads its own group of channels.
        of_source = np.repeat(of_source.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    else:
        of_source = of_source[None, :]
    return of_source.reshape(*of_source.shape, *(1 for _ in weight.shape[2:]))


def compensated(weight: Any, pruned: Any, inputs: Presynaptic) -> Any:
    """Pruned weights, refitted so that each row best reproduces its former sum in the mean square.

    With the remaining sources Q and the removed ones P: ``w_Q + H_QQ^-1 H_QP w_P``. Without second moments the weights
    stay as pruned.

    Args:
        weight: before pruning, ``[out, in]``, dense or sparse rows.
        pruned: the same with removed weights set to zero, or not stored.
        inputs: moments of the source.
    """
    if inputs.moments is None:
        return pruned
    result = pruned.copy()
    for row in range(weight.shape[0]):
        old, new = (_dense_row(matrix, row) for matrix in (weight, pruned))
        # All removed weights of a row at once: one linear solve per row, and the result depends on no order.
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
    dense = np.zeros(matrix.shape[1])
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    dense[matrix.indices[part]] = matrix.data[part]
    return dense
