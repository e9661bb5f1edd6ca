"""Models that differ in how weights, states and control flow are arranged."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

import ranvier
from ranvier.types import DiagnosticKind

from .model import (
    N_IN,
    N_REC,
    elementwise,
    group,
    is_probing,
    lif,
    mixed,
    normal,
    probed,
    relation,
    spike,
    uniform,
    zeros,
    zoo_model,
)

FROM_INPUT = relation("w", "affine", (N_IN,), (N_REC,), "v")
RECURRENT = relation("u", "affine", (N_REC,), (N_REC,), "v")


def _input_weight(dtype, rows=N_IN, columns=N_REC, seed=0):
    return {"w": normal(seed, rows, columns, dtype=dtype)}


def _model(step, params, state, dtype, *inputs, other=()):
    return ranvier.step_function(step, params, state, other=other), inputs or (jnp.ones(N_IN, dtype),)


# Weights ------------------------------------------------------------------------------------------------------


@zoo_model(
    group("v1"),
    group("v2"),
    relations=(
        relation("w_in", "affine", (N_IN,), (N_REC,), "v1"),
        relation("w", "affine", (N_REC,), (N_REC,), "v1", probe="first"),
        relation("w", "affine", (N_REC,), (N_REC,), "v2", probe="second"),
    ),
    other="z1",
    spiking=True,
)
def tied_weights(dtype=jnp.float32):
    """One matrix is the recurrent weight of layer 1 and the feed-forward weight of layer 2."""

    def step(params, state, x):
        recurrent = mixed("first", state["z1"] @ params["w"])
        v1, z1 = lif(state["v1"], mixed("w_in", x @ params["w_in"]) + recurrent)
        v2, z2 = lif(state["v2"], mixed("second", z1 @ params["w"]))
        return {"v1": v1, "v2": v2, "z1": z1}, z2

    params = {"w_in": normal(0, N_IN, N_REC, dtype=dtype), "w": normal(1, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v1=(N_REC,), v2=(N_REC,), z1=(N_REC,)), dtype, other=("z1",))


@zoo_model(
    group("h"),
    relations=(
        relation("w", "affine", (N_IN,), (N_REC,), "h", probe="gate"),
        relation("w", "affine", (N_IN,), (N_REC,), "h", probe="value"),
    ),
)
def tied_gate_and_value(dtype=jnp.float32):
    """One matrix used twice for one group, on two data operands."""

    def step(params, state, x):
        gate = jax.nn.sigmoid(mixed("gate", x @ params["w"]))
        value = jnp.tanh(mixed("value", (x**2) @ params["w"]))
        h = gate * state["h"] + (1 - gate) * value
        return {"h": h}, h

    return _model(step, _input_weight(dtype), zeros(dtype, h=(N_REC,)), dtype)


@zoo_model(
    group("v1"),
    group("v2", (N_IN,)),
    relations=(
        relation("w", "affine", (N_IN,), (N_REC,), "v1", probe="down"),
        relation("w", "affine", (N_REC,), (N_IN,), "v2", probe="up"),
    ),
)
def tied_transposed(dtype=jnp.float32):
    """An autoencoder whose second layer has the transposed weight of the first."""

    def step(params, state, x):
        v1, z1 = lif(state["v1"], mixed("down", x @ params["w"]))
        v2 = 0.8 * state["v2"] + mixed("up", z1 @ params["w"].T)
        return {"v1": v1, "v2": v2}, v2

    return _model(step, _input_weight(dtype), zeros(dtype, v1=(N_REC,), v2=(N_IN,)), dtype)


@zoo_model(group("a"), group("b"), relations=(relation("w", "affine", (N_IN,), (N_REC,), "a b"),))
def one_weight_two_groups(dtype=jnp.float32):
    def step(params, state, x):
        y = mixed("w", x @ params["w"])
        a, b = 0.9 * state["a"] + y, 0.5 * state["b"] + jnp.tanh(y)
        return {"a": a, "b": b}, a * b

    return _model(step, _input_weight(dtype), zeros(dtype, a=(N_REC,), b=(N_REC,)), dtype)


@zoo_model(group("a"), group("b", (2,)), relations=(relation("w", "affine", (N_IN,), (6,), "a b"),))
def halves_into_two_groups(dtype=jnp.float32):
    def step(params, state, x):
        y = mixed("w", x @ params["w"])
        a, b = 0.9 * state["a"] + y[:N_REC], 0.5 * state["b"] + y[N_REC:]
        return {"a": a, "b": b}, jnp.concatenate([a, b])

    return _model(step, _input_weight(dtype, columns=6), zeros(dtype, a=(N_REC,), b=(2,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def rolled_output(dtype=jnp.float32):
    def step(params, state, x):
        v, z = lif(state["v"], jnp.roll(mixed("w", x @ params["w"]), 1))
        return {"v": v}, z

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(relation("w", "affine", (N_IN,), (2 * N_REC,), "v"),), spiking=True)
def sliced_output(dtype=jnp.float32):
    """Every other output drives the neurons; the rest goes nowhere."""

    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", x @ params["w"])[::2])
        return {"v": v}, z

    return _model(step, _input_weight(dtype, columns=2 * N_REC), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(relation("w", "affine", (N_IN,), (2 * N_REC,), "v"),), spiking=True)
def gated_halves(dtype=jnp.float32):
    """Two outputs meet at each neuron, one as the gate of the other."""

    def step(params, state, x):
        value, gate = jnp.split(mixed("w", x @ params["w"]), 2)
        v, z = lif(state["v"], 2 * value * jax.nn.sigmoid(gate))
        return {"v": v}, z

    return _model(step, _input_weight(dtype, columns=2 * N_REC), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v", (2, N_REC)), relations=(relation("w", "affine", (N_IN, 2), (N_REC, 2), "v"),), spiking=True)
def transposed_output(dtype=jnp.float32):
    """``w`` times a matrix of inputs, then transposed onto the population."""

    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", params["w"] @ x).T)
        return {"v": v}, z

    params = {"w": normal(2, N_REC, N_IN, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(2, N_REC)), dtype, jnp.ones((N_IN, 2), dtype))


@zoo_model(group("v"), relations=(relation("w", "affine", (N_IN,), (1,), "v"),))
def broadcast_output(dtype=jnp.float32):
    """One output drives all neurons."""

    def step(params, state, x):
        v = 0.9 * state["v"] + mixed("w", x @ params["w"])
        return {"v": v}, v

    return _model(step, _input_weight(dtype, columns=1), zeros(dtype, v=(N_REC,)), dtype)


def _transformed(transform, dtype, **more):
    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", x @ transform(params)))
        return {"v": v}, z

    return _model(step, _input_weight(dtype) | more, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def masked_weights(dtype=jnp.float32):
    mask = jnp.asarray([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], dtype)
    return _transformed(lambda p: mask * p["w"], dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def softplus_weights(dtype=jnp.float32):
    return _transformed(lambda p: 0.3 * jax.nn.softplus(p["w"]), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def signed_weights(dtype=jnp.float32):
    """Dale's law: the sign belongs to the sender."""
    sign = jnp.asarray([[1], [1], [-1]], dtype)
    return _transformed(lambda p: sign * jnp.abs(p["w"]), dtype)


