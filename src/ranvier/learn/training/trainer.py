"""The compiled parts of a training run: updates, epochs and evaluations.

One update of ``w`` = 2 by plain gradient descent at a rate of 0.1, with a gradient of 3, goes

    gradient     3, from a fresh start of the sequence (with noise of its own where the model draws random numbers)
    update       optax makes -0.3 of it; w becomes 1.7
    finite       loss, gradient and parameter are: the new state counts

and where one of them is not, the state before the update is run again to say which state went wrong first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...errors import InputError, TrainingError, reason_text
from ...program.paths import Path, path_text
from ..kernel import Loss
from ..learner import Learner
from .batches import Batches, TrainingBatch, batch_count
from .compression import NO_COMPRESSION, Compressions
from .metrics import Metric
from .progress import TrainingProgress


class FitState(NamedTuple):
    """The state that one update passes on to the next."""

    params: dict[Path, Any]
    optimizer_state: Any
    updates: jax.Array
    lasting: Any
    compression: tuple[Any, ...] = ()


class Trainer:
    """The compiled parts of one call of :func:`fit`."""

    def __init__(
        self,
        learner: Learner,
        loss: Loss,
        optimizer: Any,
        metrics: Mapping[str, Metric],
        compressions: Compressions = NO_COMPRESSION,
    ) -> None:
        self.learner, self.loss, self.optimizer, self.metrics = learner, loss, optimizer, metrics
        self.compressions = compressions
        self._update = jax.jit(self._updated)
        self._evaluated = jax.jit(self._evaluate)

    def start(self, params: Mapping[Path, Any] | None, optimizer_state: Any) -> FitState:
        first_params = self.learner.completed(params)
        fresh = _started(self.optimizer, first_params)
        if optimizer_state is not None:
            _check_alike(optimizer_state, fresh)
        first = fresh if optimizer_state is None else optimizer_state
        # An array from the start: a Python number is weakly typed, and the second update, with an int32, would be
        # compiled anew.
        compression = self.compressions.start(self.learner.by_path(first_params))
        return FitState(first_params, first, jnp.zeros((), jnp.int32), self.learner.lasting(params), compression)

    def at_epoch(self, state: FitState, epoch: int, epochs: int) -> FitState:
        """The state before an epoch, counted from 0: how much is compressed in it."""
        params = self.learner.by_path(state.params)
        return state._replace(compression=self.compressions.at_epoch(state.compression, params, epoch, epochs))

    def running(self, state: FitState) -> Any:
        """The parameters that the network runs with, in the structure of the state's."""
        return self._in_structure(state.params, partial(self.compressions.applied, state.compression))

    def _in_structure(self, tree: Any, change: Callable[[Mapping[Path, Any]], Mapping[Path, Any]]) -> Any:
        """A change of values by path, of values that may be in the model's own structure."""
        if not self.compressions.parts:
            return tree
        by_path = self.learner.by_path(tree)
        changed = change(by_path)
        return changed if by_path is tree else self.learner.nested(changed)

    def _updated(self, state: FitState, batch: TrainingBatch) -> tuple[FitState, dict[str, jax.Array], dict[str, Any]]:
        learner, running = self._learner_of(batch), self.running(state)
        # None for most models, whose memory is then known to be empty: the first chunk has no product with a trace.
        start = learner.restart(running, state.lasting, state.updates)
        grads, aux = learner.grad(
            self.loss,
            batch.xs,
            batch.ys,
            state=start,
            params=running,
            mask=batch.mask,
            keep_state=start is not None,
        )
        grads = self._in_structure(grads, partial(self.compressions.pulled, state.compression))
        # Of a complex parameter JAX gives the conjugate of the direction of steepest ascent.
        descending = jax.tree.map(jnp.conj, grads)
        updates, optimizer_state = self.optimizer.update(descending, state.optimizer_state, state.params)
        # An optimizer in single precision must not turn a bfloat16 parameter into a float32 one: that would recompile.
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        numbers = {"loss": aux.loss, **self._measured(aux.outputs, batch)}
        slots = {"gradient": grads, "parameter": params}
        # Flags for each parameter, computed in the same program: whole gradients need not be looked at outside it.
        finite = {"loss": _finite(aux.loss)} | {k: _by_slot(learner.by_path(tree)) for k, tree in slots.items()}
        lasting = state.lasting if aux.state is None else learner.lasting_of(aux.state)
        after = FitState(params, optimizer_state, state.updates + 1, lasting, state.compression)
        return after, numbers, finite

    def _learner_of(self, batch: TrainingBatch) -> Learner:
        """The learner for as many samples as a batch has, such as the last one of the data."""
        learner, shapes = self.learner, [jnp.shape(leaf) for leaf in jax.tree.leaves(batch.xs)]
        expected = [len(aval.shape) + 1 for aval in learner.info.input_avals]
        samples = {shape[1] for shape in shapes if len(shape) > 1}
        # Other batch sizes have learners of their own, made while this is traced: one compilation per size.
        fits = list(map(len, shapes)) == expected and len(samples) == 1
        return learner.with_batch_size(*samples) if fits and learner.batch_size is not None else learner

    def _measured(self, outputs: Any, batch: TrainingBatch) -> dict[str, jax.Array]:
        values = {name: jnp.asarray(metric(outputs, batch.ys, batch.mask)) for name, metric in self.metrics.items()}
        for name, value in values.items():
            if value.shape != ():
                raise InputError(
                    f"metrics[{name!r}] returned an array of shape {list(value.shape)}, but must return one number."
                )
        return values

    def _evaluate(self, params: Mapping[Path, Any], batch: TrainingBatch) -> dict[str, jax.Array]:
        learner = self._learner_of(batch)
        loss, outputs = learner.evaluate(self.loss, batch.xs, batch.ys, params=params, mask=batch.mask)
        return {"loss": loss, **self._measured(outputs, batch)}

    def epoch(
        self, state: FitState, batches: Batches, epoch: int, progress: TrainingProgress
    ) -> tuple[FitState, dict[str, float]]:
        """One pass over the data: the state after it, and the mean loss and metrics."""
        total: dict[str, float] = {}
        count = 0
        for count, batch in enumerate(batches, 1):
            after, numbers, finite = self._update(state, batch)
            # ``state`` is still the one before the update, so the first value that went wrong can be looked for.
            if not all(bool(x) for x in jax.tree.leaves(finite)):
                raise TrainingError(self._what_is_bad(state, batch, finite, epoch, count))
            state = after
            for name, value in numbers.items():
                total[name] = total.get(name, 0.0) + float(value)
            progress.show({name: value / count for name, value in total.items()}, count, batch_count(batches))
        if not count:
            raise InputError(
                f"data has no batches for epoch {epoch + 1}; pass a list, or a function of the epoch that returns them."
            )
        return state, {name: value / count for name, value in total.items()}

    def evaluate(self, params: Mapping[Path, Any], batches: Iterable[TrainingBatch]) -> dict[str, float]:
        """The loss, a mean over batches, and the metrics, means over samples.

        A last batch of 4 samples beside others of 16 counts a quarter: otherwise an accuracy would depend on the batch
        size.
        """
        by_batch, samples = [], []
        for batch in batches:
            by_batch.append(self._evaluated(params, batch))
            samples.append(1 if self.learner.batch_size is None else jnp.shape(jax.tree.leaves(batch.xs)[0])[1])
        if not by_batch:
            raise InputError("held_out has no batches; pass a list, or a function of the epoch that returns them.")
        means = {}
        for name in by_batch[0]:
            weights = samples if name in self.metrics else [1] * len(by_batch)
            weighted = [w * float(numbers[name]) for w, numbers in zip(weights, by_batch, strict=True)]
            means[name] = sum(weighted) / sum(weights)
        return means

    def _what_is_bad(
        self, state: FitState, batch: TrainingBatch, finite: dict[str, Any], epoch: int, count: int
    ) -> str:
        """The first bad state if there is one, else the first bad parameter."""
        at = f"training stopped at epoch {epoch + 1}, update {count}: "
        learner = self._learner_of(batch)
        # The same start as in the update, noise included, or the failure might not come again.
        running = self.running(state)
        start = learner.restart(running, state.lasting, state.updates)
        bad = learner.first_bad_state(batch.xs, params=running, state=start)
        if bad is not None:
            path, step = bad
            what = f"hidden state {path_text(path)} is not finite from step {step} on"
        elif wrong := [path for path, fine in finite["gradient"].items() if not bool(fine)]:
            what = f"the gradient of {path_text(wrong[0])} is not finite, while all hidden states are"
        elif wrong := [path for path, fine in finite["parameter"].items() if not bool(fine)]:
            what = f"the optimizer made {path_text(wrong[0])} not finite from a finite gradient"
        else:
            what = "the loss is not finite, while all hidden states are"
        return f"{at}{what}. Lower the learning rate, clip gradients (optax.clip_by_global_norm), or check the inputs."


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
            "by path, like learner.params; if the optimizer's labels or masks have the structure of the model's own "
            "parameters, pass params=learner.nested(learner.params)."
        ) from error


def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _by_slot(tree: Mapping[Path, Any]) -> dict[Path, jax.Array]:
    return {path: _finite(value) for path, value in tree.items()}


def _check_alike(state: Any, fresh: Any) -> None:
    """Raises InputError where an optimizer's state is not for these parameters."""
    same = jax.tree.structure(state) == jax.tree.structure(fresh)
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (state, fresh)]
    if not same or shapes[0] != shapes[1]:
        raise InputError(
            "optimizer_state belongs to another optimizer or to other parameters; pass the FitResult.optimizer_state "
            "of the same model, or, after ranvier.optimize, what report.carry(...) makes of it."
        )
