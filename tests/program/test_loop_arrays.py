"""Loops inside a step that read an input by their counter or write a history: D and f go through all of it.

The reference is JAX's own forward mode through the whole sequence, in double precision. Chunks are shorter than the
sequence, so that the traces have to carry what the history does to later steps; a twin whose history has no derivative
is the control.
"""

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


def currents(p: Any, x: Any, turns: int = TURNS) -> Any:
    """A current for every turn, ``[turns, N]``."""
    return jnp.outer(jnp.linspace(0.2, 1, turns), x) @ p["w"]


def trajectory(s: Any, y: Any, turns: int = TURNS) -> Any:
    """The state after all turns, and in each of them."""

    def one(v: Any, _: Any) -> Any:
        v = turn(v, y)
        return v, v

    return lax.scan(one, s["v"], length=turns)


def driven(p: Any, s: Any, x: Any, of_turn: Callable[[Any, Any], Any]) -> Any:
    """A step with a loop of which each turn reads a current."""
    ys = currents(p, x)
    v = lax.fori_loop(0, TURNS, lambda i, v: turn(v, of_turn(ys, i)), s["v"])
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


def remembering(of_history: Callable[[Any], Any], turns: int = TURNS) -> Step:
    """A step whose state m is made of what v did in all turns."""

    def step(p: Any, s: Any, x: Any) -> Any:
        v, history = trajectory(s, x @ p["w"], turns)
        return {"v": v, "m": 0.9 * s["m"] + of_history(history)}, s["m"]

    return step


def buffered(write: Callable[[Any, Any, Any], Any], read: Callable[[Any], Any], shape: tuple[int, ...]) -> Step:
    """A step whose loop writes v into a buffer, from which m is made."""

    def step(p: Any, s: Any, x: Any) -> Any:
        y = x @ p["w"]

        def one(i: Any, carry: Any) -> Any:
            v, buffer = carry
            v = turn(v, y)
            return v, write(buffer, i, v)

        v, buffer = lax.fori_loop(0, TURNS, one, (s["v"], jnp.zeros(shape)))
        return {"v": v, "m": 0.9 * s["m"] + read(buffer)}, s["m"]

    return step


def counted_while(p: Any, s: Any, x: Any) -> Any:
    """A ``while`` whose counter decides, which reads and writes by it."""
    ys = currents(p, x)

    def one(carry: Any) -> Any:
        v, buffer, i = carry
        v = turn(v, ys[i])
        return v, buffer.at[i].set(v), i + 1

    v, buffer, _ = lax.while_loop(lambda c: c[2] < TURNS, one, (s["v"], jnp.zeros((TURNS, N)), 0))
    return {"v": v, "m": 0.9 * s["m"] + buffer.mean(0)}, s["m"]


def while_by_data(p: Any, s: Any, x: Any) -> Any:
    """A ``while`` whose turns the data decide, which reads and writes by its counter."""
    ys = currents(p, x)

    def one(carry: Any) -> Any:
        v, buffer, i = carry
        v = turn(v, ys[i])
        return v, buffer.at[i].set(v), i + 1

    def goes_on(carry: Any) -> Any:
        return (carry[2] < TURNS) & (carry[2] < 5 + 10 * jnp.abs(x[0]))

    v, buffer, _ = lax.while_loop(goes_on, one, (s["v"], jnp.zeros((TURNS, N)), 0))
    return {"v": v, "m": 0.9 * s["m"] + buffer[3] + buffer.mean(0)}, s["m"]


def place_by_data(p: Any, s: Any, x: Any) -> Any:
    """The data decide which row of the buffer a turn writes."""
    y, first = x @ p["w"], jnp.round(jnp.abs(x[0]) * 10).astype(int)

    def one(i: Any, carry: Any) -> Any:
        v, buffer = carry
        v = turn(v, y)
        return v, buffer.at[(i + first) % TURNS].set(v)

    v, buffer = lax.fori_loop(0, TURNS, one, (s["v"], jnp.zeros((TURNS, N))))
    return {"v": v, "m": 0.9 * s["m"] + buffer[5]}, s["m"]


def state_in_the_buffer(p: Any, s: Any, x: Any) -> Any:
    """A turn reads the row that the turn before has written."""
    y = x @ p["w"]
    start = jnp.zeros((TURNS + 1, N)).at[0].set(s["v"])
    buffer = lax.fori_loop(0, TURNS, lambda i, b: b.at[i + 1].set(turn(b[i], y)), start)
    return {"v": buffer[-1], "m": 0.9 * s["m"] + buffer.mean(0)}, s["m"]


def loops_in_a_loop(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]

    def outer(v: Any, t: Any) -> Any:
        def inner(v: Any, _: Any) -> Any:
            v = turn(v, y * t)
            return v, v

        v, history = lax.scan(inner, v, length=35)
        return v, ((history**2).max(0), history)

    v, (highest, history) = lax.scan(outer, s["v"], jnp.linspace(0, 1, 34))
    return {"v": v, "m": 0.9 * s["m"] + highest.mean(0) + history.mean((0, 1))}, s["m"]


