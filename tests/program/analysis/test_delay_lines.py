"""Ring buffers: what a step writes and reads at places that change from step to step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.program.analysis.delay_lines import delay_lines_of

N, D, STEPS = 3, 4, 11
Read = Callable[[Any, Any], Any]
Write = Callable[[Any, Any, Any], Any]

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


def read_last(buffer: Any, k: Any) -> Any:
    return buffer[(k + 1) % D]


def write_set(buffer: Any, k: Any, z: Any) -> Any:
    return buffer.at[k % D].set(z)


def write_slice(buffer: Any, k: Any, z: Any) -> Any:
    return jax.lax.dynamic_update_slice(buffer, z[None], (k % D, 0))


def read_by_neuron(buffer: Any, k: Any) -> Any:
    return buffer[(k - jnp.arange(1, N + 1)) % D, jnp.arange(N)]


COUNTED: dict[str, tuple[Read, Write]] = {
    "set": (read_last, write_set),
    "dynamic slices": (lambda b, k: jax.lax.dynamic_index_in_dim(b, (k - 2) % D, 0, False), write_slice),
    "take": (lambda b, k: jnp.take(b, (k + 2) % D, axis=0), write_set),
    "a delay for every neuron": (read_by_neuron, write_set),
    "between two slots": (lambda b, k: 0.3 * b[(k + 1) % D] + 0.7 * b[(k + 2) % D], write_set),
    "slots on the last axis": (lambda b, k: b.T[:, (k + 1) % D], lambda b, k, z: b.T.at[:, k % D].set(z).T),
    "cleared and added": (read_last, lambda b, k, z: b.at[k % D].set(0.0).at[(k + 2) % D].add(z)),
}

OTHER: dict[str, tuple[Read, Write]] = {
    "flat": (
        lambda b, k: b.reshape(-1)[(k + 1) % D * N + jnp.arange(N)],
        lambda b, k, z: b.reshape(-1).at[k % D * N + jnp.arange(N)].set(z).reshape(D, N),
    ),
    "masked": (read_last, lambda b, k, z: jnp.where((jnp.arange(D) == k % D)[:, None], z, b)),
    "bits": (lambda b, k: b[(k + 1) & 3], lambda b, k, z: b.at[k & 3].set(z)),
    "clipped": (lambda b, k: b[jnp.clip(k - 3, 0, D - 1)], lambda b, k, z: b.at[jnp.minimum(k, D - 1)].set(z)),
    "places that data decide": (lambda b, k: b[jnp.argmax(b.sum(axis=1))], write_set),
}


def model_with(read: Read, write: Write, *, start: int = 0) -> ranvier.types.StepFunction:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, N))), "u": jnp.asarray(rng.normal(size=N))}

    def step(p: Any, state: Any, x: Any) -> Any:
        k = state["k"]
        v = 0.8 * state["v"] + jnp.tanh(x @ p["w"]) + 0.5 * jnp.tanh(read(state["buffer"], k)) * p["u"]
        buffer = write(state["buffer"], k, jnp.tanh(v))
        return {"v": v, "buffer": buffer, "k": k + 1}, (v, read(buffer, k + 1))

    state = {"v": jnp.zeros(N), "buffer": jnp.asarray(rng.normal(size=(D, N))), "k": jnp.asarray(start)}
    return ranvier.step_function(step, params, state)


def loss(output: Any) -> Any:
    return sum(jnp.sin(leaf + 0.3).sum() for leaf in jax.tree.leaves(output))


def sequence() -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).normal(size=(STEPS, 3)))


def through_time(model: ranvier.types.StepFunction, xs: Any) -> Any:
    """The gradient by backpropagation through time, without Ranvier."""

    def total(params: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state, output = model.step(params, state, x)
            return state, loss(output)

        return jax.lax.scan(step, model.state, xs)[1].sum()

    return jax.grad(total)(model.params)


def check_gradients(model: ranvier.types.StepFunction, rule: Any, chunks: Any) -> ranvier.types.Learner:
    xs = sequence()
    expected = through_time(model, xs)
    learners = [ranvier.compile(model, rule, xs[0], chunk=chunk) for chunk in chunks]
    for learner in learners:
        found, _ = learner.grad(lambda y, _: loss(y), xs)
        for name in ("w", "u"):
            np.testing.assert_allclose(found[name,], expected[name], rtol=1e-9, atol=1e-12)
    return learners[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_a_ring_buffer_that_a_counter_addresses_is_a_delay_line(name: str) -> None:
    model = model_with(*COUNTED[name], start=6)
    learner = check_gradients(model, ranvier.D_RTRL(), [4])
    assert "nothing" in str(learner.plan).split("Left out")[1]
    (line,) = delay_lines_of(ranvier.extract_module_info(model, jnp.ones(3)))
    assert (line.start, line.turn) == (6, 1)
    assert not delay_lines_of(learner.info), "its places are constant now"


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_a_buffer_at_other_changing_places_keeps_its_path(name: str) -> None:
    model = model_with(*OTHER[name])
    assert not delay_lines_of(ranvier.extract_module_info(model, jnp.ones(3)))
    learner = check_gradients(model, ranvier.D_RTRL(), [4])
    assert "nothing" in str(learner.plan).split("Left out")[1]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp(), ranvier.SnAp(), ranvier.BPTT()], ids=str)
def test_every_chunk_and_rule_has_the_gradient_of_bptt(rule: Any) -> None:
    check_gradients(model_with(*COUNTED["set"]), rule, [1, STEPS])


@pytest.mark.slow
def test_a_counter_that_starts_again_by_itself() -> None:
    def step(p: Any, state: Any, x: Any) -> Any:
        k = state["k"]
        v = 0.8 * state["v"] + jnp.tanh(x @ p["w"]) + p["u"] * state["buffer"][jnp.where(k + 1 == D, 0, k + 1)]
        following = jnp.where(k + 1 >= D, 0, k + 1)
        return {"v": v, "buffer": state["buffer"].at[k].set(jnp.tanh(v)), "k": following}, v

    model = model_with(*COUNTED["set"])
    wrapped = ranvier.step_function(step, model.params, model.state)
    assert len(delay_lines_of(ranvier.extract_module_info(wrapped, jnp.ones(3)))) == 1
    check_gradients(wrapped, ranvier.D_RTRL(), [4])


class Delayed(brainstate.nn.Module):
    """A leaky integrator that hears itself through brainstate's own delay."""

    def __init__(self) -> None:
        super().__init__()
        self.w = brainstate.ParamState(jnp.asarray(np.random.default_rng(0).normal(size=(3, N))))
        self.delay = brainstate.nn.Delay(jax.ShapeDtypeStruct((N,), jnp.float64), entries={"past": 3.0})

    def init_state(self, **_: Any) -> None:
        self.h = brainstate.HiddenState(jnp.zeros(N))

    def update(self, x: Any) -> Any:
        self.h.value = 0.8 * self.h.value + jnp.tanh(x @ self.w.value) + 0.5 * jnp.tanh(self.delay.at("past"))
        self.delay.update(jnp.tanh(self.h.value))
        return self.h.value


