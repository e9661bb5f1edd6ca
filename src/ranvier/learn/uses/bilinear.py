"""Projections as bilinear forms: y is linear in a static operand w, with a presynaptic factor X made of data.

Every form answers the same questions for ``dy/dw`` without ever building it:

- ``presynaptic``: X from the values of a step;
- ``pull``: the gradient of w from cotangents of y over many steps, one product;
- ``outer``: the sum over steps of u (x) X, an addition to an eligibility trace, one product;
- ``contract``: the gradient of w from a trace and cotangents by lane.

In the shapes, K stands for steps and L for layers of lanes (see :mod:`ranvier.learn.uses.alignment`).

For example, ``y = x @ w`` of a 3 x 2 weight over 100 steps: X is x, [100, 3]; ``pull`` is X^T u, a product of 3 x 100
and 100 x 2; ``outer`` is the same product with u by lane, added to a trace of 3 x 2 numbers for every layer;
``contract`` multiplies that trace by 2 cotangents and sums over the layers.
"""

from __future__ import annotations

import abc
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ...program._jax import Equation, Var, bind, dtype_of, operand, shape_of
from ...program.analysis.parameter_use import ParameterUse
from ...program.gather_scatter import picked

FEW = 4
"""Sums of up to this many outer products are left to elementwise code, which joins them with the trace's update."""
AT_ONCE = 8
"""Steps of a sum that are written out in one round of a loop."""


