"""What a learner's plan says, and that it is so."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import ranvier
from tests.support.zoo import MODELS
from tests.support.zoo.model import normal, spike, zeros

pytestmark = pytest.mark.usefixtures("quick_compilation")

N_IN, N_REC, N_OUT = 20, 30, 2


def network(detached: bool = True, recurrent: bool = True) -> ranvier.types.StepFunction:
    """LIF neurons, with or without gradient through the reset, and a leaky readout; D of the neurons is a constant
    without it."""

    def step(params, state, x):
        z = spike(state["v"] - 1.0)
        reset = jax.lax.stop_gradient(z) if detached else z
        current = x @ params["w_in"] + (z @ params["w_rec"] if recurrent else 0.0)
        v = 0.8 * state["v"] + current - reset
        r = 0.9 * state["r"] + spike(v - 1.0) @ params["w_out"]
        return {"v": v, "r": r}, params["gain"] * r

    shapes = {"w_in": (N_IN, N_REC), "w_rec": (N_REC, N_REC), "w_out": (N_REC, N_OUT), "gain": (N_OUT,)}
    params = {name: normal(k, *shape, dtype=jnp.float32) for k, (name, shape) in enumerate(shapes.items())}
    state = zeros(jnp.float32, v=(N_REC,), r=(N_OUT,))
    return ranvier.step_function(step, params, state, name="network")


def plan_of(rule=ranvier.D_RTRL(), model=None, **options) -> ranvier.types.Plan:  # noqa: B008
    return ranvier.compile(model or network(), rule, jnp.ones(N_IN), **options).plan


def zoo_plan(name: str, rule=ranvier.D_RTRL()) -> ranvier.types.Plan:  # noqa: B008
    model, inputs = MODELS[name].build(jnp.float32)
    return ranvier.compile(model, rule, *inputs).plan


def row(plan: ranvier.types.Plan, name: str) -> str:
    """The line of the printed plan that starts with a name."""
    (found,) = (line for line in str(plan).splitlines() if line.split()[:1] == [name])
    return found


# Chunks -----------------------------------------------------------------------------------------------------------


def test_the_chunk_is_what_the_limit_has_room_for() -> None:
    step_bytes = plan_of().step_bytes
    assert step_bytes > 4 * (N_IN + 2 * N_REC)
    for steps in (1, 10, 33):
        plan = plan_of(memory_limit=steps * step_bytes)
        assert (plan.chunk, plan.is_chosen) == (steps, True)
        assert f"up to {steps} step" in str(plan)
        assert "fit the limit of" in plan.reason
    assert plan_of(memory_limit=1).chunk == 1
    assert plan_of().chunk == 256 * 2**20 // step_bytes


def test_a_larger_batch_has_a_shorter_chunk() -> None:
    assert plan_of(batch_size=8).chunk < plan_of(batch_size=2).chunk < plan_of().chunk


def test_the_chunk_is_as_asked_for() -> None:
    plan = plan_of(chunk=7, memory_limit=1)
    assert (plan.chunk, plan.reason, plan.is_chosen) == (7, "as requested", False)
    assert "up to 7 steps: as requested" in str(plan)


def test_a_chosen_chunk_splits_a_sequence_evenly() -> None:
    learner = ranvier.compile(network(), ranvier.D_RTRL(), jnp.ones(N_IN), memory_limit=10 * plan_of().step_bytes)
    assert [learner.chunk_for(length) for length in (1, 5, 10, 11, 20, 21, 25)] == [1, 5, 10, 6, 10, 7, 9]
    asked = ranvier.compile(network(), ranvier.D_RTRL(), jnp.ones(N_IN), chunk=10)
    assert [asked.chunk_for(length) for length in (11, 25)] == [10, 10]


every_rule_without_chunks = pytest.mark.parametrize(
    "rule", [ranvier.BPTT(), ranvier.RTRL(), ranvier.SnAp(2), ranvier.OSTL(), ranvier.UORO()], ids=str
)


@every_rule_without_chunks
def test_rules_without_chunks(rule) -> None:
    learner = ranvier.compile(*small("elman", rule), chunk=3)
    assert learner.plan.chunk is None
    assert "whole sequence" in str(learner.plan)
    assert learner.chunk_for(25) == 25


def small(name: str, rule) -> tuple:
    model, inputs = MODELS[name].build(jnp.float32)
    return model, rule, *inputs


# Memory -----------------------------------------------------------------------------------------------------------

RULES = [
    *(ranvier.BPTT(), ranvier.D_RTRL(), ranvier.ES_D_RTRL(decay=0.9), ranvier.OTTT(0.9), ranvier.EProp()),
    *(ranvier.EProp("random"), ranvier.ThreeFactor(), ranvier.SnAp(1), ranvier.OSTL(), ranvier.RTRL(), ranvier.UORO()),
]
every_rule = pytest.mark.parametrize("rule", RULES, ids=str)


@every_rule
@pytest.mark.parametrize("batch_size", [None, 2])
def test_memory_is_that_of_the_state(rule, batch_size: int | None) -> None:
    learner = ranvier.compile(*small("recurrent_lif_with_readout", rule), batch_size=batch_size)
    state = jax.eval_shape(learner.init)
    assert learner.plan.memory_bytes == sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.memory))
    assert (learner.plan.memory_bytes == 0) == (rule == ranvier.BPTT())


def test_a_constant_decay_takes_a_presynaptic_trace() -> None:
    """As many numbers as the projections have inputs, not as they have weights."""
    plan = plan_of()
    assert plan.memory_bytes == 4 * (N_IN + N_REC + N_REC)
    for name, size in (("w_in", N_IN), ("w_rec", N_REC), ("w_out", N_REC)):
        assert f"presynaptic trace (uniform decay) [{size}]" in row(plan, name)


def test_other_decays_take_a_full_trace() -> None:
    plan = plan_of(model=network(detached=False))
    assert plan.memory_bytes == 4 * (N_IN * N_REC + N_REC * N_REC + N_REC)
    assert f"full trace [1,{N_IN},{N_REC}]" in row(plan, "w_in")
    assert f"full trace [1,{N_REC},{N_REC}]" in row(plan, "w_rec")
    assert f"presynaptic trace (uniform decay) [{N_REC}]" in row(plan, "w_out")


def test_a_filter_takes_a_full_trace() -> None:
    plan = plan_of(ranvier.EProp())
    assert plan.memory_bytes == 4 * (N_IN + N_REC + N_REC + N_IN * N_REC + N_REC * N_REC)
    feedback = 4 * N_REC * N_OUT
    assert plan_of(ranvier.EProp("random")).memory_bytes == plan.memory_bytes + feedback


# What is said -----------------------------------------------------------------------------------------------------


def test_the_printed_plan() -> None:
    text = str(plan_of())
    assert text.startswith("network learns with D_RTRL\n")
    assert repr(plan_of()) == text
    for words in ("rule's memory", "the same for any number of steps", "per step of a chunk"):
        assert words in text


def test_parameters_outside_all_relations_have_their_same_step_gradient() -> None:
    assert row(plan_of(), "gain").split() == ["gain", "same", "step,", "exact"]
    for name in ("w_in", "w_rec", "w_out"):
        assert "same step and in time" in row(plan_of(), name)
    plan = zoo_plan("parameters_without_relation")
    assert "same step, exact" in row(plan, "w_out")
    assert "same step and in time" in row(plan, "w")
    assert row(plan_of(ranvier.ThreeFactor()), "w_out").split() == ["w_out", "same", "step", "only"]


@every_rule_without_chunks
def test_rules_that_follow_all_parameters_say_so(rule) -> None:
    plan = zoo_plan("gru", rule)
    for name in ("w_r", "b_r", "w_n"):
        assert "same step and in time" in row(plan, name)


@every_rule_without_chunks
def test_a_readout_without_states_is_no_matter_of_time(rule) -> None:
    def step(params, state, x):
        v = 0.9 * state["v"] + x @ params["w"]
        return {"v": v}, v @ params["out"]

    params = {"w": jnp.ones((N_IN, 4)), "out": jnp.ones((4, 2))}
    plan = plan_of(rule, ranvier.step_function(step, params, {"v": jnp.zeros(4)}))
    assert "same step and in time" in row(plan, "w")
    assert "same step, exact" in row(plan, "out")


def test_projections_between_states_are_left_out() -> None:
    recurrent, readout = plan_of().dropped
    assert recurrent.startswith("recurrent-projection: v into group 1 through w_rec")
    assert readout.startswith("projection: v into group 0 through w_out")
    assert recurrent in str(plan_of())
    assert plan_of(model=network(recurrent=False)).dropped == (readout,)


def test_a_filter_stands_for_the_readouts_memory() -> None:
    assert plan_of(ranvier.EProp(), network(recurrent=False)).dropped == ()
    assert "nothing" in str(plan_of(ranvier.EProp(), network(recurrent=False))).split("Left out")[1]
    told, readout = plan_of(ranvier.EProp(filter=0.5), network(recurrent=False)).dropped
    assert "filtered with 0.5" in told
    assert "through w_out" in readout
    (approximation,) = plan_of(ranvier.EProp("random"), network(recurrent=False)).dropped
    assert "separate feedback weights" in approximation


def test_mixing_behind_a_new_state_is_left_out() -> None:
    """Here v's own new value is what is mixed, and the mean goes nowhere but back into v."""

    def step(params, state, x):
        v = 0.8 * state["v"] + x @ params["w"]
        centered = v - v.mean()
        return {"v": centered}, jnp.tanh(centered) @ params["w_out"]

    params = {"w": normal(0, N_IN, N_REC, dtype=jnp.float32), "w_out": normal(1, N_REC, N_OUT, dtype=jnp.float32)}
    model = ranvier.step_function(step, params, zeros(jnp.float32, v=(N_REC,)), name="centered")
    for rule in (ranvier.D_RTRL(), ranvier.EProp()):
        dropped = plan_of(rule, model).dropped
        assert any(line.startswith("recurrent-projection: v into group 0 through reduce_sum") for line in dropped)


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("gru", "indirect-parameter", ["w_r", "b_r"]),
        ("encoder", "indirect-parameter", ["w1"]),
        ("delay_buffer", "other-state-parameter", ["u", "w"]),
        ("large_ring", "positions-move", ["v"]),
        ("broadcast_state", "state-broadcast", ["m"]),
        ("elman", "recurrent-projection", ["h"]),
        ("global_inhibition", "recurrent-projection", ["v"]),
    ],
)
def test_what_else_is_left_out(name: str, kind: str, what: list[str]) -> None:
    found = [line for line in zoo_plan(name).dropped if line.startswith(f"{kind}:")]
    assert {line.split(":")[1].split()[0].strip(",") for line in found} >= set(what)


