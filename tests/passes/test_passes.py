"""Passes keep their promises on random graphs, and find what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ranvier
from ranvier.graph.analysis.bundles import bundles
from ranvier.graph.neurons import LI, LIF, Delay, Relay
from ranvier.graph.operations import Identity, Linear, Operation, Scale
from ranvier.passes.base import Pass, Rewriting
from ranvier.passes.pipeline import parse_pipeline, pipeline_text
from ranvier.passes.registry import BUILT_IN, pass_class
from ranvier.verification.promise import Promise
from tests.support.examples import examples, few
from tests.support.random_graphs import inputs_of, random_graph, seeds


def run(one: Pass, graph: ranvier.SNNGraph) -> Rewriting:
    return one.rewritten(graph)


def with_waste(seed: int) -> ranvier.SNNGraph:
    """A random graph with ranges, zero weights, a dead end and parallel projections."""
    rng = np.random.default_rng(seed)
    graph = random_graph(seed)
    graph.inputs = {k: ranvier.Input(k, node.shape, -0.5, 2.0) for k, node in graph.inputs.items()}
    for name, projection in list(graph.projections.items()):
        operation = projection.operation
        if isinstance(operation, Linear):
            weight = operation.rows(graph.nodes[projection.source].shape).toarray()
            weight = weight * (rng.random(weight.shape) < 0.6) * (rng.random(weight.shape[1]) < 0.8)
            weight = weight * (rng.random((weight.shape[0], 1)) < 0.8) * (rng.random() < 0.9)
            graph.projections[name] = projection.replace(operation=Linear(weight, operation.bias))
            if rng.random() < 0.2:
                graph.projections[f"{name}+"] = projection.replace(name=f"{name}+", operation=operation)
    source = next(iter(graph.populations.values()))
    graph.populations["end"] = ranvier.Population("end", (2,), LIF(tau=0.01))
    graph.projections["to end"] = ranvier.Projection(
        "to end", source.name, "end", Linear(rng.normal(size=(2, source.size)))
    )
    return graph


EXACT = [name for name in BUILT_IN if pass_class(name).promise <= Promise.ALGEBRAIC]


@few("name", EXACT, quick=2)
@given(seed=seeds)
@settings(max_examples=examples(60), deadline=None)
def test_promises_are_kept(name: str, seed: int) -> None:
    graph = with_waste(seed)
    before, _ = ranvier.to_text(graph)
    rewriting = run(pass_class(name)(), graph)
    found = rewriting.graph
    assert ranvier.to_text(graph)[0] == before
    assert ranvier.problems(found) == []
    assert found.inputs == graph.inputs
    assert found.outputs == graph.outputs
    inputs = inputs_of(graph, seed)
    spiking = [n for n, p in graph.populations.items() if p.neuron.spikes]
    meant = ranvier.interpret(graph, inputs, record=spiking)
    now = ranvier.interpret(found, inputs, record=list(found.populations))
    if rewriting.promise is Promise.BITWISE:
        np.testing.assert_array_equal(now.output, meant.output)
    else:
        np.testing.assert_allclose(now.output, meant.output, rtol=1e-9, atol=1e-9)
    for original in spiking:
        place = rewriting.origins.places[original]
        there = place.numbers >= 0
        if there.any():
            np.testing.assert_array_equal(now[place.population][:, place.numbers[there]], meant[original][:, there])
    again = run(pass_class(name)(), found)
    assert not again.changed, [str(remark) for remark in again.remarks]


def with_differences(seed: int) -> ranvier.SNNGraph:
    """A graph in which parallel projections of one source differ in their delay only, through relays and neurons:
    ``x[t] - x[t - d]``, and the same of random parts."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 4))
    kinds = [Relay(), LIF(tau=0.005), LI(tau=0.01), Delay(steps=rng.integers(0, 3, size).astype(float))]
    names = [f"p{k}" for k in range(rng.integers(1, 5))]
    low, high = [(-0.5, 2.0), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)][rng.integers(4)]
    graph = ranvier.SNNGraph(
        dt=1e-3, inputs=[ranvier.Input("x", (size,), low, high)], outputs=[ranvier.Output("y", (size,))]
    )
    for name in names:
        initial = {"out": rng.normal(size=size)} if rng.random() < 0.2 else {}
        kind = kinds[0] if rng.random() < 0.6 else kinds[rng.integers(1, 4)]
        graph.populations[name] = ranvier.Population(name, (size,), kind, initial)
    for k, target in enumerate([*names, "y"]):
        for source in rng.choice(["x", *names[:k]], int(rng.integers(1, 3))):
            _add_difference(graph, rng, str(source), target, int(rng.integers(1, 3)))
    if rng.random() < 0.5:
        back, to = rng.choice(names, 2)
        graph.projections["back"] = ranvier.Projection(
            "back", str(back), str(to), Linear(rng.normal(size=(size, size)) * (rng.random((size, size)) < 0.4)), 1
        )
    return graph


