"""What the learning rules learn on the tasks that come with Ranvier, and how long it takes.

Run as ``python -m benchmarks.learning_tasks``; needs optax and, for the digits, scikit-learn.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import typer
from rich.console import Console

import ranvier
from ranvier.learn.rule import Rule
from ranvier.models.recurrent import recurrent_network
from ranvier.program.analysis.memory import rule_memory, size_text
from ranvier.tasks import Batch, copy_task, digits, evidence, match_to_sample

from .machine import Machine, describe_machine
from .tables import markdown_table, print_table
from .timing import collected, seconds_text

RESULTS = Path(__file__).parent / "results" / "learning_tasks.md"
READOUT = ("w_out", "b_out")
FIRST_SEED = 10
SEEDS = 3
NEURONS = 100
TEST_TRIALS = 1000
ADAM_RATE = 1e-2
LAST_RATE = 0.02
"""What the cosine schedule leaves of the learning rate at the end."""
CLIP = 1.0

NOTE = (
    "`ranvier.models.recurrent.recurrent_network` with {neurons} adaptive neurons; cross-entropy averaged over the "
    "batch and over the steps at which the class is asked; Adam with learning rate {adam} or RMSprop with the rate "
    "given below, cosine decay to {last:.0%} of it, gradients clipped to norm {clip:.0f}. The recipe is the same for "
    "all rules; the rate of RMSprop is the best one found for *no traces*. A trial is one chunk, and traces start anew "
    "with every trial. *Accuracy* is the percentage of asked steps of the test trials at which the largest output is "
    "the class, mean over the seeds, then for each of them; a seed decides the first weights, the training trials, and "
    "the spikes of the test trials. *Training* is the time of one run from the model to the trained weights, mean over "
    "the seeds, without making the trials; *compilation* is its part before the first update, from empty caches; "
    "*update* is the median time of an update. *Carried* is what the rule carries from step to step for one sample "
    "when it runs step by step; for BPTT it is what it keeps of all steps of a trial (states and results of products). "
    "*Program* is the memory of one update as it was run here, with a trial as one chunk, by XLA's analysis: "
    "parameters, optimizer, trials, results and temporaries. *No traces* is the same-step gradient, as of "
    "`ES_D_RTRL(decay=0.0)` or, here, `OTTT(decay=0.0)`; *readout alone* keeps all other weights as they are at first."
)


@dataclass(frozen=True)
class Task:
    """A task with what it is trained with.

    Attributes:
        name: short name, for the command line.
        batch: trials of an update.
        updates: number of updates.
        rms_rate: learning rate for RMSprop, the best one found for the same-step gradient.
        training: seed to batches, enough of them.
        test: seed to the test trials.
    """

    name: str
    batch: int
    updates: int
    rms_rate: float
    training: Callable[[int], Iterator[Batch]]
    test: Callable[[int], Batch]

    def __str__(self) -> str:
        test = self.test(FIRST_SEED)
        return (
            f"{self.name}: {test.steps} steps, {test.inputs} inputs, {test.classes} classes; {self.updates} updates "
            f"with {self.batch} trials each, {test.size} test trials; RMSprop with learning rate {self.rms_rate:g}."
        )


def sampled(module: Any, updates: int, rms_rate: float, batch: int = 64) -> Task:
    """A task whose trials are made anew for every update."""

    def training(seed: int) -> Iterator[Batch]:
        return (module.sample(batch, 1000 * seed + 1 + k) for k in range(updates))

    def test(seed: int) -> Batch:
        return module.sample(TEST_TRIALS, 10**6 + seed)

    return Task(module.__name__.rpartition(".")[2], batch, updates, rms_rate, training, test)


def digits_task(updates: int, rms_rate: float, batch: int = 32) -> Task:
    """The digits, with new spikes for every pass through the images."""

    def training(seed: int) -> Iterator[Batch]:
        made, epoch = 0, 0
        while True:
            images, _ = digits.load(seed=1000 * seed + 1 + epoch)
            for found in images.minibatches(batch, 1000 * seed + epoch):
                if made == updates:
                    return
                yield found
                made += 1
            epoch += 1

    return Task("digits", batch, updates, rms_rate, training, lambda seed: digits.load(seed=seed)[1])


TASKS = (
    digits_task(880, 1e-2),
    sampled(evidence, 200, 3e-3),
    sampled(match_to_sample, 200, 3e-3),
    sampled(copy_task, 400, 1e-2),
)


@lru_cache(maxsize=SEEDS)
def training_batches(task: Task, seed: int) -> tuple[Batch, ...]:
    return tuple(task.training(seed))


@dataclass(frozen=True)
class Method:
    """A rule with an optimizer.

    Attributes:
        name: name of the rule.
        rule: makes the rule.
        rmsprop: whether the optimizer is RMSprop; it is Adam where not.
        traces: whether the rule needs its memory.
        readout: whether only the readout is trained.
    """

    name: str
    rule: Callable[[], Rule]
    rmsprop: bool = False
    traces: bool = True
    readout: bool = False

    @property
    def optimizer_name(self) -> str:
        return "RMSprop" if self.rmsprop else "Adam"

    def optimizer(self, task: Task) -> optax.GradientTransformation:
        rate, make = (task.rms_rate, optax.rmsprop) if self.rmsprop else (ADAM_RATE, optax.adam)
        schedule = optax.cosine_decay_schedule(rate, task.updates, LAST_RATE)
        frozen = optax.masked(optax.set_to_zero(), lambda params: {path: self._is_frozen(path) for path in params})
        return optax.chain(frozen, optax.clip_by_global_norm(CLIP), make(schedule))

    def _is_frozen(self, path: tuple[str, ...]) -> bool:
        return self.readout and path[0] not in READOUT


def same_step() -> Rule:
    """The same-step gradient."""
    return ranvier.OTTT(decay=0.0)


METHODS = (
    Method("BPTT", ranvier.BPTT),
    Method("D_RTRL", ranvier.D_RTRL),
    Method("EProp", ranvier.EProp),
    Method("EProp, random feedback", lambda: ranvier.EProp(feedback="random")),
    Method("ES_D_RTRL(decay=0.9)", lambda: ranvier.ES_D_RTRL(decay=0.9)),
    Method("ES_D_RTRL(decay=0.9)", lambda: ranvier.ES_D_RTRL(decay=0.9), rmsprop=True),
    Method("OTTT(decay=0.9)", lambda: ranvier.OTTT(decay=0.9)),
    Method("OTTT(decay=0.9)", lambda: ranvier.OTTT(decay=0.9), rmsprop=True),
    Method("no traces", same_step, traces=False),
    Method("no traces", same_step, rmsprop=True, traces=False),
    Method("readout alone", same_step, traces=False, readout=True),
)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        accuracy: on the test trials.
        finite: whether all losses and the trained weights are finite.
        compilation: seconds from the model to the compiled update.
        updates: seconds of every update.
        program: bytes of an update by XLA's analysis.
        carried: bytes that the rule carries for one sample.
    """

    accuracy: float
    finite: bool
    compilation: float
    updates: tuple[float, ...]
    program: int
    carried: int

    @property
    def seconds(self) -> float:
        return self.compilation + sum(self.updates)


