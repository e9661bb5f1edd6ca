"""fold-constants: values that never change become biases."""

# An example: the weights [1 2 3] read a value that is always 0.5, one that varies, and one that is always 0. They
# become [0 2 0] with the bias 1 * 0.5 + 3 * 0 = 0.5.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..graph.analysis.constants import Constants, constant_sources, constants
from ..graph.arrays import as_rows
from ..graph.elements import Projection
from ..graph.operations import Linear
from ..verification.promise import Promise
from .base import Pass, Rewriting


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Turns the effect of inputs that never change, and of relays that sum such inputs, into biases (algebraic).

    Weights from elements that are always zero are dropped (bitwise). Inputs stay: they are the graph's interface.
    """

    name = "fold-constants"
    promise = Promise.ALGEBRAIC

    def run(self, rewriting: Rewriting) -> None:
        graph, known = rewriting.graph, rewriting.fact(constants)
        for projection in list(graph.projections.values()):
            if isinstance(projection.operation, Linear):
                self._fold(rewriting, projection, projection.operation, constant_sources(graph, projection, known))

    def _fold(self, rewriting: Rewriting, projection: Projection, linear: Linear, constants: Constants) -> None:
        if not constants.known.any():
            return
        weights = np.asarray(abs(linear.weight).sum(axis=0)).ravel()
        chosen = constants.known & (weights != 0)
        if not chosen.any():
            return
        if rewriting.leaves(projection.name, "not folded", projection.name):
            return
        amount = np.asarray(linear.weight @ np.where(chosen, constants.values, 0.0)).ravel()
        bias = linear.bias
        if np.any(amount):
            bias = amount if bias is None else bias + amount
        rewriting.set_projection(projection.replace(operation=Linear(_without(linear.weight, chosen), bias)))
        exact = not np.any(constants.values[chosen])
        result = "gone" if exact else "biases"
        message = f"weights from {np.count_nonzero(chosen)} elements that never change are now {result}"
        rewriting.did(projection.name, message, Promise.BITWISE if exact else Promise.ALGEBRAIC, np.flatnonzero(chosen))


def _without(weight: Any, columns: np.ndarray) -> Any:
    """A matrix with some columns zero."""
    mask = (~columns).astype(weight.dtype)
    if sparse.issparse(weight):
        return as_rows(sparse.csr_array(weight.multiply(mask[None, :])))
    return np.where(columns[None, :], np.zeros((), weight.dtype), weight)