def interpolated(p: Any, s: Any, x: Any) -> Any:
    y = x @ p["w"]
    v = lax.fori_loop(0, TURNS, lambda i, v: turn(v, y * (i / TURNS)), s["v"])
    return {"v": v, "m": 0.9 * s["m"] + v}, s["m"]


KERNEL = jnp.exp(-jnp.arange(TURNS) / 10)
READS: dict[str, Step] = {
    "row": lambda p, s, x: driven(p, s, x, lambda ys, i: ys[i]),
    "slice": lambda p, s, x: driven(p, s, x, lambda ys, i: lax.dynamic_slice(ys, (i, 0), (1, N))[0]),
    "column": lambda p, s, x: driven(p, s, x, lambda ys, i: ys.T[:, i]),
    "backward": lambda p, s, x: driven(p, s, x, lambda ys, i: jnp.take(ys, TURNS - 1 - i, axis=0)),
    "held": lambda p, s, x: driven(p, s, x, lambda ys, i: ys[i // 10]),
    "by data": lambda p, s, x: driven(p, s, x, lambda ys, i: ys[(i + jnp.abs(x[0] * 9).astype(int)) % TURNS]),
    "interpolated": interpolated,
}
HISTORIES: dict[str, Step] = {
    "mean": remembering(lambda h: h.mean(0)),
    "mean of many": remembering(lambda h: jnp.tanh(h).mean(0), 2000),
    "maximum": remembering(lambda h: h.max(0)),
    "variance": remembering(lambda h: h.var(0), 100),
    "kernel": remembering(lambda h: KERNEL @ h),
    "softmax": remembering(lambda h: (jax.nn.softmax(h, 0) * h).sum(0)),
    "cumulative": remembering(lambda h: jnp.cumsum(h, 0)[20] + jnp.median(h, 0)),
    "transposed": remembering(lambda h: (2 * h[::3].T).mean(1)),
    "rows": buffered(lambda b, i, v: b.at[i].set(v), lambda b: b.mean(0), (TURNS, N)),
    "columns": buffered(lambda b, i, v: b.at[:, i].set(v), lambda b: b[:, -1] - b[:, 3], (N, TURNS)),
    "slices": buffered(
        lambda b, i, v: lax.dynamic_update_slice(b, v[None], (i + 1, 0)), lambda b: b[:9].sum(0), (TURNS + 1, N)
    ),
    "overwritten": buffered(lambda b, i, v: b.at[i % 7].set(v), lambda b: b[2] + b[6], (7, N)),
    "added": buffered(lambda b, i, v: b.at[i % 4].add(v), lambda b: b[2], (4, N)),
    "masked": buffered(lambda b, i, v: jnp.where(i > 5, b.at[i].set(v), b), lambda b: b[20], (TURNS, N)),
    "place by data": place_by_data,
    "state in the buffer": state_in_the_buffer,
    "loops in a loop": loops_in_a_loop,
    "counted while": counted_while,
    "while by data": while_by_data,
}


def model_of(step: Step, **params: Any) -> ranvier.types.StepFunction:
    rng = np.random.default_rng(0)
    state = {"v": jnp.asarray(rng.normal(0, 0.1, N)), "m": jnp.zeros(N)}
    weights = {"w": jnp.asarray(rng.normal(0, 0.5, (N_IN, N)))}
    return ranvier.step_function(step, weights | params, state)


def inputs() -> jax.Array:
    return jnp.asarray(np.random.default_rng(5).normal(size=(T, N_IN)))


def by_forward_mode(model: ranvier.types.StepFunction) -> dict:
    """The gradient by JAX's forward mode through the whole sequence."""

    def total(params: Any) -> Any:
        def one(state: Any, x: Any) -> Any:
            state, output = model.step(params, state, x[0])
            return state, loss(output, x[1])

        return lax.scan(one, model.state, (inputs(), phases()))[1].sum()

    return {(name,): g for name, g in jax.jit(jax.jacfwd(total))(model.params).items()}


def check_exact(model: ranvier.types.StepFunction, rule: Any, chunks: tuple[int | None, ...]) -> None:
    expected, xs = by_forward_mode(model), inputs()
    for chunk in chunks:
        learner = ranvier.compile(model, rule, xs[0], chunk=chunk)
        assert not learner.plan.dropped
        assert difference(learner.grad(loss, xs, phases())[0], expected) < 1e-12


@few("kind", READS, quick=2)
def test_what_a_turn_reads_is_followed(kind: str) -> None:
    check_exact(model_of(READS[kind]), ranvier.D_RTRL(), (1, 3, None))


@few("kind", HISTORIES, quick=3)
def test_a_history_is_followed(kind: str) -> None:
    check_exact(model_of(HISTORIES[kind]), ranvier.D_RTRL(), (1, 3, None))


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.EProp(), ranvier.RTRL()], ids=lambda rule: rule.name)
@pytest.mark.parametrize("kind", ["maximum", "rows", "counted while"])
def test_other_rules_follow_a_history_too(kind: str, rule: Any) -> None:
    check_exact(model_of(HISTORIES[kind]), rule, (None,) if rule.name == "RTRL" else (3,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kernel", "rows", "counted while"])
def test_without_the_history_the_gradient_is_another(kind: str) -> None:
    """The control: what the history does to later steps is part of the gradient."""
    step = HISTORIES[kind]

    def cut(p: Any, s: Any, x: Any) -> Any:
        state, _ = step(p, s, x)
        _, output = step(p, s | {"m": lax.stop_gradient(s["m"])}, x)
        return state, output

    whole, xs = by_forward_mode(model_of(step)), inputs()
    assert difference(by_forward_mode(model_of(cut)), whole) > 1e-3
    assert difference(gradient(model_of(cut), ranvier.D_RTRL(), xs, [xs[0]], chunk=3), whole) > 1e-3


@pytest.mark.slow
def test_weights_of_turns_are_learned() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v, history = trajectory(s, x @ p["w"])
        m = 0.9 * s["m"] + p["k"] @ history + (p["k"][:, None] * history).sum(0)
        return {"v": v, "m": m}, s["m"]

    kernel = jnp.asarray(np.random.default_rng(1).normal(0, 0.3, TURNS))
    check_exact(model_of(step, k=kernel), ranvier.D_RTRL(), (1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("mixes", [lambda h: h / (1 + h.sum(1, keepdims=True)), lambda h: h[:, ::-1] * h.mean()])
def test_neurons_that_mix_in_a_history_are_listed(mixes: Callable[[Any], Any]) -> None:
    model, xs = model_of(remembering(lambda h: mixes(h).mean(0))), inputs()
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=3)
    assert any("v into group" in line or "v moves" in line for line in learner.plan.dropped)
    assert difference(learner.grad(loss, xs, phases())[0], by_forward_mode(model)) > 1e-3


@pytest.mark.slow
def test_a_neuron_that_data_pick_in_a_loop_is_listed() -> None:
    """A turn writes v where the data say, which could be any neuron's place among many."""
    n = 70

    def step(p: Any, s: Any, x: Any) -> Any:
        y, first = x @ p["w"], jnp.abs(x[0] * 50).astype(int)

        def one(i: Any, carry: Any) -> Any:
            v, buffer = carry
            v = turn(v, y)
            return v, lax.dynamic_update_slice(buffer, v, (first + i,))

        v, buffer = lax.fori_loop(0, TURNS, one, (s["v"], jnp.zeros(2 * n)))
        return {"v": v, "m": 0.9 * s["m"] + buffer[:n]}, s["m"]

    w = jnp.asarray(np.random.default_rng(0).normal(0, 0.5, (N_IN, n)))
    model = ranvier.step_function(step, {"w": w}, {"v": jnp.zeros(n), "m": jnp.zeros(n)})
    learner = ranvier.compile(model, ranvier.D_RTRL(), inputs()[0], chunk=3)
    assert any(line.startswith("projection: v into group") and "scan" in line for line in learner.plan.dropped)
    # The way to the new v stays position by position, so nothing is said of it.
    assert not any(line.startswith("recurrent-projection") for line in learner.plan.dropped)
    assert difference(learner.grad(loss, inputs(), phases())[0], by_forward_mode(model)) > 1e-3


def test_backpropagation_learns_through_a_while_that_a_counter_ends() -> None:
    model, xs = model_of(counted_while), inputs()
    assert difference(gradient(model, ranvier.BPTT(), xs, [xs[0]]), by_forward_mode(model)) < 1e-12


@pytest.mark.slow
def test_the_size_of_the_program_does_not_grow_with_the_turns() -> None:
    sizes = []
    for turns in (40, 400):

        def step(p: Any, s: Any, x: Any, turns: int = turns) -> Any:
            ys = currents(p, x, turns)

            def one(i: Any, carry: Any) -> Any:
                v, buffer = carry
                v = turn(v, ys[i])
                return v, buffer.at[i].set(v)

            v, buffer = lax.fori_loop(0, turns, one, (s["v"], jnp.zeros((turns, N))))
            return {"v": v, "m": 0.9 * s["m"] + buffer.max(0)}, s["m"]

        learner = ranvier.compile(model_of(step), ranvier.D_RTRL(), inputs()[0], chunk=2)
        whole = jax.jit(lambda learner=learner: learner.grad(loss, inputs()[:4], phases(4))[0])
        sizes.append(whole.lower().as_text().count("\n"))
    assert sizes[1] < 1.02 * sizes[0]
