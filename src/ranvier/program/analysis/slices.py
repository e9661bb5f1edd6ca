"""Parts of a program between some variables and new hidden states, as functions that can be differentiated.

In ``y = x @ w; a' = 0.8 a + y; v' = 0.9 v + a'`` the slice from y to (a', v') has the equations of the two sums. Its
residuals are ``0.8 a`` and ``0.9 v``, values of the same step that do not come from y. The derivatives of both by y
are 1. Where an equation in between mixes positions, derivatives end there, as they do in f and D.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ...errors import AnalysisError
from .._jax import Equation, Literal, Var, bind, is_floating
from ..bodies import bodies, called_body, is_call, is_loop
from ..interpret import Environment, apply_with_bodies, evaluate, read, run_equations
from ..nested import classify_derivative, mixes
from ..primitives import Kind, rule_of
from ..program import ModuleInfo
from ..turn_axes import turn_mixing_in
from .reachability import Feeds


@dataclass(frozen=True, eq=False)
class Slice:
    """The equations on elementwise and structural paths from ``sources`` to ``targets``.

    Attributes:
        equations: in order.
        sources: variables the slice is a function of.
        residuals: all other variables it reads; values of the same step.
        targets: new hidden states it computes.
    """

    equations: tuple[Equation, ...]
    sources: tuple[Var, ...]
    residuals: tuple[Var, ...]
    targets: tuple[Var, ...]
    _constants: Mapping[Var, Any]
    _feeds: Feeds

    def __call__(self, sources: Sequence[Any], residuals: Sequence[Any]) -> list[Any]:
        """Values of the targets; derivatives pass along elementwise and structural paths only.

        Args:
            sources: arrays for ``self.sources``.
            residuals: arrays for ``self.residuals``, e.g. from :meth:`residuals_from`.
        """
        environment: Environment = dict(self._constants)
        environment.update(zip(self.residuals, residuals, strict=True))
        environment.update(zip(self.sources, sources, strict=True))
        run_equations(self.equations, environment, self._apply)
        return [read(environment, var) for var in self.targets]

    def residuals_from(self, values: Mapping[Var, Any]) -> list[Any]:
        """Picks the residuals out of the values of a step (:meth:`ModuleInfo.values`)."""
        return _picked(values, self.residuals)

    def sources_from(self, values: Mapping[Var, Any]) -> list[Any]:
        """Picks the sources out of the values of a step."""
        return _picked(values, self.sources)

    def _apply(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        passing = [self._feeds.passes(eqn, k) for k in range(len(operands))]
        cut = [x if passes else _without_derivative(x) for x, passes in zip(operands, passing, strict=True)]
        # A sum over the elements of one position mixes, but belongs to D: derivatives pass through it as a whole.
        sums_within = any(passing) and rule_of(eqn.primitive).kind is Kind.MIXING
        return bind(eqn, cut) if sums_within else _Unmixed()(eqn, cut)


def _picked(values: Mapping[Var, Any], variables: Sequence[Var]) -> list[Any]:
    missing = [var for var in variables if var not in values]
    if missing:
        raise AnalysisError(
            f"{len(missing)} of {len(variables)} variables of the step are missing from the values; pass the result "
            "of info.values(*inputs) for the same program."
        )
    return [values[var] for var in variables]


@dataclass(frozen=True)
class _Unmixed:
    """Applies equations so that forward-mode derivatives pass, but not through mixing in their bodies.

    Attributes:
        turns: operands that may be mixed all the same, since only the turns of a loop meet there.
    """

    turns: frozenset[tuple[int, int]] = frozenset()

    def __call__(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        if eqn.primitive.name == "cond" or is_loop(eqn):
            inside = _Unmixed(frozenset().union(*map(turn_mixing_in, bodies(eqn))))
            return apply_with_bodies(eqn, operands, inside)
        if is_call(eqn):
            return evaluate(called_body(eqn), operands, _Unmixed())
        opaque = classify_derivative(eqn) is Kind.OPAQUE
        cut = [opaque or (mixes(eqn, k) and (id(eqn), k) not in self.turns) for k in range(len(operands))]
        return bind(eqn, [_without_derivative(x) if is_cut else x for x, is_cut in zip(operands, cut, strict=True)])


def _without_derivative(value: Any) -> Any:
    floating = hasattr(value, "dtype") and is_floating(value.dtype)
    return jax.lax.stop_gradient(value) if floating else value


def slice_between(info: ModuleInfo, feeds: Feeds, sources: Sequence[Var], states: Sequence[int]) -> Slice:
    """The slice from variables to the new values of these hidden states (by index), along some feeds."""
    numbers = _equations_between(info, feeds, sources, frozenset(states))
    equations = tuple(info.equations[number] for number in numbers)
    targets = tuple(info.hidden_outvars[j] for j in states)
    computed = {var for eqn in equations for var in eqn.outvars} | set(sources)
    read_vars = [a for eqn in equations for a in eqn.invars if not isinstance(a, Literal)]
    constants = dict(zip(info.jaxpr.constvars, info.consts, strict=True))
    residuals = dict.fromkeys(v for v in (*read_vars, *targets) if v not in computed and v not in constants)
    return Slice(equations, tuple(sources), tuple(residuals), targets, constants, feeds)


def _equations_between(info: ModuleInfo, feeds: Feeds, sources: Sequence[Var], states: frozenset[int]) -> list[int]:
    """Numbers of the equations on the path, walked forward from the sources."""
    numbers: set[int] = set()
    queue = list(sources)
    seen = set(queue)
    while queue:
        var = queue.pop()
        for number in feeds.consumers.get(var, ()):
            eqn = info.equations[number]
            dependences = feeds.of_equation.get(id(eqn))
            if dependences is None:
                continue
            operands = {k for k, atom in enumerate(eqn.invars) if atom is var}
            for out, d in zip(eqn.outvars, dependences, strict=True):
                # Both ends count: the equation takes the variable on, and its result goes on to one of the states.
                if feeds.reaches(out, states) and any(k in operands for k, _ in d):
                    numbers.add(number)
                    if out not in seen:
                        seen.add(out)
                        queue.append(out)
    return sorted(numbers)
