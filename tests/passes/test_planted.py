"""Planted redundancy is recovered exactly, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

import ranvier
from ranvier.graph.neurons import LIF
from ranvier.graph.operations import Linear
from tests.support.examples import examples
from tests.support.random_graphs import seeds

N_IN, N_OUT = 6, 4


@dataclass
class Planted:
    """A graph with what was planted in it.

    Attributes:
        graph: two layers, the second one recurrent.
        duplicates: by population pairs (neuron, the one it copies).
        silent: by population neurons that cannot fire.
        unseen: by population neurons that no output sees.
        zeros: number of weights that are zero.
    """

    graph: ranvier.SNNGraph
    duplicates: dict[str, list[tuple[int, int]]]
    silent: dict[str, list[int]]
    unseen: dict[str, list[int]]


def planted(seed: int, *, traps: bool = True) -> Planted:
    """Random weights, then copies, dead neurons and zero weights; as traps copies scaled by two, and copies whose own
    recurrence differs."""
    rng = np.random.default_rng(seed)
    n, m = 12, 14
    w_in, w, u, out = (rng.normal(0.4, 0.6, shape) for shape in ((n, N_IN), (m, n), (m, m), (N_OUT, m)))
    w_in[:, 0], w[:, 0] = 1.0, 1.5  # so that nothing is silent by chance
    threshold = rng.uniform(0.4, 0.9, m)
    if traps:
        w_in[3] = 2.0 * w_in[2]  # the same direction, another size
        w[4], u[4], threshold[4] = w[3], u[3], threshold[3] * 1.5  # the same weights, another threshold
        w[6], u[6] = w[5], u[5] * np.where(np.arange(m) == 7, -1.0, 1.0)  # another recurrence
    w_in[8], w_in[9] = w_in[7], w_in[7]  # two copies in the feed-forward part
    # Two recurrent neurons that fire alike: the same weight from all others, and the same total from the two.
    w[11], threshold[11] = w[10], threshold[10]
    u[11] = u[10]
    u[11, 10], u[11, 11] = u[10, 11], u[10, 10]
    # Silent: no positive weights from inputs that are not negative. Unseen: nothing reads them.
    w_in[11] = -np.abs(w_in[11])
    w[12], u[12] = -np.abs(w[12]), -np.abs(u[12])
    out[:, 13], u[:, 13] = 0.0, 0.0
    graph = ranvier.SNNGraph(
        name=f"planted {seed}",
        dt=1e-3,
        inputs=[ranvier.Input("x", (N_IN,), 0.0, 1.0)],
        populations=[
            ranvier.Population("first", (n,), LIF(tau=3e-3, v_threshold=0.5)),
            ranvier.Population("second", (m,), LIF(tau=5e-3, v_threshold=threshold)),
        ],
        projections=[
            ranvier.Projection("in", "x", "first", Linear(w_in)),
            ranvier.Projection("forward", "first", "second", Linear(w)),
            ranvier.Projection("recurrent", "second", "second", Linear(u), delay=1),
            ranvier.Projection("out", "second", "y", Linear(out)),
        ],
        outputs=[ranvier.Output("y", (N_OUT,))],
    )
    duplicates = {"first": [(8, 7), (9, 7)], "second": [(11, 10)]}
    return Planted(graph, duplicates, {"first": [11], "second": [12]}, {"second": [13]})


@given(seeds)
@settings(max_examples=examples(30), deadline=None)
def test_exactly_what_was_planted_goes(seed: int) -> None:
    found = planted(seed)
    small, report = ranvier.optimize(found.graph, level="O1", verify_each=False)
    for name in ("first", "second"):
        place = report.origins.places[name]
        gone = set(np.flatnonzero(place.numbers < 0))
        expected = {*found.silent.get(name, []), *found.unseen.get(name, [])}
        assert gone == expected
        copies = dict(found.duplicates[name])
        alone = [k for k in range(place.numbers.size) if k not in copies and k not in expected]
        assert len({int(place.numbers[k]) for k in alone}) == len(alone), "neurons that are not alike were merged"
        for copy, original in copies.items():
            assert place.numbers[copy] == place.numbers[original]
        assert small.populations[name].size == len(alone)
    inputs = np.random.default_rng(seed).uniform(0, 1, (60, N_IN))
    meant, now = (ranvier.interpret(g, inputs).output for g in (found.graph, small))
    np.testing.assert_allclose(now, meant, rtol=1e-9, atol=1e-9)


def test_the_planted_network_is_alive() -> None:
    rates = []
    for seed in range(10):
        graph = planted(seed).graph
        inputs = np.random.default_rng(seed).uniform(0, 1, (60, N_IN))
        found = ranvier.interpret(graph, inputs, record=["first", "second"])
        rates += [found["first"].mean(), found["second"].mean()]
    assert 0.05 < np.mean(rates) < 0.8
    assert min(rates) > 0.0


@pytest.mark.parametrize("copies", [2, 3])
def test_a_network_blown_up_shrinks_to_what_it_was(copies: int) -> None:
    """Every neuron is copied, and the weights onto the copies of a neuron are split at random among its copies."""
    rng = np.random.default_rng(copies)
    small = planted(1, traps=False).graph
    small, _ = ranvier.optimize(small, level="O1")
    graph = small.copy()
    for name, population in small.populations.items():
        size = population.size * copies
        neuron = population.neuron.map(lambda value: np.tile(value, copies) if value.ndim else value)
        graph.populations[name] = ranvier.Population(name, (size,), neuron)
    for name, p in small.projections.items():
        weight = p.operation.rows(small.nodes[p.source].shape).toarray()
        if p.source in small.populations:
            shares = rng.integers(1, 8, (copies, *weight.shape)) / 8.0  # exact in binary, so that sums are equal
            shares[-1] = 1.0 - shares[:-1].sum(0)
            weight = np.concatenate(list(shares * np.round(weight * 2**20) / 2**20), axis=1)
        if p.target in small.populations:
            weight = np.tile(weight, (copies, 1))
        graph.projections[name] = p.replace(operation=Linear(sparse.csr_array(weight)))
    assert graph.total_neurons == copies * small.total_neurons
    back, _ = ranvier.optimize(graph, level="O1")
    assert back.total_neurons == small.total_neurons
    assert back.total_synapses == small.total_synapses