@zoo_model(
    group("v"),
    relations=(FROM_INPUT, relation("scale", "affine", (N_IN,), (N_REC,), "v", probe="w")),
    spiking=True,
)
def normalized_weights(dtype=jnp.float32):
    """Weight normalization: direction and length are two parameters of one product."""

    def transform(params):
        return params["scale"] * params["w"] / jnp.linalg.norm(params["w"], axis=0)

    return _transformed(transform, dtype, scale=uniform(4, N_REC, dtype=dtype, low=1.0, high=2.0))


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def transposed_weights(dtype=jnp.float32):
    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", x @ params["w"].T))
        return {"v": v}, z

    return _model(step, _input_weight(dtype, N_REC, N_IN), zeros(dtype, v=(N_REC,)), dtype)


# Elementwise parameters -----------------------------------------------------------------------------------------


@zoo_model(
    group("v"),
    relations=(FROM_INPUT, elementwise("tau_log", "v"), elementwise("threshold", "v")),
    spiking=True,
)
def trainable_tau_and_threshold(dtype=jnp.float32):
    def step(params, state, x):
        decay = probed("tau_log", jnp.exp(-1 / jnp.exp(params["tau_log"])))
        v, z = lif(state["v"], mixed("w", x @ params["w"]), decay, probed("threshold", params["threshold"]))
        return {"v": v}, z

    params = _input_weight(dtype) | {
        "tau_log": uniform(5, N_REC, dtype=dtype, low=0.5, high=2.0),
        "threshold": uniform(6, N_REC, dtype=dtype, low=0.5, high=1.0),
    }
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT, elementwise("threshold", "v", ())), spiking=True)
def shared_threshold(dtype=jnp.float32):
    """One scalar for all neurons."""

    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", x @ params["w"]), 0.8, probed("threshold", params["threshold"]))
        return {"v": v}, z

    params = _input_weight(dtype) | {"threshold": jnp.asarray(0.7, dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(
    group("a v"),
    relations=(relation("w", "affine", (N_IN,), (N_REC,), "a v"), elementwise("beta", "a v"), elementwise("rho", "a")),
    spiking=True,
)
def adaptive_threshold(dtype=jnp.float32):
    """ALIF with trainable adaptation; the spike of this step raises the threshold of the next."""

    def step(params, state, x):
        v = 0.8 * state["v"] + mixed("w", x @ params["w"])
        z = spike(v - 1.0 - probed("beta", params["beta"]) * state["a"])
        a = probed("rho", jax.nn.sigmoid(params["rho"])) * state["a"] + z
        return {"v": v - z, "a": a}, z

    params = _input_weight(dtype) | {
        "beta": uniform(7, N_REC, dtype=dtype),
        "rho": normal(8, N_REC, dtype=dtype),
    }
    return _model(step, params, zeros(dtype, v=(N_REC,), a=(N_REC,)), dtype)


# Recurrence -----------------------------------------------------------------------------------------------------


@zoo_model(
    group("v z"),
    relations=(
        relation("w", "affine", (N_IN,), (N_REC,), "v z"),
        relation("u", "affine", (N_REC,), (N_REC,), "v z"),
    ),
    unrelated={"w_out": DiagnosticKind.READOUT_PARAMETER, "b_out": DiagnosticKind.READOUT_PARAMETER},
)
def recurrent_lif_with_readout(dtype=jnp.float32):
    """The spike is a state: it resets the potential one step later, elementwise."""

    def step(params, state, x):
        current = mixed("w", x @ params["w"]) + mixed("u", state["z"] @ params["u"])
        v = 0.8 * state["v"] + current - state["z"]
        z = spike(v - 1.0)
        return {"v": v, "z": z}, z @ params["w_out"] + params["b_out"]

    params = _input_weight(dtype) | {
        "u": normal(9, N_REC, N_REC, dtype=dtype, scale=0.5),
        "w_out": normal(10, N_REC, 2, dtype=dtype),
        "b_out": normal(11, 2, dtype=dtype),
    }
    return _model(step, params, zeros(dtype, v=(N_REC,), z=(N_REC,)), dtype)


@zoo_model(
    group("v1"),
    group("v2", (5,)),
    group("v3", (2,)),
    relations=(
        relation("w1", "affine", (N_IN,), (N_REC,), "v1"),
        relation("w2", "affine", (N_REC,), (5,), "v2"),
        relation("w3", "affine", (5,), (2,), "v3"),
    ),
    spiking=True,
)
def three_layers(dtype=jnp.float32):
    def step(params, state, x):
        v1, z1 = lif(state["v1"], mixed("w1", x @ params["w1"]))
        v2, z2 = lif(state["v2"], mixed("w2", z1 @ params["w2"]))
        v3, z3 = lif(state["v3"], mixed("w3", z2 @ params["w3"]))
        return {"v1": v1, "v2": v2, "v3": v3}, z3

    params = {
        "w1": normal(12, N_IN, N_REC, dtype=dtype, scale=1.5),
        "w2": normal(13, N_REC, 5, dtype=dtype, scale=1.5),
        "w3": normal(14, 5, 2, dtype=dtype, scale=1.5),
    }
    return _model(step, params, zeros(dtype, v1=(N_REC,), v2=(5,), v3=(2,)), dtype)


@zoo_model(
    group("v1 v2"),
    relations=(relation("w", "affine", (N_IN,), (N_REC,), "v1 v2"), elementwise("gain", "v2")),
    spiking=True,
)
def one_to_one_layers(dtype=jnp.float32):
    """Neurons joined one by one are one population."""

    def step(params, state, x):
        v1, z1 = lif(state["v1"], mixed("w", x @ params["w"]))
        v2, z2 = lif(state["v2"], probed("gain", params["gain"]) * z1)
        return {"v1": v1, "v2": v2}, z2

    params = _input_weight(dtype) | {"gain": uniform(15, N_REC, dtype=dtype, low=0.5, high=1.5)}
    return _model(step, params, zeros(dtype, v1=(N_REC,), v2=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def global_inhibition(dtype=jnp.float32):
    """The mean potential mixes, so it is no part of D."""

    def step(params, state, x):
        inhibition = mixed("mean", state["v"].mean())
        v, z = lif(state["v"], mixed("w", x @ params["w"]) - 0.3 * inhibition)
        return {"v": v}, z

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v", (), num_state=N_REC), relations=(FROM_INPUT,))
def small_ring(dtype=jnp.float32):
    """Each neuron takes over from its neighbor: four neurons are one position with four components."""
    return _ring(N_REC, dtype)


@zoo_model(
    group("v", (70,)),
    relations=(relation("w", "affine", (N_IN,), (70,), "v"),),
    remarks={"v": DiagnosticKind.POSITIONS_MOVE},
)
def large_ring(dtype=jnp.float32):
    """Too many neurons for one block: D keeps what stays in place."""
    return _ring(70, dtype)


def _ring(size, dtype):
    def step(params, state, x):
        v = 0.5 * state["v"] + 0.4 * jnp.roll(state["v"], 1) + mixed("w", x @ params["w"])
        return {"v": v}, v

    return _model(step, _input_weight(dtype, columns=size), zeros(dtype, v=(size,)), dtype)


@zoo_model(
    group("m", ()),
    group("v"),
    relations=(FROM_INPUT, elementwise("drive", "m", ())),
    remarks={"m": DiagnosticKind.STATE_BROADCAST, "v": DiagnosticKind.STATE_BROADCAST},
)
def broadcast_state(dtype=jnp.float32):
    """A scalar modulator feeds all neurons through its old value."""

    def step(params, state, x):
        v = 0.9 * state["v"] + mixed("w", x @ params["w"]) * state["m"]
        m = 0.9 * state["m"] + probed("drive", params["drive"])
        return {"v": v, "m": m}, v

    params = _input_weight(dtype) | {"drive": jnp.asarray(0.5, dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,), m=()), dtype)


@zoo_model(
    group("row", (1, N_REC)),
    group("v", (2, N_REC)),
    relations=(relation("w", "affine", (N_IN,), (N_REC,), "v"), elementwise("drive", "row", (1, N_REC))),
    remarks={"row": DiagnosticKind.STATE_BROADCAST, "v": DiagnosticKind.STATE_BROADCAST},
)
def row_broadcast(dtype=jnp.float32):
    """A row of currents and a row of states, each for both rows of the population."""

    def step(params, state, x):
        current = mixed("w", x @ params["w"])[None]
        v = 0.9 * state["v"] + current + 0.1 * state["row"]
        return {"v": v, "row": 0.5 * state["row"] + probed("drive", params["drive"])}, v

    params = _input_weight(dtype) | {"drive": uniform(27, 1, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(2, N_REC), row=(1, N_REC)), dtype)


@zoo_model(
    group("packed", num_state=2), relations=(relation("w", "affine", (N_IN,), (N_REC,), "packed"),), spiking=True
)
def packed_columns(dtype=jnp.float32):
    """Potential and current of each neuron are the columns of one array."""

    def step(params, state, x):
        v, i = state["packed"][:, 0], state["packed"][:, 1]
        i = 0.7 * i + mixed("w", x @ params["w"])
        v, z = lif(v, i)
        return {"packed": jnp.stack([v, i], axis=1)}, z

    return _model(step, _input_weight(dtype), zeros(dtype, packed=(N_REC, 2)), dtype)


# Control flow ---------------------------------------------------------------------------------------------------


@zoo_model(
    group("v"),
    relations=(
        relation("w", "branch", ((), (N_IN,)), (N_REC,), "v", probe="y"),
        relation("u", "branch", ((), (N_IN,)), (N_REC,), "v", probe="y"),
    ),
)
def weights_inside_cond(dtype=jnp.float32):
    """Two weights, one per branch; the branch index is a data operand too."""

    def step(params, state, x):
        y = lax.cond(x.sum() > 2.0, lambda x: x @ params["w"], lambda x: jnp.tanh(x @ params["u"]), x)
        v = 0.9 * state["v"] + mixed("y", y)
        return {"v": v}, v

    params = _input_weight(dtype) | {"u": normal(16, N_IN, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,))
def dynamics_inside_cond(dtype=jnp.float32):
    """Elementwise branches: the decay depends on the input, D is that of the branch taken."""

    def step(params, state, x):
        y = mixed("w", x @ params["w"])
        v = lax.cond(x.sum() > 2.0, lambda v: 0.9 * v + y, lambda v: jnp.tanh(v) * y, state["v"])
        return {"v": v}, v

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(
    group("v"),
    relations=tuple(relation("w", "affine", (N_IN,), (N_REC,), "v", probe=f"y{k}") for k in range(3)),
)
def weight_inside_short_scan(dtype=jnp.float32):
    """Three substeps are unrolled: the weight is used three times."""

    def step(params, state, x):
        v = state["v"]
        inputs = x * jnp.asarray([1.0, 0.5, 0.25], x.dtype)[:, None]
        v, _ = _scan_of_three(lambda v, y: jnp.tanh(0.9 * v + y), params["w"], v, inputs)
        return {"v": v}, v

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


def _scan_of_three(update, weight, v, inputs):
    """A scan; the same written out where marks are active, because a mark belongs to one turn."""
    if not is_probing():
        return lax.scan(lambda v, x: (update(v, x @ weight), None), v, inputs)
    for k in range(3):
        v = update(v, mixed(f"y{k}", inputs[k] @ weight))
    return v, None


@zoo_model(group("v"), relations=(relation("w", "loop", (N_IN,), (N_REC,), "v"),))
def weight_inside_long_scan(dtype=jnp.float32):
    """Forty turns of a low-pass filter make the current; the loop stays a loop."""

    def step(params, state, x):
        start = jnp.zeros(N_REC, x.dtype)
        current, _ = lax.scan(lambda i, _: (0.9 * i + 0.1 * (x @ params["w"]), None), start, length=40)
        v = 0.9 * state["v"] + mixed("w", current)
        return {"v": v}, v

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(relation("u", "loop", ((N_REC,), (N_REC,)), (N_REC,), "v"),))
def recurrence_inside_long_scan(dtype=jnp.float32):
    """The state goes through forty turns; D holds the recurrent product of every turn."""

    def step(params, state, x):
        def turn(v, _):
            return v + 0.02 * (jnp.tanh(mixed("inside", v @ params["u"])) - v + x), None

        v, _ = lax.scan(turn, state["v"], length=40)
        v = probed("u", v)
        return {"v": v}, v

    params = {"u": normal(17, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype, jnp.ones(N_REC, dtype))


@zoo_model(group("v"), relations=(FROM_INPUT,))
def dynamics_inside_long_scan(dtype=jnp.float32):
    """Forty elementwise turns of the state; the weight stays outside."""

    def step(params, state, x):
        y = mixed("w", x @ params["w"])
        v, _ = lax.scan(lambda v, _: (v + 0.05 * (jnp.tanh(y) - v**3 - 0.1 * v), None), state["v"], length=40)
        return {"v": v}, v

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(
    group("v"),
    relations=(FROM_INPUT, relation("u", "loop", (N_REC,), (N_REC,), "v", probe="r")),
    differentiable=False,
)
def weight_inside_while(dtype=jnp.float32):
    """A loop whose number of turns is not known before it runs, which JAX differentiates in forward mode only."""

    def step(params, state, x):
        def turn(carry):
            count, r = carry
            return count + 1, jnp.tanh(r @ params["u"] + 0.1)

        def goes_on(carry):
            count, r = carry
            return (count < 5) & (jnp.abs(r).max() < 100)

        _, r = lax.while_loop(goes_on, turn, (0, state["v"]))
        v = 0.5 * state["v"] + mixed("w", x @ params["w"]) + mixed("r", r)
        return {"v": v}, v

    params = _input_weight(dtype) | {"u": normal(18, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT, RECURRENT), spiking=True)
def rematerialized(dtype=jnp.float32):
    def step(params, state, x):
        @jax.checkpoint
        def body(v):
            current = mixed("w", x @ params["w"]) + mixed("u", jnp.tanh(v) @ params["u"])
            return lif(v, current)

        v, z = body(state["v"])
        return {"v": v}, z

    params = _input_weight(dtype) | {"u": normal(19, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT, RECURRENT), spiking=True)
def nested_jit(dtype=jnp.float32):
    """Two levels of ``jit`` around weights, dynamics and spike."""

    def step(params, state, x):
        current = jax.jit(lambda v: mixed("w", x @ params["w"]) + mixed("u", jnp.tanh(v) @ params["u"]))
        v, z = jax.jit(lambda v: jax.jit(lif)(v, current(v)))(state["v"])
        return {"v": v}, z

    params = _input_weight(dtype) | {"u": normal(19, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(group("v"), relations=(FROM_INPUT,), spiking=True)
def reset_by_where(dtype=jnp.float32):
    """Reset to zero: the potential passes its derivative where there is no spike."""

    def step(params, state, x):
        v = 0.8 * state["v"] + mixed("w", x @ params["w"])
        z = spike(v - 1.0)
        return {"v": jnp.where(z > 0.5, 0.0, v)}, z

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,)), dtype)


@jax.custom_vjp
def _boxcar_spike(v):
    return (v >= 0).astype(v.dtype)


_boxcar_spike.defvjp(
    lambda v: (_boxcar_spike(v), v),
    lambda v, g: (g * jnp.maximum(0.0, 1 - 0.4 * jnp.abs(v)),),
)


@zoo_model(group("trace v"), relations=(relation("w", "affine", (N_IN,), (N_REC,), "trace v"),), spiking=True)
def custom_vjp_spike(dtype=jnp.float32):
    def step(params, state, x):
        v = 0.8 * state["v"] + mixed("w", x @ params["w"])
        z = _boxcar_spike(v - 1.0)
        return {"v": v - z, "trace": 0.9 * state["trace"] + z}, z

    return _model(step, _input_weight(dtype), zeros(dtype, v=(N_REC,), trace=(N_REC,)), dtype)


# Other states and parameters without a relation -----------------------------------------------------------------


@zoo_model(group("v"), relations=(FROM_INPUT, RECURRENT), other="buffer", spiking=True)
def delay_buffer(dtype=jnp.float32):
    """Spikes come back after three steps."""

    def step(params, state, x):
        v, z = lif(state["v"], mixed("w", x @ params["w"]) + mixed("u", state["buffer"][-1] @ params["u"]))
        return {"v": v, "buffer": jnp.concatenate([z[None], state["buffer"][:-1]])}, z

    params = _input_weight(dtype) | {"u": normal(20, N_REC, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,), buffer=(3, N_REC)), dtype, other=("buffer",))


@zoo_model(
    group("v"),
    relations=(FROM_INPUT, RECURRENT),
    unrelated={"weight_of_mean": DiagnosticKind.OTHER_STATE_PARAMETER},
    other="buffer count mean",
    remarks={"count": DiagnosticKind.NON_FLOATING_STATE},
    spiking=True,
)
def ring_buffer_with_counter(dtype=jnp.float32):
    """A counter says where in the ring to read and write; a running statistic has a parameter of its own."""

    def step(params, state, x):
        slot = state["count"] % 3
        delayed = lax.dynamic_index_in_dim(state["buffer"], slot, keepdims=False)
        centered = x - 0.1 * state["mean"]
        v, z = lif(state["v"], mixed("w", centered @ params["w"]) + mixed("u", delayed @ params["u"]))
        buffer = lax.dynamic_update_index_in_dim(state["buffer"], z, slot, 0)
        mean = 0.9 * state["mean"] + params["weight_of_mean"] * x
        return {"v": v, "buffer": buffer, "count": state["count"] + 1, "mean": mean}, z

    params = _input_weight(dtype) | {
        "u": normal(20, N_REC, N_REC, dtype=dtype),
        "weight_of_mean": jnp.full(N_IN, 0.1, dtype),
    }
    state = zeros(dtype, v=(N_REC,), buffer=(3, N_REC), mean=(N_IN,)) | {"count": jnp.asarray(0, jnp.int32)}
    return _model(step, params, state, dtype, other=("buffer", "mean"))


@zoo_model(
    group("v"),
    relations=(FROM_INPUT, elementwise("sigma", "v")),
    other="key",
    remarks={"key": DiagnosticKind.NON_FLOATING_STATE},
    spiking=True,
)
def noisy(dtype=jnp.float32):
    """The random key is a state; the size of the noise is trained."""

    def step(params, state, x):
        key, now = jax.random.split(state["key"])
        noise = probed("sigma", params["sigma"]) * jax.random.normal(now, (N_REC,), x.dtype)
        v, z = lif(state["v"], mixed("w", x @ params["w"]) + noise)
        return {"v": v, "key": key}, z

    params = _input_weight(dtype) | {"sigma": uniform(21, N_REC, dtype=dtype)}
    return _model(step, params, zeros(dtype, v=(N_REC,)) | {"key": jax.random.key(0)}, dtype)


@zoo_model(
    group("v"),
    relations=(FROM_INPUT,),
    unrelated={
        "unused": DiagnosticKind.UNUSED_PARAMETER,
        "frozen": DiagnosticKind.GRADIENT_STOPPED,
        "compared": DiagnosticKind.GRADIENT_STOPPED,
        "binarized": DiagnosticKind.GRADIENT_STOPPED,
        "w_out": DiagnosticKind.READOUT_PARAMETER,
    },
)
def parameters_without_relation(dtype=jnp.float32):
    def step(params, state, x):
        frozen = mixed("frozen", x @ lax.stop_gradient(params["frozen"]))
        open_gate = (state["v"] > params["compared"]).astype(x.dtype)
        binary = mixed("binarized", x @ (params["binarized"] > 0).astype(x.dtype))
        v = 0.9 * state["v"] + mixed("w", x @ params["w"]) * open_gate + frozen + binary
        return {"v": v}, v @ params["w_out"]

    params = _input_weight(dtype) | {
        "frozen": normal(22, N_IN, N_REC, dtype=dtype),
        "compared": jnp.full(N_REC, -1.0, dtype),
        "binarized": normal(28, N_IN, N_REC, dtype=dtype),
        "unused": jnp.ones(2, dtype),
        "w_out": normal(23, N_REC, 2, dtype=dtype),
    }
    return _model(step, params, zeros(dtype, v=(N_REC,)), dtype)


@zoo_model(
    group("h"),
    relations=(relation("layers.0.w", "affine", (N_IN,), (N_REC,), "h"), elementwise("layers.0.b", "h")),
    unrelated={"layers.1.w": DiagnosticKind.READOUT_PARAMETER},
)
def nested_parameter_paths(dtype=jnp.float32):
    """Parameters in a list of dictionaries, named by their key paths."""

    def step(params, state, x):
        first, second = params["layers"]
        drive = mixed("layers.0.w", x @ first["w"]) + probed("layers.0.b", first["b"])
        h = 0.5 * state["h"] + jnp.tanh(drive)
        return {"h": h}, h @ second["w"]

    layers = [
        {"w": normal(24, N_IN, N_REC, dtype=dtype), "b": normal(25, N_REC, dtype=dtype)},
        {"w": normal(26, N_REC, 2, dtype=dtype)},
    ]
    return _model(step, {"layers": layers}, zeros(dtype, h=(N_REC,)), dtype)
