"""``ranvier.compile``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

from ..errors import RuleError
from ..frontends.extract import extract_module_info
from ..program._jax import Equation, dtype_of, is_key, open_jaxpr, source_line
from ..program.analysis.delay_lines import with_delay_lines
from ..program.analysis.explanations import backward_only, opaque_diagnostics
from ..program.batching import batched
from ..program.kernels import check_kernels
from ..program.nested import bodies
from ..program.program import ModuleInfo
from .comparison.choose import candidates_for, choose
from .comparison.compare import compared, random_sample
from .kernel import Loss
from .learner import Learner
from .plan import MEMORY_LIMIT, make_plan
from .rule import Rule
from .rules.bptt import BPTT
from .rules.by_parameter import ByParameter, RulesByPath

AUTO = "auto"

SAMPLE_STEPS = 20
"""Steps of the random sample on which rules are measured where none is given."""

Sample = tuple[Loss, Any, Any]
"""Loss, inputs and targets over time."""


def compile(
    model: Any,
    rule: Rule | RulesByPath | str,
    *example_inputs: Any,
    batch_size: int | None = None,
    chunk: int | None = None,
    reduction: str = "sum",
    memory_limit: int | None = None,
    sample: Sample | None = None,
) -> Learner:
    """Makes a learner of a model.

    Args:
        model: a brainstate module with initialised states, or :func:`ranvier.step_function`.
        rule: the learning rule, e.g. ``ranvier.D_RTRL()``; or a dictionary that gives parameters rules of their own,
            ``{("w_in",): ranvier.EProp(), ...: ranvier.D_RTRL()}``, where ``...`` stands for all that are not named; or
            ``"auto"``, which measures rules on ``sample`` and takes, for every parameter, the one with the least error
            whose memory there is room for; ``learner.comparison`` has what was measured.
        *example_inputs: example inputs of one step; only shapes, dtypes and units count.
        batch_size: run this many samples at once; inputs, outputs and targets then have a batch axis behind the time
            axis. None for a model as it is: unbatched, or with a batch axis of its own.
        chunk: steps whose products are taken together; gradients do not depend on it. None chooses as many as
            ``memory_limit`` has room for; ``learner.plan`` says what was chosen and why.
        reduction: ``"sum"`` or ``"mean"`` of the losses of the steps.
        memory_limit: bytes that the activations of a chunk may take, and, with ``rule="auto"``, what rules keep between
            steps; 256 MiB by default.
        sample: ``(loss, xs, ys)`` for ``rule="auto"``, as :meth:`Learner.grad` takes them; random inputs where it is
            None, which say little of a network that is silent on them.

    Raises:
        ModelError, InputError: the model cannot be traced with these inputs, or a package that it runs on is missing.
        RuleError: the rule cannot be applied to the model, or an option makes no sense.
    """
    if isinstance(rule, Mapping):
        rule = ByParameter.of(rule)
    if not isinstance(rule, Rule) and rule != AUTO:
        raise RuleError(
            f"compile(model, rule, ...) needs a rule second, got {rule!r}; pass ranvier.D_RTRL(), say, or 'auto'."
        )
    if reduction not in ("sum", "mean"):
        raise RuleError(f"reduction={reduction!r} is unknown; use 'sum' or 'mean'.")
    for name, value in (("batch_size", batch_size), ("chunk", chunk), ("memory_limit", memory_limit)):
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise RuleError(f"{name}={value!r} must be a whole number of at least 1, or None.")
    info = extract_module_info(model, *example_inputs)
    if isinstance(rule, Rule):
        return _compiled(model, info, rule, None, batch_size, chunk, reduction, memory_limit)
    by_bptt = _compiled(model, info, BPTT(), None, batch_size, chunk, reduction, memory_limit)
    return _chosen(by_bptt, memory_limit or MEMORY_LIMIT, sample)


def _compiled(
    model: Any,
    extracted: ModuleInfo,
    rule: Rule,
    program: ModuleInfo | None,
    batch_size: int | None,
    chunk: int | None,
    reduction: str,
    memory_limit: int | None,
) -> Learner:
    """The learner of a program that was extracted from a model, or of ``program`` in its place."""
    one = with_delay_lines(extracted)
    check_differentiable(one)
    check_keys(one)
    check_kernels(one)
    own_programs: dict[int | None, ModuleInfo] = {None: one}

    def make(rule: Rule, batch_size: int | None, program: ModuleInfo | None) -> Learner:
        if rule.looks_ahead:
            check_forward(one, rule)
        if rule.looks_ahead or batch_size is not None:
            check_callbacks(one)
        if batch_size is not None and batch_size not in own_programs:
            own_programs[batch_size] = batched(one, batch_size)
        own = own_programs[batch_size]
        other = None if program is own else program
        origin = _compiled, (model, extracted, rule, other, batch_size, chunk, reduction, memory_limit)
        program = own if program is None else program
        info = rule.prepare(program)
        kernel = rule.kernel(info)
        plan = make_plan(info, kernel, rule.name, chunk, memory_limit, origin)
        return Learner(model, program, info, rule, kernel, plan, reduction, batch_size, make, origin)

    return make(rule, batch_size, program)


def _chosen(learner: Learner, limit: int, sample: Sample | None) -> Learner:
    """The learner with the rules that suit its parameters best."""
    loss, xs, ys = sample or random_sample(learner.program, SAMPLE_STEPS, seed=0)
    rules = candidates_for(learner.program, limit)
    comparison = compared(learner, rules, loss, xs, ys, None, with_costs=False)
    chosen = learner.with_rule(choose(learner.program, rules, comparison, limit))
    chosen.comparison = comparison
    return chosen


def check_keys(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for random keys that give other numbers when several steps draw at once."""
    variables = [*info.jaxpr.invars, *info.jaxpr.constvars, *(v for eqn in info.equations for v in eqn.outvars)]
    for var in variables:
        if is_key(dtype_of(var)) and "fry" not in str(dtype_of(var)):
            raise RuleError(
                f"{info.name} draws random numbers with keys {dtype_of(var)}, which give other numbers when "
                "several steps or samples draw at once; use jax.random.key(seed) with JAX's own threefry2x32."
            )


def check_forward(info: ModuleInfo, rule: Rule) -> None:
    """Raises :class:`RuleError` where a declared derivative on the way to a state has no forward mode."""
    if found := backward_only(info):
        raise RuleError(
            f"{rule.name} carries derivatives forward in time, which these declared ones do not allow: "
            f"{'; '.join(found)}. A backward rule must be linear in its cotangent and made of operations that JAX can "
            "transpose; or use BPTT."
        )


def check_callbacks(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for calls of the host, inside branches, loops and declared functions, that say nothing
    of several steps or samples at once."""
    for eqn in info.equations:
        for inner in _inside(eqn):
            if inner.params.get("vmap_method", "") is None:
                raise RuleError(
                    f"{info.name} calls {inner.primitive.name} at {source_line(inner)}, inside {eqn.primitive.name}, "
                    "for several steps or samples at once, and it does not say how; write "
                    "jax.pure_callback(..., vmap_method='sequential')."
                )


def _inside(eqn: Equation) -> Iterator[Equation]:
    for body in bodies(eqn):
        for inner in open_jaxpr(body)[0].eqns:
            yield inner
            yield from _inside(inner)


def check_differentiable(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` where no derivative passes through an equation on the way of learning."""
    if found := opaque_diagnostics(info):
        told = "; ".join(map(str, found))
        raise RuleError(f"{info.name} cannot learn: {told}")
