"""A model where a graph or a program is expected, and the other way round: the error says what makes one of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import ranvier

X = np.ones((5, 2, 3))


def _step(params: Any, state: Any, x: Any) -> Any:
    h = jnp.tanh(0.5 * state["h"] + x @ params["w"])
    return {"h": h}, h


MODEL = ranvier.step_function(_step, {"w": jnp.ones((3, 4))}, {"h": jnp.zeros(4)})
OF_GRAPHS: dict[str, Callable[[Any], Any]] = {
    "to_text": ranvier.to_text,
    "problems": ranvier.problems,
    "profile": lambda graph: ranvier.profile(graph, X),
    "simulate": lambda graph: ranvier.simulate(graph, X),
    "interpret": lambda graph: ranvier.interpret(graph, X),
    "recognise": ranvier.recognise,
    "lower": ranvier.lower,
    "with_weights": lambda graph: ranvier.with_weights(graph, {}),
    "dead_neuron_elimination": ranvier.dead_neuron_elimination,
    "layer_fusion": ranvier.layer_fusion,
    "save": lambda graph: ranvier.save(graph, "never.snn"),
}
OF_PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "groups": ranvier.find_hidden_groups_from_minfo,
    "relations": ranvier.find_hidden_param_op_relations_from_minfo,
    "perturbation": ranvier.add_hidden_perturbation_from_minfo,
    "raise_program": ranvier.raise_program,
}
OBJECTS: list[Any] = [MODEL, None, {}, X, "graph.snn", ranvier.SNNGraph]


@pytest.mark.parametrize("use", OF_GRAPHS)
def test_where_a_graph_is_expected(use: str) -> None:
    for value in (*OBJECTS, ranvier.raise_model(MODEL, jnp.ones(3))):
        with pytest.raises(ranvier.GraphError, match=r"to_graph\(model, \*inputs\)"):
            OF_GRAPHS[use](value)


@pytest.mark.parametrize("use", OF_PROGRAMS)
def test_where_a_program_is_expected(use: str) -> None:
    for value in (*OBJECTS, ranvier.SNNGraph()):
        with pytest.raises(ranvier.ModelError, match="extract_module_info"):
            OF_PROGRAMS[use](value)


def test_a_layer_without_a_list_and_a_neuron_of_another_kind() -> None:
    layer = ranvier.LayerNode("a", 3, 4, np.ones((4, 3)))
    with pytest.raises(ranvier.GraphError, match="list of layers"):
        ranvier.SNNGraph(layers=layer)  # pyright: ignore[reportArgumentType]
    for kind in ({}, np.ones(3), ranvier.neurons.LIF):
        with pytest.raises(ranvier.GraphError, match="neuron_type"):
            ranvier.SNNGraph(layers=[ranvier.LayerNode("a", 3, 4, np.ones((4, 3)), kind)])  # pyright: ignore


def test_a_path_where_inputs_are_expected() -> None:
    graph = ranvier.SNNGraph(layers=[ranvier.LayerNode("a", 3, 4, np.ones((4, 3)))])
    with pytest.raises(ranvier.InputError, match=r"Calibration\.load\('x\.npz', graph\)"):
        ranvier.simulate(graph, "x.npz")


def test_a_list_of_the_one_input_is_as_good_as_a_tuple() -> None:
    learner = ranvier.compile(MODEL, ranvier.D_RTRL(), jnp.ones(3))
    xs, ys = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32), jnp.zeros((5, 4))

    def loss(y: Any, target: Any) -> Any:
        return ((y - target) ** 2).sum()

    expected = learner.grad(loss, xs, ys)[0]
    for given in ((xs,), [xs]):
        np.testing.assert_array_equal(learner.grad(loss, given, ys)[0]["w",], expected["w",])
    with pytest.raises(ranvier.InputError, match=r"jnp\.stack"):
        learner.grad(loss, list(xs), ys)
