"""Populations with several states: D-RTRL is BPTT that is cut at the recurrent spikes and the readout."""

from __future__ import annotations

import brainpy.state as bps
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.learning import difference, flat, learning
from tests.support.zoo.spiking import exponential, linear, settings

pytestmark = learning

N_IN, N_REC, N_OUT, BATCH, STEPS = 3, 6, 2, 2, 30
NEURONS = {
    "LIF": lambda: bps.LIF(N_REC, tau=10 * u.ms),
    "ALIF": lambda: bps.ALIF(N_REC, tau=10 * u.ms, tau_a=50 * u.ms),
}


class Network(brainstate.nn.Module):
    """Exponential synapses into neurons, and a leaky readout; with ``cut``, both ways back through time are held."""

    def __init__(self, neuron, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        self.linear = linear(N_IN + N_REC, N_REC)
        self.synapse, self.neuron = exponential(N_REC), neuron
        self.readout = linear(N_REC, N_OUT, unit=u.UNITLESS, scale=1.0)
        self.r = brainstate.HiddenState(jnp.zeros((BATCH, N_OUT)))

    def update(self, x):
        hold = jax.lax.stop_gradient if self.cut else lambda value: value
        z = hold(self.neuron.get_spike())
        spikes = self.neuron(self.synapse(self.linear(u.math.concatenate([x, z], axis=-1))))
        self.r.value = 0.9 * hold(self.r.value) + self.readout(spikes)
        return self.r.value


def build(neuron: str, cut: bool = False) -> Network:
    with settings(jnp.float64):
        model = Network(NEURONS[neuron](), cut)
        brainstate.nn.init_all_states(model, batch_size=BATCH)
        return model


def data():
    rng = np.random.default_rng(0)
    xs = (rng.random((STEPS, BATCH, N_IN)) < 0.4).astype(np.float64)
    return jnp.asarray(xs), jnp.asarray(rng.normal(size=(STEPS, BATCH, N_OUT)))


def squares(output, target):
    return ((output - target) ** 2).sum()


def gradient(model: Network, rule, chunk: int | None = None) -> dict:
    xs, ys = data()
    with settings(jnp.float64):
        learner = ranvier.compile(model, rule, xs[0], chunk=chunk)
        return learner.grad(squares, xs, ys)[0]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 7, None])
@pytest.mark.parametrize("neuron", NEURONS)
def test_recurrent_weights_are_those_of_bptt_cut_in_time(neuron: str, chunk: int | None) -> None:
    found = gradient(build(neuron), ranvier.D_RTRL(), chunk)["linear", "weight"]
    cut, whole = (gradient(build(neuron, cut), ranvier.BPTT())["linear", "weight"] for cut in (True, False))
    assert np.abs(flat(cut)).max() > 1e-3
    assert difference(found, cut) < 1e-10
    assert difference(found, whole) > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("neuron", NEURONS)
def test_the_readouts_weights_are_those_of_bptt(neuron: str) -> None:
    found, exact = (gradient(build(neuron), rule)["readout", "weight"] for rule in (ranvier.D_RTRL(), ranvier.BPTT()))
    assert difference(found, exact) < 1e-10
