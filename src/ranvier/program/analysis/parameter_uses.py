"""Projections of a program: where parameters meet data, and how far the operation extends."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .._jax import Atom, Equation, Literal, Var, open_jaxpr, shape_of, size_of
from ..bodies import bodies, has_own_derivative, is_loop
from ..interpret import Environment, needed_equations, read, run_equations
from ..nested import classify_derivative
from ..nested import mixes as derivative_mixes
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from ..while_loops import bind_both_ways
from .binding_time import BindingTime, BindingTimes, binding_times_of
from .reachability import Feeds, feeds_of


class UseKind(enum.Enum):
    """What kind of projection a parameter takes part in."""

    AFFINE = "affine"
    """A matrix product, with or without bias; also einsum, grouped and low-rank products."""
    CONV = "conv"
    """A convolution."""
    SPARSE = "sparse"
    """A product with a sparse matrix whose non-zeros are the parameter."""
    EMBEDDING = "embedding"
    """Rows of the parameter picked by data."""
    ELEMENTWISE = "elementwise"
    """The parameter enters position by position: a time constant, a threshold, a bias."""
    BRANCH = "branch"
    """The parameter mixes inside a cond."""
    LOOP = "loop"
    """The parameter mixes inside a loop that is not unrolled."""
    OTHER = "other"
    """Another mixing operation."""


_BY_OPERATION = {
    "affine": UseKind.AFFINE,
    "conv": UseKind.CONV,
    "sparse": UseKind.SPARSE,
    "embedding": UseKind.EMBEDDING,
    "slice": UseKind.EMBEDDING,
}


@dataclass(eq=False)
class ParameterUse:
    """One projection: ``y = op(xs, operands)``.

    Attributes:
        kind: what it is.
        y: variable of its result; for an elementwise parameter the operand itself.
        xs: variables of its data operands; empty for an elementwise parameter.
        operands: static variables (made of parameters and constants) it applies to the data.
        equations: from ``xs`` and ``operands`` to ``y``, in order; empty for an elementwise parameter.
        slots: indices of the parameters that ``operands`` are made of.
        pairs: number of (element of y, weight element) pairs with a non-zero derivative, biases included.
        reason: why it has this kind.
    """

    kind: UseKind
    y: Var
    xs: tuple[Var, ...]
    operands: tuple[Var, ...]
    equations: tuple[Equation, ...]
    slots: frozenset[int]
    pairs: int
    reason: str
    _info: ModuleInfo = field(repr=False)

    def __call__(self, xs: Sequence[Any], operands: Sequence[Any]) -> Any:
        """The result ``y`` from arrays for ``self.xs`` and ``self.operands``."""
        environment: Environment = dict(self._fixed)
        environment.update(zip(self.xs, xs, strict=True))
        environment.update(zip(self.operands, operands, strict=True))
        run_equations(self.equations, environment, bind_both_ways)
        return environment[self.y]

    @cached_property
    def _fixed(self) -> Mapping[Var, Any]:
        """Values of the constants that the equations read."""
        levels = binding_times_of(self._info)
        computed = {var for eqn in self.equations for var in eqn.outvars} | {*self.xs, *self.operands}
        atoms = {a for eqn in self.equations for a in eqn.invars if not isinstance(a, Literal)} - computed
        return {atom: levels.constant_value(atom) for atom in atoms}

    def transform(self, parameters: Sequence[Any]) -> list[Any]:
        """Arrays of ``operands`` from those of all parameter leaves (``info.weight_invars``).

        This is the way from stored parameters to what the projection applies: a mask, a sign, softplus,
        ``A @ B``. States that the step never changes enter with their initial values.
        """
        environment: Environment = dict(zip(self._info.jaxpr.constvars, self._info.consts, strict=True))
        initial = [leaf for slot in self._info.other for leaf in slot.initial]
        environment.update(zip(self._info.other_invars, initial, strict=True))
        environment.update(zip(self._info.weight_invars, parameters, strict=True))
        run_equations(self.transform_equations, environment, bind_both_ways)
        return [read(environment, var) for var in self.operands]

    @cached_property
    def transform_equations(self) -> list[Equation]:
        levels = binding_times_of(self._info)
        static = [e for e in self._info.equations if all(levels.is_static(var) for var in e.outvars)]
        return needed_equations([e for e in static if not e.effects], self.operands)


def parameter_uses_of(info: ModuleInfo) -> list[ParameterUse]:
    """All operations whose operand is made of parameters, in program order."""
    return _Finder(info).find()


@dataclass(eq=False)
class _Finder:
    info: ModuleInfo

    def __post_init__(self) -> None:
        self.levels: BindingTimes = binding_times_of(self.info)
        self.users: dict[int, ParameterUse] = {}
        self.feeds: Feeds = feeds_of(self.info)
        self.slot_of_bit = self._slot_bits()
        self.results = {a for a in self.info.jaxpr.outvars if not isinstance(a, Literal)}
        self.nodes: dict[ParameterUse, None] = {}

    def find(self) -> list[ParameterUse]:
        entering: dict[Var, None] = {}
        for eqn in self.info.equations:
            static = self._parameter_operands(eqn)
            if not static or all(self.levels.is_static(atom) for atom in eqn.invars):
                continue
            if classify_derivative(eqn) is Kind.OPAQUE:
                continue
            mixed = [k for k in static if mixes(eqn, k)]
            entering.update(dict.fromkeys(eqn.invars[k] for k in static if k not in mixed))
            if mixed:
                self._add_mixing(eqn, [eqn.invars[k] for k in mixed])
        for var in self.info.hidden_outvars:
            if self.levels.of(var) is BindingTime.STATIC and self._slots_of(var):
                entering[var] = None
        self._grow()
        self._add_elementwise(entering)
        return list(self.nodes)

    def _slot_bits(self) -> dict[int, int]:
        found = {}
        for index, slot in enumerate(self.info.parameters):
            for var in self.info.weight_path_to_invars[slot.path]:
                found[self.levels.bits[var]] = index
        return found

    def _slots_of(self, atom: Atom) -> frozenset[int]:
        sources = self.levels.learned_of(atom) & self._parameter_mask
        found = set()
        while sources:
            lowest = sources & -sources
            found.add(self.slot_of_bit[lowest])
            sources ^= lowest
        return frozenset(found)

    def _parameter_operands(self, eqn: Equation) -> list[int]:
        return [
            k
            for k, atom in enumerate(eqn.invars)
            if self.levels.of(atom) is BindingTime.STATIC and self._has_parameters(atom)
        ]

    def _has_parameters(self, atom: Atom) -> bool:
        return bool(self.levels.learned_of(atom) & self._parameter_mask)

    @cached_property
    def _parameter_mask(self) -> int:
        mask = 0
        for bit in self.slot_of_bit:
            mask |= bit
        return mask

    def _add_mixing(self, eqn: Equation, operands: list[Var]) -> None:
        dynamic = [a for a in eqn.invars if not isinstance(a, Literal) and not self.levels.is_static(a)]
        slots = frozenset().union(*(self._slots_of(var) for var in operands))
        static = [a for a in eqn.invars if self.levels.of(a) is BindingTime.STATIC and not isinstance(a, Literal)]
        kind, reason = _kind_of(eqn)
        for y in eqn.outvars:
            pairs = _count_pairs(kind, eqn, y, operands)
            xs = tuple(dict.fromkeys(dynamic))
            self._add(ParameterUse(kind, y, xs, tuple(dict.fromkeys(static)), (eqn,), slots, pairs, reason, self.info))

    def _add(self, node: ParameterUse) -> None:
        self.nodes[node] = None
        self.users.update((id(eqn), node) for eqn in node.equations)

    def _grow(self) -> None:
        """Joins products and biases of one parameter, and products in a row, into one operation each."""
        owner: dict[Var, ParameterUse] = {}
        pending = list(self.nodes)
        while pending:
            node = pending.pop()
            if node not in self.nodes:
                continue
            chain: list[Equation] = []
            y = node.y
            owner[y] = node
            while (eqn := self._only_consumer(y)) is not None:
                joined = self._join(node, y, eqn, chain, owner)
                if joined is not None:
                    pending.append(joined)
                    break
                if not self._passes_through(eqn, y):
                    break
                chain.append(eqn)
                y = eqn.outvars[0]
                owner[y] = node
        self.nodes = dict.fromkeys(sorted(self.nodes, key=lambda node: self._number(node.equations[-1])))

    def _number(self, eqn: Equation) -> int:
        return self._numbers[id(eqn)]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {id(eqn): number for number, eqn in enumerate(self.info.equations)}

    def _only_consumer(self, var: Var) -> Equation | None:
        consumers = self.feeds.consumers.get(var, [])
        if var in self.results or len(consumers) != 1:
            return None
        eqn = self.info.equations[consumers[0]]
        return eqn if len(eqn.outvars) == 1 else None

    def _passes_through(self, eqn: Equation, y: Var) -> bool:
        """Whether the equation is linear in y alone, with constants: a reshape, a unit conversion."""
        rest = [a for a in eqn.invars if a is not y]
        constant = all(self.levels.of(a) is BindingTime.CONSTANT for a in rest)
        scaled = eqn.primitive.name in ("mul", "div") and eqn.invars[0] is y
        return constant and (rule_of(eqn.primitive).linear or scaled) and classify_derivative(eqn) is not Kind.MIXING

    def _join(
        self, node: ParameterUse, y: Var, eqn: Equation, chain: list[Equation], owner: dict[Var, ParameterUse]
    ) -> ParameterUse | None:
        rest = [a for a in eqn.invars if a is not y and not isinstance(a, Literal)]
        if eqn.primitive.name in ("add", "add_any", "sub") and len(rest) == 1:
            other = rest[0]
            if self.levels.of(other) is BindingTime.STATIC and self._slots_of(other) == node.slots:
                return self._replace([node], [*chain, eqn], eqn.outvars[0], (other,), size_of(eqn.outvars[0]))
            second = owner.get(other)
            if second is not None and second in self.nodes and self._are_parts_of_one(node, second):
                between = self._equations_between(second.y, other)
                return self._replace([node, second], [*chain, *between, eqn], eqn.outvars[0], (), 0)
        return self._join_product(node, eqn, chain)

    def _are_parts_of_one(self, first: ParameterUse, second: ParameterUse) -> bool:
        """Whether two products come from different leaves of one parameter; one weight used twice stays two."""
        if first is second or first.slots != second.slots:
            return False
        return not self._leaves_of(first) & self._leaves_of(second)

    def _leaves_of(self, node: ParameterUse) -> int:
        mask = 0
        for var in node.operands:
            mask |= self.levels.learned_of(var)
        return mask & self._parameter_mask

    def _join_product(self, node: ParameterUse, eqn: Equation, chain: list[Equation]) -> ParameterUse | None:
        """``(x @ A) @ B``: a product with a low-rank matrix."""
        following = self.users.get(id(eqn))
        affine = node.kind is UseKind.AFFINE and eqn.primitive.name == "dot_general"
        if following is None or following is node or not affine:
            return None
        if len(node.equations) != 1 or len(following.equations) != 1:
            return None
        joined = self._replace([node, following], [*chain, eqn], following.y, (), 0)
        inputs = node.pairs // max(size_of(node.y), 1)
        joined.pairs = inputs * size_of(joined.y)
        joined.xs = node.xs
        joined.reason = "products in a row with static operands alone are one product with a low-rank matrix"
        return joined

    def _equations_between(self, start: Var, end: Var) -> list[Equation]:
        found = []
        while end is not start:
            eqn = self.levels.producers[end]
            found.append(eqn)
            end = next(a for a in eqn.invars if not isinstance(a, Literal) and not self.levels.is_static(a))
        return found[::-1]

    def _replace(
        self, nodes: list[ParameterUse], more: Iterable[Equation], y: Var, operands: tuple[Var, ...], pairs: int
    ) -> ParameterUse:
        equations = dict.fromkeys((id(e), e) for node in nodes for e in node.equations) | dict.fromkeys(
            (id(e), e) for e in more
        )
        ordered = sorted((e for _, e in equations), key=self._number)
        first = nodes[0]
        joined = ParameterUse(
            kind=first.kind,
            y=y,
            xs=tuple(dict.fromkeys(x for node in nodes for x in node.xs)),
            operands=tuple(dict.fromkeys([*(w for node in nodes for w in node.operands), *operands])),
            equations=tuple(ordered),
            slots=frozenset().union(*(node.slots for node in nodes)),
            pairs=sum(node.pairs for node in nodes) + pairs,
            reason=first.reason,
            _info=self.info,
        )
        for node in nodes:
            del self.nodes[node]
        self._add(joined)
        return joined

    def _add_elementwise(self, entering: Iterable[Var]) -> None:
        taken = {var for node in self.nodes for eqn in node.equations for var in eqn.invars if _is_var(var)}
        for var in entering:
            covered = var in taken and not self._used_outside(var)
            if covered:
                continue
            product = self._summed_product(var)
            if product is not None:
                self._add(product)
                continue
            self._add(
                ParameterUse(
                    UseKind.ELEMENTWISE,
                    var,
                    (),
                    (var,),
                    (),
                    self._slots_of(var),
                    size_of(var),
                    "enters position by position, without mixing",
                    self.info,
                )
            )

    def _used_outside(self, var: Var) -> bool:
        """Whether an equation that belongs to no operation reads the variable."""
        return any(id(self.info.equations[k]) not in self.users for k in self.feeds.consumers.get(var, ()))

    def _summed_product(self, w: Var) -> ParameterUse | None:
        """A matrix product written as an elementwise product and a sum: ``(w * x).sum(axis)``, or into constant places
        as ``jnp.zeros(n).at[post].add(w * x[pre])`` and ``jax.ops.segment_sum`` have it."""
        eqn = self._only_consumer(w)
        if eqn is None or eqn.primitive.name != "mul":
            return None
        xs = [a for a in eqn.invars if a is not w and not isinstance(a, Literal)]
        equations, y = [eqn], eqn.outvars[0]
        while (following := self._only_consumer(y)) is not None:
            kind = self._sums(following, y)
            if kind is None and not self._passes_through(following, y):
                break
            equations.append(following)
            y = following.outvars[0]
            if kind is not None:
                size, slots = size_of(eqn.outvars[0]), self._slots_of(w)
                reason = "an elementwise product that is summed is a matrix product"
                return ParameterUse(kind, y, tuple(xs), (w,), tuple(equations), slots, size, reason, self.info)
        return None

    def _sums(self, eqn: Equation, y: Var) -> UseKind | None:
        """The kind of matrix product that an equation makes of elementwise products."""
        if eqn.primitive.name == "reduce_sum":
            return UseKind.AFFINE
        constant = all(self.levels.of(a) is BindingTime.CONSTANT for a in eqn.invars if a is not y)
        if eqn.primitive.name == "scatter-add" and eqn.invars[2] is y and constant:
            return UseKind.SPARSE
        return None


def _is_var(atom: Atom) -> bool:
    return not isinstance(atom, Literal)


def mixes(eqn: Equation, operand: int) -> bool:
    """Whether the operand takes part in mixing, in this equation or in its body."""
    rule = rule_of(eqn.primitive)
    if rule.kind is Kind.NESTED and has_own_derivative(eqn):
        return derivative_mixes(eqn, operand)
    if rule.kind is Kind.NESTED:
        return any(_body_mixes(eqn, body, operand) for body in bodies(eqn))
    if rule.index_operands is not None and operand == 0 and rule.operation is not None:
        return True  # rows or elements picked by data
    return rule.kind is Kind.MIXING


def _body_mixes(eqn: Equation, body: Any, operand: int) -> bool:
    jaxpr, _ = open_jaxpr(body)
    number = operand - 1 if eqn.primitive.name == "cond" else operand
    if number < 0 or number >= len(jaxpr.invars):
        return False
    tainted = {jaxpr.invars[number]}
    for inner in jaxpr.eqns:
        hit = [k for k, a in enumerate(inner.invars) if not isinstance(a, Literal) and a in tainted]
        if any(mixes(inner, k) or rule_of(inner.primitive).kind is Kind.OPAQUE for k in hit):
            return True
        if hit:
            tainted.update(inner.outvars)
    return False


def _kind_of(eqn: Equation) -> tuple[UseKind, str]:
    name = eqn.primitive.name
    if name == "cond":
        return UseKind.BRANCH, "mixes inside a cond, which is differentiated as a whole, branch by branch"
    if is_loop(eqn):
        return UseKind.LOOP, "mixes inside a loop that is not unrolled, which is differentiated as a whole"
    operation = rule_of(eqn.primitive).operation
    kind = _BY_OPERATION.get(operation or "", UseKind.OTHER)
    return kind, f"is an operand of {name}"


def _count_pairs(kind: UseKind, eqn: Equation, y: Var, operands: Sequence[Var]) -> int:
    """(element of y, weight element) pairs; an upper bound where the operation is not known in detail."""
    size = size_of(y)
    weights = sum(size_of(var) for var in operands)
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return size * int(np.prod([shape_of(eqn.invars[0])[d] for d in contracted], dtype=np.int64))
    if kind is UseKind.CONV:
        features = eqn.params["dimension_numbers"].rhs_spec[0]
        return size * (weights // max(shape_of(eqn.invars[1])[features], 1))
    if kind is UseKind.SPARSE:
        return weights * max(1, size // max(shape_of(y)[0], 1)) if len(shape_of(y)) > 1 else weights
    if kind is UseKind.EMBEDDING:
        picked = int(np.prod(eqn.params.get("slice_sizes", (1,)), dtype=np.int64))
        return size * max(1, weights // max(picked, 1))
    return size * weights
