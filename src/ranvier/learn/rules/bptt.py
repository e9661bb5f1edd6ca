"""``BPTT``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from ...errors import RuleError
from ...program._jax import dtype_of, source_line
from ...program.analysis.binding_time import binding_times_of
from ...program.analysis.memory import MemorySizes, RuleMemory
from ...program.analysis.reachability import reach_by_gradient
from ...program.interpret import Environment
from ...program.nested import differentiates_through
from ...program.program import ModuleInfo
from ..carried import Everything
from ..kernel import Chunk, ChunkResult, Kernel, Loss, no_gradients
from ..linearization.same_step import scalar_loss
from ..rule import Rule
from ..state import LearnerState
from ..step.stages import stages_of
from ..uses.traced_uses import entering_variables, slots_in_time


@dataclass(frozen=True)
class BPTT(Rule):
    """Backpropagation through time: the reference (Werbos, Proceedings of the IEEE 1990, doi 10.1109/5.58337).

    ``a_T = dl_T/dh_T``, ``a_{t-1} = dl_{t-1}/dh_{t-1} + A_t^T a_t`` with A the step's whole Jacobian, and the gradient
    is ``sum_t a_t (dh_t/dw)`` beside what outputs feel of w directly.

    Memory: the activations of all steps of a call. Cost: the forward pass, its transpose, and the weight gradient's
    matrix product. Exact within a call; a call that goes on from an earlier state treats that state as given
    (truncated BPTT). JAX cannot differentiate a ``while`` loop in reverse mode.
    """

    looks_ahead = False

    def memory(self, sizes: MemorySizes) -> RuleMemory:
        numbers = f"T·({sizes.hidden} + {sizes.results})"
        return sizes.row(self.name, "T·(H + A)", numbers, sizes.hidden + sizes.results, grows=True)

    def kernel(self, info: ModuleInfo) -> Kernel:
        _check_reversible(info)
        return _BpttKernel(info)


def _check_reversible(info: ModuleInfo) -> None:
    """Raises :class:`RuleError` for ``while`` loops between states or parameters and what the gradient depends on."""
    felt, made_of = reach_by_gradient(info), binding_times_of(info)
    sources = sum(made_of.bits[var] for var in (*info.hidden_invars, *info.other_invars, *info.weight_invars))
    # Only a loop that lies between a state or parameter and what learning looks at is in the way: one that prepares the
    # inputs is never differentiated.
    whiles = [
        eqn
        for eqn in info.equations
        if any(felt.anything(v) and made_of.learned_of(v) & sources for v in eqn.outvars)
        and differentiates_through(eqn, "while")
    ]
    if whiles:
        lines = ", ".join(dict.fromkeys(f"[{source_line(eqn)}]" for eqn in whiles))
        raise RuleError(
            "BPTT differentiates the steps in reverse mode, which JAX does not support for a while loop, since its "
            f"number of iterations depends on the data: {lines}. Use D_RTRL, EProp or RTRL, which differentiate the "
            "loop in forward mode, or write it as lax.scan or lax.fori_loop with a fixed number of iterations."
        )


@dataclass(frozen=True, eq=False)
class _BpttKernel(Kernel):
    info: ModuleInfo
    chunked = False
    truncates = True

    def init(self, static: Environment) -> None:
        return None

    def kept(self) -> list[tuple[tuple[int, ...], str]]:
        return [(slots_in_time(self.info), "nothing, except the activations of all steps during a call")]

    def carries(self) -> Everything:
        return Everything()

    def approximations(self) -> list[str]:
        return ["truncation: the effect of earlier calls on the loss, through the state that a call continues from"]

    @cached_property
    def _variables(self) -> tuple[Any, ...]:
        return entering_variables(self.info)

    def run(
        self, loss: Loss, static: Environment, state: LearnerState, chunk: Chunk, *, fresh: bool, keep: bool
    ) -> ChunkResult:
        info, stages = self.info, stages_of(self.info)

        # The reverse pass over this function is the recursion a_{t-1} = dl_{t-1}/dh_{t-1} + A_t^T a_t: JAX pulls a_t
        # back through the step and never builds A.
        def total(entering: list[Any]) -> Any:
            def step(carry: Any, data: Any) -> Any:
                inputs, target, weight = data
                values = {**static, **dict(zip(info.input_invars, inputs, strict=True))}
                for var, value in zip(self._variables, entering, strict=True):
                    # Cast within the step, so that the reverse pass adds up the gradients of the steps in the wider
                    # dtype: a sum in bfloat16 stops growing after some hundred steps.
                    values[var] = value.astype(dtype_of(var))
                outputs, hidden, other = stages.step(values, *carry)
                output = jax.tree.unflatten(info.output_treedef, outputs)
                return (hidden, other), (weight * scalar_loss(loss, output, target), outputs)

            # A scan, so that the compiled program is one step however long the sequence is; only the activations that
            # the reverse pass reads grow with it.
            start = (list(state.hidden), list(state.other))
            (hidden, other), (losses, outputs) = jax.lax.scan(
                step, start, (chunk.inputs, chunk.targets, chunk.weights), chunk.length
            )
            return losses.sum(), (losses, outputs, hidden, other)

        entering = [
            static[var].astype(zeros.dtype)
            for var, zeros in zip(self._variables, no_gradients(self._variables), strict=True)
        ]
        # The state after the call is an auxiliary result: no cotangent comes back into it, nor does one leave through
        # the state before. That is the truncation which the plan names.
        _, pull, (losses, outputs, hidden, other) = jax.vjp(total, entering, has_aux=True)
        (gradients,) = pull(jnp.ones_like(losses.sum()))
        return ChunkResult(
            dict(zip(self._variables, gradients, strict=True)), losses, outputs, LearnerState(hidden, other, None)
        )
