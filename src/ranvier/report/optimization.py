"""What an optimization did, as text and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from ..errors import PassError, printable
from ..graph.analysis.operation_counts import OperationCounts
from ..graph.provenance import Provenance
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..graph.traced import Traced
from ..passes.base import Remark
from ..passes.dead_neurons import DeadNeurons
from ..passes.manager import PassRun
from ..passes.merge_neurons import MergeNeurons
from ..passes.optimizer_state import OptimizerStateMap
from ..passes.outcome import PassResult
from ..util.counting import counted, grouped
from ..util.table import table
from ..verification.judge import Judgement
from ..verification.promise import Promise
from ..verification.verify import Verification
from .timings import Timings

OPERATIONS = {
    "dense": "dense synaptic operations",
    "effective_macs": "effective multiply-accumulates",
    "effective_acs": "effective accumulates",
    "multiply_adds": "multiply-adds per step",
}
SPARSITIES = {"connection_sparsity": "connection sparsity", "activation_sparsity": "activation sparsity"}
"""Names of counts, and their descriptions."""


@dataclass(frozen=True, eq=False)
class OptimizationReport:
    """What :func:`ranvier.optimize` did; ``print(report)`` shows it.

    Attributes:
        pass_results: what every pass did, summed over all rounds.
        params_before, params_after: number of stored weights and biases.
        neurons_before, neurons_after: number of neurons; relays and delays do not count.
        original, optimized: the graphs.
        pipeline: the passes as text.
        runs: every run of a pass, in order.
        origins: where the neurons of the original are in the optimized graph.
        checks: verification of the whole change, on each kind of inputs.
        accuracy: the metric before and after, on the validation data or, if no pass is approximate, on the calibration
            data; None if there are neither labels nor a metric.
        judgement: what all changes cost on the validation data; None if there is none, or nothing to judge.
        data: fingerprint of the calibration data; None if there is none.
        seconds: total time.
        settled: whether passes were run until nothing changed.
        warnings: what makes the result doubtful, see :mod:`ranvier.report.warnings`.
        find_carry: computes :attr:`carry`. It takes memory for every weight, so it runs only on demand.
        find_counts: computes :attr:`operations` from runs on the calibration data; None if there is none.
        find_timings: computes :meth:`timings`.
    """

    pass_results: list[PassResult] = field(default_factory=list)
    params_before: int = 0
    params_after: int = 0
    neurons_before: int = 0
    neurons_after: int = 0
    original: SNNGraph = field(default_factory=SNNGraph)
    optimized: SNNGraph = field(default_factory=SNNGraph)
    pipeline: str = ""
    runs: tuple[PassRun, ...] = ()
    origins: Provenance = field(default_factory=lambda: Provenance.of(SNNGraph()))
    checks: tuple[Verification, ...] = ()
    accuracy: tuple[float, float] | None = None
    judgement: Judgement | None = None
    data: str | None = None
    seconds: float = 0.0
    settled: bool = True
    warnings: tuple[str, ...] = ()
    find_carry: Callable[[], OptimizerStateMap] | None = None
    find_counts: Callable[[], tuple[OperationCounts, OperationCounts]] | None = None
    find_timings: Callable[[Sequence[int], int | None, int], Timings] | None = None

    @cached_property
    def carry(self) -> OptimizerStateMap:
        """Converts the state of an optimizer: ``carry(state)`` is for the parameters of the optimized model.

        Raises:
            PassError: the report was made without the parameters.
        """
        if self.find_carry is None:
            raise PassError("this report does not know the parameters; ranvier.optimize returns one that does.")
        return self.find_carry()

    @cached_property
    def operations(self) -> tuple[OperationCounts, OperationCounts] | None:
        """What :func:`ranvier.count_operations` counts on the calibration data, before and after; None without data.

        Counted at the first use, which runs both graphs.
        """
        return None if self.find_counts is None else self.find_counts()

    def timings(self, batch_sizes: Sequence[int] = (1, 32), *, steps: int | None = None, repeats: int = 9) -> Timings:
        """Measures how long simulations take on this machine, before and after.

        Args:
            batch_sizes: numbers of samples that are simulated together.
            steps: of each sample; None for as many as the calibration data has, or 100.
            repeats: runs of each graph, of which the median is taken; compiling is not part of them.

        Raises:
            PassError: the report was made without the means to run the graphs.
            InputError: a number is not a positive whole number.
        """
        if self.find_timings is None:
            raise PassError("this report cannot run its graphs; ranvier.optimize returns one that can.")
        return self.find_timings(batch_sizes, steps, repeats)

    @cached_property
    def before(self) -> GraphSize:
        return GraphSize.of(self.original)

    @cached_property
    def after(self) -> GraphSize:
        return GraphSize.of(self.optimized)

    @property
    def promise(self) -> Promise:
        """The weakest promise of all changes."""
        return max((run.promise for run in self.runs), default=Promise.BITWISE)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """The remarks of all passes, in order."""
        return tuple(remark for run in self.runs for remark in run.remarks)

    @property
    def statistics(self) -> dict[str, dict[str, int]]:
        """By pass: how many changes it made, and how much it removed in total."""
        by_pass: dict[str, Counter[str]] = {}
        for run in self.runs:
            counts = by_pass.setdefault(run.text.split("{")[0], Counter())
            counts["changes"] += sum(remark.done for remark in run.remarks)
            for name, value in run.before.as_dict().items():
                counts[name] += value - run.after.as_dict()[name]
        return {name: dict(counts) for name, counts in by_pass.items()}

    @property
    def facts(self) -> dict[str, str]:
        """Facts that simulations depend on but NIR files do not state."""
        neurons = [p.neuron for p in self.original.populations.values()]
        resets = sorted({neuron.choices["reset"] for neuron in neurons if _has_reset(neuron)})
        resets += ["as in the model"] if any(isinstance(neuron, Traced) for neuron in neurons) else []
        delays = sorted({p.delay for p in self.original.projections.values()})
        return {
            "dt": f"{self.original.dt:g} s",
            "reset": ", ".join(resets) or "none",
            "delays in steps": ", ".join(map(str, delays)) or "none",
        }

    def __str__(self) -> str:
        if not self.original.nodes:
            return self.summary()
        facts = ", ".join(f"{name} {value}" for name, value in self.facts.items())
        lines = [*(f"warning: {warning}" for warning in self.warnings), *([""] if self.warnings else [])]
        lines += [f"{self.original.name}: {self.pipeline or 'no passes'}", f"  {facts}", ""]
        lines += table(("", "before", "after", "left"), self.size_rows())
        if rows := self.operation_rows():
            lines += ["", *table(("per sample of the calibration data", "before", "after", "left"), rows)]
        if runs := [run for run in self.runs if run.changed or run.skipped]:
            lines += [
                "",
                *table(("pass", "round", "promise", "neurons", "synapses", "time", "checked"), map(_row, runs)),
            ]
        if self.checks:
            lines += ["", *(line for check in self.checks for line in str(check).splitlines())]
        lines += ["", *quality] if (quality := self.quality()) else []
        if any(_is_unchecked(run) for run in self.runs):
            lines += [
                "",
                "profiled changes rely on activity that was measured earlier; without that data they are not checked",
            ]
        if not self.settled:
            lines += ["", "stopped while passes were still changing something"]
        promise = f"overall promise: {self.promise}" if any(run.changed for run in self.runs) else "nothing was changed"
        return printable("\n".join([*lines, "", f"{promise}; {self.seconds:.2f} s in total"]))

    def quality(self) -> list[str]:
        """Lines on what was lost."""
        lines, judgement = [], self.judgement
        data = "the calibration data" if judgement is None else counted(judgement.samples, "validation sample")
        if self.accuracy is not None:
            is_part = all(0 <= value <= 1 for value in self.accuracy)
            name, before, after = "accuracy" if is_part else "metric", *(_score(value) for value in self.accuracy)
            lines.append(f"{name} on {data}: {before} before, {after} after")
        if judgement is not None:
            lines.append(f"on data like the {data}: {judgement}")
        return lines

    def size_rows(self) -> list[tuple[str, ...]]:
        """Rows of names, counts before and after, and the fraction that is left."""
        pairs = [(name, old, self.after.as_dict()[name]) for name, old in self.before.as_dict().items()]
        return [_compared(name, old, new) for name, old, new in pairs]

    def operation_rows(self) -> list[tuple[str, ...]]:
        """Rows on synaptic operations and sparsity, before and after, and the fraction that is left; none without
        data."""
        if self.operations is None:
            return []
        old, new = (counts.totals() for counts in self.operations)
        rows = [_compared(text, old[name], new[name]) for name, text in OPERATIONS.items()]
        parts = [(text, f"{old[name]:.1%}", f"{new[name]:.1%}", "") for name, text in SPARSITIES.items()]
        return [*rows, *parts]

    # Names from the documentation of sc-neurocore.

    @property
    def compression_ratio(self) -> float:
        """Parameters before, by parameters after."""
        if not self.params_after:
            return math.inf if self.params_before else 1.0
        return self.params_before / self.params_after

    @property
    def dead_neurons_removed(self) -> int:
        """Number of neurons that were removed because they have no effect."""
        return self._removed(DeadNeurons.name, "dead_neuron_elimination")

    @property
    def redundant_pairs_merged(self) -> int:
        """Number of neurons that were removed because another one does the same."""
        return self._removed(MergeNeurons.name, "redundancy_elimination")

    def _removed(self, *names: str) -> int:
        return sum(result.neurons_removed for result in self.pass_results if result.name in names)

    def summary(self) -> str:
        """A summary of a few lines; ``print(report)`` says more."""
        head = f"SNN Optimizer: {self.params_before} -> {self.params_after} params"
        lines = [f"{head} ({self.compression_ratio:.2f}x compression)"]
        lines.append(f"  Neurons: {self.neurons_before} -> {self.neurons_after}")
        lines += [
            f"  {result.name}: {result.neurons_removed} neurons removed, {result.layers_fused} layers fused"
            for result in self.pass_results
        ]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The report as a dictionary for JSON."""
        return {
            "warnings": list(self.warnings),
            "graph": self.original.name,
            "pipeline": self.pipeline,
            "facts": self.facts,
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "operations": None if self.operations is None else [counts.totals() for counts in self.operations],
            "promise": str(self.promise),
            "runs": [_run_as_dict(run) for run in self.runs],
            "statistics": self.statistics,
            "checks": [check_as_dict(check) for check in self.checks],
            "accuracy": None if self.accuracy is None else list(self.accuracy),
            "judgement": None if self.judgement is None else asdict(self.judgement),
            "data": self.data,
            "seconds": self.seconds,
            "settled": self.settled,
        }


