"""Training between the stages of pruning.

One learner and one compiled update serve all stages: weights and masks are its arguments, so that nothing is compiled
again as long as the shapes stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import InputError
from ..frontends.step_function import StepFunction
from ..graph.printer import to_text
from ..graph.shared import trained_arrays
from ..graph.snn_graph import SNNGraph
from ..learn.compile import compile
from ..learn.rules.d_rtrl import D_RTRL
from ..learn.training.batches import batches_of
from ..learn.training.compression import Compressions, HeldMasks
from ..learn.training.progress import progress_shown
from ..learn.training.trainer import Trainer
from ..passes.base import Rewriting
from ..passes.gradual import TrainedGraph
from ..passes.optimizer_state import moved_index, optimizer_state_map, own_index
from ..simulation.lower import with_weights
from ..util.counting import counted
from .finetune import Finetune


@dataclass(frozen=True, eq=False)
class Memory:
    """What one training leaves for the next one.

    Attributes:
        optimizer_state: of the optimizer.
        epochs: how many have been trained, the number of the next one.
    """

    optimizer_state: Any
    epochs: int


@dataclass(eq=False)
class FineTuning:
    """Trains graphs as a user asks for.

    Attributes:
        finetune: what that is.
        as_model: a graph as a step function with the user's inputs and outputs.
    """

    finetune: Finetune
    as_model: Callable[[SNNGraph], StepFunction]
    _trainers: dict[str, Trainer] = field(default_factory=dict)

    @property
    def stages(self) -> int:
        return self.finetune.stages if self.finetune.schedule == "cubic" else 1

    def train(self, before: SNNGraph, rewriting: Rewriting, memory: Memory | None) -> TrainedGraph:
        """Trains what a rewriting of a graph has left, with absent synapses held at zero."""
        graph = rewriting.graph
        trainer, done = self._trainer(graph), 0 if memory is None else memory.epochs
        params = {path: jnp.asarray(value, _dtype(trainer, path)) for path, value in trained_arrays(graph).items()}
        carried = None if memory is None else _carried(before, rewriting, memory.optimizer_state)
        state = trainer.start(params, carried)._replace(compression=(_masks(graph, params),))
        losses = []
        with progress_shown(False) as shown:
            for epoch in range(done, done + self.finetune.epochs):
                state, numbers = trainer.epoch(state, batches_of(self.finetune.data, epoch), epoch, shown)
                losses.append(numbers["loss"])
        trained = with_weights(graph, {path: np.asarray(value) for path, value in trainer.running(state).items()})
        message = f"trained for {counted(len(losses), 'epoch')}: mean loss {losses[0]:.3g}"
        message += f" in the first, {losses[-1]:.3g} in the last" if len(losses) > 1 else ""
        return TrainedGraph(trained, Memory(state.optimizer_state, done + len(losses)), message)

    def _trainer(self, graph: SNNGraph) -> Trainer:
        """The compiled training of a graph; the same one for graphs that differ in trained weights only."""
        key = _structure(graph)
        if key not in self._trainers:
            inputs, batch_size = self._example(graph)
            finetune = self.finetune
            learner = compile(
                self.as_model(_without_masks(graph)),
                D_RTRL() if finetune.rule is None else finetune.rule,
                *inputs,
                batch_size=batch_size,
                reduction=finetune.reduction,
            )
            masks = Compressions((HeldMasks(),))
            # Only the last one: structures of earlier stages do not come back.
            self._trainers = {key: Trainer(learner, finetune.loss, finetune.optimizer, {}, masks)}
        return self._trainers[key]

    def _example(self, graph: SNNGraph) -> tuple[tuple[Any, ...], int | None]:
        """Inputs of one step and one sample, and the batch size, from the first batch.

        Raises:
            InputError: there is none, or its shape fits neither one sample nor a batch.
        """
        batch = next(iter(batches_of(self.finetune.data, 0)), None)
        if batch is None:
            raise InputError("Finetune: data has no batches.")
        leaves = jax.tree.leaves(batch.xs)
        expected = [node.shape for node in graph.inputs.values()]
        axes = {np.ndim(leaf) - len(shape) for leaf, shape in zip(leaves, expected, strict=False)}
        if len(leaves) != len(expected) or axes not in ({1}, {2}):
            raise InputError(
                f"Finetune: a batch has inputs of the shapes {[list(np.shape(x)) for x in leaves]}, but the network "
                f"takes {[list(shape) for shape in expected]} in a step; [T, samples, ...] is expected."
            )
        batched = axes == {2}
        first = jax.tree.map(lambda x: jnp.asarray(x[0, 0] if batched else x[0]), batch.xs)
        return first if isinstance(first, tuple) else (first,), np.shape(leaves[0])[1] if batched else None


def _without_masks(graph: SNNGraph) -> SNNGraph:
    """A copy that holds no masks: the training holds them, as arguments that change from stage to stage."""
    copy = graph.copy()
    copy.projections = {name: p.replace(masked=False) for name, p in graph.projections.items()}
    return copy


def _masks(graph: SNNGraph, params: dict[Any, Any]) -> dict[Any, Any]:
    """Of every dense weight of its own, one where a synapse is present."""
    masks = {}
    for name, projection in graph.projections.items():
        path = name, "weight"
        # Of all weights, pruned or not, so that the compiled update takes the same arguments in every stage.
        if path in params:
            mask = projection.mask
            masks[path] = jnp.ones_like(params[path]) if mask is None else jnp.asarray(mask, params[path].dtype)
    return masks


def _structure(graph: SNNGraph) -> str:
    """A digest of all of a graph but the values of its trained weights."""
    zeros = {path: np.zeros_like(value) for path, value in trained_arrays(graph).items()}
    text, arrays = to_text(with_weights(_without_masks(graph), zeros))
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(arrays.items()):
        digest.update(f"{name}{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _carried(before: SNNGraph, rewriting: Rewriting, optimizer_state: Any) -> Any:
    """An optimizer's state for the weights that a rewriting has left."""
    if not any(np.ndim(leaf) for leaf in jax.tree.leaves(optimizer_state)):
        return optimizer_state  # one without memory, such as plain gradient descent
    shapes = {path: (value.shape,) for path, value in trained_arrays(before).items()}
    index = moved_index(before, rewriting.graph, rewriting.origins)
    return optimizer_state_map(shapes, own_index(before), index)(optimizer_state)


def _dtype(trainer: Trainer, path: Any) -> Any:
    return jnp.result_type(trainer.learner.params[path])
