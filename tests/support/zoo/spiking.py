"""Networks of brainpy.state neurons and synapses in brainstate modules, with units."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import brainpy.state as bps
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

from ranvier.types import DiagnosticKind

from .model import N_IN, N_REC, group, relation, uniform, zoo_model

DT = 1.0 * u.ms
N_XZ = N_IN + N_REC


@contextmanager
def settings(dtype, dt=DT):
    """Time step for good, precision and seed for building; brainstate's precision leaves JAX's own as it was."""
    brainstate.environ.set(dt=dt)
    before = jax.config.jax_enable_x64
    try:
        precision = jnp.dtype(dtype).itemsize * 8
        with brainstate.environ.context(precision=precision), brainstate.random.seed_context(1):
            yield
    finally:
        if jax.config.jax_enable_x64 != before:
            jax.config.update("jax_enable_x64", before)


def linear(n_in, n_out, unit=u.mA, scale=30.0):
    return brainstate.nn.Linear(
        n_in,
        n_out,
        w_init=braintools.init.KaimingNormal(scale=scale, unit=unit),
        b_init=braintools.init.Constant(0.5 * unit),
    )


def exponential(size, unit=u.mA, tau=10.0 * u.ms):
    return bps.Expon(size, tau=tau, g_initializer=braintools.init.ZeroInit(unit=unit))


def initialized(model, dtype, batch_size=None, n_in=N_IN):
    brainstate.nn.init_all_states(model, batch_size=batch_size)
    shape = (n_in,) if batch_size is None else (batch_size, n_in)
    return model, (jnp.ones(shape, dtype),)


class Recurrent(brainstate.nn.Module):
    """Inputs and last spikes through one linear map, and a synapse if given, into the neurons."""

    def __init__(self, neuron, synapse=None, plasticity=None, **weights):
        super().__init__()
        self.neuron = neuron
        self.synapse = synapse
        self.plasticity = plasticity
        self.linear = linear(N_XZ, N_REC, **weights)

    def update(self, x):
        z = self.neuron.get_spike()
        if self.plasticity is not None:
            z = self.plasticity(z)
        current = self.linear(u.math.concatenate([x, z], axis=-1))
        return self.neuron(current if self.synapse is None else self.synapse(current))


def drives(connected):
    return relation("linear.weight", "affine", (N_XZ,), (N_REC,), connected)


@zoo_model(group("neuron.V synapse.g"), relations=(drives("neuron.V synapse.g"),), spiking=True)
def lif_network(dtype=jnp.float32):
    with settings(dtype):
        return initialized(Recurrent(bps.LIF(N_REC, tau=10 * u.ms), exponential(N_REC)), dtype)


@zoo_model(group("neuron.V"), relations=(drives("neuron.V"),), spiking=True)
def lif_without_synapse(dtype=jnp.float32):
    with settings(dtype):
        return initialized(Recurrent(bps.LIF(N_REC, tau=10 * u.ms, spk_reset="hard")), dtype)


@zoo_model(group("neuron.V synapse.g"), relations=(drives("neuron.V synapse.g"),), spiking=True)
def if_network(dtype=jnp.float32):
    with settings(dtype):
        return initialized(Recurrent(bps.IF(N_REC, tau=10 * u.ms), exponential(N_REC)), dtype)


@zoo_model(group("neuron.V neuron.a synapse.g"), relations=(drives("neuron.V synapse.g"),), spiking=True)
def alif_network(dtype=jnp.float32):
    """The adaptation takes the spike of the old potential, so the current reaches it one step later."""
    with settings(dtype):
        return initialized(Recurrent(bps.ALIF(N_REC, tau=10 * u.ms), exponential(N_REC)), dtype)


@zoo_model(group("neuron.V neuron.I1 neuron.I2 neuron.V_th"), relations=(drives("neuron.V"),), spiking=True)
def gif_network(dtype=jnp.float32):
    with settings(dtype):
        neuron = bps.Gif(N_REC, A1=0.5 * u.mA, A2=-0.3 * u.mA, R1=0.2, a=0.01 * u.kHz)
        return initialized(Recurrent(neuron, scale=60.0), dtype)


@zoo_model(
    group("neuron.V synapse.g plasticity.u plasticity.x"), relations=(drives("neuron.V synapse.g"),), spiking=True
)
def stp_network(dtype=jnp.float32):
    """Plasticity sees the spikes of its neurons one by one, so it belongs to their group."""
    with settings(dtype):
        model = Recurrent(bps.LIF(N_REC, tau=10 * u.ms), exponential(N_REC), bps.STP(N_REC, U=0.4))
        return initialized(model, dtype)


@zoo_model(group("neuron.V synapse.g plasticity.x"), relations=(drives("neuron.V synapse.g"),), spiking=True)
def std_network(dtype=jnp.float32):
    with settings(dtype):
        model = Recurrent(bps.LIF(N_REC, tau=10 * u.ms), exponential(N_REC), bps.STD(N_REC, U=0.2))
        return initialized(model, dtype)


@zoo_model(
    group("neuron.V synapse.g", (2, N_REC)),
    relations=(relation("linear.weight", "affine", (2, N_XZ), (2, N_REC), "neuron.V synapse.g"),),
    spiking=True,
)
def batched_lif_network(dtype=jnp.float32):
    """States with a batch axis of their own: positions are (sample, neuron)."""
    with settings(dtype):
        model = Recurrent(bps.LIF(N_REC, tau=10 * u.ms), exponential(N_REC))
        return initialized(model, dtype, batch_size=2)


class ExcitatoryInhibitory(brainstate.nn.Module):
    """Three excitatory neurons and one inhibitory, conductance-based; weights are magnitudes."""

    def __init__(self):
        super().__init__()
        self.cells = bps.LIF(
            N_REC,
            R=1000.0 * u.ohm,
            tau=10 * u.ms,
            V_th=-50 * u.mV,
            V_rest=-60 * u.mV,
            V_reset=-60 * u.mV,
            V_initializer=braintools.init.Constant(-60 * u.mV),
        )
        self.excitatory = self._projection(N_IN + 3, 0 * u.mV)
        self.inhibitory = self._projection(1, -80 * u.mV)

    def _projection(self, n_pre, reversal):
        return bps.AlignPostProj(
            comm=brainstate.nn.SignedWLinear(n_pre, N_REC, w_init=braintools.init.KaimingNormal(scale=0.02, unit=u.mS)),
            syn=exponential(N_REC, u.mS, 5 * u.ms),
            out=bps.COBA(E=reversal),
            post=self.cells,
        )

    def update(self, x):
        z = self.cells.get_spike()
        self.excitatory(u.math.concatenate([x, z[..., :3]], axis=-1))
        self.inhibitory(z[..., 3:])
        return self.cells()


@zoo_model(
    group("cells.V excitatory.syn.g inhibitory.syn.g"),
    relations=(
        relation("excitatory.comm.weight", "affine", (N_IN + 3,), (N_REC,), "excitatory.syn.g cells.V"),
        relation("inhibitory.comm.weight", "affine", (1,), (N_REC,), "inhibitory.syn.g cells.V"),
    ),
    spiking=True,
)
def coba_excitatory_inhibitory(dtype=jnp.float32):
    with settings(dtype):
        return initialized(ExcitatoryInhibitory(), dtype)


class SignedCurrents(brainstate.nn.Module):
    """One weight per sender sign: ``abs(w) * sign``."""

    def __init__(self):
        super().__init__()
        self.neuron = bps.LIF(N_REC, tau=10 * u.ms)
        sign = jnp.ones((N_XZ, 1)).at[-1].set(-1.0)
        self.linear = brainstate.nn.SignedWLinear(
            N_XZ, N_REC, w_init=braintools.init.KaimingNormal(scale=10.0, unit=u.mA), w_sign=sign
        )

    def update(self, x):
        return self.neuron(self.linear(u.math.concatenate([x, self.neuron.get_spike()], axis=-1)))


@zoo_model(group("neuron.V"), relations=(drives("neuron.V"),), spiking=True)
def signed_currents(dtype=jnp.float32):
    with settings(dtype):
        return initialized(SignedCurrents(), dtype)


class Stack(brainstate.nn.Module):
    """Layers of LIF neurons with exponential synapses; spikes go on in the same step."""

    def __init__(self, sizes):
        super().__init__()
        self.linears = [linear(a, b) for a, b in itertools.pairwise(sizes)]
        self.synapses = [exponential(size) for size in sizes[1:]]
        self.neurons = [bps.LIF(size, tau=10 * u.ms) for size in sizes[1:]]

    def update(self, x):
        for weights, synapse, neuron in zip(self.linears, self.synapses, self.neurons):
            x = neuron(synapse(weights(x)))
        return x


def _stack_of(sizes):
    groups = [group(f"neurons.{k}.V synapses.{k}.g", (size,)) for k, size in enumerate(sizes[1:])]
    relations = tuple(
        relation(f"linears.{k}.weight", "affine", (sizes[k],), (sizes[k + 1],), f"neurons.{k}.V synapses.{k}.g")
        for k in range(len(sizes) - 1)
    )
    return zoo_model(*groups, relations=relations, spiking=True)


@_stack_of((N_IN, N_REC, 5))
def two_lif_layers(dtype=jnp.float32):
    with settings(dtype):
        return initialized(Stack((N_IN, N_REC, 5)), dtype)


@_stack_of((N_IN, N_REC, 5, 4))
def three_lif_layers(dtype=jnp.float32):
    """The last layer has the size of the first and is still a group of its own."""
    with settings(dtype):
        return initialized(Stack((N_IN, N_REC, 5, 4)), dtype)


class SpikingConvolution(brainstate.nn.Module):
    """A convolution of inputs onto LIF neurons, and a readout of their spikes."""

    def __init__(self):
        super().__init__()
        self.conv = brainstate.nn.Conv1d(
            (6, 1),
            2,
            3,
            w_init=braintools.init.KaimingNormal(scale=60.0),
            b_init=braintools.init.Constant(0.5),
        )
        self.neuron = bps.LIF((6, 2), tau=10 * u.ms)
        self.readout = brainstate.nn.Linear(12, 2)

    def update(self, x):
        return self.readout(self.neuron(self.conv(x) * u.mA).reshape(-1))


@zoo_model(
    group("neuron.V", (6, 2)),
    relations=(relation("conv.weight", "conv", (1, 6, 1), (1, 6, 2), "neuron.V"),),
    unrelated={"readout.weight": DiagnosticKind.READOUT_PARAMETER},
)
def spiking_convolution(dtype=jnp.float32):
    with settings(dtype):
        model = SpikingConvolution()
        brainstate.nn.init_all_states(model)
        return model, (jnp.ones((6, 1), dtype),)


class TrainableNeurons(brainstate.nn.Module):
    """LIF neurons whose time constants and thresholds are parameters with units."""

    def __init__(self, dtype):
        super().__init__()
        self.linear = linear(N_IN, N_REC)
        self.tau = brainstate.ParamState(uniform(0, N_REC, dtype=dtype, low=5.0, high=15.0) * u.ms)
        self.V_th = brainstate.ParamState(uniform(1, N_REC, dtype=dtype, low=0.5, high=1.0) * u.mV)

    def init_state(self, batch_size=None, **_):
        self.V = brainstate.HiddenState(jnp.zeros(N_REC, self.tau.value.dtype) * u.mV)

    def update(self, x):
        decay = u.math.exp(-DT / self.tau.value)
        V = decay * self.V.value + self.linear(x) * (1.0 * u.ohm)
        z = braintools.surrogate.ReluGrad()((V - self.V_th.value) / (1.0 * u.mV))
        self.V.value = V - self.V_th.value * z
        return z


@zoo_model(
    group("V"),
    relations=(
        relation("linear.weight", "affine", (N_IN,), (N_REC,), "V"),
        relation("tau", "elementwise", None, (N_REC,), "V"),
        relation("V_th", "elementwise", None, (N_REC,), "V"),
    ),
    spiking=True,
)
def trainable_neurons(dtype=jnp.float32):
    with settings(dtype):
        return initialized(TrainableNeurons(dtype), dtype)


class BrainstateCell(brainstate.nn.Module):
    """A cell of brainstate.nn with a readout."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.readout = brainstate.nn.Linear(N_REC, 2)

    def update(self, x):
        return self.readout(self.cell(x))


