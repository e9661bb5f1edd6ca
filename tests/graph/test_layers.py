"""``graph.layers``: every edit reaches the graph, or is an error."""

from __future__ import annotations

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import ranvier
from ranvier import GraphError, LayerNode, SNNGraph
from ranvier.graph.operations import Linear


def first() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 0.9, (6, 3))


def second() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.5, 3.0, (4, 6))


def chain() -> SNNGraph:
    return SNNGraph([LayerNode("a", 3, 6, first()), LayerNode("b", 6, 4, second())])


def stored(graph: SNNGraph, name: str) -> np.ndarray:
    """The weights that the graph itself has."""
    (projection,) = graph.into(name)
    weight = projection.operation.arrays["weight"]
    return weight.toarray() if sparse.issparse(weight) else weight


RATES = np.array([0.2, 0.0, 0.1, 0.0, 0.3, 0.1])


# Fields of a layer ----------------------------------------------------------------------------------------------------


def test_rates_that_are_set_are_what_passes_read():
    """The usual order of sc-neurocore."""
    graph = chain()
    graph.layers[0].firing_rates = RATES
    assert ranvier.dead_neuron_elimination(graph).neurons_removed == 2
    assert graph.layers[0].n_neurons == graph.layers[1].n_inputs == 4
    np.testing.assert_array_equal(stored(graph, "b"), second()[:, RATES > 0])
    np.testing.assert_array_equal(graph.layers[0].firing_rates, RATES[RATES > 0])


def test_a_layer_that_a_graph_was_made_of_is_a_view_of_it():
    node = LayerNode("a", 3, 6, first())
    graph = SNNGraph([node, LayerNode("b", 6, 4, second())])
    node.firing_rates = RATES
    node.weights = 2 * first()
    ranvier.dead_neuron_elimination(graph)
    assert node.n_neurons == 4
    np.testing.assert_array_equal(node.weights, 2 * first()[RATES > 0])
    SNNGraph([node.copy()])
    other = SNNGraph([node])
    with pytest.raises(GraphError, match="belongs to 2 graphs"):
        node.firing_rates = None
    other.layers[0].firing_rates = np.ones(4)
    assert graph.layers[0].firing_rates.max() < 0.5


def test_weights_of_another_shape_resize_the_graph():
    """sc-neurocore's own way to take neurons out, statement by statement."""
    graph = chain()
    graph.layers[0].firing_rates = RATES
    layer, following = graph.layers
    keep = layer.firing_rates > 0.001
    layer.weights = layer.weights[keep]
    layer.n_neurons = layer.weights.shape[0]
    layer.firing_rates = layer.firing_rates[keep]
    assert [problem.node for problem in ranvier.problems(graph)] == ["a->b"]
    following.weights = following.weights[:, keep]
    following.n_inputs = following.weights.shape[1]
    assert ranvier.problems(graph) == []
    assert graph.populations["a"].size == 4
    graph.layers[1].weights = np.ones((2, 4))
    graph.layers[0].weights = np.ones((4, 5))
    assert ranvier.problems(graph) == []
    assert ranvier.interpret(graph, np.ones((3, 5))).output.shape == (3, 2)


def test_sizes_follow_the_weights():
    with pytest.raises(GraphError, match=r"n_neurons = 5, but its weights have shape \[6, 3\]"):
        chain().layers[0].n_neurons = 5
    with pytest.raises(GraphError, match="n_neurons, n_inputs"):
        chain().layers[0].weights = np.ones(3)


@pytest.mark.parametrize("kind", ["LIF", "LI", "IF", "I", "ALIF", "CubaLIF", "CubaLI", "Threshold"])
def test_kinds_of_neurons_by_name_are_read_back(kind):
    graph = SNNGraph([LayerNode("a", 3, 6, first(), neuron_type=kind)])
    assert graph.layers[0].neuron_type == kind
    assert type(graph.populations["a"].neuron).__name__ == kind
    assert ranvier.interpret(graph, np.ones((3, 3))).output.shape == (3, 6)


