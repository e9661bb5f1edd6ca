# pyright: reportArgumentType=false
# The unit libraries' annotations leave quantities out.
"""Adaptive LIF neurons with short-term plasticity, an exponential current synapse and one linear map."""

from __future__ import annotations

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp

from ..util.extras import require

require("the ALIF network of ranvier.models", "models", "brainpy", "braintools", error=ImportError)

import brainpy.state as neurons  # noqa: E402, after the check above, whose message names what is missing
import braintools  # noqa: E402


class ALIFSTPNetwork(brainstate.nn.Module):
    """A recurrent layer whose spikes pass through short-term plasticity before its synapses.

    Args:
        n_in: number of inputs.
        n_rec: number of neurons.
    """

    def __init__(self, n_in: int, n_rec: int) -> None:
        super().__init__()
        self.neuron = neurons.ALIF(n_rec, tau=20.0 * u.ms, tau_a=100.0 * u.ms, beta=0.1 * u.mV, V_th=1.0 * u.mV)
        self.plasticity = neurons.STP(n_rec, tau_f=500.0 * u.ms, tau_d=100.0 * u.ms)
        self.linear = brainstate.nn.Linear(
            n_in + n_rec,
            n_rec,
            w_init=braintools.init.KaimingNormal(scale=20.0, unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.synapse = neurons.Expon(n_rec, tau=10.0 * u.ms, g_initializer=braintools.init.ZeroInit(unit=u.mA))

    def update(self, x: jax.Array) -> jax.Array:
        """One step: input ``[n_in]`` to spikes ``[n_rec]``."""
        released = self.plasticity(self.neuron.get_spike())
        current = self.synapse(self.linear(u.math.concatenate([x, released], axis=-1)))
        return self.neuron(current)


ALIF_STPExpCu_Dense_Layer = ALIFSTPNetwork
"""brainscale's name for such a layer."""


def alif_stp(n_in: int = 3, n_rec: int = 4) -> tuple[ALIFSTPNetwork, jax.Array]:
    """The network with initialized states at dt = 0.1 ms, and an example input ``[n_in]``."""
    brainstate.environ.set(dt=0.1 * u.ms)
    with brainstate.random.seed_context(0):
        model = ALIFSTPNetwork(n_in, n_rec)
    brainstate.nn.init_all_states(model)
    return model, jnp.ones(n_in)
