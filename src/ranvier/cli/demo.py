"""The command ``ranvier demo``: a network learns, is optimized, keeps learning, and is exported to NIR."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from ..api.finetune import Finetune
from ..api.optimize import optimize
from ..api.report import write_report
from ..api.to_nir import to_nir
from ..errors import InputError, TrainingError
from ..frontends.step_function import StepFunction
from ..graph.neurons import Relay
from ..graph.size import GraphSize
from ..graph.snn_graph import SNNGraph
from ..learn.compile import compile
from ..learn.learner import Learner
from ..learn.rule import Rule
from ..learn.rules.bptt import BPTT
from ..learn.rules.d_rtrl import D_RTRL
from ..learn.training.fit import FitResult, fit
from ..learn.training.metrics import accuracy
from ..nir.read import from_nir
from ..program.analysis.memory import size_text
from ..raising.raised import raise_model
from ..report.optimization import OptimizationReport
from ..simulation.count_operations import count_operations
from ..simulation.simulate import Simulator, simulate
from ..util.extras import require
from ..verification.calibration import Calibration
from ..verification.promise import Promise
from ..verification.verify import verify
from .console import heading, print_plain

NEURONS = 100
BATCH = 32
EPOCHS = 10
EPOCHS_AFTER = 4
LEARNING_RATE = 1e-2
MEASURED = 300
"""Number of training images on which activity is measured."""
VALIDATION = 400
"""Number of images that are held back from training: they judge what optimization costs."""
BUDGET = 0.02
"""The largest loss of accuracy."""
FINE_TUNING_RATE = 3e-3
TIMED = 20
"""Runs of which the median time is taken."""


def run_demo(console: Console, folder: Path, epochs: int = EPOCHS) -> None:
    """Runs all stages, and prints what each of them gained.

    Args:
        console: to print on.
        folder: for the NIR file and the report; it is created if missing.
        epochs: passes over the images before the network is optimized.

    Raises:
        TrainingError: a package of the extra ``train`` is missing.
        InputError: the folder cannot be created.
    """
    demo = Demo(console, folder, epochs)
    demo.learn()
    demo.profile()
    demo.optimize()
    demo.verify()
    demo.keep_learning()
    demo.export()
    demo.sum_up()


@dataclass
class Demo:
    """The stages of the demo, and what they pass on to the next ones.

    Attributes:
        console: to print on.
        folder: for files.
        epochs: passes over the images in the first stage.
        model: the network at present.
        learned: the result of the latest training.
        report: of the optimization.
        seconds: time of every stage by its title.
    """

    console: Console
    folder: Path
    epochs: int
    model: StepFunction = field(init=False)
    learned: FitResult = field(init=False)
    report: OptimizationReport = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optax = _optax()
        from ..models.classifier import spiking_classifier
        from ..tasks import digits

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"the folder {str(self.folder)!r} cannot be created: {error}; choose another.") from error
        self.digits = digits
        images, self.test = digits.load()
        order = np.random.default_rng(0).permutation(images.size)
        self.chosen = np.sort(order[VALIDATION:])
        self.train, self.validation = images.take(self.chosen), images.take(np.sort(order[:VALIDATION]))
        self.model = spiking_classifier(self.train.inputs, NEURONS, self.train.classes)

    @cached_property
    def example(self) -> jax.Array:
        return jnp.asarray(self.train.xs[0, 0])

    @contextmanager
    def _stage(self, title: str) -> Generator[None]:
        heading(self.console, f"{'' if not self.seconds else chr(10)}{len(self.seconds) + 1}. {title}")
        started = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - started

    def _tell(self, *rows: tuple[str, str]) -> None:
        width = max(len(name) for name, _ in rows)
        print_plain(self.console, "\n".join(f"  {name.ljust(width)}  {text}" for name, text in rows))

    def learn(self) -> None:
        """Trains with D-RTRL."""
        with self._stage("Learn online"):
            print_plain(
                self.console,
                f"{NEURONS} recurrent LIF neurons receive images of handwritten digits as spikes. The model is a plain "
                "JAX step function without\nannotations. D_RTRL computes its gradients forward in time.",
            )
            learner = self._learner(self.model, D_RTRL())
            self._fit(learner, self.epochs, None)
            other = self._learner(self.model, BPTT()).plan
            self._tell(
                (
                    "accuracy",
                    f"{self._accuracy(self._graph(), self.validation):.1%} on {VALIDATION} images held back",
                ),
                (
                    "gained",
                    f"{size_text(learner.plan.memory_bytes)} of traces for {BATCH} samples, however many steps there "
                    f"are; BPTT keeps {size_text(other.step_bytes)} per step, "
                    f"{size_text(self.train.steps * other.step_bytes)} here",
                ),
            )

    def profile(self) -> None:
        """Measures which neurons fire."""
        with self._stage("Look at its activity"):
            graph = self._graph()
            name = next(iter(graph.populations))
            spikes = simulate(graph, self.train.xs[:, :MEASURED], record=[name])[name]
            silent = int((spikes.reshape(-1, NEURONS).max(axis=0) == 0).sum())
            self._tell(
                ("graph", ", ".join(f"{n:,} {what}" for what, n in GraphSize.of(graph).as_dict().items() if n)),
                ("activity", f"on average, {spikes.mean():.1%} of the neurons fire in a step, on {MEASURED} images"),
                ("gained", f"{silent} neurons never fire on these images, so they can be removed"),
            )

    def optimize(self) -> None:
        """Makes the network smaller within a budget."""
        with self._stage(f"Make it smaller, and lose at most {BUDGET:.0%} of accuracy"):
            self.model, self.report = optimize(
                self.model,
                level="O3",
                calibration=self.train.xs[:, :MEASURED],
                validation=self.validation,
                metric=accuracy,
                budget=BUDGET,
                finetune=self._finetune(),
            )
            rows = [
                (name, f"{a} to {b}") for name, a, b, _ in self.report.size_rows() if name in ("neurons", "synapses")
            ]
            passes = [run for run in self.report.runs if run.changed]
            names = ", ".join(dict.fromkeys(f"{run.text.split('{')[0]} ({run.promise})" for run in passes))
            judgement = self.report.judgement
            assert judgement is not None
            self._tell(
                ("passes", names),
                *rows,
                (
                    "judged",
                    f"on the images held back: {judgement.before:.1%} before, {judgement.after:.1%} after; the loss is "
                    f"at most {max(judgement.bound, 0):.1%} with {judgement.confidence:.0%} confidence",
                ),
                ("gained", f"only {self._left():.0%} of the synapses remain"),
            )

    def verify(self) -> None:
        """Compares the networks before and after on images that judged them."""
        with self._stage("Check what changed, and what it saves"):
            original, smaller = self.report.original, self.report.optimized
            result = verify(original, smaller, self.validation.xs, origins=self.report.origins)
            (output,) = result.outputs.values()
            exact = [run for run in self.report.runs if run.changed and run.promise <= Promise.ALGEBRAIC]
            before, after = (self._milliseconds(graph) for graph in (original, smaller))
            spikes = [count_operations(graph, self.validation.xs).effective_acs for graph in (original, smaller)]
            self._tell(
                (
                    "outputs",
                    f"differ by at most {output.largest:.3g} (largest: {output.scale:.3g}): pruning is approximate",
                ),
                ("exact passes", f"{len(exact)} that promise to change nothing, each checked by running the network"),
                (
                    "operations",
                    f"{spikes[0]:,.0f} synaptic operations for an image before, {spikes[1]:,.0f} after: one for every "
                    "spike at every synapse",
                ),
                ("gained", f"{BATCH} images take {before:.2g} ms before and {after:.2g} ms after on this machine"),
            )

    def keep_learning(self) -> None:
        """Trains the smaller network, with Adam's state from the first training."""
        with self._stage("Keep learning, with the smaller network"):
            before = self._accuracy(self._graph(), self.validation)
            state = self.report.carry(self.learned.optimizer_state)
            learner = self._learner(self.model, D_RTRL())
            self._fit(learner, EPOCHS_AFTER, state)
            self._tell(
                (
                    "carried",
                    f"Adam's moments for the {self.report.after.parameters:,} remaining parameters; pruned synapses "
                    "stay absent",
                ),
                (
                    "gained",
                    f"accuracy on the images held back {before:.1%} before, "
                    f"{self._accuracy(self._graph(), self.validation):.1%} after",
                ),
            )

    def export(self) -> None:
        """Writes the network as NIR, reads it again, and writes the report."""
        with self._stage("Export it to NIR"):
            path = self.folder / "digits.nir"
            to_nir(self.model, self.example, path=path)
            back = from_nir(path)
            page = write_report(self.report, self._calibration(self.report.original), self.folder / "report.html")
            neurons = (p.neuron for p in back.populations.values() if not isinstance(p.neuron, Relay))
            kinds = ", ".join(type(neuron).__name__ for neuron in neurons)
            self._tell(
                (
                    "NIR",
                    f"{path}, {size_text(path.stat().st_size)}: {kinds} with {back.total_synapses:,} synapses, the "
                    "time step and delays",
                ),
                ("report", f"{page}"),
            )
        with self._stage("Test it, for the first time"):
            numbers = [self._accuracy(graph, self.test) for graph in (self.report.original, back)]
            self._tell(
                (
                    "gained",
                    f"test accuracy {numbers[0]:.1%} of the first network, {numbers[1]:.1%} of the one in the file, on "
                    f"{self.test.size} images that nobody has looked at before",
                ),
            )

    def sum_up(self) -> None:
        """Prints how long each stage took."""
        stages = ", ".join(
            f"{title[0].lower()}{title[1:].split(',')[0]} {seconds:.0f} s" for title, seconds in self.seconds.items()
        )
        print_plain(self.console, f"\n{sum(self.seconds.values()):.0f} s in total: {stages}.")
        print_plain(self.console, "To see how Ranvier analyzes a model:  ranvier tour")

    def _learner(self, model: StepFunction, rule: Rule) -> Learner:
        return compile(model, rule, self.example, batch_size=BATCH, reduction="mean")

    def _fit(self, learner: Learner, epochs: int, state: Any) -> None:
        """Trains, and writes what was learned into the model."""
        self.learned = fit(
            learner,
            self._batches,
            self._loss,
            self._optimizer(LEARNING_RATE),
            epochs,
            optimizer_state=state,
            metrics={"accuracy": accuracy},
        )
        self.model = learner.write_back(self.learned.params)

    def _batches(self, epoch: int) -> list[Any]:
        """The training images with new spikes for every epoch."""
        return list(self.digits.load(seed=epoch)[0].take(self.chosen).minibatches(BATCH, seed=epoch))

    def _loss(self, output: Any, label: Any) -> Any:
        return self.optax.softmax_cross_entropy_with_integer_labels(output, label).mean()

    def _optimizer(self, rate: float) -> Any:
        return self.optax.chain(self.optax.clip_by_global_norm(1.0), self.optax.adam(rate))

    def _finetune(self) -> Finetune:
        return Finetune(data=self._batches, loss=self._loss, optimizer=self._optimizer(FINE_TUNING_RATE))

    def _graph(self) -> SNNGraph:
        """The graph of the network at present."""
        return raise_model(self.model, self.example).graph

    def _accuracy(self, graph: SNNGraph, batch: Any) -> float:
        """The accuracy on some images, at the steps that ask for an answer."""
        outputs = simulate(graph, batch.xs).output
        return float(accuracy(jnp.asarray(outputs), jnp.asarray(batch.ys), batch.mask))

    def _milliseconds(self, graph: SNNGraph) -> float:
        """The time of a batch, median of several."""
        run, xs, times = Simulator(graph), jnp.asarray(self.validation.xs[:, :BATCH]), []
        for _ in range(1 + TIMED):
            start = time.perf_counter()
            run(xs)
            times.append(time.perf_counter() - start)
        return 1e3 * float(np.median(times[1:]))

    def _calibration(self, graph: SNNGraph) -> Calibration:
        return Calibration.of(graph, self.train.xs[:, :MEASURED], run=simulate)

    def _left(self) -> float:
        return self.report.after.synapses / self.report.before.synapses


def _optax() -> Any:
    require("the demo", "train,picture", "optax", "sklearn", "matplotlib", error=TrainingError)
    import optax

    return optax
