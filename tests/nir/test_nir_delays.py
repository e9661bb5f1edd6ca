"""Delays on the way between neurons of a NIR graph: in loops and beside them, mixed with every kind of operation."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings

import nir
import ranvier
from tests.support.examples import examples, few
from tests.support.nir_by_hand import Edge, by_hand
from tests.support.random_graphs import seeds

DT = 1e-3
STEPS = 40


def lif(*shape: int, seed: int = 0) -> nir.LIF:
    rng = np.random.default_rng(seed)
    fixed = {"r": 1.0, "v_leak": 0.0, "v_threshold": 0.3, "v_reset": 0.0}
    return nir.LIF(tau=rng.uniform(3e-3, 8e-3, shape), **{k: np.full(shape, v) for k, v in fixed.items()})


def delay(*steps: Any) -> nir.Delay:
    return nir.Delay(np.array(steps, float) * DT)


def linear(out: int, inner: int, seed: int = 0) -> nir.Linear:
    return nir.Linear(np.random.default_rng(seed).normal(0.2, 1.0, (out, inner)))


def affine(out: int, inner: int, seed: int = 0) -> nir.Affine:
    rng = np.random.default_rng(seed)
    return nir.Affine(rng.normal(0.2, 1.0, (out, inner)), rng.uniform(0.2, 0.6, out))


def network(nodes: Mapping[str, Any], *paths: str, shape: tuple[int, ...] = (4,)) -> nir.NIRGraph:
    """Nodes, and edges along paths such as ``"a b c"``; an input and an output of a shape."""
    ends = {"input": nir.Input(np.array(shape)), "output": nir.Output(np.array(shape))}
    edges = [edge for path in paths for edge in pairwise(path.split())]
    return nir.NIRGraph({**ends, **nodes}, list(dict.fromkeys(edges)), type_check=False)


def inputs_of(graph: nir.NIRGraph, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape: Any = graph.nodes["input"].input_type["input"]
    return {"input": rng.uniform(0, 1.2, (STEPS, *(int(n) for n in shape)))}


def agree(
    source: nir.NIRGraph, folder: Path | None = None, *, closing: tuple[Edge, ...] = (), recurrent_delay: int = 1
) -> ranvier.SNNGraph:
    """Asserts that what is read, and what is written and read again, does what the simulation by hand does."""
    options: dict[str, Any] = {"recurrent_delay": recurrent_delay} if closing else {}
    graph = ranvier.from_nir(source, dt=DT, reset="zero", **options)
    x = inputs_of(source)
    meant = by_hand(source, x, DT, closing=closing, closing_delay=recurrent_delay)
    assert np.ptp(meant) > 0
    np.testing.assert_allclose(ranvier.interpret(graph, x).output, meant, atol=1e-9)
    if folder is not None:
        ranvier.to_nir(graph, folder / "again.nir")
        again = ranvier.from_nir(folder / "again.nir")
        np.testing.assert_allclose(ranvier.interpret(again, x).output, meant, atol=1e-9)
    return graph


LOOPS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "linear, delay": ({"w": linear(4, 4), "d": delay(5, 9, 3, 1)}, ("n w d n",)),
    "delay, linear": ({"w": linear(4, 4), "d": delay(5, 9, 3, 1)}, ("n d w n",)),
    "delay only": ({"d": delay(5, 2, 3, 1)}, ("n d n",)),
    "one delay for all": ({"w": linear(4, 4), "d": delay(3, 3, 3, 3)}, ("n w d n",)),
    "affine, delay": ({"w": affine(4, 4), "d": delay(5, 9, 3, 2)}, ("n w d n",)),
    "affine, one delay": ({"w": affine(4, 4), "d": delay(3, 3, 3, 3)}, ("n w d n",)),
    "delay, affine": ({"w": affine(4, 4), "d": delay(5, 9, 3, 2)}, ("n d w n",)),
    "scales around": (
        {
            "s": nir.Scale(np.array([1.0, -0.5, 2.0, 0.3])),
            "d": delay(4, 1, 2, 3),
            "w": linear(4, 4),
            "q": delay(1, 1, 1, 1),
        },
        ("n s d w q n",),
    ),
    "two delays": ({"c": delay(0, 2, 1, 1), "w": linear(4, 4), "d": delay(2, 1, 1, 4)}, ("n c w d n",)),
    "two delays in a row": ({"c": delay(1, 2, 1, 3), "d": delay(2, 1, 1, 4), "w": linear(4, 4)}, ("n c d w n",)),
    "read on the way": ({"w": linear(4, 4), "d": delay(5, 9, 3, 1)}, ("n w d n", "w output", "d output")),
    "fan-in": (
        {"w": linear(4, 4), "u": linear(4, 4, 1), "d": delay(5, 9, 3, 1)},
        ("n w d n", "input u d"),
    ),
    "fan-in before the operation": ({"w": linear(4, 4), "d": delay(5, 9, 3, 1)}, ("n w d n", "input w")),
    "fan-out": (
        {"w": linear(4, 4), "d": delay(5, 9, 3, 1), "e": delay(2, 2, 1, 1), "s": nir.Scale(np.full(4, -0.4))},
        ("n w d n", "w e s n"),
    ),
    "two neurons, one delayed way": (
        {"m": lif(4, seed=1), "w": linear(4, 4), "d": delay(5, 9, 3, 1), "u": linear(4, 4, 1)},
        ("n w d m u n", "m output"),
    ),
    "two neurons, two delayed ways": (
        {"m": lif(4, seed=1), "w": linear(4, 4), "d": delay(5, 9, 3, 1), "u": linear(4, 4, 1), "e": delay(1, 0, 0, 2)},
        ("n w d m u e n", "m output"),
    ),
    "threshold on the way": (
        {"t": nir.Threshold(np.full(4, 0.4)), "w": linear(4, 4), "d": delay(5, 9, 3, 1)},
        ("n w t d n",),
    ),
    "two loops": (
        {"w": linear(4, 4), "d": delay(5, 9, 3, 1), "u": linear(4, 4, 1), "e": delay(2, 2, 2, 2)},
        ("n w d n", "n u e n"),
    ),
}


@few("case", LOOPS)
def test_delays_in_the_file_are_the_delays_of_the_loop(case: str, tmp_path: Path) -> None:
    nodes, paths = LOOPS[case]
    agree(network({"n": lif(4), **nodes}, "input n output", *paths), tmp_path)


def test_elements_without_delay_close_a_loop() -> None:
    """Only these elements take the delay that is given; the file's delays stay as they are."""
    source = network({"n": lif(4), "w": linear(4, 4), "d": delay(0, 9, 3, 0)}, "input n output", "n w d n")
    with pytest.raises(ranvier.GraphError, match=r"close a cycle: 'w->d\.0'"):
        ranvier.from_nir(source, dt=DT, reset="zero")
    meant = network({"n": lif(4), "w": linear(4, 4), "d": delay(2, 9, 3, 2)}, "input n output", "n w d n")
    x = inputs_of(source)
    graph = ranvier.from_nir(source, dt=DT, reset="zero", recurrent_delay=2)
    np.testing.assert_allclose(ranvier.interpret(graph, x).output, by_hand(meant, x, DT), atol=1e-9)