class BilinearMap(abc.ABC):
    """``y = form(X, w)``, linear in each of the two.

    Attributes:
        w: the static operand.
        y: the result.
        name: what the form is called in a plan.
    """

    w: Var
    y: Var
    name: ClassVar[str]

    @property
    def y_shape(self) -> tuple[int, ...]:
        return shape_of(self.y)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return shape_of(self.w)

    @abc.abstractmethod
    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        """X of one step."""

    @abc.abstractmethod
    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        """Gradient of w from X ``[K, ...]`` and cotangents of y ``[K, *y]``."""

    @abc.abstractmethod
    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """Sum over steps of u (x) X: a trace ``[L, ...]`` from X ``[K, ...]`` and u ``[K, L, *y]``."""

    @abc.abstractmethod
    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        """Gradient of w from cotangents by lane ``[L, *y]`` and a trace ``[L, ...]``."""

    @abc.abstractmethod
    def spread(self, u: jax.Array) -> jax.Array:
        """Values by lane ``[L, *y]`` with the axes of a trace, for products with one."""

    @abc.abstractmethod
    def trace_shape(self, layers: int) -> tuple[int, ...]:
        """Shape of a full trace."""

    @cached_property
    def presynaptic_aval(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of X of one step."""
        return jax.eval_shape(lambda: self.presynaptic(Zeros()))


class Zeros(dict[Var, Any]):
    """Zeros for any variable."""

    def __contains__(self, var: object) -> bool:
        return True

    def __missing__(self, var: Var) -> jax.Array:
        return jnp.zeros(shape_of(var), dtype_of(var))


@dataclass(frozen=True, eq=False)
class Elementwise(BilinearMap):
    """y is w itself; X is the number one."""

    w: Var
    y: Var
    name = "elementwise"

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        return jnp.ones((), dtype_of(self.y))

    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.tensordot(x, c, 1)

    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        return jnp.tensordot(x, u, 1)

    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        return (c * trace).sum(0)

    def spread(self, u: jax.Array) -> jax.Array:
        return u

    def trace_shape(self, layers: int) -> tuple[int, ...]:
        return (layers, *self.y_shape)


@dataclass(frozen=True, eq=False)
class Einsum(BilinearMap):
    """A product of X and w given by axis letters; a trace has y's axes and those that only w and X share.

    Attributes:
        w, y: the static operand and the result.
        x_axes, w_axes, y_axes: letters of the axes of X, w and y.
    """

    w: Var
    y: Var
    x_axes: str
    w_axes: str
    y_axes: str

    @cached_property
    def trace_axes(self) -> str:
        """Letters of a trace: an axis that w has and X has not comes last, where products with X run along it."""
        summed = [a for a in self.w_axes if a not in self.y_axes]
        of_w_only = [a for a in self.y_axes if a not in self.x_axes]
        return "".join([*(a for a in self.y_axes if a in self.x_axes), *summed, *of_w_only])

    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.einsum(f"K{self.x_axes},K{self.y_axes}->{self.w_axes}", x, c)

    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        # A matrix product writes its result to memory before it can be added to the trace. For a few steps that costs
        # more than it saves.
        if x.shape[0] <= FEW:
            return sum((self._outer_once(x[k], u[k]) for k in range(1, x.shape[0])), self._outer_once(x[0], u[0]))
        by_layer = [
            jnp.einsum(f"K{self.x_axes},K{self.y_axes}->{self.trace_axes}", x, u[:, k]) for k in range(u.shape[1])
        ]
        return jnp.stack(by_layer)

    def _outer_once(self, x: jax.Array, u: jax.Array) -> jax.Array:
        return self.spread(u) * _aligned(x, self.x_axes, "L" + self.trace_axes)

    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        # Axes of samples lead, after the layers. Summed over together, the trace, the largest array there is, is read
        # once.
        samples = [a for a in self.trace_axes if a in self.x_axes and a in self.y_axes]
        # An axis that w has as well, as every sample has weights of its own, must not be summed over.
        if any(a in self.w_axes for a in samples):
            return jnp.einsum(f"L{self.y_axes},L{self.trace_axes}->{self.w_axes}", c, trace)
        lead, rest = 1 + len(samples), self.trace_axes[len(samples) :]
        c = self.spread(c)
        merged = [x.reshape(-1, *x.shape[lead:]) for x in (c, trace)]
        return jnp.transpose(sum_of_products(*merged), [rest.index(a) for a in self.w_axes])

    def spread(self, u: jax.Array) -> jax.Array:
        return _aligned(u, "L" + self.y_axes, "L" + self.trace_axes)

    def trace_shape(self, layers: int) -> tuple[int, ...]:
        sizes = dict(zip(self.y_axes, self.y_shape, strict=True)) | dict(zip(self.w_axes, self.w_shape, strict=True))
        return (layers, *(sizes[a] for a in self.trace_axes))


def _sum_of_picked(a: jax.Array, a_index: Any, b: jax.Array, b_index: Any) -> jax.Array:
    """``(a[:, a_index] * b[:, b_index]).sum(0)``, some steps at once, many times faster on a CPU than XLA's own."""
    count, dtype = a.shape[0], jnp.result_type(a, b)
    a_index, b_index = jnp.asarray(a_index), jnp.asarray(b_index)

    def add(step: Any, total: jax.Array) -> jax.Array:
        return total + picked(a[step], a_index) * picked(b[step], b_index)

    def add_block(block: Any, total: jax.Array) -> jax.Array:
        for k in range(AT_ONCE):
            total = add(block * AT_ONCE + k, total)
        return total

    blocks = count // AT_ONCE
    total = jax.lax.fori_loop(0, blocks, add_block, jnp.zeros(a_index.shape, dtype))
    # The rest is written out, so that no block reads past the last step.
    for step in range(blocks * AT_ONCE, count):
        total = add(step, total)
    return total


def sum_of_products(a: jax.Array, b: jax.Array) -> jax.Array:
    """``(a * b).sum(0)``, reading b once, several times faster on a CPU than XLA's own reduction.

    A loop, because XLA joins the multiplications with whatever uses their sum otherwise, and reads b again for each
    use.
    """
    count = b.shape[0]
    at_once = next(n for n in (4, 3, 2, 1) if count % n == 0)

    def add(block: Any, total: jax.Array) -> jax.Array:
        for k in range(at_once):
            row = block * at_once + k
            total = total + a[row] * jax.lax.dynamic_index_in_dim(b, row, keepdims=False)
        return total

    start = jnp.zeros(jnp.broadcast_shapes(a.shape, b.shape)[1:], b.dtype)
    return jax.lax.fori_loop(0, count // at_once, add, start)


def _aligned(value: jax.Array, axes: str, target: str) -> jax.Array:
    """The value with its axes in the order of ``target`` and size one where it has none."""
    ordered = jnp.transpose(value, [axes.index(a) for a in target if a in axes])
    return jnp.expand_dims(ordered, [k for k, a in enumerate(target) if a not in axes])


@dataclass(frozen=True, eq=False)
class Product(Einsum):
    """A ``dot_general`` with w as one operand."""

    source: Var
    name = "product"

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        return values[self.source].astype(dtype_of(self.y))


def product_map(eqn: Equation, number: int) -> Product:
    """The form of a ``dot_general`` equation in one of its two operands."""
    (contracted, batch) = eqn.params["dimension_numbers"]
    # An axis that both operands have, summed over or not, has one letter; each other axis has its own. The order in y
    # is that of ``dot_general``: shared axes, then the left operand's, then the right one's.
    letters = iter(string.ascii_lowercase)
    left, right = [""] * len(shape_of(eqn.invars[0])), [""] * len(shape_of(eqn.invars[1]))
    for pairs in (batch, contracted):
        for i, j in zip(*pairs, strict=True):
            left[i] = right[j] = next(letters)
    shared = [left[i] for i in batch[0]]
    left_free = [k for k, a in enumerate(left) if not a]
    right_free = [k for k, a in enumerate(right) if not a]
    for side, free in ((left, left_free), (right, right_free)):
        for k in free:
            side[k] = next(letters)
    y = "".join([*shared, *(left[k] for k in left_free), *(right[k] for k in right_free)])
    sides = ("".join(left), "".join(right))
    return Product(
        w=operand(eqn, number),
        y=eqn.outvars[0],
        x_axes=sides[1 - number],
        w_axes=sides[number],
        y_axes=y,
        source=operand(eqn, 1 - number),
    )


@dataclass(frozen=True, eq=False)
class Rows(Einsum):
    """Rows of w picked by data: X has a one for the row that each element of y is taken from."""

    equation: Equation
    name = "rows"

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        eqn = self.equation
        # The gather itself is run on the numbers of the rows, so that X does with an index out of range what the model
        # does: clipped, it is the last row; filled, it is -1 here, for which ``one_hot`` has zeros.
        numbers = jnp.arange(self.w_shape[0], dtype=jnp.int32)
        rows = jnp.broadcast_to(numbers.reshape(-1, *(1 for _ in self.w_shape[1:])), self.w_shape)
        params = dict(eqn.params, fill_value=-1) if "fill_value" in eqn.params else eqn.params
        picked = eqn.primitive.bind(rows, values[operand(eqn, 1)], **params)
        first = picked[(..., *(0 for _ in self.w_shape[1:]))]
        return jax.nn.one_hot(first, self.w_shape[0], dtype=dtype_of(self.y))


def rows_map(eqn: Equation) -> Rows | None:
    """The form of a ``gather`` of whole rows, as ``w[index]`` makes it; None for other gathers."""
    shape, out = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    numbers, sizes = eqn.params["dimension_numbers"], tuple(eqn.params["slice_sizes"])
    inner = len(shape) - 1
    whole = sizes == (1, *shape[1:]) and numbers.collapsed_slice_dims == (0,) and numbers.start_index_map == (0,)
    last = tuple(numbers.offset_dims) == tuple(range(len(out) - inner, len(out)))
    # Other gathers pick parts of rows, which no letter per axis can say; their form is found by running them.
    if not (whole and last) or numbers.operand_batching_dims:
        return None
    letters = string.ascii_lowercase
    lead, rest = letters[: len(out) - inner], letters[len(out) - inner : len(out)]
    return Rows(operand(eqn, 0), eqn.outvars[0], f"{lead}z", f"z{rest}", lead + rest, eqn)


@dataclass(frozen=True, eq=False)
class Convolution(BilinearMap):
    """A convolution; a trace keeps, for every element of y, the patch of the image under the kernel."""

    w: Var
    y: Var
    equation: Equation
    name = "convolution"

    @cached_property
    def _spec(self) -> Any:
        return self.equation.params["dimension_numbers"]

    @cached_property
    def _groups(self) -> int:
        return self.equation.params["feature_group_count"]

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        return values[operand(self.equation, 0)]

    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        # The transpose of the convolution, not a product with patches: these take the image once per element of the
        # kernel.
        w = jnp.zeros(self.w_shape, c.dtype)
        (result,) = jax.vjp(lambda w: jax.vmap(lambda image: bind(self.equation, [image, w])[0])(x.astype(c.dtype)), w)[
            1
        ](c)
        return result

    def _patches(self, x: jax.Array) -> jax.Array:
        """``[N, groups, patch, *space]``; a patch runs over the channels of a group, then over the kernel."""
        params, spec = self.equation.params, self._spec
        kernel = [self.w_shape[d] for d in spec.rhs_spec[2:]]
        # JAX lays patches out with the channels first, so the image has its axes in that order, too.
        image = jnp.transpose(x, spec.lhs_spec)
        order = tuple(range(image.ndim))
        patches = jax.lax.conv_general_dilated_patches(
            image,
            kernel,
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            jax.lax.ConvDimensionNumbers(order, order, order),
        )
        return patches.reshape(patches.shape[0], self._groups, -1, *patches.shape[2:])

    def _by_group(self, u: jax.Array) -> jax.Array:
        """``[..., N, groups, features, *space]`` from ``[..., *y]``."""
        lead = u.ndim - len(self.y_shape)
        moved = jnp.transpose(u, [*range(lead), *(lead + d for d in self._spec.out_spec)])
        shape = moved.shape
        return moved.reshape(*shape[: lead + 1], self._groups, -1, *shape[lead + 2 :])

    @property
    def _space(self) -> str:
        return string.ascii_lowercase[: len(self.y_shape) - 2]

    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        s = self._space
        patches, by_group = jax.vmap(self._patches)(x), self._by_group(u)
        return jnp.einsum(f"KNGP{s},KLNGF{s}->LNG{s}PF", patches, by_group)

    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        s = self._space
        by_patch = jnp.einsum(f"LNGF{s},LNG{s}PF->GFP", self._by_group(c), trace)
        spec = self._spec.rhs_spec
        kernel = by_patch.reshape(*(self.w_shape[d] for d in spec))
        return jnp.transpose(kernel, tuple(np.argsort(spec)))

    def spread(self, u: jax.Array) -> jax.Array:
        by_group = self._by_group(u)
        return jnp.moveaxis(by_group, 3, -1)[..., None, :]

    def trace_shape(self, layers: int) -> tuple[int, ...]:
        y, w, spec = self.y_shape, self.w_shape, self._spec
        patch = int(np.prod([w[d] for d in spec.rhs_spec[1:]], dtype=np.int64))
        space = [y[d] for d in spec.out_spec[2:]]
        return (layers, y[spec.out_spec[0]], self._groups, *space, patch, y[spec.out_spec[1]] // self._groups)


@dataclass(frozen=True, eq=False)
class Sparse(BilinearMap):
    """Every element of w joins one element of X's data with one element of y, in each of ``copies`` samples.

    Attributes:
        w, y: the static operand and the result.
        source: variable of the data.
        x_index, y_index: int32 ``[copies, w.size]``, flat indices in the data and in y.
        scale: factor of every element of w, or one for all, in the dtype of y.
    """

    w: Var
    y: Var
    source: Var
    x_index: np.ndarray
    y_index: np.ndarray
    scale: np.ndarray
    name = "sparse"

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        return values[self.source].astype(dtype_of(self.y))

    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        x, c = x.reshape(x.shape[0], -1), c.reshape(c.shape[0], -1)
        if self.x_index.shape[0] == 1:
            total = _sum_of_picked(x, self.x_index[0], c, self.y_index[0]) * self._factor(0)
            return total.reshape(self.w_shape)
        # Sample by sample: what all samples pick at once is as large as a full trace.
        x_index, y_index = jnp.asarray(self.x_index), jnp.asarray(self.y_index)

        def add(copy: Any, total: jax.Array) -> jax.Array:
            return total + _sum_of_picked(x, x_index[copy], c, y_index[copy]) * self._factor(copy)

        total = jnp.zeros(self.x_index.shape[1], jnp.result_type(x, c))
        return jax.lax.fori_loop(0, self.x_index.shape[0], add, total).reshape(self.w_shape)

    def _factor(self, copy: Any) -> Any:
        """The factor of every element of w in one sample."""
        return self.scale if self.scale.ndim == 0 else jnp.asarray(self.scale)[copy]

    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        x, u = x.reshape(x.shape[0], -1), u.reshape(*u.shape[:2], -1)
        # A trace keeps the samples apart, so here all of them are picked.
        by_layer = [_sum_of_picked(x, self.x_index, u[:, k], self.y_index) for k in range(u.shape[1])]
        return jnp.stack(by_layer) * self.scale

    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        merged = (part.reshape(-1, part.shape[-1]) for part in (self.spread(c), trace))
        return sum_of_products(*merged).reshape(self.w_shape)

    def spread(self, u: jax.Array) -> jax.Array:
        full = jnp.broadcast_to(u, (u.shape[0], *self.y_shape))
        return full.reshape(u.shape[0], -1)[:, self.y_index]

    def trace_shape(self, layers: int) -> tuple[int, ...]:
        return (layers, *self.x_index.shape)


@dataclass(frozen=True, eq=False)
class Dense(BilinearMap):
    """Any differentiable operation: X is the Jacobian dy/dw itself, ``[*y, *w]``."""

    w: Var
    y: Var
    operation: ParameterUse
    name = "dense Jacobian"

    def presynaptic(self, values: Mapping[Var, Any]) -> jax.Array:
        xs = [values[x] for x in self.operation.xs]

        def result(w: Any) -> Any:
            return self.operation(xs, [w if var is self.w else values[var] for var in self.operation.operands])

        return jax.jacrev(result)(values[self.w])

    def pull(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return jnp.tensordot(c, x, c.ndim)

    def outer(self, x: jax.Array, u: jax.Array) -> jax.Array:
        lead = self._flat(u, u.ndim - len(self.y_shape))
        return jnp.einsum("Kyw,KLy->Lyw", x.reshape(x.shape[0], lead.shape[-1], -1), lead)

    def contract(self, c: jax.Array, trace: jax.Array) -> jax.Array:
        return jnp.einsum("Ly,Lyw->w", self._flat(c, 1), trace).reshape(self.w_shape)

    def spread(self, u: jax.Array) -> jax.Array:
        return self._flat(jnp.broadcast_to(u, (u.shape[0], *self.y_shape)), 1)[..., None]

    def _flat(self, u: jax.Array, lead: int) -> jax.Array:
        return u.reshape(*u.shape[:lead], int(np.prod(self.y_shape, dtype=np.int64)))

    def trace_shape(self, layers: int) -> tuple[int, ...]:
        sizes = [int(np.prod(shape, dtype=np.int64)) for shape in (self.y_shape, self.w_shape)]
        return (layers, *sizes)


def weighted(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Sum over steps of X ``[K, ...]`` with one weight ``[K]`` each."""
    return jnp.tensordot(weights, x, 1)


def stacked(parts: Sequence[jax.Array]) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)
