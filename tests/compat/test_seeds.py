"""The documentation of brainscale 0.1.0 and of sc-neurocore 3.16.0, statement by statement, with ``ranvier`` in place.

brainscale's guide to IR analysis says what it prints: 5 hidden states of 6 states, one group, one relation to two
hidden paths, and 5 perturbations. What is printed with different words here is compared with numbers.
"""

from __future__ import annotations

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier

# brainscale -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guide():
    from ranvier._etrace_model_test import ALIF_STPExpCu_Dense_Layer

    brainstate.environ.set(dt=0.1 * u.ms)
    n_in = 3
    n_rec = 4
    net = ALIF_STPExpCu_Dense_Layer(n_in, n_rec)
    brainstate.nn.init_all_states(net)
    input_data = brainstate.random.rand(n_in)
    return net, input_data, ranvier.extract_module_info(net, input_data)


def test_model_information(guide):
    _, _, info = guide
    assert len(info.hidden_path_to_invar) == 5
    assert len(info.compiled_model_states) == 6
    assert set(info.hidden_path_to_outvar) == set(info.hidden_path_to_invar)
    for path, var in info.hidden_path_to_invar.items():
        assert info.invar_to_hidden_path[var] == path
        outvar = info.hidden_path_to_outvar[path]
        assert info.outvar_to_hidden_path[outvar] == path
        assert info.hidden_outvar_to_invar[outvar] is var
        assert var.aval.shape == (4,)
    for path, invars in info.weight_path_to_invars.items():
        assert len(invars) == 2
        for var in invars:
            assert var in info.weight_invars
            assert info.invar_to_weight_path[var] == path
    assert len(info.closed_jaxpr.eqns) > 10


def test_all_analyses_at_once(guide):
    net, x, info = guide
    graph = ranvier.compile_etrace_graph(net, x)
    assert list(graph.dict()) == [
        "module_info",
        "hidden_groups",
        "hid_path_to_group",
        "hidden_param_op_relations",
        "hidden_perturb",
    ]
    assert set(graph.module_info.retrieved_model_states) == set(net.states())
    assert graph.module_info.num_var_out == len(jax.tree.leaves(net(x)))
    assert graph.module_info.num_var_out + graph.module_info.num_var_state == len(info.closed_jaxpr.jaxpr.outvars)
    assert [g.hidden_paths for g in graph.hidden_groups] == [tuple(graph.hid_path_to_group)]
    assert [relation.path for relation in graph.hidden_param_op_relations] == list(info.weight_path_to_invars)
    assert len(graph.hidden_perturb.perturb_vars) == 5
    assert ranvier.compile_etrace_graph(net, x, include_hidden_perturb=False).hidden_perturb is None


def test_state_groups(guide):
    net, _, info = guide
    hidden_groups, hid_path_to_group = ranvier.find_hidden_groups_from_minfo(info)
    assert len(hidden_groups) == 1
    assert len(hid_path_to_group) == 5
    group = hidden_groups[0]
    assert group.index == 0
    for field in (group.hidden_paths, group.hidden_states, group.hidden_invars, group.hidden_outvars):
        assert len(field) == 5
    assert set(group.hidden_paths) == set(info.hidden_path_to_invar)
    assert group.varshape == (4,)
    assert group.num_state == 5
    states = net.states(brainstate.HiddenState)
    assert {path[0] for path in group.hidden_paths} == {path[0] for path in states}