@pytest.mark.parametrize("parts", [[(0, 2, 0, 1), (2, 0, 1, 0)], [(0, 2, 0, 0), (2, 0, 1, 0), (0, 0, 3, 3)]])
def test_delays_that_break_a_loop_together(parts: list[tuple[int, ...]], tmp_path: Path) -> None:
    """Every element waits, at one of the delays."""
    nodes = {"n": lif(4), "w": affine(4, 4), "s": nir.Scale(np.arange(4.0) + 1)}
    delays = {f"d{k}": delay(*steps) for k, steps in enumerate(parts)}
    way = "n w " + " s ".join(delays) if len(parts) == 2 else "n w s " + " ".join(delays)
    source = network({**nodes, **delays}, "input n output", f"{way} n")
    meant = network({**nodes, "d": delay(*np.sum(parts, axis=0))}, "input n output", "n w s d n")
    x = inputs_of(source)
    graph = ranvier.from_nir(source, dt=DT, reset="zero")
    again = ranvier.from_nir(ranvier.to_nir(graph))
    for found in (graph, again):
        np.testing.assert_allclose(ranvier.interpret(found, x).output, by_hand(meant, x, DT), atol=1e-9)


def test_a_bias_on_the_way_round_a_loop_is_there_from_the_first_step(tmp_path: Path) -> None:
    """The loop brings the silence before the first step through the operations on its way."""
    nodes = {"n": lif(4), "w": affine(4, 4), "s": nir.Scale(np.array([1.0, 2.0, -1.0, 0.5]))}
    source = network(nodes, "input n output", "n w s n", "w output")
    agree(source, tmp_path, closing=(("s", "n"),), recurrent_delay=1)
    agree(source, tmp_path, closing=(("s", "n"),), recurrent_delay=3)


