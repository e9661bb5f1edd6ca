"""Functions with a declared derivative, ``custom_jvp`` and ``custom_vjp``, whatever their body: every rule learns with
the declared one.

The reference is the same network without any custom function: a spike is its value plus the declared slope times what
its argument moves by, which JAX differentiates as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import difference, learning

N = 4
STEPS = 7
RULES = {
    "BPTT": ranvier.BPTT(),
    "RTRL": ranvier.RTRL(),
    "D_RTRL": ranvier.D_RTRL(),
    "ES_D_RTRL": ranvier.ES_D_RTRL(decay=0.9),
    "EProp": ranvier.EProp(),
    "OSTL": ranvier.OSTL(),
    "OTTT": ranvier.OTTT(decay=0.9),
    "SnAp": ranvier.SnAp(2),
    "UORO": ranvier.UORO(),
    "ThreeFactor": ranvier.ThreeFactor(),
}
EXACT = ("BPTT", "RTRL", "D_RTRL", "OSTL", "SnAp")
"""Rules that are exact for a network whose neurons only feel themselves."""


def slope(v: Any) -> Any:
    return jnp.clip(1 - jnp.abs(v), 0, 1)


def plain(value: Callable[..., Any], slope: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the derivative ``slope`` by its first argument, without declaring one."""

    def function(v: Any, *rest: Any) -> Any:
        held = jax.lax.stop_gradient(v)
        return value(held, *rest) + slope(held, *rest) * (v - held)

    return function


def uniform_below(v: Any, key: Any) -> Any:
    return jnp.where(jax.random.uniform(key, v.shape, v.dtype) < jax.nn.sigmoid(v), 1.0, 0.0)


def sigmoid_slope(v: Any, *_: Any) -> Any:
    return jax.nn.sigmoid(v) * (1 - jax.nn.sigmoid(v))


THRESHOLDS = np.linspace(0.1, 0.7, N)


@jax.custom_jvp
def where(v):
    return jnp.where(v > 0, 1.0, 0.0)


@where.defjvp
def _(primals, tangents):
    return where(*primals), tangents[0] * slope(primals[0])


@jax.custom_jvp
def jitted(v):
    return jax.jit(lambda v: jnp.clip(jnp.heaviside(v, 0.0), 0.0, 1.0))(v)


@jitted.defjvp
def _(primals, tangents):
    return jitted(*primals), jax.jit(lambda v, dv: dv * slope(v))(primals[0], tangents[0])


@jax.custom_jvp
def rule_calls_itself(v):
    return jax.nn.sigmoid(v)


@rule_calls_itself.defjvp
def _(primals, tangents):
    y = rule_calls_itself(*primals)
    return y, tangents[0] * y * (1 - y)


@jax.custom_jvp
def calls_another(v):
    return where(v) * jax.nn.relu(rule_calls_itself(v))


@calls_another.defjvp
def _(primals, tangents):
    (v,), (dv,) = primals, tangents
    return calls_another(v), dv * slope(v) * rule_calls_itself(v)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def fixed_width(v, width):
    return jnp.where(v > 0, 1.0, 0.0)


@fixed_width.defjvp
def _(width, primals, tangents):
    return fixed_width(*primals, width), tangents[0] * slope(primals[0] / width)


@jax.custom_jvp
def jvp_with_zeros(v, scale):
    return jnp.where(v > 0, 1.0, 0.0) * scale


def _rule(primals, tangents):
    (v, scale), (dv, dscale) = primals, tangents
    assert isinstance(dscale, jax.custom_derivatives.SymbolicZero)
    return jvp_with_zeros(v, scale), dv * slope(v) * scale


jvp_with_zeros.defjvp(_rule, symbolic_zeros=True)


@jax.custom_jvp
def jvp_counted(v, n):
    return jnp.where(v > 0, 1.0, 0.0) * n, n + 1


@jvp_counted.defjvp
def _(primals, tangents):
    (v, n), (dv, dn) = primals, tangents
    return jvp_counted(v, n), (dv * slope(v) * n, dn)


