"""SnAp, OSTL and UORO: exact where they say so, different where not, and what they are by definition."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import (
    T,
    difference,
    flat,
    gradient,
    learning,
    loss,
    loss_slope,
    part,
    phases,
    zoo_gradient,
    zoo_program,
)
from tests.support.zoo.model import normal, spike, uniform, zeros

pytestmark = learning

ROUNDING = 1e-12
BPTT, D_RTRL = ranvier.BPTT(), ranvier.D_RTRL()


# SnAp -------------------------------------------------------------------------------------------------------------

SATURATED = [
    *("dense", "conv", "sparse_csr", "embedding", "elman", "gru", "lstm_packed", "leaky_two_layers"),
    *("recurrent_lif_with_readout", "lif_network", "delay_buffer", "tied_weights", "three_layers"),
]


@few("name", SATURATED)
def test_snap_with_enough_steps_is_exact(name: str) -> None:
    expected = zoo_gradient(name, BPTT)
    assert flat(expected).any()
    assert difference(zoo_gradient(name, ranvier.SnAp(20)), expected) < ROUNDING


@few("name", ["elman", "gru", "lstm_packed", "lif_network", "delay_buffer", "leaky_two_layers"])
def test_snap_with_one_step_is_not_exact_with_recurrent_projections(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.SnAp(1)), zoo_gradient(name, BPTT)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "conv", "sparse_csr"])
def test_snap_with_one_step_is_exact_without_recurrent_projections(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.SnAp(1)), zoo_gradient(name, BPTT)) < ROUNDING


def recurrent_ring(size: int = 6) -> tuple[ranvier.types.StepFunction, jax.Array]:
    """Every unit hears itself and its two neighbors, so a weight reaches one more unit on each side with every step;
    and inputs over time."""

    def step(params, state, x):
        recurrent = sum(params["u"][k] * jnp.roll(state["h"], k - 1) for k in range(3))
        h = 0.6 * state["h"] + 0.5 * jnp.tanh(x @ params["w"] + recurrent)
        return {"h": h}, h

    params = {"w": normal(0, 3, size, dtype=jnp.float64), "u": normal(1, 3, size, dtype=jnp.float64)}
    return ranvier.step_function(step, params, {"h": jnp.zeros(size)}), normal(2, T, 3, dtype=jnp.float64)


@pytest.mark.slow
def test_snap_comes_closer_with_every_step() -> None:
    model, xs = recurrent_ring()
    expected = flat(gradient(model, BPTT, xs, [xs[0]]))
    found = [flat(gradient(model, ranvier.SnAp(n), xs, [xs[0]])) for n in (1, 2, 3, 4)]
    errors = [np.linalg.norm(g - expected) / np.linalg.norm(expected) for g in found]
    assert errors[0] > errors[1] > errors[2] > 1e-4
    assert errors[3] < ROUNDING


def test_snap_with_one_step_in_numpy() -> None:
    """Weight (i, j) keeps its influence on unit j, which unit j's weight onto itself carries on.

    The last step of every path is unmasked: the loss of a step feels the old state through all of A.
    """
    w, u = np.asarray(normal(0, 3, 4, dtype=jnp.float64)), np.asarray(normal(1, 4, 4, dtype=jnp.float64))
    xs = np.asarray(normal(2, T, 3, dtype=jnp.float64))

    def step(params, state, x):
        h = 0.6 * state["h"] + jnp.tanh(x @ params["w"] + state["h"] @ params["u"])
        return {"h": h}, h

    h, j_w, j_u, g_w, g_u = np.zeros(4), np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((3, 4)), np.zeros((4, 4))
    for x, phase in zip(xs, np.asarray(phases())):
        y = np.tanh(x @ w + h @ u)
        slope, new = 1 - y**2, 0.6 * h + y
        a = 0.6 * np.eye(4) + slope[:, None] * u.T
        signal = loss_slope(new, phase)
        g_w += signal * slope * x[:, None] + (signal @ a) * j_w
        g_u += signal * slope * h[:, None] + (signal @ a) * j_u
        j_w, j_u = np.diag(a) * j_w + slope * x[:, None], np.diag(a) * j_u + slope * h[:, None]
        h = new
    model = ranvier.step_function(step, {"w": jnp.asarray(w), "u": jnp.asarray(u)}, {"h": jnp.zeros(4)})
    expected = {("w",): g_w, ("u",): g_u}
    assert difference(gradient(model, ranvier.SnAp(1), jnp.asarray(xs), [jnp.ones(3)]), expected) < ROUNDING
    assert difference(gradient(model, D_RTRL, jnp.asarray(xs), [jnp.ones(3)]), expected) > 1e-3


@pytest.mark.parametrize("n", [0, -1, 1.5])
def test_snap_needs_steps(n) -> None:
    with pytest.raises(ranvier.RuleError, match="at least 1"):
        ranvier.SnAp(n)


# OSTL -------------------------------------------------------------------------------------------------------------


@few("name", ["elman", "gru", "lstm", "lstm_packed", "lif_network", "recurrent_lif_with_readout"])
def test_ostl_is_exact_for_one_recurrent_layer(name: str) -> None:
    expected = zoo_gradient(name, BPTT)
    assert difference(zoo_gradient(name, ranvier.OSTL()), expected) < ROUNDING
    assert difference(zoo_gradient(name, D_RTRL), expected) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "conv", "one_to_one_layers", "halves_into_two_groups"])
def test_ostl_is_d_rtrl_for_one_feed_forward_layer(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.OSTL()), zoo_gradient(name, D_RTRL, chunk=3)) < ROUNDING


def test_ostl_is_d_rtrl_for_feed_forward_layers() -> None:
    """Each layer sees what the new potentials of the layer before it send on."""

    def step(params, state, x):
        first = 0.7 * state["first"] + x @ params["w1"] - 0.2 * jnp.tanh(state["first"])
        second = 0.9 * state["second"] + spike(first - 0.5) @ params["w2"]
        third = 0.5 * state["third"] + jnp.tanh(second) @ params["w3"]
        return {"first": first, "second": second, "third": third}, third

    shapes = {"w1": (3, 4), "w2": (4, 5), "w3": (5, 2)}
    params = {name: normal(k, *shape, dtype=jnp.float64) for k, (name, shape) in enumerate(shapes.items())}
    state = zeros(jnp.float64, first=(4,), second=(5,), third=(2,))
    model, xs = ranvier.step_function(step, params, state), normal(3, T, 3, dtype=jnp.float64)
    found = gradient(model, ranvier.OSTL(), xs, [xs[0]])
    assert difference(found, gradient(model, D_RTRL, xs, [xs[0]], chunk=3)) < ROUNDING
    assert difference(found, gradient(model, BPTT, xs, [xs[0]])) > 1e-3


def test_ostl_leaves_out_what_layers_carry_into_each_other() -> None:
    """The last layer has its whole gradient, since no other layer follows it."""
    found, expected = zoo_gradient("leaky_two_layers", ranvier.OSTL()), zoo_gradient("leaky_two_layers", BPTT)
    assert difference(zoo_gradient("leaky_two_layers", D_RTRL), found) > 1e-4
    for path in expected:
        if path in (("w_1",), ("b_1",)):
            assert difference(found[path], expected[path]) > 1e-4
        else:
            assert difference(found[path], expected[path]) < ROUNDING


# UORO -------------------------------------------------------------------------------------------------------------

SAMPLES = 4000


def uoro_gradients(name: str, steps: int, *calls: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients for many seeds, ``[seeds, weights]``, the sequence in one call or cut at the steps given; BPTT's."""
    info, xs = zoo_program(name)
    xs, targets = part(xs, 0, steps), phases(steps)
    learner, cuts = ranvier.compile(info, ranvier.UORO()), [0, *calls, steps]

    def one(seed):
        state, total = learner.restart(None, None, seed), None
        for start, end in itertools.pairwise(cuts):
            grads, aux = learner.grad(loss, part(xs, start, end), targets[start:end], state=state)
            state, total = aux.state, grads if total is None else jax.tree.map(jnp.add, total, grads)
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(total)])

    found = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(SAMPLES)))
    expected, _ = ranvier.compile(info, BPTT).grad(loss, xs, targets)
    return found, flat(expected)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [(), (1, 2, 3, 4)], ids=["one-call", "a-call-for-every-step"])