def test_a_bias_and_elements_with_and_without_delay() -> None:
    """Waiting elements bring nothing before they have waited; those that close the loop bring the bias at once."""
    nodes = {"n": lif(4), "w": affine(4, 4), "d": delay(0, 9, 3, 0)}
    source = network(nodes, "input n output", "n w d n", "w output")
    x = inputs_of(source)
    graph = ranvier.from_nir(source, dt=DT, reset="zero", recurrent_delay=1)
    spikes, v, brought, outputs = [np.zeros(4)] * 20, np.zeros(4), [], []
    w: Any = source.nodes["w"]
    tau = source.nodes["n"].tau
    for t in range(STEPS):
        waited = [w.weight @ spikes[-1] + w.bias, *(brought[t - d] if t >= d else np.zeros(4) for d in (9, 3))]
        came = np.array([waited[0][0], waited[1][1], waited[2][2], waited[0][3]])
        v = v + DT / tau * (x["input"][t] + came - v)
        spikes.append((v > 0.3).astype(float))
        v = np.where(spikes[-1] > 0, 0.0, v)
        brought.append(w.weight @ spikes[-1] + w.bias)
        outputs.append(spikes[-1] + brought[-1])
    np.testing.assert_allclose(ranvier.interpret(graph, x).output, outputs, atol=1e-9)
    np.testing.assert_allclose(ranvier.interpret(ranvier.from_nir(ranvier.to_nir(graph)), x).output, outputs, atol=1e-9)


BRANCHES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "two ways, one delayed": ({"w": linear(4, 4), "d": delay(5, 0, 3, 1)}, ("input w d n", "w n")),
    "three ways": (
        {"w": affine(4, 4), "d": delay(2, 2, 2, 2), "e": delay(0, 1, 2, 3), "s": nir.Scale(np.arange(4.0))},
        ("input w d n", "w e n", "w s n"),
    ),
    "fan-in to a delay": (
        {"w": linear(4, 4), "u": affine(4, 4, 1), "d": delay(5, 0, 3, 1)},
        ("input w d n", "input u d"),
    ),
    "fan-in to one delay for all": (
        {"w": linear(4, 4), "u": affine(4, 4, 1), "d": delay(2, 2, 2, 2)},
        ("input w d n", "input u d"),
    ),
    "chain": (
        {
            "c": delay(1, 1, 1, 1),
            "w": affine(4, 4),
            "d": delay(5, 0, 3, 1),
            "s": nir.Scale(np.arange(4.0)),
            "e": delay(2, 2, 2, 2),
        },
        ("input c w d s e n",),
    ),
    "delay to the output": ({"d": delay(5, 0, 3, 1), "e": delay(1, 1, 1, 1)}, ("input n d output", "d e output")),
    "no delay at all": ({"d": delay(0, 0, 0, 0), "w": linear(4, 4)}, ("input w d n",)),
    "a delay of one number": ({"d": nir.Delay(np.array([2e-3])), "w": linear(4, 4)}, ("input w d n",)),
}


