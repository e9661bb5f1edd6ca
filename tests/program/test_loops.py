"""Loops inside a step that are not unrolled: D and f go through all turns, and the gradient is JAX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ranvier
from tests.support.examples import few
from tests.support.learning import T, difference, gradient, learning, loss, phases

pytestmark = learning

N_IN, N, TURNS = 3, 4, 40

Step = Callable[[Any, Any, Any], Any]


def turn(v: Any, y: Any) -> Any:
    return v + 0.05 * (jnp.tanh(y) - v**3 - 0.1 * v)


def with_outputs(v: Any, y: Any) -> Any:
    """The state after all turns, and what every turn puts out."""

    def one(v: Any, _: Any) -> Any:
        v = turn(v, y)
        return v, jnp.tanh(3 * v)

    return lax.scan(one, v, length=TURNS)


def last_output_is_the_state(p: Any, s: Any, x: Any) -> Any:
    _, outputs = with_outputs(s["v"], x @ p["w"])
    return {"v": outputs[-1]}, outputs[-1]


def some_outputs_drive_a_state(p: Any, s: Any, x: Any) -> Any:
    v, outputs = with_outputs(s["v"], x @ p["w"])
    return {"v": v, "m": 0.9 * s["m"] + outputs[-1] - 0.5 * outputs[7]}, s["m"]


def sums_over_turns_drive_states(p: Any, s: Any, x: Any) -> Any:
    v, outputs = with_outputs(s["v"], x @ p["w"])
    return {"v": v, "m": 0.9 * s["m"] + outputs.mean(0) + 0.1 * outputs.sum(axis=0)}, s["m"]


def all_outputs_are_the_output(p: Any, s: Any, x: Any) -> Any:
    v, outputs = with_outputs(s["v"], x @ p["w"])
    return {"v": v}, outputs


def slices_of_weighted_inputs(p: Any, s: Any, x: Any) -> Any:
    y = (jnp.linspace(0.1, 1.0, TURNS)[:, None] * x) @ p["w"]
    v, outputs = lax.scan(lambda v, y: (turn(v, y), v), s["v"], y)
    return {"v": v, "m": 0.5 * s["m"] + outputs[20]}, s["m"]


def last_slice_first(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]
    v, outputs = lax.scan(lambda v, d: (turn(v, d * y), v), s["v"], jnp.linspace(0, 1, TURNS), reverse=True)
    return {"v": v, "m": 0.5 * s["m"] + outputs[0]}, s["m"]


def loop_in_a_loop(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]

    def outer(v: Any, _: Any) -> Any:
        v, outputs = lax.scan(lambda v, _: (turn(v, y), v), v, length=33)
        return v, outputs[-1]

    v, outputs = lax.scan(outer, s["v"], length=33)
    return {"v": v, "m": 0.5 * s["m"] + outputs[-1]}, s["m"]


def two_states_in_one_array(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]

    def one(both: Any, _: Any) -> Any:
        v, u = both
        new = jnp.stack([v + 0.05 * (v - v**3 / 3 - u + y), u + 0.004 * (v + 0.7 - 0.8 * u)])
        return new, new[0]

    both, outputs = lax.scan(one, jnp.stack([s["v"], s["m"]]), length=TURNS)
    return {"v": both[0], "m": both[1]}, outputs[-1]


def settles(p: Any, s: Any, x: Any) -> Any:
    """Turns until nothing moves any more, which positions decide together."""
    y = x @ p["w"]

    def one(carry: Any) -> Any:
        v, _, count = carry
        return turn(v, y), turn(v, y) - v, count + 1

    start = (s["v"], jnp.ones(N), 0)
    v, _, _ = lax.while_loop(lambda c: (jnp.abs(c[1]) > 1e-3).any() & (c[2] < 200), one, start)
    return {"v": 0.5 * s["v"] + 0.5 * v, "m": 0.9 * s["m"] + v}, (v, s["m"])


def turns_by_data(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]
    v = lax.fori_loop(0, jnp.round(jnp.abs(x[0]) * 10).astype(int), lambda _, v: turn(v, y), s["v"])
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


def adaptive_steps(p: Any, s: Any, x: Any) -> Any:
    """Heun's method with a step size for every neuron, whose control has no derivative."""
    y = x @ p["w"]

    def one(carry: Any) -> Any:
        v, t, h = carry
        active = t < 1.0
        h = jnp.minimum(h, 1.0 - t)
        first = jnp.tanh(y) - v**3
        second = jnp.tanh(y) - (v + h * first) ** 3
        error = lax.stop_gradient(jnp.abs(h * (second - first) / 2)) + 1e-30
        accepted = active & (error < 1e-3)
        v, t = jnp.where(accepted, v + h * (first + second) / 2, v), jnp.where(accepted, t + h, t)
        return v, t, jnp.where(active, h * lax.stop_gradient(jnp.clip(0.9 * jnp.sqrt(1e-3 / error), 0.2, 5.0)), h)

    v, _, _ = lax.while_loop(lambda c: (c[1] < 1.0).any(), one, (s["v"], jnp.zeros(N), jnp.full(N, 0.1)))
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


