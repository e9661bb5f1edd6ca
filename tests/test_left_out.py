"""What a plan says is left out is what the gradient lacks: nothing more, nothing less."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

import ranvier
from ranvier.learn.stepwise import StepwiseKernel
from ranvier.learn.traces import TraceKernel, traces_of

from .learning import learning, loss, phases
from .random_learners import RandomLearner, random_learners, random_model

pytestmark = learning
STEPS = 6

run = settings(
    max_examples=40,
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