@pytest.mark.parametrize("name", ["dense", "conv", "sparse_csr", "lru", "adaptive_threshold", "tied_gate_and_value"])
def test_nothing_is_left_out_where_the_rule_is_exact(name: str) -> None:
    assert zoo_plan(name).dropped == ()


def test_what_other_rules_leave_out() -> None:
    assert zoo_plan("gru", ranvier.RTRL()).dropped == ()
    assert "truncation" in zoo_plan("gru", ranvier.BPTT()).dropped[0]
    assert "approximation" in zoo_plan("gru", ranvier.SnAp(1)).dropped[0]
    assert zoo_plan("gru", ranvier.SnAp(5)).dropped == ()
    assert any("approximation" in line for line in zoo_plan("gru", ranvier.ES_D_RTRL(rank=3)).dropped)
    assert "influence [" in str(zoo_plan("gru", ranvier.RTRL()))


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"chunk": 0}, "chunk=0"),
        ({"chunk": 2.5}, "chunk=2.5"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"memory_limit": 0}, "memory_limit=0"),
        ({"reduction": "max"}, "'sum' or 'mean'"),
        ({"rule": ranvier.D_RTRL}, "D_RTRL()"),
    ],
)
def test_bad_options(options, what: str) -> None:
    with pytest.raises(ranvier.RuleError, match=what.replace("(", r"\(").replace(")", r"\)")):
        plan_of(**options)
