"""Affine maps that are a sparse matrix whose stored numbers are one operand.

Which stored number is at which place of the matrix is found by applying the map to unit vectors with the numbers 1, 2,
3, ... stored. If the matrix that comes out is [[0, 1], [2, 0], [0, 3]], then stored number 1 is at row 0, column 1, and
so on. A second try with random numbers tells a place that holds stored number 3 from one that holds the sum of 1 and 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..graph.operations import Linear, Operation
from ..program._jax import Literal, Var, dtype_of, is_floating, shape_of, size_of
from ..program.analysis.parameter_use import UseKind
from .affine_maps import AffineMap, is_learned
from .affine_operation import LARGEST_PROBED, AffineOperation
from .step import StepView


def sparse_operation(step: StepView, affine: AffineMap) -> AffineOperation | None:
    """A map as a sparse matrix; None for other kinds of maps."""
    (x,) = affine.xs
    vectors = [v for v in affine.operands if is_floating(dtype_of(v))]
    if affine.kind is not UseKind.SPARSE or len(vectors) != 1:
        return None
    (w,) = vectors
    places = _places_of_added_products(step, affine, w)
    if places is None and size_of(x) <= LARGEST_PROBED:
        places = _probed_places(step, affine, w)
    if places is None:
        return None
    return _operation(places, w, is_learned(step, affine))


def _operation(places: Any, w: Var, learned: bool) -> AffineOperation:
    """The operation of sparse rows that hold at every place the number of its stored weight, from 1 on."""
    order = places.data.astype(np.int64) - 1
    indices, indptr, shape = places.indices, places.indptr, places.shape

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Linear(sparse.csr_array((arrays["weight"], indices, indptr), shape=shape))

    def taking(index: np.ndarray, size: int) -> AffineOperation | None:
        entries = places.tocoo()
        # Elements that are gathered from nowhere are zero, so their entries go.
        columns = index[entries.col]
        taken = columns >= 0
        ends = entries.row[taken], columns[taken]
        if np.unique(ends[0].astype(np.int64) * size + ends[1]).size < ends[0].size:
            return None
        return _operation(sparse.csr_array((entries.data[taken], ends), shape=(shape[0], size)), w, learned)

    arrays = {"weight": lambda static: jnp.asarray(static[w]).reshape(-1)[order]}
    return AffineOperation((shape[1],), (shape[0],), arrays, make, learned, taking=taking)


def _places_of_added_products(step: StepView, affine: AffineMap, w: Var) -> Any | None:
    """Places where every element is multiplied by a weight of its own and added up by target: they are the targets.

    A list of synapses, gathered by source, is so; it has no size limit, unlike probing.
    """
    (x,), y = affine.xs, affine.y
    if [eqn.primitive.name for eqn in affine.equations] != ["mul", "scatter-add"] or shape_of(w) != shape_of(x):
        return None
    product, total = affine.equations
    start, where, updates = total.invars
    numbers = total.params["dimension_numbers"]
    plain = tuple(numbers.inserted_window_dims) == (0,) and not numbers.update_window_dims
    if set(product.invars) != {x, w} or updates is not product.outvars[0] or len(shape_of(x)) != 1 or not plain:
        return None
    initial, targets = (
        np.asarray(atom.val if isinstance(atom, Literal) else step.static[atom]) for atom in (start, where)
    )
    targets, count = targets.reshape(-1), size_of(x)
    if np.any(initial) or targets.size != count or np.any((targets < 0) | (targets >= size_of(y))):
        return None
    return sparse.csr_array((np.arange(1.0, count + 1), (targets, np.arange(count))), shape=(size_of(y), count))


def _probed_places(step: StepView, affine: AffineMap, w: Var) -> Any | None:
    """Sparse rows that hold, for every place of the matrix, the number of the stored weight, from 1 on."""
    (x,) = affine.xs
    dtype = dtype_of(w)

    def matrix(values: np.ndarray) -> np.ndarray:
        static = {**step.static, w: jnp.asarray(values, dtype).reshape(shape_of(w))}
        operands = [static[var] for var in affine.operands]
        units = jnp.eye(size_of(x), dtype=dtype_of(x)).reshape(-1, *shape_of(x))
        return np.asarray(jax.jit(jax.vmap(lambda unit: affine([unit], operands).reshape(-1)))(units)).T

    numbers = np.arange(1, size_of(w) + 1)
    random = np.random.default_rng(0).uniform(1, 2, size_of(w)).astype(dtype)
    # Numbers up to 2 ** 24 are exact in single precision; what is not whole, or out of range, mixes several.
    of_numbers, of_random = matrix(numbers), matrix(random)
    place = np.rint(of_numbers).astype(np.int64)
    if not np.array_equal(place, of_numbers) or place.min() < 0 or place.max() > size_of(w):
        return None
    if not np.array_equal(of_random, np.where(place > 0, random[place - 1], 0)):
        return None
    return sparse.csr_array(place.astype(np.float64))
