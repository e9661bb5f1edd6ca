"""Gradients of a recurrent network by Ranvier's learners."""

from __future__ import annotations

from typing import Any

import brainstate
import jax

import ranvier
from ranvier.learn.rule import Rule

from .compiled import Compiled, Program, array_bytes, compile_program
from .recurrent import RecurrentNetwork, Size, Variant, make_data, make_network, step_loss


def gradient(variant: Variant, size: Size, rule: Rule, chunk: int | None = None, going_on: bool = False) -> Compiled:
    """The gradient of a sequence.

    Args:
        variant: kind of network.
        size: its size.
        rule: the learning rule.
        chunk: steps whose products are taken together; None leaves it to Ranvier.
        going_on: whether the sequence is one part of a longer one, so that states and traces come in and go out.
    """
    model = make_network(variant, size)

    def make() -> Program:
        xs, ys = make_data(size)
        learner = make_learner(model, size.batch, rule, xs[0], chunk)

        def gradients(params: Any, state: Any, xs: jax.Array, ys: jax.Array) -> Any:
            found, aux = learner.grad(step_loss, xs, ys, state=state, params=params, keep_state=going_on)
            return aux.state, found

        state = learner.init() if going_on else None
        trace_bytes = array_bytes(learner.init().memory) if going_on and chunk == 1 else 0
        return Program(jax.jit(gradients), (learner.params, state, xs, ys), trace_bytes)

    return compile_program(make)


def make_learner(
    model: RecurrentNetwork, batch: int, rule: Rule, x: jax.Array, chunk: int | None = None
) -> ranvier.types.Learner:
    """A learner of the network, batched by its states."""
    brainstate.nn.init_all_states(model, batch_size=batch)
    return ranvier.compile(model, rule, x, chunk=chunk)
