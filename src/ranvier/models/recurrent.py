"""A layer of recurrent leaky integrate-and-fire neurons, with or without adaptation, and a leaky readout."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..frontends.step_function import StepFunction, step_function

THRESHOLD = 1.0
"""Firing threshold of a neuron without recent spikes; the unit of membrane potentials."""
SURROGATE_GAIN = 0.3
"""Height of the surrogate derivative, which is at the threshold."""

Arrays = dict[str, jax.Array]


@jax.custom_jvp
def spike(excess: jax.Array) -> jax.Array:
    """1 where the membrane potential exceeds the threshold, else 0.

    Args:
        excess: membrane potential minus threshold.

    The surrogate derivative is the triangle ``0.3 max(0, 1 - |excess|)`` (Bellec et al. 2018, NeurIPS).
    """
    return (excess > 0).astype(excess.dtype)


@spike.defjvp
def _spike_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (excess,), (tangent,) = primals, tangents
    return spike(excess), SURROGATE_GAIN * jnp.maximum(0.0, 1.0 - jnp.abs(excess)) * tangent


def recurrent_network(
    n_in: int,
    n_rec: int,
    n_out: int,
    *,
    adaptive: bool = True,
    dt: float = 1.0,
    tau_mem: float = 10.0,
    tau_adapt: tuple[float, float] = (50.0, 400.0),
    tau_out: float = 5.0,
    beta: float = 0.5,
    input_gain: float = 2.0,
    recurrent_gain: float = 1.0,
    output_gain: float = 0.3,
    seed: int = 0,
) -> StepFunction:
    """Adaptive LIF neurons (Bellec et al. 2018, NeurIPS) with delta synapses and a leaky readout.

    One step of ``dt`` for one sample, from input spikes ``x [n_in]`` to ``y [n_out]``::

        z  = H(v - 1 - beta a)                                  spikes of the step before
        a' = exp(-dt / tau_adapt) a + z                         adaptation
        v' = exp(-dt / tau_mem) v + x W_in + z W_rec + b - z    membrane potential, with soft reset
        z' = H(v' - 1 - beta a')                                spikes
        s' = exp(-dt / tau_out) s + z'                          filtered spikes
        y  = s' W_out + b_out                                   readout

    Reading out filtered spikes is the same as a leaky readout ``r' = exp(-dt / tau_out) r + z' W_out``; filtering
    before the product keeps the leak within each neuron, where an online rule can follow it. The reset passes no
    gradient.

    Args:
        n_in: number of inputs.
        n_rec: number of neurons.
        n_out: number of readout units.
        adaptive: whether neurons adapt; without it there is no ``a``.
        dt: length of a step in ms.
        tau_mem: membrane time constant in ms.
        tau_adapt: shortest and longest adaptation time constant in ms; the neurons' are spaced geometrically between.
        tau_out: time constant of the readout in ms.
        beta: rise of the threshold by one spike, in units of the threshold at rest.
        input_gain: standard deviation of ``W_in``, times ``sqrt(n_in)``.
        recurrent_gain: standard deviation of ``W_rec``, times ``sqrt(n_rec)``.
        output_gain: standard deviation of ``W_out``, times ``sqrt(n_rec)``.
        seed: seed of the initial weights.

    Returns:
        A model with float32 parameters ``w_in [n_in, n_rec]``, ``w_rec [n_rec, n_rec]``, ``b [n_rec]``,
        ``w_out [n_rec, n_out]``, ``b_out [n_out]`` and states ``v``, ``a``, ``s``, each ``[n_rec]``.
    """
    keep_v, keep_s = np.exp(-dt / np.array([tau_mem, tau_out])).astype(np.float32)
    keep_a = np.exp(-dt / np.geomspace(*tau_adapt, n_rec)).astype(np.float32)

    def spikes(state: Arrays) -> jax.Array:
        return spike(state["v"] - THRESHOLD - (beta * state["a"] if adaptive else 0.0))

    def recurrent_step(params: Arrays, state: Arrays, x: jax.Array) -> tuple[Arrays, jax.Array]:
        z = spikes(state)
        current = x @ params["w_in"] + z @ params["w_rec"] + params["b"]
        new = {"v": keep_v * state["v"] + current - THRESHOLD * jax.lax.stop_gradient(z)}
        if adaptive:
            new["a"] = keep_a * state["a"] + z
        new["s"] = keep_s * state["s"] + spikes(new)
        return new, new["s"] @ params["w_out"] + params["b_out"]

    gains = {
        "w_in": (input_gain, n_in, n_rec),
        "w_rec": (recurrent_gain, n_rec, n_rec),
        "w_out": (output_gain, n_rec, n_out),
    }
    params = _random_weights(gains, seed)
    params |= {"b": jnp.zeros(n_rec, jnp.float32), "b_out": jnp.zeros(n_out, jnp.float32)}
    state = {name: jnp.zeros(n_rec, jnp.float32) for name in ("v", "a", "s") if adaptive or name != "a"}
    return step_function(recurrent_step, params, state, name="recurrent_network")


def _random_weights(gains: dict[str, tuple[float, int, int]], seed: int) -> dict[str, Any]:
    """Normal weights from gain and shape; dividing by the root of the rows keeps sums independent of their number."""
    keys = jax.random.split(jax.random.key(seed), len(gains))
    return {
        name: float(gain / np.sqrt(rows)) * jax.random.normal(key, (rows, columns), jnp.float32)
        for key, (name, (gain, rows, columns)) in zip(keys, gains.items(), strict=True)
    }
