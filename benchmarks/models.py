"""Models to measure on, of any size: stacked spiking layers, and steps with a given number of equations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brainpy.state as neurons
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

PER_POPULATION = 100
"""Equations of one population in :func:`populations`."""


class RecurrentLayer(brainstate.nn.Module):
    """Recurrent LIF neurons driven through one linear map and an exponential synapse."""

    def __init__(self, n_in: int, n_rec: int) -> None:
        super().__init__()
        self.neuron = neurons.LIF(n_rec, tau=20.0 * u.ms, V_th=1.0 * u.mV)
        self.linear = brainstate.nn.Linear(
            n_in + n_rec,
            n_rec,
            w_init=braintools.init.KaimingNormal(unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.synapse = neurons.Expon(n_rec, tau=10.0 * u.ms, g_initializer=braintools.init.ZeroInit(unit=u.mA))

    def update(self, x: jax.Array) -> jax.Array:
        joined = u.math.concatenate([x, self.neuron.get_spike()], axis=-1)
        return self.neuron(self.synapse(self.linear(joined)))


class Stack(brainstate.nn.Module):
    """Layers, each driven by the new spikes of the one before."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.layers = [RecurrentLayer(size, size) for _ in range(count)]

    def update(self, x: jax.Array) -> jax.Array:
        for layer in self.layers:
            x = layer(x)
        return x


def stacked_layers(count: int, size: int = 32) -> tuple[Stack, jax.Array]:
    """A stack of recurrent layers with initialized states, and an example input."""
    brainstate.environ.set(dt=0.1 * u.ms)
    model = Stack(count, size)
    brainstate.nn.init_all_states(model)
    return model, jnp.ones(size)


Operators = tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]
PLAIN: Operators = (jnp.matmul, lambda parameter: parameter)
"""How a step applies a matrix, and how it reads a parameter that enters position by position."""

StepParts = tuple[Callable[..., Any], Any, Any, jax.Array]
"""Step function, parameters, initial state, example input."""


def populations(equations: int, size: int = 8, operators: Operators = PLAIN) -> StepParts:
    """A step of about so many equations: populations of 100, each with a matrix and a trainable decay."""
    matmul, elementwise = operators
    count = max(1, equations // PER_POPULATION)
    names = [f"p{k}" for k in range(count)]

    def step(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        new = {}
        for k, name in enumerate(names):
            source = state[names[k - 1]] if k else x
            drive = matmul(source, params[name]["w"])
            decay = elementwise(params[name]["decay"])
            value = decay * state[name] + drive
            new[name] = _chain(value, equations // count - 3)
        return new, new[names[-1]]

    params = {name: {"w": jnp.eye(size) / 2, "decay": jnp.full(size, 0.9)} for name in names}
    return step, params, {name: jnp.zeros(size) for name in names}, jnp.ones(size)


def long_chain(equations: int, size: int = 8, operators: Operators = PLAIN) -> StepParts:
    """A step of one population: a matrix product and a chain of elementwise equations."""
    matmul, elementwise = operators

    def step(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        value = elementwise(params["decay"]) * state["v"] + matmul(x, params["w"])
        new = _chain(value, equations - 3)
        return {"v": new}, new

    params = {"w": jnp.eye(size) / 2, "decay": jnp.full(size, 0.9)}
    return step, params, {"v": jnp.zeros(size)}, jnp.ones(size)


def many_parameters(count: int, size: int = 8, operators: Operators = PLAIN) -> StepParts:
    """A step of one state that so many trainable parameters are added to, position by position."""
    _, elementwise = operators
    names = [f"b{k}" for k in range(count)]

    def step(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        value = 0.9 * state["v"] + x
        for name in names:
            value = value + elementwise(params[name])
        return {"v": value}, value

    return step, {name: jnp.zeros(size) for name in names}, {"v": jnp.zeros(size)}, jnp.ones(size)


def small_populations(count: int, size: int = 8, operators: Operators = PLAIN) -> StepParts:
    """A step of so many populations of five equations, each with a matrix, a bias and a decay of its own."""
    matmul, elementwise = operators
    names = [f"p{k}" for k in range(count)]

    def step(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        new = {}
        for name in names:
            own = params[name]
            new[name] = elementwise(own["decay"]) * state[name] + matmul(x, own["w"]) + elementwise(own["bias"])
        return new, new[names[-1]]

    params = {name: {"w": jnp.eye(size), "decay": jnp.full(size, 0.9), "bias": jnp.zeros(size)} for name in names}
    return step, params, {name: jnp.zeros(size) for name in names}, jnp.ones(size)


def weights_used_twice(count: int, size: int = 8, operators: Operators = PLAIN) -> StepParts:
    """A step of one state driven through so many matrices, each applied to the input and to the state."""
    matmul, _ = operators
    names = [f"w{k}" for k in range(count)]

    def step(params: Any, state: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        value = 0.9 * state["v"]
        for name in names:
            value = value + (matmul(x, params[name]) + matmul(state["v"], params[name]))
        return {"v": value}, value

    return step, {name: jnp.eye(size) for name in names}, {"v": jnp.zeros(size)}, jnp.ones(size)


def _chain(value: jax.Array, length: int) -> jax.Array:
    """``length`` elementwise equations, one after the other."""
    turns: tuple[Callable[[jax.Array], jax.Array], ...] = (
        lambda v: v * 0.5,
        jax.lax.tanh,
        lambda v: v + 0.1,
        jax.lax.exp,
        jax.lax.neg,
    )
    for k in range(length):
        value = turns[k % len(turns)](value)
    return value
