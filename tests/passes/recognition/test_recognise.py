"""Neurons that are found in programs, and what leaves as NIR."""

from __future__ import annotations

import re

import brainpy.state as bps
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.graph.neurons import ALIF, IF, LI, LIF, CubaLIF
from tests.support.examples import few
from tests.support.zoo import MODELS
from tests.support.zoo.model import lif, normal, spike, zeros
from tests.support.zoo.spiking import linear, settings

NAMED = {
    "dense": "LIF",
    "lif_network": "CubaLIF",
    "lif_without_synapse": "LIF",
    "if_network": "CubaLIF",
    "alif_network": "ALIF",
    "signed_currents": "LIF",
    "two_lif_layers": "CubaLIF CubaLIF",
    "spiking_convolution": "LIF",
    "trainable_neurons": "LIF",
    "braintrace_linear": "CubaLIF LI",
    "adaptive_threshold": "ALIF",
    "packed_columns": "CubaLIF",
    "reset_by_where": "LIF",
    "tied_transposed": "LIF LI",
    "custom_vjp_spike": "LIF",
    "batched_lif_network": "CubaLIF",
    "rolled_output": "LIF",
    "sparse_csr": "LIF",
    "three_layers": "LIF LIF LIF",
    "delay_buffer": "LIF",
}
"""The neurons that models have, in order."""


def _raised(name):
    model, inputs = MODELS[name].build(jnp.float64)
    jax.config.update("jax_enable_x64", True)
    return model, inputs, ranvier.SNNGraph.from_module(model, *inputs)


def _inputs(graph, steps=60, samples=3):
    generator = np.random.default_rng(3)
    return {k: generator.uniform(0, 2, (steps, samples, *node.shape)) for k, node in graph.inputs.items()}


@few("name", NAMED)
def test_neurons_get_their_names_and_the_graph_does_the_same(name, float64):
    _, _, graph = _raised(name)
    found, findings = ranvier.recognise(graph)
    assert [finding.neuron for finding in findings] == NAMED[name].split(), list(map(str, findings))
    before, after = (ranvier.interpret(g, _inputs(graph)).outputs for g in (graph, found))
    for key, values in before.items():
        assert values.any()
        np.testing.assert_allclose(after[key], values, rtol=1e-6, atol=1e-6)


@few("name", [n for n in NAMED if n != "batched_lif_network"])
def test_models_leave_as_nir_and_come_back(name, float64, tmp_path):
    model, inputs, graph = _raised(name)
    ranvier.to_nir(model, *inputs, path=tmp_path / "model.nir")
    again = ranvier.from_nir(tmp_path / "model.nir")
    given = _inputs(graph)
    before, after = (ranvier.interpret(g, given).outputs for g in (graph, again))
    for a, b in zip(before.values(), after.values(), strict=True):
        np.testing.assert_allclose(b.reshape(a.shape), a, rtol=1e-6, atol=1e-6)


def test_parameters_are_those_of_the_model(float64):
    _, _, graph = _raised("lif_network")
    found, _ = ranvier.recognise(graph)
    neuron = found.populations["neuron"].neuron
    assert isinstance(neuron, CubaLIF)
    assert (neuron.tau_syn, neuron.tau_mem, neuron.v_threshold) == (0.01, 0.01, 1.0)
    assert (neuron.reset, neuron.integration, neuron.current) == ("subtract", "exponential", "new")
    np.testing.assert_allclose(neuron.w_in, 1 / (1 - np.exp(-0.1)), rtol=1e-6)


class _Layer(brainstate.nn.Module):
    def __init__(self, neuron, out=None):
        super().__init__()
        self.linear = linear(3, 4, scale=60.0)
        self.neuron, self.out = neuron, out

    def update(self, x):
        z = self.neuron(self.linear(x))
        return z if self.out is None else self.out(z)


@pytest.mark.slow
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("v_reset", [0.0, -0.4])
def test_resets_and_resting_potentials(reset, v_reset, float64):
    with settings(jnp.float64):
        rest = braintools.init.Constant(-0.1 * u.mV)
        neuron = bps.LIF(
            4, tau=8 * u.ms, V_rest=-0.1 * u.mV, V_reset=v_reset * u.mV, V_initializer=rest, spk_reset=reset
        )
        layer = _Layer(neuron)
        brainstate.nn.init_all_states(layer)
    jax.config.update("jax_enable_x64", True)
    graph = ranvier.SNNGraph.from_module(layer, jnp.ones(3))
    found, (finding,) = ranvier.recognise(graph)
    named = next(iter(found.populations.values())).neuron
    assert finding.neuron == "LIF"
    assert isinstance(named, LIF)
    assert named.reset == {"soft": "subtract", "hard": "zero"}[reset]
    given = _inputs(graph)
    np.testing.assert_array_equal(ranvier.interpret(found, given).output, ranvier.interpret(graph, given).output)
    assert 0.02 < ranvier.interpret(graph, given).output.mean() < 0.98


