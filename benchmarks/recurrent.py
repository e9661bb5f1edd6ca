# pyright: reportArgumentType=false
# The unit libraries' annotations leave quantities out.
"""Recurrent spiking networks with a leaky readout, to learn on: plain brainstate, batched by their states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import brainpy.state as neurons
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

DT = 1.0 * u.ms
SEED = 0
INPUT_RATE = 0.1
"""Probability of a spike of one input in one step."""


@dataclass(frozen=True)
class Size:
    """Numbers of inputs, recurrent neurons, outputs, samples and time steps."""

    inputs: int
    neurons: int
    outputs: int
    batch: int
    steps: int

    def __str__(self) -> str:
        return f"{self.inputs}-{self.neurons}-{self.outputs}, batch {self.batch}, {self.steps} steps"

    @property
    def product_flops(self) -> int:
        """Floating-point operations of the matrix products of one sequence: forward and weight gradient."""
        pairs = (self.inputs + self.neurons) * self.neurons + self.neurons * self.outputs
        return 4 * pairs * self.batch * self.steps


SIZES = (Size(100, 256, 10, 16, 100), Size(700, 512, 20, 8, 100), Size(128, 128, 10, 64, 100))


class DetachedLIF(neurons.LIF):
    """LIF neurons whose soft reset passes no gradient."""

    def update(self, x: Any = 0.0 * u.mA) -> Any:
        last = self.V.value
        spike = jax.lax.stop_gradient(self.get_spike(last))
        current = self.sum_current_inputs(x, last)
        after = last - (self.V_th - self.V_reset) * spike
        value = brainstate.nn.exp_euler_step(lambda v: (-v + self.V_rest + self.R * current) / self.tau, after)
        self.V.value = self.sum_delta_inputs(value)
        return self.get_spike(self.V.value)


class LeakyReadout(brainstate.nn.Module):
    """Leaky integrators driven by spikes: ``r = decay * r + linear(spikes)``."""

    def __init__(self, n_in: int, n_out: int, tau: Any = 10.0 * u.ms, *, cut: bool = False) -> None:
        super().__init__()
        self.n_out = n_out
        self.cut = cut
        self.decay = float(jnp.exp(-u.maybe_decimal(DT / tau)))
        self.linear = brainstate.nn.Linear(n_in, n_out, w_init=braintools.init.KaimingNormal())

    def init_state(self, batch_size: int | None = None, **kwargs: Any) -> None:
        shape = (self.n_out,) if batch_size is None else (batch_size, self.n_out)
        self.r = brainstate.HiddenState(jnp.zeros(shape))

    def update(self, spikes: jax.Array) -> jax.Array:
        before = jax.lax.stop_gradient(self.r.value) if self.cut else self.r.value
        after = self.decay * before + self.linear(spikes)
        self.r.value = after
        return after


class RecurrentNetwork(brainstate.nn.Module):
    """Inputs and last spikes through one linear map, and a synapse if given, into neurons with a leaky readout.

    With ``cut``, no gradient goes back through the recurrent spikes and the readout's memory: backpropagation then
    gives D-RTRL's gradient of the input and recurrent weights.
    """

    def __init__(self, size: Size, neuron: Any, synapse: Any, weight_scale: float, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        self.linear = brainstate.nn.Linear(
            size.inputs + size.neurons,
            size.neurons,
            w_init=braintools.init.KaimingNormal(scale=weight_scale, unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.synapse = synapse
        self.neuron = neuron
        self.readout = LeakyReadout(size.neurons, size.outputs, cut=cut)

    def update(self, x: jax.Array) -> jax.Array:
        """One step: input ``[batch, inputs]`` to readout ``[batch, outputs]``."""
        return self.readout(self.spikes(x))

    def spikes(self, x: jax.Array) -> jax.Array:
        """The recurrent part of a step: input ``[batch, inputs]`` to spikes ``[batch, neurons]``."""
        last = self.neuron.get_spike()
        current = self.linear(u.math.concatenate([x, jax.lax.stop_gradient(last) if self.cut else last], axis=-1))
        return self.neuron(current if self.synapse is None else self.synapse(current))


@dataclass(frozen=True)
class Variant:
    """A kind of network.

    Attributes:
        name: short name, for the command line.
        text: what it is.
        neuron: makes so many neurons.
        synapse: whether currents decay exponentially; a current lasts one step where not.
        weight_scale: variance of the weights times the number of inputs, for 5 to 20 % of the neurons to fire.
    """

    name: str
    text: str
    neuron: Callable[[int], Any]
    synapse: bool
    weight_scale: float


def _lif(count: int) -> Any:
    return neurons.LIF(count, tau=20.0 * u.ms, V_th=1.0 * u.mV)


def _alif(count: int) -> Any:
    return neurons.ALIF(count, tau=20.0 * u.ms, tau_a=100.0 * u.ms, beta=0.1 * u.mV, V_th=1.0 * u.mV)


def _detached_lif(count: int) -> Any:
    return DetachedLIF(count, tau=20.0 * u.ms, V_th=1.0 * u.mV)


LIF = Variant("lif", "LIF, exponential synapse", _lif, True, 20.0)
ALIF = Variant("alif", "ALIF, exponential synapse", _alif, True, 25.0)
DELTA = Variant("delta", "LIF, no synapse", _lif, False, 1500.0)
DETACHED = Variant("detached", "LIF, exponential synapse, detached reset", _detached_lif, True, 20.0)
VARIANTS = (LIF, ALIF, DELTA, DETACHED)


def make_network(variant: Variant, size: Size, *, cut: bool = False) -> RecurrentNetwork:
    """The network with weights that only the variant and the size decide; its states are not initialized."""
    brainstate.environ.set(dt=DT)
    with brainstate.random.seed_context(SEED):
        synapse = None
        if variant.synapse:
            initial = braintools.init.ZeroInit(unit=u.mA)
            synapse = neurons.Expon(size.neurons, tau=10.0 * u.ms, g_initializer=initial)
        return RecurrentNetwork(size, variant.neuron(size.neurons), synapse, variant.weight_scale, cut)


def make_data(size: Size) -> tuple[jax.Array, jax.Array]:
    """Input spikes ``[steps, batch, inputs]`` (float32) and class labels ``[steps, batch]`` (int32)."""
    spikes, labels = jax.random.split(jax.random.key(SEED))
    xs = jax.random.bernoulli(spikes, INPUT_RATE, (size.steps, size.batch, size.inputs))
    return xs.astype(jnp.float32), jax.random.randint(labels, (size.steps, size.batch), 0, size.outputs)


def step_loss(output: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy of one step, averaged over the batch: ``[batch, outputs]`` and labels ``[batch]`` to a scalar."""
    chosen = jax.nn.one_hot(target, output.shape[-1])
    return -(jax.nn.log_softmax(output) * chosen).sum(-1).mean()


def recurrent_weights(params: Mapping[tuple[Any, ...], Any]) -> Any:
    """The input and recurrent weights ``[inputs + neurons, neurons]`` out of parameters or gradients by path."""
    return params["linear", "weight"]["weight"]


def firing_rate(variant: Variant, size: Size) -> float:
    """Fraction of the neurons that spike in a step, over one sequence."""
    model = make_network(variant, size)
    brainstate.nn.init_all_states(model, batch_size=size.batch)
    spikes = brainstate.transform.for_loop(model.spikes, make_data(size)[0])
    return float(spikes.mean())
