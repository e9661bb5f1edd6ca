"""Learning signals: partial inside a group, total across groups, and confirmed by finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.program.interpret import evaluate

N = 3
pytestmark = pytest.mark.usefixtures("float64")


def perturb(step, state, params=None) -> ranvier.HiddenPerturbation:
    model = ranvier.step_function(step, params or {}, state)
    return ranvier.add_hidden_perturbation_in_module(model, jnp.ones(N))


def test_a_path_inside_the_group_belongs_to_the_last_state_alone() -> None:
    def step(p, s, x):
        g = 0.8 * s["g"] + x
        v = 0.9 * s["v"] + 2.0 * g
        return {"g": g, "v": v}, v + 0.1 * g

    signal = perturb(step, {"g": jnp.ones(N), "v": jnp.ones(N)}).learning_signal(jnp.sum, jnp.ones(N))
    np.testing.assert_allclose(signal["v",], 1.0)
    np.testing.assert_allclose(signal["g",], 0.1)


def test_paths_through_other_groups_are_total() -> None:
    w = jnp.asarray(np.random.default_rng(0).normal(size=(N, N)))

    def step(p, s, x):
        first = jnp.tanh(s["first"] + x)
        g = 0.5 * s["g"] + p["w"] @ first
        v = 0.9 * s["v"] + 3.0 * g
        return {"first": first, "g": g, "v": v}, (v**2).sum() + g.sum()

    perturbation = perturb(step, {k: jnp.ones(N) * 0.3 for k in ("first", "g", "v")}, {"w": w})
    signal = perturbation.learning_signal(lambda y: y, jnp.ones(N))
    _, new, _ = perturbation.info.step(jnp.ones(N))
    dv = 2 * new["v",]
    np.testing.assert_allclose(signal["v",], dv)
    np.testing.assert_allclose(signal["g",], np.ones(N))
    np.testing.assert_allclose(signal["first",], w.T @ (3.0 * dv + 1.0))


def test_a_path_that_leaves_the_group_and_comes_back_is_cut() -> None:
    """a -> b (other group) -> c, where a and c are one population: c is a leaf for a."""

    def step(p, s, x):
        a = jnp.tanh(s["a"] + 0.1 * s["c"])
        b = jnp.tanh(s["b"] + p["w"] @ a)
        c = jnp.tanh(s["c"] + a + p["w"] @ b)
        return {"a": a, "b": b, "c": c}, c + b

    w = jnp.asarray(np.random.default_rng(1).normal(size=(N, N)))
    perturbation = perturb(step, {k: jnp.full(N, 0.1) for k in "abc"}, {"w": w})
    signal = perturbation.learning_signal(jnp.sum, jnp.ones(N))
    _, new, _ = perturbation.info.step(jnp.ones(N))
    slope = {k: 1 - new[k,] ** 2 for k in "abc"}
    through_b = 1.0 + w.T @ slope["c"]
    np.testing.assert_allclose(signal["c",], np.ones(N))
    np.testing.assert_allclose(signal["b",], through_b)
    np.testing.assert_allclose(signal["a",], w.T @ (slope["b"] * 1.0))


@pytest.mark.slow
def test_perturbed_step_with_zero_perturbation_is_the_step() -> None:
    from ranvier.models import alif_stp

    perturbation = ranvier.add_hidden_perturbation_in_module(*alif_stp())
    info = perturbation.info
    operands = info.flat_operands(jnp.ones(3))
    plain = evaluate(info.closed_jaxpr, operands)
    perturbed = evaluate(perturbation.perturb_jaxpr, [*operands, *perturbation.zeros()])
    for a, b in zip(plain, perturbed, strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_methods_agree_on_a_spiking_network() -> None:
    @jax.custom_vjp
    def spike(v):
        return (v > 0.5).astype(v.dtype)

    spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g / (1 + jnp.abs(v - 0.5)) ** 2,))

    def step(p, s, x):
        z = spike(s["v"])
        v = 0.9 * s["v"] + p["w"] @ x + p["r"] @ z - jax.lax.stop_gradient(z)
        a = 0.95 * s["a"] + spike(v - 0.1 * s["a"])
        return {"v": v, "a": a, "out": 0.8 * s["out"] + p["o"] @ spike(v - 0.1 * a)}, s["out"] * v.sum()

    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=(N, N))) for k in "wro"}
    state = {"v": jnp.asarray([0.2, 0.6, 1.1]), "a": jnp.ones(N), "out": jnp.asarray([1.0, -1.0, 0.5])}
    comparison = perturb(step, state, params).compare(lambda y: (y**2).sum(), jnp.ones(N))
    assert comparison.agree(1e-8), str(comparison)
    assert float(jnp.abs(comparison.automatic["v",]).max()) > 0.1


def test_finite_differences_notice_a_wrong_derivative() -> None:
    """The control: an elementwise product whose derivative is declared wrongly is taken as declared, a
    derivative stopped by hand inside the loss is not."""

    def step(p, s, x):
        v = 0.9 * s["v"] + x
        return {"v": v}, v

    comparison = perturb(step, {"v": jnp.ones(N)}).compare(lambda y: (y * jax.lax.stop_gradient(y)).sum(), jnp.ones(N))
    assert not comparison.agree(0.1)


def test_the_loss_must_be_a_scalar() -> None:
    perturbation = perturb(lambda p, s, x: ({"v": s["v"] + x}, s["v"]), {"v": jnp.ones(N)})
    with pytest.raises(ranvier.AnalysisError, match=r"one scalar; end the loss with .sum\(\)"):
        perturbation.learning_signal(lambda y: y, jnp.ones(N))
