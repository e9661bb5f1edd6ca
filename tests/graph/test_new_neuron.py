"""A kind of neuron is one class and one bound: here a quadratic integrate-and-fire neuron that the source has not."""

from __future__ import annotations

import runpy
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.graph.analysis import bounds as bounds_of
from ranvier.graph.neurons import NEURONS, Neuron, Values, after_spike
from ranvier.graph.ops import REFERENCE

DT, STEPS = 1e-3, 60


@dataclass(frozen=True, eq=False)
class QIF(Neuron):
    """``tau v' = (v - v_rest) (v - v_critical) + r I; z = v > v_threshold``, then the reset (Latham et al. 2000)."""

    states = ("v",)
    spikes = True
    gain = "r"
    tau: Values
    r: Values = 1.0
    v_rest: Values = 0.0
    v_critical: Values = 0.5
    v_threshold: Values = 1.0
    v_reset: Values = 0.0
    reset: str = "zero"
    fires: str = ">"

    def update(self, ops, state, current, dt):
        v = state["v"]
        v = v + dt / self.tau * ((v - self.v_rest) * (v - self.v_critical) + self.r * current)
        z = ops.spike(v, self.firing_threshold(state), self.fires)
        return {"v": after_spike(ops, self, v, z)}, z


def _may_fire(neurons, summed, dt):
    return bounds_of.Interval(np.zeros(summed.low.shape), np.ones(summed.low.shape))


@pytest.fixture(autouse=True)
def _kind_and_bound(monkeypatch):
    monkeypatch.setitem(NEURONS, "QIF", QIF)
    monkeypatch.setitem(
        bounds_of.TRANSFERS,
        QIF,
        lambda neurons, summed, dt: bounds_of.Interval(0.0 * summed.low, 1.0 + 0.0 * summed.low),
    )


NEURONS.pop("QIF")  # known to this file's tests only


def _graph():
    rng = np.random.default_rng(0)
    neuron = QIF(tau=rng.uniform(10e-3, 20e-3, 5), v_threshold=0.9)
    return ranvier.SNNGraph(
        name="quadratic",
        dt=DT,
        inputs=[ranvier.Input("x", (3,), 0.0, 1.0)],
        populations=[ranvier.Population("h", (5,), neuron)],
        projections=[
            ranvier.Projection("w", "x", "h", ranvier.operations.Linear(rng.uniform(0.2, 1.5, (5, 3)))),
            ranvier.Projection("u", "h", "h", ranvier.operations.Linear(rng.normal(0, 0.3, (5, 5))), 1),
            ranvier.Projection("o", "h", "y", ranvier.operations.Linear(rng.normal(0, 1, (2, 5)))),
        ],
        outputs=[ranvier.Output("y", (2,))],
    )


def _inputs():
    return np.random.default_rng(1).uniform(0, 1, (STEPS, 3))


def _by_hand(graph, inputs):
    """The network of :func:`_graph` written out."""
    tau = graph.populations["h"].neuron.tau
    w, u, o = (graph.projections[name].operation.weight for name in "wuo")
    v, z, outputs, spikes = np.zeros(5), np.zeros(5), [], []
    for x in inputs:
        v = v + DT / tau * (v * (v - 0.5) + w @ x + u @ z)
        z = (v > 0.9).astype(float)
        v = np.where(z == 1, 0.0, v)
        outputs.append(o @ z)
        spikes.append(z)
    return np.array(outputs), np.array(spikes)


def test_reference_and_simulation_follow_the_equation():
    graph, inputs = _graph(), _inputs()
    expected, spikes = _by_hand(graph, inputs)
    assert 0.01 < spikes.mean() < 0.9
    np.testing.assert_allclose(ranvier.interpret(graph, inputs).output, expected, atol=1e-12)
    np.testing.assert_allclose(ranvier.simulate(graph, inputs).output, expected, atol=1e-5)


