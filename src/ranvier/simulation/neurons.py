"""Neurons in JAX, for one sample. Spikes have a surrogate derivative, so that what is simulated can be trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..graph.neurons import ALIF, IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Neuron, Relay, Threshold

Array = Any
"""A JAX array of the population's shape, or a numpy array of constants."""
States = dict[str, Array]
Update = Callable[[Any, States, Array, float], tuple[States, Array]]
"""From neurons with JAX parameters, states and summed input of the population's shape, and dt."""


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def spike(v: Array, threshold: Array, fires: str) -> Array:
    """One where v is above the threshold (or at it, where ``fires`` is ``">="``), else zero.

    The surrogate derivative is a triangle around the threshold that is as wide as the threshold on either side (Bellec
    et al. 2018, with dampening 1).
    """
    return (v > threshold if fires == ">" else v >= threshold).astype(v.dtype)


@spike.defjvp
def _spike_derivative(fires: str, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (v, threshold), (dv, dthreshold) = primals, tangents
    width = jnp.where(threshold == 0, 1, jnp.abs(threshold))
    slope = jnp.maximum(0, 1 - jnp.abs(v - threshold) / width) / width
    return spike(v, threshold, fires), slope * (dv - dthreshold)


def _fire(neuron: Any, v: Array, threshold: Array) -> Array:
    return spike(v, jnp.broadcast_to(threshold, v.shape), neuron.fires)


def _toward(neuron: Any, tau: Array, x: Array, rest: Array, dt: float) -> Array:
    if neuron.integration == "euler":
        return x + dt / tau * (rest - x)
    return rest + (x - rest) * jnp.exp(-dt / tau)


def _reset(neuron: Any, v: Array, z: Array) -> Array:
    if neuron.reset == "subtract":
        return v - z * neuron.v_threshold
    return jnp.where(z == 1, neuron.v_reset, v)


def _relay(neuron: Relay, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    return states, summed


def _threshold(neuron: Threshold, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    return states, _fire(neuron, summed, neuron.threshold)


def _delay(neuron: Delay, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    if "queue" not in states:
        return states, summed
    queue = jnp.concatenate([summed[None], states["queue"]])
    steps = jnp.broadcast_to(neuron.steps, summed.shape).astype(jnp.int32)
    return {"queue": queue[:-1]}, jnp.take_along_axis(queue, steps[None], 0)[0]


def _i(neuron: I, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    v = states["v"] + dt * neuron.r * summed
    return {"v": v}, v


def _if(neuron: IF, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    v = states["v"] + dt * neuron.r * summed
    z = _fire(neuron, v, neuron.v_threshold)
    return {"v": _reset(neuron, v, z)}, z


def _li(neuron: LI, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    v = _toward(neuron, neuron.tau, states["v"], neuron.v_leak + neuron.r * summed, dt)
    return {"v": v}, v


def _lif(neuron: LIF, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    v = _toward(neuron, neuron.tau, states["v"], neuron.v_leak + neuron.r * summed, dt)
    z = _fire(neuron, v, neuron.v_threshold)
    return {"v": _reset(neuron, v, z)}, z


def _alif(neuron: ALIF, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    v = _toward(neuron, neuron.tau, states["v"], neuron.v_leak + neuron.r * summed, dt)
    z = _fire(neuron, v, neuron.v_threshold + neuron.beta * states["a"])
    a = _toward(neuron, neuron.tau_a, states["a"], jnp.zeros_like(v), dt) + z
    return {"v": _reset(neuron, v, z), "a": a}, z


def _cuba_voltage(neuron: CubaLI | CubaLIF, states: States, summed: Array, dt: float) -> States:
    i = _toward(neuron, neuron.tau_syn, states["i"], neuron.w_in * summed, dt)
    driving = states["i"] if neuron.current == "old" else i
    return {"i": i, "v": _toward(neuron, neuron.tau_mem, states["v"], neuron.v_leak + neuron.r * driving, dt)}


def _cuba_li(neuron: CubaLI, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    states = _cuba_voltage(neuron, states, summed, dt)
    return states, states["v"]


def _cuba_lif(neuron: CubaLIF, states: States, summed: Array, dt: float) -> tuple[States, Array]:
    states = _cuba_voltage(neuron, states, summed, dt)
    z = _fire(neuron, states["v"], neuron.v_threshold)
    return {"i": states["i"], "v": _reset(neuron, states["v"], z)}, z


UPDATES: dict[type[Neuron], Update] = {
    Relay: _relay,
    Threshold: _threshold,
    Delay: _delay,
    I: _i,
    IF: _if,
    LI: _li,
    LIF: _lif,
    ALIF: _alif,
    CubaLI: _cuba_li,
    CubaLIF: _cuba_lif,
}
