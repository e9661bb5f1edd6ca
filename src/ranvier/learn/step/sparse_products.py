"""Sparse products in the forward pass: by active sources where they are large, with a matrix where that is faster.

XLA takes some nanoseconds for every synapse that it adds up, and a matrix product takes a hundredth of that for every
element. For example, 1000 synapses between 200 sources and 100 targets, in a batch of 16, are a matrix of 20000
elements, 20 for every synapse: fewer than 256, so the matrix is faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...program._jax import (
    Equation,
    Literal,
    Var,
    bind,
    dtype_of,
    is_complex,
    located_at,
    shape_of,
    size_of,
    variables_of,
)
from ...program.analysis.binding_time import BindingTimes
from ...program.gather_scatter import added_at, picked
from ...program.interpret import read
from ...util.active_sources import SMALLEST, SourceBlocks, whichever
from .tasks import Key, Task

LARGEST_MATRIX = 2**24
"""Elements that a matrix may have in place of synapses."""
DENSE_ENOUGH = 1 / 256
"""The smallest share of synapses among the elements of a matrix for which a product of a batch with it is faster."""
SAMPLES = 4
"""Samples of a batch for which it is worth making a matrix in every chunk."""


@dataclass(frozen=True, eq=False)
class SparseProduct(Task):
    """``scatter-add(w * x[source], target)`` of one sample ``[n]``, or of a batch ``[samples, n]``.

    Attributes:
        equation: the ``scatter-add``.
        product: the multiplication before it.
        pick: the ``gather`` before that.
        source, target: of every synapse, int32 ``[n]``.
    """

    product: Equation
    pick: Equation
    source: np.ndarray
    target: np.ndarray

    @property
    def _x(self) -> Any:
        return self.pick.invars[0]

    @property
    def _w(self) -> Any:
        return _other(self.product, self.pick)

    @property
    def _result(self) -> Any:
        return self.equation.outvars[0]

    @property
    def reads(self) -> tuple[Key, ...]:
        return tuple(variables_of([self._x, self._w]))


@dataclass(frozen=True, eq=False)
class ActiveSum(SparseProduct):
    """The synapses of active sources where these are few, else all; of one sample."""

    @cached_property
    def _blocks(self) -> SourceBlocks:
        return SourceBlocks.of(self.source, self.target, shape_of(self._x)[0], shape_of(self._result)[0])

    def run(self, values: dict[Any, Any]) -> None:
        x, w = read(values, self._x), read(values, self._w)
        with located_at(self.equation):
            values[self._result] = whichever(self._of_active, self._whole, x, w)

    def _of_active(self, x: jax.Array, w: jax.Array) -> jax.Array:
        # Numbers past the last synapse fill a block up; their weight is 0.
        synapses = jnp.asarray(self._blocks.synapses)
        return self._blocks.total(x[None], lambda number: w.at[synapses[number]].get(mode="fill", fill_value=0))[0]

    def _whole(self, x: jax.Array, w: jax.Array) -> jax.Array:
        (seen,) = bind(self.pick, [x, self.source.reshape(shape_of(self.pick.invars[1]))])
        zeros = jnp.zeros(shape_of(self._result), w.dtype)
        places = self.target.reshape(shape_of(self.equation.invars[1]))
        (total,) = bind(self.equation, [zeros, places, seen * w])
        return total


@dataclass(frozen=True, eq=False)
class MatrixProduct(SparseProduct):
    """The product of a batch with a matrix of the synapses, made once per chunk, for weights that do not change within
    it. It spreads values that are not finite to all targets, not only to those that they reach."""

    def fixed(self, static: Mapping[Any, Any]) -> dict[Key, Any]:
        order, places = self._places
        shape = shape_of(self._x)[-1], shape_of(self._result)[-1]
        # Several synapses between the same two neurons add up; in the order of their places that is one pass.
        w = picked(jnp.asarray(read(static, self._w)).reshape(-1), order)
        return {(self, "matrix"): added_at(w, places, shape[0] * shape[1]).reshape(shape)}

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the synapses in the order of their places in the matrix, and these places, int32 ``[n]``."""
        flat = self.source.astype(np.int64) * shape_of(self._result)[-1] + self.target
        order = np.argsort(flat, kind="stable")
        return order.astype(np.int32), flat[order].astype(np.int32)

    def run(self, values: dict[Any, Any]) -> None:
        with located_at(self.equation):
            # At full precision: a device that shortens products by default would otherwise give other spikes than the
            # synapses.
            x, matrix = read(values, self._x), values[self, "matrix"]
            values[self._result] = jnp.matmul(x, matrix, precision=jax.lax.Precision.HIGHEST)


