"""Properties of learning for any step: gradients do not depend on chunks, and RTRL is BPTT."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import ranvier
from tests.support.dense_d_rtrl import DenseDRTRL
from tests.support.examples import examples
from tests.support.learning import difference, flat, gradient, learning, part, phases
from tests.support.learning import loss as loss_of
from tests.support.random_steps import SIZE, RandomStep, random_steps

pytestmark = learning
STEPS = 7

run = settings(
    max_examples=examples(15),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def random_model(step: RandomStep, seed: int) -> tuple[ranvier.types.StepFunction, jax.Array]:
    """The step behind an input weight, a recurrent weight, a bias and a decay of the states; all states are seen."""
    rng = np.random.default_rng(seed)
    params = {
        "w": jnp.asarray(rng.normal(0.0, 0.5, (SIZE, SIZE))),
        "u": jnp.asarray(rng.normal(0.0, 0.3, (SIZE, SIZE))),
        "b": jnp.asarray(rng.normal(0.0, 0.5, SIZE)),
        "decay": jnp.asarray(rng.uniform(0.5, 0.9, SIZE)),
    }
    state = {f"h{k}": jnp.asarray(rng.normal(0.0, 0.5, SIZE)) for k in range(step.num_states)}
    model = ranvier.step_function(partial(learned, step), params, state, name="random")
    return model, jnp.asarray(rng.normal(size=(STEPS, SIZE)))


def learned(step: RandomStep, p, state: dict, x, *, cut: bool = False):
    recurrent = jax.lax.stop_gradient(state["h0"]) if cut else state["h0"]
    seen = jnp.tanh(x @ p["w"] + recurrent @ p["u"] + p["b"])
    new, output = step({}, {name: p["decay"] * jnp.tanh(h) for name, h in state.items()}, seen, cut=cut)
    return new, (output, new)


def model_and_inputs(step: RandomStep, seed: int) -> tuple[ranvier.ModuleInfo, jax.Array]:
    model, xs = random_model(step, seed)
    return ranvier.extract_module_info(model, xs[0]), xs


def tame(gradients) -> bool:
    """Neither infinite nor so large that rounding decides."""
    return bool(np.isfinite(flat(gradients)).all() and np.abs(flat(gradients)).max() < 1e6)


@pytest.mark.slow
@run
@given(random_steps(moving=True), st.integers(0, 1000), st.integers(1, STEPS - 1))
def test_d_rtrl_does_not_depend_on_chunks_or_calls(step: RandomStep, seed: int, chunk: int) -> None:
    info, xs = model_and_inputs(step, seed)
    whole = gradient(info, ranvier.D_RTRL(), xs, chunk=STEPS)
    assume(tame(whole))
    assert difference(gradient(info, ranvier.D_RTRL(), xs, chunk=chunk), whole) < 1e-9
    learner, targets = ranvier.compile(info, ranvier.D_RTRL()), phases(STEPS)
    first, aux = learner.grad(loss_of, part(xs, 0, chunk), targets[:chunk])
    second, _ = learner.grad(loss_of, part(xs, chunk, STEPS), targets[chunk:], state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < 1e-9


@pytest.mark.slow
@run
@given(random_steps(moving=True), st.integers(0, 1000))
def test_rtrl_is_bptt(step: RandomStep, seed: int) -> None:
    info, xs = model_and_inputs(step, seed)
    exact = gradient(info, ranvier.BPTT(), xs)
    assume(tame(exact))
    assert difference(gradient(info, ranvier.RTRL(), xs, chunk=2), exact) < 1e-9


@pytest.mark.slow
@settings(run, max_examples=examples(10))
@given(random_steps(), st.integers(0, 1000), st.integers(1, STEPS))
def test_d_rtrl_is_its_definition(step: RandomStep, seed: int, chunk: int) -> None:
    model, xs = random_model(step, seed)
    info = ranvier.extract_module_info(model, xs[0])

    def cut(inputs, states):
        def new_states(hidden, params):
            new, _ = learned(step, params, hidden, *inputs, cut=True)
            return jnp.concatenate([new[name] for name in model.state])

        hidden = {name: states["hidden"][name,] for name in model.state}
        by_hidden, by_params = jax.jacrev(new_states, argnums=(0, 1))(hidden, model.params)
        immediate = [by_params[name].reshape(by_params[name].shape[0], -1) for name in model.params]
        return jnp.concatenate([by_hidden[name] for name in model.state], axis=1), immediate

    expected, _ = DenseDRTRL(info, [(name,) for name in model.params], cut).gradients(xs)
    assume(tame(expected))
    assert difference(gradient(info, ranvier.D_RTRL(), xs, chunk=chunk), expected) < 1e-9


RULES = [
    ranvier.D_RTRL(),
    ranvier.EProp(),
    ranvier.EProp(filter=None),
    ranvier.OSTL(),
    ranvier.SnAp(1),
    ranvier.SnAp(2),
]


def layered(step: RandomStep, memory: bool, p, state: dict, x):
    """The random step behind an input weight alone, and a readout, with memory or without."""
    hidden = {name: p["decay"] * jnp.tanh(state[name]) for name in state if name != "r"}
    new, output = step({}, hidden, jnp.tanh(x @ p["w"] + p["b"]))
    r = (0.8 * state["r"] if memory else 0.0) + output @ p["u"]
    return {**new, "r": r}, r


@pytest.mark.slow
@settings(run, max_examples=examples(30))
@given(random_steps(moving=True), st.booleans(), st.sampled_from(RULES), st.integers(0, 1000))
def test_a_rule_that_leaves_nothing_out_is_bptt(step: RandomStep, memory: bool, rule, seed: int) -> None:
    model, xs = random_model(step, seed)
    model = ranvier.step_function(
        partial(layered, step, memory), model.params, {**model.state, "r": jnp.zeros(SIZE)}, name="random"
    )
    info = ranvier.extract_module_info(model, xs[0])
    exact = gradient(info, ranvier.BPTT(), xs)
    assume(tame(exact))
    try:
        learner = ranvier.compile(info, rule, chunk=2)
    except ranvier.RuleError:
        assume(False)
    found, _ = learner.grad(loss_of, xs, phases(STEPS))
    if difference(found, exact) > 1e-9:
        assert learner.plan.dropped
    event(f"{rule.name}: {'nothing' if not learner.plan.dropped else 'something'} left out")