def _add_difference(graph: ranvier.SNNGraph, rng: np.random.Generator, source: str, target: str, delay: int) -> None:
    size = graph.nodes[source].size
    weight = rng.normal(size=(size, size)) * (rng.random((size, size)) < 0.8)
    operations: list[Operation] = [
        Linear(weight),
        Identity(),
        Linear(weight, rng.normal(size=size)),
        Scale(rng.normal(size=size)),
    ]
    chosen = operations[rng.integers(4)]
    arrays = {key: -value for key, value in chosen.arrays.items()}
    minus = Scale(-1.0) if isinstance(chosen, Identity) else chosen.replace(**arrays)
    for number, (one, steps) in enumerate([(chosen, 0), (minus, delay)]):
        name = f"{source}-{target}.{number}.{len(graph.projections)}"
        graph.projections[name] = ranvier.Projection(name, source, target, one, steps)


@few("name", EXACT)
@given(seed=seeds)
@settings(max_examples=examples(40), deadline=None)
def test_delayed_and_undelayed_projections_are_told_apart(name: str, seed: int) -> None:
    graph = with_differences(seed)
    assert ranvier.problems(graph) == []
    rewriting = run(pass_class(name)(), graph)
    value = graph.inputs["x"]
    inputs = np.clip(inputs_of(graph, seed)["x"], value.low, value.high)
    meant, now = (ranvier.interpret(g, inputs).output for g in (graph, rewriting.graph))
    np.testing.assert_allclose(now, meant, rtol=1e-9, atol=1e-9)
    again = run(pass_class(name)(), rewriting.graph)
    assert not again.changed, [str(remark) for remark in again.remarks]


def difference(of: int = 1) -> ranvier.SNNGraph:
    """A relay of ``x[t] - x[t - 1]`` before neurons."""
    eye = np.eye(3)
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,))],
        populations=[ranvier.Population("change", (3,), Relay()), ranvier.Population("n", (2,), LIF(tau=0.003))],
        projections=[
            ranvier.Projection("now", "x", "change", Linear(eye)),
            ranvier.Projection("before", "x", "change", Linear(-eye), 1),
            ranvier.Projection("w", "change", "n", Linear(np.full((2, 3), 2.0))),
            ranvier.Projection("read", "n", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (2,))],
    )


@pytest.mark.parametrize("level", ["O1", "O2"])
@pytest.mark.parametrize("checked", [True, False])
def test_a_difference_of_steps_is_kept(level: str, checked: bool) -> None:
    graph = difference()
    x = np.random.default_rng(0).normal(size=(60, 1, 3))
    found, _ = ranvier.optimize(graph, level=level, calibration=x, verify_each=checked)
    v, z, meant = np.zeros(2), np.zeros(2), []
    for t in range(60):
        change = x[t, 0] - (x[t - 1, 0] if t else 0)
        v = v + (1e-3 / 0.003) * (2 * change.sum() - v)
        z = (v > 1).astype(float)
        v = np.where(z > 0, 0.0, v)
        meant.append(z)
    assert np.sum(meant) > 0
    np.testing.assert_array_equal(ranvier.interpret(found, x[:, 0]).output, meant)


def test_zeros_that_come_late_are_found_at_once() -> None:
    """What a delay brings of a relay that stands later in the order of the step, and of itself."""
    graph = chain()
    graph.inputs["never"] = ranvier.Input("never", (2,), 0.0, 0.0)
    for name in ("r", "s"):
        graph.populations[name] = ranvier.Population(name, (2,), Relay())
    for name, source, target, delay in (("sr", "s", "r", 1), ("ss", "s", "s", 2), ("ns", "never", "s", 0)):
        graph.projections[name] = ranvier.Projection(name, source, target, Linear(np.ones((2, 2))), delay)
    graph.projections["rb"] = ranvier.Projection("rb", "r", "b", Linear(np.ones((2, 2))))
    found = run(pass_class("fold-constants")(), graph)
    gone = {remark.about for remark in found.remarks if remark.done}
    assert gone == {"sr", "ss", "ns", "rb"}
    assert not run(pass_class("fold-constants")(), found.graph).changed


