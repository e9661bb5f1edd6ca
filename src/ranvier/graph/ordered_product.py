"""Products with dense matrices whose sums are in the order of the sources, so that zeros change no bit of them.

For example, A is ``[[1 2 3] [4 5 6]]`` and the values of two samples are ``[[1 0 2] [0 0 1]]``. The columns of A are
stored one after the other: 1 4, 2 5, 3 6. The first sample adds column 0 and then twice column 2 to zero: 1 4, then
7 16. The second adds column 2: 3 6. Sources that are silent, as most neurons are in most steps, cost nothing.

A product of a linear algebra library would sum up parts of a row first, and the parts depend on the shape. Without a
silent neuron the shape is another one, and so are the last bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from .arrays import Matrix, as_rows, in_float64

TARGETS_AT_ONCE = 512
"""Elements of the result that are computed together: with more, sums of several samples leave the processor's cache."""
TRANSPOSED_AT_ONCE = 32
"""Rows that are transposed together: with more, each value that is read costs a line of the cache."""
SMALLEST = 2**14
"""Elements of a matrix from which columns are quicker than sparse rows."""


@dataclass(frozen=True, eq=False)
class SparseRows:
    """The product with a matrix as sparse rows.

    Attributes:
        rows: in float64.
    """

    rows: Any

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """From values ``[samples, sources]``."""
        return (self.rows @ values.T).T


@dataclass(frozen=True, eq=False)
class DenseColumns:
    """The product with a dense matrix of finite numbers, column by column.

    Attributes:
        blocks: of targets, each ``[sources, targets]`` in float64.
    """

    blocks: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, dense: np.ndarray) -> DenseColumns:
        targets = len(dense)
        return cls(tuple(_transposed(dense[k : k + TARGETS_AT_ONCE]) for k in range(0, targets, TARGETS_AT_ONCE)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """From values ``[samples, sources]``."""
        # Zero times a value that is not finite is not a number, which a synapse of weight zero must not bring.
        if not np.isfinite(values).all():
            return SparseRows(self._rows())(values)
        active = sparse.csr_array(values)
        return np.concatenate([active @ block for block in self.blocks], axis=1)

    def _rows(self) -> Matrix:
        return as_rows(np.concatenate([block.T for block in self.blocks]))


def ordered_product(matrix: Matrix) -> SparseRows | DenseColumns:
    """The product with a matrix, dense or of sparse rows.

    Its result depends on neither zeros in the matrix nor zeros among the sources, bit for bit.
    """
    if sparse.issparse(matrix) or matrix.size < SMALLEST or not _suits_columns(matrix):
        return SparseRows(in_float64(as_rows(matrix)))
    return DenseColumns.of(matrix)


def _suits_columns(dense: np.ndarray) -> bool:
    # A silent source is skipped, so an infinite weight would not make its target undefined.
    return 2 * int(np.count_nonzero(dense)) > dense.size and bool(np.isfinite(dense).all())


def _transposed(dense: np.ndarray) -> np.ndarray:
    targets, sources = dense.shape
    columns = np.empty((sources, targets))
    for k in range(0, targets, TRANSPOSED_AT_ONCE):
        columns[:, k : k + TRANSPOSED_AT_ONCE] = dense[k : k + TRANSPOSED_AT_ONCE].T
    return columns
