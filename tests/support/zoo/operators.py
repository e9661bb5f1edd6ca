"""Every kind of operation a weight takes part in, each in front of a layer of LIF neurons."""

from __future__ import annotations

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import ranvier
from ranvier.types import DiagnosticKind

from .model import (
    N_IN,
    N_REC,
    elementwise,
    group,
    indirect,
    lif,
    mixed,
    normal,
    probed,
    relation,
    uniform,
    zeros,
    zoo_model,
)

PATTERN = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 0]], np.float32)
"""Connections from three inputs to four neurons."""


def _layer(current, params, shape, dtype, inputs=None):
    """LIF neurons driven by ``current(params, x)``."""

    def step(params, state, x):
        v, z = lif(state["v"], current(params, x))
        return {"v": v}, z

    inputs = jnp.ones(N_IN, dtype) if inputs is None else inputs
    return ranvier.step_function(step, params, zeros(dtype, v=shape)), (inputs,)


@zoo_model(group("v"), relations=(relation("w", "affine", (N_IN,), (N_REC,), "v"),), spiking=True)
def dense(dtype=jnp.float32):
    return _layer(lambda p, x: mixed("w", x @ p["w"]), {"w": normal(0, N_IN, N_REC, dtype=dtype)}, (N_REC,), dtype)


@zoo_model(
    group("v"),
    relations=(relation("w", "affine", (N_IN,), (N_REC,), "v"), elementwise("b", "v")),
    spiking=True,
)
def dense_with_separate_bias(dtype=jnp.float32):
    params = {"w": normal(0, N_IN, N_REC, dtype=dtype), "b": uniform(1, N_REC, dtype=dtype)}
    return _layer(lambda p, x: mixed("w", x @ p["w"]) + probed("b", p["b"]), params, (N_REC,), dtype)


