"""Programs as graphs: lowered again, they do what the model does."""

from __future__ import annotations

from typing import Any

import brainunit
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.graph.neurons import Relay
from ranvier.graph.operations import Linear
from ranvier.util import compiled
from tests.support.examples import few
from tests.support.zoo import MODELS
from tests.support.zoo.model import zeros

STEPS = 4


def _sequence(inputs):
    generator = np.random.default_rng(0)

    def drawn(x):
        x = jnp.asarray(x)
        shape = (STEPS, *x.shape)
        if jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.asarray(generator.uniform(0, 2, shape), x.dtype)
        return jnp.asarray(generator.integers(0, 3, shape), x.dtype)

    return jax.tree.map(drawn, inputs)


class _Both:
    """A model and its raised graph on one input sequence."""

    def __init__(self, model, inputs):
        self.raised = ranvier.raise_model(model, *inputs)
        self.info = self.raised.info
        self.lowered = ranvier.lower(self.raised.graph, dtype=jnp.float64)
        self.params = {slot.path: slot.value for slot in self.info.parameters}
        xs = _sequence(inputs)
        self.steps = [jax.tree.map(lambda x, t=t: x[t], xs) for t in range(STEPS)]

    def model(self, params):
        outputs, hidden, other = [], {}, {}
        for x in self.steps:
            y, hidden, other = self.info.step(*x, params=params, hidden=hidden, other=other)
            outputs.append([jnp.ravel(brainunit.get_mantissa(leaf)) for leaf in jax.tree.leaves(y)])
        return outputs, {**hidden, **other}

    def graph(self, params):
        outputs, state = [], self.lowered.state
        params = self.raised.parameters(params)
        for x in self.steps:
            leaves = zip(self.raised.graph.inputs.values(), jax.tree.leaves(x), strict=True)
            state, y = self.lowered.step(params, state, {n.name: jnp.reshape(v, n.shape) for n, v in leaves})
            outputs.append([jnp.ravel(leaf) for leaf in (y.values() if isinstance(y, dict) else [y])])
        return outputs, self.raised.states(state)


def _loss(run):
    def loss(params):
        outputs = [leaf for step in run(params)[0] for leaf in step]
        return sum(jnp.sum(jnp.sin(3.0 * k + jnp.arange(leaf.size)) * leaf) for k, leaf in enumerate(outputs))

    return loss


def _plain(value):
    (leaf,) = jax.tree.leaves(value)
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


@few("name", MODELS)
def test_lowering_a_raised_model_gives_the_model(name, float64):
    entry = MODELS[name]
    both = _Both(*entry.build(jnp.float64))
    outputs, states = both.model(both.params)
    found, held = both.graph(both.params)
    for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-9)
    assert {slot.path for slot in both.info.hidden} <= set(held)
    for path, value in states.items():
        if path in held:
            np.testing.assert_allclose(_plain(held[path]), _plain(value), rtol=1e-9, atol=1e-9)
    if entry.differentiable:
        expected = jax.tree.leaves(jax.grad(_loss(both.model))(both.params))
        gradients = jax.tree.leaves(jax.grad(_loss(both.graph))(both.params))
        for a, b in zip(expected, gradients, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-8 * (1 + np.abs(a).max(initial=0)))
        assert not expected or max(np.abs(a).max(initial=0) for a in expected) > 0


def test_a_weight_on_a_concatenation_is_one_projection_per_source(float64):
    model, inputs = MODELS["lif_network"].build(jnp.float64)
    graph = ranvier.SNNGraph.from_module(model, *inputs)
    (neurons,) = graph.populations
    ends = {(p.source, p.delay): p.operation for p in graph.into(neurons)}
    assert set(ends) == {("input", 0), (neurons, 1)}
    weight = model.linear.weight.value["weight"].to_decimal(brainunit.mA)
    assert all(isinstance(operation, Linear) for operation in ends.values())
    np.testing.assert_array_equal(ends["input", 0].weight, weight[:3].T)
    np.testing.assert_array_equal(ends[neurons, 1].weight, weight[3:].T)


def test_from_program_is_the_same_graph(float64):
    model, inputs = MODELS["three_layers"].build(jnp.float64)
    texts = [
        ranvier.to_text(graph)[0]
        for graph in (
            ranvier.SNNGraph.from_program(ranvier.extract_module_info(model, *inputs)),
            ranvier.SNNGraph.from_module(model, *inputs),
        )
    ]
    assert texts[0] == texts[1]
    assert 'population "v2" [5] Traced(inputs=["w2"]' in texts[0] or 'population "v2" [5] Traced(' in texts[0]


def test_a_graph_with_programs_is_not_saved(float64, tmp_path):
    model, inputs = MODELS["gru"].build(jnp.float64)
    with pytest.raises(ranvier.GraphError, match=r"'h', 'i' of step have a traced program.*export_artifact"):
        ranvier.save(ranvier.SNNGraph.from_module(model, *inputs), tmp_path / "gru.snn")
    assert not list(tmp_path.iterdir())


