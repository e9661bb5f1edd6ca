"""Every mistake a user can make with a learner gets an error that says what to do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier

pytestmark = pytest.mark.usefixtures("quick_compilation")

N_IN, N_OUT, T = 3, 2, 4


def linear(params, state, x):
    v = 0.5 * state["v"] + x @ params["w"]
    return {"v": v}, v


def model() -> ranvier.types.StepFunction:
    return ranvier.step_function(linear, {"w": jnp.ones((N_IN, N_OUT))}, {"v": jnp.zeros(N_OUT)}, name="linear")


def learner(**options) -> ranvier.types.Learner:
    return ranvier.compile(model(), ranvier.D_RTRL(), jnp.ones(N_IN), **options)


def square(y, target):
    return ((y - target) ** 2).sum()


XS, YS = jnp.ones((T, N_IN)), jnp.zeros((T, N_OUT))


# Options of rules -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ranvier.ES_D_RTRL(decay="0.9"), r"decay='0.9'\) needs a Python number from 0 to 1, less than 1"),
        (lambda: ranvier.ES_D_RTRL(decay=jnp.array(0.9)), "needs a Python number"),
        (lambda: ranvier.ES_D_RTRL(rank="5"), "rank='5'.*whole number"),
        (lambda: ranvier.ES_D_RTRL(rank=2.5), r"rank=2\.5.*whole number"),
        (lambda: ranvier.OTTT("x"), "decay='x'.*exp"),
        (lambda: ranvier.ThreeFactor(decay=None), "decay=None"),
        (lambda: ranvier.ThreeFactor(modulator=3), r"modulator is 3.*modulator\(output, target\)"),
        (lambda: ranvier.ThreeFactor(modulator=lambda output: output), "cannot be called as modulator"),
        (lambda: ranvier.UORO(seed="x"), "seed='x'"),
        (lambda: ranvier.SnAp(True), "n=True.*at least 1"),
        (lambda: ranvier.EProp(seed=1.5), r"seed=1\.5"),
        (lambda: ranvier.EProp("adaptive", feedback_rate="x"), "feedback_rate='x'"),
        (lambda: ranvier.EProp("adaptive", feedback_decay=2), "feedback_decay=2"),
    ],
)
def test_options_of_rules(make, message: str) -> None:
    with pytest.raises(ranvier.RuleError, match=message):
        make()


def test_numbers_of_numpy_are_numbers() -> None:
    assert ranvier.ES_D_RTRL(decay=np.float32(0.5)).smoothing == 0.5
    assert learner(batch_size=np.int64(4)).batch_size == 4
    with pytest.raises(ranvier.RuleError, match="batch_size=True"):
        learner(batch_size=True)


# grad -------------------------------------------------------------------------------------------------------------


class Unhashable:
    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, y, target):
        return square(y, target)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (None, r"loss is None.*loss\(output, target\)"),
        ("mse", "loss is 'mse'"),
        (lambda y: y.sum(), "cannot be called as loss"),
        (Unhashable(), "cannot be hashed; wrap it"),
        (lambda y, t: y, "must return one real number"),
    ],
)
def test_losses(loss, message: str) -> None:
    for call in (learner().grad, learner().evaluate):
        with pytest.raises(ranvier.InputError, match=message):
            call(loss, XS, YS)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (jnp.ones((N_IN, N_OUT)), "dictionary of values by path"),
        ([1, 2], "params is a list"),
        ({("u",): 1.0}, "params has u, but the parameters of linear are w"),
        ({"w": jnp.ones((N_IN, N_OUT)), "b": 1.0}, r"params has 'w', 'b', .* a path is a tuple, \('w',\)"),
    ],
)
def test_params(params, message: str) -> None:
    with pytest.raises(ranvier.InputError, match=message):
        learner().grad(square, XS, YS, params=params)


def test_several_inputs_come_as_a_tuple() -> None:
    def step(params, state, x, gain):
        return linear(params, state, x * gain)

    both = ranvier.step_function(step, {"w": jnp.ones((N_IN, N_OUT))}, {"v": jnp.zeros(N_OUT)}, name="both")
    with pytest.raises(ranvier.InputError, match="takes 2 inputs, so xs must be a tuple of 2"):
        ranvier.compile(both, ranvier.D_RTRL(), jnp.ones(N_IN), 1.0).grad(square, 3.0, YS)


def test_a_missing_batch_axis() -> None:
    with pytest.raises(ranvier.InputError, match="add a batch axis of size 5 after the time axis"):
        learner(batch_size=5).grad(square, XS, YS)


def test_complex_inputs_of_a_real_model() -> None:
    with pytest.raises(
        ranvier.InputError, match=r"complex64, but the model was compiled for float32.*cannot represent"
    ):
        learner().grad(square, XS * 1j, YS)


def test_an_index_that_is_no_integer() -> None:
    def step(params, state, k):
        v = 0.5 * state["v"] + params["w"][k]
        return {"v": v}, v

    table = ranvier.step_function(step, {"w": jnp.ones((N_IN, N_OUT))}, {"v": jnp.zeros(N_OUT)}, name="table")
    embedded = ranvier.compile(table, ranvier.D_RTRL(), jnp.asarray(0))
    embedded.grad(square, jnp.zeros(T, jnp.uint8), YS)
    with pytest.raises(ranvier.InputError, match="float32, but the model was compiled for int32"):
        embedded.grad(square, jnp.full(T, 1.7), YS)


# fit --------------------------------------------------------------------------------------------------------------

DATA = [(XS, YS)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learner": model()}, "needs a learner as its first argument, but got a StepFunction.*compile"),
        ({"data": None}, "data is None; pass a list of batches"),
        ({"held_out": 3}, "held_out is 3"),
        ({"loss": "mse"}, "loss is 'mse'"),
        ({"optimizer": 0.1}, "optax.adam"),
        ({"epochs": 1.5}, r"epochs=1\.5"),
        ({"metrics": [ranvier.accuracy]}, "pass a dictionary of functions by name"),
        ({"metrics": {"loss": ranvier.accuracy}}, "metric name 'loss' is already used"),
        ({"metrics": {"error": lambda outputs, ys: 0.0}}, r"metrics\['error'\] cannot be called"),
        ({"checkpoint": 3}, "checkpoint=3 is not a path"),
    ],
)
def test_fit(options: dict, message: str) -> None:
    arguments = {"learner": learner(), "data": DATA, "loss": square, "optimizer": optax.sgd(0.1), "epochs": 1}
    with pytest.raises(ranvier.InputError, match=message):
        ranvier.fit(**{**arguments, **options}, progress=False)


def test_a_metric_that_is_no_number() -> None:
    with pytest.raises(ranvier.InputError, match=r"metrics\['all'\] returned an array of shape \[4, 2\]"):
        ranvier.fit(learner(), DATA, square, optax.sgd(0.1), 1, metrics={"all": lambda o, y, m: o - y}, progress=False)
    with pytest.raises(
        ranvier.InputError, match=r"one class per output, so ys of shape \[4\], but ys has shape \[4, 2\]"
    ):
        ranvier.fit(learner(), DATA, square, optax.sgd(0.1), 1, metrics={"a": ranvier.accuracy}, progress=False)


def test_a_loss_without_its_targets() -> None:
    with pytest.raises(ranvier.InputError, match="fails without targets"):
        learner().grad(square, XS)


def test_a_list_of_steps() -> None:
    with pytest.raises(ranvier.InputError, match=r"stack a list of steps with jnp.stack\(xs\)"):
        learner().grad(square, [jnp.ones(N_IN)] * T, YS)


# Numbers ----------------------------------------------------------------------------------------------------------


def test_accuracy_is_counted_in_single_precision() -> None:
    outputs = jnp.zeros((1000, 2), jnp.bfloat16).at[:, 1].set(1)
    right = jnp.arange(1000) < 999
    assert float(ranvier.accuracy(outputs, right.astype(jnp.int32))) == pytest.approx(0.999)
    assert float(ranvier.accuracy(outputs, right.astype(jnp.int32), jnp.zeros(1000))) == 0.0


def test_complex_parameters_go_downhill() -> None:
    """JAX's gradient of a complex number is the conjugate of the direction of steepest ascent."""

    def step(params, state, x):
        h = params["decay"] * state["h"] + params["b"] * x
        return {"h": h}, jnp.stack([h.real, h.imag])

    params = {"decay": jnp.asarray(0.3 + 0.2j), "b": jnp.asarray(0.5 - 0.5j)}
    rotating = ranvier.step_function(step, params, {"h": jnp.zeros((), jnp.complex64)}, name="rotating")
    xs = jax.random.normal(jax.random.key(0), (20,))
    _, ys = ranvier.compile(rotating, ranvier.BPTT(), 1.0).evaluate(
        lambda y, t: y.sum(), xs, xs, params={("decay",): jnp.asarray(0.2 + 0.6j), ("b",): jnp.asarray(1.0 + 0.7j)}
    )
    result = ranvier.fit(
        ranvier.compile(rotating, ranvier.D_RTRL(), 1.0), [(xs, ys)], square, optax.sgd(0.005), 200, progress=False
    )
    assert result.history[-1]["loss"] < 0.01 * result.history[0]["loss"]
    assert abs(result.params["b",] - (1.0 + 0.7j)) < 0.05
