"""Simulation layer by layer over time, and by active neurons, against the reference interpreter."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import ranvier
from ranvier.graph.neurons import LI, LIF, Relay
from ranvier.graph.operations import Conv, Identity, Linear, Scale
from ranvier.simulation import convolutions, engine, parts, products
from ranvier.util.compiled import compiled
from tests.support.examples import examples, few
from tests.support.random_graphs import inputs_of, random_graph

SIZE = 300
STRONG = 30.0
"""An input that makes a neuron fire at once."""


def _recurrent(weight, delay=1):
    return ranvier.SNNGraph(
        name="recurrent",
        dt=1e-3,
        inputs=[ranvier.Input("x", (SIZE,))],
        populations=[
            ranvier.Population("h", (SIZE,), LIF(tau=0.02)),
            ranvier.Population("o", (3,), LI(tau=0.01)),
        ],
        projections=[
            ranvier.Projection("drive", "x", "h", Identity()),
            ranvier.Projection("u", "h", "h", Linear(weight), delay),
            ranvier.Projection("out", "h", "o", Linear(np.full((3, SIZE), 0.1))),
            ranvier.Projection("y", "o", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (3,))],
    )


def _inputs(rate, samples, steps=12):
    drawn = np.random.default_rng(0).random((steps, samples, SIZE)) < rate
    return drawn * STRONG


def _weight():
    return np.random.default_rng(1).normal(0, 0.5, (SIZE, SIZE))


@few("samples", [1, 3, 9], quick=1)
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("rows", [False, True])
def test_active_neurons_give_what_all_weights_give(rows, rate, samples, monkeypatch):
    """Also where more fire than single sources are worth looking for."""
    monkeypatch.setattr(products, "SMALLEST", 1)
    weight = _weight()
    weight[np.abs(weight) < 0.6] = 0 if rows else weight[np.abs(weight) < 0.6]
    graph = _recurrent(sparse.csr_array(weight) if rows else weight)
    inputs = _inputs(rate, samples)
    expected = ranvier.interpret(graph, inputs, record=["h"])
    found = ranvier.simulate(graph, inputs, record=["h"], dtype="float64")
    np.testing.assert_array_equal(found["h"], expected["h"])
    np.testing.assert_allclose(found.output, expected.output, atol=1e-12)
    assert expected["h"].any() == (rate > 0)


@pytest.mark.slow
def test_measured_activity_decides_which_products_look_for_active_neurons(monkeypatch):
    monkeypatch.setattr(products, "SMALLEST", 1)
    graph = _recurrent(_weight())
    layouts = [
        engine.Engine(g, np.float32, 1, ranvier.graph.recording.Recording({}))._layouts["u"]
        for g in (graph, ranvier.profile(graph, _inputs(0.6, 2)), ranvier.profile(graph, _inputs(0.0, 2)))
    ]
    looking = [layout.apply is not products._whole_dense for layout in layouts]
    assert looking == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 7, 31])
def test_stretches_of_time_join_without_a_seam(steps, monkeypatch):
    """Delayed projections within a loop and between layers reach over the end of a stretch."""
    monkeypatch.setattr(engine, "BYTES", 1)
    monkeypatch.setattr(engine, "SHORTEST", 3)
    graph = _recurrent(_weight(), delay=5)
    graph.populations["late"] = ranvier.Population("late", (3,), Relay())
    graph.projections["y"] = ranvier.Projection("y", "late", "y", Scale(2.0), 4)
    graph.projections["wait"] = ranvier.Projection("wait", "o", "late", Identity(), 2)
    inputs = _inputs(0.1, 2, steps)
    expected = ranvier.interpret(graph, inputs, record=["h", "o.v", "late.input"])
    found = ranvier.simulate(graph, inputs, record=["h", "o.v", "late.input"], dtype="float64")
    for name in ("h", "o.v", "late.input"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12)
    np.testing.assert_allclose(found.output, expected.output, atol=1e-12)


@few("seed", range(8))
def test_random_graphs_with_short_stretches(seed, monkeypatch):
    monkeypatch.setattr(engine, "BYTES", 1)
    monkeypatch.setattr(products, "SMALLEST", 1)
    graph = random_graph(seed)
    generator = np.random.default_rng(seed)
    inputs = {name: generator.uniform(0, 2, (11, 2, *node.shape)) for name, node in graph.inputs.items()}
    expected = ranvier.interpret(graph, inputs).outputs
    for name, values in ranvier.simulate(graph, inputs, dtype="float64").outputs.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_simulator_runs_any_number_of_steps_and_samples():
    graph = _recurrent(_weight())
    run = ranvier.Simulator(graph, dtype="float64")
    for samples, steps in ((2, 5), (2, 9), (4, 5)):
        inputs = _inputs(0.1, samples, steps)
        np.testing.assert_allclose(run(inputs).output, ranvier.interpret(graph, inputs).output, atol=1e-12)
    single = _inputs(0.1, 1)[:, 0]
    np.testing.assert_allclose(run(single).output, ranvier.interpret(graph, single).output, atol=1e-12)


@pytest.mark.slow
def test_what_is_given_before_the_first_step():
    """Outputs and states that delayed projections read start from their initial values."""
    graph = _recurrent(np.zeros((SIZE, SIZE)))
    graph.populations["h"] = graph.populations["h"].replace(initial={"out": np.ones(SIZE), "v": np.full(SIZE, 0.5)})
    graph.projections["out"] = graph.projections["out"].replace(delay=2)
    graph.projections["seen"] = ranvier.Projection(
        "seen", "h", "o", Linear(np.full((3, SIZE), 0.01)), 1, source_port="v"
    )
    inputs = _inputs(0.0, 1)
    expected = ranvier.interpret(graph, inputs).output
    np.testing.assert_allclose(ranvier.simulate(graph, inputs, dtype="float64").output, expected, atol=1e-12)
    assert expected[0].min() > 0.1 * (SIZE * 0.1 + SIZE * 0.5 * 0.01) * 0.99
    step = ranvier.lower(graph)
    _, y = step.step(step.params, step.state, inputs[0, 0])
    np.testing.assert_allclose(y, expected[0, 0], rtol=1e-5)


@pytest.mark.slow
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(st.just("valid"), st.just("same"), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 30)),
    samples=st.integers(1, 3),
    bias=st.booleans(),
)
@settings(max_examples=examples(25), deadline=None)
def test_convolutions_by_tiles(kernel, stride, dilation, padding, channels, samples, bias) -> None:
    rng = np.random.default_rng(0)
    stride = (1, 1) if padding == "same" else stride
    inner, out = channels
    operation = Conv(rng.normal(size=(out, inner, *kernel)), rng.normal(size=out) if bias else None)
    operation = operation.replace(stride=stride, dilation=dilation, padding=padding)
    image = (inner, 9, 10)
    target = operation.target_shape(image)
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", image)],
        projections=[ranvier.Projection("c", "x", "y", operation)],
        outputs=[ranvier.Output("y", target)],
    )
    x = rng.normal(size=(3, samples, *image))
    found = ranvier.simulate(graph, x, dtype=np.float64).output
    np.testing.assert_allclose(found, ranvier.interpret(graph, x).output, atol=1e-10)


@pytest.mark.slow
def test_images_in_rounds_and_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    operation = Conv(np.random.default_rng(0).normal(size=(5, 2, 3, 3)))
    x = np.random.default_rng(1).normal(size=(7, 2, 8, 9))
    convolve = convolutions.tiled(operation, (2, 8, 9))
    assert convolve is not None
    whole = convolve(convolve.matrix(operation.weight), x)
    for at_once, images in ((1, 1), (3 * 6 * 1 * 3 * 9 * 2, 3)):
        monkeypatch.setattr(convolutions, "AT_ONCE", at_once)
        other = convolutions.tiled(operation, (2, 8, 9))
        assert other is not None
        assert other.images_at_once == images
        np.testing.assert_allclose(other(other.matrix(operation.weight), x), whole, rtol=1e-5, atol=1e-5)


@few("samples", [None, 1, 3])
@pytest.mark.parametrize("most", [0, 2**20])
def test_populations_of_one_kind_run_as_one(samples, most, monkeypatch: pytest.MonkeyPatch) -> None:
    """With shapes, parameters, initial states and delays of their own; side by side and in a loop."""
    monkeypatch.setattr(parts, "MOST", most)
    graph = _kindred()
    run = engine.Engine(graph, np.float64, samples or 1, ranvier.graph.recording.Recording({}))
    together = sorted(sorted(e.names) for p in run.parts for e in p.ensembles)
    assert together == ([["a", "b", "c"], ["d"], ["r"]] if most else [["a"], ["b"], ["c"], ["d"], ["r"]])
    x = np.random.default_rng(1).uniform(0, 3, (20, 5) if samples is None else (20, samples, 5))
    record = ["a", "b", "c", "d", "a.v", "b.v", "c.input"]
    expected = ranvier.interpret(graph, x, record=record)
    found = ranvier.simulate(graph, x, record=record, dtype="float64")
    for name in record:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-12, err_msg=name)
    np.testing.assert_allclose(found.output, expected.output, atol=1e-12)
    assert all(0.05 < expected[name].mean() < 0.95 for name in "abcd")


def _kindred() -> ranvier.SNNGraph:
    """Three LIF populations that wait for one input, two of them in a loop, and what differs from them."""
    rng = np.random.default_rng(0)

    def weights(name: str, source: str, target: str, rows: int, columns: int, delay: int = 0, port: str = "out"):
        linear = Linear(rng.normal(0.3, 0.6, (rows, columns)))
        return ranvier.Projection(name, source, target, linear, delay, source_port=port)

    def lif(**parameters) -> LIF:
        return LIF(**{"tau": 0.01, **parameters})

    populations = [
        ranvier.Population("a", (4,), lif(r=rng.uniform(1, 3, 4)), {"v": np.full(4, 0.3)}),
        ranvier.Population("b", (6,), lif(r=2.0, v_reset=-0.2)),
        ranvier.Population("c", (3,), lif(tau=0.005, r=3.0), {"v": 0.2}),
        ranvier.Population("d", (3,), lif(r=2.0, reset="subtract")),
        ranvier.Population("r", (3,), Relay()),
    ]
    projections = [
        weights("xa", "x", "a", 4, 5),
        weights("xb", "x", "b", 6, 5),
        weights("xc", "x", "c", 3, 5),
        weights("xd", "x", "d", 3, 5),
        weights("ab", "a", "b", 6, 4, delay=1),
        weights("ba", "b", "a", 4, 6, delay=3),
        weights("va", "b", "a", 4, 6, delay=1, port="v"),
        weights("cr", "c", "r", 3, 3),
        weights("out", "r", "y", 2, 3),
        weights("aout", "a", "y", 2, 4, delay=2),
    ]
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (5,))],
        populations=populations,
        projections=projections,
        outputs=[ranvier.Output("y", (2,))],
    )


def _counted_compilations(monkeypatch):
    """A list that gets an entry for every compilation."""
    compilations = []
    compile_text = jax.stages.Lowered.compile

    def counting(self, *args, **options):
        compilations.append(1)
        return compile_text(self, *args, **options)

    monkeypatch.setattr(jax.stages.Lowered, "compile", counting)
    return compilations


def test_graphs_that_differ_in_weights_alone_are_compiled_once(monkeypatch):
    compilations = _counted_compilations(monkeypatch)
    graph = random_graph(3)
    inputs = inputs_of(graph, 3, steps=17, samples=2)
    first = ranvier.simulate(graph, inputs)
    assert len(compilations) == 1
    params = ranvier.lower(graph).params
    other = ranvier.with_weights(graph, jax.tree.map(lambda x: 2.0 * x, params))
    second = ranvier.simulate(other, inputs)
    assert len(compilations) == 1
    for name, values in ranvier.interpret(other, inputs).outputs.items():
        np.testing.assert_allclose(second.outputs[name], values, rtol=1e-4, atol=1e-4)
    assert any(np.abs(first.outputs[name] - second.outputs[name]).max() > 1e-3 for name in first.outputs)


def test_programs_that_differ_in_an_operand_that_is_not_read_are_not_shared():
    def second(unread, x):
        return 2 * x

    x = jnp.ones(3)
    for unread in (jnp.ones((8, 2)), jnp.ones(6), jnp.ones(6, jnp.int32)):
        np.testing.assert_array_equal(compiled(second, unread, x)(unread, x), 2.0)


def test_graphs_that_differ_in_a_time_constant_are_compiled_anew(monkeypatch):
    compilations = _counted_compilations(monkeypatch)
    results = []
    for tau in (5e-3, 20e-3):
        graph = ranvier.SNNGraph(
            dt=1e-3,
            inputs=[ranvier.Input("x", (2,))],
            populations=[ranvier.Population("v", (2,), ranvier.neurons.LI(tau=tau))],
            projections=[
                ranvier.Projection("i", "x", "v", ranvier.operations.Identity()),
                ranvier.Projection("o", "v", "y", ranvier.operations.Identity()),
            ],
            outputs=[ranvier.Output("y", (2,))],
        )
        results.append(ranvier.simulate(graph, np.ones((9, 2))).output[-1, 0])
    np.testing.assert_allclose(results, [1 - 0.8**9, 1 - 0.95**9], rtol=1e-5)
    assert len(compilations) == 2


def test_graphs_that_differ_in_names_alone_run():
    """The text of a program does not hold the names of its arguments, which the compiled program checks."""
    for name in ("i", "renamed"):
        graph = ranvier.SNNGraph(
            dt=1e-3,
            inputs=[ranvier.Input("x", (2,))],
            populations=[ranvier.Population("v", (2,), ranvier.neurons.LI(tau=5e-3))],
            projections=[
                ranvier.Projection(name, "x", "v", ranvier.operations.Linear(np.eye(2))),
                ranvier.Projection("o", "v", "y", ranvier.operations.Identity()),
            ],
            outputs=[ranvier.Output("y", (2,))],
        )
        output = ranvier.simulate(graph, np.ones((9, 2))).output
        np.testing.assert_allclose(output[-1], 1 - 0.8**9, rtol=1e-5)