@zoo_model(
    group("cell.h"),
    relations=(
        relation("cell.Wrz.weight", "affine", (N_XZ,), (2 * N_REC,), "cell.h"),
        relation("cell.Wh.weight", "affine", (N_XZ,), (N_REC,), "cell.h"),
    ),
    unrelated={"readout.weight": DiagnosticKind.READOUT_PARAMETER},
)
def brainstate_gru(dtype=jnp.float32):
    """Both gates in one product: the half for z acts directly, the half for r through the candidate."""
    with settings(dtype):
        return initialized(BrainstateCell(brainstate.nn.GRUCell(N_IN, N_REC)), dtype)


@zoo_model(
    group("cell.c cell.h"),
    relations=(relation("cell.W.weight", "affine", (N_XZ,), (4 * N_REC,), "cell.c cell.h"),),
    unrelated={"readout.weight": DiagnosticKind.READOUT_PARAMETER},
    remarks={"cell.h": DiagnosticKind.STATE_MIXED},
)
def brainstate_lstm(dtype=jnp.float32):
    with settings(dtype):
        return initialized(BrainstateCell(brainstate.nn.LSTMCell(N_IN, N_REC)), dtype)


class Reference(brainstate.nn.Module):
    """ALIF neurons, short-term plasticity, an exponential current synapse and one linear map."""

    def __init__(self, n_in, n_rec):
        super().__init__()
        self.neu = bps.ALIF(n_rec, tau=20 * u.ms, tau_a=100.0 * u.ms, V_th=1 * u.mV)
        self.stp = bps.STP(n_rec, tau_f=500 * u.ms, tau_d=100 * u.ms)
        self.syn = bps.AlignPostProj(
            comm=brainstate.nn.Linear(
                n_in + n_rec,
                n_rec,
                w_init=braintools.init.KaimingNormal(scale=100.0, unit=u.mS),
                b_init=braintools.init.ZeroInit(unit=u.mS),
            ),
            syn=bps.Expon.desc(n_rec, tau=10.0 * u.ms, g_initializer=braintools.init.ZeroInit(unit=u.mS)),
            out=bps.CUBA.desc(scale=1.0 * u.mA / u.mS),
            post=self.neu,
        )

    def update(self, x):
        spk = self.neu.get_spike()
        self.syn(u.math.concatenate([x, self.stp(spk)], axis=-1))
        return self.neu()


