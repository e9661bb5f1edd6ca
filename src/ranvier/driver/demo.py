"""The job behind ``ranvier demo``: a spiking network learns handwritten digits online."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import jax
from rich.console import Console

from ..analyses.memory import size_text
from ..errors import TrainingError
from ..learn.compile import compile
from ..learn.fit import accuracy, fit
from ..learn.learner import Learner
from ..learn.rules.d_rtrl import D_RTRL
from .show import heading, print_plain

NEURONS = 100
BATCH = 32
EPOCHS = 20
LEARNING_RATE = 1e-2


def run_demo(console: Console, epochs: int = EPOCHS) -> None:
    """Trains on digits with D-RTRL, and prints accuracy, time, memory and what the plan used.

    Raises:
        TrainingError: a package of the extra ``train`` is missing.
    """
    optax = _optax()
    from ..models.recurrent import recurrent_network
    from ..tasks import digits

    train, test = digits.load()
    model = recurrent_network(train.inputs, NEURONS, train.classes)
    heading(console, "Ranvier trains a spiking network online")
    print_plain(
        console,
        f"{NEURONS} recurrent adaptive LIF neurons read 8 x 8 images of handwritten digits as spikes: {train.inputs} "
        f"inputs,\n{train.steps} steps, {train.size} images to learn from and {test.size} others to be tested on. The "
        "model is a plain JAX step function;\nD_RTRL learns forward in time, so its memory does not grow with the "
        "number of steps.\n",
    )
    started = time.perf_counter()
    learner = compile(model, D_RTRL(), train.xs[0, 0], batch_size=BATCH, reduction="mean")
    print_plain(console, f"{learner.plan}\n")
    updates = epochs * (train.size // BATCH)
    schedule = optax.cosine_decay_schedule(LEARNING_RATE, updates, alpha=0.02)
    result = fit(
        learner,
        lambda epoch: list(digits.load(seed=epoch)[0].minibatches(BATCH, seed=epoch)),
        lambda output, label: optax.softmax_cross_entropy_with_integer_labels(output, label).mean(),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)),
        epochs,
        metrics={"accuracy": accuracy},
        held_out=[test],
    )
    elapsed = time.perf_counter() - started
    _report(console, learner, result.history[-1], elapsed, updates)


def _report(console: Console, learner: Learner, last: dict[str, float], elapsed: float, updates: int) -> None:
    heading(console, "\nWhat came out")
    states = sum(x.nbytes for x in jax.tree.leaves(learner.init()))
    rows = [
        (
            "test accuracy",
            f"{last['eval_accuracy']:.1%} on images never learned from, {last['accuracy']:.1%} in training",
        ),
        ("time", f"{elapsed:.1f} s for {updates} updates, compilation and tests included"),
        ("learner's state", f"{size_text(states)} for {BATCH} samples, whatever the number of steps"),
        ("peak memory", f"{size_text(_peak_bytes())} of the whole process"),
    ]
    width = max(len(name) for name, _ in rows)
    print_plain(console, "\n".join(f"  {name.ljust(width)}  {text}" for name, text in rows))
    print_plain(console, "\nWhat the analyses behind this see in a model:  ranvier tour")


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _optax() -> Any:
    try:
        import optax
        import sklearn  # noqa: F401
    except ImportError as error:
        raise TrainingError(f"the demo needs {error.name}; run `pip install 'ranvier[train]'`.") from error
    return optax
