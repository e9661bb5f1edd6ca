"""Whether budgets hold on images that neither training nor optimization has seen, and what sparsity costs.

Run as ``python -m benchmarks.budgets``; it trains 10 networks, and takes some 15 minutes on 2 cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import optax
import typer
from rich.console import Console

import ranvier
from ranvier.models.classifier import spiking_classifier
from ranvier.tasks import digits

from .machine import describe_machine
from .tables import markdown_table, print_table

RESULTS = Path(__file__).parent / "results" / "budgets.md"
NEURONS, BATCH, EPOCHS, RATE, TUNING_RATE = 100, 32, 10, 1e-2, 3e-3
SEEDS, VALIDATION, CALIBRATION = 10, 500, 300
LIMITS = (0.01, 0.02)
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98)
BITS = (8, 6, 4)
CURVES = 3
"""Seeds that the accuracy by sparsity and bits is a mean of."""
BUDGET_HEADER = (
    "budget",
    "fine-tuning",
    "holds on test",
    "worst loss",
    "mean loss",
    "synapses left",
    "before",
    "after",
)
SPARSITY_HEADER = ("sparsity", "magnitude", "saliency, refitted", "gradual, fine-tuned")
BITS_HEADER = ("bits", "rounded", "trained with rounding")
NOTE = (
    f"Digits (8 x 8 pixels as spikes): {NEURONS} recurrent LIF neurons and a leaky readout, trained online with D_RTRL "
    f"for {EPOCHS} epochs on 942 images; O3 with calibration on {CALIBRATION} of these, judged on {VALIDATION} others "
    "that nothing was trained on or fitted to, and tested once on the 355 test images. Accuracy is that of the last 10 "
    f"steps. Fine-tuning: 8 stages on the cubic schedule, one epoch each. {SEEDS} seeds of data order, split and "
    "spikes. The test set is a sample, too: on 355 images, a change that costs nothing seems to cost more than 1 % in "
    "about one case of ten."
)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network, and the images for all purposes.

    Attributes:
        model: trained.
        chosen: numbers of the training images.
        calibration, validation, test: batches.
    """

    model: Any
    chosen: np.ndarray
    calibration: Any
    validation: Any
    test: Any


def loss(output: Any, label: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, label).mean()


def optimizer(rate: float) -> Any:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def batches(chosen: np.ndarray, seed: int, epoch: int) -> list[Any]:
    """The training images with new spikes for every epoch."""
    number = 1000 * seed + epoch
    return list(digits.load(seed=number)[0].take(chosen).minibatches(BATCH, seed=number))


def train(seed: int, compress: Any = ()) -> Trained:
    images, test = digits.load(seed=seed)
    order = np.random.default_rng(seed).permutation(images.size)
    chosen = order[VALIDATION:]
    learner = _learner(spiking_classifier(images.inputs, NEURONS, images.classes))
    result = ranvier.fit(
        learner, partial(batches, chosen, seed), loss, optimizer(RATE), EPOCHS, compress=compress, progress=False
    )
    model = learner.write_back(result.params)
    return Trained(model, chosen, images.take(chosen[:CALIBRATION]), images.take(order[:VALIDATION]), test)


def _learner(model: Any) -> Any:
    return ranvier.compile(model, ranvier.D_RTRL(), jnp.zeros(64), batch_size=BATCH, reduction="mean")


def accuracy(graph: ranvier.SNNGraph, batch: Any) -> float:
    output = ranvier.simulate(graph, batch.xs).output
    return float(ranvier.accuracy(jnp.asarray(output), jnp.asarray(batch.ys), batch.mask))


def finetune(trained: Trained, seed: int) -> ranvier.Finetune:
    return ranvier.Finetune(partial(batches, trained.chosen, 100 + seed), loss, optimizer(TUNING_RATE))


def optimized(trained: Trained, seed: int, passes: str | None, tune: bool, budget: float | None = None) -> Any:
    """The report of an optimization."""
    return ranvier.optimize(
        trained.model,
        passes,
        level="O3",
        calibration=trained.calibration,
        validation=trained.validation,
        metric=ranvier.accuracy,
        budget=budget,
        finetune=finetune(trained, seed) if tune else None,
        verify_each=False,
    )[1]


def budget_rows(networks: list[Trained]) -> Iterator[tuple[str, ...]]:
    """Whether each budget holds, with and without fine-tuning."""
    for limit in LIMITS:
        for tune in (False, True):
            reports = [optimized(one, seed, None, tune, limit) for seed, one in enumerate(networks)]
            before, after = (
                np.array([accuracy(getattr(report, graph), one.test) for report, one in zip(reports, networks)])
                for graph in ("original", "optimized")
            )
            left = np.mean([report.after.synapses / report.before.synapses for report in reports])
            lost = before - after
            yield (
                f"{limit:.0%}",
                "yes" if tune else "no",
                f"{(lost <= limit).sum()} of {len(lost)}",
                f"{lost.max():.1%}",
                f"{lost.mean():.1%}",
                f"{left:.1%}",
                f"{before.mean():.1%}",
                f"{after.mean():.1%}",
            )


def sparsity_rows(networks: list[Trained]) -> Iterator[tuple[str, ...]]:
    """Test accuracy by sparsity and by how the weights are pruned."""
    ways = (("magnitude", False), ("saliency", False), ("saliency", True))
    for sparsity in SPARSITIES:
        means = []
        for method, tune in ways:
            passes = f"prune{{sparsity={sparsity},method={method},scope=global}}"
            reports = [optimized(one, seed, passes, tune) for seed, one in enumerate(networks)]
            means.append(np.mean([accuracy(r.optimized, one.test) for r, one in zip(reports, networks)]))
        yield (f"{sparsity:.0%}", *(f"{mean:.1%}" for mean in means))


def bits_rows(networks: list[Trained]) -> Iterator[tuple[str, ...]]:
    """Test accuracy by bits, of weights that are rounded after training, and of weights trained with rounding."""
    for bits in BITS:
        means = []
        for aware in (False, True):
            seeds = range(len(networks))
            compress = [ranvier.QuantizeAware(bits=bits, start_epoch=EPOCHS // 2)]
            ones = [train(seed, compress) for seed in seeds] if aware else networks
            reports = [optimized(one, seed, f"quantize{{format=int{bits}}}", False) for seed, one in zip(seeds, ones)]
            means.append(np.mean([accuracy(r.optimized, one.test) for r, one in zip(reports, ones)]))
        yield (str(bits), *(f"{mean:.1%}" for mean in means))


def main(write: Annotated[bool, typer.Option("--write", help="Write the committed tables.")] = False) -> None:
    """Trains, optimizes and tests, and prints the tables."""
    networks = [train(seed) for seed in range(SEEDS)]
    tables = (
        ("Budgets", BUDGET_HEADER, budget_rows(networks)),
        (f"Test accuracy by sparsity, mean of {CURVES} seeds", SPARSITY_HEADER, sparsity_rows(networks[:CURVES])),
        (f"Test accuracy by bits, mean of {CURVES} seeds", BITS_HEADER, bits_rows(networks[:CURVES])),
    )
    lines = ["# Budgets on unseen data", "", "`python -m benchmarks.budgets --write`", "", NOTE, ""]
    lines += [f"{describe_machine()}.", "", f"{describe_machine().versions_text}.", ""]
    for title, header, rows in tables:
        values = list(rows)
        print_table(Console(width=140), title, header, values)
        lines += [f"## {title}", "", *markdown_table(header, values), ""]
    if write:
        RESULTS.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
