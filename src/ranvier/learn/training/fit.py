"""``ranvier.fit``: a training loop with metrics, held-out evaluation, checkpoints and a stop on NaN."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ...errors import InputError, TrainingError, reason_text
from ...program.paths import Path, path_text
from ..kernel import Loss
from ..learner import Learner
from ..options import check_function
from .checkpoint import Checkpoints

Metric = Callable[[Any, Any, Any], Any]
Data = Iterable[Any] | Callable[[int], Iterable[Any]]


@dataclass(frozen=True)
class FitResult:
    """What training ends with.

    Attributes:
        params: trained parameters by path; ``learner.write_back(result.params)`` puts them into the model.
        optimizer_state: the optimizer's state, to go on with.
        history: one dictionary per epoch: ``"epoch"``, ``"loss"`` and the metrics, held-out ones with ``"eval_"``
            before.
    """

    params: dict[Path, Any]
    optimizer_state: Any
    history: list[dict[str, float]] = field(default_factory=list)


class _Batch(NamedTuple):
    xs: Any
    ys: Any
    mask: Any


def accuracy(outputs: Any, ys: Any, mask: Any = None) -> jax.Array:
    """Fraction of right classes over the steps that count.

    Args:
        outputs: ``[T, ..., classes]``.
        ys: class numbers, ``[T, ...]``.
        mask: ``[T]``; steps with weight zero do not count. Where none counts, the accuracy is zero.
    """
    if jnp.shape(ys) != outputs.shape[:-1]:
        raise InputError(
            f"accuracy needs one class for every output, {list(outputs.shape[:-1])}, but ys has shape "
            f"{list(jnp.shape(ys))}; write a metric of your own for other targets."
        )
    right = (jnp.argmax(outputs, axis=-1) == ys).astype(jnp.promote_types(jnp.float32, outputs.dtype))
    by_step = right.reshape(right.shape[0], -1).mean(axis=1)
    weights = jnp.ones_like(by_step) if mask is None else jnp.asarray(mask, by_step.dtype)
    return (by_step * weights).sum() / jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)


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
        epochs: how many in all; after a resume, those already done count, so that a training which has had them all
            comes back as its checkpoint has it.
        params: what to start from; the model's own by default. In the model's own structure, as from
            ``learner.nested(learner.params)``, the optimizer gets parameters and gradients in that too. A resumed
            training goes on from its checkpoint instead.
        optimizer_state: what to start from, such as ``FitResult.optimizer_state``, or after :func:`ranvier.optimize`
            ``report.carry(...)`` of it; a fresh one by default.
        metrics: name to ``metric(outputs, ys, mask)``, time-major, e.g. ``{"accuracy": ranvier.accuracy}``.
        held_out: batches, as ``data``, on which loss and metrics are taken after every epoch.
        checkpoint: directory in which every epoch is kept (the last three), for one training at a time; needs
            ``orbax-checkpoint``.
        resume: go on from the last checkpoint found there; the result is that of a run without interruption, bit by
            bit, as
            long as ``data`` gives the same batches.
        progress: whether to show a progress bar.

    Raises:
        TrainingError: a loss, gradient or parameter is not finite; names the first bad parameter or state.
        InputError: a batch, a metric or the checkpoint does not fit.
    """
    _check(learner, data, held_out, optimizer, epochs)
    metrics = _checked_metrics(metrics)
    run = _Run(learner, loss, optimizer, metrics)
    state = run.start(params, optimizer_state)
    done, history = 0, []
    with ExitStack() as open_:
        checkpoints = None if checkpoint is None else open_.enter_context(Checkpoints(checkpoint, learner, params))
        if checkpoints is not None and (last := checkpoints.restore(state) if resume else checkpoints.must_be_empty()):
            state, history = last
            done = len(history)
        bar = open_.enter_context(_bar(progress))
        for epoch in range(done, epochs):
            task = bar.add_task(f"epoch {epoch + 1}", told="") if bar else None
            state, found = run.epoch(state, _batches(data, epoch), epoch, partial(_tell, bar, task))
            if held_out is not None:
                held = run.evaluate(state.params, _batches(held_out, epoch))
                found |= {f"eval_{name}": value for name, value in held.items()}
                _tell(bar, task, None, None, found)
            history.append({"epoch": float(epoch), **found})
            if checkpoints is not None:
                checkpoints.save(epoch, state, history)
    return FitResult(state.params, state.optimizer_state, history)


def _check_alike(given: Any, fresh: Any) -> None:
    """Raises InputError where an optimizer's state is not for these parameters."""
    same = jax.tree.structure(given) == jax.tree.structure(fresh)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(state)] for state in (given, fresh)]
    if not same or shapes[0] != shapes[1]:
        raise InputError(
            "optimizer_state is for another optimizer or other parameters than the learner's; pass "
            "FitResult.optimizer_state of the same model, or report.carry(...) of it after ranvier.optimize."
        )


