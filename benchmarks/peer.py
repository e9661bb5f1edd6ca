"""The same models for braintrace: its own linear layer, its own operators, states in a module."""

from __future__ import annotations

from typing import Any

import brainstate
import braintrace
import jax

from .models import Operators, StepParts

OPERATORS: Operators = (braintrace.matmul, braintrace.element_wise)


def with_own_layers(model: brainstate.nn.Module) -> brainstate.nn.Module:
    """Puts braintrace's linear layer, with the same weights, in place of each of brainstate's."""
    for node in (model, *model.nodes().values()):
        for name, child in list(vars(node).items()):
            if type(child) is brainstate.nn.Linear:
                setattr(node, name, _own_linear(child))
    return model


def _own_linear(layer: brainstate.nn.Linear) -> Any:
    value = layer.weight.value
    made = braintrace.nn.Linear(layer.in_size, layer.out_size)
    made.weight.value = value
    return made


class StepModule(brainstate.nn.Module):
    """A step function over pytrees as a module: one state for every leaf."""

    def __init__(self, parts: StepParts) -> None:
        super().__init__()
        self.step, params, state, _ = parts
        leaves, self.params_def = jax.tree.flatten(params)
        self.params = [brainstate.ParamState(leaf) for leaf in leaves]
        leaves, self.state_def = jax.tree.flatten(state)
        self.hidden = [brainstate.HiddenState(leaf) for leaf in leaves]

    def update(self, x: jax.Array) -> jax.Array:
        params = jax.tree.unflatten(self.params_def, [state.value for state in self.params])
        hidden = jax.tree.unflatten(self.state_def, [state.value for state in self.hidden])
        new, output = self.step(params, hidden, x)
        for state, leaf in zip(self.hidden, jax.tree.leaves(new), strict=True):
            state.value = leaf
        return output