@jax.custom_jvp
def moved(v):
    return jnp.where(jnp.sort(v)[N // 2] < v, 1.0, 0.0)


@moved.defjvp
def _(primals, tangents):
    return moved(*primals), tangents[0] * slope(primals[0] - primals[0].mean())


@jax.custom_vjp
def heaviside(v):
    return jnp.heaviside(v, 0.0)


heaviside.defvjp(lambda v: (heaviside(v), v), lambda v, ct: (ct * slope(v),))


@jax.custom_vjp
def with_key(v, key):
    return uniform_below(v, key)


with_key.defvjp(lambda v, key: (with_key(v, key), v), lambda v, ct: (ct * sigmoid_slope(v), None))


@jax.custom_jvp
def jvp_with_key(v, key):
    return uniform_below(v, key)


@jvp_with_key.defjvp
def _(primals, tangents):
    return jvp_with_key(*primals), tangents[0] * sigmoid_slope(primals[0])


@jax.custom_vjp
def random_inside(v):
    return uniform_below(v, jax.random.key(3))


random_inside.defvjp(lambda v: (random_inside(v), v), lambda v, ct: (ct * sigmoid_slope(v),))


@partial(jax.custom_vjp, nondiff_argnums=(0, 2))
def vjp_nondiff(kind, v, width):
    return jnp.where(v > 0, 1.0, 0.0)


vjp_nondiff.defvjp(
    lambda kind, v, width: (vjp_nondiff(kind, v, width), v),
    lambda kind, width, v, ct: (jnp.where(jnp.abs(v) < width, ct * slope(v / width), 0.0),),
)


@jax.custom_vjp
def vjp_with_zeros(v, scale):
    return jnp.where(v > 0, 1.0, 0.0) * scale


def _forward(v, scale):
    return vjp_with_zeros(v.value, scale.value), (v.value, scale.value)


def _backward(kept, ct):
    v, scale = kept
    return ct * slope(v) * scale, None


vjp_with_zeros.defvjp(_forward, _backward, symbolic_zeros=True)


@jax.custom_vjp
def vjp_counted(v, n):
    return {"spike": jnp.where(v > 0, 1.0, 0.0) * n, "count": n + 1}


vjp_counted.defvjp(
    lambda v, n: (vjp_counted(v, n), (v, n)),
    lambda kept, ct: (ct["spike"] * slope(kept[0]) * kept[1], np.zeros((), jax.dtypes.float0)),
)


@jax.custom_gradient
def by_custom_gradient(v):
    return jnp.sign(v), lambda ct: jax.lax.select(jnp.abs(v) < 1, ct, jnp.zeros_like(ct))


@jax.custom_vjp
def computed_outside(v):
    return jax.pure_callback(lambda v: np.where(np.asarray(v) > 0, 1.0, 0.0), v, v, vmap_method="expand_dims")


computed_outside.defvjp(lambda v: (computed_outside(v), v), lambda v, ct: (ct * slope(v),))


def closing_over(v):
    @jax.custom_vjp
    def function(v):
        return jnp.where(v > jnp.asarray(THRESHOLDS), 1.0, 0.0)

    function.defvjp(lambda v: (function(v), v), lambda v, ct: (ct * slope(v - THRESHOLDS),))
    return function(v)


def jvp_closing_over(v):
    table = THRESHOLDS

    @jax.custom_jvp
    def function(v):
        return jnp.where(v > table, 1.0, 0.0)

    @function.defjvp
    def _(primals, tangents):
        return function(*primals), tangents[0] * slope(primals[0] - table)

    return function(v)


step_of = plain(lambda v, *_: jnp.where(v > 0, 1.0, 0.0), slope)
stochastic = plain(uniform_below, sigmoid_slope)
SPIKES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "where": (where, step_of),
    "jitted body and rule": (jitted, step_of),
    "rule calls itself": (rule_calls_itself, jax.nn.sigmoid),
    "calls others": (
        calls_another,
        plain(lambda v: jnp.where(v > 0, jax.nn.sigmoid(v), 0.0), lambda v: slope(v) * jax.nn.sigmoid(v)),
    ),
    "jvp, nondiff_argnums": (
        lambda v: fixed_width(v, 0.7),
        plain(lambda v: jnp.where(v > 0, 1.0, 0.0), lambda v: slope(v / 0.7)),
    ),
    "jvp, symbolic zeros": (
        lambda v: jvp_with_zeros(v, 2.0 * jnp.ones(N)),
        plain(lambda v: jnp.where(v > 0, 2.0, 0.0), lambda v: 2 * slope(v)),
    ),
    "jvp, whole numbers": (lambda v: jvp_counted(v, 1)[0], step_of),
    "the largest half": (
        moved,
        plain(lambda v: jnp.where(jnp.sort(v)[N // 2] < v, 1.0, 0.0), lambda v: slope(v - v.mean())),
    ),
    "vjp": (heaviside, step_of),
    "vjp, key": (with_key, stochastic),
    "jvp, key": (jvp_with_key, stochastic),
    "random inside": (random_inside, lambda v: stochastic(v, jax.random.key(3))),
    "vjp, nondiff_argnums": (
        lambda v: vjp_nondiff("triangle", v, 0.7),
        plain(lambda v: jnp.where(v > 0, 1.0, 0.0), lambda v: slope(v / 0.7)),
    ),
    "vjp, symbolic zeros": (
        lambda v: vjp_with_zeros(v, 2.0 * jnp.ones(N)),
        plain(lambda v: jnp.where(v > 0, 2.0, 0.0), lambda v: 2 * slope(v)),
    ),
    "vjp, whole numbers": (lambda v: vjp_counted(v, 1)["spike"], step_of),
    "custom_gradient": (by_custom_gradient, plain(jnp.sign, lambda v: jnp.where(jnp.abs(v) < 1, 1.0, 0.0))),
    "computed outside of JAX": (computed_outside, step_of),
    "vjp, closure": (
        closing_over,
        plain(lambda v: jnp.where(v > THRESHOLDS, 1.0, 0.0), lambda v: slope(v - THRESHOLDS)),
    ),
    "jvp, closure": (
        jvp_closing_over,
        plain(lambda v: jnp.where(v > THRESHOLDS, 1.0, 0.0), lambda v: slope(v - THRESHOLDS)),
    ),
    "inside cond": (
        lambda v: jax.lax.cond(v[0] > 0, heaviside, lambda v: 2 * where(v), v),
        lambda v: jnp.where(v[0] > 0, 1.0, 2.0) * step_of(v),
    ),
    "inside a short scan": (
        lambda v: jax.lax.scan(lambda c, _: (0.5 * c + heaviside(v), None), jnp.zeros(N), None, 3)[0],
        lambda v: 1.75 * step_of(v),
    ),
    "inside a long scan": (
        lambda v: jax.lax.fori_loop(0, 40, lambda _, c: 0.5 * c + heaviside(v), jnp.zeros(N)),
        lambda v: 2 * (1 - 0.5**40) * step_of(v),
    ),
    "vmapped": (jax.vmap(heaviside), step_of),
    "vmapped, keys": (
        lambda v, key: jax.vmap(with_key)(v, jax.random.split(key, N)),
        lambda v, key: jax.vmap(stochastic)(v, jax.random.split(key, N)),
    ),
}  # fmt: skip
RANDOM = {"vjp, key", "jvp, key", "vmapped, keys"}


def network(spike: Callable[..., Any], draws: bool, recurrent: bool = False) -> ranvier.types.StepFunction:
    """Neurons that feel themselves only, or each other too, with outputs that see potentials and spikes."""
    rng = np.random.default_rng(1)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, N))),
        "decay": jnp.full(N, 0.8),
        "out": jnp.asarray(rng.normal(size=(N, 2))),
    }
    if recurrent:
        params["u"] = jnp.asarray(0.3 * rng.normal(size=(N, N)))
    state: dict[str, Any] = {"v": jnp.zeros(N), "s": jnp.zeros(N)}
    if draws:
        state["key"] = jax.random.key(5)

    def step(params: Any, state: Any, x: Any) -> Any:
        v = params["decay"] * state["v"] + x @ params["w"] - 0.5 * state["s"]
        v = v + state["s"] @ params["u"] if recurrent else v
        if not draws:
            s = spike(v)
            return {"v": v, "s": s}, s @ params["out"]
        key, used = jax.random.split(state["key"])
        s = spike(v, used)
        return {"v": v, "s": s, "key": key}, s @ params["out"]

    return ranvier.step_function(step, params, state)


