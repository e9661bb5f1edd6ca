"""The coarsest stable partition against one refined in the plainest way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings

import ranvier
from ranvier.graph.analysis.partition import neuron_classes
from ranvier.graph.neurons import IF, LIF
from ranvier.graph.operations import Linear
from tests.support.examples import examples
from tests.support.random_graphs import seeds


def symmetric_graph(seed: int) -> ranvier.SNNGraph:
    """Few different weights and parameters, so that many neurons are alike; sums of them are exact."""
    rng = np.random.default_rng(seed)
    populations = []
    for k in range(rng.integers(1, 4)):
        size = int(rng.integers(2, 9))
        threshold = rng.choice([0.5, 1.0], size, p=[0.8, 0.2])
        neuron = LIF(tau=5e-3, v_threshold=threshold) if k % 2 else IF(r=500.0, v_threshold=threshold)
        populations.append(ranvier.Population(f"p{k}", (size,), neuron))
    nodes = [ranvier.Input("x", (2,)), *populations]
    projections = []
    for k in range(rng.integers(1, 7)):
        target = int(rng.integers(1, len(nodes)))
        source = int(rng.integers(len(nodes)))
        delay = int(rng.integers(1, 3)) if source >= target else int(rng.integers(0, 2))
        shape = (nodes[target].size, nodes[source].size)
        weight = rng.choice([0.0, 1.0, -1.0, 2.0, 0.25], shape, p=[0.4, 0.3, 0.1, 0.1, 0.1])
        if rng.random() < 0.5:
            weight = weight[rng.integers(0, 2, shape[0])]
        bias = rng.choice([0.0, 0.5], shape[0]) if rng.random() < 0.3 else None
        name = f"w{k}"
        projections.append(
            ranvier.Projection(name, nodes[source].name, nodes[target].name, Linear(weight, bias), delay)
        )
    last = populations[-1]
    projections.append(ranvier.Projection("out", last.name, "y", Linear(np.ones((1, last.size)))))
    return ranvier.SNNGraph(
        dt=1e-3, inputs=nodes[:1], populations=populations, projections=projections, outputs=[ranvier.Output("y", (1,))]
    )


def plain_classes(graph: ranvier.SNNGraph) -> dict[tuple[str, int], int]:
    """Every neuron's class: split by what each neuron gets from each class, until nothing splits."""
    neurons = [(name, k) for name, p in graph.populations.items() for k in range(p.size)]
    elements = [(name, k) for name, node in graph.inputs.items() for k in range(node.size)] + neurons
    found = {element: (element if element[0] in graph.inputs else _own(graph, *element)) for element in elements}
    while True:
        told = {neuron: (found[neuron], _gets(graph, neuron, found)) for neuron in neurons}
        new = {element: told.get(element, found[element]) for element in elements}
        if len(set(new.values())) == len(set(found.values())):
            numbers = {value: k for k, value in enumerate(dict.fromkeys(found[n] for n in neurons))}
            return {neuron: numbers[found[neuron]] for neuron in neurons}
        found = new


def _own(graph: ranvier.SNNGraph, name: str, k: int) -> object:
    population = graph.populations[name]
    values = [np.broadcast_to(v, population.shape)[k] for v in population.neuron.parameters.values()]
    biases = [p.operation.bias[k] for p in graph.into(name) if p.operation.bias is not None]
    return name, tuple(values), tuple(biases)


def _gets(graph: ranvier.SNNGraph, neuron: tuple[str, int], classes: dict) -> object:
    totals: dict[object, float] = {}
    for p in graph.into(neuron[0]):
        for j, weight in enumerate(p.operation.weight[neuron[1]]):
            key = (classes[p.source, j], p.delay)
            totals[key] = totals.get(key, 0.0) + weight
    return frozenset((key, total) for key, total in totals.items() if total)


@given(seeds)
@settings(max_examples=examples(150), deadline=None)
def test_classes_are_those_of_the_plain_refinement(seed: int) -> None:
    graph = symmetric_graph(seed)
    expected = plain_classes(graph)
    found = neuron_classes(graph)
    ours = {(name, k): int(classes[k]) for name, classes in found.items() for k in range(classes.size)}
    pairs = {(ours[neuron], expected[neuron]) for neuron in expected}
    assert len(pairs) == len(set(ours.values())) == len(set(expected.values()))


def test_many_neurons_are_alike() -> None:
    merged = []
    for seed in range(40):
        graph = symmetric_graph(seed)
        classes = plain_classes(graph)
        merged.append(len(classes) - len(set(classes.values())))
    assert np.mean(np.array(merged) > 0) > 0.5
