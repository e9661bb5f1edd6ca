"""Models on which a rule was wrong without saying so: each is exact now, or the plan names what is left out."""

from __future__ import annotations

from typing import Any

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.types import DiagnosticKind
from tests.support.learning import difference, learning

pytestmark = learning

N_IN, N, N_OUT, T = 3, 4, 2, 6


def params() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"w": (N_IN, N), "o": (N, N_OUT), "w2": (N, N)}
    return {name: jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)}


def xs() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (T, N_IN))


def loss(output: Any, target: Any) -> Any:
    return ((output - 0.3) ** 2).sum()


def reference(model: ranvier.types.StepFunction) -> dict:
    """BPTT by hand."""

    def total(p: Any) -> Any:
        def step(state: Any, x: Any) -> Any:
            state, output = model.step(p, state, x)
            return state, loss(output, None)

        return jax.lax.scan(step, model.state, xs())[1].sum()

    return {(name,): value for name, value in jax.grad(total)(model.params).items()}


def check(model: ranvier.types.StepFunction, rule: Any, names: tuple[str, ...] = ()) -> bool:
    """Whether the rule is exact; where it is not, its plan has to say so."""
    learner = ranvier.compile(model, rule, xs()[0], chunk=2)
    found, _ = learner.grad(loss, xs())
    apart = difference(found, reference(model))
    if apart > 1e-9:
        assert learner.plan.dropped, f"{rule} is off by {apart} and says nothing"
        assert all(any(name in line for line in learner.plan.dropped) for name in names)
    return apart < 1e-9


def readout(update: Any, output: Any = lambda s, c: c) -> ranvier.types.StepFunction:
    """A feed-forward layer and a readout state c."""

    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        c = update(p, s, x, jnp.tanh(v))
        return {"v": v, "c": c, "i": s["i"] + 1}, output(s["c"], c)

    state = {"v": jnp.zeros(N), "c": jnp.zeros(N_OUT), "i": jnp.asarray(0)}
    used = {name: value for name, value in params().items() if name != "w2"}
    return ranvier.step_function(step, used, state, name="readout")


def test_complex_constants_are_not_folded_as_real_ones() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = s["v"] * jnp.exp(0.3j) + x @ p["w"] * jnp.tanh(0.2 + 0.4j) + jnp.sqrt(-1.0 + 0.5j)
        return {"v": v}, v.imag

    model = ranvier.step_function(step, {"w": params()["w"]}, {"v": jnp.zeros(N, complex)}, name="rotating")
    for rule in (ranvier.BPTT(), ranvier.RTRL(), ranvier.D_RTRL()):
        assert check(model, rule)


def leaky(p: Any, s: Any, x: Any, z: Any) -> Any:
    return 0.8 * s["c"] + z @ p["o"]


def test_a_filter_stands_for_a_leaky_readout() -> None:
    assert check(readout(leaky), ranvier.EProp())


@pytest.mark.parametrize(
    "output",
    [lambda old, new: old, lambda old, new: new + old, lambda old, new: new - old, lambda old, new: jnp.sin(old) * new],
)
def test_a_readout_that_is_read_before_its_update(output: Any) -> None:
    check(readout(leaky, output), ranvier.EProp())


@pytest.mark.slow
@pytest.mark.parametrize(
    "update",
    [
        lambda p, s, x, z: 0.8 * s["c"] + x[0] * (z @ p["o"]),
        lambda p, s, x, z: 0.8 * s["c"] + jax.nn.relu(z @ p["o"]),
        lambda p, s, x, z: 0.8 * s["c"] + (z @ p["o"]) * (s["i"] > 3),
        lambda p, s, x, z: 0.8 * s["c"] + jnp.tanh(z @ p["o"]),
        lambda p, s, x, z: (s["c"] + z @ p["o"]) * 0.8,
    ],
)
def test_a_gain_that_changes_between_projection_and_readout(update: Any) -> None:
    check(readout(update), ranvier.EProp())


def test_a_filter_given_by_number_is_told() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v}, jnp.tanh(v) @ p["o"]

    used = {name: params()[name] for name in ("w", "o")}
    model = ranvier.step_function(step, used, {"v": jnp.zeros(N)}, name="memoryless")
    assert not check(model, ranvier.EProp(filter=0.8), ("filtered with 0.8",))


