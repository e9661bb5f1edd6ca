"""Costs of products: measured once, kept in a file, and chosen by; products are the same in every form."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import ranvier
from ranvier.operations import Identity, Linear
from ranvier.program import costs as module
from ranvier.program.costs import Costs, costs
from ranvier.program.gather_scatter import total_of_synapses

DENSE_IS_FREE = Costs(1e-9, 1e-9, 1e-9, 1.0, 1.0, 1.0)
SPARSE_IS_FREE = Costs(1.0, 1.0, 1.0, 1e-9, 1e-9, 1e-9)


@pytest.fixture(autouse=True)
def _fresh() -> None:
    module._costs.cache_clear()


@pytest.mark.parametrize("samples", [1, 7, 8, 33])
def test_synapses_bring_what_the_matrix_brings(samples: int) -> None:
    rng = np.random.default_rng(0)
    rows = sparse.random_array((13, 9), density=0.3, format="csr", rng=rng)
    x = rng.normal(size=(samples, 9))
    targets = np.repeat(np.arange(13, dtype=np.int32), np.diff(rows.indptr))
    y = total_of_synapses(jnp.asarray(rows.data), rows.indices.astype(np.int32), targets, 13, jnp.asarray(x))
    np.testing.assert_allclose(y, x @ rows.toarray().T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", [DENSE_IS_FREE, SPARSE_IS_FREE], ids=["dense", "sparse"])
@pytest.mark.parametrize("stored", ["dense", "sparse"])
@pytest.mark.parametrize("samples", [1, 16])
def test_every_form_gives_the_same_results(
    form: Costs, stored: str, samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the arrays of the engine have the form that is free, whatever is stored."""
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(asdict(form)))
    monkeypatch.setenv(module.VARIABLE, str(path))
    rng = np.random.default_rng(0)
    monkeypatch.setattr("ranvier.simulation.products.WORTH_MEASURING", 1)
    dense = rng.normal(0.1, 0.5, (20, 20)) * (rng.random((20, 20)) < 0.4)
    weight = dense if stored == "dense" else sparse.csr_array(dense)
    bias = rng.normal(size=20)
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (20,))],
        populations=[ranvier.Population("n", (20,), ranvier.neurons.LIF(tau=5e-3, v_threshold=0.5))],
        projections=[
            ranvier.Projection("w", "x", "n", Linear(weight, bias)),
            ranvier.Projection("loop", "n", "n", Linear(weight), delay=1),
            ranvier.Projection("y", "n", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (20,))],
    )
    simulator = ranvier.Simulator(graph, dtype=np.float64)
    xs = rng.random((30, samples, 20))
    np.testing.assert_allclose(simulator(xs).output, ranvier.interpret(graph, xs).output)
    arrays = simulator._engines[samples][1]
    assert arrays["loop"]["weight"].ndim == (2 if form is DENSE_IS_FREE else 1)
    assert ranvier.interpret(graph, xs).output.any()


def test_costs_are_measured_once_and_read_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, measured = tmp_path / "some" / "costs.json", []

    def measure() -> Costs:
        measured.append(None)
        return Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)

    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setenv(module.VARIABLE, str(path))
    for _ in range(3):
        module._costs.cache_clear()
        assert costs() == Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    assert len(measured) == 1
    # A damaged file is not trusted, and is written anew.
    for text in ("", "{", "[]", '{"dense": 1}', json.dumps({**asdict(Costs()), "dense": -1}), "[" * 10_000):
        path.write_text(text)
        module._costs.cache_clear()
        assert costs() == Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def test_where_nothing_can_be_written_costs_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "measure", lambda: Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "file" / "costs.json"))
    assert costs() == Costs(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def test_defaults_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.VARIABLE, "default")
    monkeypatch.setattr(module, "measure", lambda: pytest.fail("measured"))
    assert costs() == Costs()


@pytest.mark.slow
def test_a_measurement_is_of_the_right_size() -> None:
    """A synapse costs more than an element of a matrix, and each is less in a batch."""
    numbers = module.measure()
    assert 1e-4 < numbers.dense < numbers.sparse < 1e4
    assert 1e-4 < numbers.dense_in_batch < numbers.sparse_in_batch < 1e4
    assert 1e-4 < numbers.dense_at_once < numbers.sparse_at_once < 1e4
