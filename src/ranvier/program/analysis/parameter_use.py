"""One projection of a program: what a parameter does where it meets the data of a step, as a function of arrays."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .._jax import Equation, Literal, Var
from ..interpret import Environment, needed_equations, read, run_equations
from ..program import ModuleInfo
from ..while_loops import bind_both_ways
from .binding_time import binding_times_of


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


@dataclass(frozen=True, eq=False)
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
        binding_times = binding_times_of(self._info)
        computed = {var for eqn in self.equations for var in eqn.outvars} | {*self.xs, *self.operands}
        atoms = {a for eqn in self.equations for a in eqn.invars if not isinstance(a, Literal)} - computed
        return {atom: binding_times.constant_value(atom) for atom in atoms}

    def transform(self, parameters: Sequence[Any]) -> list[Any]:
        """Arrays of ``operands`` from those of all parameter leaves (``info.weight_invars``).

        This is the path from stored parameters to what the projection applies: a mask, a sign, softplus,
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
        binding_times = binding_times_of(self._info)
        static = [e for e in self._info.equations if all(binding_times.is_static(var) for var in e.outvars)]
        return needed_equations([e for e in static if not e.effects], self.operands)
