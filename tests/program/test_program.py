"""ModuleInfo: the partition of operands and results, and running a step."""

from __future__ import annotations

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.models import alif_stp


@pytest.fixture(scope="module")
def reference() -> ranvier.ModuleInfo:
    return ranvier.extract_module_info(*alif_stp())


def leaky(params: dict, state: dict, x: jax.Array) -> tuple[dict, jax.Array]:
    v = params["decay"] * state["v"] + x @ params["w"]
    return {"v": v, "count": state["count"] + 1}, jnp.tanh(v)


def leaky_model() -> ranvier.types.StepFunction:
    params = {"decay": jnp.asarray(0.9), "w": jnp.arange(12.0).reshape(3, 4)}
    return ranvier.step_function(leaky, params, {"v": jnp.ones(4), "count": jnp.asarray(0)})


def test_reference_result(reference: ranvier.ModuleInfo) -> None:
    groups, group_of = ranvier.find_hidden_groups_from_minfo(reference)
    relations = ranvier.find_hidden_param_op_relations_from_minfo(reference, group_of)
    perturbation = ranvier.add_hidden_perturbation_from_minfo(reference)
    (relation,) = relations
    assert len(reference.hidden_path_to_invar) == 5
    assert len(reference.compiled_model_states) == 6
    assert [group.num_state for group in groups] == [5]
    assert groups[0].varshape == (4,)
    assert relation.path == ("linear", "weight")
    assert relation.x.aval.shape == (7,)
    assert relation.y.aval.shape == (4,)
    assert set(relation.connected_hidden_paths) == {("synapse", "g"), ("neuron", "V")}
    assert len(perturbation.perturb_vars) == 5
    assert relation.kind == "affine"


def test_mappings_are_inverse_to_each_other(reference: ranvier.ModuleInfo) -> None:
    for path, var in reference.hidden_path_to_invar.items():
        new = reference.hidden_path_to_outvar[path]
        assert reference.invar_to_hidden_path[var] == path
        assert reference.outvar_to_hidden_path[new] == path
        assert reference.hidden_outvar_to_invar[new] is var
    for path, leaves in reference.weight_path_to_invars.items():
        assert all(reference.invar_to_weight_path[leaf] == path for leaf in leaves)
    assert [v for found in reference.weight_path_to_invars.values() for v in found] == reference.weight_invars


def test_step_equals_the_module_and_keeps_units(reference: ranvier.ModuleInfo) -> None:
    model, x = alif_stp()
    output, hidden, _ = reference.step(x * 3)
    expected = model(x * 3)
    np.testing.assert_allclose(output, expected, rtol=1e-6)
    voltage = hidden["neuron", "V"]
    assert u.get_unit(voltage) == u.mV
    assert u.math.allclose(voltage, model.neuron.V.value)
    assert u.math.allclose(hidden["synapse", "g"], model.synapse.g.value)


def test_extraction_leaves_the_model_as_it_was() -> None:
    model, x = alif_stp()
    before = jax.tree.map(np.asarray, {path: s.value for path, s in model.states().items()})
    ranvier.extract_module_info(model, x)
    after = jax.tree.map(np.asarray, {path: s.value for path, s in model.states().items()})
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_step_function_partition() -> None:
    info = ranvier.extract_module_info(leaky_model(), jnp.ones(3))
    assert list(info.hidden_path_to_invar) == [("v",)]
    assert list(info.weight_path_to_invars) == [("decay",), ("w",)]
    assert [slot.path for slot in info.other] == [("count",)]
    assert [note.kind for note in info.notes] == [ranvier.types.DiagnosticKind.NON_FLOATING_STATE]
    output, hidden, other = info.step(jnp.ones(3))
    state, y = leaky(leaky_model().params, leaky_model().state, jnp.ones(3))
    np.testing.assert_allclose(output, y)
    np.testing.assert_allclose(hidden["v",], state["v"])
    assert int(other["count",]) == 1


