"""``ranvier.compile``: checks the arguments, traces the model, makes sure that it can learn, and applies the rule.

What the last step is made of, with one example in numbers, stands in ``assemble.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import RuleError
from ..frontends.extract import extract_module_info
from .assemble import apply_rule
from .comparison.choose import candidates_for, choose
from .comparison.compare import compared, random_sample
from .kernel import Loss
from .learnable import CompileOptions, Learnable, check_count, learnable_of
from .learner import Learner
from .plan import MEMORY_LIMIT
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
    """Compiles a model into a learner.

    Args:
        model: a brainstate module with initialized states, or :func:`ranvier.step_function`.
        rule: the learning rule, e.g. ``ranvier.D_RTRL()``; or a dictionary that gives parameters rules of their own,
            ``{("w_in",): ranvier.EProp(), ...: ranvier.D_RTRL()}``, where ``...`` stands for all that are not named; or
            ``"auto"``, which measures rules on ``sample`` and takes, for every parameter, the one with the least error
            that fits in ``memory_limit``; ``learner.comparison`` has what was measured.
        *example_inputs: example inputs of one step; only shapes, dtypes and units count.
        batch_size: run this many samples at once; inputs, outputs and targets then have a batch axis after the time
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
    wanted = checked_rule(rule)
    _check_sample(sample, wanted)
    check_count("batch_size", batch_size)
    options = CompileOptions(chunk, reduction, memory_limit).checked()
    extracted = extract_module_info(model, *example_inputs)
    learnable = learnable_of(model, extracted, options)
    if wanted is None:
        return best_learner(learnable, batch_size, sample)
    return Learner(apply_rule(learnable, wanted, batch_size))


def checked_rule(rule: Any) -> Rule | None:
    """The rule; a dictionary becomes :class:`ByParameter`, and None stands for ``"auto"``.

    Raises:
        RuleError: it is none of these.
    """
    if isinstance(rule, Mapping):
        return ByParameter.of(rule)
    if not isinstance(rule, Rule) and rule != AUTO:
        raise RuleError(
            f"compile(model, rule, ...) needs a rule as its second argument, but got {rule!r}; pass a rule such as "
            "ranvier.D_RTRL(), or 'auto'."
        )
    return rule if isinstance(rule, Rule) else None


def _check_sample(sample: Any, rule: Rule | None) -> None:
    """Raises :class:`RuleError` for a sample that does not have three parts, or that no rule is measured on."""
    if sample is None:
        return
    if rule is not None:
        raise RuleError(f"sample= is only for rule='auto', which measures rules on it; leave it out with {rule.name}.")
    if not isinstance(sample, tuple) or len(sample) != 3:
        raise RuleError(f"sample={sample!r:.60} is not a tuple (loss, xs, ys); pass the arguments of Learner.grad.")


def best_learner(learnable: Learnable, batch_size: int | None, sample: Sample | None) -> Learner:
    """The learner with the rules that suit its parameters best."""
    limit = learnable.options.memory_limit or MEMORY_LIMIT
    # The candidates are measured on this learner's program, so that they share its analyses.
    exact = Learner(apply_rule(learnable, BPTT(), batch_size))
    loss, xs, ys = sample or random_sample(exact.program, SAMPLE_STEPS, seed=0)
    rules = candidates_for(exact.program, limit)
    comparison = compared(exact, rules, loss, xs, ys, None, with_costs=False)
    chosen = choose(exact.program, rules, comparison, limit)
    return Learner(apply_rule(learnable, chosen, batch_size), comparison)