def test_a_softmax_inside_the_step_is_no_readout_of_the_readout() -> None:
    inside = readout(leaky, lambda old, new: jax.nn.log_softmax(new))
    for rule in (ranvier.EProp(), ranvier.EProp(filter=0.8)):
        learner = ranvier.compile(inside, rule, xs()[0], chunk=2)
        found, _ = learner.grad(loss, xs())
        expected = reference(inside)
        np.testing.assert_allclose(found["o",], expected["o",], atol=1e-9)
        np.testing.assert_allclose(found["w",], expected["w",], atol=1e-9)


class OldValue(brainstate.nn.Module):
    """A trace of the old potential, in a state that is not hidden by class, goes back into the potential."""

    def __init__(self) -> None:
        super().__init__()
        self.V = brainstate.HiddenState(jnp.zeros(N))
        self.tr = brainstate.ShortTermState(jnp.zeros(N))
        self.w = brainstate.ParamState(params()["w"])

    def update(self, x: jax.Array) -> jax.Array:
        self.tr.value = 0.5 * self.tr.value + jnp.tanh(self.V.value)
        self.V.value = 0.9 * self.V.value + x @ self.w.value - 0.2 * self.tr.value
        return jnp.tanh(self.V.value)


def test_a_state_is_hidden_by_what_the_step_does_with_it() -> None:
    info = ranvier.extract_module_info(OldValue(), xs()[0])
    assert {slot.path for slot in info.hidden} == {("V",), ("tr",)}
    assert [note.paths for note in info.notes if note.kind is DiagnosticKind.HIDDEN_BY_USE] == [(("tr",),)]
    learner = ranvier.compile(OldValue(), ranvier.D_RTRL(), xs()[0], chunk=2)
    found, _ = learner.grad(loss, xs())
    exact, _ = ranvier.compile(OldValue(), ranvier.BPTT(), xs()[0]).grad(loss, xs())
    np.testing.assert_allclose(found["w",], exact["w",], rtol=1e-9)
    assert learner.plan.dropped == ()


class RunningMean(OldValue):
    """A running statistic that nothing of the step reads stays what it is."""

    def update(self, x: jax.Array) -> jax.Array:
        self.V.value = 0.9 * self.V.value + x @ self.w.value
        self.tr.value = 0.5 * self.tr.value + self.V.value
        return jnp.tanh(self.V.value)


def test_a_running_statistic_is_no_hidden_state() -> None:
    info = ranvier.extract_module_info(RunningMean(), xs()[0])
    assert [slot.path for slot in info.hidden] == [("V",)]


def test_keys_that_are_not_faithful_under_vmap_are_refused() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        key, used = jax.random.split(s["k"])
        v = 0.9 * s["v"] + x @ p["w"] + 0.3 * jax.random.normal(used, (N,))
        return {"v": v, "k": key}, v

    def model(key: Any) -> ranvier.types.StepFunction:
        return ranvier.step_function(step, {"w": params()["w"]}, {"v": jnp.zeros(N), "k": key}, name="noisy")

    with pytest.raises(ranvier.RuleError, match="threefry2x32"):
        ranvier.compile(model(jax.random.key(1, impl="rbg")), ranvier.D_RTRL(), xs()[0])
    assert check(model(jax.random.key(1)), ranvier.D_RTRL())


