"""Results are values: they copy and pickle, and work in another process."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.examples import few


def step(params: Any, state: Any, x: Any) -> Any:
    v = 0.9 * state["v"] + x @ params["w"]
    return {"v": v}, v


def model(step: Any = step) -> ranvier.types.StepFunction:
    return ranvier.step_function(step, {"w": jnp.ones((3, 4))}, {"v": jnp.arange(4.0)})


def results() -> dict[str, Any]:
    analysis = ranvier.analyse(model(), jnp.zeros(3))
    return {
        "info": analysis.info,
        "group": analysis.groups[0],
        "relation": analysis.relations[0],
        "perturbation": analysis.perturbation,
        "analysis": analysis,
    }


def check(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before.items():
        assert str(after[name]) == str(value), name
    assert after["group"].hidden_outvars[0] in after["info"].outvar_to_hidden_path
    assert after["analysis"].groups[0] is after["group"]
    x = jnp.ones(3)
    values = after["info"].values(x)
    np.testing.assert_array_equal(after["group"].transition.jacobian(values), np.full((4, 1, 1), np.float32(0.9)))
    np.testing.assert_array_equal(after["info"].step(x)[0], before["info"].step(x)[0])


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_results_are_copied(duplicate: Any) -> None:
    before = results()
    check(before, duplicate(before))


def test_results_work_in_another_process() -> None:
    code = (
        "import pickle, sys, jax.numpy as jnp; found = pickle.load(sys.stdin.buffer); "
        "print(found['info'].step(jnp.ones(3))[0].tolist()); print(found['group'].component_names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(results()), capture_output=True, check=True, cwd="."
    )
    assert done.stdout.decode().splitlines() == [
        str((np.arange(4, dtype=np.float32) * np.float32(0.9) + 3).tolist()),
        "('v',)",
    ]


def test_closures_and_derived_programs_say_why_they_are_not_pickled() -> None:
    info = ranvier.extract_module_info(model(lambda *given: step(*given)), jnp.zeros(3))
    with pytest.raises(pickle.PicklingError, match="top level of a module"):
        pickle.dumps(info)
    assert copy.deepcopy(info) is info
    learner = ranvier.compile(model(), ranvier.BPTT(), jnp.zeros(3), batch_size=2)
    with pytest.raises(pickle.PicklingError, match=r"pickle the program that ranvier\.extract_module_info returns"):
        pickle.dumps(learner.info)


XS = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
DUPLICATES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda value: pickle.loads(pickle.dumps(value))}


def loss(output: Any, target: Any) -> Any:
    return (output**2).sum()


def recurrent(params: Any, state: Any, x: Any) -> Any:
    v = 0.9 * state["v"] + x @ params["w"] + jnp.tanh(state["v"]) @ params["w_rec"]
    return {"v": v}, v


def learner(rule: Any, **options: Any) -> ranvier.types.Learner:
    params = {"w": jnp.ones((3, 4)), "w_rec": 0.1 * jnp.eye(4)}
    made = ranvier.step_function(recurrent, params, {"v": jnp.zeros(4)})
    return ranvier.compile(made, rule, XS[0], **options)


@few("duplicate", DUPLICATES.values(), ids=DUPLICATES)
@pytest.mark.parametrize(
    ("rule", "options"),
    [(ranvier.D_RTRL(), {"chunk": 2}), (ranvier.EProp(), {"batch_size": 2, "reduction": "mean"})],
    ids=["D_RTRL", "EProp"],
)
def test_learners_are_copied(rule: Any, options: Any, duplicate: Any) -> None:
    before = learner(rule, **options)
    after = duplicate(before)
    xs = jnp.asarray(XS if "batch_size" not in options else np.stack([XS, 2 * XS], 1))
    found, expected = (one.grad(loss, xs, jnp.zeros(5))[0] for one in (after, before))
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path])
    assert (str(after.plan), after.reduction, after.batch_size) == (
        str(before.plan),
        before.reduction,
        before.batch_size,
    )
    assert after.plan.left_out == before.plan.left_out != ()


@pytest.mark.slow
def test_learners_with_rules_by_parameter_keep_their_choice() -> None:
    before = learner("auto", sample=(loss, jnp.asarray(XS), jnp.zeros(5)))
    after = pickle.loads(pickle.dumps(before))
    assert after.rule == before.rule
    assert str(after.comparison) == str(before.comparison)


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_plans_and_comparisons_are_copied(duplicate: Any) -> None:
    made = learner(ranvier.D_RTRL())
    for value in (made.plan, made.compare(loss, jnp.asarray(XS), jnp.zeros(5)), made.plan.left_out):
        assert str(duplicate(value)) == str(value)


def test_learners_of_closures_say_why_they_are_not_pickled() -> None:
    made = ranvier.compile(model(lambda *given: step(*given)), ranvier.D_RTRL(), jnp.zeros(3))
    for value in (made, made.plan):
        with pytest.raises(pickle.PicklingError, match="top level of a module"):
            pickle.dumps(value)
    assert copy.deepcopy(made).plan is made.plan


def raised() -> ranvier.types.Raised:
    params = {"w": jnp.ones((3, 4)), "w_rec": 0.1 * jnp.eye(4)}
    return ranvier.raise_model(ranvier.step_function(recurrent, params, {"v": jnp.zeros(4)}), XS[0], dt=2e-3)


def simulated(graph: ranvier.SNNGraph) -> Any:
    (name,) = graph.inputs
    return ranvier.simulate(graph, {name: XS[:, None]}).output


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_raised_models_are_copied(duplicate: Any) -> None:
    before = raised()
    after = duplicate(before)
    assert str(after.graph) == str(before.graph)
    assert after.graph.dt == 2e-3
    np.testing.assert_array_equal(simulated(after.graph), simulated(before.graph))
    assert {k: v.tolist() for k, v in after.index().items()} == {k: v.tolist() for k, v in before.index().items()}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_of_graphs_change_on_their_own(duplicate: Any) -> None:
    graph = raised().graph
    text, other = str(graph), duplicate(graph)
    other.populations.clear()
    other.metadata["by"] = "hand"
    assert str(graph) == text
    assert not graph.metadata


def chain() -> ranvier.SNNGraph:
    return ranvier.SNNGraph([ranvier.LayerNode("hidden", 3, 4, np.eye(4, 3, dtype=np.float32))])


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_results_on_graphs_are_copied(duplicate: Any) -> None:
    graph = chain()
    (name,) = graph.inputs
    inputs = {name: np.abs(XS[:, None])}
    values = [graph, *ranvier.optimize(graph, level="O1"), ranvier.verify(graph, graph, inputs)]
    for value in values:
        assert str(duplicate(value)) == str(value)
    np.testing.assert_array_equal(simulated(duplicate(graph)), simulated(graph))


def test_graphs_with_traced_programs_say_why_they_are_not_pickled() -> None:
    whole = raised()
    assert copy.deepcopy(whole.graph) is not whole.graph
    with pytest.raises(pickle.PicklingError, match=r"Pickle the model or the result of ranvier\.raise_model"):
        pickle.dumps(whole.graph)
    whole.graph.metadata["by"] = "hand"
    with pytest.raises(pickle.PicklingError, match="programs traced by JAX"):
        pickle.dumps(whole)


@pytest.mark.parametrize("dtype", [jnp.float32, np.float16])
def test_lowered_graphs_and_their_learners_are_pickled(dtype: Any) -> None:
    weights = np.random.default_rng(0).normal(1, 1, (4, 3))
    graph = ranvier.SNNGraph(layers=[ranvier.LayerNode("a", 3, 4, 3 * weights)])
    lowered = ranvier.lower(graph, dtype=dtype)
    again = pickle.loads(pickle.dumps(lowered))
    x = jnp.ones(3)
    jax.tree.map(np.testing.assert_array_equal, again.params, lowered.params)
    before, after = (m.step(m.params, m.state, x) for m in (lowered, again))
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert jax.tree.leaves(after[0])[0].dtype == dtype
    learner = pickle.loads(pickle.dumps(ranvier.compile(lowered, ranvier.D_RTRL(), x)))
    assert learner.info.name == graph.name