@pytest.mark.slow
def test_the_delays_of_brainstate_are_delay_lines() -> None:
    xs = sequence()
    with brainstate.environ.context(dt=1.0):
        model = Delayed()
        brainstate.nn.init_all_states(model)

        def total(w: Any) -> Any:
            h, past, losses = jnp.zeros(N), [jnp.zeros(N)] * 4, []
            for x in xs:
                h = 0.8 * h + jnp.tanh(x @ w) + 0.5 * jnp.tanh(past[3])
                past, losses = [jnp.tanh(h), *past[:3]], [*losses, jnp.sin(h).sum()]
            return sum(losses)

        learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=4)
    found, aux = learner.grad(lambda y, _: jnp.sin(y).sum(), xs)
    np.testing.assert_allclose(aux.loss, total(model.w.value), rtol=1e-9)
    np.testing.assert_allclose(found["w",], jax.grad(total)(model.w.value), rtol=1e-9)
    assert "nothing" in str(learner.plan).split("Left out")[1]


@pytest.mark.slow
def test_states_go_on_from_call_to_call() -> None:
    model, xs = model_with(*COUNTED["set"]), sequence()
    expected = through_time(model, xs)
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=3)
    first, aux = learner.grad(lambda y, _: loss(y), xs[:5])
    rest, _ = learner.grad(lambda y, _: loss(y), xs[5:], state=aux.state)
    np.testing.assert_allclose(first["w",] + rest["w",], expected["w"], rtol=1e-9)


@pytest.mark.slow
def test_samples_of_a_batch() -> None:
    model, xs = model_with(*COUNTED["a delay for every neuron"]), sequence()
    both = jnp.stack([xs, 0.5 * xs], axis=1)
    expected = jax.tree.map(jnp.add, through_time(model, xs), through_time(model, 0.5 * xs))
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=4, batch_size=2)
    found, _ = learner.grad(lambda y, _: loss(y), both)
    np.testing.assert_allclose(found["w",], expected["w"], rtol=1e-9)


@pytest.mark.parametrize(
    ("read", "write", "reason"),
    [
        (lambda b, k: b[0], write_set, "a slot that stands still"),
        (lambda b, k: b[(2 * k) % D], write_set, "another pace"),
        (lambda b, k: b[(k + 1) % 3], write_set, "another length"),
        (lambda b, k: b.sum(axis=0), write_set, "all slots at once"),
        (lambda b, k: b[k % D], lambda b, k, z: b.at[k].set(z), "past the end"),
    ],
)
def test_what_is_no_delay_line_is_not_taken_for_one(read: Read, write: Write, reason: str) -> None:
    info = ranvier.extract_module_info(model_with(read, write), jnp.ones(3))
    assert not delay_lines_of(info), reason


def test_a_counter_that_can_overflow_is_no_counter() -> None:
    model = model_with(*COUNTED["set"])
    narrow = ranvier.step_function(model.step, model.params, model.state | {"k": jnp.asarray(0, jnp.int8)})
    assert not delay_lines_of(ranvier.extract_module_info(narrow, jnp.ones(3)))