def test_text_file_and_artifact_know_the_kind(tmp_path):
    graph, inputs = _graph(), _inputs()
    expected, _ = _by_hand(graph, inputs)
    ranvier.save(graph, tmp_path / "q.snn")
    read = ranvier.load(tmp_path / "q.snn")
    assert "QIF(" in ranvier.to_text(read)[0]
    np.testing.assert_allclose(ranvier.interpret(read, inputs).output, expected, atol=1e-12)


def test_source_of_the_kind(tmp_path):
    graph, inputs = _graph(), _inputs()
    expected, _ = _by_hand(graph, inputs)
    path = ranvier.export_source(graph, tmp_path / "q.py")
    program = runpy.run_path(str(path))
    arrays = program["load"]()
    state, outputs = program["initial_state"](arrays), []
    for x in inputs:
        state, y = program["step"](arrays, state, jnp.asarray(x, jnp.float32))
        outputs.append(y)
    np.testing.assert_allclose(outputs, expected, atol=1e-4)


def test_passes_keep_their_promises_on_the_kind():
    graph, inputs = _graph(), _inputs()
    graph = graph.copy()
    graph.populations["h"] = graph.populations["h"].replace(neuron=QIF(tau=0.015, v_threshold=0.9))
    weight = graph.projections["w"].operation.arrays["weight"]
    twice = np.vstack([weight[:4], weight[:1]])
    graph.projections["w"] = graph.projections["w"].replace(operation=ranvier.operations.Linear(twice))
    del graph.projections["u"]
    optimized, _ = ranvier.optimize(graph, level="O2")
    assert optimized.populations["h"].size == 4  # neurons 0 and 4 are equal
    np.testing.assert_allclose(
        ranvier.interpret(optimized, inputs).output, ranvier.interpret(graph, inputs).output, atol=1e-12
    )


def test_rtrl_of_the_kind_equals_backpropagation_through_its_equation():
    graph = _graph()
    lowered = ranvier.lower(graph)
    inputs, targets = jnp.asarray(_inputs(), jnp.float32), jnp.ones((STEPS, 2))
    learner = ranvier.compile(lowered, ranvier.RTRL(), inputs[0])

    def loss(y, target):
        return ((y - target) ** 2).sum()

    def total(params):
        def one(state, xy):
            state, y = lowered.step(params, state, xy[0])
            return state, loss(y, xy[1])

        return jax.lax.scan(one, lowered.state, (inputs, targets))[1].sum()

    first, aux = learner.grad(loss, inputs[:20], targets[:20])
    second, _ = learner.grad(loss, inputs[20:], targets[20:], state=aux.state)
    expected = jax.grad(total)(lowered.params)
    for path in (("w", "weight"), ("u", "weight"), ("o", "weight")):
        exact = expected[path[0]][path[1]]
        assert float(jnp.abs(exact).max()) > 0
        assert float(jnp.abs(exact - second[path]).max()) > 1e-3  # the first chunk counts
        np.testing.assert_allclose(first[path] + second[path], exact, rtol=2e-4, atol=1e-4)


def test_a_kind_without_a_bound_can_give_anything():
    del bounds_of.TRANSFERS[QIF]
    bounds = bounds_of.bounds(_graph())
    assert not bounds.silent["h"].any()
    assert not bounds.constant["h"].any()


def test_every_kind_has_a_bound():
    own = {kind for kind in NEURONS.values() if kind.__module__.startswith("ranvier.")}
    assert own <= {*bounds_of.TRANSFERS}


def test_two_kinds_of_one_name_are_refused():
    with pytest.raises(TypeError, match="already has a neuron with this name; give the class another name"):
        dataclass(frozen=True, eq=False)(type("LIF", (Neuron,), {"__module__": "elsewhere", "__annotations__": {}}))


def test_a_kind_without_equations_says_what_to_define():
    bare = dataclass(frozen=True, eq=False)(type("Bare", (Neuron,), {"__module__": __name__}, named=False))
    with pytest.raises(NotImplementedError, match="define update"):
        bare().update(REFERENCE, {}, np.zeros(2), DT)