class FitState(NamedTuple):
    """What goes from update to update."""

    params: dict[Path, Any]
    optimizer_state: Any
    updates: jax.Array
    lasting: Any


class _Run:
    """The compiled parts of one call of :func:`fit`."""

    def __init__(self, learner: Learner, loss: Loss, optimizer: Any, metrics: Mapping[str, Metric]) -> None:
        self.learner, self.loss, self.optimizer, self.metrics = learner, loss, optimizer, metrics
        self._update = jax.jit(self._updated)
        self._evaluated = jax.jit(self._evaluate)

    def start(self, params: Mapping[Path, Any] | None, optimizer_state: Any) -> FitState:
        own = self.learner.completed(params)
        fresh = _started(self.optimizer, own)
        if optimizer_state is not None:
            _check_alike(optimizer_state, fresh)
        kept = fresh if optimizer_state is None else optimizer_state
        return FitState(own, kept, jnp.zeros((), jnp.int32), self.learner.lasting(params))

    def _updated(self, state: FitState, batch: _Batch) -> tuple[FitState, dict[str, jax.Array], dict[str, Any]]:
        learner = self._learner_of(batch)
        start = learner.restart(state.params, state.lasting, state.updates)
        grads, aux = learner.grad(
            self.loss,
            batch.xs,
            batch.ys,
            state=start,
            params=state.params,
            mask=batch.mask,
            keep_state=start is not None,
        )
        descending = jax.tree.map(jnp.conj, grads)
        updates, optimizer_state = self.optimizer.update(descending, state.optimizer_state, state.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        found = {"loss": aux.loss, **self._measured(aux.outputs, batch)}
        slots = {"gradient": grads, "parameter": params}
        finite = {"loss": _finite(aux.loss)} | {k: _by_slot(learner.by_path(tree)) for k, tree in slots.items()}
        lasting = state.lasting if aux.state is None else learner.lasting_of(aux.state)
        return FitState(params, optimizer_state, state.updates + 1, lasting), found, finite

    def _learner_of(self, batch: _Batch) -> Learner:
        """The learner for as many samples as a batch has, such as the last one of the data."""
        learner, shapes = self.learner, [jnp.shape(leaf) for leaf in jax.tree.leaves(batch.xs)]
        expected = [len(aval.shape) + 1 for aval in learner.info.input_avals]
        samples = {shape[1] for shape in shapes if len(shape) > 1}
        fits = list(map(len, shapes)) == expected and len(samples) == 1
        return learner.with_batch_size(*samples) if fits and learner.batch_size is not None else learner

    def _measured(self, outputs: Any, batch: _Batch) -> dict[str, jax.Array]:
        found = {name: jnp.asarray(metric(outputs, batch.ys, batch.mask)) for name, metric in self.metrics.items()}
        for name, value in found.items():
            if value.shape != ():
                raise InputError(
                    f"metrics[{name!r}] gave an array of shape {list(value.shape)}; one number is expected."
                )
        return found

    def _evaluate(self, params: Mapping[Path, Any], batch: _Batch) -> dict[str, jax.Array]:
        learner = self._learner_of(batch)
        found, outputs = learner.evaluate(self.loss, batch.xs, batch.ys, params=params, mask=batch.mask)
        return {"loss": found, **self._measured(outputs, batch)}

    def epoch(
        self, state: FitState, batches: Sequence[_Batch] | Iterator[_Batch], epoch: int, tell: Callable[..., None]
    ) -> tuple[FitState, dict[str, float]]:
        """One pass over the data: the state after it, and the mean loss and metrics."""
        total: dict[str, float] = {}
        count = 0
        for count, batch in enumerate(batches, 1):
            after, found, finite = self._update(state, batch)
            if not all(bool(x) for x in jax.tree.leaves(finite)):
                raise TrainingError(self._what_is_bad(state, batch, finite, epoch, count))
            state = after
            for name, value in found.items():
                total[name] = total.get(name, 0.0) + float(value)
            tell(count, _length(batches), {name: value / count for name, value in total.items()})
        if not count:
            raise InputError(f"data gave no batch for epoch {epoch + 1}; give a list or a function of the epoch.")
        return state, {name: value / count for name, value in total.items()}

    def evaluate(self, params: Mapping[Path, Any], batches: Iterable[_Batch]) -> dict[str, float]:
        """The loss, a mean over batches, and the metrics, means over samples."""
        found, samples = [], []
        for batch in batches:
            found.append(self._evaluated(params, batch))
            samples.append(1 if self.learner.batch_size is None else jnp.shape(jax.tree.leaves(batch.xs)[0])[1])
        if not found:
            raise InputError("held_out gave no batch; give a list, or a function of the epoch.")
        weights = {name: samples if name in self.metrics else [1] * len(found) for name in found[0]}
        return {
            name: sum(w * float(f[name]) for w, f in zip(by_batch, found, strict=True)) / sum(by_batch)
            for name, by_batch in weights.items()
        }

    def _what_is_bad(self, state: FitState, batch: _Batch, finite: dict[str, Any], epoch: int, count: int) -> str:
        """The first bad state if there is one, else the first bad parameter."""
        at = f"training stopped at epoch {epoch + 1}, update {count}: "
        learner = self._learner_of(batch)
        start = learner.restart(state.params, state.lasting, state.updates)
        bad = learner.first_bad_state(batch.xs, params=state.params, state=start)
        if bad is not None:
            path, step = bad
            what = f"hidden state {path_text(path)} is not finite from step {step} on"
        elif wrong := [path for path, fine in finite["gradient"].items() if not bool(fine)]:
            what = f"the gradient of {path_text(wrong[0])} is not finite, while all hidden states are"
        elif wrong := [path for path, fine in finite["parameter"].items() if not bool(fine)]:
            what = f"the optimizer made {path_text(wrong[0])} not finite from a finite gradient"
        else:
            what = "the loss is not finite, while all hidden states are"
        return (
            f"{at}{what}. Lower the learning rate, clip gradients (optax.clip_by_global_norm), or look at the inputs."
        )


def _started(optimizer: Any, params: Any) -> Any:
    """An optimizer's first state.

    Raises:
        InputError: it cannot start from these parameters, such as one with labels in another structure.
    """
    try:
        return optimizer.init(params)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"the optimizer cannot start from the parameters ({reason_text(error)}). By default they are a dictionary "
            "by path, as learner.params; where its labels or masks have the structure of the model's own parameters, "
            "pass params=learner.nested(learner.params)."
        ) from error