def loss(output: Any, target: Any) -> Any:
    return jnp.sin(output + target).sum()


XS = np.random.default_rng(2).normal(size=(STEPS, 3))
YS = np.linspace(0.0, 2.0, STEPS)


def learned(model: ranvier.types.StepFunction, rule: ranvier.Rule, **options: Any) -> Any:
    learner = ranvier.compile(model, rule, jnp.zeros(3), **options)
    return learner.grad(loss, jnp.asarray(XS), jnp.asarray(YS))[0]


def by_jax(model: ranvier.types.StepFunction) -> Any:
    """Backpropagation through time, written with JAX alone."""

    def total(params: Any) -> Any:
        def step(state: Any, given: Any) -> Any:
            state, output = model.step(params, state, given[0])
            return state, loss(output, given[1])

        return jax.lax.scan(step, model.state, (jnp.asarray(XS), jnp.asarray(YS)))[1].sum()

    return {(name,): value for name, value in jax.grad(total)(model.params).items()}


@learning
@few("name", SPIKES)
def test_declared_derivative_is_what_exact_rules_use(name: str) -> None:
    declared, reference = SPIKES[name]
    expected = by_jax(network(reference, name in RANDOM))
    assert difference(by_jax(network(declared, name in RANDOM)), expected) < 1e-12
    for rule in ("D_RTRL", "OSTL"):
        found = learned(network(declared, name in RANDOM), RULES[rule], **({"chunk": 3} if rule == "D_RTRL" else {}))
        assert difference(found, expected) < 1e-10, rule


