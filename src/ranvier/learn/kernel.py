"""A rule's code for one program, which processes a sequence chunk by chunk."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..program._jax import Var, dtype_of, shape_of, size_of
from ..program.interpret import Environment
from ..program.program import ModuleInfo
from .carried import Carried, Traces
from .state import LearnerState
from .step.stages import stages_of
from .uses.traced_uses import entering_variables

Loss = Callable[[Any, Any], Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Chunk:
    """The data of one chunk of K steps.

    Attributes:
        inputs: input leaves, ``[K, ...]``.
        targets: pytree of targets, ``[K, ...]``.
        weights: weight of the loss of each step, ``[K]``.
    """

    inputs: list[jax.Array]
    targets: Any
    weights: jax.Array

    @property
    def length(self) -> int:
        return self.weights.shape[0]

    def part(self, start: int, end: int) -> Chunk:
        """The steps from ``start`` to ``end``."""
        return Chunk(*jax.tree.map(lambda x: x[start:end], (self.inputs, self.targets, self.weights)))

    def split(self, count: int) -> tuple[list[jax.Array], Any, jax.Array]:
        """Inputs, targets and weights of equal chunks, ``[count, K, ...]``."""
        whole = (self.inputs, self.targets, self.weights)
        return jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), whole)


@dataclass(frozen=True)
class ChunkResult:
    """The result of one chunk.

    Attributes:
        gradients: entering variable to the gradient of the sum of the losses.
        losses: ``[K]``, times the weights.
        outputs: output leaves ``[K, ...]``.
        state: what the next chunk starts from.
    """

    gradients: dict[Var, jax.Array]
    losses: jax.Array
    outputs: list[jax.Array]
    state: LearnerState


class Kernel(abc.ABC):
    """A rule for one program.

    Attributes:
        info: the program.
        chunked: whether the rule works on chunks of steps; otherwise a call is one chunk.
        truncates: whether what comes before a chunk is lost to it, so that a call must be one chunk.
        in_cache: whether a chunk is best as short as the processor's cache, its memory being small.
        outlives: whether a part of its memory goes on from one sequence of a training to the next.
    """

    info: ModuleInfo
    chunked: bool = True
    truncates: bool = False
    in_cache: bool = False
    outlives: bool = False

    @abc.abstractmethod
    def init(self, static: Environment) -> Any:
        """The rule's memory before the first step."""

    @abc.abstractmethod
    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        """Runs one chunk.

        Args:
            loss: ``loss(output, target) -> scalar``.
            static: values of static variables.
            state: what the chunk starts from.
            chunk: the chunk's data.
            fresh: whether the memory is known to be as :meth:`init` made it.
            keep: whether the memory after the chunk is wanted.
        """

    @property
    def variables(self) -> tuple[Var, ...]:
        """The static variables by which :meth:`run` gives gradients."""
        return entering_variables(self.info)

    def only(self, parameters: frozenset[int]) -> Kernel:
        """The kernel without the memory that it keeps for other parameters, whose gradients may then be wrong.

        Args:
            parameters: indices of the parameters whose gradients are wanted.
        """
        return self

    def lasting(self, memory: Any) -> Any:
        """The part of the memory that outlives a sequence, e.g. feedback weights."""
        return None

    def restarted(self, memory: Any, lasting: Any, seed: Any) -> Any:
        """A memory from :meth:`init`, but with the lasting part of another memory and new random keys."""
        return memory

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        """What is kept between steps: indices of the parameters concerned, and a line of text for each."""
        return []

    def carries(self) -> Carried:
        """What the rule carries from step to step; the plan lists everything else as left out."""
        return Traces()

    def approximations(self) -> list[str]:
        """A line of text for every quantity that the rule carries in place of the exact derivative."""
        return []

    def step_bytes(self) -> int:
        """About how many bytes of activations a chunk keeps for each step."""
        return sum(size_of(var) * dtype_of(var).itemsize for var in stages_of(self.info).recorded)


def no_gradients(variables: Sequence[Var]) -> list[jax.Array]:
    """Zeros to add gradients to, in each variable's own dtype, but at least in single precision."""
    # A sum in bfloat16 stops growing as soon as a step's part is below half a unit of its last digit.
    return [jnp.zeros(shape_of(var), jnp.promote_types(dtype_of(var), jnp.float32)) for var in variables]


def added(totals: Sequence[jax.Array], gradients: Mapping[Var, jax.Array], variables: Sequence[Var]) -> list[jax.Array]:
    """The totals from :func:`no_gradients` with more gradients added."""
    return [total + gradients[var].astype(total.dtype) for total, var in zip(totals, variables, strict=True)]
