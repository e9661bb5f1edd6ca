"""What a plan says is left out is what the gradient lacks: nothing more, nothing less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import ranvier
from ranvier.learn.sensitivity.stepwise import StepwiseKernel
from ranvier.learn.traces.trace_kernel import TraceKernel
from ranvier.learn.traces.traces import traces_of
from tests.support.examples import examples, few
from tests.support.learning import learning, loss, phases
from tests.support.random_learners import RandomLearner, random_learners, random_model

pytestmark = learning
STEPS = 6

run = settings(
    max_examples=examples(40),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@dataclass(frozen=True)
class SomeTraces(ranvier.Rule):
    """A rule that a user might write: D-RTRL with every ``every``-th trace only, or with none."""

    every: int

    def kernel(self, info):
        return TraceKernel(info, traces_of(info)[:: self.every] if self.every else ())


@dataclass(frozen=True)
class Forgetful(ranvier.Rule):
    """A rule with a kernel of its own that carries nothing and does not say so."""

    def kernel(self, info):
        return ForgetfulKernel(info)


@dataclass(frozen=True, eq=False)
class ForgetfulKernel(StepwiseKernel):
    info: ranvier.ModuleInfo

    def init(self, static):
        return jnp.zeros(())

    def temporal(self, by_state, memory):
        return jnp.zeros(self.functions.weights)

    def advanced(self, step, h, w, memory):
        return memory


RULES = [
    *(ranvier.D_RTRL(), ranvier.EProp(), ranvier.EProp(filter=None), ranvier.RTRL(), ranvier.OSTL()),
    *(ranvier.SnAp(1), ranvier.SnAp(2), ranvier.OTTT(0.35), ranvier.ES_D_RTRL(decay=0.5), ranvier.ThreeFactor()),
    *(SomeTraces(0), SomeTraces(2), Forgetful()),
]


def off(gradient, exact) -> float:
    """The part of a gradient that differs, relative to the exact one."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True)
    apart = max((float(jnp.abs(a - b).max()) for a, b in pairs), default=0.0)
    return apart / max(max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(exact)), 1e-12)


def gradients(model, rule, xs):
    """The plan, the rule's gradient and that of BPTT."""
    learner = ranvier.compile(model, rule, xs[0], chunk=2)
    exact, _ = ranvier.compile(model, ranvier.BPTT(), xs[0]).grad(loss, xs, phases(STEPS))
    found, _ = learner.grad(loss, xs, phases(STEPS))
    return learner.plan, found, exact


@pytest.mark.slow
@run
@given(random_learners(), st.sampled_from(RULES), st.integers(0, 1000))
def test_nothing_is_left_out_if_and_only_if_the_gradient_is_that_of_bptt(step: RandomLearner, rule, seed: int) -> None:
    model, xs = random_model(step, seed, STEPS)
    try:
        plan, found, exact = gradients(model, rule, xs)
    except ranvier.RuleError:
        assume(False)
    whole = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(exact))
    assume(1e-6 < whole < 1e6)
    apart = off(found, exact)
    assert len(set(plan.dropped)) == len(plan.dropped)
    event(f"{rule.name}: {'nothing' if not plan.dropped else 'something'} left out")
    if not plan.dropped:
        assert apart < 1e-9, plan
    if plan.left_out:
        assert apart > 1e-12, plan
    for number, slot in enumerate(plan._info.parameters):
        lacking = [path for path in plan.left_out if number in path.parameters]
        if not lacking and not plan.approximations:
            assert float(jnp.abs(found[slot.path] - exact[slot.path]).max()) < 1e-9 * whole, (slot.path, plan)


# Parameters that reach a state directly, and a state through a second mixing operation of the same step --------------


def two_ways(p, s, x):
    y = x @ p["w"]
    a = 0.8 * s["a"] + y
    b = 0.9 * s["b"] + jnp.tanh(y) @ p["u"]
    return {"a": a, "b": b}, a + b


def applied_twice(p, s, x):
    v = 0.8 * s["a"] + jnp.tanh(x @ p["w"]) @ p["w"]
    return {"a": v, "b": s["b"] * 0.5}, v


def through_its_transpose(p, s, x):
    v = 0.8 * s["a"] + jnp.tanh(x @ p["w"]) @ p["w"].T
    return {"a": v, "b": 0.9 * s["b"] + x @ p["u"]}, v + s["b"]


def of_two_states(p, s, x):
    a = 0.8 * s["a"] + x @ p["w"]
    b = 0.9 * s["b"] + jnp.tanh(x @ p["w"] * 0.5) @ p["u"] + x @ p["w"]
    return {"a": a, "b": b}, a * b


def bias_and_gate(p, s, x):
    gate = jax.nn.sigmoid(x @ p["u"] + p["w"][0])
    a = 0.8 * s["a"] + p["w"][0] * x
    return {"a": a, "b": 0.9 * s["b"] + (gate * x) @ p["u"]}, a + s["b"]


TWO_WAYS = {
    two_ways: {"w"},
    applied_twice: {"w"},
    through_its_transpose: {"w"},
    of_two_states: {"w"},
    bias_and_gate: {"w", "u"},
}


def small_model(step):
    rng = np.random.default_rng(3)
    params = {name: jnp.asarray(rng.normal(0.0, 0.7, (4, 4))) for name in ("w", "u")}
    model = ranvier.step_function(step, params, {"a": jnp.zeros(4), "b": jnp.zeros(4)}, name="small")
    return model, jnp.asarray(rng.normal(size=(STEPS, 4)))