@pytest.mark.parametrize("name", ["elman", "recurrent_lif_with_readout"])
def test_uoro_is_unbiased_and_noisy(name: str, calls: tuple[int, ...]) -> None:
    found, expected = uoro_gradients(name, 5, *calls)
    error = found.std(0) / np.sqrt(SAMPLES)
    assert (np.abs(found.mean(0) - expected) <= 4 * error + 1e-10 * np.abs(expected).max()).all()
    assert np.abs(found - expected).max(1).min() > 1e-3 * np.abs(expected).max()
    same_step = flat(gradient_without_time(name, 5))
    assert (np.abs(found.mean(0) - same_step) > 4 * error + 1e-10).any(), "the temporal part has to matter"


def gradient_without_time(name: str, steps: int) -> dict:
    """The sum of the same-step gradients."""
    info, xs = zoo_program(name)
    learner = ranvier.compile(info, BPTT)
    state, total = learner.init(), None
    for t in range(steps):
        grads, aux = learner.grad(loss, part(xs, t, t + 1), phases(steps)[t : t + 1], state=state)
        state, total = aux.state, grads if total is None else jax.tree.map(jnp.add, total, grads)
    return total


def test_uoro_repeats_itself_for_one_seed() -> None:
    info, xs = zoo_program("elman")
    first, again, other = (gradient(info, ranvier.UORO(seed=seed), xs) for seed in (1, 1, 2))
    assert flat(first).tobytes() == flat(again).tobytes()
    assert difference(first, other) > 1e-3