def while_in_a_scan(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]

    def outer(v: Any, _: Any) -> Any:
        return lax.while_loop(lambda v: (v < 0.3).any(), lambda v: v + 0.05 * jnp.exp(y), 0.5 * v), None

    v, _ = lax.scan(outer, s["v"], length=35)
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


def weight_inside_while(p: Any, s: Any, x: Any) -> Any:
    v, _ = lax.while_loop(lambda c: c[1] < 20, lambda c: (turn(c[0], x @ p["w"]), c[1] + 1), (s["v"], 0))
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


SCANS = [last_output_is_the_state, some_outputs_drive_a_state, all_outputs_are_the_output, slices_of_weighted_inputs]
SCANS += [sums_over_turns_drive_states]
SCANS += [last_slice_first, loop_in_a_loop, two_states_in_one_array]
WHILES = [settles, turns_by_data, adaptive_steps, while_in_a_scan, weight_inside_while]


def model_of(step: Step) -> ranvier.types.StepFunction:
    rng = np.random.default_rng(0)
    state = {"v": jnp.asarray(rng.normal(0, 0.1, N))} | ({} if step in (SCANS[0], SCANS[2]) else {"m": jnp.zeros(N)})
    return ranvier.step_function(step, {"w": jnp.asarray(rng.normal(0, 0.5, (N_IN, N)))}, state)


def inputs() -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(T, N_IN)))


def by_forward_mode(model: ranvier.types.StepFunction) -> dict:
    """The gradient by JAX's forward mode through the whole sequence."""

    def total(params: Any) -> Any:
        def one(state: Any, given: Any) -> Any:
            state, output = model.step(params, state, given[0])
            return state, loss(output, given[1])

        return lax.scan(one, model.state, (inputs(), phases()))[1].sum()

    return {("w",): jax.jit(jax.jacfwd(total))(model.params)["w"]}


@few("step", [*SCANS, *WHILES], ids=lambda step: step.__name__, quick=2)
def test_d_and_f_go_through_all_turns(step: Step) -> None:
    model = model_of(step)
    expected, xs = by_forward_mode(model), inputs()
    learners = [ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=chunk) for chunk in (1, 4)]
    for learner in learners:
        assert not learner.plan.dropped
        assert difference(learner.grad(loss, xs, phases())[0], expected) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("step", WHILES, ids=lambda step: step.__name__)
def test_rules_go_forward_through_while(step: Step) -> None:
    model = model_of(step)
    expected, xs = by_forward_mode(model), inputs()
    assert difference(gradient(model, ranvier.RTRL(), xs, [xs[0]]), expected) < 1e-12
    # A counter ends this one, so it is a loop of that many turns, which reverse mode goes through.
    if step is weight_inside_while:
        assert difference(gradient(model, ranvier.BPTT(), xs, [xs[0]]), expected) < 1e-12
        return
    with pytest.raises(ranvier.RuleError, match=rf"reverse mode.*while loop.*{step.__name__}"):
        ranvier.compile(model, ranvier.BPTT(), xs[0])


@pytest.mark.slow
def test_samples_of_a_batch_take_turns_of_their_own() -> None:
    model, xs = model_of(settles), inputs()
    batch = jnp.stack([xs, 0.1 * xs[::-1], jnp.zeros_like(xs)], axis=1)
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], batch_size=3, chunk=4)

    def batch_loss(output: Any, phase: Any) -> Any:
        return jax.vmap(loss, (0, None))(output, phase).sum()

    single = [gradient(model, ranvier.D_RTRL(), batch[:, k], [xs[0]]) for k in range(3)]
    assert difference(learner.grad(batch_loss, batch, phases())[0], jax.tree.map(lambda *g: sum(g), *single)) < 1e-12


