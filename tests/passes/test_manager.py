"""The pass manager: pipelines, levels, checks, reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import ranvier
from ranvier.graph.neurons import IF, LIF, Relay
from ranvier.graph.operations import Linear
from ranvier.passes.levels import LEVELS, level_passes
from ranvier.passes.pipeline import parse_pipeline
from ranvier.verification.promise import Promise
from tests.support.examples import examples
from tests.support.random_graphs import inputs_of, random_graph, seeds

from .test_passes import with_waste


@dataclass(frozen=True)
class Liar(ranvier.Pass):
    """Says that it changes nothing, and makes all weights weaker."""

    name = "liar"
    promise = Promise.BITWISE
    factor: float = 0.5

    def run(self, rewriting: ranvier.Rewriting) -> None:
        for p in list(rewriting.graph.projections.values()):
            if isinstance(p.operation, Linear):
                weaker = Linear(p.operation.weight * self.factor, p.operation.bias)
                rewriting.set_projection(p.replace(operation=weaker))
                rewriting.did(p.name, "made weaker", Promise.BITWISE)


def network(seed: int = 0) -> ranvier.SNNGraph:
    """Two LIF layers, of which the first has dead and duplicated neurons, and a dead end."""
    rng = np.random.default_rng(seed)
    w1, w2 = rng.uniform(0.2, 1.0, (8, 4)), rng.normal(0.3, 0.5, (5, 8))
    w1[5] = -1.0  # never fires on inputs that are not negative
    w1[7] = w1[6]  # fires like its neighbor
    return ranvier.SNNGraph(
        name="network",
        dt=1e-3,
        inputs=[ranvier.Input("x", (4,), 0.0, 1.0)],
        populations=[
            ranvier.Population("hidden", (8,), LIF(tau=4e-3, v_threshold=0.5)),
            ranvier.Population("readout", (5,), IF(r=300.0, v_threshold=1.0)),
            ranvier.Population("end", (2,), LIF(tau=1e-2)),
        ],
        projections=[
            ranvier.Projection("w1", "x", "hidden", Linear(w1)),
            ranvier.Projection("w2", "hidden", "readout", Linear(w2)),
            ranvier.Projection("to end", "hidden", "end", Linear(np.ones((2, 8)))),
            ranvier.Projection("out", "readout", "y", Linear(np.eye(5))),
        ],
        outputs=[ranvier.Output("y", (5,))],
    )


def test_a_pipeline_shrinks_the_network_and_says_how() -> None:
    graph = network()
    small, report = ranvier.optimize(graph)
    assert graph.total_neurons == 15
    assert small.populations["hidden"].size == 6
    assert "end" not in small.populations
    assert report.before.neurons == 15
    assert report.after.neurons == 11
    assert report.promise is Promise.ALGEBRAIC
    assert report.checks[0].inputs == "random inputs"
    assert all(check.close for check in report.checks)
    text = str(report)
    for words in ("dt 0.001 s", "reset zero", "neurons", "15", "11", "dead-code", "merge-neurons", "algebraic"):
        assert words in text
    hidden = report.origins.places["hidden"]
    assert hidden.numbers[5] == -1
    assert hidden.numbers[6] == hidden.numbers[7]
    assert report.as_dict()["after"]["neurons"] == 11
    assert report.statistics["merge-neurons"]["neurons"] == 1
    assert report.statistics["dead-code"]["neurons"] == 2


def test_a_pass_that_breaks_its_promise_is_caught(tmp_path: Path) -> None:
    file = tmp_path / "counterexample.npz"
    with pytest.raises(
        ranvier.PassError, match=r"liar promises to be bitwise, but on random inputs: step \d+"
    ) as caught:
        ranvier.optimize(network(), [Liar()], counterexample=file)
    assert str(file) in str(caught.value)
    again = ranvier.replay(file)
    assert not again.close
    changed, report = ranvier.optimize(network(), [Liar()], verify_each=False, fixpoint=False)
    assert report.checks == ()
    np.testing.assert_array_equal(
        changed.projections["w1"].operation.weight, network().projections["w1"].operation.weight / 2
    )


def test_the_change_of_a_liar_that_does_little_is_found_close_to_the_threshold() -> None:
    with pytest.raises(ranvier.PassError, match="promises to be bitwise"):
        ranvier.optimize(network(), [Liar(1 - 1e-6)])


def test_a_pass_that_breaks_the_graph_is_caught() -> None:
    @dataclass(frozen=True)
    class Breaker(ranvier.Pass):
        name = "breaker"
        promise = Promise.BITWISE

        def run(self, rewriting: ranvier.Rewriting) -> None:
            del rewriting.graph.populations["end"]
            rewriting.did("end", "removed without its projections", Promise.BITWISE)

    with pytest.raises(ranvier.PassError, match=r"made a graph that is not valid.*bug of the pass"):
        ranvier.optimize(network(), [Breaker()])


@pytest.mark.slow
def test_bisect_limit_runs_only_so_many_passes() -> None:
    _, whole = ranvier.optimize(network())
    _, none = ranvier.optimize(network(), bisect_limit=0)
    assert not any(run.changed for run in none.runs)
    assert all(run.skipped for run in none.runs)
    sizes = []
    for limit in range(len(level_passes("O2")) + 1):
        made, report = ranvier.optimize(network(), bisect_limit=limit, fixpoint=False)
        sizes.append(made.total_neurons)
        assert sum(not run.skipped for run in report.runs) == limit
    assert sizes[0] == 15
    assert sizes[-1] == 11
    assert whole.after.neurons <= sizes[-1]


def test_pipelines_are_repeated_until_nothing_changes() -> None:
    """Two readouts differ in what they get from a silent neuron alone, so they merge once that is gone."""
    graph = network()
    weight = graph.projections["w2"].operation.weight.copy()
    weight[1] = weight[0]
    weight[1, 5] += 1.0
    graph.projections["w2"] = graph.projections["w2"].replace(operation=Linear(weight))
    once, _ = ranvier.optimize(graph, "merge-neurons,dead-neurons", fixpoint=False)
    more, report = ranvier.optimize(graph, "merge-neurons,dead-neurons")
    assert once.populations["readout"].size == 5
    assert more.populations["readout"].size == 4
    assert [run.text for run in report.runs if run.changed] == ["merge-neurons", "dead-neurons", "merge-neurons"]
    assert report.runs[-1].text == "dead-neurons"
    assert report.runs[-1].round == 2


def test_print_after_all_and_watch() -> None:
    watched: list[str] = []
    made, report = ranvier.optimize(network(), "dead-code,connections", print_after_all=True, watch=watched.append)
    assert watched[:3] == ["making inputs to check with", "dead-code", "connections"]
    assert report.runs[-1].printed == ranvier.to_text(made)[0]


@pytest.mark.parametrize("level", LEVELS)
def test_levels_are_pipelines(level: str) -> None:
    passes = level_passes(level)
    assert all(isinstance(one, ranvier.Pass) for one in passes)
    exact = {"O0": True, "O1": True, "O2": False, "O3": False}[level]
    assert exact == all(one.promise <= Promise.ALGEBRAIC and one.options.get("threshold") is None for one in passes)


@pytest.mark.parametrize(
    ("passes", "message"),
    [
        ("no-such-pass", "there is no pass 'no-such-pass'; the passes are canonicalize"),
        ("dead-neuron", "Did you mean 'dead-neurons'"),
        ("prune{sparsity=2}", "sparsity 2"),
        ("prune{sparsity=0.5,threshold=0.1}", "not both"),
        ("prune{method=magic}", "'magic' is unknown; use one of magnitude, saliency"),
        ("quantize{format=int1}", "write int8"),
        ("merge-neurons{similarity=3}", "not a number from 0 to 1"),
        ("prune{sparsity=auto}", "needs data and a budget"),
        (["fuse", 3], "3 is not a pass"),
        ("fuse,,fuse", "is not a pass; write name"),
    ],
)
def test_what_is_refused(passes, message: str) -> None:
    with pytest.raises(ranvier.PassError, match=message):
        ranvier.optimize(network(), passes)


def test_an_unknown_level() -> None:
    with pytest.raises(ranvier.PassError, match="there is no level 'O4'; the levels are O0, O1, O2, O3"):
        ranvier.optimize(network(), level="O4")


# Data ---------------------------------------------------------------------------------------------------------------


def data(graph: ranvier.SNNGraph, samples: int = 12, steps: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {name: rng.uniform(0.0, 1.0, (steps, samples, *node.shape)) for name, node in graph.inputs.items()}


def test_a_profile_is_what_numpy_says() -> None:
    graph = network()
    measured = ranvier.profile(graph, data(graph))
    spikes = ranvier.interpret(graph, data(graph), record=["hidden"])["hidden"]
    activity = measured.populations["hidden"].activity
    assert graph.populations["hidden"].activity is None
    assert activity is not None
    np.testing.assert_allclose(activity.rates, spikes.mean((0, 1)), rtol=1e-6)
    np.testing.assert_allclose(activity.active, spikes.any(0).mean(0), rtol=1e-6)
    assert activity.steps == 40 * 12
    assert len(str(activity.data)) == 16
    assert activity.partner is not None
    assert activity.correlation is not None
    assert (activity.partner[6], activity.partner[7], activity.partner[5]) == (7, 6, -1)
    assert activity.correlation[6] == pytest.approx(1.0)
    live = [n for n in range(8) if n != 5]
    expected = np.corrcoef(spikes.reshape(-1, 8)[:, live].T) - 2 * np.eye(7)
    np.testing.assert_allclose(activity.correlation[live], expected.max(1), atol=1e-6)
    text, arrays = ranvier.to_text(measured)
    assert ranvier.from_text(text, arrays).populations["hidden"].activity.data == activity.data


@pytest.mark.slow
def test_neurons_that_never_fired_on_the_data_go_only_with_data() -> None:
    graph = network()
    weight = graph.projections["w1"].operation.weight.copy()
    weight[0] = 0.05  # can fire on inputs that the data does not have
    graph.projections["w1"] = graph.projections["w1"].replace(operation=Linear(weight))
    graph.inputs = {"x": ranvier.Input("x", (4,), 0.0, 10.0)}
    without, report = ranvier.optimize(graph)
    assert report.promise is Promise.ALGEBRAIC
    assert any("measure them with ranvier.profile" in remark.message for remark in report.remarks if not remark.done)
    with_data, report = ranvier.optimize(graph, calibration=data(graph))
    assert report.promise is Promise.PROFILED
    assert with_data.populations["hidden"].size == without.populations["hidden"].size - 1
    on_data = [check for check in report.checks if check.inputs == "calibration data"]
    assert on_data[0].close


@pytest.mark.slow
def test_the_strength_of_approximate_passes_is_searched_within_the_budget() -> None:
    graph, inputs = network(), data(network())
    costs = []
    for budget in (0.0, 0.3, 0.9):
        made, report = ranvier.optimize(graph, "prune{sparsity=auto}", calibration=inputs, budget=budget)
        before = ranvier.simulate(graph, inputs).output
        after = ranvier.simulate(made, inputs).output
        cost = np.sqrt(((after - before) ** 2).sum() / (before**2).sum())
        assert cost <= budget
        costs.append(made.total_synapses)
        assert any("searched sparsity within a budget" in remark.message for remark in report.remarks)
    assert costs[0] >= costs[1] >= costs[2]
    assert costs[0] > costs[2]
    _, report = ranvier.optimize(graph, level="O3", calibration=inputs, budget=0.2)
    assert report.promise is Promise.APPROXIMATE


@pytest.mark.slow
def test_a_budget_in_accuracy() -> None:
    graph, inputs = network(), data(network(), samples=80)
    labels = ranvier.simulate(graph, inputs).output.sum(0).argmax(1)
    made, report = ranvier.optimize(graph, "prune{sparsity=auto}", calibration=inputs, labels=labels, budget=0.25)
    assert report.accuracy is not None
    assert report.accuracy[0] == 1.0
    assert report.accuracy[1] >= 0.75
    assert made.total_synapses < graph.total_synapses
    with pytest.raises(ranvier.InputError, match="one whole number for each of the 80 samples"):
        ranvier.optimize(graph, calibration=inputs, labels=labels[:3])


@pytest.mark.slow
@given(seeds)
@settings(max_examples=examples(25), deadline=None)
def test_levels_keep_what_they_promise(seed: int) -> None:
    graph = with_waste(seed)
    made, report = ranvier.optimize(graph, level="O1", verify_each=False)
    assert ranvier.problems(made) == []
    assert (made.inputs, made.outputs) == (graph.inputs, graph.outputs)
    assert report.after.parameters <= report.before.parameters
    assert report.after.neurons <= report.before.neurons
    inputs = inputs_of(graph, seed)
    meant, found = (ranvier.interpret(g, inputs).output for g in (graph, made))
    np.testing.assert_allclose(found, meant, rtol=1e-9, atol=1e-9)
    again, _ = ranvier.optimize(made, level="O1", verify_each=False)
    assert ranvier.to_text(again)[0] == ranvier.to_text(made)[0]


def test_relays_of_random_graphs_are_fused() -> None:
    fused = 0
    for seed in range(40):
        graph = random_graph(seed, kinds=(LIF, Relay))
        made, _ = ranvier.optimize(graph, "fuse{grow=true}", verify_each=False)
        count = [sum(isinstance(p.neuron, Relay) for p in g.populations.values()) for g in (graph, made)]
        fused += count[0] - count[1]
        inputs = inputs_of(graph, seed)
        meant, found = (ranvier.interpret(g, inputs).output for g in (graph, made))
        np.testing.assert_allclose(found, meant, rtol=1e-9, atol=1e-9)
    assert fused > 10


def test_pipeline_objects_and_text_are_the_same() -> None:
    a, _ = ranvier.optimize(network(), parse_pipeline("dead-neurons,fuse"))
    b, _ = ranvier.optimize(network(), ["dead-neurons", "fuse{grow=false}"])
    assert ranvier.to_text(a)[0] == ranvier.to_text(b)[0]


def test_passes_of_other_packages_are_found_by_their_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Entry:
        name: str

        def load(self) -> type[ranvier.Pass]:
            return Liar

    monkeypatch.setattr(
        "ranvier.passes.registry.entry_points", lambda group: [Entry("liar")] * (group == "ranvier.passes")
    )
    (found,) = parse_pipeline("liar{factor=0.9}")
    assert found == Liar(0.9)
    with pytest.raises(ranvier.PassError, match="Did you mean 'liar'"):
        parse_pipeline("lier")