@learning
@few("rule", RULES, quick=1)
@pytest.mark.parametrize("name", ["jitted body and rule", "vjp, key", "inside cond"])
def test_every_rule_learns_with_it_as_with_the_same_network_without(name: str, rule: str) -> None:
    declared, reference = SPIKES[name]
    found = learned(network(declared, name in RANDOM, recurrent=True), RULES[rule])
    assert difference(found, learned(network(reference, name in RANDOM, recurrent=True), RULES[rule])) < 1e-10
    if rule in ("BPTT", "RTRL"):
        assert difference(found, by_jax(network(reference, name in RANDOM, recurrent=True))) < 1e-10


@pytest.mark.slow
@learning
def test_batches_of_random_spikes_draw_for_every_sample() -> None:
    model, xs = network(with_key, True), jnp.asarray(np.stack([XS, XS[::-1]], axis=1))

    def both(y: Any, target: Any) -> Any:
        return jax.vmap(loss, (0, None))(y, target).sum()

    found = {}
    for rule in ("BPTT", "D_RTRL"):
        learner = ranvier.compile(model, RULES[rule], jnp.zeros(3), batch_size=2)
        found[rule] = learner.grad(both, xs, jnp.asarray(YS))[0]
    assert difference(found["D_RTRL"], found["BPTT"]) < 1e-10


@jax.custom_vjp
def scaled(v, width, threshold):
    return jnp.where(v > threshold, 1.0, 0.0)


def _scaled_backward(kept, ct):
    v, width, threshold = kept
    by_v = ct * slope((v - threshold) / width)
    return by_v, (0.1 * ct * v).sum(), -by_v


scaled.defvjp(lambda *given: (scaled(*given), given), _scaled_backward)


@jax.custom_vjp
def product(x, w):
    return x @ w


product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, ct: (2 * ct @ kept[1].T, 3 * jnp.outer(kept[0], ct)))


def with_parameters(params: Any, state: Any, x: Any) -> Any:
    v = 0.8 * state["v"] + product(x, params["w"])
    s = scaled(v, params["width"], params["threshold"])
    return {"v": v - s * params["threshold"]}, product(s, params["out"])