def test_neurons_and_names_are_written():
    graph = chain()
    neuron = ranvier.neurons.LIF(tau=0.01, v_threshold=0.5)
    graph.layers[0].neuron_type = neuron
    assert graph.populations["a"].neuron is graph.layers[0].neuron_type is neuron
    graph.layers[1].neuron_type = "LI"
    assert not graph.populations["b"].neuron.spikes
    graph.layers[0].name = "hidden"
    assert list(graph.populations) == ["hidden", "b"]
    assert list(graph.projections) == ["input->hidden", "hidden->b", "b->output"]
    assert ranvier.problems(graph) == []
    with pytest.raises(GraphError, match="cannot be renamed to 'b'"):
        graph.layers[0].name = "b"
    with pytest.raises(GraphError, match="not one of LIF"):
        graph.layers[0].neuron_type = "Izhikevich"
    with pytest.raises(AttributeError, match=r"no 'v_threshold'.*LIF\(tau"):
        graph.layers[0].v_threshold = 0.5  # pyright: ignore[reportAttributeAccessIssue]


def test_a_bias_and_a_recurrence_stay_where_weights_change():
    graph = chain()
    graph.projections["input->a"] = graph.projections["input->a"].replace(operation=Linear(first(), np.ones(6)))
    graph.projections["a->a"] = ranvier.Projection("a->a", "a", "a", Linear(np.eye(6)), delay=1)
    graph.layers[0].weights[2] = 0.0
    operation = graph.projections["input->a"].operation
    assert isinstance(operation, Linear)
    np.testing.assert_array_equal(operation.weight[2], 0.0)
    np.testing.assert_array_equal(operation.bias, 1.0)
    assert "a->a" in graph.projections
    with pytest.raises(GraphError, match="not a plain chain"):
        del graph.layers[1]


# In place -------------------------------------------------------------------------------------------------------------


def _row(w):
    w[1] = 0.0


def _element(w):
    w[1][2] = 7.0


def _transposed(w):
    w.T[0] = 5.0


def _masked(w):
    w[w < 0.5] = 0.0


def _scaled(w):
    w *= 2.0


def _out(w):
    np.multiply(w, 3.0, out=w)


def _part(w):
    w[2:] += 1.0


def _at(w):
    np.add.at(w, (0, 0), 1.0)


def _everywhere(w):
    w[...] = 0.25


IN_PLACE = [_row, _element, _transposed, _masked, _scaled, _out, _part, _at, _everywhere]


@pytest.mark.parametrize("edit", IN_PLACE)
def test_edits_in_place_are_written(edit):
    graph, expected = chain(), first()
    before = graph.copy()
    weights = graph.layers[0].weights
    edit(weights)
    edit(expected)
    np.testing.assert_array_equal(stored(graph, "a"), expected)
    np.testing.assert_array_equal(weights, expected)
    np.testing.assert_array_equal(stored(before, "a"), first())
    assert not np.array_equal(expected, first())


def test_rates_are_written_in_place():
    graph = chain()
    graph.layers[0].firing_rates = np.full(6, 0.1)
    graph.layers[0].firing_rates[[1, 3]] = 0.0
    assert ranvier.dead_neuron_elimination(graph).neurons_removed == 2


@pytest.mark.parametrize(
    "edit",
    [
        lambda w: w.fill(0.0),
        lambda w: np.copyto(w, 0.0),
        lambda w: np.fill_diagonal(w, 0.0),
        lambda w: w.sort(),
        lambda w: w.flat.__setitem__(0, 1.0),
        lambda w: np.put(w, [0], 1.0),
        lambda w: w.view(np.ndarray).__setitem__(0, 1.0),
        lambda w: np.asarray(w).__setitem__(0, 1.0),
        lambda w: setattr(w.flags, "writeable", True),
    ],
)
def test_other_ways_to_change_an_array_are_errors(edit):
    graph = chain()
    with pytest.raises(ValueError, match=r"read-only|WRITEABLE|not writeable"):
        edit(graph.layers[0].weights)
    np.testing.assert_array_equal(stored(graph, "a"), first())


