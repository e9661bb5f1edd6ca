"""Arrays of a graph: numpy arrays and scipy's sparse rows, never written in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

Matrix = Any
"""A dense numpy array or scipy's ``csr_array``."""


def constant(value: Any) -> np.ndarray:
    """A floating-point array that cannot be written through; numbers that are no floats become float64."""
    array = np.asarray(value)
    if np.issubdtype(array.dtype, np.complexfloating):
        raise TypeError(f"an array of {array.dtype}; expected real numbers")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    view = array.view()
    view.flags.writeable = False
    return view


def matrix(value: Any) -> Matrix:
    """A weight matrix: a dense array as :func:`constant` makes it, or sparse rows in canonical order."""
    if not sparse.issparse(value):
        return constant(value)
    rows = sparse.csr_array(value)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    if not np.issubdtype(rows.dtype, np.floating):
        rows = rows.astype(np.float64)
    return rows


def as_rows(value: Matrix) -> Matrix:
    """A weight matrix as sparse rows without stored zeros."""
    if not sparse.issparse(value) and _is_mostly_set(value):
        return _rows_of_dense(value)
    rows = sparse.csr_array(value)
    if np.all(rows.data != 0):
        return rows
    rows = rows.copy()
    rows.eliminate_zeros()
    return rows


def row_numbers(rows: Matrix) -> np.ndarray:
    """Of every stored value of sparse rows the row that it stands in."""
    return np.repeat(np.arange(rows.shape[0], dtype=np.int32), np.diff(rows.indptr))


def in_float64(rows: Matrix) -> Matrix:
    """Sparse rows with values in float64, and the same indices."""
    return sparse.csr_array((rows.data.astype(np.float64), rows.indices, rows.indptr), shape=rows.shape)


def _is_mostly_set(dense: np.ndarray) -> bool:
    return 2 * int(np.count_nonzero(dense)) > dense.size


def _rows_of_dense(dense: np.ndarray) -> Matrix:
    """Sparse rows of a matrix with few zeros: every element is stored, and then the zeros are taken out, which is
    quicker than to look for the others."""
    count, size = dense.shape
    columns = np.tile(np.arange(size, dtype=np.int32), count)
    starts = np.arange(0, dense.size + 1, size, dtype=np.int64)
    full = np.count_nonzero(dense) == dense.size
    rows = sparse.csr_array((dense.ravel() if full else dense.flatten(), columns, starts), shape=dense.shape)
    if not full:
        rows.eliminate_zeros()
    return rows
