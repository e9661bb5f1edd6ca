"""``i`` and ``t`` of brainstate's environment are values of the step, wherever a model is run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import brainpy.state as bps
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier

STEPS = 30
DT = 1.0 * u.ms


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    with brainstate.environ.context(dt=DT):
        yield


class Refractory(brainstate.nn.Module):
    """A LIF that compares the time with that of its last spike."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        weight = jnp.asarray(rng.normal(20.0, 20.0, (3, 4)), jnp.float32)
        self.lin = brainstate.nn.Linear(3, 4, w_init=lambda shape: weight)
        self.n = bps.LIFRef(
            4, tau=10 * u.ms, tau_ref=3 * u.ms, R=1 * u.ohm, V_th=20 * u.mV, V_reset=0 * u.mV, V_rest=0 * u.mV
        )

    def update(self, x: Any) -> Any:
        return self.n(self.lin(x) * u.mA)


class Leak(brainstate.nn.Module):
    """A leaky integrator whose input is scaled by a function of the environment."""

    def __init__(self, scale: Callable[[], Any]) -> None:
        super().__init__()
        self.w = brainstate.ParamState(jnp.asarray(np.random.default_rng(0).normal(size=(3, 4))))
        self.scale = scale

    def init_state(self, **_: Any) -> None:
        self.h = brainstate.HiddenState(jnp.zeros(4))

    def update(self, x: Any) -> Any:
        self.h.value = 0.8 * self.h.value + jnp.tanh(x @ self.w.value) * self.scale()
        return self.h.value


def milliseconds() -> Any:
    return brainstate.environ.get("t") / u.ms


def sines_of_time() -> Any:
    return jnp.sin(0.3 * milliseconds())


def every_third_step() -> Any:
    return jnp.where(brainstate.environ.get("i") % 3 == 0, 1.0, 0.0)


def initialized(model: Any) -> Any:
    brainstate.nn.init_all_states(model)
    return model


def sequence(steps: int = STEPS) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).random((steps, 3)))


def by_hand(model: Any, xs: Any, start: int = 0) -> np.ndarray:
    """The model step by step, with time set by hand."""
    initialized(model)
    outputs = []
    for number, x in enumerate(xs, start):
        with brainstate.environ.context(i=number, t=number * brainstate.environ.get("dt", 1.0)):
            outputs.append(np.asarray(model(x)))
    initialized(model)
    return np.stack(outputs)


def run_program(info: ranvier.ModuleInfo, xs: Any, other: Any = None) -> np.ndarray:
    hidden, outputs = {}, []
    for x in xs:
        output, hidden, other = info.step(x, hidden=hidden, other=other or {})
        outputs.append(np.asarray(output))
    return np.stack(outputs)


def only_output(found: Any) -> np.ndarray:
    (output,) = (found.outputs if hasattr(found, "outputs") else found).values()
    return np.asarray(output)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [milliseconds, sines_of_time, every_third_step])