def test_uoro_is_exact_for_one_step() -> None:
    info, xs = zoo_program("gru")
    xs = part(xs, 0, 1)
    assert difference(gradient(info, ranvier.UORO(), xs), gradient(info, BPTT, xs)) < ROUNDING


# All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.SnAp(1), ranvier.OSTL(), ranvier.UORO()], ids=str)
def test_calls_go_on_where_the_last_one_ended(rule) -> None:
    info, xs = zoo_program("delay_buffer")
    learner = ranvier.compile(info, rule)
    whole, _ = learner.grad(loss, xs, phases())
    first, aux = learner.grad(loss, part(xs, 0, 4), phases()[:4])
    second, _ = learner.grad(loss, part(xs, 4, T), phases()[4:], state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < ROUNDING
    restarted, _ = learner.grad(loss, part(xs, 4, T), phases()[4:])
    assert difference(jax.tree.map(jnp.add, first, restarted), whole) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.SnAp(1), ranvier.OSTL(), ranvier.UORO()], ids=str)
def test_a_mask_weighs_the_losses_of_the_steps(rule) -> None:
    """The gradient is linear in the mask."""
    info, xs = zoo_program("elman")
    learner, mask = ranvier.compile(info, rule), uniform(3, T, dtype=jnp.float64)
    masks = jnp.concatenate([mask[None], jnp.eye(T)])
    grads, aux = jax.vmap(lambda mask: learner.grad(loss, xs, phases(), mask=mask))(masks)
    expected = jax.tree.map(lambda g: jnp.tensordot(mask, g[1:], 1), grads)
    assert difference(jax.tree.map(lambda g: g[0], grads), expected) < 1e-10
    np.testing.assert_allclose(aux.losses[0], mask * jnp.diag(aux.losses[1:]))
