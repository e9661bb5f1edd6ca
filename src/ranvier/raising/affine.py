"""An affine map of a step as the operation of a projection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..graph.operations import Conv, Linear, Operation
from ..graph.traced import Mapped
from ..program._jax import Equation, Literal, Var, dtype_of, is_floating, shape_of, size_of, trace
from ..program.analysis.parameter_use import ParameterUse as AffineMap
from ..program.analysis.parameter_use import UseKind
from ..program.paths import path_text
from ..program.precision import TracedFunction
from .references import node_shape
from .roles import EquationKinds

Static = Mapping[Var, Any]
"""Values of what does not change."""
Derived = Callable[[Static], Any]
"""An array of a graph from what does not change, in JAX."""
Make = Callable[[Mapping[str, np.ndarray]], Operation]
"""The operation from its arrays."""
LARGEST_PROBED = 4096
"""Sources up to this size are probed element by element."""


@dataclass(frozen=True, eq=False)
class AffineOperation:
    """An operation, and where its arrays come from.

    Attributes:
        source, target: shapes.
        arrays: by name how an array is made.
        make: the operation from arrays.
        learned: whether any array has a derivative by a parameter.
        name: for the projection.
        taking: of a sparse matrix, gives the form that reads elements of a larger source itself, from their numbers and
            its size; None where two weights would meet at one place.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    arrays: Mapping[str, Derived]
    make: Make
    learned: bool
    name: str = field(default="map")
    taking: Callable[[np.ndarray, int], AffineOperation | None] | None = None

    @property
    def is_dense(self) -> bool:
        """Whether rows and columns of a dense matrix can be taken."""
        return self.make is Linear_of

    def part(self, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> AffineOperation:
        """Some rows and columns of a dense matrix, in their order."""
        weight, bias = self.arrays["weight"], self.arrays.get("bias")
        arrays: dict[str, Derived] = {"weight": lambda static: _taken(weight(static), rows, columns)}
        if bias is not None:
            arrays["bias"] = lambda static: _taken(bias(static), rows, None)
        source = self.source if columns is None else (columns.size,)
        target = self.target if rows is None else (rows.size,)
        return replace(self, arrays=arrays, source=source, target=target)

    def without_bias(self) -> AffineOperation:
        return replace(self, arrays={k: v for k, v in self.arrays.items() if k != "bias"})

    def with_bias(self, bias: Derived) -> AffineOperation:
        return replace(self, arrays={**self.arrays, "bias": bias})


def Linear_of(arrays: Mapping[str, np.ndarray]) -> Operation:
    return Linear(**arrays)


def _taken(values: Any, rows: np.ndarray | None, columns: np.ndarray | None) -> Any:
    values = values if rows is None else values[rows]
    return values if columns is None else values[:, columns]


def form_of(roles: EquationKinds, operation: AffineMap) -> AffineOperation:
    """The operation that an affine map is."""
    name = _name(roles, operation)
    for attempt in (_dense, _sparse, _conv, _fixed):
        found = attempt(roles, operation)
        if found is not None:
            return replace(found, name=name)
    return replace(_mapped(roles, operation), name=name)


def _name(roles: EquationKinds, operation: AffineMap) -> str:
    paths = [path_text(roles.info.parameters[slot].path) for slot in sorted(operation.slots)]
    return "+".join(paths) or roles.info.variable_names.get(operation.y, "map")


def _learned(roles: EquationKinds, operation: AffineMap) -> bool:
    return any(roles.is_learned(var) for var in operation.operands)


# Dense matrices ---------------------------------------------------------------------------------------------------


def _dense(roles: EquationKinds, operation: AffineMap) -> AffineOperation | None:
    if operation.kind is not UseKind.AFFINE and operation.equations[0].primitive.name != "dot_general":
        return None
    arrays = _by_hand(operation) or _by_probing(operation)
    if arrays is None:
        return None
    (x,), y = operation.xs, operation.y
    return AffineOperation((size_of(x),), (size_of(y),), arrays, Linear_of, _learned(roles, operation))


def _by_hand(operation: AffineMap) -> dict[str, Derived] | None:
    """Weight and bias of a product with nothing but scales and biases behind it."""
    first, *rest = operation.equations
    (x,) = operation.xs
    if first.primitive.name != "dot_general":
        return None
    weight = _weight_of_product(first, x)
    if weight is None:
        return None
    y, bias = first.outvars[0], None
    for eqn in rest:
        others = [a for a in eqn.invars if a is not y]
        if y not in eqn.invars or len(eqn.outvars) != 1:
            return None
        step = _step(eqn, y, others)
        if step is None:
            return None
        weight, bias = step(weight, bias)
        y = eqn.outvars[0]
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _weight_of_product(eqn: Equation, x: Var) -> Derived | None:
    """``[out, in]`` of a product that uses up all of x."""
    ((left, right), (batch, _)) = eqn.params["dimension_numbers"]
    a, b = eqn.invars
    if batch or a is b or x not in (a, b):
        return None
    w, contracted, of_x = (b, right, left) if a is x else (a, left, right)
    if isinstance(w, Literal) or prod(shape_of(x)[d] for d in of_x) != size_of(x):
        return None
    order = [of_x.index(d) for d in sorted(of_x) if shape_of(x)[d] > 1]
    inner = [contracted[k] for k in order] + [d for k, d in enumerate(contracted) if k not in order]
    free = [d for d in range(len(shape_of(w))) if d not in contracted]

    def weight(static: Static) -> Any:
        return jnp.transpose(jnp.asarray(static[w]), [*free, *inner]).reshape(-1, size_of(x))

    return weight


Step = Callable[[Derived, "Derived | None"], tuple[Derived, "Derived | None"]]


def _step(eqn: Equation, y: Var, others: list[Any]) -> Step | None:
    """What an equation behind a product does to weight and bias."""
    name, size = eqn.primitive.name, size_of(eqn.outvars[0])
    if size != size_of(y):
        return None
    if name in ("reshape", "squeeze", "expand_dims", "copy", "convert_element_type"):
        return lambda weight, bias: (weight, bias)
    if name in ("mul", "div") and len(others) == 1 and size_of(others[0]) == 1 and eqn.invars[0] is y:
        return _scaling(others[0], name)
    if name in ("add", "add_any") and len(others) == 1 and size_of(others[0]) in (1, size):
        return _shifting(others[0], size)
    return None


def _scaling(by: Any, name: str) -> Step:
    def scaled(values: Derived) -> Derived:
        def derived(static: Static) -> Any:
            factor = _read(static, by).reshape(())
            return values(static) * factor if name == "mul" else values(static) / factor

        return derived

    return lambda weight, bias: (scaled(weight), None if bias is None else scaled(bias))


def _shifting(by: Any, size: int) -> Step:
    def shifted(bias: Derived | None) -> Derived:
        def derived(static: Static) -> Any:
            more = jnp.broadcast_to(_read(static, by).reshape(-1), (size,))
            return more if bias is None else bias(static) + more

        return derived

    return lambda weight, bias: (weight, shifted(bias))


def _read(static: Static, atom: Any) -> Any:
    return jnp.asarray(atom.val if isinstance(atom, Literal) else static[atom])


def _by_probing(operation: AffineMap) -> dict[str, Derived] | None:
    """Weight and bias from what the map makes of single ones, where the matrix has as many numbers as what it is made
    of, or is a product of two."""
    (x,), y = operation.xs, operation.y
    weights = [size_of(var) for var in operation.operands if is_floating(dtype_of(var))]
    products = sum(e.primitive.name == "dot_general" for e in operation.equations)
    own = size_of(x) * size_of(y) in weights
    if size_of(x) > LARGEST_PROBED or not (own or (products == 2 and len(shape_of(x)) == len(shape_of(y)) == 1)):
        return None

    def at_zero(static: Static) -> Any:
        operands = [static[var] for var in operation.operands]
        return operation([jnp.zeros(shape_of(x), dtype_of(x))], operands).reshape(-1)

    def weight(static: Static) -> Any:
        operands = [static[var] for var in operation.operands]
        ones = jnp.eye(size_of(x), dtype=dtype_of(x)).reshape(-1, *shape_of(x))
        columns = jax.vmap(lambda one: operation([one], operands).reshape(-1))(ones)
        return (columns - at_zero(static)).T

    has_bias = len(operation.operands) > 1 and products != 2
    return {"weight": weight, "bias": at_zero} if has_bias else {"weight": weight}


# Sparse matrices --------------------------------------------------------------------------------------------------


def _sparse(roles: EquationKinds, operation: AffineMap) -> AffineOperation | None:
    """A product with a sparse matrix whose stored numbers are one operand."""
    (x,) = operation.xs
    vectors = [v for v in operation.operands if is_floating(dtype_of(v))]
    if operation.kind is not UseKind.SPARSE or len(vectors) != 1:
        return None
    (w,) = vectors
    places = _added_up(roles, operation, w)
    if places is None and size_of(x) <= LARGEST_PROBED:
        places = _places(roles, operation, w)
    if places is None:
        return None
    return _sparse_form(places, w, _learned(roles, operation))


def _sparse_form(places: Any, w: Var, learned: bool) -> AffineOperation:
    """The form of a sparse matrix of stored weights, told by their numbers from 1 on."""
    order = places.data.astype(np.int64) - 1
    indices, indptr, shape = places.indices, places.indptr, places.shape

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Linear(sparse.csr_array((arrays["weight"], indices, indptr), shape=shape))

    def taking(index: np.ndarray, size: int) -> AffineOperation | None:
        entries = places.tocoo()
        columns = index[entries.col]
        taken = columns >= 0
        ends = entries.row[taken], columns[taken]
        if np.unique(ends[0].astype(np.int64) * size + ends[1]).size < ends[0].size:
            return None
        return _sparse_form(sparse.csr_array((entries.data[taken], ends), shape=(shape[0], size)), w, learned)

    arrays = {"weight": lambda static: jnp.asarray(static[w]).reshape(-1)[order]}
    return AffineOperation((shape[1],), (shape[0],), arrays, make, learned, taking=taking)


def _added_up(roles: EquationKinds, operation: AffineMap, w: Var) -> Any | None:
    """As :func:`_places`, of elements that are multiplied by a weight each and added up by target."""
    (x,), y = operation.xs, operation.y
    if [eqn.primitive.name for eqn in operation.equations] != ["mul", "scatter-add"] or shape_of(w) != shape_of(x):
        return None
    product, total = operation.equations
    start, where, updates = total.invars
    numbers = total.params["dimension_numbers"]
    plain = tuple(numbers.inserted_window_dims) == (0,) and not numbers.update_window_dims
    if set(product.invars) != {x, w} or updates is not product.outvars[0] or len(shape_of(x)) != 1 or not plain:
        return None
    first, targets = (np.asarray(_read(roles.static, atom)) for atom in (start, where))
    targets, count = targets.reshape(-1), size_of(x)
    if np.any(first) or targets.size != count or np.any((targets < 0) | (targets >= size_of(y))):
        return None
    return sparse.csr_array((np.arange(1.0, count + 1), (targets, np.arange(count))), shape=(size_of(y), count))


def _places(roles: EquationKinds, operation: AffineMap, w: Var) -> Any | None:
    """Sparse rows that hold, for every place of the matrix, the number of the stored weight, from 1 on."""
    (x,) = operation.xs
    dtype = dtype_of(w)

    def matrix(values: np.ndarray) -> np.ndarray:
        given = {**roles.static, w: jnp.asarray(values, dtype).reshape(shape_of(w))}
        operands = [given[var] for var in operation.operands]
        ones = jnp.eye(size_of(x), dtype=dtype_of(x)).reshape(-1, *shape_of(x))
        return np.asarray(jax.jit(jax.vmap(lambda one: operation([one], operands).reshape(-1)))(ones)).T

    numbers = np.arange(1, size_of(w) + 1)
    random = np.random.default_rng(0).uniform(1, 2, size_of(w)).astype(dtype)
    found, tried = matrix(numbers), matrix(random)
    place = np.rint(found).astype(np.int64)
    if not np.array_equal(place, found) or place.min() < 0 or place.max() > size_of(w):
        return None
    if not np.array_equal(tried, np.where(place > 0, random[place - 1], 0)):
        return None
    return sparse.csr_array(place.astype(np.float64))


# Convolutions -----------------------------------------------------------------------------------------------------


def _conv(roles: EquationKinds, operation: AffineMap) -> AffineOperation | None:
    """A convolution of one image with channels first."""
    first, *rest = operation.equations
    (x,), y = operation.xs, operation.y
    if rest or first.primitive.name != "conv_general_dilated" or first.invars[0] is not x:
        return None
    params, w = first.params, first.invars[1]
    axes = len(shape_of(x)) - 2
    plain = tuple(range(axes + 2))
    numbers = params["dimension_numbers"]
    layouts = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    symmetric = all(a == b and a >= 0 for a, b in params["padding"])
    if axes not in (1, 2) or any(tuple(spec) != plain for spec in layouts) or not symmetric or isinstance(w, Literal):
        return None
    if shape_of(x)[0] != 1 or params["batch_group_count"] != 1 or any(d != 1 for d in params["lhs_dilation"]):
        return None
    options = {
        "stride": tuple(params["window_strides"]),
        "padding": tuple(a for a, _ in params["padding"]),
        "dilation": tuple(params["rhs_dilation"]),
        "groups": params["feature_group_count"],
    }

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Conv(arrays["weight"], **options)

    arrays = {"weight": lambda static: jnp.asarray(static[w])}
    return AffineOperation(shape_of(x)[1:], shape_of(y)[1:], arrays, make, _learned(roles, operation))


# Fixed sums -------------------------------------------------------------------------------------------------------


def _fixed(roles: EquationKinds, operation: AffineMap) -> AffineOperation | None:
    """A map along one axis that nothing is learned of, as sparse rows."""
    (x,), y = operation.xs, operation.y
    small = max(size_of(x), size_of(y)) <= LARGEST_PROBED and len(shape_of(x)) == 1 >= len(shape_of(y))
    if not small or _learned(roles, operation):
        return None
    operands = [roles.static[var] for var in operation.operands]
    ones = jnp.eye(size_of(x), dtype=dtype_of(x))
    zero = np.asarray(operation([jnp.zeros(shape_of(x), dtype_of(x))], operands)).reshape(-1)
    columns = np.asarray(jax.jit(jax.vmap(lambda one: operation([one], operands).reshape(-1)))(ones))
    linear = Linear(sparse.csr_array((columns - zero).T), zero if np.any(zero) else None)
    return AffineOperation((size_of(x),), (size_of(y),), {}, lambda arrays: linear, False)


# All others -------------------------------------------------------------------------------------------------------


def _mapped(roles: EquationKinds, operation: AffineMap) -> AffineOperation:
    """The map as it stands, as a function of what is learned in it."""
    (x,), y = operation.xs, operation.y
    learned = [var for var in operation.operands if roles.is_learned(var)]
    names = {var: f"w{k}" if k else "weight" for k, var in enumerate(learned)}

    def function(*operands: Any) -> list[Any]:
        *arrays, value = operands
        given = dict(zip(learned, arrays, strict=True))
        result = operation([value.reshape(shape_of(x))], [given.get(v, roles.static[v]) for v in operation.operands])
        return [result.reshape(target)]

    source, target = node_shape(shape_of(x)), node_shape(shape_of(y))
    avals = [*(var.aval for var in learned), jax.ShapeDtypeStruct(source, dtype_of(x))]
    traced = TracedFunction(trace(function, avals))

    def make(arrays: Mapping[str, np.ndarray]) -> Operation:
        return Mapped(traced, arrays, source, target, operation.kind.value)

    def whole(var: Var) -> Derived:
        return lambda static: jnp.asarray(static[var])

    arrays = {name: whole(var) for var, name in names.items()}
    return AffineOperation(source, target, arrays, make, bool(learned))
