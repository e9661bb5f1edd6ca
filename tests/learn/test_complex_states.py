"""Learning with complex hidden states: exact where derivatives are complex numbers, refused where they are not."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ranvier

N_IN, N_REC, STEPS = 3, 5, 12


def linear_recurrent_unit(squash: bool) -> ranvier.types.StepFunction:
    """h = lambda h + B x with complex lambda, B and h; the readout is the real part of C h."""

    def step(params, state, x):
        decay = jnp.exp(-jnp.exp(params["nu"]) + 1j * params["theta"])
        h = decay * state["h"] + x @ (params["b_real"] + 1j * params["b_imag"])
        h = h / (1 + jnp.abs(h)) if squash else h
        return {"h": h}, (h @ params["c"]).real

    rng = np.random.default_rng(0)
    params = {
        "nu": jnp.asarray(rng.normal(0, 0.5, N_REC)),
        "theta": jnp.asarray(rng.uniform(0, 3, N_REC)),
        "b_real": jnp.asarray(rng.normal(size=(N_IN, N_REC))),
        "b_imag": jnp.asarray(rng.normal(size=(N_IN, N_REC))),
        "c": jnp.asarray(rng.normal(size=(N_REC, 2)) + 1j * rng.normal(size=(N_REC, 2))),
    }
    return ranvier.step_function(step, params, {"h": jnp.zeros(N_REC, complex)})


def gradients(rule: ranvier.Rule, squash: bool, chunk: int | None = None) -> dict:
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(STEPS, N_IN)))
    learner = ranvier.compile(linear_recurrent_unit(squash), rule, xs[0], chunk=chunk)
    return learner.grad(lambda output, _: jnp.sin(output).sum(), xs)[0]


def assert_same(found: dict, expected: dict) -> None:
    for path, value in expected.items():
        assert jnp.abs(value).max() > 1e-3
        np.testing.assert_allclose(found[path], value, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chunk", [1, 5, STEPS])
def test_a_complex_linear_recurrent_unit_is_exact(chunk: int) -> None:
    assert_same(gradients(ranvier.D_RTRL(), False, chunk), gradients(ranvier.BPTT(), False))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("squash", [False, True])
def test_rtrl_takes_any_complex_dynamics(squash: bool) -> None:
    assert_same(gradients(ranvier.RTRL(), squash), gradients(ranvier.BPTT(), squash))


@pytest.mark.usefixtures("float64")
def test_dynamics_without_complex_derivative_are_refused() -> None:
    with pytest.raises(ranvier.RuleError, match="abs has none"):
        gradients(ranvier.D_RTRL(), True)


@pytest.mark.usefixtures("float64")
def test_rules_for_real_states_refuse_complex_ones() -> None:
    with pytest.raises(ranvier.RuleError, match="real states"):
        gradients(ranvier.SnAp(1), False)