@pytest.mark.slow
@learning
def test_parameters_that_only_the_declared_rule_reads_and_products_with_a_rule() -> None:
    """Width, a scalar for all neurons, has a derivative by declaration only; a product's own rule is taken as it is."""
    rng = np.random.default_rng(4)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, N))),
        "out": jnp.asarray(rng.normal(size=(N, 2))),
        "threshold": jnp.asarray(THRESHOLDS),
        "width": jnp.asarray(0.9),
    }
    model = ranvier.step_function(with_parameters, params, {"v": jnp.zeros(N)})
    expected = by_jax(model)
    assert np.abs(expected["width",]) > 0.01
    for rule in ("D_RTRL", "RTRL", "BPTT", "SnAp"):
        assert difference(learned(model, RULES[rule]), expected) < 1e-10, rule
    assert ranvier.analyse(model, jnp.zeros(3)).info.parameters


@jax.custom_vjp
def clipped(v):
    return v


clipped.defvjp(lambda v: (v, None), lambda _, ct: (jnp.clip(ct, -0.1, 0.1),))


@jax.custom_vjp
def noisy_gradient(v):
    return v


noisy_gradient.defvjp(lambda v: (v, None), lambda _, ct: (ct + 0.1 * jax.random.normal(jax.random.key(0), ct.shape),))


def clipping(function: Callable[..., Any], where: str) -> ranvier.types.StepFunction:
    rng = np.random.default_rng(1)
    params = {"w": jnp.asarray(rng.normal(size=(3, N))), "out": jnp.asarray(rng.normal(size=(N, 2)))}

    def step(params: Any, state: Any, x: Any) -> Any:
        at = dict.fromkeys(("state", "weight", "output"), lambda v: v) | {where: function}
        v = at["state"](0.8 * state["v"]) + x @ at["weight"](params["w"])
        return {"v": v}, at["output"](jnp.tanh(v) @ params["out"])

    return ranvier.step_function(step, params, {"v": jnp.zeros(N)})


@pytest.mark.slow
@learning
@pytest.mark.parametrize("function", [clipped, noisy_gradient])
@pytest.mark.parametrize("where", ["state", "weight", "output"])
def test_backward_rule_that_is_not_linear(where: str, function: Callable[..., Any]) -> None:
    """It has no forward mode: BPTT has its gradient, the others say where it stands, or do without one."""
    model = clipping(function, where)
    expected = by_jax(model)
    assert difference(learned(model, RULES["BPTT"]), expected) < 1e-10
    for name in set(RULES) - {"BPTT"}:
        if where == "output":
            found = learned(model, RULES[name])
            assert difference(found, expected) < 1e-10 or name not in EXACT
            continue
        with pytest.raises(ranvier.RuleError, match=r"test_declared_derivatives.py.*BPTT"):
            learned(model, RULES[name])


def test_closure_over_a_parameter_says_to_pass_it() -> None:
    def step(params: Any, state: Any, x: Any) -> Any:
        @jax.custom_vjp
        def spike(v: Any) -> Any:
            return jnp.where(v > params["threshold"], 1.0, 0.0)

        spike.defvjp(lambda v: (spike(v), v), lambda v, ct: (ct * slope(v),))
        v = 0.8 * state["v"] + x @ params["w"]
        return {"v": v - spike(v)}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, N)), "threshold": jnp.ones(N)}, {"v": jnp.zeros(N)})
    with pytest.raises(ranvier.RuleError, match="pass the value as an argument"):
        learned(model, RULES["D_RTRL"])


@learning
def test_learning_signals_agree_with_finite_differences_through_declared_derivatives() -> None:
    info = ranvier.extract_module_info(network(calls_another, False), jnp.zeros(3))
    found = ranvier.add_hidden_perturbation_from_minfo(info)
    comparison = found.compare(lambda y: jnp.sin(y).sum(), jnp.asarray(XS[0]))
    assert comparison.agree(1e-6), comparison