def test_time_goes_on_in_a_program(scale: Any) -> None:
    model, xs = Leak(scale), sequence()
    expected = by_hand(model, xs)
    info = ranvier.extract_module_info(model, xs[0])
    np.testing.assert_allclose(run_program(info, xs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_refractory_neurons_spike_as_often_as_the_model() -> None:
    model, xs = Refractory(), sequence()
    expected = by_hand(model, xs)
    assert expected.sum() > 5
    np.testing.assert_array_equal(run_program(ranvier.extract_module_info(model, xs[0]), xs), expected)


@pytest.mark.slow
def test_a_nest_neuron_that_reads_the_time() -> None:
    model, xs = initialized(bps.iaf_psc_delta(2)), jnp.full((200, 2), 600.0) * u.pA
    with brainstate.environ.context(dt=0.1 * u.ms):
        expected = by_hand(model, xs)
        info = ranvier.extract_module_info(model, xs[0])
        assert expected.sum() > 0
        np.testing.assert_allclose(run_program(info, xs), expected, rtol=1e-4, atol=1e-5)


def test_a_time_step_without_unit() -> None:
    model, xs = Leak(lambda: jnp.sin(3.0 * brainstate.environ.get("t"))), sequence()
    with brainstate.environ.context(dt=0.1):
        expected = by_hand(model, xs)
        info = ranvier.extract_module_info(model, xs[0])
    np.testing.assert_allclose(run_program(info, xs), expected, rtol=1e-4, atol=1e-5)


def test_the_first_step_can_be_given() -> None:
    model, xs = Leak(sines_of_time), sequence()
    expected = by_hand(model, xs, start=7)
    for given in ({"i": 7}, {"t": 7 * DT}, {"i": 7, "t": 7 * DT}):
        with brainstate.environ.context(**given):
            info = ranvier.extract_module_info(initialized(model), xs[0])
        np.testing.assert_allclose(run_program(info, xs), expected, rtol=1e-4, atol=1e-5)
    info = ranvier.extract_module_info(initialized(model), xs[0])
    found = run_program(info, xs, {("brainstate", "i"): jnp.asarray(7)})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_time_that_is_not_i_dt_is_shifted() -> None:
    model = Leak(milliseconds)
    with brainstate.environ.context(i=2, t=2.5 * u.ms):
        info = ranvier.extract_module_info(initialized(model), jnp.ones(3))
    outputs = run_program(info, jnp.ones((2, 3)))
    drive = np.tanh(np.ones(3) @ np.asarray(model.w.value))
    np.testing.assert_allclose(outputs[1], 0.8 * 2.5 * drive + 3.5 * drive, rtol=1e-5)


def test_a_model_that_sets_the_time_itself_keeps_its_own() -> None:
    net = Leak(milliseconds)

    class Timed(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def update(self, number: Any, x: Any) -> Any:
            with brainstate.environ.context(i=number, t=number * DT):
                return self.net(x)

    info = ranvier.extract_module_info(initialized(Timed()), 0, jnp.ones(3))
    assert not info.other
    output, _, _ = info.step(5, jnp.ones(3))
    np.testing.assert_allclose(output, 5 * np.tanh(np.ones(3) @ np.asarray(net.w.value)), rtol=1e-5)


def test_a_model_without_time_has_no_step_number() -> None:
    info = ranvier.extract_module_info(initialized(Leak(lambda: 1.0)), jnp.ones(3))
    assert not info.other
    assert "brainstate" not in str(info)


def test_the_step_number_needs_no_time_step() -> None:
    model, xs = Leak(every_third_step), sequence()
    with brainstate.environ.context(dt=None):
        info = ranvier.extract_module_info(initialized(model), xs[0])
    np.testing.assert_allclose(run_program(info, xs), by_hand(model, xs), rtol=1e-5)


@pytest.mark.parametrize("given", [{}, {"t": 0.0}])
def test_the_time_needs_a_time_step(given: dict[str, Any]) -> None:
    model = initialized(Leak(lambda: brainstate.environ.get("t")))
    with (
        brainstate.environ.context(dt=None, **given),
        pytest.raises(ranvier.ModelError, match=r"needs the time step dt .*environ.set\(dt="),
    ):
        ranvier.extract_module_info(model, jnp.ones(3))


def test_a_first_step_that_is_not_known_is_an_error() -> None:
    model = initialized(Leak(milliseconds))
    with (
        brainstate.environ.context(i=jnp.arange(3)),
        pytest.raises(ranvier.ModelError, match="which is not the number or time of one known step"),
    ):
        ranvier.extract_module_info(model, jnp.ones(3))


def test_a_setting_that_is_missing_is_named() -> None:
    class Dropped(Leak):
        def __init__(self) -> None:
            super().__init__(lambda: 1.0)
            self.drop = brainstate.nn.Dropout(0.5)

        def update(self, x: Any) -> Any:
            return self.drop(super().update(x))

    with pytest.raises(ranvier.ModelError, match=r"reads 'fit' from .*environ.set\(fit="):
        ranvier.extract_module_info(initialized(Dropped()), jnp.ones(3))


@pytest.mark.slow
@pytest.mark.usefixtures("float64", "quick_compilation")
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp(), ranvier.RTRL(), ranvier.BPTT()], ids=str)
def test_gradients_feel_the_time(rule: Any) -> None:
    model, xs = initialized(Leak(sines_of_time)), sequence(9)
    weight, times = model.w.value, 0.3 * jnp.arange(9.0)

    def loss_of(w: Any) -> Any:
        h, total = jnp.zeros(4), 0.0
        for x, time in zip(xs, times, strict=True):
            h = 0.8 * h + jnp.tanh(x @ w) * jnp.sin(time)
            total += jnp.sin(h).sum()
        return total

    expected = jax.grad(loss_of)(weight)
    for chunk in (1, 4, 9):
        learner = ranvier.compile(model, rule, xs[0], chunk=chunk)
        found, _ = learner.grad(lambda y, _: jnp.sin(y).sum(), xs)
        np.testing.assert_allclose(found["w",], expected, rtol=1e-9)
    first, aux = learner.grad(lambda y, _: jnp.sin(y).sum(), xs[:5])
    rest, _ = learner.grad(lambda y, _: jnp.sin(y).sum(), xs[5:], state=aux.state)
    if not isinstance(rule, ranvier.BPTT):  # which does not learn past the end of a call
        np.testing.assert_allclose(first["w",] + rest["w",], expected, rtol=1e-9)


@pytest.mark.slow
def test_samples_of_a_batch_share_the_step_number() -> None:
    model, xs = Refractory(), sequence()
    expected = by_hand(model, xs)
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], batch_size=2, chunk=7)
    _, outputs = learner.evaluate(lambda y, _: y.sum(), jnp.stack([xs, xs], axis=1))
    np.testing.assert_array_equal(outputs, np.stack([expected, expected], axis=1))
    assert [leaf.shape for leaf in learner.init().other] == [(2, 4), ()]