class Dropped(brainstate.nn.Module):
    """Dropout in front of a leaky layer."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = brainstate.nn.Dropout(0.5)
        self.V = brainstate.HiddenState(jnp.zeros(N))
        self.w = brainstate.ParamState(params()["w"])

    def update(self, x: jax.Array) -> jax.Array:
        self.V.value = 0.9 * self.V.value + self.dropout(x) @ self.w.value
        return jnp.tanh(self.V.value)


def test_dropout_of_brainstate() -> None:
    brainstate.random.seed(0)
    grads = []
    with brainstate.environ.context(fit=True):
        for rule in (ranvier.BPTT(), ranvier.D_RTRL(), ranvier.RTRL()):
            model = Dropped()
            brainstate.random.seed(0)
            found, _ = ranvier.compile(model, rule, xs()[0], chunk=2).grad(loss, xs())
            grads.append(found)
    assert np.abs(np.asarray(grads[0]["w",])).max() > 1e-3
    assert difference(grads[1], grads[0]) < 1e-9
    assert difference(grads[2], grads[0]) < 1e-9


def two_layers() -> ranvier.types.StepFunction:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        u = 0.7 * s["u"] + jnp.tanh(v) @ p["w2"]
        return {"v": v, "u": u}, jnp.tanh(u)

    used = {name: params()[name] for name in ("w", "w2")}
    return ranvier.step_function(step, used, {"v": jnp.zeros(N), "u": jnp.zeros(N)}, name="two layers")


@pytest.mark.slow
def test_what_ostl_and_snap_do_not_keep_is_named() -> None:
    assert not check(two_layers(), ranvier.OSTL(), ("the effect of w on u",))
    assert check(readout(lambda p, s, x, z: z @ p["o"]), ranvier.OSTL())
    assert check(two_layers(), ranvier.SnAp(3))
    plan = ranvier.compile(two_layers(), ranvier.SnAp(3), xs()[0]).plan
    assert plan.dropped == ()


@pytest.mark.parametrize("rule", [ranvier.SnAp(2), ranvier.OSTL(), ranvier.RTRL(), ranvier.BPTT()], ids=str)
def test_a_model_without_parameters(rule: Any) -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x[0]
        return {"v": v}, v

    model = ranvier.step_function(step, {}, {"v": jnp.zeros(N)}, name="bare")
    found, aux = ranvier.compile(model, rule, xs()[0]).grad(loss, xs())
    assert found == {}
    assert aux.losses.shape == (T,)


def test_none_is_no_parameter() -> None:
    learner = ranvier.compile(two_layers(), ranvier.D_RTRL(), xs()[0])
    with pytest.raises(ranvier.InputError, match="the value for w is None, but the parameter is "):
        learner.grad(loss, xs(), params={("w",): None})


def test_a_cond_that_mixes_only_its_input_leaves_nothing_out() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = jax.lax.cond(x.sum() > 0, lambda: 0.9 * s["v"] + x @ p["w"], lambda: 0.3 * s["v"] + 0.5 * (x @ p["w"]))
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": params()["w"]}, {"v": jnp.zeros(N)}, name="two ways")
    assert check(model, ranvier.D_RTRL())
    assert ranvier.compile(model, ranvier.D_RTRL(), xs()[0]).plan.dropped == ()


def test_a_cond_that_mixes_the_state_in_one_branch_says_so() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = jax.lax.cond(
            x.sum() > 0, lambda: 0.9 * s["v"] + x @ p["w"], lambda: 0.3 * jnp.tanh(s["v"]) @ p["w2"] + x @ p["w"]
        )
        return {"v": v}, v

    used = {name: value for name, value in params().items() if name != "o"}
    model = ranvier.step_function(step, used, {"v": jnp.zeros(N)}, name="two ways")
    assert not check(model, ranvier.D_RTRL(), ("v",))
    assert check(model, ranvier.RTRL())


def test_parameters_with_units_in_a_step_function() -> None:
    def step(p: Any, s: Any, x: Any) -> Any:
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v}, v

    weight = u.Quantity(params()["w"], unit=u.mS)
    model = ranvier.step_function(step, {"w": weight}, {"v": u.Quantity(jnp.zeros(N), unit=u.mS)}, name="units")
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs()[0])
    assert [slot.unit for slot in (*learner.info.parameters, *learner.info.hidden)] == ["mS", "mS"]
    gradients, _ = learner.grad(lambda output, target: (output.mantissa**2).sum(), xs())
    assert list(gradients) == [("w",)]
    assert gradients["w",].unit == u.mS
    new = learner.write_back({("w",): 2 * weight})
    assert new.params["w"].unit == u.mS
    assert (new.params["w"].mantissa == 2 * params()["w"]).all()
    with pytest.raises(ranvier.InputError, match=r"uS.* the parameter is .*mS"):
        learner.write_back({("w",): u.Quantity(params()["w"], unit=u.uS)})