@few("case", BRANCHES)
def test_delays_beside_loops(case: str, tmp_path: Path) -> None:
    nodes, paths = BRANCHES[case]
    agree(network({"n": lif(4), **nodes}, "input n output", *paths), tmp_path)


def test_images_wait(tmp_path: Path) -> None:
    """Convolution, pools and flattening between delays by pixel, in a loop and beside it."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(0.1, 0.5, (2, 1, 3, 3))
    nodes = {
        "conv": nir.Conv2d((4, 4), kernel, 1, (1, 1), 1, 1, rng.normal(0.1, 0.1, 2)),
        "d": nir.Delay(rng.integers(0, 4, (2, 4, 4)) * DT),
        "n": lif(2, 4, 4),
        "back": nir.Conv2d((4, 4), rng.normal(0.0, 0.4, (2, 2, 3, 3)), 1, (1, 1), 1, 1, np.full(2, 0.05)),
        "e": nir.Delay(rng.integers(1, 6, (2, 4, 4)) * DT),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "f": nir.Delay(rng.integers(0, 3, (2, 2, 2)) * DT),
        "flat": nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1),
        "g": nir.Delay(rng.integers(0, 3, 8) * DT),
        "w": linear(4, 8),
        "m": lif(4, seed=1),
        "mean": nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "h": nir.Delay(np.full((2, 2, 2), 2 * DT)),
    }
    source = network(nodes, "input conv d n back e n", "n pool f flat g w m output", "n mean h flat", shape=(1, 4, 4))
    source.nodes["output"] = nir.Output(np.array([4]))
    agree(source, tmp_path)


def test_delays_of_nested_graphs(tmp_path: Path) -> None:
    block = network({"w": linear(4, 4), "d": delay(5, 9, 3, 1), "m": lif(4, seed=1)}, "input w d m output")
    flat = network(
        {"n": lif(4), "w": linear(4, 4), "d": delay(5, 9, 3, 1), "m": lif(4, seed=1)}, "input n output", "n w d m n"
    )
    source = network({"n": lif(4), "block": block}, "input n output", "n block n")
    x = inputs_of(source)
    graph = ranvier.from_nir(source, dt=DT, reset="zero")
    np.testing.assert_allclose(ranvier.interpret(graph, x).output, by_hand(flat, x, DT), atol=1e-9)


def test_names_that_meet_lose_nothing() -> None:
    """Names that are made for edges and sums give way to names of the file."""
    nodes = {"n": lif(4), "input->n": linear(4, 4), "w": linear(4, 4, 1), "w.sum": linear(4, 4, 2)}
    agree(network(nodes, "input n output", "input input->n n", "input w n", "w.sum w", "input w.sum"))


def test_nested_names_that_meet_are_refused() -> None:
    block = network({"n": lif(4)}, "input n output")
    with pytest.raises(ranvier.GraphError, match=r"two nodes are called 'block\.n'"):
        ranvier.from_nir(
            network({"block": block, "block.n": lif(4)}, "input block output", "input block.n output"), dt=DT
        )


def test_a_cycle_of_ports_is_refused() -> None:
    block = network({}, "input output")
    with pytest.raises(ranvier.GraphError, match="without neurons"):
        ranvier.from_nir(network({"block": block}, "input block output", "block block"), dt=DT)


@pytest.mark.parametrize(
    "wrong", [[np.nan, 0, 0, 0], [np.inf, 0, 0, 0], [-1e-3, 0, 0, 0], [1e30, 0, 0, 0], [1.5e-3, 0, 0, 0]]
)
def test_delays_that_are_none(wrong: list[float]) -> None:
    for paths in (("input d n",), ("input n", "n d n")):
        with pytest.raises(ranvier.GraphError, match=r"node 'd' \(Delay\)"):
            ranvier.from_nir(
                network({"d": nir.Delay(np.array(wrong)), "n": lif(4)}, "n output", *paths), dt=DT, reset="zero"
            )


def test_a_delay_of_another_shape() -> None:
    for steps in ((2, 2, 2), (1, 2, 3)):
        with pytest.raises(ranvier.GraphError, match="d"):
            ranvier.from_nir(network({"d": delay(*steps), "n": lif(4)}, "input d n output"), dt=DT, reset="zero")


@pytest.mark.slow
@given(seeds)
@example(330)  # two edges between the same neurons, one of which waits a step within a loop
@settings(max_examples=examples(30), deadline=None)
def test_random_networks_with_delays(seed: int) -> None:
    """Chains of random operations between random neurons; every loop holds a delay of at least a step."""
    rng = np.random.default_rng(seed)
    names = [f"n{k}" for k in range(rng.integers(1, 4))]
    nodes: dict[str, Any] = {name: lif(4, seed=k) for k, name in enumerate(names)}
    paths = ["input n0", f"{names[-1]} output"]
    ways = [(a, b) for a, b in pairwise(names)]
    ways += [tuple(rng.choice(["input", *names], 2)) for _ in range(rng.integers(1, 5))]
    for a, b in ways:
        back = a != "input" and (b == "input" or a >= b)
        kinds = rng.choice(["linear", "affine", "scale", "delay"], rng.integers(0, 4)).tolist()
        chain = [*kinds, "loop"] if back else kinds
        made = []
        for kind in rng.permutation(chain):
            made.append(f"{kind}{len(nodes)}")
            nodes[made[-1]] = {
                "linear": lambda: linear(4, 4, len(nodes)),
                "affine": lambda: affine(4, 4, len(nodes)),
                "scale": lambda: nir.Scale(rng.normal(0, 1, 4)),
                "delay": lambda: delay(*(rng.integers(0, 4, 4) if rng.random() < 0.6 else [rng.integers(0, 3)] * 4)),
                "loop": lambda: delay(*(rng.integers(1, 7, 4) if rng.random() < 0.7 else [rng.integers(1, 4)] * 4)),
            }[str(kind)]()
        paths.append(" ".join([str(a), *made, str(b) if b != "input" else "n0"]))
        if made and rng.random() < 0.3:
            paths.append(f"{rng.choice(made)} output")
    source = network(nodes, *paths)
    graph = ranvier.from_nir(source, dt=DT, reset="zero")
    x = inputs_of(source, seed)
    meant = by_hand(source, x, DT)
    np.testing.assert_allclose(ranvier.interpret(graph, x).output, meant, atol=1e-9)
    again = ranvier.from_nir(ranvier.to_nir(graph))
    np.testing.assert_allclose(ranvier.interpret(again, x).output, meant, atol=1e-9)


def test_two_identity_projections_of_different_delays_leave_and_come_back():
    lif_neuron = ranvier.neurons.LIF(tau=5e-3, v_threshold=0.3)
    graph = ranvier.SNNGraph(
        dt=DT,
        inputs=[ranvier.Input("x", (2,))],
        populations=[ranvier.Population("a", (2,), lif_neuron), ranvier.Population("b", (2,), lif_neuron)],
        projections=[
            ranvier.Projection("w", "x", "a", ranvier.operations.Linear(np.array([[1.0, 2.0], [3.0, 0.5]]))),
            ranvier.Projection("first", "a", "b", ranvier.operations.Identity()),
            ranvier.Projection("second", "a", "b", ranvier.operations.Identity(), delay=1),
            ranvier.Projection("back", "b", "a", ranvier.operations.Linear(np.eye(2)[::-1] * 0.4), delay=1),
            ranvier.Projection("o", "b", "y", ranvier.operations.Identity()),
        ],
        outputs=[ranvier.Output("y", (2,))],
    )
    x = np.random.default_rng(0).uniform(0, 1, (30, 2))
    expected = ranvier.interpret(graph, x).output
    assert expected.any()
    one_less = graph.copy()
    del one_less.projections["second"]
    assert (ranvier.interpret(one_less, x).output != expected).any()
    np.testing.assert_array_equal(ranvier.interpret(ranvier.from_nir(ranvier.to_nir(graph)), x).output, expected)