def test_an_array_that_was_replaced_since_is_not_written():
    graph = chain()
    old = graph.layers[0].weights
    graph.layers[0].weights = 2 * first()
    with pytest.raises(GraphError, match="has been replaced"):
        old[0] = 0.0
    np.testing.assert_array_equal(stored(graph, "a"), 2 * first())


def test_results_are_ordinary_arrays():
    graph = chain()
    weights = graph.layers[0].weights
    for result in (weights * 2, weights @ np.ones(3), weights.copy(), weights[[0, 1]], np.array(weights), abs(weights)):
        result[0] = 5.0
    np.testing.assert_array_equal(stored(graph, "a"), first())
    np.testing.assert_allclose(jnp.asarray(weights), first(), rtol=1e-6)
    loaded = pickle.loads(pickle.dumps(weights))
    loaded[0] = 0.0
    np.testing.assert_array_equal(stored(graph, "a"), first())
    for clone in (copy.deepcopy(graph.layers[0]), pickle.loads(pickle.dumps(graph.layers[0]))):
        clone.weights[0] = 0.0
        clone.firing_rates = RATES
    np.testing.assert_array_equal(stored(graph, "a"), first())
    assert graph.layers[0].firing_rates is None
    mine = first()
    graph.layers[0].weights = mine
    mine[0] = -1.0
    np.testing.assert_array_equal(stored(graph, "a"), first())


def test_sparse_weights_are_written_too():
    dense = np.where(first() < 0.5, 0.0, first())
    graph = SNNGraph([LayerNode("a", 3, 6, sparse.csr_array(dense))])
    before = graph.copy()
    row, column = (int(n[0]) for n in np.nonzero(dense))
    empty = tuple(int(n[0]) for n in np.nonzero(dense == 0))
    graph.layers[0].weights[row, column] = 0.75
    graph.layers[0].weights[empty] = 0.5
    graph.layers[0].weights *= 2.0
    weights = graph.layers[0].weights
    weights *= 2.0
    weights.setdiag(9.0)
    expected = dense.copy()
    expected[row, column], expected[empty] = 0.75, 0.5
    expected *= 4.0
    np.fill_diagonal(expected, 9.0)
    np.testing.assert_array_equal(stored(graph, "a"), expected)
    np.testing.assert_array_equal(weights.toarray(), expected)
    np.testing.assert_array_equal(stored(before, "a"), dense)
    with pytest.raises(ValueError, match="read-only"):
        weights.data[0] = 1.0
    with pytest.raises(AttributeError, match="read-only"):
        weights.data = weights.data * 2
    result = 2 * weights
    result.data[0] = 1.0
    assert graph.layers[0].n_params == graph.total_params == np.count_nonzero(expected)


# The list -------------------------------------------------------------------------------------------------------------


def names(graph: SNNGraph) -> list[str]:
    assert [layer.name for layer in graph.layers] == list(graph.populations)
    return list(graph.populations)


def last() -> LayerNode:
    return LayerNode("c", 4, 2, np.ones((2, 4)))


def test_layers_are_added_and_removed():
    graph = chain()
    graph.layers.append(last())
    assert ranvier.problems(graph) == []
    assert names(graph) == ["a", "b", "c"]
    assert ranvier.interpret(graph, np.ones((3, 3))).output.shape == (3, 2)
    removed = graph.layers.pop()
    assert (removed.name, removed.n_inputs) == ("c", 4)
    graph.layers += [removed]
    graph.layers.extend([LayerNode("d", 2, 2, np.eye(2)), LayerNode("e", 2, 2, np.eye(2))])
    assert names(graph) == ["a", "b", "c", "d", "e"]
    del graph.layers[3]
    graph.layers.remove(graph.layers[-1])
    graph.layers.insert(2, LayerNode("m", 4, 4, np.eye(4)))
    assert names(graph) == ["a", "b", "m", "c"]
    assert ranvier.problems(graph) == []
    graph.layers[1:3] = [LayerNode("n", 6, 4, second())]
    assert names(graph) == ["a", "n", "c"]
    graph.layers[0] = LayerNode("z", 5, 6, np.ones((6, 5)))
    assert ranvier.problems(graph) == []
    assert graph.inputs["input"].shape == (5,)
    graph.layers.clear()
    assert (graph.populations, graph.total_params, len(graph.layers)) == ({}, 0, 0)