def chain() -> ranvier.SNNGraph:
    """x -> a (4) -> b (2) -> y, every weight one."""
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (2,), 0.0, 1.0)],
        populations=[ranvier.Population("a", (4,), LIF(tau=0.01)), ranvier.Population("b", (2,), LIF(tau=0.01))],
        projections=[
            ranvier.Projection("xa", "x", "a", Linear(np.full((4, 2), 5.0))),
            ranvier.Projection("ab", "a", "b", Linear(np.full((2, 4), 5.0))),
            ranvier.Projection("by", "b", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (2,))],
    )


def test_planted_dead_neurons_are_found() -> None:
    graph = chain()
    into, out = np.full((4, 2), 5.0), np.full((2, 4), 5.0)
    into[1] = 0.3
    out[:, 2] = 0.0
    graph.projections["xa"] = ranvier.Projection("xa", "x", "a", Linear(into))
    graph.projections["ab"] = ranvier.Projection("ab", "a", "b", Linear(out))
    found = run(pass_class("dead-neurons")(), graph)
    assert found.origins.places["a"].numbers.tolist() == [0, -1, -1, 1]
    assert found.promise is Promise.BITWISE
    assert [remark.neurons.tolist() for remark in found.remarks if remark.neurons is not None] == [[1], [2]]


def test_always_firing_neurons_become_biases() -> None:
    graph = chain()
    graph.projections["xa"] = ranvier.Projection("xa", "x", "a", Linear(np.full((4, 2), 5.0), [20.0, 0.0, 0.0, 20.0]))
    found = run(pass_class("dead-neurons")(), graph)
    assert found.graph.populations["a"].size == 2
    assert found.graph.projections["ab"].operation.arrays["bias"].tolist() == [10.0, 10.0]


def test_rare_neurons_stay_unless_asked_for() -> None:
    graph = chain()
    rates = np.array([0.2, 0.0, 0.0005, 0.1])
    population = graph.populations["a"]
    graph.populations["a"] = ranvier.Population("a", (4,), population.neuron, activity=ranvier.types.Activity(rates))
    assert not run(pass_class("dead-neurons")(), graph).changed
    never = run(parse_pipeline("dead-neurons{threshold=0}")[0], graph)
    assert (never.graph.populations["a"].size, never.promise) == (3, Promise.PROFILED)
    rare = run(parse_pipeline("dead-neurons{threshold=0.001}")[0], graph)
    assert (rare.graph.populations["a"].size, rare.promise) == (2, Promise.APPROXIMATE)


def test_no_rates_are_told() -> None:
    found = run(parse_pipeline("dead-neurons{threshold=0}")[0], chain())
    assert not found.changed
    assert "ranvier.profile" in str(found.remarks[0])


def test_neurons_that_an_output_shows_stay() -> None:
    graph = chain()
    weak = np.full((2, 4), 5.0)
    weak[1] = 0.0
    graph.projections["ab"] = ranvier.Projection("ab", "a", "b", Linear(weak))
    found = run(pass_class("dead-neurons")(), graph)
    assert not found.changed
    assert "an output shows them" in str(found.remarks[0])


def test_a_layer_that_is_all_dead() -> None:
    graph = chain()
    graph.projections["xa"] = ranvier.Projection("xa", "x", "a", Linear(np.zeros((4, 2))))
    graph.projections["ab"] = ranvier.Projection("ab", "a", "b", Linear(np.full((2, 4), 5.0), [0.1, 2.0]))
    found = run(pass_class("dead-neurons")(), graph)
    assert "a" not in found.graph.populations
    x = np.ones((50, 2))
    meant = ranvier.interpret(graph, x).output
    assert meant.any()
    np.testing.assert_array_equal(ranvier.interpret(found.graph, x).output, meant)


@given(st.floats(0, 1), st.booleans())
def test_pipelines_come_back(threshold: float, with_option: bool) -> None:
    text = f"dead-neurons{{threshold={threshold!r}}},connections" if with_option else "connections,dead-code"
    assert pipeline_text(parse_pipeline(pipeline_text(parse_pipeline(text)))) == pipeline_text(parse_pipeline(text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dead-neuron", "there is no pass 'dead-neuron'; the passes are .*Did you mean 'dead-neurons'"),
        ("dead-neurons{limit=3}", "dead-neurons has no option 'limit'; it has threshold"),
        ("dead-neurons{threshold}", "'threshold' is not an option"),
        ("dead-neurons dead-code", "expected a comma"),
        ("", "is not a pass"),
    ],
)
def test_wrong_pipelines_are_told(text: str, told: str) -> None:
    with pytest.raises(ranvier.PassError, match=told):
        parse_pipeline(text)


def test_the_file_of_a_pass_has_its_name() -> None:
    for name in BUILT_IN:
        kind = pass_class(name)
        assert kind.name == name
        assert kind.__module__.endswith(name.replace("-", "_"))


