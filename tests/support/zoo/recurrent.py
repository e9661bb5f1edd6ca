"""Gated and linear recurrent cells as plain JAX step functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

import ranvier
from ranvier.types import DiagnosticKind

from .model import N_IN, N_REC, elementwise, group, indirect, mixed, normal, probed, relation, uniform, zeros, zoo_model

N_XH = N_IN + N_REC
DIRECT = {"x": (N_XH,), "y": (N_REC,)}


def _weights(names, dtype, rows=N_XH, columns=N_REC):
    """Weights ``w_*`` and biases ``b_*``."""
    params = {}
    for k, name in enumerate(names):
        params[f"w_{name}"] = normal(k, rows, columns, dtype=dtype, scale=0.6)
        params[f"b_{name}"] = normal(100 + k, columns, dtype=dtype, scale=0.3)
    return params


def _affine(params, name, *parts):
    y = mixed(f"w_{name}", jnp.concatenate(parts) @ params[f"w_{name}"])
    return y + probed(f"b_{name}", params[f"b_{name}"])


@zoo_model(
    group("h"),
    relations=(relation("w_h", "affine", connected="h", **DIRECT), elementwise("b_h", "h")),
    remarks={"h": DiagnosticKind.STATE_MIXED},
)
def elman(dtype=jnp.float32):
    def step(params, state, x):
        h = jnp.tanh(_affine(params, "h", x, state["h"]))
        return {"h": h}, h

    return ranvier.step_function(step, _weights("h", dtype), zeros(dtype, h=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h"),
    relations=(
        relation("w_z", "affine", connected="h", **DIRECT),
        elementwise("b_z", "h"),
        indirect("w_r", (N_XH,)),
        indirect("b_r", None),
        relation("w_n", "affine", connected="h", **DIRECT),
        elementwise("b_n", "h"),
    ),
    unrelated={"w_r": DiagnosticKind.INDIRECT_PARAMETER, "b_r": DiagnosticKind.INDIRECT_PARAMETER},
)
def gru(dtype=jnp.float32):
    def step(params, state, x):
        h = state["h"]
        z, r = sigmoid(_affine(params, "z", x, h)), sigmoid(_affine(params, "r", x, h))
        candidate = jnp.tanh(_affine(params, "n", x, r * h))
        h = (1 - z) * h + z * candidate
        return {"h": h}, h

    return ranvier.step_function(step, _weights("zrn", dtype), zeros(dtype, h=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h"),
    relations=(
        relation("w_z", "affine", connected="h", **DIRECT),
        elementwise("b_z", "h"),
        relation("w_r", "affine", connected="h", **DIRECT),
        elementwise("b_r", "h"),
        relation("w_n", "affine", (N_IN,), (N_REC,), "h"),
        elementwise("b_n", "h"),
        relation("u_n", "affine", (N_REC,), (N_REC,), "h"),
    ),
)
def gru_reset_after(dtype=jnp.float32):
    """The reset gate multiplies the recurrent product, so it acts on the hidden state directly."""

    def step(params, state, x):
        h = state["h"]
        z, r = sigmoid(_affine(params, "z", x, h)), sigmoid(_affine(params, "r", x, h))
        recurrent = mixed("u_n", h @ params["u_n"])
        candidate = jnp.tanh(_affine(params, "n", x) + r * recurrent)
        h = (1 - z) * h + z * candidate
        return {"h": h}, h

    params = _weights("zr", dtype) | _weights("n", dtype, rows=N_IN) | {"u_n": normal(9, N_REC, N_REC, dtype=dtype)}
    return ranvier.step_function(step, params, zeros(dtype, h=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("c h"),
    relations=(
        *(relation(f"w_{gate}", "affine", connected="c h", **DIRECT) for gate in "ifg"),
        *(elementwise(f"b_{gate}", "c h") for gate in "ifg"),
        relation("w_o", "affine", connected="h", **DIRECT),
        elementwise("b_o", "h"),
    ),
    remarks={"h": DiagnosticKind.STATE_MIXED},
)
def lstm(dtype=jnp.float32):
    def step(params, state, x):
        i, f, g, o = (_affine(params, gate, x, state["h"]) for gate in "ifgo")
        c = sigmoid(f) * state["c"] + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return {"c": c, "h": h}, h

    state = zeros(dtype, c=(N_REC,), h=(N_REC,))
    return ranvier.step_function(step, _weights("ifgo", dtype), state), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("hc", num_state=2),
    relations=(relation("w_g", "affine", (N_XH,), (4 * N_REC,), "hc"), elementwise("b_g", "hc", (4 * N_REC,))),
)
def lstm_packed(dtype=jnp.float32):
    """Both states in one array of 2N, four gates in one product."""

    def step(params, state, x):
        h, c = jnp.split(state["hc"], 2)
        i, f, g, o = jnp.split(_affine(params, "g", x, h), 4)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return {"hc": jnp.concatenate([h, c])}, h

    params = _weights("g", dtype, columns=4 * N_REC)
    return ranvier.step_function(step, params, zeros(dtype, hc=(2 * N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h"),
    relations=(
        relation("w_f", "affine", connected="h", **DIRECT),
        elementwise("b_f", "h"),
        relation("w_n", "affine", connected="h", **DIRECT),
        elementwise("b_n", "h"),
    ),
)
def mgu(dtype=jnp.float32):
    """The one gate acts on the new state both directly and through the candidate's product."""

    def step(params, state, x):
        h = state["h"]
        f = sigmoid(_affine(params, "f", x, h))
        candidate = jnp.tanh(_affine(params, "n", x, f * h))
        h = (1 - f) * h + f * candidate
        return {"h": h}, h

    return ranvier.step_function(step, _weights("fn", dtype), zeros(dtype, h=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h"),
    relations=(
        relation("w_x", "affine", (N_IN,), (N_REC,), "h"),
        elementwise("b_x", "h"),
        relation("u_h", "affine", (N_REC,), (N_REC,), "h"),
        relation("u_z", "affine", (N_REC,), (N_REC,), "h"),
        elementwise("b_u", "h"),
    ),
)
def minimal_rnn(dtype=jnp.float32):
    def step(params, state, x):
        h = state["h"]
        z = jnp.tanh(_affine(params, "x", x))
        gate = mixed("u_h", h @ params["u_h"]) + mixed("u_z", z @ params["u_z"]) + probed("b_u", params["b_u"])
        u = sigmoid(gate)
        h = u * h + (1 - u) * z
        return {"h": h}, h

    params = _weights("x", dtype, rows=N_IN) | {
        "u_h": normal(3, N_REC, N_REC, dtype=dtype),
        "u_z": normal(4, N_REC, N_REC, dtype=dtype),
        "b_u": normal(5, N_REC, dtype=dtype),
    }
    return ranvier.step_function(step, params, zeros(dtype, h=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("im re"),
    relations=(
        elementwise("nu_log", "im re", probe="a"),
        elementwise("theta_log", "im re", probe="a"),
        elementwise("nu_log", "im re", probe="b"),
        elementwise("theta_log", "im re", probe="b"),
        elementwise("gamma_log", "im re", probe="gamma"),
        relation("b_re", "affine", (N_IN,), (N_REC,), "re"),
        relation("b_im", "affine", (N_IN,), (N_REC,), "im"),
    ),
    unrelated=dict.fromkeys(("c_re", "c_im", "d"), DiagnosticKind.READOUT_PARAMETER),
)
def lru(dtype=jnp.float32):
    """A linear recurrent unit with its complex state as two real ones; lambda = a + ib."""

    def step(params, state, x):
        modulus, phase = jnp.exp(-jnp.exp(params["nu_log"])), jnp.exp(params["theta_log"])
        a, b = probed("a", modulus * jnp.cos(phase)), probed("b", modulus * jnp.sin(phase))
        gamma = probed("gamma", jnp.exp(params["gamma_log"]))
        re, im = state["re"], state["im"]
        new_re = a * re - b * im + gamma * mixed("b_re", x @ params["b_re"])
        new_im = b * re + a * im + gamma * mixed("b_im", x @ params["b_im"])
        y = new_re @ params["c_re"] - new_im @ params["c_im"] + params["d"] * x
        return {"re": new_re, "im": new_im}, y

    params = {
        "nu_log": uniform(0, N_REC, dtype=dtype, low=-2.0, high=-0.5),
        "theta_log": uniform(1, N_REC, dtype=dtype, low=-1.0, high=1.0),
        "gamma_log": uniform(2, N_REC, dtype=dtype, low=-1.0, high=0.0),
        "b_re": normal(3, N_IN, N_REC, dtype=dtype),
        "b_im": normal(4, N_IN, N_REC, dtype=dtype),
        "c_re": normal(5, N_REC, N_IN, dtype=dtype),
        "c_im": normal(6, N_REC, N_IN, dtype=dtype),
        "d": normal(7, N_IN, dtype=dtype),
    }
    return ranvier.step_function(step, params, zeros(dtype, re=(N_REC,), im=(N_REC,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h1"),
    group("h2", (5,)),
    relations=(
        relation("w_1", "affine", connected="h1", **DIRECT),
        elementwise("b_1", "h1"),
        relation("w_2", "affine", (N_REC + 5,), (5,), "h2"),
        elementwise("b_2", "h2", (5,)),
    ),
    unrelated={"w_out": DiagnosticKind.READOUT_PARAMETER},
)
def leaky_two_layers(dtype=jnp.float32):
    """Leaky rate units; the second layer sees the new state of the first."""

    def step(params, state, x):
        h1 = 0.7 * state["h1"] + 0.3 * jnp.tanh(_affine(params, "1", x, state["h1"]))
        h2 = 0.9 * state["h2"] + 0.1 * jnp.tanh(_affine(params, "2", h1, state["h2"]))
        return {"h1": h1, "h2": h2}, mixed("w_out", h2 @ params["w_out"])

    params = _weights("1", dtype) | _weights("2", dtype, rows=N_REC + 5, columns=5)
    params["w_out"] = normal(8, 5, 2, dtype=dtype)
    return ranvier.step_function(step, params, zeros(dtype, h1=(N_REC,), h2=(5,))), (jnp.ones(N_IN, dtype),)


@zoo_model(
    group("h", (2, N_REC)),
    relations=(relation("w_h", "affine", (2, N_XH), (2, N_REC), "h"), elementwise("b_h", "h", (1, N_REC))),
)
def batched_by_vmap(dtype=jnp.float32):
    """Two samples under ``vmap``: the population has the batch axis, the bias is one row for both."""

    def step(params, state, x):
        y = mixed("w_h", jax.vmap(lambda x, h: jnp.concatenate([x, h]) @ params["w_h"])(x, state["h"]))
        drive = y + probed("b_h", params["b_h"][None])
        h = jax.vmap(lambda h, d: 0.5 * h + jnp.tanh(d))(state["h"], drive)
        return {"h": h}, h

    return ranvier.step_function(step, _weights("h", dtype), zeros(dtype, h=(2, N_REC))), (jnp.ones((2, N_IN), dtype),)