def test_different_neurons_of_one_population(float64):
    with settings(jnp.float64):
        layer = _Layer(bps.LIF(4, tau=jnp.asarray([5.0, 10.0, 20.0, 40.0]) * u.ms))
        brainstate.nn.init_all_states(layer)
    jax.config.update("jax_enable_x64", True)
    found, _ = ranvier.recognise(ranvier.SNNGraph.from_module(layer, jnp.ones(3)))
    neuron = found.populations["neuron"].neuron
    np.testing.assert_allclose(neuron.parameters["tau"], [0.005, 0.01, 0.02, 0.04], rtol=1e-7)


def _step_model(update, **states):
    def step(params, state, x):
        return update(state, x @ params["w"])

    params = {"w": normal(0, 3, 4, dtype=jnp.float64)}
    return ranvier.step_function(step, params, zeros(jnp.float64, **states)), jnp.ones(3)


def test_integrate_and_fire_is_told_from_leaky(float64):
    def update(state, y):
        v = state["v"] + 0.3 * y
        z = spike(v - 1.0)
        return {"v": jnp.where(z > 0, 0.1, v)}, z

    model, x = _step_model(update, v=(4,))
    found, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x, dt=1e-3))
    neuron = found.populations["v"].neuron
    assert isinstance(neuron, IF), str(finding)
    np.testing.assert_allclose([neuron.r, neuron.v_reset, neuron.v_threshold], [300.0, 0.1, 1.0], rtol=1e-6)


@few(
    ("update", "reason", "primitive"),
    [
        (lambda s, y: ({"v": 0.9 * s["v"] + 0.1 * s["v"] ** 2 + y}, y), "not affine", "square|integer_pow"),
        (lambda s, y: ({"v": 0.9 * s["v"] * jax.nn.sigmoid(y)}, y), "not affine", "logistic"),
        (lambda s, y: ({"v": s["v"] * (1 - y)}, s["v"]), "not affine", "mul"),
        (lambda s, y: ({"v": 1.5 * s["v"] + y}, 1.5 * s["v"] + y), "grows or alternates", "add"),
        (lambda s, y: ({"v": 0.9 * s["v"] + y}, spike(0.9 * s["v"] + y - 1)), "does not reset", "add"),
        (lambda s, y: ({"v": 0.9 * s["v"] + y}, jnp.maximum(0.9 * s["v"] + y, -5.0)), "random points", "max"),
        (lambda s, y: ({"v": 0.9 * s["v"] + y}, jnp.sort(s["v"])), "whole arrays", "sort"),
    ],
)
def test_what_is_no_neuron_with_a_name_stays_and_says_why(update, reason, primitive, float64):
    """With the equation, by its source line, and what would help."""
    model, x = _step_model(update, v=(4,))
    graph = ranvier.SNNGraph.from_module(model, x)
    found, findings = ranvier.recognise(graph)
    finding = next(f for f in findings if f.neuron is None and reason in f.reason)
    assert type(found.populations[finding.population].neuron).__name__ == "Traced"
    assert re.match(rf"({primitive}) at .*test_recognise\.py:\d+", str(finding.equation)), finding.equation
    assert finding.remedy
    assert all(part in str(finding) for part in (finding.reason, finding.equation, finding.remedy))


def test_nothing_rests_where_it_always_fires(float64):
    """Far from zero the reset hides what is curved; that is not rest."""

    def update(state, y):
        v = state["v"] + 0.1 * (state["v"] - state["v"] ** 3 / 3 + y)
        z = spike(v - 1.0)
        return {"v": v * (1 - z)}, z

    model, x = _step_model(update, v=(4,))
    _, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x))
    assert "not affine" in finding.reason
    assert str(finding.equation).startswith("integer_pow")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "in", "read", "neurons", "bias"])
def test_states_may_have_any_name(name, float64):
    def step(params, state, x):
        v = 0.9 * state[name] + x @ params["w"]
        return {name: v}, v

    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {name: jnp.zeros(4)})
    graph = ranvier.SNNGraph.from_program(ranvier.analyse(model, jnp.ones(3)).info)
    _, (finding,) = ranvier.recognise(graph)
    assert finding.neuron == "LI"


