"""Parameters and gradients in the model's own structure, and inputs and leaves that do not fit."""

from __future__ import annotations

from typing import Any, NamedTuple

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.zoo.model import normal


class Layer(NamedTuple):
    weight: Any
    bias: Any


def parameters() -> Any:
    """Dictionaries, a list and a named tuple, and a leaf that is not trained."""
    layers = [Layer(normal(k, 3, 3, dtype=jnp.float32), normal(9 - k, 3, dtype=jnp.float32)) for k in range(2)]
    return {"cell": {"layers": layers, "steps": jnp.asarray(2)}, "out": normal(4, 3, 2, dtype=jnp.float32)}


def step(params, state, x):
    h = state["h"]
    for layer in params["cell"]["layers"]:
        h = jnp.tanh(h @ layer.weight + layer.bias + x / params["cell"]["steps"])
    return {"h": h}, h @ params["out"]


def loss(output, target):
    return ((output - target) ** 2).sum()


def learner(**options) -> ranvier.types.Learner:
    model = ranvier.step_function(step, parameters(), {"h": jnp.zeros(3)})
    return ranvier.compile(model, ranvier.BPTT(), jnp.ones(3), **options)


XS, YS = jnp.ones((4, 3)), jnp.ones((4, 2))


def bptt(params) -> Any:
    """The gradient by JAX, in the structure of the parameters; whole numbers have none."""

    def total(params):
        state, losses = {"h": jnp.zeros(3)}, 0.0
        for x, y in zip(XS, YS, strict=True):
            state, output = step(params, state, x)
            losses += loss(output, y)
        return losses

    return jax.grad(total, allow_int=True)(params)