def test_the_reference_interpreter_runs_raised_graphs(float64):
    for name in ("gru", "lstm_packed", "layer_norm", "stp_network", "embedding"):
        both = _Both(*MODELS[name].build(jnp.float64))
        xs = [jax.tree.leaves(x) for x in both.steps]
        nodes = both.raised.graph.inputs.values()
        inputs = {n.name: np.stack([np.reshape(x[k], n.shape) for x in xs]) for k, n in enumerate(nodes)}
        found = ranvier.interpret(both.raised.graph, inputs)
        expected = both.model(both.params)[0]
        for k, values in enumerate(found.outputs.values()):
            for t in range(STEPS):
                np.testing.assert_allclose(values[t].ravel(), expected[t][k], rtol=1e-10, atol=1e-10)


def test_a_single_precision_model_can_run_in_double(float64):
    model, inputs = MODELS["dense"].build(jnp.float32)
    graph = ranvier.SNNGraph.from_module(model, *inputs)
    found = ranvier.simulate(graph, np.ones((5, 3)), dtype="float64")
    np.testing.assert_array_equal(found.output, ranvier.interpret(graph, np.ones((5, 3))).output)


def test_a_state_that_only_waits_for_the_next_step_is_a_delay(float64):
    model, inputs = MODELS["tied_weights"].build(jnp.float64)
    graph = ranvier.SNNGraph.from_module(model, *inputs)
    assert [p.neuron.states for p in graph.populations.values()] == [("v1",), ("v2",)]
    assert [p.delay for p in graph.into("v1") if p.source == "v1"] == [1]


def test_a_product_read_twice_meets_in_a_relay():
    def step(params, state, x):
        y = x @ params["w"]
        a = 0.9 * state["a"] + y[:2]
        b = 0.5 * state["b"] + y[:2] + y[1:]
        return {"a": a, "b": b}, a + b

    model = ranvier.step_function(step, {"w": jnp.ones((3, 3))}, zeros(jnp.float32, a=(2,), b=(2,)))
    graph = ranvier.SNNGraph.from_module(model, jnp.ones(3))
    (relay,) = [name for name, p in graph.populations.items() if isinstance(p.neuron, Relay)]
    assert len([p for p in graph.projections.values() if isinstance(p.operation, Linear) and p.trained]) == 1
    assert graph.populations[relay].shape == (3,)


def test_complex_states_are_refused_with_a_way_out():
    def step(params, state, x):
        h = state["h"] * params["a"] + x
        return {"h": h}, h.real

    model = ranvier.step_function(step, {"a": jnp.ones(2)}, {"h": jnp.zeros(2, jnp.complex64)}, name="rotating")
    with pytest.raises(
        ranvier.ModelError, match=r"h is complex, but graphs hold only real numbers; keep the real and imaginary"
    ):
        ranvier.raise_model(model, jnp.ones(2))


def test_a_model_without_input_is_told_to_take_one():
    def step(params, state):
        v = 0.9 * state["v"] + params["b"]
        return {"v": v}, 3.0

    model = ranvier.step_function(step, {"b": jnp.ones(2)}, {"v": jnp.zeros(2)}, name="alone")
    with pytest.raises(ranvier.ModelError, match="alone takes no input; give it one"):
        ranvier.raise_model(model)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["w", "past", "past_v", "queue"])
def test_names_that_parameters_and_delays_have_too(state: str, float64: None) -> None:
    """A state called as the weight, with a bias of its own, or as what delayed projections keep."""
    rng = np.random.default_rng(0)
    w, u, bias = rng.normal(size=(3, 4)), rng.normal(size=(4, 4)), rng.uniform(0.5, 2, 4)

    def step(params, states, x):
        old = states[state]
        v = 0.9 * jnp.tanh(old * params["bias"]) + x @ params["w"] + jnp.tanh(old) @ params["u"]
        return {state: v}, v

    params = {"w": jnp.asarray(w), "u": jnp.asarray(u), "bias": jnp.asarray(bias)}
    model = ranvier.step_function(step, params, {state: jnp.zeros(4)})
    graph = ranvier.SNNGraph.from_module(model, jnp.ones(3))
    xs = rng.normal(size=(8, 3))
    expected, states = [], {state: jnp.zeros(4)}
    for x in xs:
        states, y = step(params, states, jnp.asarray(x))
        expected.append(y)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(ranvier.interpret(graph, xs).output, expected, atol=1e-10)
    np.testing.assert_allclose(ranvier.simulate(graph, xs, dtype="float64").output, expected, atol=1e-10)
    small, _ = ranvier.optimize(model, level="O1", calibration=xs[:, None], inputs=jnp.ones(3))
    _, y = small.step(small.params, small.step(small.params, small.state, jnp.asarray(xs[0]))[0], jnp.asarray(xs[1]))
    np.testing.assert_allclose(y, expected[1], atol=1e-5)