@pytest.mark.slow
def test_a_product_inside_a_while_is_recurrent() -> None:
    """The positions that meet within the loop are a way that D has not, which the plan says; RTRL has it."""

    def step(p: Any, s: Any, x: Any) -> Any:
        def one(carry: Any) -> Any:
            v, count = carry
            return turn(v, x @ p["w"] + jnp.tanh(v) @ p["u"]), count + 1

        v, _ = lax.while_loop(lambda c: c[1] < 20, one, (s["v"], 0))
        return {"v": v}, v

    rng, xs = np.random.default_rng(0), inputs()
    params = {"w": jnp.asarray(rng.normal(size=(N_IN, N))), "u": jnp.asarray(rng.normal(size=(N, N)))}
    model = ranvier.step_function(step, params, {"v": jnp.zeros(N)})

    def total(params: Any) -> Any:
        state, sum_ = model.state, 0.0
        for x, phase in zip(xs, phases(), strict=True):
            state, output = step(params, state, x)
            sum_ += loss(output, phase)
        return sum_

    expected = {(name,): g for name, g in jax.jit(jax.jacfwd(total))(params).items()}
    assert difference(gradient(model, ranvier.RTRL(), xs, [xs[0]]), expected) < 1e-12
    (line,) = ranvier.compile(model, ranvier.D_RTRL(), xs[0]).plan.dropped
    assert line.startswith("recurrent-projection: v into group 0")
    assert difference(gradient(model, ranvier.D_RTRL(), xs, [xs[0]]), expected) > 1e-3


def test_a_large_loop_that_mixes_says_that_it_has_no_jacobian() -> None:
    n = 8192

    def step(p: Any, s: Any, x: Any) -> Any:
        y = p["w"] * x
        v = lax.while_loop(lambda v: v.max() < 1, lambda v: jnp.cumsum(v) / n + jnp.abs(y) + 0.1, s["v"])
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": jnp.ones(n)}, {"v": jnp.zeros(n)})
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(n))
    with pytest.raises(ranvier.AnalysisError, match="fixed number of iterations"):
        learner.grad(loss, jnp.ones((2, n)), phases(2))


@pytest.mark.slow
def test_the_size_of_the_program_does_not_grow_with_the_turns() -> None:
    """Hodgkin and Huxley's neuron, some steps of exponential Euler for every step of the network."""
    sizes = []
    for turns in (2, 40):
        learner = ranvier.compile(hodgkin_huxley(turns), ranvier.D_RTRL(), inputs()[0], chunk=2)
        whole = jax.jit(lambda learner=learner: learner.grad(loss, inputs()[:4], phases(4))[0])
        sizes.append(whole.lower().as_text().count("\n"))
    assert sizes[1] < 1.02 * sizes[0]


@pytest.mark.slow
def test_hodgkin_huxley_with_substeps() -> None:
    model, xs = hodgkin_huxley(4), inputs()
    assert difference(gradient(model, ranvier.D_RTRL(), xs, [xs[0]], chunk=3), by_forward_mode(model)) < 1e-9


def hodgkin_huxley(turns: int) -> ranvier.types.StepFunction:
    dt = 0.05 / turns

    def gate(x: Any, opening: Any, closing: Any) -> Any:
        rate = opening + closing
        return x + (1 - jnp.exp(-dt * rate)) * (opening / rate - x)

    def one(carry: Any, current: Any) -> Any:
        v, m, h, n = carry
        sodium, potassium = 120 * m**3 * h, 36 * n**4
        conductance = sodium + potassium + 0.3
        drive = 50 * sodium - 77 * potassium - 54.4 * 0.3 + current
        m = gate(m, (v + 40.1) / 10 / (1 - jnp.exp(-(v + 40.1) / 10)), 4 * jnp.exp(-(v + 65) / 18))
        h = gate(h, 0.07 * jnp.exp(-(v + 65) / 20), 1 / (1 + jnp.exp(-(v + 35) / 10)))
        n = gate(n, (v + 55.1) / 100 / (1 - jnp.exp(-(v + 55.1) / 10)), 0.125 * jnp.exp(-(v + 65) / 80))
        v = v + (1 - jnp.exp(-conductance * dt)) * (drive / conductance - v)
        return (v, m, h, n), jax.nn.sigmoid(v)

    def step(p: Any, s: Any, x: Any) -> Any:
        current = 10 * (x @ p["w"])
        carry, spikes = lax.scan(lambda c, _: one(c, current), tuple(s[k] for k in "vmhn"), jnp.arange(turns))
        return dict(zip("vmhn", carry, strict=True)), (spikes[-1], carry[0] / 10)

    state = {k: jnp.full(N, x) for k, x in {"v": -65.0, "m": 0.05, "h": 0.6, "n": 0.32}.items()}
    w = jnp.asarray(np.random.default_rng(0).normal(size=(N_IN, N)))
    return ranvier.step_function(step, {"w": w}, state)
