"""Gradients of a sequence: runs the chunks, then pulls back through the values computed from the parameters.

A kernel gives gradients by the static values that enter the step's products. With ``x @ softplus(w)`` that is
``p = softplus(w)``, [100, 50]; the gradient by ``w`` is that by ``p``, summed over all steps, times ``sigmoid(w)``: the
derivative of softplus is taken once per call, not once per step.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax

from ..kernel import Chunk, Kernel, Loss
from ..plan import Plan
from ..state import Aux, Gradients, LearnerState
from ..step.stages import stages_of
from .chunks import ChunkRunner
from .parameters import values_by_path


@dataclass(frozen=True, eq=False)
class GradientFunction:
    """The gradient of a sequence, as a function to compile.

    Attributes:
        kernel: the rule's code.
        plan: says how long chunks are.
    """

    kernel: Kernel
    plan: Plan

    def __call__(
        self, loss: Loss, fresh: bool, keep: bool, sequence: Chunk, state: LearnerState, params: list[jax.Array]
    ) -> tuple[Gradients, Aux]:
        """The gradients by parameter path.

        Args:
            loss: ``loss(output, target) -> scalar``.
            fresh: whether the rule's memory is known to be empty.
            keep: whether the state after the sequence is wanted.
            sequence: its data.
            state: what it starts from.
            params: leaves of all parameters.
        """
        info, variables = self.kernel.info, self.kernel.variables
        stages = stages_of(info)

        def entering(leaves: list[jax.Array]) -> list[jax.Array]:
            static = stages.static_values(leaves, state.other)
            return [static[var] for var in variables]

        static = stages.static_values(params, state.other)
        # Outside of the chunks: what parameters are made into, normalized, masked, a product of two, is differentiated
        # once per call and not at every step.
        _, pull = jax.vjp(entering, params)
        size = min(self.plan.chunk_for(sequence.length), sequence.length)
        result = ChunkRunner(self.kernel, loss, static).run(state, sequence, size, fresh=fresh, keep=keep)
        # A loop adds gradients up in single precision or more; the pull-back takes the variables' own dtypes.
        (gradients,) = pull([result.gradients[var].astype(static[var].dtype) for var in variables])
        outputs = jax.tree.unflatten(info.output_treedef, result.outputs)
        aux = Aux(result.losses.sum(), result.losses, outputs, result.state if keep else None)
        return values_by_path(info.parameters, gradients), aux