def test_values_can_be_replaced_by_path() -> None:
    info = ranvier.extract_module_info(leaky_model(), jnp.ones(3))
    _, hidden, _ = info.step(jnp.zeros(3), params={("decay",): jnp.asarray(0.5)}, hidden={("v",): jnp.full(4, 2.0)})
    np.testing.assert_allclose(hidden["v",], 1.0)


def test_steps_can_be_jitted_and_differentiated() -> None:
    info = ranvier.extract_module_info(leaky_model(), jnp.ones(3))

    def loss(w: jax.Array) -> jax.Array:
        return info.step(jnp.ones(3), params={("w",): w})[0].sum()

    def expected(w: jax.Array) -> jax.Array:
        params = leaky_model().params | {"w": w}
        return leaky(params, leaky_model().state, jnp.ones(3))[1].sum()

    w = leaky_model().params["w"]
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(w), jax.grad(expected)(w), rtol=1e-6)


def test_a_state_that_is_also_output_or_unchanged_keeps_its_own_variable() -> None:
    def step(params: dict, state: dict, x: jax.Array) -> tuple[dict, jax.Array]:
        v = state["v"] + x
        return {"v": v, "same": state["same"], "twin": v, "zero": jnp.zeros(4)}, v

    state = {name: jnp.ones(4) for name in ("v", "same", "twin", "zero")}
    info = ranvier.extract_module_info(ranvier.step_function(step, {}, state), jnp.ones(4))
    assert len(set(info.hidden_outvars)) == len(info.hidden) == 3
    assert [slot.path for slot in info.other] == [("same",)]
    assert not set(info.hidden_outvars) & set(info.hidden_invars)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {("nothing",): 1.0}}, "no parameter is called nothing"),
        ({"hidden": {("v",): jnp.ones(5)}}, r"hidden state v has shape \[4\], but its value has \[5\]"),
    ],
)
def test_replaced_values_are_checked(change: dict, message: str) -> None:
    info = ranvier.extract_module_info(leaky_model(), jnp.ones(3))
    with pytest.raises(ranvier.InputError, match=message):
        info.step(jnp.ones(3), **change)


def test_inputs_of_another_shape_are_refused() -> None:
    info = ranvier.extract_module_info(leaky_model(), jnp.ones(3))
    with pytest.raises(ranvier.InputError, match=r"traced with inputs of shapes \[3\], but got \[5\]"):
        info.step(jnp.ones(5))


def test_text_is_stable_and_free_of_variable_ids(reference: ranvier.ModuleInfo) -> None:
    again = ranvier.extract_module_info(*alif_stp())
    for first, second in (
        (str(reference), str(again)),
        *zip(
            map(str, ranvier.analyse(reference).groups + ranvier.analyse(reference).relations),
            map(str, ranvier.analyse(again).groups + ranvier.analyse(again).relations),
            strict=True,
        ),
        (str(ranvier.analyse(reference).perturbation), str(ranvier.analyse(again).perturbation)),
    ):
        assert first == second
        assert "Var(" not in first
        assert "0x" not in first
        assert all(line == line.rstrip() for line in first.splitlines())


def test_global_random_state_is_carried_as_other() -> None:
    class Noisy(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.v = brainstate.HiddenState(jnp.zeros(4))
            self.w = brainstate.ParamState(jnp.ones((3, 4)))

        def update(self, x: jax.Array) -> jax.Array:
            self.v.value = 0.9 * self.v.value + x @ self.w.value + 0.1 * brainstate.random.randn(4)
            return self.v.value

    info = ranvier.extract_module_info(Noisy(), jnp.ones(3))
    assert [slot.label for slot in info.other] == ["RandomState"]
    (group,) = ranvier.analyse(info).groups
    assert str(group.transition.entries[0][0]) == "0.9"
    first, second = info.step(jnp.ones(3)), info.step(jnp.ones(3))
    np.testing.assert_array_equal(first[0], second[0])
    (path,) = (slot.path for slot in info.other)
    third = info.step(jnp.ones(3), other=first[2])
    assert not np.array_equal(first[0], third[0])
    assert path[-1] == "random"