def test_fusion_as_sc_neurocore_writes_it():
    graph = chain()
    graph.layers[0] = LayerNode("a+b", 3, 4, second() @ first())
    graph.layers.pop(1)
    assert names(graph) == ["a+b"]
    assert ranvier.problems(graph) == []
    np.testing.assert_array_equal(stored(graph, "a+b"), second() @ first())


def test_layers_are_reordered_and_assigned():
    square = np.random.default_rng(2).normal(size=(3, 4, 4))
    graph = SNNGraph([LayerNode(name, 4, 4, w) for name, w in zip("bca", square, strict=True)])
    graph.layers[1].firing_rates = np.full(4, 0.3)
    graph.layers.sort(key=lambda layer: layer.name)
    assert names(graph) == ["a", "b", "c"]
    graph.layers.reverse()
    assert names(graph) == ["c", "b", "a"]
    np.testing.assert_array_equal(graph.layers[0].firing_rates, 0.3)
    graph.layers = [graph.layers[1], graph.layers[0]]
    assert names(graph) == ["b", "c"]
    graph.layers[:] = [graph.layers[1], graph.layers[0]]
    assert names(graph) == ["c", "b"]
    np.testing.assert_array_equal(stored(graph, "c"), square[1])
    assert ranvier.problems(graph) == []
    with pytest.raises(GraphError, match="assign all at once"):
        graph.layers[0], graph.layers[1] = graph.layers[1], graph.layers[0]
    assert names(graph) == ["c", "b"]
    with pytest.raises(GraphError, match="is not a layer"):
        graph.layers.append("a")  # pyright: ignore[reportArgumentType]
    assert graph.layers.index(graph.layers[1]) == 1
    assert [layer.name for layer in graph.layers[::-1]] == ["b", "c"]


def test_a_layer_that_is_gone_is_an_error():
    graph = chain()
    layer = graph.layers[1]
    del graph.layers[1]
    with pytest.raises(GraphError, match="no longer in the graph"):
        layer.firing_rates = np.ones(4)


def test_a_graph_can_begin_without_layers():
    graph = SNNGraph()
    assert (graph.total_params, graph.total_neurons, list(graph.layers)) == (0, 0, [])
    graph.layers.append(LayerNode("a", 3, 6, first()))
    graph.layers.append(LayerNode("b", 6, 4, second()))
    assert ranvier.to_text(graph)[0] == ranvier.to_text(chain())[0]
    assert ranvier.verify(graph, chain(), np.full((20, 3), 4.0)).verdict == "identical"


def test_layers_may_be_called_input_and_output():
    graph = SNNGraph([LayerNode("input", 3, 6, first()), LayerNode("output", 6, 4, second())])
    assert ranvier.problems(graph) == []
    np.testing.assert_array_equal(
        ranvier.interpret(graph, np.full((20, 3), 4.0)).output, ranvier.interpret(chain(), np.full((20, 3), 4.0)).output
    )
    plain = chain()
    plain.layers.append(LayerNode("output", 4, 2, np.ones((2, 4))))
    assert ranvier.problems(plain) == []


def test_transposed_weights_are_named():
    with pytest.raises(GraphError, match=r"\[n_neurons, n_inputs\] = \[6, 3\].*weights\.T"):
        SNNGraph([LayerNode("a", 3, 6, first().T)])
