"""Models and calls in which something could go wrong unnoticed: equal weights, odd output shapes, low precision."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.examples import few


def square_loss(output: Any, target: Any) -> Any:
    return ((output - target) ** 2).sum()


def linear_model(out: Any, *, dtype: Any = jnp.float32, flat: bool = False) -> ranvier.types.StepFunction:
    def step(params: Any, state: Any, x: Any) -> Any:
        v = 0.9 * state["v"] + x @ params["w"]
        y = jnp.tanh(v) @ params["out"]
        return {"v": v.astype(dtype)}, y[..., 0] if flat else y

    params = {"w": jnp.linspace(-1, 1, 12).reshape(3, 4), "out": out}
    return ranvier.step_function(step, params, {"v": jnp.zeros(4, dtype)})


def data(steps: int, *lead: int, outputs: tuple[int, ...] = (2,)) -> tuple[jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.key(1), 2)
    return jax.random.normal(keys[0], (steps, *lead, 3)), jax.random.normal(keys[1], (steps, *lead, *outputs))


@pytest.mark.parametrize("feedback", ["random", "adaptive"])
@pytest.mark.parametrize("value", [1.0, 0.0])
def test_feedback_for_equal_weights_is_not_zero(feedback: str, value: float) -> None:
    learner = ranvier.compile(linear_model(jnp.full((4, 2), value)), ranvier.EProp(feedback=feedback), jnp.ones(3))
    grads, _ = learner.grad(square_loss, *data(10))
    assert float(jnp.abs(grads["w",]).max()) > 1e-2


@pytest.mark.slow
def test_one_number_per_sample_is_a_modulator_of_its_own() -> None:
    xs, ys = data(8, 4, outputs=())
    model = linear_model(jnp.ones((4, 1)), flat=True)
    together = ranvier.compile(model, ranvier.ThreeFactor(0.9), jnp.ones(3), batch_size=4)
    alone = ranvier.compile(model, ranvier.ThreeFactor(0.9), jnp.ones(3))
    found = together.grad(square_loss, xs, ys)[0]
    parts = [alone.grad(square_loss, xs[:, k], ys[:, k])[0] for k in range(4)]
    for path, value in found.items():
        np.testing.assert_allclose(value, sum(part[path] for part in parts), rtol=2e-5, atol=1e-5)


def test_a_modulator_of_the_wrong_size_is_told() -> None:
    rule = ranvier.ThreeFactor(0.9, modulator=lambda output, target: output - target)
    learner = ranvier.compile(linear_model(jnp.ones((4, 2))), rule, jnp.ones(3))
    with pytest.raises(ranvier.InputError, match="returned 2 numbers, but must return one"):
        learner.grad(square_loss, *data(5))


def test_a_mask_keeps_its_precision() -> None:
    learner = ranvier.compile(linear_model(jnp.ones((4, 2)), dtype=jnp.bfloat16), ranvier.BPTT(), jnp.ones(3))
    xs, ys = data(6)
    _, whole = learner.grad(square_loss, xs, ys)
    _, weighed = learner.grad(square_loss, xs, ys, mask=jnp.full(6, 0.3))
    np.testing.assert_allclose(weighed.loss, 0.3 * whole.loss, rtol=1e-6)


def test_the_state_can_be_donated() -> None:
    learner = ranvier.compile(linear_model(jnp.ones((4, 2))), ranvier.D_RTRL(), jnp.ones(3))
    xs, ys = data(5)

    @jax.jit
    def free(state: Any) -> Any:
        return learner.grad(square_loss, xs, ys, state=state)[1].state

    donating = jax.jit(lambda state: learner.grad(square_loss, xs, ys, state=state)[1].state, donate_argnums=0)
    expected = free(learner.init())
    for _ in range(2):
        found = donating(learner.init())
        np.testing.assert_array_equal(found.hidden[0], expected.hidden[0])


def test_held_out_metrics_are_means_over_samples() -> None:
    model = linear_model(jnp.ones((4, 2)))
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(3), batch_size=2)
    batches = [(*data(4, size), None) for size in (9, 1)]
    metrics = {"size": lambda output, target, mask: jnp.asarray(output.shape[1], jnp.float32)}
    training = [data(4, 2)]
    found = ranvier.fit(
        learner, training, square_loss, optax.sgd(1e-3), epochs=1, held_out=batches, metrics=metrics, progress=False
    )
    assert found.history[0]["eval_size"] == pytest.approx((9 * 9 + 1) / 10)


def test_a_rule_with_a_function_is_resumed(tmp_path: Any) -> None:
    """As in a new process, in which the function is at another address."""

    def run() -> Any:
        rule = ranvier.ThreeFactor(0.9, modulator=lambda output, target: (output - target).sum())
        learner = ranvier.compile(linear_model(jnp.ones((4, 2))), rule, jnp.ones(3))
        return ranvier.fit(
            learner, [data(4)], square_loss, optax.sgd(1e-3), epochs=2, checkpoint=tmp_path / "run", progress=False
        )

    first, again = run(), run()
    np.testing.assert_array_equal(first.params["w",], again.params["w",])


@pytest.mark.parametrize(
    "rule", [ranvier.BPTT(), ranvier.RTRL(), ranvier.SnAp(1), ranvier.OSTL(), ranvier.D_RTRL()], ids=str
)
def test_gradients_of_low_precision_are_summed_in_single(rule) -> None:
    """bfloat16 has 8 bits: a sum of 4,000 equal numbers in it stops at 256 times their size."""

    def step(params, state, x):
        v = 0.5 * state["v"] + params["w"] * x
        return {"v": v}, v

    params = {"w": jnp.ones(2, jnp.bfloat16)}
    model = ranvier.step_function(step, params, {"v": jnp.zeros(2, jnp.bfloat16)})
    learner = ranvier.compile(model, rule, jnp.ones(2, jnp.bfloat16))
    xs = jnp.ones((4000, 2), jnp.bfloat16)
    grads, _ = learner.grad(lambda y, _: 0.1 * y.astype(jnp.float32).sum(), xs, jnp.zeros(4000))
    np.testing.assert_allclose(np.asarray(grads["w",], np.float32), 800.0, rtol=0.02)


@pytest.mark.parametrize("rule", [ranvier.RTRL(), ranvier.UORO(), ranvier.OSTL()], ids=str)
def test_weights_are_not_rounded_to_the_states_precision(rule) -> None:
    def step(params, state, x):
        v = (0.5 * state["v"] + params["w"] * x).astype(jnp.bfloat16)
        return {"v": v}, (params["w"] * x).sum()

    params = {"w": jnp.full(2, 1.0001)}
    model = ranvier.step_function(step, params, {"v": jnp.zeros(2, jnp.bfloat16)})
    learner = ranvier.compile(model, rule, jnp.ones(2))
    _, aux = learner.grad(lambda y, _: y, jnp.ones((3, 2)), jnp.zeros(3))
    np.testing.assert_allclose(aux.losses, 2.0002, rtol=1e-7)


@pytest.mark.parametrize("rule", [ranvier.BPTT(), ranvier.D_RTRL(), ranvier.RTRL(), ranvier.ES_D_RTRL(0.5)], ids=str)
def test_targets_of_masked_steps_may_be_missing(rule) -> None:
    learner = ranvier.compile(linear_model(jnp.ones((4, 2))), rule, jnp.ones(3))
    xs, mask = jnp.ones((4, 3)), jnp.array([0.0, 1.0, 0.0, 1.0])
    given = jnp.ones((4, 2))
    missing = jnp.where(mask[:, None] == 0, jnp.nan, given)

    expected, _ = learner.grad(square_loss, xs, given, mask=mask)
    found, aux = learner.grad(square_loss, xs, missing, mask=mask)
    np.testing.assert_array_equal(found["w",], expected["w",])
    assert np.isfinite(aux.losses).all()
    assert np.isfinite(learner.evaluate(square_loss, xs, missing, mask=mask)[0])


def test_the_first_bad_state_is_that_of_the_run() -> None:
    """The noise of an update differs from that of another, and only some noise makes this state infinite."""

    def step(params, state, x):
        key, used = jax.random.split(state["key"])
        noise = jax.random.normal(used)
        v = jnp.where(noise > 1.5, jnp.inf, params["w"] * x + 0.0 * state["v"])
        return {"v": v, "key": key}, v

    state = {"v": jnp.zeros(()), "key": jax.random.key(0)}
    noisy = ranvier.step_function(step, {"w": jnp.ones(())}, state, name="noisy")
    learner = ranvier.compile(noisy, ranvier.BPTT(), 1.0)
    start = learner.restart(None, None, 3)
    path, step_number = learner.first_bad_state(jnp.ones(200), state=start)
    _, aux = learner.grad(lambda y, t: y, jnp.ones(200), jnp.zeros(200), state=start)
    assert path == ("v",)
    assert step_number == int(np.argmax(~np.isfinite(aux.outputs)))
    assert (path, step_number) != learner.first_bad_state(jnp.ones(200))


@few("rule", [ranvier.D_RTRL(), ranvier.ES_D_RTRL(decay=0.9), ranvier.BPTT()], ids=str)
@pytest.mark.parametrize("batch", [None, 2])
def test_a_concatenation_meets_a_weight_that_changes_in_the_step(rule: Any, batch: int | None) -> None:
    """As the same sum in two products."""

    def network(together: bool) -> ranvier.types.StepFunction:
        def step(params: Any, state: Any, x: Any) -> Any:
            w = params["w"] * (1 + state["s"])
            y = jnp.concatenate([x, state["v"]]) @ w if together else x @ w[:3] + state["v"] @ w[3:]
            v = 0.9 * state["v"] + jnp.tanh(y)
            return {"v": v, "s": 0.5 * state["s"] + 0.1 * v.mean()}, v[:2]

        params = {"w": jax.random.normal(jax.random.key(0), (7, 4))}
        return ranvier.step_function(step, params, {"v": jnp.zeros(4), "s": jnp.zeros(())})

    xs, ys = data(6, *([] if batch is None else [batch]))
    found = []
    for together in (True, False):
        learner = ranvier.compile(network(together), rule, jnp.ones(3), batch_size=batch, chunk=4)
        found.append(learner.grad(square_loss, xs, ys))
    (one, aux), (two, same) = found
    np.testing.assert_allclose(aux.outputs, same.outputs, rtol=1e-5, atol=1e-5)
    if rule == ranvier.BPTT():
        np.testing.assert_allclose(one["w",], two["w",], rtol=1e-4, atol=1e-4)
    assert np.isfinite(one["w",]).all()
    assert np.abs(one["w",]).max() > 1e-2