def blown_up(graph: ranvier.SNNGraph, name: str, copies: np.ndarray, seed: int) -> tuple[ranvier.SNNGraph, np.ndarray]:
    """The graph with copies of the neurons of a population, in random order; their outgoing weights sum up to what they
    were. Also returns of every neuron which one it is a copy of."""
    rng = np.random.default_rng(seed)
    graph = graph.copy()
    of = rng.permutation(np.repeat(np.arange(copies.size), copies))
    population = graph.populations[name]
    initial = {k: v[of] if v.ndim else v for k, v in population.initial.items()}
    graph.populations[name] = ranvier.Population(
        name, (of.size,), population.neuron.map(lambda x: x[of] if x.ndim else x), initial
    )
    for projection in list(graph.projections.values()):
        source = population.size if projection.source == name else graph.nodes[projection.source].size
        weight = projection.operation.rows((source,)).toarray()
        bias = projection.operation.offset((source,))
        if projection.target == name:
            weight, bias = weight[of], None if bias is None else np.broadcast_to(bias, (population.size,))[of]
        if projection.source == name:
            halves = 2.0 ** -np.arange(1, of.size + 1)
            spread = np.empty((weight.shape[0], of.size))
            for row in range(weight.shape[0]):
                for original in range(copies.size):
                    found = rng.permutation(np.flatnonzero(of == original))
                    parts = halves[: found.size].copy()
                    parts[-1] = 2.0 * parts[-1] if found.size > 1 else 1.0
                    spread[row, found] = weight[row, original] * parts
            weight = spread
        graph.projections[projection.name] = projection.replace(operation=Linear(weight, bias))
    return graph, of


@given(seeds)
@settings(max_examples=examples(60), deadline=None)
def test_planted_duplicates_are_found_and_nothing_else(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = random_graph(seed)
    source = rng.choice(list(base.populations))
    base.projections["again"] = ranvier.Projection(
        "again", source, source, Linear(rng.normal(size=(base.populations[source].size,) * 2)), delay=1
    )
    merge = pass_class("merge-neurons")()
    base = run(merge, base).graph
    free = [bundle.names[0] for bundle in bundles(base) if bundle.fixed is None and not bundle.images]
    assume(free)
    name = str(rng.choice(free))
    graph, of = blown_up(base, name, rng.integers(1, 4, base.populations[name].size), seed)
    found = run(merge, graph)
    assert {k: p.size for k, p in found.graph.populations.items()} == {k: p.size for k, p in base.populations.items()}
    numbers = found.origins.places[name].numbers
    assert all((numbers[i] == numbers[j]) == (of[i] == of[j]) for i in range(of.size) for j in range(of.size))
    inputs = inputs_of(graph, seed)
    meant, now = ranvier.interpret(graph, inputs), ranvier.interpret(found.graph, inputs)
    np.testing.assert_allclose(now.output, meant.output, rtol=1e-9, atol=1e-9)


def test_scaled_copies_are_no_duplicates() -> None:
    graph = chain()
    into = np.array([[5.0, 1.0], [10.0, 2.0], [5.0, 1.0], [1.0, 5.0]])
    graph.projections["xa"] = ranvier.Projection("xa", "x", "a", Linear(into))
    out = np.arange(8.0).reshape(2, 4) + 1
    graph.projections["ab"] = ranvier.Projection("ab", "a", "b", Linear(out))
    found = run(pass_class("merge-neurons")(), graph)
    assert found.origins.places["a"].numbers.tolist() == [0, 1, 0, 2]
    assert found.graph.projections["ab"].operation.arrays["weight"].tolist() == [[4.0, 2.0, 4.0], [12.0, 6.0, 8.0]]


def test_mutual_duplicates_are_found() -> None:
    """Two neurons that only differ in driving one another instead of themselves."""
    graph = chain()
    into = np.array([[5.0, 1.0]] * 2 + [[1.0, 1.0], [2.0, 9.0]])
    graph.projections["xa"] = ranvier.Projection("xa", "x", "a", Linear(into))
    swap = np.zeros((4, 4))
    swap[0, 1] = swap[1, 0] = 3.0
    graph.projections["aa"] = ranvier.Projection("aa", "a", "a", Linear(swap), delay=1)
    found = run(pass_class("merge-neurons")(), graph)
    assert found.origins.places["a"].numbers.tolist() == [0, 0, 1, 2]
    assert found.graph.projections["aa"].operation.arrays["weight"].tolist() == [[3.0, 0, 0], [0, 0, 0], [0, 0, 0]]