def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _by_slot(tree: Mapping[Path, Any]) -> dict[Path, jax.Array]:
    return {path: _finite(value) for path, value in tree.items()}


def _batches(data: Data, epoch: int) -> Any:
    found = data(epoch) if callable(data) else data
    if isinstance(found, Sequence):
        return [_as_batch(item) for item in found]
    return (_as_batch(item) for item in found)


def _as_batch(item: Any) -> _Batch:
    if hasattr(item, "xs") and hasattr(item, "ys"):
        return _Batch(item.xs, item.ys, getattr(item, "mask", None))
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return _Batch(item[0], item[1], item[2] if len(item) == 3 else None)
    raise InputError(
        f"a batch is {type(item).__name__}, but fit needs (xs, ys) or (xs, ys, mask), or an object like that."
    )


def _tell(bar: Any, task: Any, done: int | None, total: int | None, found: Mapping[str, float]) -> None:
    if bar:
        told = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        bar.update(task, completed=done, total=total, told=told)


def _length(batches: Any) -> int | None:
    return len(batches) if isinstance(batches, Sequence) else None


def _check(learner: Learner, data: Data, held_out: Data | None, optimizer: Any, epochs: int) -> None:
    if not isinstance(learner, Learner):
        raise InputError(
            f"fit(learner, data, ...) needs a learner first, got a {type(learner).__name__}; make one with "
            "ranvier.compile(model, ranvier.D_RTRL(), x0)."
        )
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise InputError(f"optimizer is {optimizer!r}; pass an optax gradient transformation, e.g. optax.adam(1e-3).")
    if not isinstance(epochs, Integral) or isinstance(epochs, bool) or epochs < 1:
        raise InputError(f"epochs={epochs!r} must be a whole number of at least 1.")
    for name, given in (("data", data), ("held_out", held_out)):
        if not (callable(given) or isinstance(given, Iterable)) and not (given is None and name == "held_out"):
            raise InputError(f"{name} is {given!r}; give a list of batches (xs, ys), or a function of the epoch.")
        once = not callable(given) and given is not None and iter(given) is given
        if once and (epochs > 1 or name == "held_out"):
            raise InputError(
                f"{name} can be iterated only once, but there are {epochs} epochs; pass a list, or a function that "
                "gives the batches of an epoch, as in `lambda epoch: make_batches(seed=epoch)`."
            )


def _checked_metrics(metrics: Any) -> dict[str, Metric]:
    example = '{"accuracy": ranvier.accuracy}'
    if not isinstance(metrics or {}, Mapping) or not all(isinstance(name, str) for name in metrics or ()):
        raise InputError(f"metrics is {metrics!r}; give a dictionary of functions by name, e.g. {example}.")
    for name, metric in (metrics or {}).items():
        if name in ("epoch", "loss") or name.startswith("eval_"):
            raise InputError(f"the name {name!r} of a metric is taken by fit's own history; choose another.")
        check_function(
            f"metrics[{name!r}]",
            metric,
            ("outputs", "ys", "mask"),
            "lambda outputs, ys, mask: ...",
            InputError,
            hashed=False,
        )
    return dict(metrics or {})


def _bar(progress: bool) -> Any:
    if not progress:
        return nullcontext()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("{task.fields[told]}"))
