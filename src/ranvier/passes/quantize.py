"""quantize: rounds weights to a grid."""

# An example: int3 has the whole numbers -3 to 3. A row [0.6 -0.25] has the scale 0.6 / 3 = 0.2 and becomes
# 0.2 * [3 -1] = [0.6 -0.2]. Q1.1 has the step 0.5 for all rows and the same whole numbers: [2.0 0.3] becomes [1.5 0.5],
# where 2.0 is clipped.

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import PassError
from ..graph.elements import Projection
from ..graph.operations import Constant, Conv, Linear, Scale
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration
from ..verification.promise import Promise
from .base import Pass, Rewriting

FIXED_POINT = re.compile(r"Q(\d{1,2})\.(\d{1,2})")
INTEGERS = re.compile(r"int(\d{1,2})")
FEWEST, MOST, MOST_FIXED = 2, 16, 32
"""Numbers of bits, including the sign: the fewest, and the most of ``intN`` and ``Qm.n``."""


@dataclass(frozen=True)
class Quantize(Pass):
    """Rounds weights and biases to numbers that a chip can represent (approximate).

    ``"int8"`` (2 to 16 bits): whole numbers times a scale for each row or output channel, chosen so that its largest
    weight fits. ``"Q3.4"``: fixed point with a sign, 3 bits before and 4 after the point, for all weights; values out
    of range are clipped. The values stay floating point in the graph; remarks report the largest error and the number
    of clipped values.

    Attributes:
        format: ``"intN"`` or ``"Qm.n"``.
        activity: a remark names each population whose number of spikes on the calibration data changes by more than
            this part.

    Raises:
        PassError: the format is unknown or has too many bits, or the part is negative.
    """

    name = "quantize"
    promise = Promise.APPROXIMATE
    once = True
    format: str = "int8"
    activity: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        integers, fixed = INTEGERS.fullmatch(self.format), FIXED_POINT.fullmatch(self.format)
        bits = int(integers[1]) if integers else 1 + int(fixed[1]) + int(fixed[2]) if fixed else 0
        if not FEWEST <= bits <= (MOST if integers else MOST_FIXED):
            raise PassError(
                f"quantize: format {self.format!r} is unknown; write int8 (int{FEWEST} to int{MOST}) or Qm.n, "
                "such as Q3.4."
            )
        if self.activity < 0:
            raise PassError(f"quantize: activity={self.activity!r} is negative; pass a part, such as 0.1.")

    def run(self, rewriting: Rewriting) -> None:
        before = rewriting.graph.copy()
        for projection in list(rewriting.graph.projections.values()):
            if isinstance(projection.operation, (Linear, Conv, Scale, Constant)):
                self._quantize(rewriting, projection)
        if rewriting.changed and rewriting.calibration is not None:
            self._compare_activity(rewriting, before, rewriting.calibration)

    def _compare_activity(self, rewriting: Rewriting, before: SNNGraph, data: Calibration) -> None:
        """Remarks on populations that fire more or less than before."""
        # Small errors of weights add up over a row, and a network may fall silent though every weight is close.
        old, new = (_spikes(graph, data) for graph in (before, rewriting.graph))
        for name, count in old.items():
            if abs(new[name] - count) > self.activity * count:
                change = f" ({new[name] / count - 1:+.1%})" if count else ""
                message = (
                    f"activity changed: {count:,} spikes on the calibration data before, {new[name]:,} after{change}"
                )
                rewriting.missed(name, message)

    def _quantize(self, rewriting: Rewriting, projection: Projection) -> None:
        operation, errors, clipped = projection.operation, [], 0
        changed: dict[str, Any] = {}
        for name, value in operation.arrays.items():
            rounded, outside = self._rounded(value)
            error = _largest(rounded - value)
            if error:
                changed[name], clipped = rounded, clipped + outside
                errors.append(f"{name} within {error:.3g} of {_largest(value):.3g}")
        if changed and not rewriting.leaves(projection.name, "not rounded", projection.name):
            rewriting.set_projection(projection.replace(operation=operation.replace(**changed)))
            clipping = f"; {clipped} clipped" if clipped else ""
            rewriting.did(projection.name, f"{self.format}: {', '.join(errors)}{clipping}", Promise.APPROXIMATE)

    def _rounded(self, value: Any) -> tuple[Any, int]:
        """The rounded values, and how many were clipped."""
        if sparse.issparse(value):
            scale = self._scale(abs(value).max(axis=1).toarray().ravel())
            by_element = np.repeat(scale, np.diff(value.indptr)) if scale.ndim else scale
            data, outside = self._on_grid(value.data, by_element)
            return sparse.csr_array((data, value.indices, value.indptr), shape=value.shape), outside
        rows = np.abs(value).reshape(value.shape[0], -1).max(axis=1) if value.ndim > 1 else np.abs(value).max(initial=0)
        scale = self._scale(rows)
        return self._on_grid(value, scale.reshape(-1, *(1 for _ in value.shape[1:])) if scale.ndim else scale)

    def _scale(self, largest: Any) -> np.ndarray:
        """The step of the grid: one number, or one for every row."""
        if fixed := FIXED_POINT.fullmatch(self.format):
            return np.asarray(2.0 ** -int(fixed[2]))
        return np.where(np.asarray(largest) > 0, np.asarray(largest) / self._most(), 1.0)

    def _most(self) -> int:
        """The largest whole number of the grid."""
        # The grid is symmetric, one number short of two's complement, so that a weight and its negative round alike.
        if fixed := FIXED_POINT.fullmatch(self.format):
            return 2 ** (int(fixed[1]) + int(fixed[2])) - 1
        return 2 ** (int(self.format[3:]) - 1) - 1

    def _on_grid(self, values: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, int]:
        most = self._most()
        numbers = np.round(values / scale)
        outside = int(np.count_nonzero(np.abs(numbers) > most))
        return (np.clip(numbers, -most, most) * scale).astype(values.dtype), outside


def _spikes(graph: SNNGraph, data: Calibration) -> dict[str, int]:
    """Number of spikes of every spiking population."""
    names = [name for name, population in graph.populations.items() if population.neuron.spikes]
    simulation = data.simulation(graph, names)
    return {name: int(np.count_nonzero(simulation[name])) for name in names}


def _largest(value: Any) -> float:
    return float(abs(value).max()) if value.size else 0.0