@few("step", TWO_WAYS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp(filter=None)], ids=str)
def test_the_way_through_a_second_mixing_operation_is_listed(step, rule) -> None:
    model, xs = small_model(step)
    plan, found, exact = gradients(model, rule, xs)
    lacking = {plan._info.parameters[k].path[0] for path in plan.left_out for k in path.parameters}
    differing = {path[0] for path in exact if off({0: found[path]}, {0: exact[path]}) > 1e-9}
    assert lacking == differing == TWO_WAYS[step]
    assert off(found, exact) > 0.02
    for name in lacking:
        assert "in part" in str(plan) or "same step only" in str(plan), name


@pytest.mark.slow
@pytest.mark.parametrize("step", TWO_WAYS, ids=lambda step: step.__name__)
def test_the_same_step_gradient_is_exact_for_all_uses(step) -> None:
    """In a sequence of one step there is nothing but the same step."""
    model, xs = small_model(step)
    exact, _ = ranvier.compile(model, ranvier.BPTT(), xs[0]).grad(loss, xs[:1], phases(1))
    for rule in (ranvier.D_RTRL(), ranvier.EProp(), SomeTraces(0), ranvier.ES_D_RTRL(decay=0.0)):
        found, _ = ranvier.compile(model, rule, xs[0]).grad(loss, xs[:1], phases(1))
        assert off(found, exact) < 1e-12, rule


def test_a_filter_follows_what_no_state_takes_part_in() -> None:
    """``tanh(x @ w)`` drives a leaky readout: e-prop's filter is then a population of its own, and exact."""
    plan, found, exact = gradients(*(lambda m: (m[0], ranvier.EProp(), m[1]))(small_model(two_ways)))
    assert plan.dropped == ()
    assert off(found, exact) < 1e-12


class LinearTwice(brainstate.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = brainstate.nn.Linear(4, 4)
        self.v = brainstate.HiddenState(jnp.zeros(4))

    def update(self, x):
        self.v.value = 0.8 * self.v.value + self.linear(jnp.tanh(self.linear(x)))
        return self.v.value


def test_a_layer_applied_twice() -> None:
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(STEPS, 4)))
    plan, found, exact = gradients(LinearTwice(), ranvier.D_RTRL(), xs)
    assert off(found, exact) > 0.05
    assert [path.kind for path in plan.left_out] == ["indirect-parameter"]
    assert "linear" in plan.dropped[0]


def test_the_readout_of_a_three_factor_rule_has_its_same_step_gradient_only() -> None:
    def step(p, s, x):
        v = 0.8 * s["a"] + x @ p["w"]
        r = 0.9 * s["b"] + jnp.tanh(v) @ p["u"]
        return {"a": v, "b": r}, r

    model, xs = small_model(step)
    plan, found, exact = gradients(model, ranvier.ThreeFactor(), xs)
    assert off({0: found["u",]}, {0: exact["u",]}) > 0.1
    assert any(path.kind == "untraced-parameter" and "u" in path.text for path in plan.left_out)
    (row,) = (line.split() for line in str(plan).splitlines() if line.split()[:1] == ["u"])
    assert row == ["u", "same", "step", "only"]


def test_states_that_no_parameter_reaches_are_named_and_do_no_harm() -> None:
    def step(p, s, x):
        seen = 0.5 * s["seen"] + x
        v = 0.8 * s["v"] + seen @ p["w"] * s["scale"]
        r = 0.9 * s["r"] + jnp.tanh(v) @ p["u"]
        return {"seen": seen, "scale": s["scale"], "v": v, "r": r}, r

    rng = np.random.default_rng(3)
    params = {name: jnp.asarray(rng.normal(0.0, 0.7, (4, 4))) for name in ("w", "u")}
    state = {"seen": jnp.zeros(4), "scale": jnp.full(4, 0.7), "v": jnp.zeros(4), "r": jnp.zeros(4)}
    model = ranvier.step_function(step, params, state)
    xs = jnp.asarray(rng.normal(size=(STEPS, 4)))
    plan, found, exact = gradients(model, ranvier.EProp(), xs)
    assert plan.dropped == ()
    assert off(found, exact) < 1e-12
    assert "seen; if it is not a state of a neuron" in str(plan)
    info = ranvier.extract_module_info(model, xs[0])
    assert {slot.path for slot in info.hidden} == {("seen",), ("v",), ("r",)}
    assert [n.paths for n in info.notes if n.kind is ranvier.types.DiagnosticKind.UNCHANGED_STATE] == [(("scale",),)]
    scaled = ranvier.compile(replace(model, state={**state, "scale": jnp.full(4, 0.1)}), ranvier.EProp(), xs[0])
    assert off(scaled.grad(loss, xs, phases(STEPS))[0], exact) > 0.1
    assert "no parameter reaches" not in str(gradients(*small_model(two_ways)[:1], ranvier.D_RTRL(), xs)[0])


# The result of a projection that is itself a new state --------------------------------------------------------------


def never_read(p, s, x):
    y = x @ p["w"]
    return {"a": 0.8 * s["a"] + y, "b": y}, s["a"]


def of_the_last_step(p, s, x):
    y = x @ p["w"]
    a = 0.8 * s["a"] + jnp.tanh(y) + 0.1 * s["b"]
    return {"a": a, "b": y}, a + jnp.sin(y)


def multiplied(p, s, x):
    y = x @ p["w"]
    return {"a": 0.8 * s["a"] + s["b"] * y, "b": y}, s["a"] * y


@pytest.mark.slow
@pytest.mark.parametrize("step", [never_read, of_the_last_step, multiplied])
def test_a_projection_that_is_a_new_state_and_drives_others(step) -> None:
    model, xs = small_model(step)
    for rule in (ranvier.D_RTRL(), ranvier.EProp(), ranvier.SnAp(1)):
        plan, found, exact = gradients(model, rule, xs)
        assert not plan.dropped
        assert off(found, exact) < 1e-12, rule
