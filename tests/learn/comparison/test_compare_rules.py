"""How rules compare on a sample, rules by parameter, and the choice of rules."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.learning import learning

pytestmark = learning
N, STEPS = 4, 9


def step(p, s, x):
    v = 0.8 * s["v"] + x @ p["w"] + jnp.tanh(s["v"]) @ p["r"]
    y = 0.9 * s["y"] + jnp.tanh(v) @ p["o"]
    return {"v": v, "y": y}, y


def loss(y, phase):
    return (jnp.sin(y + phase) * jnp.arange(1, y.size + 1)).sum()


@functools.cache
def case():
    rng = np.random.default_rng(0)
    shapes = {"w": (3, N), "r": (N, N), "o": (N, 2)}
    params = {name: jnp.asarray(0.5 * rng.normal(size=shape)) for name, shape in shapes.items()}
    model = ranvier.step_function(step, params, {"v": jnp.zeros(N), "y": jnp.zeros(2)}, name="small")
    return model, jnp.asarray(rng.normal(size=(STEPS, 3))), jnp.linspace(0.0, 3.0, STEPS)


@functools.cache
def gradient_of(rule) -> dict:
    model, xs, ys = case()
    return ranvier.compile(model, rule, xs[0], chunk=4).grad(loss, xs, ys)[0]


def by_parameter(**rules):
    model, xs, ys = case()
    learner = ranvier.compile(model, {k if k != "rest" else ...: r for k, r in rules.items()}, xs[0], chunk=4)
    return learner, learner.grad(loss, xs, ys)[0]


RULES = [
    {"w": ranvier.EProp(), "r": ranvier.ES_D_RTRL(decay=0.5), "rest": ranvier.D_RTRL()},
    {"w": ranvier.EProp("adaptive", feedback_rate=0.1), "r": ranvier.RTRL(), "o": ranvier.ES_D_RTRL(decay=0.3)},
    {"w": ranvier.BPTT(), "r": ranvier.UORO(), "o": ranvier.OTTT(0.4)},
]


@pytest.mark.slow
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(type(rule).__name__ for rule in rules.values()))
def test_each_gradient_is_that_of_its_rule_alone(rules) -> None:
    learner, found = by_parameter(**rules)
    for name in ("w", "r", "o"):
        alone = gradient_of(rules.get(name, rules.get("rest")))[name,]
        np.testing.assert_allclose(found[name,], alone, rtol=1e-9, atol=1e-12)
    assert all(rule.name in learner.rule.name for rule in rules.values())


def test_parts_go_on_from_call_to_call_and_keep_only_what_they_need() -> None:
    model, xs, ys = case()
    learner, whole = by_parameter(**RULES[0])
    first, aux = learner.grad(loss, xs[:5], ys[:5])
    second, _ = learner.grad(loss, xs[5:], ys[5:], state=aux.state)
    for path in whole:
        np.testing.assert_allclose(first[path] + second[path], whole[path], rtol=1e-9, atol=1e-12)
    alone = [ranvier.compile(model, rule, xs[0]).plan.memory_bytes for rule in RULES[0].values()]
    assert learner.plan.memory_bytes < sum(alone)
    assert jax.tree.leaves(jax.jit(lambda p: learner.grad(loss, xs, ys, params=p)[0])(learner.params))


def test_the_plan_lists_what_each_rule_leaves_out_of_its_own_parameters() -> None:
    plan = by_parameter(w=ranvier.RTRL(), rest=ranvier.D_RTRL())[0].plan
    names = [slot.path[0] for slot in plan._info.parameters]
    lacking = {names[k] for path in plan.left_out for k in path.parameters}
    assert lacking == {"r"}
    assert by_parameter(rest=ranvier.RTRL())[0].plan.dropped == ()


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"q": ranvier.D_RTRL(), ...: ranvier.D_RTRL()}, ["no parameter is called q", "o, r, w"]),
        ({"w": ranvier.D_RTRL()}, ["o, r have no rule", "..."]),
        ({"w": 3}, ["'w': 3", "ranvier.D_RTRL()"]),
        ({}, ["an empty one"]),
        ("best", ["'best'", "'auto'"]),
    ],
)
def test_what_is_no_choice_of_rules(rules, words) -> None:
    model, xs, _ = case()
    with pytest.raises(ranvier.RuleError) as caught:
        ranvier.compile(model, rules, xs[0])
    assert all(word in str(caught.value) for word in words)


@pytest.mark.slow
def test_the_comparison_is_that_of_the_gradients() -> None:
    model, xs, ys = case()
    exact = gradient_of(ranvier.BPTT())
    rules = [ranvier.D_RTRL(), ranvier.RTRL(), ranvier.ES_D_RTRL(decay=0.5), ranvier.ES_D_RTRL(decay=0.1)]
    comparison = ranvier.compare_rules(model, rules, xs[0], loss, xs, ys, chunk=4)
    for rule, result in zip(rules, comparison.results, strict=True):
        for path, agreement in result.parameters.items():
            a, b = np.ravel(gradient_of(rule)[path]), np.ravel(exact[path])
            assert agreement.error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), abs=1e-9)
            assert agreement.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
        assert result.seconds > 0
    assert comparison["D_RTRL"].memory_bytes == ranvier.compile(model, ranvier.D_RTRL(), xs[0]).plan.memory_bytes
    assert comparison["D_RTRL"].parameters["r",].error > 0.1 > 1e-9 > comparison["RTRL"].parameters["r",].error
    text = str(comparison)
    for words in ("ES_D_RTRL(decay=0.5", "ES_D_RTRL(decay=0.1", "cosine", "costliest", "recurrent-projection"):
        assert words in text


def test_a_path_is_worth_what_is_gone_without_it() -> None:
    """Against the model in which the recurrent way is cut by hand: from v into v of later steps, not in the step."""
    model, xs, ys = case()

    def cut(p, s, x):
        hold = jax.lax.stop_gradient
        v = 0.8 * s["v"] + x @ p["w"] + jnp.tanh(hold(s["v"])) @ p["r"]
        # The output of the step feels the old v through w_rec, as it did; what goes on to later steps does not.
        felt = 0.8 * s["v"] + x @ p["w"] + jnp.tanh(s["v"]) @ p["r"]
        y, seen = (0.9 * s["y"] + jnp.tanh(u) @ p["o"] for u in (v, felt))
        return {"v": v, "y": y}, seen

    by_hand = ranvier.step_function(cut, model.params, model.state, name="cut")
    without, _ = ranvier.compile(by_hand, ranvier.BPTT(), xs[0]).grad(loss, xs, ys)
    exact = gradient_of(ranvier.BPTT())
    a, b = (np.concatenate([np.ravel(g[path]) for path in sorted(exact)]) for g in (without, exact))
    (result,) = ranvier.compile(model, ranvier.D_RTRL(), xs[0]).compare(loss, xs, ys).results
    costs = {path.kind: cost for path, cost in result.costs}
    assert costs["recurrent-projection"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-6)
    assert set(costs) == {"recurrent-projection", "projection"}


@pytest.mark.slow
def test_rules_are_chosen_within_the_memory_limit() -> None:
    model, xs, ys = case()
    chosen = {}
    for limit in (100, 600, 10**6):
        learner = ranvier.compile(model, "auto", xs[0], chunk=4, memory_limit=limit, sample=(loss, xs, ys))
        assert learner.plan.memory_bytes <= limit
        chosen[limit] = learner
        assert learner.comparison is not None
    exact = gradient_of(ranvier.BPTT())
    errors = []
    for learner in chosen.values():
        found, _ = learner.grad(loss, xs, ys)
        errors.append(sum(float(jnp.linalg.norm(found[p] - exact[p]) / jnp.linalg.norm(exact[p])) for p in exact))
    assert errors[0] >= errors[1] > errors[2]
    assert errors[2] < 1e-9
    with pytest.raises(ranvier.RuleError, match="memory_limit=10"):
        ranvier.compile(model, "auto", xs[0], memory_limit=10)
    assert isinstance(ranvier.compile(model, "auto", xs[0], batch_size=2).rule, ranvier.types.ByParameter)


@pytest.mark.parametrize(
    ("rule", "sample", "reason"),
    [
        (ranvier.D_RTRL(), ("loss", 0, 0), "sample= is only for rule='auto'.*leave it out with D_RTRL"),
        ("auto", "nonsense", r"sample='nonsense' is not a tuple \(loss, xs, ys\)"),
    ],
)
def test_a_sample_that_nothing_reads_is_an_error(rule, sample, reason) -> None:
    step = ranvier.step_function(
        lambda params, state, x: ({"v": state["v"] + x @ params["w"]}, state["v"]),
        {"w": np.ones((3, 2), np.float32)},
        {"v": np.zeros(2, np.float32)},
    )
    with pytest.raises(ranvier.RuleError, match=reason):
        ranvier.compile(step, rule, np.zeros(3, np.float32), sample=sample)
