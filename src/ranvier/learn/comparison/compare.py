"""How well learning rules suit a model: each parameter's gradient against the exact one, memory and time.

For example, a gradient of (3, 4) beside an exact one of (3, 0): the error is 4 / 3, the cosine 9 / (5 * 3) = 0.6.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import RuleError
from ...program.analysis.memory import size_text
from ...program.paths import Path, path_text
from ...program.program import ModuleInfo
from ...util.counting import counted
from ...util.table import table
from ..kernel import Loss
from ..left_out import LeftOut
from ..plan import Plan
from ..rule import Rule
from ..rules.bptt import BPTT
from ..state import Aux, Gradients
from .path_cost import without_path

REPEATS = 3
"""Calls whose median is the time of a rule."""

MOST_PATHS = 6
"""Paths left out whose cost is measured, at most."""


@dataclass(frozen=True)
class Agreement:
    """How closely a gradient agrees with the exact one.

    Attributes:
        error: ``|g - exact| / |exact|``, Euclidean norms over all elements; where the exact gradient is zero, 0 if the
            other is too, else infinite.
        cosine: of the angle between both; NaN where one of them is zero.
    """

    error: float
    cosine: float

    @classmethod
    def of(cls, gradient: Any, exact: Any) -> Agreement:
        """The agreement of two pytrees with the same structure."""
        a, b = (np.concatenate([_flat(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (gradient, exact))
        length, apart = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
        product = float(np.linalg.norm(a)) * length
        error = apart / length if length else (0.0 if not apart else float("inf"))
        return cls(error, float(np.real(np.vdot(a, b))) / product if product else float("nan"))


def _flat(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    # The squares of millions of float32 numbers lose the digits by which good rules differ.
    wide = np.complex128 if np.iscomplexobj(array) else np.float64
    return array.astype(wide).reshape(-1)


@dataclass(frozen=True)
class RuleResult:
    """One rule on a sample.

    Attributes:
        rule: its name.
        parameters: parameter path to how its gradient agrees with the exact one; empty where the rule was refused.
        memory_bytes: what it keeps between steps.
        seconds: median time of one call, compiled.
        costs: the paths that it leaves out with what each is worth: the part of the exact gradient (of all parameters
            together) that is gone without it; largest first, where that could be measured.
        refused: why the rule cannot be applied to the model; empty where it can.
    """

    rule: str
    parameters: Mapping[Path, Agreement]
    memory_bytes: int
    seconds: float
    costs: tuple[tuple[LeftOut, float], ...] = ()
    refused: str = ""

    @property
    def worst_path(self) -> str:
        """The costliest path left out, as text."""
        if not self.costs:
            return ""
        path, cost = self.costs[0]
        return f"{cost:.1%} {path}"


@dataclass(frozen=True)
class RuleComparison:
    """Rules compared on one sample; print it to read it.

    Attributes:
        reference: name of the rule whose gradients count as exact.
        steps: steps of the sample.
        results: one for every rule.
    """

    reference: str
    steps: int
    results: tuple[RuleResult, ...]

    def __getitem__(self, rule: str) -> RuleResult:
        return next(result for result in self.results if result.rule == rule)

    def __str__(self) -> str:
        rows = []
        for result in self.results:
            if result.refused:
                rows.append((result.rule, f"refused: {result.refused}", "", "", "", ""))
            for number, (path, agreement) in enumerate(result.parameters.items()):
                first = (result.rule, size_text(result.memory_bytes), f"{1000 * result.seconds:.3g} ms")
                name, size, seconds = first if number == 0 else ("", "", "")
                rows.append((name, path_text(path), f"{agreement.error:.2g}", f"{agreement.cosine:.4f}", size, seconds))
        header = ("rule", "parameter", "error", "cosine", "memory", "time per call")
        lines = [f"gradients of {counted(self.steps, 'step')} compared with {self.reference}", *table(header, rows)]
        if worst := [(r.rule, r.worst_path) for r in self.results if r.worst_path]:
            lines += ["", "The costliest path left out, as a share of the exact gradient"]
            lines += table(("rule", "path"), worst)[1:]
        return "\n".join(lines)

    __repr__ = __str__


class Comparable(Protocol):
    """The part of a learner that a comparison uses."""

    rule: Rule
    info: ModuleInfo
    program: ModuleInfo
    plan: Plan

    def with_rule(self, rule: Rule, program: ModuleInfo | None = None) -> Comparable: ...

    def grad(
        self,
        loss: Loss,
        xs: Any,
        ys: Any = None,
        *,
        params: Mapping[Path, Any] | None = None,
        mask: Any = None,
        keep_state: bool = True,
    ) -> tuple[Gradients, Aux]: ...


def compared(
    learner: Comparable,
    rules: Sequence[Rule],
    loss: Loss,
    xs: Any,
    ys: Any,
    reference: Rule | None,
    *,
    with_costs: bool = True,
    **options: Any,
) -> RuleComparison:
    """Runs rules on one sample.

    Args:
        learner: the model with any rule.
        rules: the rules to compare.
        loss: ``loss(output, target) -> scalar``.
        xs: inputs over time.
        ys: targets over time.
        reference: the rule whose gradients count as exact; BPTT where it is None.
        with_costs: whether to measure what the paths left out are worth, at one more compilation for each.
        **options: for ``grad``: parameters and mask.
    """
    exact_by = learner.with_rule(reference or BPTT())
    exact, aux = exact_by.grad(loss, xs, ys, keep_state=False, **options)
    results = []
    for rule, label in zip(rules, _labels(rules), strict=True):
        try:
            # The learner's own rule is compiled already.
            measured = learner if rule == learner.rule else learner.with_rule(rule)
            gradient, seconds = _timed(measured, loss, xs, ys, options)
        except RuleError as error:
            # A rule that the model cannot learn by is a row with its reason; the others are still compared.
            results.append(RuleResult(label, {}, 0, float("nan"), refused=str(error)))
            continue
        agreement = {path: Agreement.of(gradient[path], exact[path]) for path in exact}
        costs = ()
        if with_costs:
            costs = _costs(measured, exact, lambda program: _bptt(learner, program, loss, xs, ys, options))
        results.append(RuleResult(label, agreement, measured.plan.memory_bytes, seconds, costs))
    return RuleComparison(exact_by.rule.name, int(aux.losses.shape[0]), tuple(results))


def _labels(rules: Sequence[Rule]) -> list[str]:
    """The names of the rules, with their options where two rules share a name."""
    names = [rule.name for rule in rules]
    return [name if names.count(name) == 1 else repr(rule) for name, rule in zip(names, rules, strict=True)]


def _timed(learner: Comparable, loss: Loss, xs: Any, ys: Any, options: Mapping[str, Any]) -> tuple[Gradients, float]:
    """The gradient, and the median time of a call without compiling."""
    # The first call compiles and is not timed. JAX returns before it has computed, so every call is waited for.
    gradient, _ = jax.block_until_ready(learner.grad(loss, xs, ys, **options))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(learner.grad(loss, xs, ys, **options))
        times.append(time.perf_counter() - start)
    return gradient, float(np.median(times))


def _bptt(
    learner: Comparable, program: ModuleInfo, loss: Loss, xs: Any, ys: Any, options: Mapping[str, Any]
) -> Gradients:
    return learner.with_rule(BPTT(), program).grad(loss, xs, ys, keep_state=False, **options)[0]


def _costs(learner: Comparable, exact: Gradients, gradient_of: Any) -> tuple[tuple[LeftOut, float], ...]:
    """The paths left out, sorted by what each costs.

    A rule that rewrites the program names paths of its own program, which are not those of the model's.
    """
    # An equation of the rewritten program is not in the model's own, where its path would have to be cut.
    if learner.info is not learner.program:
        return ()
    paths = [path for path in learner.plan.left_out if path.cut][:MOST_PATHS]
    costs = [(path, Agreement.of(gradient_of(without_path(learner.program, path.cut)), exact).error) for path in paths]
    return tuple(sorted(costs, key=lambda pair: -pair[1]))


def random_sample(program: ModuleInfo, steps: int, seed: int) -> tuple[Loss, Any, jax.Array]:
    """A sample to use if the caller passes none: a loss that depends on every output, random inputs, and targets.

    Inputs are uniform between 0 and 1, or 0 and 1 where they are whole numbers.
    """
    rng = np.random.default_rng(seed)

    def inputs(aval: Any) -> jax.Array:
        # From 0 up: inputs around zero would leave most spiking networks silent, and all rules equal.
        values = rng.uniform(0.0, 1.0, (steps, *aval.shape))
        is_float = jnp.issubdtype(aval.dtype, jnp.floating)
        return jnp.asarray(values if is_float else values > 0.5, aval.dtype)

    arguments = jax.tree.unflatten(program.input_treedef, [inputs(aval) for aval in program.input_avals])
    return _loss_of_all, arguments[0] if len(arguments) == 1 else arguments, jnp.linspace(0.0, 3.0, steps)


def _loss_of_all(output: Any, phase: jax.Array) -> jax.Array:
    """Depends on every element of every output, on each in a different way."""
    leaves = [leaf for leaf in map(jnp.asarray, jax.tree.leaves(output)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum((jnp.sin(x + phase + jnp.arange(x.size).reshape(x.shape)).sum() for x in leaves), jnp.zeros(()))
