"""Products whose sums are in the order of the sources: zeros change no bit, however large and dense a matrix is."""

import numpy as np
import pytest
from scipy import sparse

from ranvier.graph.ordered_product import DenseColumns, SparseRows, ordered_product

SHAPE = (600, 130)
"""Targets in two blocks, the last of them not full."""


def _weights() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def _values(samples: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.normal(size=(samples, SHAPE[1])) * (rng.random((samples, SHAPE[1])) < 0.5)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_dense_matrix_gives_the_bits_of_its_sparse_rows(samples: int) -> None:
    product = ordered_product(_weights())
    assert isinstance(product, DenseColumns)
    rows = ordered_product(sparse.csr_array(_weights()))
    assert isinstance(rows, SparseRows)
    np.testing.assert_array_equal(product(_values(samples)), rows(_values(samples)))


def test_a_source_of_weight_zero_changes_no_bit() -> None:
    weights, values = _weights(), _values(4)
    weights[:, 70] = 0.0
    there = ordered_product(weights)(values)
    gone = ordered_product(np.delete(weights, 70, axis=1))(np.delete(values, 70, axis=1))
    np.testing.assert_array_equal(there, gone)


@pytest.mark.parametrize("broken", [np.inf, np.nan])
def test_weight_zero_hides_values_that_are_not_finite(broken: float) -> None:
    weights, values = _weights(), _values(4)
    weights[:, 70] = 0.0
    values[2, 70] = broken
    assert np.isfinite(ordered_product(weights)(values)).all()


def test_a_weight_that_is_not_finite_stays_so_for_a_silent_source() -> None:
    weights, values = _weights(), _values(2)
    weights[5, 70] = np.inf
    values[:, 70] = 0.0
    product = ordered_product(weights)(values)
    assert np.isnan(product[:, 5]).all()
    assert np.isfinite(np.delete(product, 5, axis=1)).all()