def test_a_neuron_that_differs_far_from_threshold_is_refused(float64):
    """It is a LIF neuron for all but large potentials, which saturate."""

    def update(state, y):
        v = 0.9 * jnp.clip(state["v"], -3.0, 100.0) + y
        z = spike(v - 1.0)
        return {"v": v - z}, z

    model, x = _step_model(update, v=(4,))
    _, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x))
    assert finding.neuron is None
    assert "of random points 'v' differs from that of LIF" in finding.reason


def test_a_model_that_nir_has_not_is_refused_with_populations_and_reasons(float64, tmp_path):
    model, inputs = MODELS["gru"].build(jnp.float64)
    with pytest.raises(
        ranvier.GraphError, match=r"(?s)dynamics that NIR does not have.*h: .*not affine.*\[.* at .*\].*export_artifact"
    ):
        ranvier.to_nir(model, *inputs, path=tmp_path / "gru.nir")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_adaptive_neurons_become_integrators_in_nir(float64):
    model, inputs, graph = _raised("alif_network")
    found, _ = ranvier.recognise(graph)
    assert {type(p.neuron) for p in found.populations.values()} == {ALIF, LI}
    kinds = {type(node).__name__ for node in ranvier.to_nir(model, *inputs).nodes.values()}
    assert {"LI", "Threshold", "Scale"} <= kinds


def test_a_hard_reset_with_adaptation_is_no_sum(float64):
    def update(state, y):
        v, z = lif(state["v"], y, threshold=1.0 + 0.3 * state["a"])
        return {"v": v, "a": 0.8 * state["a"] + z}, z

    def hard(state, y):
        v = 0.8 * state["v"] + y
        z = spike(v - 1.0 - 0.3 * state["a"])
        return {"v": jnp.where(z > 0, 0.0, v), "a": 0.8 * state["a"] + z}, z

    model, x = _step_model(hard, v=(4,), a=(4,))
    with pytest.raises(ranvier.GraphError, match="ALIF with reset 'zero', which NIR does not have"):
        ranvier.to_nir(model, x)
    model, x = _step_model(update, v=(4,), a=(4,))
    _, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x))
    assert finding.neuron is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", [bps.LIF, bps.ALIF])
@pytest.mark.parametrize("driven", [0, 9, 12])
def test_it_does_not_matter_where_the_states_stand(kind, driven, float64):
    """As in a network that has run: above the threshold, about to be reset, adapted."""
    with settings(jnp.float64):
        layer = _Layer(kind(4, spk_reset="hard"))
        brainstate.nn.init_all_states(layer)
        for step in range(driven + (20 if driven == 12 else 0)):
            layer.update(jnp.full(3, 4.0 if step < driven else 0.1))
    jax.config.update("jax_enable_x64", True)
    graph = ranvier.SNNGraph.from_module(layer, jnp.ones(3))
    found, findings = ranvier.recognise(graph)
    assert findings[0].neuron == kind.__name__, str(findings[0])
    given = _inputs(graph)
    same = ranvier.interpret(found, given).output == ranvier.interpret(graph, given).output
    assert same.mean() > 0.999


@pytest.mark.parametrize(("gain", "threshold"), [(5e6, 0.02), (1e-9, 1.0), (1.0, 1e4)])
def test_neurons_in_other_units(gain, threshold, float64):
    def update(state, y):
        v = 0.9 * state["v"] + gain * y
        z = spike(v - threshold)
        return {"v": v - jax.lax.stop_gradient(z) * threshold}, z

    model, x = _step_model(update, v=(4,))
    found, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x, dt=1e-3))
    assert finding.neuron == "LIF", str(finding)
    neuron = found.populations["v"].neuron
    np.testing.assert_allclose([neuron.v_threshold, neuron.r * 0.1], [threshold, gain], rtol=1e-5)


def test_a_refractory_time_is_told_as_such(float64):
    def update(state, y):
        r = jnp.maximum(state["r"] - 1, 0)
        v = jnp.where(r > 0, 0.0, 0.9 * state["v"] + y)
        z = spike(v - 1)
        return {"v": jnp.where(z > 0, 0.0, v), "r": jnp.where(z > 0, 3.0, r)}, z

    model, x = _step_model(update, v=(4,), r=(4,))
    _, (finding,) = ranvier.recognise(ranvier.SNNGraph.from_module(model, x))
    assert finding.neuron is None
    assert "refractory" in finding.reason