@pytest.mark.slow
def test_the_transition_of_a_group(guide):
    _, input_data, info = guide
    group = ranvier.find_hidden_groups_from_minfo(info)[0][0]
    values = info.values(input_data)
    old = [values[var] + 0.1 for var in group.hidden_invars]
    rest = [values[var] for var in group.transition_jaxpr_constvars]
    new = group.transition(old, rest)
    by_jaxpr = jax.jit(jax.extend.core.jaxpr_as_fun(group.transition_jaxpr))(*old, *rest)
    for one, other in zip(new, by_jaxpr, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    together = group.concat_hidden(old)
    assert together.shape == (4, 5)
    for one, other in zip(group.split_hidden(together), old, strict=True):
        np.testing.assert_array_equal(one, other)
    full = jax.jacobian(lambda h: group.concat_hidden(group.transition(group.split_hidden(h), rest)))(together)
    blocks = np.stack([full[n, :, n, :] for n in range(4)])
    np.testing.assert_allclose(group.diagonal_jacobian(old, rest), blocks, rtol=1e-5, atol=1e-6)
    assert np.abs(blocks).max() > 0.5


def test_relations(guide):
    _, input_data, info = guide
    _, hid_path_to_group = ranvier.find_hidden_groups_from_minfo(info)
    hidden_param_op = ranvier.find_hidden_param_op_relations_from_minfo(info, hid_path_to_group)
    assert len(hidden_param_op) == 1
    relation = hidden_param_op[0]
    assert relation.path in info.weight_path_to_invars
    assert relation.x.aval.shape == (7,)
    assert relation.y.aval.shape == (4,)
    assert len(relation.hidden_groups) == 1
    assert {path[-1] for path in relation.connected_hidden_paths} == {"g", "V"}
    assert len(relation.connected_hidden_paths) == 2
    assert type(relation.weight).__name__ == "ParamState"
    assert {leaf.shape for leaf in jax.tree.leaves(relation.weight.initial)} == {(7, 4), (4,)}
    values = info.values(input_data)
    (states,) = relation.y_to_hidden_groups(values[relation.y], values, concat_hidden_vals=False)
    for var, value in zip(relation.hidden_groups[0].hidden_outvars, states, strict=True):
        np.testing.assert_allclose(value, values[var], rtol=1e-6)
    (moved,) = relation.y_to_hidden_groups(values[relation.y] + 1.0, values)
    changed = np.abs(moved - relation.hidden_groups[0].concat_hidden(states)).max(0) > 0
    paths = relation.hidden_groups[0].hidden_paths
    assert {paths[a] for a in np.flatnonzero(changed)} <= set(relation.connected_hidden_paths)
    assert changed.any()
    (jaxpr,) = relation.y_to_hidden_group_jaxprs
    assert jaxpr.in_avals[0].shape == (4,)


def test_perturbations(guide):
    _, input_data, info = guide
    hidden_perturb = ranvier.add_hidden_perturbation_from_minfo(info)
    assert len(hidden_perturb.perturb_vars) == 5
    assert len(hidden_perturb.perturb_hidden_paths) == 5
    assert len(hidden_perturb.perturb_hidden_states) == 5
    for path, var, state in zip(
        hidden_perturb.perturb_hidden_paths, hidden_perturb.perturb_vars, hidden_perturb.perturb_hidden_states
    ):
        assert path in info.hidden_path_to_invar
        assert var.aval.shape == (4,)
        assert type(state).__name__ == "HiddenState"
    data = hidden_perturb.init_perturb_data()
    assert [array.shape for array in data] == [(4,)] * 5
    operands = info.flat_operands(input_data)
    plain = hidden_perturb.eval_jaxpr(operands, data)
    moved = hidden_perturb.eval_jaxpr(operands, [array + 0.5 for array in data])
    first = len(info.output_avals)
    for before, after in zip(plain[first : first + 5], moved[first : first + 5]):
        np.testing.assert_allclose(after, before + 0.5, rtol=1e-5, atol=1e-6)
    group = ranvier.find_hidden_groups_from_minfo(info)[0][0]
    by_state = [jnp.full(4, float(k)) for k in range(5)]
    (by_group,) = hidden_perturb.perturb_data_to_hidden_group_data(by_state, [group])
    order = [hidden_perturb.perturb_hidden_paths.index(path) for path in group.hidden_paths]
    np.testing.assert_array_equal(by_group, np.tile(order, (4, 1)))


def test_kinds_of_states_have_names(guide):
    _, _, info = guide
    assert {type(slot).__name__ for slot in info.parameters} == {"ParamState"}
    assert {type(slot).__name__ for slot in info.hidden} == {"HiddenState"}

    class Counting(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            self.h, self.k = brainstate.HiddenState(jnp.zeros(3)), brainstate.ShortTermState(jnp.zeros((), int))

        def update(self, x):
            self.k.value += 1
            self.h.value = 0.9 * self.h.value + self.k.value * x
            return self.h.value

    other = ranvier.extract_module_info(Counting(), jnp.ones(3)).other
    assert [type(slot).__name__ for slot in other] == ["OtherState"]


# sc-neurocore ---------------------------------------------------------------------------------------------------------


def tutorial():
    """The graph of its tutorial; weights are ``[n_neurons, n_inputs]``, as ``LayerNode`` says there and here."""
    from ranvier.snn_optimizer import LayerNode, SNNGraph

    rng = np.random.default_rng(42)
    weights_h1 = rng.standard_normal((64, 49)).astype(np.float32) * 0.05
    weights_h2 = rng.standard_normal((16, 64)).astype(np.float32) * 0.1
    weights_out = rng.standard_normal((10, 16)).astype(np.float32) * 0.2
    rates_h1 = 0.01 + rng.random(64).astype(np.float32) * 0.2
    rates_h1[:7] = 0.0
    rates_h2 = 0.01 + rng.random(16).astype(np.float32) * 0.15
    rates_out = 0.01 + rng.random(10).astype(np.float32) * 0.5
    return SNNGraph(
        layers=[
            LayerNode("hidden1", 49, 64, weights_h1, firing_rates=rates_h1),
            LayerNode("hidden2", 64, 16, weights_h2, firing_rates=rates_h2),
            LayerNode("output", 16, 10, weights_out, firing_rates=rates_out),
        ]
    )


def test_the_tutorial_of_the_optimizer():
    from ranvier.snn_optimizer import optimize

    graph = tutorial()
    assert f"Original: {graph.total_params:,} parameters" == "Original: 4,320 parameters"
    optimized, report = optimize(graph)
    lines = report.summary().splitlines()
    assert lines[0] == (
        f"SNN Optimizer: {graph.total_params} -> {optimized.total_params} params "
        f"({graph.total_params / optimized.total_params:.2f}x compression)"
    )
    assert lines[1] == f"  Neurons: 90 -> {optimized.total_neurons}"
    assert len(lines) == 2 + len(report.pass_results)
    assert optimized.total_params < graph.total_params
    assert report.dead_neurons_removed == 7
    assert report.compression_ratio == graph.total_params / optimized.total_params

    optimized, report = optimize(graph, passes=["dead_neuron_elimination"])
    assert [result.name for result in report.pass_results] == ["dead_neuron_elimination"]
    assert report.dead_neurons_removed == report.pass_results[0].neurons_removed == 7
    assert report.pass_results[0].params_before == graph.total_params
    assert report.pass_results[0].params_after == optimized.total_params == 57 * 49 + 16 * 57 + 160
    assert len(str(report)) > 5 * len(report.summary())

    graph.layers[1].weights[3] = graph.layers[1].weights[5]
    optimized, report = optimize(graph, passes=["redundancy_elimination"])
    assert report.redundant_pairs_merged == 1
    assert [layer.n_params for layer in optimized.layers] == [64 * 49, 15 * 64, 10 * 15]


def test_the_functions_one_by_one():
    from ranvier import snn_optimizer

    graph = tutorial()
    assert (graph.total_neurons, len(graph.layers)) == (90, 3)
    copy = graph.copy()
    copy.layers[0].weights[0, 0] = 999
    assert graph.layers[0].weights[0, 0] != 999
    assert copy.layers[0].weights[0, 0] == 999
    for function, neurons in (
        (snn_optimizer.dead_neuron_elimination, 7),
        (snn_optimizer.redundancy_elimination, 0),
        (snn_optimizer.layer_fusion, 0),
    ):
        result = function(graph)
        assert isinstance(result, snn_optimizer.PassResult)
        assert (result.name, result.neurons_removed, result.layers_fused) == (function.__name__, neurons, 0)
    assert graph.layers[0].n_neurons == graph.layers[1].weights.shape[1] == 57
    small, report = snn_optimizer.SNNOptimizer().optimize(tutorial(), passes=["prune", "fuse", "eliminate_dead"])
    assert small.total_neurons <= 83
    assert [result.name for result in report.pass_results] == ["fuse", "dead-neurons", "prune"]


def test_a_report_can_be_made_by_hand():
    from ranvier.snn_optimizer import OptimizationReport, PassResult, SNNGraph

    assert OptimizationReport().pass_results == []
    assert OptimizationReport().summary() == str(OptimizationReport())
    report = OptimizationReport([PassResult("mine", neurons_removed=3, layers_fused=1)], 20, 8, 9, 6)
    assert report.compression_ratio == 2.5
    assert report.summary().splitlines() == [
        "SNN Optimizer: 20 -> 8 params (2.50x compression)",
        "  Neurons: 9 -> 6",
        "  mine: 3 neurons removed, 1 layers fused",
    ]
    assert SNNGraph().total_params == 0