@zoo_model(group("v", (6, 2)), relations=(relation("kernel", "conv", (1, 6, 1), (1, 6, 2), "v"),), spiking=True)
def conv(dtype=jnp.float32):
    def current(params, x):
        y = jax.lax.conv_general_dilated(
            x[None], params["kernel"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return mixed("kernel", y)[0]

    return _layer(current, {"kernel": normal(1, 3, 1, 2, dtype=dtype)}, (6, 2), dtype, jnp.ones((6, 1), dtype))


@zoo_model(
    group("v", (2, 4, 4)), relations=(relation("kernel", "conv", (1, 1, 4, 4), (1, 2, 4, 4), "v"),), spiking=True
)
def recurrent_conv2d(dtype=jnp.float32):
    """The kernel sees the input plus the channel mean of the potentials."""

    def step(params, state, x):
        seen = (x + mixed("mean", state["v"].mean(axis=0)))[None, None]
        y = jax.lax.conv_general_dilated(seen, params["kernel"], (1, 1), "SAME")
        v, z = lif(state["v"], mixed("kernel", y)[0])
        return {"v": v}, z

    params = {"kernel": normal(2, 2, 1, 3, 3, dtype=dtype, scale=0.7)}
    return ranvier.step_function(step, params, zeros(dtype, v=(2, 4, 4))), (jnp.ones((4, 4), dtype),)


@zoo_model(group("v"), relations=(relation("w", "sparse", (N_IN,), (N_REC,), "v"),), spiking=True)
def sparse_csr(dtype=jnp.float32):
    """brainevent's compressed rows; the non-zeros are the parameter."""
    csr = brainevent.CSR.fromdense(jnp.asarray(PATTERN))

    def current(params, x):
        matrix = brainevent.CSR((params["w"], csr.indices, csr.indptr), shape=csr.shape, backend="jax_raw")
        return mixed("w", x @ matrix)

    return _layer(current, {"w": normal(3, csr.data.size, dtype=dtype)}, (N_REC,), dtype)


@zoo_model(group("v"), relations=(relation("w", "sparse", (N_IN,), (N_REC,), "v"),), spiking=True)
def sparse_bcoo(dtype=jnp.float32):
    indices = jnp.asarray(np.argwhere(PATTERN.T))

    def current(params, x):
        return mixed("w", sparse.BCOO((params["w"], indices), shape=(N_REC, N_IN)) @ x)

    return _layer(current, {"w": normal(4, indices.shape[0], dtype=dtype)}, (N_REC,), dtype)


@zoo_model(group("v"), relations=(relation("table", "embedding", (), (1, N_REC), "v"),), spiking=True)
def embedding(dtype=jnp.float32):
    """The input is a token, which cuts one row out of the table."""

    def current(params, token):
        return mixed("table", params["table"][token][None])[0]

    return _layer(current, {"table": normal(5, 3, N_REC, dtype=dtype)}, (N_REC,), dtype, jnp.asarray(1, jnp.int32))


@zoo_model(group("v", (2, 2)), relations=(relation("w", "affine", (N_IN,), (2, 2), "v"),), spiking=True)
def einsum(dtype=jnp.float32):
    return _layer(
        lambda p, x: mixed("w", jnp.einsum("i,ijk->jk", x, p["w"])),
        {"w": normal(6, N_IN, 2, 2, dtype=dtype)},
        (2, 2),
        dtype,
    )


@zoo_model(group("v", (2, 3, 4)), relations=(relation("w", "affine", (2, 3, 2), (3, 2, 4), "v"),), spiking=True)
def grouped_einsum(dtype=jnp.float32):
    """The product has its group axis first; a transposition brings the batch back to the front."""

    def current(params, x):
        product = jax.lax.dot_general(x, params["w"], (((2,), (1,)), ((1,), (0,))))
        return mixed("w", product).transpose(1, 0, 2)

    params = {"w": normal(7, 3, 2, 4, dtype=dtype)}
    return _layer(current, params, (2, 3, 4), dtype, jnp.ones((2, 3, 2), dtype))


@zoo_model(group("v", (2, 3, 4)), relations=(relation("w", "affine", (2, 3, 2), (3, 4, 2), "v"),), spiking=True)
def grouped_einsum_notation(dtype=jnp.float32):
    """The same written as einsum, which multiplies from the weight's side: group, output, batch."""

    def current(params, x):
        y = jnp.einsum("bgi,gij->bgj", x, params["w"])
        return mixed("w", y.transpose(1, 2, 0)).transpose(2, 0, 1)

    params = {"w": normal(7, 3, 2, 4, dtype=dtype)}
    return _layer(current, params, (2, 3, 4), dtype, jnp.ones((2, 3, 2), dtype))


low_rank_model = zoo_model(
    group("v"),
    relations=(
        relation("a", "affine", (N_IN,), (N_REC,), "v", probe="y"),
        relation("b", "affine", (N_IN,), (N_REC,), "v", probe="y"),
    ),
    spiking=True,
)


@low_rank_model
def low_rank_matrix(dtype=jnp.float32):
    """``x @ (A @ B)``: one product with a matrix made of two parameters."""
    params = {"a": normal(8, N_IN, 2, dtype=dtype), "b": normal(9, 2, N_REC, dtype=dtype)}
    return _layer(lambda p, x: mixed("y", x @ (p["a"] @ p["b"])), params, (N_REC,), dtype)


@low_rank_model
def low_rank_chain(dtype=jnp.float32):
    """``(x @ A) @ B`` is the same function, so it has the same relations."""
    params = {"a": normal(8, N_IN, 2, dtype=dtype), "b": normal(9, 2, N_REC, dtype=dtype)}
    return _layer(lambda p, x: mixed("y", (x @ p["a"]) @ p["b"]), params, (N_REC,), dtype)


@zoo_model(
    group("v"),
    relations=(indirect("w1", (N_IN,), (5,)), relation("w2", "affine", (5,), (N_REC,), "v")),
    unrelated={"w1": DiagnosticKind.INDIRECT_PARAMETER},
    spiking=True,
)
def encoder(dtype=jnp.float32):
    """A non-linearity between two products: the first weight reaches the state through the second only."""
    params = {"w1": normal(10, N_IN, 5, dtype=dtype), "w2": normal(11, 5, N_REC, dtype=dtype)}
    return _layer(lambda p, x: mixed("w2", jnp.tanh(x @ p["w1"]) @ p["w2"]), params, (N_REC,), dtype)


@zoo_model(group("v"), relations=(elementwise("gain", "v"),), spiking=True)
def one_to_one(dtype=jnp.float32):
    params = {"gain": uniform(12, N_REC, dtype=dtype, low=0.5, high=1.5)}
    return _layer(lambda p, x: probed("gain", p["gain"]) * x, params, (N_REC,), dtype, jnp.ones(N_REC, dtype))


@zoo_model(group("v"), relations=(relation("w", "affine", (1, N_IN), (N_REC,), "v"),), spiking=True)
def summed_product(dtype=jnp.float32):
    """A matrix product written as an elementwise product and a sum."""
    params = {"w": normal(13, N_REC, N_IN, dtype=dtype)}
    return _layer(lambda p, x: mixed("w", (p["w"] * x).sum(axis=1)), params, (N_REC,), dtype)


@zoo_model(
    group("v"),
    relations=(relation("w", "affine", (N_IN,), (N_REC,), "v"), elementwise("gain", "v")),
    spiking=True,
)
def layer_norm(dtype=jnp.float32):
    """Mean and variance mix; the normalized current keeps its position."""

    def current(params, x):
        y = mixed("w", x @ params["w"])
        mean = mixed("mean", y.mean())
        variance = mixed("variance", ((y - mean) ** 2).mean())
        return probed("gain", params["gain"]) * (y - mean) / jnp.sqrt(variance + 0.1)

    params = {"w": normal(14, N_IN, N_REC, dtype=dtype), "gain": uniform(15, N_REC, dtype=dtype, low=0.5, high=1.5)}
    return _layer(current, params, (N_REC,), dtype)
