"""A rule applied to a model: program, then the rule's own program, its kernel, and the plan.

Uses of parameters, traces and the schedule of a step are analyses of the rule's program, cached on it; a kernel asks
for those that it needs. With D_RTRL, a batch of 16, 100 inputs and 50 neurons, ``v' = 0.9 v + x @ w; z = v' > 1``:

    program     one step of 16 samples; hidden "v" [16, 50], parameter "w" [100, 50]
    prepared    the same: D_RTRL adds no states. (An e-prop with filtered outputs adds one for each.)
    uses        "w" meets data in one product, which reaches "v" without mixing     uses/traced_uses.py
    schedule    x @ w of all steps at once, then a loop with v' alone, then z       step/schedule.py
    traces      D = 0.9 and f = 1 at every position: a trace of 100 numbers for
                each, [16, 100, 50] in all, 320 kB                                  traces/traces.py
    kernel      takes a chunk of K steps, touches the trace once                    rules/d_rtrl.py
    plan        K = 10 MiB of cache / bytes of a step; nothing is left out          plan.py, left_out.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..program.program import ModuleInfo
from ..program.remade import Recipe
from .kernel import Kernel
from .learnable import CompileOptions, Learnable, check_callbacks, check_forward, learnable_of
from .plan import Plan, make_plan
from .rule import Rule


@dataclass(frozen=True, eq=False)
class AppliedRule:
    """A rule for a model and a batch size.

    Attributes:
        learnable: the model.
        rule: the rule.
        batch_size: samples at once; None for the model as it is.
        program: the model's program, with the batch axis if there is one.
        info: the same as the rule rewrote it.
        kernel: the rule's code for it.
        plan: the decisions.
        recipe: a function and arguments that make an equal value.
    """

    learnable: Learnable
    rule: Rule
    batch_size: int | None
    program: ModuleInfo
    info: ModuleInfo
    kernel: Kernel
    plan: Plan
    recipe: Recipe


def apply_rule(
    learnable: Learnable, rule: Rule, batch_size: int | None, program: ModuleInfo | None = None
) -> AppliedRule:
    """Applies a rule to a model, or to ``program`` in place of the model's own program.

    Raises:
        RuleError: the rule cannot be applied.
    """
    # Checked before the program is mapped over a batch: afterward, the errors would name equations of the mapped one.
    if rule.looks_ahead:
        check_forward(learnable.program, rule)
    if rule.looks_ahead or batch_size is not None:
        check_callbacks(learnable.program)
    own_program = learnable.for_batches_of(batch_size)
    # A recipe makes the model's own program again by itself; only another one has to be pickled with it.
    other_program = None if program is own_program else program
    program = own_program if other_program is None else other_program
    info = rule.prepare(program)
    kernel = rule.kernel(info)
    recipe = _recipe(learnable, rule, batch_size, other_program)
    plan = make_plan(info, kernel, rule.name, learnable.options.chunk, learnable.options.memory_limit, recipe)
    return AppliedRule(learnable, rule, batch_size, program, info, kernel, plan, recipe)


def _recipe(learnable: Learnable, rule: Rule, batch_size: int | None, program: ModuleInfo | None) -> Recipe:
    """How an equal value is made in another process, from what can be pickled."""
    return _applied_again, (learnable.model, learnable.extracted, learnable.options, rule, batch_size, program)


def _applied_again(
    model: Any,
    extracted: ModuleInfo,
    options: CompileOptions,
    rule: Rule,
    batch_size: int | None,
    program: ModuleInfo | None,
) -> AppliedRule:
    return apply_rule(learnable_of(model, extracted, options), rule, batch_size, program)
