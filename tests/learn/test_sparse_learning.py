"""Learning with sparse rows: as with the same weights in a matrix, whatever part of the neurons is active."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import ranvier
from ranvier.neurons import LI, LIF
from ranvier.operations import Identity, Linear
from tests.support.learning import difference, learning

NEURONS, INPUTS, STEPS = 1100, 4, 12
pytestmark = learning


def network(kind, recurrent: np.ndarray | None = None) -> ranvier.SNNGraph:
    """By default more than 2**20 recurrent synapses, of which single sources are looked at."""
    rng = np.random.default_rng(0)
    if recurrent is None:
        recurrent = np.where(rng.random((NEURONS, NEURONS)) < 0.9, rng.normal(0, 0.3, (NEURONS, NEURONS)), 0.0)
    neurons = len(recurrent)
    drive = np.zeros((neurons, INPUTS))
    drive[:60, :2], drive[:, 2:] = 30.0, 30.0  # two inputs reach few neurons, two reach all
    return ranvier.SNNGraph(
        name="large",
        dt=1e-3,
        inputs=[ranvier.Input("x", (INPUTS,))],
        populations=[ranvier.Population("h", (neurons,), LIF(tau=10e-3)), ranvier.Population("o", (3,), LI(tau=10e-3))],
        projections=[
            ranvier.Projection("w", "x", "h", Linear(drive)),
            ranvier.Projection("u", "h", "h", Linear(kind(recurrent)), 1),
            ranvier.Projection("out", "h", "o", Linear(rng.normal(0, 1, (3, neurons)))),
            ranvier.Projection("y", "o", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (3,))],
    )


def inputs() -> np.ndarray:
    x = np.random.default_rng(1).uniform(0.2, 0.6, (STEPS, INPUTS))
    x[: STEPS // 2, 2:] = 0.0  # first few neurons are active, then many
    return x


def loss(y, target):
    return ((y - target) ** 2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [1, 5, STEPS])
@pytest.mark.parametrize("rule", [ranvier.ES_D_RTRL(decay=0.8), ranvier.D_RTRL()], ids=["es_d_rtrl", "d_rtrl"])
def test_large_sparse_rows_learn_as_the_matrix_does(rule, chunk: int) -> None:
    found, graphs = [], [network(kind) for kind in (np.asarray, sparse.csr_array)]
    for graph in graphs:
        learner = ranvier.compile(ranvier.lower(graph, dtype=jnp.float64), rule, jnp.ones(INPUTS), chunk=chunk)
        found.append(learner.grad(loss, jnp.asarray(inputs()), jnp.ones((STEPS, 3)))[0])
    of_matrix, of_rows = found
    rows = graphs[1].projections["u"].operation.weight
    places = np.repeat(np.arange(NEURONS), np.diff(rows.indptr)), rows.indices
    assert difference(of_rows["u", "weight"], of_matrix["u", "weight"][places]) < 1e-12
    assert difference(of_rows["w", "weight"], of_matrix["w", "weight"]) < 1e-12
    assert np.abs(of_rows["u", "weight"]).max() > 1e-6


def test_both_few_and_many_neurons_are_active() -> None:
    spikes = ranvier.simulate(network(np.asarray), inputs(), record=["h"], dtype=jnp.float64)["h"]
    active = spikes.mean(1)
    assert 0 < active[: STEPS // 2].max() < 0.15 < active[STEPS // 2 :].max()


def test_a_presynaptic_trace_of_sparse_rows_has_one_number_per_neuron() -> None:
    plans = []
    for kind in (np.asarray, sparse.csr_array):
        lowered = ranvier.lower(network(kind), dtype=jnp.float64)
        plans.append(ranvier.compile(lowered, ranvier.ES_D_RTRL(decay=0.8), jnp.ones(INPUTS)).plan)
    assert plans[0].memory_bytes == plans[1].memory_bytes


@pytest.mark.slow
@pytest.mark.parametrize(("part", "batch"), [(0.003, None), (0.3, None), (0.003, 4), (0.02, 4)])
def test_sparse_rows_of_any_density_learn_as_the_matrix_does(part: float, batch: int | None) -> None:
    rng = np.random.default_rng(4)
    shown = (STEPS,) if batch is None else (STEPS, batch)
    xs = jnp.asarray(rng.uniform(0, 0.6, (*shown, INPUTS)))
    recurrent = np.where(rng.random((80, 80)) < part, rng.normal(0, 9, (80, 80)), 0.0)
    recurrent[0, 1] = 9.0
    found = []
    for kind in (np.asarray, sparse.csr_array):
        graph = network(kind, recurrent)
        learner = ranvier.compile(
            ranvier.lower(graph, dtype=jnp.float64), ranvier.D_RTRL(), jnp.ones(INPUTS), batch_size=batch, chunk=5
        )
        found.append((graph, *learner.grad(loss, xs, jnp.ones((*shown, 3)))))
    (_, of_matrix, aux), (graph, of_rows, same) = found
    rows = graph.projections["u"].operation.weight
    places = np.repeat(np.arange(80), np.diff(rows.indptr)), rows.indices
    assert difference(same.outputs, aux.outputs) < 1e-12
    assert difference(of_rows["u", "weight"], of_matrix["u", "weight"][places]) < 1e-12
    assert difference(of_rows["w", "weight"], of_matrix["w", "weight"]) < 1e-12
    assert np.abs(of_rows["u", "weight"]).max() > 1e-6


@pytest.mark.slow
def test_the_sum_over_samples_of_sparse_rows() -> None:
    """With a batch the same weights are at as many places as there are samples."""
    xs = jnp.asarray(np.random.default_rng(2).uniform(0, 0.6, (STEPS, 3, INPUTS)))
    rows = np.random.default_rng(3).normal(0, 8, (20, INPUTS)) * (np.arange(20 * INPUTS).reshape(20, INPUTS) % 3 > 0)

    def learner(batch):
        graph = ranvier.SNNGraph(
            name="rows",
            dt=1e-3,
            inputs=[ranvier.Input("x", (INPUTS,))],
            populations=[ranvier.Population("h", (20,), LIF(tau=np.linspace(5e-3, 20e-3, 20)))],
            projections=[
                ranvier.Projection("w", "x", "h", Linear(sparse.csr_array(rows))),
                ranvier.Projection("y", "h", "y", Identity()),
            ],
            outputs=[ranvier.Output("y", (20,))],
        )
        lowered = ranvier.lower(graph, dtype=jnp.float64)
        return ranvier.compile(lowered, ranvier.D_RTRL(), jnp.ones(INPUTS), batch_size=batch, chunk=4)

    def total(y, target):
        return (y * jnp.cos(jnp.arange(20.0))).sum()

    whole = learner(3).grad(total, xs)[0]["w", "weight"]
    single = learner(None)
    parts = [single.grad(total, xs[:, k])[0]["w", "weight"] for k in range(3)]
    assert difference(whole, sum(parts)) < 1e-12
    assert jax.numpy.abs(whole).max() > 1e-3


@pytest.mark.slow
def test_a_gain_per_sample_is_no_weight_per_synapse() -> None:
    """As many samples as synapses: a factor of one is not taken for one of the other."""
    count = 32
    rng = np.random.default_rng(5)
    source, target = rng.permutation(count), rng.integers(0, count, count)
    gain = jnp.linspace(0.5, 2.0, count)

    def step(params, state, x):
        y = jnp.zeros((count, count)).at[:, target].add(x[:, source] * gain[:, None])
        v = 0.9 * state["v"] + y * params["w"]
        return {"v": v}, v

    model = ranvier.step_function(step, {"w": jnp.ones(count)}, {"v": jnp.zeros((count, count))})
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones((count, count)))
    xs = jnp.asarray(rng.normal(size=(5, count, count)))
    state, expected = model.state, []
    for x in xs:
        state, out = step(model.params, state, x)
        expected.append(out)
    found = learner.grad(lambda y, target: (y**2).sum(), xs)[1].outputs
    np.testing.assert_allclose(found, jnp.stack(expected), atol=1e-12)


def test_populations_that_decay_differently_need_a_decay_for_ottt() -> None:
    keep = jnp.asarray([0.9, 0.9, 0.5, 0.5])

    def step(params, state, x):
        y = x @ params["w"]
        return {"a": 0.9 * state["a"] + y[:2], "b": 0.5 * state["b"] + y[2:]}, state["a"].sum() + state["b"].sum()

    state = {"a": jnp.zeros(2), "b": jnp.zeros(2)}
    model = ranvier.step_function(step, {"w": jnp.ones((3, 4))}, state)
    with pytest.raises(ranvier.RuleError, match=r"w, but the populations it drives decay at different rates, 0.5, 0.9"):
        ranvier.compile(model, ranvier.OTTT(), jnp.ones(3))
    ranvier.compile(model, ranvier.OTTT(decay=float(keep[0])), jnp.ones(3))


def test_a_small_limit_is_used_up() -> None:
    def chunk(limit):
        lowered = ranvier.lower(network(np.asarray, np.eye(40) * 9.0))
        rule = ranvier.ES_D_RTRL(decay=0.9)
        return ranvier.compile(lowered, rule, jnp.ones(INPUTS), memory_limit=limit).plan.chunk

    assert chunk(2**18) > chunk(2**16) > 1
