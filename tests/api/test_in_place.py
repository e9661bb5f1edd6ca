"""Models that are optimized and go on learning."""

from __future__ import annotations

import brainpy.state as bps
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.zoo.model import lif, normal, zeros
from tests.support.zoo.spiking import exponential, settings

N_IN, N, CLASSES = 6, 12, 3
SILENT, TWINS = slice(0, 4), (7, 9)
"""Neurons that never fire, and two that are alike."""


class _Network(brainstate.nn.Module):
    """Recurrent LIF neurons with a synapse and a readout."""

    def __init__(self):
        super().__init__()
        self.neuron = bps.LIF(N, tau=10 * u.ms)
        self.synapse = exponential(N)
        self.linear = brainstate.nn.Linear(
            N_IN + N,
            N,
            w_init=braintools.init.KaimingNormal(scale=40.0, unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.readout = brainstate.nn.Linear(N, CLASSES)

    def update(self, x):
        z = u.math.concatenate([x, self.neuron.get_spike()], axis=-1)
        return self.readout(self.neuron(self.synapse(self.linear(z))))


def _network():
    with settings(jnp.float32):
        model = _Network()
    brainstate.nn.init_all_states(model)
    value = model.linear.weight.value
    weight = np.array(value["weight"].to_decimal(u.mA))
    weight[:N_IN, SILENT], weight[N_IN:, SILENT] = -1.0, -1.0
    weight[:, TWINS[1]] = weight[:, TWINS[0]]
    model.linear.weight.value = {**value, "weight": jnp.asarray(weight) * u.mA}
    return model


def _data(seed=0, steps=25, samples=8):
    generator = np.random.default_rng(seed)
    xs = (generator.random((steps, samples, N_IN)) < 0.4).astype(np.float32)
    return xs, generator.integers(0, CLASSES, (steps, samples))


def _loss(output, target):
    return optax.softmax_cross_entropy_with_integer_labels(output, target).mean()


def _outputs(model, xs):
    brainstate.nn.init_all_states(model)
    return np.stack([np.asarray(model(jnp.asarray(x))) for x in xs[:, 0]])


def _learner(model, **options):
    return ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(N_IN), batch_size=8, **options)


@pytest.mark.slow
def test_a_module_comes_back_as_a_smaller_module_that_does_the_same():
    model = _network()
    xs, _ = _data()
    small, report = ranvier.optimize(model, level="O2", calibration=xs)
    assert isinstance(small, brainstate.nn.Module)
    sizes = {path: state.value.shape for path, state in small.states(brainstate.HiddenState).items()}
    assert sizes["neuron", "V"][0] == sizes["neuron", "g"][0] <= N - 5
    assert report.after.neurons == sizes["neuron", "V"][0]
    expected = _outputs(model, xs)
    np.testing.assert_allclose(_outputs(small, xs), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1
    assert {v.value.shape for v in small.states(brainstate.ParamState).values()} >= {(CLASSES,)}


@pytest.mark.slow
def test_gradients_of_the_smaller_module_are_those_of_the_model():
    """Neurons that never fire and have no weights left to others change no gradient of the rest."""
    model = _network()
    xs, ys = _data()
    small, report = ranvier.optimize(model, "dead-neurons{threshold=0}", calibration=xs)
    gradients = [_learner(m, chunk=5).grad(_loss, jnp.asarray(xs), jnp.asarray(ys))[0] for m in (model, small)]
    expected = report.carry(gradients[0])
    assert set(expected) == set(gradients[1])
    for path, value in expected.items():
        assert np.abs(value).max() > 0
        np.testing.assert_allclose(gradients[1][path], value, rtol=1e-4, atol=1e-5 * np.abs(value).max())


@pytest.mark.slow
def test_training_goes_on_as_if_nothing_had_happened():
    """A rewrite that changes nothing, in the midst of training with Adam."""
    xs, ys = _data()
    batches, optimizer = [(jnp.asarray(xs), jnp.asarray(ys))], optax.adam(1e-2)
    whole = ranvier.fit(_learner(_network()), batches, _loss, optimizer, 4, progress=False)
    model = _network()
    learner = _learner(model)
    first = ranvier.fit(learner, batches, _loss, optimizer, 2, progress=False)
    learner.write_back(first.params)
    brainstate.nn.init_all_states(model)
    same, report = ranvier.optimize(model, "canonicalize", inputs=jnp.ones(N_IN))
    state = report.carry(first.optimizer_state)
    after = ranvier.fit(_learner(same), batches, _loss, optimizer, 2, optimizer_state=state, progress=False)
    losses = [entry["loss"] for entry in (*first.history, *after.history)]
    np.testing.assert_allclose(losses, [entry["loss"] for entry in whole.history], rtol=2e-4)
    forgetful = ranvier.fit(_learner(same), batches, _loss, optimizer, 2, progress=False)
    assert abs(forgetful.history[-1]["loss"] - whole.history[-1]["loss"]) > 1e-3


@pytest.mark.slow
def test_pruned_weights_learn_where_they_are():
    model = _network()
    xs, ys = _data()
    pruned, report = ranvier.optimize(model, "prune{sparsity=0.8},connections", calibration=xs)
    learner = _learner(pruned, chunk=5)
    gradients, _ = learner.grad(_loss, jnp.asarray(xs), jnp.asarray(ys))
    stored = sum(v.size for path, v in gradients.items() if path[1] == "weight")
    assert stored == report.after.synapses < 0.4 * report.before.synapses
    carried = report.carry(_ones(model))
    assert all(np.all(value == 1) for value in carried.values())
    full = _learner(model, chunk=5)
    assert learner.plan.memory_bytes < 0.7 * full.plan.memory_bytes


def _ones(model):
    learner = _learner(model)
    return jax.tree.map(jnp.ones_like, learner.params)


def test_a_module_runs_in_batches():
    model = _network()
    xs, _ = _data()
    small, _ = ranvier.optimize(model, level="O2", calibration=xs)
    one = _outputs(small, xs)
    brainstate.nn.init_all_states(small, batch_size=8)
    many = np.stack([np.asarray(small(jnp.asarray(x))) for x in xs])
    np.testing.assert_allclose(many[:, 0], one, atol=1e-5)
    assert many.shape == (25, 8, CLASSES)


def _step_model():
    def step(params, state, inputs):
        drive = inputs["a"] @ params["w"] + inputs["b"]
        v, z = lif(state["v"], drive + state["z"] @ params["u"])
        return {"v": v, "z": z}, (z @ params["out"], z.sum())

    params = {
        "w": normal(0, 3, 6, dtype=jnp.float32).at[:, 2].set(-1.0),
        "u": normal(1, 6, 6, dtype=jnp.float32, scale=0.3).at[:, 2].set(-1.0),
        "out": normal(2, 6, 2, dtype=jnp.float32),
    }
    example = {"a": jnp.ones(3), "b": jnp.zeros(6)}
    return ranvier.step_function(step, params, zeros(jnp.float32, v=(6,), z=(6,)), name="cell"), example


def test_a_step_function_comes_back_with_smaller_pytrees():
    model, example = _step_model()
    generator = np.random.default_rng(0)
    data = {"a": generator.uniform(0, 1, (20, 4, 3)), "b": np.zeros((20, 4, 6))}
    small, report = ranvier.optimize(model, level="O2", inputs=example, calibration=({**data},))
    assert isinstance(small, ranvier.types.StepFunction)
    assert max(x.shape[-1] for x in jax.tree.leaves(small.state)) < 6
    state, other = model.state, small.state
    for t in range(20):
        x = {key: jnp.asarray(value[t, 0], jnp.float32) for key, value in data.items()}
        state, (y, count) = model.step(model.params, state, x)
        other, (y2, count2) = small.step(small.params, other, x)
        np.testing.assert_allclose(y2, y, atol=1e-5)
        assert count2 == count
        assert count.shape == count2.shape == ()
    assert report.carry.new == {}


def test_derived_weights_have_no_single_origin_once_they_are_untied():
    def step(params, state, x):
        v, z = lif(state["v"], x @ (params["w"] * 2.0) + jnp.abs(params["b"]))
        return {"v": v}, z

    params = {"w": normal(0, 3, 4, dtype=jnp.float32), "b": normal(1, 4, dtype=jnp.float32)}
    model = ranvier.step_function(step, params, zeros(jnp.float32, v=(4,)))
    _, report = ranvier.optimize(model, "dead-code", inputs=jnp.ones(3))
    assert not report.carry.new
    _, report = ranvier.optimize(model, "untie", inputs=jnp.ones(3))
    assert sum(report.carry.new.values()) == 16


def test_models_need_an_example():
    with pytest.raises(ranvier.InputError, match=r"_Network is traced with example inputs.*inputs=jnp\.ones"):
        ranvier.optimize(_network())


def test_an_optimizer_state_of_other_parameters_is_refused():
    model = _network()
    xs, ys = _data()
    learner = _learner(model)
    state = optax.adam(1e-2).init({("w",): jnp.ones(3)})
    with pytest.raises(ranvier.InputError, match="optimizer_state belongs to another optimizer or to other parameters"):
        ranvier.fit(learner, [(xs, ys)], _loss, optax.adam(1e-2), 1, optimizer_state=state, progress=False)
    _, report = ranvier.optimize(model, "dead-code", inputs=jnp.ones(N_IN))
    with pytest.raises(ranvier.InputError, match="no dictionary of values for the parameters"):
        report.carry(state)


@pytest.mark.slow
def test_a_graph_is_trained_optimized_and_trained_on(tmp_path):
    """From a NIR file to a NIR file."""
    model = _network()
    ranvier.to_nir(model, jnp.ones(N_IN), path=tmp_path / "first.nir")
    graph = ranvier.from_nir(tmp_path / "first.nir")
    xs, ys = _data()
    batches, optimizer = [(jnp.asarray(xs), jnp.asarray(ys))], optax.adam(2e-2)

    def trained(graph, state=None):
        learner = _learner(ranvier.lower(graph))
        result = ranvier.fit(learner, batches, _loss, optimizer, 15, optimizer_state=state, progress=False)
        return ranvier.with_weights(graph, result.params), result

    tuned, first = trained(graph)
    small, report = ranvier.optimize(tuned, level="O2", calibration=xs)
    final, second = trained(small, report.carry(first.optimizer_state))
    assert first.history[0]["loss"] > first.history[-1]["loss"] > second.history[-1]["loss"]
    assert abs(second.history[0]["loss"] / first.history[-1]["loss"] - 1) < 0.05
    ranvier.to_nir(final, tmp_path / "last.nir")
    again = ranvier.from_nir(tmp_path / "last.nir")
    np.testing.assert_allclose(
        ranvier.simulate(again, xs).output, ranvier.simulate(final, xs).output, rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
def test_what_was_pruned_to_sparse_rows_leaves_as_one_matrix(float64: None) -> None:
    """More weights than are probed one by one, read straight from their source, also when it is raised again."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(0, 0.2, (100, 90))), "u": jnp.asarray(rng.normal(0, 0.1, (90, 90)))}

    def step(p, s, x):
        v, z = lif(s["v"], x @ p["w"] + s["z"] @ p["u"])
        return {"v": v, "z": z}, z

    model = ranvier.step_function(step, params, zeros(jnp.float64, v=(90,), z=(90,)))
    small, _ = ranvier.optimize(model, "prune{sparsity=0.75},connections{sparse_below=0.5}", inputs=jnp.ones(100))
    stored = {k: v["weight"].shape for k, v in small.params.items() if "weight" in v}
    assert sorted(stored.values()) == [(2025,), (2250,)]
    graph = ranvier.SNNGraph.from_module(small, jnp.ones(100))
    assert sorted(p.operation.weight.shape for p in graph.projections.values() if hasattr(p.operation, "weight")) == [
        (90, 90),
        (90, 100),
    ]
    assert graph.total_synapses == 2025 + 2250
    xs = rng.uniform(0, 2, (12, 100))
    state, expected = small.state, []
    for x in xs:
        state, y = small.step(small.params, state, jnp.asarray(x))
        expected.append(y)
    assert 0.05 < np.mean(expected) < 0.95
    np.testing.assert_allclose(ranvier.simulate(graph, xs, dtype="float64").output, expected, atol=1e-9)
    assert (
        sum(node.weight.size for node in ranvier.to_nir(small, jnp.ones(100)).nodes.values() if hasattr(node, "weight"))
        == 90 * 190
    )