REFERENCE_G = "neu._before_updates.….syn.g"
"""The synapse is created by its description; brainpy files it under a long generated key."""


@zoo_model(
    group(f"neu.V neu.a stp.u stp.x {REFERENCE_G}"),
    relations=(relation("syn.comm.weight", "affine", (N_XZ,), (N_REC,), f"{REFERENCE_G} neu.V"),),
    spiking=True,
)
def reference(dtype=jnp.float32):
    """The model of which the design states the analysis in full."""
    with settings(dtype, dt=0.1 * u.ms):
        return initialized(Reference(N_IN, N_REC), dtype)


class DelayedAndNoisy(brainstate.nn.Module):
    """A delay line of spikes, hidden by what it does, and beside it a counter and brainstate's random generator."""

    def __init__(self):
        super().__init__()
        self.neuron = bps.LIF(N_REC, tau=10 * u.ms)
        self.linear = linear(N_XZ, N_REC)

    def init_state(self, batch_size=None, **_):
        self.line = brainstate.ShortTermState(jnp.zeros((2, N_REC), self.neuron.V.value.dtype))
        self.count = brainstate.ShortTermState(jnp.asarray(0, jnp.int32))

    def update(self, x):
        current = self.linear(u.math.concatenate([x, self.line.value[-1]], axis=-1))
        noise = brainstate.random.normal(size=(N_REC,), dtype=x.dtype) * u.mA
        z = self.neuron(current + noise)
        self.line.value = u.math.concatenate([z[None], self.line.value[:-1]])
        self.count.value = self.count.value + 1
        return z


@zoo_model(
    group("neuron.V line", num_state=3),
    relations=(drives("neuron.V line"),),
    other="count brainstate.random",
    remarks={
        "line": DiagnosticKind.HIDDEN_BY_USE,
        "count": DiagnosticKind.NON_FLOATING_STATE,
        "brainstate.random": DiagnosticKind.NON_FLOATING_STATE,
    },
    spiking=True,
)
def delayed_and_noisy(dtype=jnp.float32):
    with settings(dtype):
        model = DelayedAndNoisy()
        brainstate.nn.init_all_states(model.neuron)
        return initialized(model, dtype)
