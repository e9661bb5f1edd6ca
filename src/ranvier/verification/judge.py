"""Whether a smaller network is good enough: its loss against the original, bounded for data that nobody has seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..graph.recording import Simulation
from ..graph.snn_graph import SNNGraph
from ..util.counting import counted
from .calibration import Calibration, only_output, outputs_as_returned
from .metric import class_scores, sample_scores, score_of
from .paired_bound import PairedSamples, mean_loss, root_mean_square_loss

RESAMPLES = 400
"""Draws of samples for a metric that is not a mean over samples; each calls the metric twice."""


@dataclass(frozen=True)
class Judgement:
    """What a change costs on validation data.

    Attributes:
        loss: drop of the metric or, without labels and metric, the root mean square of the change of the outputs
            relative to that of the outputs.
        bound: what the loss on unseen data is at most, with this confidence.
        confidence: between 0 and 1.
        samples: how many the loss was measured on.
        limit: the budget.
        needed: about how many samples would show that the loss is within the budget, if they lose what these do; None
            if no number of samples would.
        before, after: the metric; None if outputs are compared.
    """

    loss: float
    bound: float
    confidence: float
    samples: int
    limit: float
    needed: int | None
    before: float | None = None
    after: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the loss is within the budget, also on data that nobody has seen."""
        return self.bound <= self.limit

    def __str__(self) -> str:
        text = f"loss {self.loss:.3g}, at most {self.bound:.3g} with {self.confidence:.3g} confidence"
        if self.holds or self.needed is None:
            return text
        return f"{text} from {counted(self.samples, 'sample')}; about {self.needed:,} would show {self.limit:g}"


@dataclass(frozen=True, eq=False)
class Judge:
    """Compares networks with the original on validation data.

    Attributes:
        original: the network before all passes.
        data: validation data, on which no pass fits weights.
        limit: the budget.
        confidence: of the bound on the loss.
    """

    original: SNNGraph
    data: Calibration
    limit: float
    confidence: float

    @cached_property
    def before(self) -> Simulation:
        """What the original does."""
        return self.data.simulation(self.original)

    def judge(self, graph: SNNGraph) -> Judgement:
        """What a network has lost against the original; infinitely much where its outputs show nothing."""
        after = self.data.simulation(graph)
        if not self.data.scored and not any(x.any() for x in self.before.outputs.values()):
            # Nothing that a pass does to a silent network shows in its outputs.
            return Judgement(math.inf, math.inf, self.confidence, self.data.samples, self.limit, None)
        if not self.data.scored:
            return self._judgement(_change_of_outputs(self.before, after, self.data.mask))
        if self.data.metric is None:
            labels = self.data.labels
            assert labels is not None
            scores = [class_scores(only_output(run.outputs), labels, self.data.mask) for run in (self.before, after)]
        else:
            arguments = self.data.labels, self.data.mask
            scores = [
                sample_scores(self.data.metric, outputs_as_returned(run.outputs), *arguments, self.data.samples)
                for run in (self.before, after)
            ]
        old, new = scores
        if old is None or new is None:
            return self._resampled(after)
        return self._judgement(_drop_of_scores(old, new), float(old.mean()), float(new.mean()))

    def _judgement(self, paired: PairedSamples, before: float | None = None, after: float | None = None) -> Judgement:
        bound, needed = paired.bound(self.confidence), paired.needed(self.limit, self.confidence)
        return Judgement(paired.estimate, bound, self.confidence, paired.samples, self.limit, needed, before, after)

    def _resampled(self, after: Simulation) -> Judgement:
        """For metrics such as an F1 score, which have no value per sample: they are computed anew for every draw."""
        metric, labels, mask, samples = self.data.metric, self.data.labels, self.data.mask, self.data.samples
        assert metric is not None
        runs = [outputs_as_returned(run.outputs) for run in (self.before, after)]
        rng = np.random.default_rng(0)
        draws = [np.arange(samples), *(rng.integers(samples, size=samples) for _ in range(RESAMPLES))]
        scores = np.array([[score_of(metric, run, labels, mask, chosen) for run in runs] for chosen in draws])
        losses = scores[:, 0] - scores[:, 1]
        loss = float(losses[0])
        bound = max(loss, float(np.quantile(losses[1:], self.confidence, method="higher")))
        # The width of the bound shrinks with the root of the number of samples.
        needed = None if loss >= self.limit else int(np.ceil(samples * ((bound - loss) / (self.limit - loss)) ** 2))
        return Judgement(
            loss, bound, self.confidence, samples, self.limit, needed, float(scores[0, 0]), float(scores[0, 1])
        )


def _drop_of_scores(before: np.ndarray, after: np.ndarray) -> PairedSamples:
    """Losses of a metric that is a mean over samples."""
    # Scores of an accuracy lie between 0 and 1. Those of another metric have no known end, so the worst sample is one
    # that falls from the highest score seen to the lowest.
    seen = np.concatenate([before, after])
    worst = 1.0 if seen.min() >= 0 and seen.max() <= 1 else float(seen.max() - seen.min())
    columns = np.stack([before - after, np.ones_like(before)], axis=1)
    return PairedSamples(columns, np.array([worst, 1.0]), mean_loss)


def _change_of_outputs(before: Simulation, after: Simulation, mask: np.ndarray | None) -> PairedSamples:
    """Squares of the outputs' change and of the outputs, by sample."""
    change, size = (
        sum(_squares(value, mask) for value in values)
        for values in (
            [after.outputs[name].astype(np.float64) - x for name, x in before.outputs.items()],
            [x.astype(np.float64) for x in before.outputs.values()],
        )
    )
    columns = np.stack([change, size], axis=1)
    return PairedSamples(columns, columns[np.argmax(change)], root_mean_square_loss)


def _squares(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Sums of squares by sample, of ``[T, samples, ...]``."""
    squares = (values**2).reshape(*values.shape[:2], -1).sum(axis=2)
    return squares.sum(axis=0) if mask is None else mask @ squares