def cross_entropy(output: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the batch: ``[batch, classes]`` and labels ``[batch]`` to a scalar."""
    return optax.softmax_cross_entropy_with_integer_labels(output, labels).mean()


def run(task: Task, method: Method, seed: int) -> Run:
    """Trains from the first weights and tests."""
    batches, test = training_batches(task, seed), task.test(seed)
    model = recurrent_network(test.inputs, NEURONS, test.classes, seed=seed)
    jax.clear_caches()
    with collected():
        start = time.perf_counter()
        learner = ranvier.compile(
            model, method.rule(), test.xs[0, 0], batch_size=task.batch, chunk=test.steps, reduction="mean"
        )
        update, state = compiled_update(learner, method.optimizer(task), batches[0])
        compilation = time.perf_counter() - start
    (params, _), losses, seconds = trained(update, state, batches)
    test_learner = learner.with_batch_size(test.size)
    _, outputs = test_learner.evaluate(cross_entropy, test.xs, test.ys, params=params, mask=test.mask)
    return Run(
        accuracy=test.accuracy(outputs),
        finite=bool(np.isfinite(losses).all() and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))),
        compilation=compilation,
        updates=seconds,
        program=program_bytes(update),
        carried=carried_bytes(learner, test.steps) // task.batch,
    )


def compiled_update(
    learner: ranvier.types.Learner, optimizer: optax.GradientTransformation, example: Batch
) -> tuple[Any, Any]:
    """A compiled update ``(state, xs, ys, mask) -> (state, loss)``, and the first state: parameters and optimizer."""

    def update(state: Any, xs: Any, ys: Any, mask: Any) -> tuple[Any, jax.Array]:
        params, memory = state
        gradients, aux = learner.grad(cross_entropy, xs, ys, params=params, mask=mask, keep_state=False)
        changes, memory = optimizer.update(gradients, memory, params)
        return (optax.apply_updates(params, changes), memory), aux.loss

    state = (learner.params, optimizer.init(learner.params))
    return jax.jit(update).lower(state, example.xs, example.ys, example.mask).compile(), state


def trained(update: Any, state: Any, batches: Sequence[Batch]) -> tuple[Any, list[float], tuple[float, ...]]:
    """The state after all updates, and loss and seconds of each."""
    losses, seconds = [], []
    for batch in batches:
        start = time.perf_counter()
        state, loss = jax.block_until_ready(update(state, batch.xs, batch.ys, batch.mask))
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss))
    return state, losses, tuple(seconds)


def program_bytes(executable: Any) -> int:
    found = executable.memory_analysis()
    used = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return used - found.alias_size_in_bytes


def carried_bytes(learner: ranvier.types.Learner, steps: int) -> int:
    """What the rule carries for a batch."""
    if not isinstance(learner.rule, ranvier.BPTT):
        return learner.plan.memory_bytes
    kept = next(row.bytes for row in rule_memory(learner.info) if row.rule == learner.rule.name)
    return steps * kept * (learner.batch_size or 1)


@dataclass(frozen=True)
class Row:
    """A method on a task: its runs, or why the rule refuses."""

    task: Task
    method: Method
    runs: tuple[Run, ...] = ()
    refusal: str = ""

    @property
    def text(self) -> str:
        """One line for the terminal."""
        found = f"refused: {self.refusal}" if self.refusal else f"{self.accuracy} % ({self.by_seed}), {self.training}"
        return f"{self.task.name}, {self.method.name}, {self.method.optimizer_name}: {found}"

    @property
    def accuracy(self) -> str:
        return f"{100 * statistics.mean(run.accuracy for run in self.runs):.1f}"

    @property
    def by_seed(self) -> str:
        return " ".join(f"{100 * run.accuracy:.1f}" if run.finite else "not finite" for run in self.runs)

    @property
    def training(self) -> str:
        return seconds_text(statistics.mean(run.seconds for run in self.runs))


def measure(task: Task, method: Method, seeds: Sequence[int]) -> Row:
    """Runs with all seeds; a rule's own refusal is a result, any other error is not."""
    try:
        return Row(task, method, tuple(run(task, method, seed) for seed in seeds))
    except ranvier.RuleError as error:
        return Row(task, method, refusal=str(error))


HEADER = (
    *("task", "rule", "optimizer", "accuracy", "by seed"),
    *("training", "compilation", "update", "carried", "program"),
)


def cells(row: Row) -> tuple[str, ...]:
    named = (row.task.name, row.method.name, row.method.optimizer_name)
    if row.refusal:
        return (*named, f"refused: {row.refusal}", *(["-"] * (len(HEADER) - len(named) - 1)))
    return (
        *(*named, row.accuracy, row.by_seed, row.training),
        seconds_text(statistics.mean(run.compilation for run in row.runs)),
        seconds_text(statistics.median(second for run in row.runs for second in run.updates)),
        size_text(row.runs[0].carried) if row.method.traces else "none",
        size_text(row.runs[0].program),
    )


def report(machine: Machine, rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """The results as Markdown."""
    note = NOTE.format(neurons=NEURONS, adam=ADAM_RATE, last=LAST_RATE, clip=CLIP)
    seen = dict.fromkeys(row.task for row in rows)
    lines = ["# Learning tasks", "", f"Machine: {machine}.", f"Versions: {machine.versions_text}.", ""]
    lines += [f"Seeds {', '.join(map(str, seeds))}. {note}", "", *(f"- {task}" for task in seen), ""]
    return "\n".join([*lines, *markdown_table(HEADER, map(cells, rows)), ""])


def selected(items: Sequence[Any], wanted: Sequence[str]) -> list[Any]:
    """The items whose name begins with one of the texts; all where there is none."""
    starts = tuple(text.lower() for text in wanted) or ("",)
    return [item for item in items if item.name.lower().startswith(starts)]


def main(
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/learning_tasks.md, after every row.")] = False,
    task: Annotated[list[str] | None, typer.Option(help="Only tasks whose name begins like this.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only rules whose name begins like this.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = SEEDS,
) -> None:
    """Trains a recurrent spiking network on every task with every rule."""
    console = Console(width=None if Console().is_terminal else 200)
    machine, used = describe_machine(), range(FIRST_SEED, FIRST_SEED + seeds)
    console.print(f"{machine}\n{machine.versions_text}")
    rows: list[Row] = []
    for chosen in selected(TASKS, task or ()):
        for method in selected(METHODS, rule or ()):
            rows.append(measure(chosen, method, used))
            console.print(rows[-1].text, markup=False)
            if write:
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(report(machine, rows, used))
    print_table(console, "Learning tasks", HEADER, map(cells, rows))


if __name__ == "__main__":
    typer.run(main)
