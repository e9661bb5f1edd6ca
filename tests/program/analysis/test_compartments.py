"""Constant mixing inside neurons is a block of D; mixing between neurons is a projection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few

NEURONS, COMPARTMENTS, STEPS = 4, 3, 9
_RNG = np.random.default_rng(0)
MATRIX = 0.5 * np.eye(COMPARTMENTS) + 0.3 * _RNG.normal(size=(COMPARTMENTS, COMPARTMENTS))
INPUT = _RNG.normal(size=(3, NEURONS))
CABLE = np.array([[0.0, -0.1, -0.1], [1.2, 1.3, 1.2], [-0.1, -0.1, 0.0]])
XS = _RNG.normal(size=(STEPS, 3))
Mix = Callable[[Any, Any], Any]

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

MIXING: dict[str, Mix] = {
    "matmul": lambda v, p: v @ MATRIX.T,
    "einsum": lambda v, p: jnp.einsum("nc,dc->nd", v, MATRIX),
    "tensordot": lambda v, p: jnp.tensordot(v, MATRIX, axes=[[1], [1]]),
    "from the left": lambda v, p: (MATRIX @ v.T).T,
    "in a row": lambda v, p: v @ MATRIX.T @ MATRIX,
    "neuron by neuron": lambda v, p: jax.vmap(lambda one: jnp.asarray(MATRIX) @ one)(v),
    "a matrix for every neuron": lambda v, p: jnp.einsum(
        "nc,ndc->nd", v, jnp.stack([MATRIX * (1.0 + 0.1 * k) for k in range(NEURONS)])
    ),
    "a parameter that does not learn": lambda v, p: v @ jax.lax.stop_gradient(p["A"]).T,
    "a sum": lambda v, p: 0.5 * v + 0.1 * v.sum(axis=1, keepdims=True),
    "a mean": lambda v, p: 0.5 * v - 0.2 * (v - v.mean(axis=1, keepdims=True)),
    "a convolution": lambda v, p: jax.vmap(lambda one: jnp.convolve(one, np.array([0.2, 0.5, 0.3]), mode="same"))(v),
    "an implicit step": lambda v, p: jnp.linalg.solve(np.eye(COMPARTMENTS) + 0.3 * MATRIX, v.T).T,
    "a cable": lambda v, p: jax.lax.linalg.tridiagonal_solve(*(jnp.asarray(d) for d in CABLE), v.T).T,
    "a running sum": lambda v, p: 0.4 * jnp.cumsum(v, axis=1),
    "a window": lambda v, p: 0.3 * jax.lax.reduce_window(v, 0.0, jax.lax.add, (1, 2), (1, 1), "SAME"),
    "one matrix for all elements": lambda v, p: (jnp.kron(jnp.eye(NEURONS), MATRIX) @ v.reshape(-1)).reshape(v.shape),
}


def model_with(mix: Mix) -> ranvier.types.StepFunction:
    def step(p: Any, state: Any, x: Any) -> Any:
        v = mix(state["V"], p).at[:, 0].add(jnp.tanh(x @ p["w"]))
        return {"V": v}, v

    params = {"w": jnp.asarray(INPUT), "A": jnp.asarray(MATRIX)}
    return ranvier.step_function(step, params, {"V": jnp.zeros((NEURONS, COMPARTMENTS))})


def loss(output: Any) -> Any:
    return jnp.sin(output + 0.3).sum()


def through_time(model: ranvier.types.StepFunction, xs: Any) -> Any:
    def total(params: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state, output = model.step(params, state, x)
            return state, loss(output)

        return jax.lax.scan(step, model.state, xs)[1].sum()

    return jax.grad(total)(model.params)["w"]


def left_out(learner: ranvier.types.Learner) -> str:
    return str(learner.plan).split("Left out")[1]


@few("name", MIXING)
def test_constant_mixing_inside_a_neuron_is_part_of_d(name: str) -> None:
    model = model_with(MIXING[name])
    learner = ranvier.compile(model, ranvier.D_RTRL(), XS[0], chunk=4)
    found, _ = learner.grad(lambda y, _: loss(y), XS)
    np.testing.assert_allclose(found["w",], through_time(model, XS), rtol=1e-9, atol=1e-12)
    assert "nothing" in left_out(learner)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, STEPS])
def test_every_chunk_and_samples_of_a_batch(chunk: int) -> None:
    model = model_with(MIXING["matmul"])
    both = jnp.stack([XS, 0.5 * XS], axis=1)
    learner = ranvier.compile(model, ranvier.D_RTRL(), XS[0], chunk=chunk, batch_size=2)
    found, _ = learner.grad(lambda y, _: loss(y), both)
    expected = through_time(model, XS) + through_time(model, 0.5 * XS)
    np.testing.assert_allclose(found["w",], expected, rtol=1e-9, atol=1e-12)


def test_d_of_compartments_is_the_matrix() -> None:
    info = ranvier.extract_module_info(model_with(MIXING["matmul"]), jnp.asarray(XS[0]))
    (group,), _ = ranvier.find_hidden_groups_from_minfo(info)
    assert (group.varshape, group.num_state) == ((NEURONS,), COMPARTMENTS)
    d = group.transition.jacobian(info.values(jnp.asarray(XS[0])))
    np.testing.assert_allclose(d, np.broadcast_to(MATRIX, d.shape), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mix",
    [
        lambda v, p: 0.5 * v + 0.1 * jnp.asarray(np.ones((NEURONS, NEURONS)) - np.eye(NEURONS)) @ v[:, :1] * v,
        lambda v, p: 0.5 * v + 0.1 * v @ p["A"].T,
        lambda v, p: 0.5 * v + 0.1 * v.sum(),
    ],
    ids=["between neurons", "by a parameter that learns", "over everything"],
)
def test_other_mixing_is_exact_or_listed(mix: Mix) -> None:
    model = model_with(mix)
    learner = ranvier.compile(model, ranvier.D_RTRL(), XS[0], chunk=4)
    found, _ = learner.grad(lambda y, _: loss(y), XS)
    is_exact = np.allclose(found["w",], through_time(model, XS), rtol=1e-9)
    assert is_exact == ("nothing" in left_out(learner))
