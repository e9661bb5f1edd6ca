"""Options found by search: the strongest value of a pass that a budget allows.

For example, the sparsity of ``prune``, from 0 to 0.999, where up to 0.7 of the weights can go within the budget:

    sweep        0.999, 0.874, 0.749 cost too much, 0.624 holds; weaker values need not be tried
    refinement   halves what lies between the strongest value that holds and the next stronger one:
                 0.687 holds, 0.718 costs too much, 0.702 costs too much, 0.695 holds

A stronger value may cost less than a weaker one by chance, so bisection from the start could end anywhere. The sweep
goes through the whole range from the strong end, and what it ends with holds in any case.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import PassError
from ..graph.snn_graph import SNNGraph
from ..verification.calibration import Calibration
from ..verification.judge import Judge, Judgement
from .base import Pass, Rewriting

AUTO = "auto"
"""The value of an option that is to be searched."""
SWEEP = 8
"""Values of the sweep, evenly spaced."""
REFINEMENTS = 4


@dataclass(frozen=True, eq=False)
class Attempt:
    """A value that a search has tried.

    Attributes:
        value: of the option.
        chosen: the pass with this value.
        rewriting: what it made of the graph.
        judgement: what that costs against the original; None if nothing was changed.
    """

    value: float
    chosen: Pass
    rewriting: Rewriting
    judgement: Judgement | None

    @property
    def holds(self) -> bool:
        return self.judgement is None or self.judgement.holds

    def __str__(self) -> str:
        if self.judgement is None:
            return f"{self.value:.4g} changes nothing"
        verdict = "holds" if self.holds else "costs too much"
        return f"{self.value:.4g} {verdict} ({self.judgement.loss:.3g}, at most {self.judgement.bound:.3g})"


@dataclass(frozen=True, eq=False)
class Search:
    """How values are tried.

    Attributes:
        calibration: data that passes fit weights on.
        judge: measures what a value costs, on other data.
        on_progress: called with what is tried next.
        trained: what a pass with a value and training make of the graph; None to apply the pass and nothing else.
    """

    calibration: Calibration
    judge: Judge
    on_progress: Callable[[str], None] = field(default=lambda text: None)
    trained: Callable[[Any], Rewriting] | None = None

    def best(self, one: Pass, graph: SNNGraph) -> tuple[Pass, Rewriting]:
        """The pass with the strongest value that holds, and what it made of the graph.

        Raises:
            PassError: the option cannot be searched.
        """
        option = searched_option(one)
        weakest, strongest = one.search[option]
        # What does not depend on the value, such as moments of the activity, is measured once.
        facts = one.prepared(graph, self.calibration) if self.trained is None else {}
        tried: list[Attempt] = []

        def holds(value: float) -> bool:
            self.on_progress(f"{one.name}: trying {option}={value:.4g}, {len(tried) + 1} of {SWEEP + REFINEMENTS}")
            chosen = replace(one, **{option: value})
            if self.trained is None:
                rewriting = chosen.rewritten(graph, self.calibration, facts)
            else:
                rewriting = self.trained(chosen)
            judgement = self.judge.judge(rewriting.graph) if rewriting.changed else None
            tried.append(Attempt(value, chosen, rewriting, judgement))
            return tried[-1].holds

        values = [weakest + (strongest - weakest) * k / SWEEP for k in range(SWEEP, 0, -1)]
        inner = next((value for value in values if holds(value)), weakest)
        if inner != strongest:
            outer = tried[-2].value if inner != weakest else values[-1]
            for _ in range(REFINEMENTS):
                middle = (inner + outer) / 2
                inner, outer = (middle, outer) if holds(middle) else (inner, middle)
        strong = inner == strongest
        why = f"{strongest:g} is the strongest value" if strong else f"{REFINEMENTS} refinements are done"
        return chosen_attempt(one, option, graph, tried, self.judge, why)


def chosen_attempt(
    one: Pass, option: str, graph: SNNGraph, tried: list[Attempt], judge: Judge, why: str
) -> tuple[Pass, Rewriting]:
    """The strongest attempt that holds, with remarks on all that was tried and on why the search ended."""
    weakest, _ = one.search[option]
    holding = [attempt for attempt in tried if attempt.holds]
    best = max(holding, key=lambda attempt: abs(attempt.value - weakest), default=None)
    if best is None:
        chosen, rewriting = replace(one, **{option: weakest}), Rewriting.unchanged(graph, one.name)
    else:
        chosen, rewriting = best.chosen, best.rewriting
    rewriting.missed(
        graph.name,
        f"searched {option} within a budget of {judge.limit:g} on {judge.data.samples} validation samples, with "
        f"{judge.confidence:.3g} confidence: {'; '.join(map(str, tried))}; stopped because {why}",
    )
    if best is None:
        rewriting.missed(graph.name, _why_none(tried))
    return chosen, rewriting


def _why_none(tried: list[Attempt]) -> str:
    """Why no value holds, and whether more data would help."""
    judgements = [attempt.judgement for attempt in tried if attempt.judgement is not None]
    if all(math.isinf(judgement.loss) for judgement in judgements):
        return (
            "no value holds: the outputs stay at zero on the validation data, so they do not show what a change costs"
        )
    needed = min((j.needed for j in judgements if j.needed is not None), default=None)
    if needed is None:
        return "no value holds: even the weakest that was tried costs more than the budget on the validation data"
    samples = judgements[0].samples
    return (
        f"no value holds: {samples} validation samples are too few to show that a change stays within the budget; it "
        f"needs about {needed:,}"
    )


def is_searched(one: Pass) -> bool:
    """Whether an option of a pass is to be searched."""
    return any(isinstance(value, str) and value == AUTO for value in one.options.values())


def searched_option(one: Pass) -> str:
    """The option that is to be searched.

    Raises:
        PassError: it cannot be.
    """
    (option,) = (name for name, value in one.options.items() if isinstance(value, str) and value == AUTO)
    if option not in one.search:
        raise PassError(f"{one.name}: {option} cannot be searched; set it to a value.")
    return option


def needs_data(one: Pass) -> PassError:
    """The error for a search without data."""
    option = searched_option(one)
    return PassError(
        f"{one.name}{{{option}=auto}} needs data and a budget to search with: pass calibration data and a "
        "budget, such as 0.01 (--calibration data.npz --budget 0.01)."
    )


def needs_samples(one: Pass, graph: SNNGraph, calibration: Calibration) -> tuple[Pass, Rewriting]:
    """The pass at its weakest, where no samples are left to judge it on."""
    option = searched_option(one)
    rewriting = Rewriting.unchanged(graph, one.name, calibration)
    rewriting.missed(
        graph.name,
        f"{option} was not searched: a single sample cannot both fit weights and judge them; pass several samples, or "
        "other samples as validation=",
    )
    return replace(one, **{option: one.search[option][0]}), rewriting