def _score(value: float) -> str:
    return f"{value:.2%}" if 0 <= value <= 1 else f"{value:.4g}"


def _compared(name: str, old: float, new: float) -> tuple[str, ...]:
    return (name, grouped(old), grouped(new), f"{new / old:.1%}" if old else "-")


def _has_reset(neuron: Any) -> bool:
    return "reset" in neuron.choices


def _row(run: PassRun) -> tuple[str, ...]:
    gone = run.before.neurons - run.after.neurons, run.before.synapses - run.after.synapses
    verdicts = {check.verdict for check in run.checks}
    checked = "skipped" if run.skipped else ", ".join(sorted(verdicts)) or ("no data" if _is_unchecked(run) else "-")
    text = run.text if len(run.text) <= 60 else run.text[:57] + "..."
    return (text, str(run.round), str(run.promise), f"{-gone[0]:+,}", f"{-gone[1]:+,}", f"{run.seconds:.3f} s", checked)


def _is_unchecked(run: PassRun) -> bool:
    """Whether a change that holds only on data was not checked on any."""
    return run.changed and run.promise is Promise.PROFILED and not run.checks


def _run_as_dict(run: PassRun) -> dict[str, Any]:
    return {
        "number": run.number,
        "pass": run.text,
        "round": run.round,
        "promise": str(run.promise),
        "changed": run.changed,
        "skipped": run.skipped,
        "seconds": run.seconds,
        "before": run.before.as_dict(),
        "after": run.after.as_dict(),
        "remarks": [_remark_as_dict(remark) for remark in run.remarks],
        "checks": [check_as_dict(check) for check in run.checks],
    }


def _remark_as_dict(remark: Remark) -> dict[str, Any]:
    neurons = None if remark.neurons is None else remark.neurons.tolist()
    promise = None if remark.promise is None else str(remark.promise)
    return {
        "about": remark.about,
        "message": remark.message,
        "done": remark.done,
        "promise": promise,
        "neurons": neurons,
    }


def check_as_dict(check: Verification) -> dict[str, Any]:
    """A verification as a dictionary for JSON."""
    divergence = check.divergence
    return {
        "inputs": check.inputs,
        "steps": check.steps,
        "samples": check.samples,
        "verdict": check.verdict,
        "outputs": {name: vars(output) for name, output in check.outputs.items()},
        "spikes": {name: vars(spikes) for name, spikes in check.spikes.items()},
        "ties": [str(tie) for tie in check.ties],
        "divergence": None if divergence is None else {**vars(divergence), "text": str(divergence)},
        "untested": list(check.untested),
    }
