"""``ranvier.compare_rules``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import RuleError
from .comparison.compare import RuleComparison, compared
from .compile import compile
from .kernel import Loss
from .rule import Rule
from .rules.bptt import BPTT


def compare_rules(
    model: Any,
    rules: Sequence[Rule],
    example_input: Any,
    loss: Loss,
    xs: Any,
    ys: Any = None,
    *,
    batch_size: int | None = None,
    chunk: int | None = None,
    reference: Rule | None = None,
    mask: Any = None,
) -> RuleComparison:
    """Measures on a sample how well learning rules suit a model.

    Args:
        model: as for :func:`ranvier.compile`.
        rules: the rules to compare.
        example_input: example input of one step; a tuple where the model takes several.
        loss: ``loss(output, target) -> scalar`` of one step.
        xs: the sample's inputs, ``[T, ...]`` (a tuple where the model takes several).
        ys: its targets.
        batch_size: as for :func:`ranvier.compile`.
        chunk: likewise.
        reference: the rule whose gradients count as exact; ``BPTT()`` by default.
        mask: weight of the loss at every step, ``[T]``.

    Returns:
        Per rule and parameter the relative error and the cosine of its gradient; memory, time, and the path left out
        that costs most. A rule that the model cannot learn by has the reason.

    Raises:
        RuleError: there is no rule among ``rules``.
    """
    wrong = [repr(rule) for rule in rules if not isinstance(rule, Rule)]
    if wrong or not rules:
        raise RuleError(
            f"compare_rules(model, rules, ...) takes a list of rules, but got {', '.join(wrong) or 'none'}; write, "
            "for example, [ranvier.D_RTRL(), ranvier.EProp()]."
        )
    examples = example_input if isinstance(example_input, tuple) else (example_input,)
    learner = compile(model, BPTT(), *examples, batch_size=batch_size, chunk=chunk)
    return compared(learner, rules, loss, xs, ys, reference, mask=mask)