def same(found, expected) -> None:
    """Equal structure and values, None where the reference has no derivative."""
    leaves, treedef = jax.tree.flatten(expected)
    values = treedef.flatten_up_to(found)
    for value, leaf in zip(values, leaves, strict=True):
        if leaf.dtype == jax.dtypes.float0:
            assert value is None
        else:
            np.testing.assert_allclose(value, leaf, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_gradients_come_back_in_the_structure_of_the_parameters():
    own, expected = learner(), bptt(parameters())
    changed = jax.tree.map(lambda p: p + 0.1 if jnp.issubdtype(p.dtype, jnp.floating) else p, parameters())
    same(own.grad(loss, XS, YS, params=parameters())[0], expected)
    same(own.grad(loss, XS, YS, params=own.nested(own.params))[0], expected)
    same(jax.jit(lambda p: own.grad(loss, XS, YS, params=p)[0])(changed), bptt(changed))
    by_path = own.grad(loss, XS, YS)[0]
    assert set(by_path) == set(own.params)
    same(own.nested(by_path), expected)
    assert set(own.by_path(changed)) == set(own.params)
    value, _ = own.evaluate(loss, XS, YS, params=changed)
    assert not np.allclose(value, own.evaluate(loss, XS, YS)[0])
    written = own.write_back(changed)
    np.testing.assert_array_equal(written.params["cell"]["layers"][1].bias, changed["cell"]["layers"][1].bias)


def test_a_leaf_that_is_not_trained_is_not_changed():
    other = parameters()
    other["cell"]["steps"] = jnp.asarray(3)
    with pytest.raises(ranvier.InputError, match=r"different value for cell\.steps"):
        learner().grad(loss, XS, YS, params=other)


def labels(params) -> Any:
    return {"cell": jax.tree.map(lambda _: "slow", params["cell"]), "out": "fast"}


@pytest.mark.slow
def test_an_optimizer_with_labels_in_the_model_s_structure():
    """Updates of the parts are those of optimizers of their own; labels by path give the same training."""
    own, data = learner(), [(XS, YS)]
    nested = own.nested(own.params)
    parts = {"slow": optax.sgd(0.01), "fast": optax.adam(0.1)}
    found = ranvier.fit(own, data, loss, optax.multi_transform(parts, labels(nested)), 2, params=nested, progress=False)
    by_path = {path: "fast" if path == ("out",) else "slow" for path in own.params}
    expected = ranvier.fit(own, data, loss, optax.multi_transform(parts, by_path), 2, progress=False)
    same(found.params, own.nested(expected.params))
    assert not np.allclose(expected.params["out",], own.params["out",], atol=0.05)
    assert own.nested(by_path)["cell"]["layers"][0] == Layer("slow", "slow")
    with pytest.raises(ranvier.InputError, match=r"params=learner\.nested\(learner\.params\)"):
        ranvier.fit(own, data, loss, optax.multi_transform(parts, labels(nested)), 1, progress=False)


@pytest.mark.slow
def test_checkpoints_of_both_forms_are_told_apart(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    own, data, optimizer = learner(), [(XS, YS)], optax.adam(0.01)
    nested = own.nested(own.params)
    whole = ranvier.fit(own, data, loss, optimizer, 3, params=nested, progress=False)
    for epochs in (1, 3):
        found = ranvier.fit(
            own, data, loss, optimizer, epochs, params=nested, checkpoint=tmp_path / "a", progress=False
        )
    for one, other in zip(jax.tree.leaves(found.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ranvier.InputError, match="model's own structure"):
        ranvier.fit(own, data, loss, optimizer, 3, checkpoint=tmp_path / "a", progress=False)


@pytest.mark.slow
def test_a_module_s_parameters_are_by_path_or_in_dictionaries():
    class Network(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = brainstate.nn.ValinaRNNCell(3, 4)
            self.out = brainstate.nn.Linear(4, 2)

        def update(self, x):
            return self.out(self.cell(x))

    model = Network()
    brainstate.nn.init_all_states(model)
    own = ranvier.compile(model, ranvier.BPTT(), jnp.ones(3))
    gradients, _ = own.grad(loss, XS, YS)
    nested = own.nested(gradients)
    assert set(nested) == {"cell", "out"}
    again, _ = own.grad(loss, XS, YS, params=own.nested(own.params))
    assert jax.tree.structure(again) == jax.tree.structure(nested)
    for path, value in own.by_path(again).items():
        jax.tree.map(np.testing.assert_array_equal, value, gradients[path])


def test_nested_needs_every_path():
    own = learner()
    with pytest.raises(ranvier.InputError, match=r"lacks cell\.layers\.0\.weight.*has unknown nothing"):
        own.nested({("out",): 1, ("nothing",): 2})
    with pytest.raises(ranvier.InputError, match="structure of the model's own"):
        own.grad(loss, XS, YS, params=[1, 2])


@pytest.mark.slow
def test_inputs_of_a_one_input_model_in_a_tuple():
    own = learner()
    expected, _ = own.grad(loss, XS, YS)
    found, _ = own.grad(loss, (XS,), YS)
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)
    trained = ranvier.fit(own, [((XS,), YS)], loss, optax.sgd(0.1), 1, progress=False)
    assert np.isfinite(trained.history[0]["loss"])


def test_a_tuple_elsewhere():
    graph = ranvier.SNNGraph([ranvier.LayerNode("a", 3, 4, np.full((4, 3), 2.0))])
    expected = ranvier.simulate(graph, np.ones((5, 3))).output
    np.testing.assert_array_equal(ranvier.simulate(graph, (np.ones((5, 3)),)).output, expected)
    np.testing.assert_array_equal(ranvier.interpret(graph, (np.ones((5, 3)),)).output, expected)
    model = ranvier.step_function(step, parameters(), {"h": jnp.zeros(3)})
    with pytest.raises(ranvier.InputError, match=r"x, not \(x,\)"):
        ranvier.compile(model, ranvier.BPTT(), (jnp.ones(3),))


def test_a_model_whose_input_is_a_tuple_of_one():
    model = ranvier.step_function(lambda p, s, x: ({"h": s["h"] + x[0] * p}, s["h"]), jnp.ones(3), {"h": jnp.zeros(3)})
    own = ranvier.compile(model, ranvier.BPTT(), (jnp.ones(3),))
    found, _ = own.grad(lambda y, _: y.sum(), (XS,))
    np.testing.assert_allclose(found["params",], np.full(3, 6.0))
    same(own.grad(lambda y, _: y.sum(), (XS,), params=jnp.ones(3))[0], jnp.full(3, 6.0))


def test_leaves_that_are_functions_name_partition():
    """As in an ``eqx.nn.MLP``, which keeps its activations among its leaves."""
    params = {"w": jnp.ones((3, 3)), "activation": jax.nn.relu, "kind": "mlp"}
    with pytest.raises(ranvier.ModelError, match=r"activation is <.*kind is 'mlp'.*eqx\.partition\(.*eqx\.combine"):
        ranvier.step_function(step, params, {"h": jnp.zeros(3)})