WHOLE = {
    "a product of all of it": lambda s, y, u: (s + y) @ u,
    "sorted": lambda s, y, u: jnp.sort(0.9 * s + y),
    "in a loop of unknown length": lambda s, y, u: jax.lax.while_loop(
        lambda v: jnp.abs(v).max() > 1, lambda v: v * 0.5, 0.9 * s + y
    ),
    "rolled": lambda s, y, u: jnp.roll(0.9 * s + y, 1),
    "summed up": lambda s, y, u: jnp.cumsum(0.5 * s + y),
    "a distribution": lambda s, y, u: jax.nn.softmax(0.5 * s + y),
    "normalized": lambda s, y, u: (s + y) / (1 + jnp.linalg.norm(s + y)),
    "the largest alone": lambda s, y, u: jax.nn.one_hot(jnp.argmax(0.5 * s + y), 4) * y,
}


@few("what", WHOLE)
@pytest.mark.parametrize("read", ["state", "log_softmax"])
def test_new_states_that_are_made_of_whole_arrays(what: str, read: str, float64: None) -> None:
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "u": jnp.asarray(rng.normal(0, 0.3, (4, 4)))}

    def step(p, state, x):
        v = WHOLE[what](state["v"], x @ p["w"], p["u"])
        return {"v": v}, v if read == "state" else jax.nn.log_softmax(v)

    model = ranvier.step_function(step, params, {"v": jnp.zeros(4)})
    xs, state, expected = rng.normal(size=(6, 3)), model.state, []
    for x in xs:
        state, y = step(params, state, jnp.asarray(x))
        expected.append(y)
    graph = ranvier.SNNGraph.from_module(model, xs[0])
    np.testing.assert_allclose(ranvier.interpret(graph, xs).output, expected, atol=1e-10)
    np.testing.assert_allclose(ranvier.simulate(graph, xs, dtype="float64").output, expected, atol=1e-10)
    assert np.ptp(expected, axis=0).max() > 1e-3


PICKING = {
    "largest": lambda v: jnp.max(v, keepdims=True),
    "smallest": lambda v: jnp.min(v, keepdims=True),
    "sorted": jnp.sort,
    "sum of magnitudes": lambda v: jnp.abs(v).sum(keepdims=True),
}


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("what", PICKING)
def test_what_picks_elements_is_no_fixed_map(what: str, size: int, float64: None) -> None:
    """A maximum is linear on values that are largest at the same place, which a few random ones can all be."""
    w = jnp.asarray(np.random.default_rng(1).normal(size=(3, size)))

    def step(p, state, x):
        v = 0.9 * state["v"] + x @ p["w"]
        return {"v": v}, PICKING[what](v)

    model = ranvier.step_function(step, {"w": w}, {"v": jnp.zeros(size)})
    xs, state, expected = np.random.default_rng(0).normal(size=(12, 3)), model.state, []
    for x in xs:
        state, y = step(model.params, state, jnp.asarray(x))
        expected.append(y)
    np.testing.assert_allclose(ranvier.interpret(ranvier.to_graph(model, xs[0]), xs).output, expected, atol=1e-10)


def test_a_state_that_never_changes_in_a_model_without_parameters(float64: None) -> None:
    def step(p, state, x):
        return {"v": state["v"] + state["i"], "i": state["i"]}, state["v"] * x

    model = ranvier.step_function(step, {}, {"v": jnp.zeros(2), "i": jnp.asarray([1.0, 2.0])})
    raised = ranvier.raise_model(model, jnp.ones(2))
    np.testing.assert_allclose(ranvier.interpret(raised.graph, np.ones((3, 2))).output, [[0, 0], [1, 2], [2, 4]])
    assert raised.parameters() == {} == raised.index()


def test_a_parameter_called_tau_that_is_no_time_constant(float64: None) -> None:
    def step(p, state, x):
        v = p["tau"] * state["v"] + x
        return {"v": v}, v

    tau = np.asarray([-1.0, 0.0])
    model = ranvier.step_function(step, {"tau": jnp.asarray(tau)}, {"v": jnp.zeros(2)})
    graph = ranvier.to_graph(model, jnp.ones(2))
    np.testing.assert_allclose(ranvier.interpret(graph, np.ones((2, 2))).output[1], 1 + tau)


def test_maps_that_are_alike_are_compiled_once() -> None:
    """The weights of a layer are operands of the program that tries whether its map is affine."""

    def layers(count: int) -> Any:
        def step(params: Any, state: Any, x: Any) -> Any:
            new = {}
            for name in params:
                x = new[name] = 0.5 * state[name] + x @ params[name]
            return new, x

        weights = {f"layer{k}": jnp.full((7, 7), 0.1 * k) for k in range(count)}
        return ranvier.step_function(step, weights, {name: jnp.zeros(7) for name in weights})

    ranvier.raise_model(layers(1), jnp.ones(7))
    programs = set(compiled._programs)
    ranvier.raise_model(layers(4), jnp.ones(7))
    assert set(compiled._programs) == programs
