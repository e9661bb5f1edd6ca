"""Shift registers of a model are delays of its graph."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few

N, D = 3, 4


def _array(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape) * 0.6


def _rolled(p, s, x):
    h = jnp.tanh(x @ p["w"] + s["line"][-1] @ p["u"])
    return {"h": h, "line": jnp.roll(s["line"], 1, axis=0).at[0].set(h)}, h


def _concatenated(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + s["line"][-1] @ p["u"])
    return {"h": h, "line": jnp.concatenate([(x @ p["w"])[None], s["line"][:-1]])}, h


def _time_last(p, s, x):
    line = jnp.concatenate([s["line"].T[:, 1:], jnp.tanh(x @ p["w"])[:, None]], axis=1)
    h = 0.5 * s["h"] + line[:, 0] @ p["u"]
    return {"h": h, "line": line.T}, h


def _inputs_delayed(p, s, x):
    h = jnp.tanh(0.5 * s["h"] + s["line"][1] @ p["w"] + s["line"][3] @ p["u"])
    return {"h": h, "line": jnp.concatenate([x[None], s["line"][:-1]])}, h


def _own_delay_of_each(p, s, x):
    late = s["line"][jnp.array([0, 2, 3]), jnp.arange(N)]
    h = jnp.tanh(x @ p["w"] + late @ p["u"])
    return {"h": h, "line": jnp.concatenate([h[None], s["line"][:-1]])}, h


def _every_step_read(p, s, x):
    h = jnp.tanh(x @ p["w"] + s["line"].mean(axis=0) @ p["u"])
    return {"h": h, "line": jnp.concatenate([h[None], s["line"][:-1]])}, h


MODELS = [_rolled, _concatenated, _time_last, _inputs_delayed, _own_delay_of_each, _every_step_read]
DELAYS = [{D}, {D}, {D - 1}, {2, D}, {1, 3, D}, {1, 2, 3, D}]


@pytest.fixture(autouse=True)
def _in_double_precision():
    with jax.enable_x64(True):
        yield


def _model(step, **line):
    params = {"w": _array(0, N, N), "u": _array(1, N, N)}
    return ranvier.step_function(step, params, {"h": np.zeros(N), "line": line.get("line", np.zeros((D, N)))})


def _run(step, params, state, xs):
    return jax.lax.scan(lambda s, x: step(params, s, x), jax.tree.map(jnp.asarray, state), xs)


@few(("step", "delays"), list(zip(MODELS, DELAYS, strict=True)), ids=[m.__name__ for m in MODELS])
def test_shift_registers_are_delayed_projections(step, delays):
    model, xs = _model(step), _array(3, 12, N)
    raised = ranvier.raise_model(model, xs[0])
    graph = raised.graph
    assert "line" not in graph.populations
    assert all(port != "line" for p in graph.populations.values() for port in p.neuron.states)
    longest = {p.delay for p in graph.projections.values()} - {0, 1} | ({1} & delays)
    assert longest == delays
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    state, expected = _run(model.step, model.params, model.state, xs)
    own, found = _run(lowered.step, lowered.params, lowered.state, xs)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    (simulated,) = ranvier.interpret(graph, xs).outputs.values()
    np.testing.assert_allclose(simulated, expected, rtol=1e-9)
    states = raised.states(own)
    assert {("h",), ("line",)} - states.keys() <= ({("line",)} if max(delays) < D else set())
    for path, value in states.items():
        np.testing.assert_allclose(value, state[path[0]], rtol=1e-9)


def _ring(p, s, x):
    """A buffer that a counter addresses."""
    h = jnp.tanh(x @ p["w"] + s["ring"][s["k"] % D] @ p["u"] + s["ring"][(s["k"] - 2) % D])
    return {"h": h, "ring": s["ring"].at[s["k"] % D].set(h), "k": s["k"] + 1}, h


def test_a_ring_buffer_is_delayed_projections_too():
    params = {"w": _array(0, N, N), "u": _array(1, N, N)}
    state = {"h": np.zeros(N), "ring": np.zeros((D, N)), "k": np.int32(5)}
    model, xs = ranvier.step_function(_ring, params, state), _array(3, 11, N)
    raised = ranvier.raise_model(model, xs[0])
    assert {p.delay for p in raised.graph.projections.values() if p.delay > 1} == {2, D}
    assert "ring" not in raised.graph.populations
    lowered = ranvier.lower(raised.graph, dtype=jnp.float64)
    state, expected = _run(model.step, model.params, model.state, xs)
    own, found = _run(lowered.step, lowered.params, lowered.state, xs)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    states = raised.states(own)
    np.testing.assert_allclose(states["ring",], state["ring"], rtol=1e-9)


@few("step", MODELS, ids=[m.__name__ for m in MODELS], quick=1)
def test_gradients_through_delays_are_the_models(step):
    model, xs = _model(step), _array(3, 12, N)
    raised = ranvier.raise_model(model, xs[0])
    lowered = ranvier.lower(raised.graph, dtype=jnp.float64)

    def loss(run, params):
        return jnp.sum(_run(run.step, params, run.state, xs)[1] ** 2 * jnp.arange(1.0, N + 1))

    def through(params):
        return loss(lowered, raised.parameters({(name,): value for name, value in params.items()}))

    expected = jax.grad(lambda p: loss(model, p))(jax.tree.map(jnp.asarray, model.params))
    found = jax.grad(through)(jax.tree.map(jnp.asarray, model.params))
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, atol=1e-12)


def test_a_register_that_does_not_start_from_zero_stays_a_state():
    model, xs = _model(_rolled, line=_array(7, D, N)), _array(3, 12, N)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    assert max(p.delay for p in graph.projections.values()) <= 1
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    expected, found = (_run(m.step, m.params, m.state, xs)[1] for m in (model, lowered))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_rotation_without_input_stays_a_state():
    def step(p, s, x):
        return {"line": jnp.roll(s["line"], 1), "h": s["h"]}, s["line"] * x + p["w"][0]

    model = ranvier.step_function(step, {"w": _array(0, N, N)}, {"h": np.zeros(N), "line": np.zeros(N)})
    graph = ranvier.SNNGraph.from_module(model, np.ones(N))
    lowered = ranvier.lower(graph, dtype=jnp.float64)
    xs = _array(3, 6, N)
    expected, found = (_run(m.step, m.params, m.state, xs)[1] for m in (model, lowered))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
