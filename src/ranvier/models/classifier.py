"""A layer of recurrent leaky integrate-and-fire neurons with leaky readouts; NIR can express all of it."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..frontends.step_function import StepFunction, step_function
from .recurrent import Arrays, spike


def spiking_classifier(
    n_in: int,
    n_rec: int,
    n_out: int,
    *,
    dt: float = 1.0,
    tau_mem: float = 20.0,
    tau_out: float = 20.0,
    input_gain: float = 2.0,
    recurrent_gain: float = 0.5,
    seed: int = 0,
) -> StepFunction:
    """LIF neurons with recurrent synapses, and one leaky integrator per class.

    One step of ``dt`` for one sample, from input spikes ``x [n_in]`` to ``y [n_out]``::

        v' = exp(-dt / tau_mem) v + x W_in + z W_rec + b         membrane potential
        z' = H(v' - 1)                                           spikes
        v' = v' - z'                                             soft reset
        y' = exp(-dt / tau_out) y + (1 - exp(-dt / tau_out)) z' W_out

    The reset passes no gradient.

    Args:
        n_in: number of inputs.
        n_rec: number of neurons.
        n_out: number of classes.
        dt: length of a step in ms.
        tau_mem: membrane time constant in ms.
        tau_out: time constant of the readouts in ms.
        input_gain: standard deviation of ``W_in``, times ``sqrt(n_in)``.
        recurrent_gain: standard deviation of ``W_rec``, times ``sqrt(n_rec)``.
        seed: of the initial weights.

    Returns:
        A model with parameters ``w_in [n_in, n_rec]``, ``w_rec [n_rec, n_rec]``, ``b [n_rec]`` and
        ``w_out [n_rec, n_out]``, all float32.
    """
    keep, keep_out = np.exp(-dt / tau_mem), np.exp(-dt / tau_out)
    rng = np.random.default_rng(seed)

    def normal(n_from: int, n_to: int, gain: float) -> Any:
        return jnp.asarray(rng.normal(0.0, gain / np.sqrt(n_from), (n_from, n_to)), jnp.float32)

    params = {
        "w_in": normal(n_in, n_rec, input_gain),
        "w_rec": normal(n_rec, n_rec, recurrent_gain),
        "b": jnp.zeros(n_rec),
        "w_out": normal(n_rec, n_out, 3.0),
    }
    state = {"v": jnp.zeros(n_rec), "z": jnp.zeros(n_rec), "y": jnp.zeros(n_out)}

    def step(params: Arrays, state: Arrays, x: Any) -> tuple[Arrays, Any]:
        v = keep * state["v"] + x @ params["w_in"] + state["z"] @ params["w_rec"] + params["b"]
        z = spike(v - 1.0)
        y = keep_out * state["y"] + (1 - keep_out) * (z @ params["w_out"])
        return {"v": v - lax.stop_gradient(z), "z": z, "y": y}, y

    return step_function(step, params, state, name="spiking_classifier")
