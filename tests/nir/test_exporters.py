"""Files as other libraries' exporters write them: axes of a batch of one, and simulations by hand of what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nir
import ranvier
from tests.support.examples import few

DT = 1e-4


def _lif(size: int) -> nir.LIF:
    full = np.full
    return nir.LIF(full(size, 2.5e-3), full(size, 1.0), full(size, 0.0), full(size, 0.1), full(size, 0.0))


def _file(path: Path, nodes: dict, edges: list) -> Path:
    nir.write(path, nir.NIRGraph(nodes, edges, type_check=False))
    return path


def _input(*shape: int) -> nir.Input:
    return nir.Input({"input": np.array(shape)})


def _output(*shape: int) -> nir.Output:
    return nir.Output({"output": np.array(shape)})


WEIGHT = np.random.default_rng(0).normal(0.5, 1, (3, 4))
BIAS = np.array([0.1, -0.05, 0.0])


def _spikes(drive: np.ndarray) -> np.ndarray:
    """``tau v' = i - v`` by hand, from zero, with a reset to zero."""
    v, spikes = np.zeros(drive.shape[1:]), []
    for i in drive:
        v = v + DT / 2.5e-3 * (i - v)
        spikes.append((v > 0.1).astype(float))
        v = np.where(v > 0.1, 0.0, v)
    return np.array(spikes)


@few("ins", [(4,), (1, 4), (1, 1, 4)])
@pytest.mark.parametrize("outs", [(3,), (1, 3), (1, 1, 3)])
def test_axes_of_a_batch_of_one(ins: tuple[int, ...], outs: tuple[int, ...], tmp_path: Path) -> None:
    """Rockpool's Output of one neuron is [1, 1, 1]."""
    nodes = {"x": _input(*ins), "w": nir.Affine(WEIGHT, BIAS), "n": _lif(3), "y": _output(*outs)}
    path = _file(tmp_path / "net.nir", nodes, [("x", "w"), ("w", "n"), ("n", "y")])
    graph = ranvier.from_nir(path, dt=DT, reset="zero")
    assert graph.inputs["x"].shape == (4,)
    assert graph.outputs["y"].shape == (3,)
    x = np.random.default_rng(1).random((300, 2, 4))
    expected = _spikes(x @ WEIGHT.T + BIAS)
    assert 0 < expected.mean() < 1
    for found in (ranvier.interpret(graph, x), ranvier.simulate(graph, x, dtype=np.float64)):
        np.testing.assert_array_equal(found.outputs["y"], expected)
    again = ranvier.from_nir(ranvier.to_nir(graph))
    np.testing.assert_array_equal(ranvier.interpret(again, x).outputs["y"], expected)


def test_axes_that_are_no_batch_stay() -> None:
    kernel = np.random.default_rng(0).normal(size=(1, 1, 2, 2))
    nodes = {
        "x": _input(1, 3, 3),
        "c": nir.Conv2d((3, 3), kernel, 1, 0, 1, 1, np.zeros(1)),
        "n": nir.Threshold(np.full((1, 2, 2), 0.1)),
        "y": _output(1, 2, 2),
    }
    graph = ranvier.from_nir(
        nir.NIRGraph(nodes, [("x", "c"), ("c", "n"), ("n", "y")], type_check=False), dt=DT, reset="zero"
    )
    assert graph.inputs["x"].shape == (1, 3, 3)
    assert graph.outputs["y"].shape == (1, 2, 2)


@pytest.mark.parametrize("outs", [(4,), (3, 1), (2, 3), (1, 4)])
def test_other_shapes_of_outputs_are_refused(outs: tuple[int, ...]) -> None:
    nodes = {"x": _input(4), "w": nir.Linear(WEIGHT), "n": _lif(3), "y": _output(*outs)}
    graph = nir.NIRGraph(nodes, [("x", "w"), ("w", "n"), ("n", "y")], type_check=False)
    with pytest.raises(ranvier.GraphError, match="'y' has shape"):
        ranvier.from_nir(graph, dt=DT, reset="zero")
