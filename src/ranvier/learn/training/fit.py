"""``ranvier.fit``: a training loop with metrics, held-out evaluation, checkpoints and a stop on NaN."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from ...errors import InputError
from ...program.paths import Path
from ..kernel import Loss
from ..learner import Learner
from .batches import Data, batches_of, check_data
from .checkpoint import Checkpoints
from .compression import Compression, Compressions
from .metrics import Metric, checked_metrics
from .progress import progress_shown
from .trainer import Trainer


@dataclass(frozen=True)
class FitResult:
    """The result of a training run.

    Attributes:
        params: trained parameters by path; ``learner.write_back(result.params)`` puts them into the model.
        optimizer_state: the optimizer's state, to go on with.
        history: one dictionary per epoch: ``"epoch"``, ``"loss"`` and the metrics, held-out ones with ``"eval_"``
            before.
        uncompressed: the parameters behind compressed ones, which the optimizer moved; pass them as ``params`` to
            continue. The same as ``params`` without ``compress``.
    """

    params: dict[Path, Any]
    optimizer_state: Any
    history: list[dict[str, float]] = field(default_factory=list)
    uncompressed: dict[Path, Any] = field(default_factory=dict)


def fit(
    learner: Learner,
    data: Data,
    loss: Loss,
    optimizer: Any,
    epochs: int,
    *,
    params: Mapping[Path, Any] | None = None,
    optimizer_state: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    compress: Sequence[Compression] = (),
    held_out: Data | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = True,
) -> FitResult:
    """Trains a learner's parameters.

    Every batch is a sequence of its own, started from the model's initial states.

    Args:
        learner: from :func:`ranvier.compile`.
        data: batches ``(xs, ys)`` or ``(xs, ys, mask)``, or objects with these attributes: something that can be
            iterated again for every epoch, or a function of the epoch's number that gives an iterable. Batches of a
            learner with ``batch_size`` may have other sizes, such as a last one with fewer samples.
        loss: ``loss(output, target) -> scalar`` of one step.
        optimizer: an optax gradient transformation.
        epochs: how many in all; after a resume, those already done count, so a training that has had them all is
            returned as its checkpoint has it.
        params: what to start from; the model's own by default. In the model's own structure, as from
            ``learner.nested(learner.params)``, the optimizer gets parameters and gradients in that too. A resumed
            training goes on from its checkpoint instead.
        optimizer_state: what to start from, such as ``FitResult.optimizer_state``, or after :func:`ranvier.optimize`
            ``report.carry(...)`` of it; a fresh one by default.
        metrics: name to ``metric(outputs, ys, mask)``, time-major, e.g. ``{"accuracy": ranvier.accuracy}``.
        compress: how weights are pruned or rounded while they are trained, such as ``[ranvier.GradualPruning(0.9),
            ranvier.QuantizeAware(bits=8)]``, for any rule. Metrics, held-out numbers and the resulting parameters are
            those of the compressed network.
        held_out: batches, as ``data``, on which loss and metrics are taken after every epoch.
        checkpoint: directory in which every epoch is kept (the last three), for one training at a time; needs
            ``orbax-checkpoint``.
        resume: go on from the last checkpoint there; the result is that of a run without interruption, bit by bit, as
            long as ``data`` gives the same batches.
        progress: whether to show a progress bar.

    Raises:
        TrainingError: a loss, gradient or parameter is not finite; names the first bad parameter or state.
        InputError: a batch, a metric or the checkpoint does not fit.
    """
    _check(learner, data, held_out, optimizer, epochs)
    trainer = Trainer(learner, loss, optimizer, checked_metrics(metrics), Compressions.of(compress))
    state = trainer.start(params, optimizer_state)
    history: list[dict[str, float]] = []
    with ExitStack() as open_:
        # Locked before anything is read, until the last epoch is written: two trainings in one folder would take turns
        # at overwriting each other's epochs.
        checkpoints = None if checkpoint is None else open_.enter_context(Checkpoints(checkpoint, learner, params))
        if checkpoints is not None and (last := checkpoints.restore(state) if resume else checkpoints.must_be_empty()):
            state, history = last
        shown = open_.enter_context(progress_shown(progress))
        for epoch in range(len(history), epochs):
            shown.start_epoch(epoch)
            state = trainer.at_epoch(state, epoch, epochs)
            state, numbers = trainer.epoch(state, batches_of(data, epoch), epoch, shown)
            if held_out is not None:
                evaluated = trainer.evaluate(trainer.running(state), batches_of(held_out, epoch))
                numbers |= {f"eval_{name}": value for name, value in evaluated.items()}
                shown.show(numbers)
            history.append({"epoch": float(epoch), **numbers})
            # After the held-out numbers, so that the history of a resumed training has them, too.
            if checkpoints is not None:
                checkpoints.save(epoch, state, history)
    return FitResult(trainer.running(state), state.optimizer_state, history, state.params)


def _check(learner: Learner, data: Data, held_out: Data | None, optimizer: Any, epochs: int) -> None:
    if not isinstance(learner, Learner):
        raise InputError(
            f"fit(learner, data, ...) needs a learner as its first argument, but got a {type(learner).__name__}; make "
            "one with ranvier.compile(model, ranvier.D_RTRL(), x0)."
        )
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(f"optimizer is {optimizer!r}; pass an optax gradient transformation, e.g. optax.adam(1e-3).")
    if not isinstance(epochs, Integral) or isinstance(epochs, bool) or epochs < 1:
        raise InputError(f"epochs={epochs!r} must be a whole number of at least 1.")
    check_data("data", data, epochs)
    if held_out is not None:
        check_data("held_out", held_out, epochs)