def sparse_product(
    eqn: Equation, producer: Mapping[Var, Equation], binding_times: BindingTimes, *, in_loop: bool
) -> SparseProduct | None:
    """The task for an equation that is such a product, if there is a faster way than running its equations.

    Args:
        eqn: any equation.
        producer: variable to the equation that computes it.
        binding_times: what is known of variables.
        in_loop: whether it runs step after step.
    """
    product = _made_by("mul", eqn.invars[2], producer) if eqn.primitive.name == "scatter-add" else None
    if product is None:
        return None
    picks = (_made_by("gather", atom, producer) for atom in product.invars)
    pick = next((p for p in picks if p and _is_by_number(eqn, product, p)), None)
    kind = None if pick is None else _kind(eqn, product, pick, binding_times, in_loop)
    if pick is None or kind is None:
        return None
    start, target, source = (binding_times.constant_value(a) for a in (eqn.invars[0], eqn.invars[1], pick.invars[1]))
    # Places that are not constants, or sums that do not start from zero, are left to the equations.
    if start is None or start.any() or target is None or source is None:
        return None
    # The equations clip or drop an index out of range; neither fast way does.
    inside = all(
        places.min() >= 0 and places.max() < shape_of(values)[-1]
        for places, values in ((source, pick.invars[0]), (target, eqn.outvars[0]))
    )
    return kind(eqn, product, pick, source.reshape(-1), target.reshape(-1)) if inside else None


def _kind(
    add: Equation, product: Equation, pick: Equation, binding_times: BindingTimes, in_loop: bool
) -> type[SparseProduct] | None:
    """What is fastest for a product; None for the equations themselves."""
    (*samples, synapses), sources = shape_of(pick.outvars[0]), shape_of(pick.invars[0])[-1]
    if not samples:
        # To look which sources are active takes a branch at every step. Outside of loops that is no branch: over all
        # steps at once, both sides would be computed.
        looked = synapses >= SMALLEST and in_loop and not is_complex(dtype_of(pick.invars[0]))
        return ActiveSum if looked else None
    elements = sources * shape_of(add.outvars[0])[-1]
    fits = 0 < DENSE_ENOUGH * elements <= synapses and elements <= LARGEST_MATRIX and samples[0] >= SAMPLES
    return MatrixProduct if fits and binding_times.is_static(_other(product, pick)) else None


def _other(product: Equation, pick: Equation) -> Any:
    """The operand of the multiplication that is not picked."""
    first, second = product.invars
    return second if first is pick.outvars[0] else first


def _made_by(name: str, atom: Any, producer: Mapping[Var, Equation]) -> Equation | None:
    eqn = None if isinstance(atom, Literal) else producer.get(atom)
    return eqn if eqn is not None and eqn.primitive.name == name else None


def _is_by_number(add: Equation, product: Equation, pick: Equation) -> bool:
    """Whether elements of vectors, or the same of every sample, are picked, weighed and added one by one."""
    x, seen, weighed, y = (shape_of(v) for v in (pick.invars[0], pick.outvars[0], add.invars[2], add.outvars[0]))
    axes = len(x)
    if axes not in (1, 2) or seen != weighed or seen[:-1] != x[:-1] or y[:-1] != x[:-1] or len(y) != axes:
        return False
    if not seen[-1] or shape_of(_other(product, pick)) != (1,) * (axes - 1) + seen[-1:]:
        return False
    if any(size_of(places) != seen[-1] for places in (pick.invars[1], add.invars[1])):
        return False
    samples, last = tuple(range(axes - 1)), (axes - 1,)
    picking, adding = pick.params["dimension_numbers"], add.params["dimension_numbers"]
    return (
        tuple(picking.offset_dims) == samples
        and tuple(picking.collapsed_slice_dims) == last == tuple(picking.start_index_map)
        and tuple(adding.update_window_dims) == samples
        and tuple(adding.inserted_window_dims) == last == tuple(adding.scatter_dims_to_operand_dims)
    )