def test_every_sequence_of_a_training_starts_at_the_first_step() -> None:
    model, xs = initialized(Leak(milliseconds)), sequence(6)
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0])
    value, _ = learner.evaluate(lambda y, target: y.sum(), xs)
    batches = [(xs, jnp.zeros(6))] * 3
    result = ranvier.fit(learner, batches, lambda y, target: y.sum(), optax.sgd(0.0), 2, progress=False)
    np.testing.assert_allclose([epoch["loss"] for epoch in result.history], float(value), rtol=1e-5)


def test_new_parameters_leave_the_time_of_the_model_alone() -> None:
    model, xs = initialized(Leak(sines_of_time)), sequence()
    learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0])
    new = {("w",): 2.0 * learner.params["w",]}
    learner.write_back(new)
    _, outputs = learner.evaluate(lambda y, _: y.sum(), xs, params=new)
    np.testing.assert_allclose(outputs, by_hand(model, xs), rtol=1e-5)


@pytest.mark.slow
def test_time_goes_on_in_graphs_and_exports(tmp_path: Path) -> None:
    model, xs = Refractory(), sequence()
    expected = by_hand(model, xs)
    graph = ranvier.raise_model(model, xs[0]).graph
    optimized, _ = ranvier.optimize(graph, level="O1")
    for each in (graph, optimized):
        np.testing.assert_array_equal(only_output(ranvier.simulate(each, xs)), expected)
        np.testing.assert_array_equal(only_output(ranvier.interpret(each, xs)), expected)
    artifact = ranvier.load_artifact(ranvier.export_artifact(model, tmp_path / "m.rva", xs[0]))
    np.testing.assert_array_equal(only_output(artifact.run(np.asarray(xs))), expected)
    path = ranvier.export_source(model, tmp_path / "m.py", xs[0])
    spec = importlib.util.spec_from_file_location("refractory_source", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arrays = module.load()
    state, outputs = module.initial_state(arrays), []
    for x in xs:
        state, output = module.step(arrays, state, x)
        outputs.append(np.asarray(output))
    np.testing.assert_array_equal(np.stack(outputs), expected)


@pytest.mark.slow
def test_a_lowered_graph_learns_with_the_time() -> None:
    model, xs = initialized(Leak(sines_of_time)), sequence(8)
    raised = ranvier.raise_model(model, xs[0])
    name = next(iter(raised.graph.inputs))
    own = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=3)
    lowered = ranvier.compile(ranvier.lower(raised.graph), ranvier.D_RTRL(), {name: xs[0]}, chunk=3)
    expected, _ = own.grad(lambda y, _: jnp.sin(y).sum(), xs)
    found, _ = lowered.grad(lambda y, _: jnp.sin(y).sum(), {name: xs})
    (weight,) = [np.asarray(g) for g in found.values() if np.size(g) == 12]
    np.testing.assert_allclose(np.sort(weight.reshape(-1)), np.sort(np.asarray(expected["w",]).reshape(-1)), rtol=1e-4)
