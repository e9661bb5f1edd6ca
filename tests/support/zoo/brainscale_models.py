"""Models written with braintrace's own layers, cells and operators; brainscale 0.1 where it is installed."""

from __future__ import annotations

import brainevent
import brainpy.state as bps
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp
import pytest

from ranvier.types import DiagnosticKind

from .model import N_IN, N_REC, elementwise, group, indirect, normal, relation, uniform, zoo_model
from .operators import PATTERN
from .spiking import N_XZ, exponential, initialized, settings

CELL = {"x": (N_XZ,), "y": (N_REC,)}


def _braintrace():
    return pytest.importorskip("braintrace")


@zoo_model(
    group("cell.h"),
    relations=(relation("cell.W.weight", "affine", connected="cell.h", **CELL),),
    unrelated={"readout.weight": DiagnosticKind.READOUT_PARAMETER},
    remarks={"cell.h": DiagnosticKind.STATE_MIXED},
)
def braintrace_vanilla_rnn(dtype=jnp.float32):
    return _cell("ValinaRNNCell", dtype, activation="tanh")


def _cell(name, dtype, **options):
    braintrace = _braintrace()

    class WithReadout(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = getattr(braintrace.nn, name)(N_IN, N_REC, **options)
            self.readout = braintrace.nn.Linear(N_REC, 2)

        def update(self, x):
            return self.readout(self.cell(x))

    with settings(dtype):
        return initialized(WithReadout(), dtype)


READOUT = {"readout.weight": DiagnosticKind.READOUT_PARAMETER}


@zoo_model(
    group("cell.h"),
    relations=(
        relation("cell.Wz.weight", "affine", connected="cell.h", **CELL),
        indirect("cell.Wr.weight", (N_XZ,)),
        relation("cell.Wh.weight", "affine", connected="cell.h", **CELL),
    ),
    unrelated=READOUT | {"cell.Wr.weight": DiagnosticKind.INDIRECT_PARAMETER},
)
def braintrace_gru(dtype=jnp.float32):
    return _cell("GRUCell", dtype)


@zoo_model(
    group("cell.c cell.h"),
    relations=(
        *(relation(f"cell.W{gate}.weight", "affine", connected="cell.c cell.h", **CELL) for gate in "igf"),
        relation("cell.Wo.weight", "affine", connected="cell.h", **CELL),
    ),
    unrelated=READOUT,
    remarks={"cell.h": DiagnosticKind.STATE_MIXED},
)
def braintrace_lstm(dtype=jnp.float32):
    return _cell("LSTMCell", dtype)


@zoo_model(
    group("cell.h"),
    relations=tuple(relation(f"cell.W{gate}.weight", "affine", connected="cell.h", **CELL) for gate in "fh"),
    unrelated=READOUT,
)
def braintrace_mgu(dtype=jnp.float32):
    return _cell("MGUCell", dtype)


@zoo_model(
    group("cell.h"),
    relations=(
        relation("cell.phi.weight", "affine", (N_IN,), (N_REC,), "cell.h"),
        relation("cell.W_u.weight", "affine", (2 * N_REC,), (N_REC,), "cell.h"),
    ),
    unrelated=READOUT,
)
def braintrace_minimal_rnn(dtype=jnp.float32):
    return _cell("MinimalRNNCell", dtype)


@zoo_model(
    group("h_re h_im"),
    relations=(
        elementwise("nu_log", "h_re h_im", probe="a_cos_b"),
        elementwise("theta_log", "h_re h_im", probe="a_cos_b"),
        elementwise("nu_log", "h_re h_im", probe="a_sin_b"),
        elementwise("theta_log", "h_re h_im", probe="a_sin_b"),
        elementwise("gamma_log", "h_re h_im"),
        relation("B_re.weight", "affine", (N_IN,), (N_REC,), "h_re"),
        relation("B_im.weight", "affine", (N_IN,), (N_REC,), "h_im"),
    ),
    unrelated=dict.fromkeys(("C_re.weight", "C_im.weight", "D"), DiagnosticKind.READOUT_PARAMETER),
)
def braintrace_lru(dtype=jnp.float32):
    braintrace = _braintrace()
    with settings(dtype):
        return initialized(braintrace.nn.LRUCell(N_IN, N_REC), dtype)


class _Spiking(brainstate.nn.Module):
    """Any layer of braintrace between inputs, last spikes and LIF neurons, with a leaky readout."""

    def __init__(self, layer, readout):
        super().__init__()
        self.layer, self.readout = layer, readout
        self.synapse = exponential(N_REC)
        self.neuron = bps.LIF(N_REC, tau=10 * u.ms)

    def update(self, x):
        y = self.layer(u.math.concatenate([x, self.neuron.get_spike()], axis=-1))
        return self.readout(self.neuron(self.synapse(y * u.mA)))


def _spiking(make_layer, dtype):
    braintrace = _braintrace()
    with settings(dtype):
        readout = braintrace.nn.LeakyRateReadout(N_REC, 2)
        return initialized(_Spiking(make_layer(braintrace), readout), dtype)


LAYER = relation("layer.weight", "affine", (N_XZ,), (N_REC,), "neuron.V synapse.g")
LEAKY = relation("readout.W", "affine", (N_REC,), (2,), "readout.r")
POPULATION, READERS = group("neuron.V synapse.g"), group("readout.r", (2,))
INIT = braintools.init.KaimingNormal(scale=30.0)


@zoo_model(POPULATION, READERS, relations=(LAYER, LEAKY))
def braintrace_linear(dtype=jnp.float32):
    return _spiking(lambda b: b.nn.Linear(N_XZ, N_REC, w_init=INIT), dtype)


@zoo_model(POPULATION, READERS, relations=(LAYER, LEAKY))
def braintrace_masked_linear(dtype=jnp.float32):
    def layer(braintrace):
        mask = jnp.asarray(uniform(0, N_XZ, N_REC, dtype=dtype) > 0.3, dtype)
        return braintrace.nn.Linear(N_XZ, N_REC, w_init=INIT, w_mask=mask)

    return _spiking(layer, dtype)


@zoo_model(POPULATION, READERS, relations=(LAYER, LEAKY))
def braintrace_signed_linear(dtype=jnp.float32):
    def layer(braintrace):
        sign = jnp.ones((N_XZ, 1), dtype).at[-1].set(-1.0)
        return braintrace.nn.SignedWLinear(N_XZ, N_REC, w_init=INIT, w_sign=sign)

    return _spiking(layer, dtype)


@zoo_model(POPULATION, READERS, relations=(LAYER, LEAKY))
def braintrace_lora(dtype=jnp.float32):
    return _spiking(lambda b: b.nn.LoRA(N_XZ, 2, N_REC, kernel_init=INIT), dtype)


@zoo_model(
    POPULATION,
    READERS,
    relations=(relation("layer.weight", "sparse", (N_XZ,), (N_REC,), "neuron.V synapse.g"), LEAKY),
)
def braintrace_sparse_linear(dtype=jnp.float32):
    def layer(braintrace):
        pattern = jnp.concatenate([jnp.asarray(PATTERN), jnp.eye(N_REC)]).astype(dtype)
        csr = brainevent.CSR.fromdense(2 * pattern)
        csr = brainevent.CSR((csr.data, csr.indices, csr.indptr), shape=csr.shape, backend="jax_raw")
        return braintrace.nn.SparseLinear(csr)

    return _spiking(layer, dtype)


class _Operators(brainstate.nn.Module):
    """braintrace's operators called directly on parameters."""

    def __init__(self, braintrace, dtype):
        super().__init__()
        self.ops = braintrace
        self.w = brainstate.ParamState(normal(0, N_XZ, N_REC, dtype=dtype))
        self.decay = brainstate.ParamState(normal(1, N_REC, dtype=dtype))
        self.table = brainstate.ParamState(normal(2, 3, N_REC, dtype=dtype))

    def init_state(self, batch_size=None, **_):
        self.h = brainstate.HiddenState(jnp.zeros(N_REC, self.w.value.dtype))

    def update(self, x, token):
        decay = self.ops.element_wise(self.decay.value, weight_fn=brainstate.nn.sigmoid)
        y = self.ops.matmul(jnp.concatenate([x, self.h.value]), self.w.value)
        self.h.value = decay * self.h.value + jnp.tanh(y + self.ops.embedding(token, self.table.value))
        return self.h.value


@zoo_model(
    group("h"),
    relations=(
        elementwise("decay", "h"),
        relation("w", "affine", connected="h", **CELL),
        relation("table", "embedding", (1,), (N_REC,), "h"),
    ),
)
def braintrace_operators(dtype=jnp.float32):
    with settings(dtype):
        model = _Operators(_braintrace(), dtype)
        brainstate.nn.init_all_states(model)
        return model, (jnp.ones(N_IN, dtype), jnp.asarray(1, jnp.int32))


class _GroupedAndConv(brainstate.nn.Module):
    """Two layers: grouped products on three groups of two, then a convolution over the groups; batch of two."""

    def __init__(self, braintrace):
        super().__init__()
        self.grouped = braintrace.nn.GroupedLinear(3, 2, 2, w_init=INIT)
        self.conv = braintrace.nn.Conv1d((3, 2), 2, 3, w_init=INIT)

    def init_state(self, batch_size=2, **_):
        self.first = brainstate.HiddenState(jnp.zeros((2, 3, 2), self.grouped.weight.value["weight"].dtype))
        self.second = brainstate.HiddenState(jnp.zeros((2, 3, 2), self.grouped.weight.value["weight"].dtype))

    def update(self, x):
        self.first.value = 0.8 * self.first.value + jnp.tanh(self.grouped(x))
        self.second.value = 0.8 * self.second.value + jnp.tanh(self.conv(self.first.value))
        return self.second.value


@zoo_model(
    group("first", (2, 3, 2)),
    group("second", (2, 3, 2)),
    relations=(
        relation("grouped.weight", "affine", (2, 3, 2), (2, 3, 2), "first"),
        relation("conv.weight", "conv", (2, 3, 2), (2, 3, 2), "second"),
    ),
)
def braintrace_grouped_and_conv(dtype=jnp.float32):
    with settings(dtype):
        model = _GroupedAndConv(_braintrace())
        brainstate.nn.init_all_states(model)
        return model, (jnp.ones((2, 3, 2), dtype),)


@zoo_model(group("h"), relations=(relation("op", "affine", (N_XZ,), (N_REC,), "h"),))
def brainscale_linear(dtype=jnp.float32):
    """brainscale 0.1 keeps weight and operator together in an ``ETraceParam``."""
    brainscale = pytest.importorskip("brainscale")

    class Net(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.op = brainscale.ETraceParam({"weight": normal(0, N_XZ, N_REC, dtype=dtype)}, brainscale.MatMulOp())

        def init_state(self, batch_size=None, **_):
            self.h = brainstate.HiddenState(jnp.zeros(N_REC, dtype))

        def update(self, x):
            y = self.op.execute(jnp.concatenate([x, self.h.value]))
            self.h.value = 0.5 * self.h.value + jnp.tanh(y)
            return self.h.value

    with settings(dtype):
        return initialized(Net(), dtype)
