"""ES-D-RTRL and OTTT: equal to their published recursions, independent of the chunks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import (
    T,
    difference,
    gradient,
    learning,
    loss,
    part,
    phases,
    zoo_gradient,
    zoo_program,
)
from tests.support.slow_d_rtrl import CASES, Case, es_d_rtrl, ottt, same_step
from tests.support.zoo.model import spike

pytestmark = learning

ROUNDING = 1e-12


def check(case: Case, rule, expected, chunks=(1, 4, T)) -> None:
    for chunk in chunks:
        found = gradient(case.model, rule, jnp.asarray(case.xs), case.inputs, chunk=chunk)
        assert len(found) == len(expected)
        for name, value in expected.items():
            assert difference(found[name,], value) < ROUNDING, (name, chunk)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["lif_with_synapse", "alif_recurrent", "trainable_neurons", "two_layers", "spike_before_reset"]
)
def test_es_d_rtrl_is_its_recursion(name: str) -> None:
    case = CASES[name]()
    check(case, ranvier.ES_D_RTRL(decay=0.6), es_d_rtrl(case.steps(), 0.6))


WITHOUT_DECAY = ["lif_with_synapse", "convolutional_lif", "sparse_by_matrix"]


@pytest.mark.parametrize("name", WITHOUT_DECAY)
def test_es_d_rtrl_without_decay_is_the_same_step_gradient(name: str) -> None:
    case = CASES[name]()
    check(case, ranvier.ES_D_RTRL(decay=0.0), same_step(case.steps()), chunks=(4,))


def test_a_rank_is_a_decay() -> None:
    case = CASES["lif_with_synapse"]()
    check(case, ranvier.ES_D_RTRL(rank=4), es_d_rtrl(case.steps(), 0.6), chunks=(4,))
    assert ranvier.ES_D_RTRL(rank=1).smoothing == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lif_with_synapse", "trainable_neurons", "token_embedding", "spike_before_reset"])
def test_ottt_is_its_recursion(name: str) -> None:
    case = CASES[name]()
    check(case, ranvier.OTTT(decay=0.7), ottt(case.steps(), 0.7))


def test_ottt_is_bptt_for_leaky_integrators() -> None:
    case = CASES["leaky_integrators"]()
    exact = gradient(case.model, ranvier.BPTT(), jnp.asarray(case.xs), case.inputs)
    for rule in (ranvier.OTTT(decay=0.8), ranvier.OTTT()):
        assert difference(gradient(case.model, rule, jnp.asarray(case.xs), case.inputs, chunk=3), exact) < ROUNDING


def test_ottt_takes_the_decay_from_a_neuron_whose_reset_passes_no_gradient() -> None:
    def step(params, state, x):
        v = 0.7 * state["v"] + x @ params["w"] - jax.lax.stop_gradient(spike(state["v"] - 1.0))
        return {"v": v}, spike(v - 1.0)

    model = ranvier.step_function(
        step, {"w": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))}, {"v": jnp.zeros(4)}
    )
    xs = jnp.asarray(np.random.default_rng(1).uniform(0.0, 2.0, (T, 3)))
    found = gradient(model, ranvier.OTTT(), xs, (xs[0],), chunk=1)
    assert difference(found, gradient(model, ranvier.OTTT(decay=0.7), xs, (xs[0],), chunk=T)) < ROUNDING
    assert difference(found, gradient(model, ranvier.BPTT(), xs, (xs[0],))) < ROUNDING
    assert difference(found, gradient(model, ranvier.OTTT(decay=0.5), xs, (xs[0],))) > 1e-3


IN_CHUNKS = ["conv", "sparse_csr", "embedding", "lstm_packed", "lru", "one_weight_two_groups", "adaptive_threshold"]


@pytest.mark.parametrize("rule", [ranvier.ES_D_RTRL(decay=0.8), ranvier.OTTT(decay=0.8)], ids=str)
@few("name", IN_CHUNKS, quick=1)
def test_the_gradient_does_not_depend_on_the_chunks(name: str, rule) -> None:
    whole = zoo_gradient(name, rule, chunk=T)
    assert difference(zoo_gradient(name, rule, chunk=3), whole) < ROUNDING
    (info, xs), half, targets = zoo_program(name), T // 2, phases()
    learner = ranvier.compile(info, rule)
    first, aux = learner.grad(loss, part(xs, 0, half), targets[:half], state=learner.init())
    second, _ = learner.grad(loss, part(xs, half, T), targets[half:], state=aux.state)
    assert difference(jax.tree.map(jnp.add, first, second), whole) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        ranvier.ES_D_RTRL(decay=0.5),
        ranvier.OTTT(decay=0.5),
        ranvier.D_RTRL(),
    ],
    ids=str,
)
def test_a_model_without_traces_has_its_same_step_gradient(rule) -> None:
    def step(params, state, x):
        v = 0.7 * state["v"] + x
        return {"v": v}, v @ params["w_out"]

    model = ranvier.step_function(step, {"w_out": jnp.ones((3, 2))}, {"v": jnp.zeros(3)})
    xs = jnp.asarray(np.random.default_rng(1).uniform(0.0, 2.0, (T, 3)))
    exact = gradient(model, ranvier.BPTT(), xs, (xs[0],))
    assert difference(gradient(model, rule, xs, (xs[0],), chunk=3), exact) < ROUNDING


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ranvier.ES_D_RTRL(), "needs a decay or a rank"),
        (lambda: ranvier.ES_D_RTRL(decay=0.9, rank=3), r"needs a decay or a rank, got .*0\.9.*3"),
        (lambda: ranvier.ES_D_RTRL(decay=1.0), r"decay=1\.0"),
        (lambda: ranvier.ES_D_RTRL(decay=-0.1), r"decay=-0\.1"),
        (lambda: ranvier.ES_D_RTRL(rank=0), "rank=0"),
        (lambda: ranvier.OTTT(decay=1.5), r"decay=1\.5"),
        (lambda: ranvier.OTTT(decay=-1), "decay=-1"),
    ],
)
def test_options_that_make_no_sense(make, message: str) -> None:
    with pytest.raises(ranvier.RuleError, match=message):
        make()


@pytest.mark.parametrize("name", ["lif_with_synapse", "trainable_neurons"])
def test_ottt_asks_for_a_decay_where_d_is_not_one_constant(name: str) -> None:
    case = CASES[name]()
    with pytest.raises(ranvier.RuleError, match=r"write OTTT\(decay=\.\.\.\)"):
        ranvier.compile(case.model, ranvier.OTTT(), *case.inputs)
