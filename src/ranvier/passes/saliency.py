"""Second-order importance of weights, from the presynaptic activity on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import linalg

from ..ir.graph.operations import Linear
from ..ir.graph.snn_graph import SNNGraph
from .base import Rewriting

LARGEST = 2048
"""Sources up to this size have their second moments taken; the cost is cubic."""
DAMPING = 1e-3
"""Part of the mean second moment that is added to each, so that H can be inverted."""


@dataclass(frozen=True, eq=False)
class Presynaptic:
    """What a matrix is applied to.

    Attributes:
        moments: H, ``[in, in]``: means of products over steps and samples, damped.
    """

    moments: np.ndarray

    @cached_property
    def inverse_diagonal(self) -> np.ndarray:
        """The diagonal of the inverse of H."""
        return np.diag(linalg.inv(self.moments))


def presynaptic(rewriting: Rewriting) -> dict[str, Presynaptic]:
    """By matrix projection, for sources that are not too large."""
    graph, calibration = rewriting.graph, rewriting.calibration
    assert calibration is not None
    wanted = [p for p in graph.projections.values() if isinstance(p.operation, Linear)]
    sources = sorted({p.source for p in wanted if p.source in graph.populations})
    simulation = calibration.simulation(graph, sources)
    values = {**calibration.inputs, **{name: simulation[name] for name in sources}}
    found: dict[str, Presynaptic] = {}
    for projection in wanted:
        if graph.nodes[projection.source].size > LARGEST:
            rewriting.missed(projection.name, f"more than {LARGEST} inputs: ranked by magnitude")
            continue
        activity = np.asarray(values[projection.source], np.float64)
        found[projection.name] = Presynaptic(_moments(_felt(graph, projection.target, activity)))
    return found


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


def second_order(weight: np.ndarray, found: Presynaptic) -> np.ndarray:
    """The error ``w^2 / [H^-1]_jj`` that is left when a weight goes and the others of its row make up for it."""
    return weight**2 / found.inverse_diagonal[None, :]


def compensated(weight: np.ndarray, kept: np.ndarray, found: Presynaptic) -> np.ndarray:
    """Rows whose kept weights give, in the mean square, what all weights gave.

    With Q what is kept and P what is gone: ``w_Q + H_QQ^-1 H_QP w_P``.
    """
    result = np.zeros_like(weight, dtype=np.float64)
    for row, (w, q) in enumerate(zip(weight.astype(np.float64), kept, strict=True)):
        gone = ~q & (w != 0)
        if not q.any():
            continue
        result[row, q] = w[q]
        if gone.any():
            within = found.moments[np.ix_(q, q)]
            result[row, q] += linalg.solve(within, found.moments[np.ix_(q, gone)] @ w[gone], assume_a="pos")
    return result
