"""SNNGraph: construction, verification, meaning."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import ranvier
from ranvier.graph.elements import Input, Output, Population, Projection
from ranvier.graph.neurons import IF, LIF, Relay
from ranvier.graph.operations import Conv, Identity, Linear, Scale
from tests.support.examples import examples
from tests.support.random_graphs import image_graph, inputs_of, random_graph, seeds


def small() -> ranvier.SNNGraph:
    return ranvier.SNNGraph(
        name="small",
        dt=1e-3,
        inputs=[Input("x", (2,))],
        populations=[Population("a", (3,), LIF(tau=0.01))],
        projections=[
            Projection("w", "x", "a", Linear(np.ones((3, 2)))),
            Projection("rec", "a", "a", Linear(np.zeros((3, 3))), delay=1),
            Projection("read", "a", "y", Identity()),
        ],
        outputs=[Output("y", (3,))],
    )


def test_layers_make_a_graph() -> None:
    weights = [np.ones((4, 3)), np.ones((2, 4))]
    graph = ranvier.SNNGraph(
        layers=[
            ranvier.LayerNode("a", 3, 4, weights[0], firing_rates=np.full(4, 0.1)),
            ranvier.LayerNode("b", 4, 2, weights[1], neuron_type="LI"),
        ]
    )
    assert graph.total_params == 20
    assert graph.total_neurons == 6
    assert graph.total_synapses == 20
    assert [layer.name for layer in graph.layers] == ["a", "b"]
    np.testing.assert_array_equal(graph.layers[0].weights, weights[0])
    np.testing.assert_array_equal(graph.layers[0].firing_rates, np.full(4, 0.1))


def test_a_copy_does_not_change_the_graph() -> None:
    graph = small()
    copy = graph.copy()
    del copy.projections["rec"]
    assert "rec" in graph.projections


def test_arrays_cannot_be_written() -> None:
    graph = small()
    with pytest.raises(ValueError, match="read-only"):
        graph.projections["w"].operation.weight[0, 0] = 5  # pyright: ignore[reportAttributeAccessIssue]


def test_all_problems_are_told_at_once() -> None:
    graph = small()
    graph.dt = -1.0
    graph.populations["a"] = replace(graph.populations["a"], neuron=LIF(tau=np.zeros(5), reset="half"))  # pyright: ignore[reportArgumentType]
    graph.projections["w"] = Projection("w", "x", "a", Linear(np.ones((3, 5))))
    graph.projections["b"] = Projection("b", "nowhere", "a", Identity(), delay=-1)
    told = [str(problem) for problem in ranvier.problems(graph)]
    for part in ("dt is -1", "tau has shape [5]", "tau is 0.0", "reset is 'half'", "needs a source of shape [5]"):
        assert any(part in text for text in told), (part, told)
    assert any("source 'nowhere'" in text for text in told)
    assert any("delay -1" in text for text in told)
    with pytest.raises(ranvier.GraphError, match=f"{len(told)} problems"):
        ranvier.simulate(graph, np.ones((3, 2)))


def test_a_cycle_without_delay_is_a_problem() -> None:
    graph = small()
    graph.projections["rec"] = graph.projections["rec"].replace(delay=0)
    assert any("form a cycle: a -> a" in str(problem) for problem in ranvier.problems(graph))


def test_a_step_that_euler_cannot_take_is_a_problem() -> None:
    graph = small()
    graph.dt = 0.025
    assert any("diverges" in str(problem) for problem in ranvier.problems(graph))


def test_delays_count_steps() -> None:
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[Input("x", (1,))],
        populations=[Population("r", (1,), Relay())],
        projections=[
            Projection("a", "x", "r", Identity(), delay=2),
            Projection("b", "r", "y", Scale(10.0), delay=1),
            Projection("c", "x", "y", Identity()),
        ],
        outputs=[Output("y", (1,))],
    )
    x = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    expected = np.array([[1.0], [2.0], [3.0], [14.0], [25.0]])
    np.testing.assert_array_equal(ranvier.interpret(graph, x).output, expected)
    np.testing.assert_array_equal(ranvier.simulate(graph, x).output, expected)


def test_lif_by_hand() -> None:
    graph = small()
    graph.populations["a"] = Population("a", (3,), LIF(tau=2e-3, v_threshold=[0.4, 1.0, 2.0], reset="subtract"))
    x = np.ones((4, 2)) / 2
    v, spikes = np.zeros(3), []
    for _ in range(4):
        v = v + 0.5 * (1.0 - v)
        z = v > np.array([0.4, 1.0, 2.0])
        v = v - z * np.array([0.4, 1.0, 2.0])
        spikes.append(z)
    found = ranvier.interpret(graph, x, record=["a.v"])
    np.testing.assert_array_equal(found.output, np.array(spikes))
    np.testing.assert_allclose(found["a.v"][-1], v)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(25), deadline=None)
def test_simulation_is_what_the_interpreter_says(seed: int) -> None:
    graph = random_graph(seed)
    inputs = inputs_of(graph, seed)
    spiking = [name for name, p in graph.populations.items() if p.neuron.spikes]
    record = [*graph.populations, *(f"{n}.{s}" for n, p in graph.populations.items() for s in p.neuron.states)]
    meant = ranvier.interpret(graph, inputs, record=record)
    found = ranvier.simulate(graph, inputs, record=record, dtype=jnp.float64)
    for name in spiking:
        np.testing.assert_array_equal(found[name], meant[name])
    for name in record:
        np.testing.assert_allclose(found[name], meant[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.output, meant.output, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(15), deadline=None)
def test_images(seed: int) -> None:
    graph = image_graph(seed)
    inputs = inputs_of(graph, seed, steps=10)
    meant = ranvier.interpret(graph, inputs, record=["maps"])
    found = ranvier.simulate(graph, inputs, record=["maps"], dtype=jnp.float64)
    np.testing.assert_array_equal(found["maps"], meant["maps"])
    np.testing.assert_allclose(found.output, meant.output, rtol=1e-9, atol=1e-12)


def test_random_image_graphs_are_alive() -> None:
    def rate(seed: int) -> float:
        graph = image_graph(seed)
        return float(ranvier.interpret(graph, inputs_of(graph, seed, steps=10), record=["maps"])["maps"].mean())

    assert np.mean([rate(seed) > 0.01 for seed in range(20)]) > 0.6


def test_random_graphs_are_alive() -> None:
    rates = []
    for seed in range(30):
        graph = random_graph(seed)
        spiking = [name for name, p in graph.populations.items() if p.neuron.spikes]
        found = ranvier.interpret(graph, inputs_of(graph, seed), record=spiking)
        rates += [found[name].mean() for name in spiking]
    assert 0.05 < np.mean(rates) < 0.6
    assert np.mean(np.array(rates) > 0) > 0.6


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(6), deadline=None)
def test_samples_are_simulated_alike(seed: int) -> None:
    graph = random_graph(seed)
    inputs = inputs_of(graph, seed, steps=15, samples=3)
    for run in (ranvier.interpret, ranvier.simulate):
        together = run(graph, inputs).output
        for k in range(3):
            alone = run(graph, {name: values[:, k] for name, values in inputs.items()}).output
            np.testing.assert_allclose(together[:, k], alone, rtol=1e-4, atol=1e-4)


def test_a_graph_is_a_model() -> None:
    graph = small()
    model = ranvier.lower(graph)
    info = ranvier.extract_module_info(model, jnp.ones(2))
    assert "a.v" in str(info)
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(2))
    grads, _ = learner.grad(lambda y, t: ((y - t) ** 2).sum(), 5 * jnp.ones((20, 2)), jnp.zeros((20, 3)))
    assert float(jnp.abs(grads["w", "weight"]).max()) > 0


def test_conv_follows_pytorch() -> None:
    weight = np.arange(6.0).reshape(1, 1, 2, 3)
    conv = Conv(weight, stride=(2, 1), padding=(1, 0), dilation=(1, 2))
    image = np.arange(30.0).reshape(1, 5, 6)
    padded = np.pad(image[0], ((1, 1), (0, 0)))
    expected = [
        [sum(weight[0, 0, i, j] * padded[2 * r + i, c + 2 * j] for i in range(2) for j in range(3)) for c in range(2)]
        for r in range(3)
    ]
    found = (conv.rows((1, 5, 6)) @ image.ravel()).reshape(conv.target_shape((1, 5, 6)))
    np.testing.assert_array_equal(found[0], np.array(expected))


def test_if_counts() -> None:
    graph = small()
    graph.populations["a"] = Population("a", (3,), IF(r=1 / graph.dt, v_threshold=2.0, reset="subtract", fires=">="))
    found = ranvier.interpret(graph, np.ones((3, 2)) / 2)
    np.testing.assert_array_equal(found.output[:, 0], [0, 1, 0])
