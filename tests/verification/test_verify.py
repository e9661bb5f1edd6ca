"""Two graphs are run side by side, and what differs is found, told and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import ranvier
from ranvier.graph.neurons import LIF
from ranvier.graph.operations import Identity, Linear
from ranvier.verification.inputs import adversarial_trial, random_trial, trials_of
from tests.support.examples import examples
from tests.support.random_graphs import inputs_of, random_graph, seeds


def chain(weight: float = 1.0, threshold: float = 1.0) -> ranvier.SNNGraph:
    """x -> a (3 LIF) -> y; a decays by a half in every step."""
    return ranvier.SNNGraph(
        name="chain",
        dt=1e-3,
        inputs=[ranvier.Input("x", (2,), 0.0, 4.0)],
        populations=[ranvier.Population("a", (3,), LIF(tau=2e-3, v_threshold=threshold))],
        projections=[
            ranvier.Projection("in", "x", "a", Linear(np.array([[1.0, 0.0], [0.0, 1.0], [weight, weight]]))),
            ranvier.Projection("out", "a", "y", Identity()),
        ],
        outputs=[ranvier.Output("y", (3,))],
    )


def test_identical_graphs() -> None:
    found = ranvier.verify(chain(), chain(), np.ones((5, 2)))
    assert found.identical
    assert found.close
    assert found.divergence is None
    assert found.counterexample is None
    assert str(found).startswith("identical on the given inputs, 5 steps x 1 sample")


def test_the_first_divergence_is_told() -> None:
    """With input 1 to both, neuron 2 sees 2 in one graph and 1.2 in the other: v = 1 and then 1.5, or 0.6 and 0.9."""
    found = ranvier.verify(chain(1.0), chain(0.6), np.ones((5, 2)))
    assert found.divergence is not None
    assert (found.divergence.step, found.divergence.population, found.divergence.neuron) == (1, "a", 2)
    assert found.divergence.fired
    assert found.divergence.margin == pytest.approx(0.1)
    assert not found.ties
    assert not found.close
    assert found.spikes["a"].identical == pytest.approx(2 / 3)
    assert found.outputs["y"].largest == 1.0
    assert "step 1, sample 0: neuron 2 of 'a' fires before, and not after, 0.1 from the threshold" in str(found)


def test_the_sample_that_differs_is_the_counterexample(tmp_path: Path) -> None:
    inputs = np.zeros((6, 4, 2))
    inputs[:, 2] = 1.0
    found = ranvier.verify(chain(1.0), chain(0.6), inputs)
    assert found.divergence is not None
    assert found.divergence.sample == 2
    assert found.counterexample is not None
    np.testing.assert_array_equal(found.counterexample.inputs["x"], inputs[:, 2])
    path = found.counterexample.save(tmp_path / "found.npz")
    again = ranvier.replay(path)
    assert str(again.divergence) == str(found.divergence).replace("sample 2", "sample 0")
    (tmp_path / "other.npz").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ranvier.GraphError, match="holds no counterexample"):
        ranvier.replay(tmp_path / "other.npz")
    np.savez(tmp_path / "plain.npz", x=inputs)
    with pytest.raises(ranvier.GraphError, match="holds no counterexample: it has"):
        ranvier.replay(tmp_path / "plain.npz")


def test_a_tie_that_rounding_decides_is_no_difference() -> None:
    """v reaches 0.1 + 0.2 in one graph and 0.3 in the other, and the threshold lies between the two."""

    def graph(weights: list[float]) -> ranvier.SNNGraph:
        return ranvier.SNNGraph(
            dt=1e-3,
            inputs=[ranvier.Input("x", (len(weights),))],
            populations=[ranvier.Population("a", (1,), LIF(tau=1e-3, v_threshold=0.3))],
            projections=[
                ranvier.Projection("in", "x", "a", Linear(np.array([weights]))),
                ranvier.Projection("out", "a", "y", Identity()),
            ],
            outputs=[ranvier.Output("y", (1,))],
        )

    assert 0.1 + 0.2 > 0.3
    found = ranvier.verify(graph([0.1, 0.2]), graph([0.3, 0.0]), np.ones((3, 2)))
    assert found.divergence is None
    assert [tie.step for tie in found.ties] == [0, 1, 2]
    assert "a tie that rounding decides" in str(found)
    assert found.close
    assert not found.identical
    far = ranvier.verify(graph([0.1, 0.2]), graph([0.299, 0.0]), np.ones((3, 2)))
    assert not far.close


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(25), deadline=None)
def test_float32_is_the_interpreter_up_to_ties(seed: int) -> None:
    graph = random_graph(seed)
    runs = (ranvier.interpret, ranvier.simulate)
    found = ranvier.verify(graph, graph, inputs_of(graph, seed, steps=15), runs=runs, tie=1e-4)
    assert found.divergence is None, str(found)


def test_graphs_with_another_interface_are_not_compared() -> None:
    other = chain()
    other.outputs = {"z": ranvier.Output("z", (3,))}
    with pytest.raises(ranvier.GraphError, match="not have the same outputs"):
        ranvier.verify(chain(), other, np.ones((5, 2)))
    slow = chain()
    slow.dt = 2e-3
    with pytest.raises(ranvier.GraphError, match=r"different time steps, 0\.001 s and 0\.002 s"):
        ranvier.verify(chain(), slow, np.ones((5, 2)))


def test_random_inputs_keep_to_the_declared_range_and_are_alive() -> None:
    graph = chain()
    for trial in trials_of(graph):
        assert trial.inputs["x"].min() >= 0.0
        assert trial.inputs["x"].max() <= 4.0
        assert ranvier.interpret(graph, trial.inputs, record=["a"])["a"].any()
    hard = chain(threshold=500.0)
    hard.inputs = {"x": ranvier.Input("x", (2,))}
    assert ranvier.interpret(hard, random_trial(hard).inputs, record=["a"])["a"].any()


def test_adversarial_inputs_take_neurons_that_fire() -> None:
    """One neuron in five hundred fires; its threshold is what matters."""
    weight = np.full((500, 3), 1e-3)
    weight[123] = 5.0
    graph = ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (3,), 0.0, 1.0)],
        populations=[ranvier.Population("a", (500,), LIF(tau=5e-3))],
        projections=[
            ranvier.Projection("w", "x", "a", Linear(weight)),
            ranvier.Projection("y", "a", "y", Linear(np.ones((1, 500)))),
        ],
        outputs=[ranvier.Output("y", (1,))],
    )
    assert any("threshold" in trial.description for trial in trials_of(graph))


def test_adversarial_inputs_are_close_to_the_threshold() -> None:
    """A weight that differs by a millionth is found, which random inputs do not find."""
    original, changed = chain(1.0), chain(1.000001)
    trial = adversarial_trial(original)
    assert trial is not None
    assert ranvier.verify(original, changed, random_trial(original).inputs).divergence is None
    assert ranvier.verify(original, changed, trial.inputs).divergence is not None
