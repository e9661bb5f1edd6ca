"""D-RTRL: independent of the chunks, equal to BPTT where it is exact, equal to what it is by definition everywhere."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from tests.support.dense_d_rtrl import dense_d_rtrl
from tests.support.examples import few
from tests.support.learning import (
    T,
    batch_loss,
    difference,
    every_differentiable_model,
    flat,
    gradient,
    learning,
    loss,
    observed,
    part,
    phases,
    sequence,
    zoo_gradient,
    zoo_program,
)
from tests.support.slow_d_rtrl import CASES, d_rtrl, same_step
from tests.support.zoo import MODELS
from tests.support.zoo.model import lif

pytestmark = learning

ROUNDING = 1e-12


# Chunks and calls -------------------------------------------------------------------------------------------------


@every_differentiable_model
def test_the_gradient_does_not_depend_on_the_chunks(name: str) -> None:
    whole = zoo_gradient(name, ranvier.D_RTRL(), chunk=T)
    assert difference(in_two_calls(*zoo_program(name), chunk=3), whole) < ROUNDING


@few("name", [m.name for m in MODELS.values() if m.differentiable][::4])
@pytest.mark.parametrize("chunk", [1, 7])
def test_nor_on_their_length(name: str, chunk: int) -> None:
    whole = zoo_gradient(name, ranvier.D_RTRL(), chunk=T)
    assert difference(zoo_gradient(name, ranvier.D_RTRL(), chunk=chunk), whole) < ROUNDING


def in_two_calls(info: ranvier.ModuleInfo, xs, chunk: int) -> dict:
    """The first half of the sequence, then the second from the state after the first."""
    learner, half, targets = ranvier.compile(info, ranvier.D_RTRL(), chunk=chunk), T // 2, phases()
    first, aux = learner.grad(loss, part(xs, 0, half), targets[:half], state=learner.init())
    second, _ = learner.grad(loss, part(xs, half, T), targets[half:], state=aux.state)
    return jax.tree.map(jnp.add, first, second)


@pytest.mark.parametrize("name", [m.name for m in MODELS.values() if not m.differentiable])
def test_bptt_says_that_it_cannot_go_back_through_a_while_loop(name: str) -> None:
    info, xs = zoo_program(name)
    with pytest.raises(ranvier.RuleError, match=r"reverse mode.*while loop.*structure\.py"):
        gradient(info, ranvier.BPTT(), xs)


# Exactness --------------------------------------------------------------------------------------------------------

STATES_REACH_ONLY_THEMSELVES = [
    *("dense", "dense_with_separate_bias", "conv", "sparse_csr", "sparse_bcoo", "embedding", "one_to_one"),
    *("einsum", "grouped_einsum", "grouped_einsum_notation", "low_rank_matrix", "low_rank_chain", "summed_product"),
    *("spiking_convolution", "trainable_neurons", "trainable_tau_and_threshold", "shared_threshold"),
    *("adaptive_threshold", "tied_gate_and_value", "one_weight_two_groups", "halves_into_two_groups"),
    *("rolled_output", "sliced_output", "gated_halves", "transposed_output", "broadcast_output", "packed_columns"),
    *("masked_weights", "softplus_weights", "signed_weights", "normalized_weights", "transposed_weights"),
    *("one_to_one_layers", "small_ring", "weights_inside_cond", "dynamics_inside_cond", "dynamics_inside_long_scan"),
    *("weight_inside_short_scan", "weight_inside_long_scan", "reset_by_where", "custom_vjp_spike", "noisy"),
    *("parameters_without_relation", "nested_parameter_paths"),
]
"""One layer, feed-forward: nothing passes from position to position between the steps."""

LINEAR_RECURRENT_UNITS = ["lru", "braintrace_lru"]

OTHERWISE = {
    "a recurrent product": ["elman", "lif_network", "recurrent_lif_with_readout", "lstm", "gru_reset_after"],
    "a weight that reaches the state through another product": ["gru", "encoder", "layer_norm"],
    "a layer that feeds another": ["three_layers", "two_lif_layers", "tied_transposed"],
    "a state that feeds all positions": ["broadcast_state", "global_inhibition", "large_ring"],
    "a delay that is no hidden state": ["delay_buffer"],
}


@few("name", [*STATES_REACH_ONLY_THEMSELVES, *LINEAR_RECURRENT_UNITS])
def test_equal_to_bptt_where_states_reach_only_themselves(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.D_RTRL(), chunk=1), zoo_gradient(name, ranvier.BPTT())) < ROUNDING


@few("name", [name for names in OTHERWISE.values() for name in names])
def test_different_from_bptt_otherwise(name: str) -> None:
    assert difference(zoo_gradient(name, ranvier.D_RTRL(), chunk=T), zoo_gradient(name, ranvier.BPTT())) > 1e-3


# The definition ---------------------------------------------------------------------------------------------------


@few("name", CASES)
def test_equal_to_the_rule_in_numpy(name: str) -> None:
    case = CASES[name]()
    expected = d_rtrl(case.steps())
    for chunk in (1, 4, T):
        found = gradient(case.model, ranvier.D_RTRL(), jnp.asarray(case.xs), case.inputs, chunk=chunk)
        found = {path: found[path,] for (path,) in found}
        assert found.keys() == expected.keys()
        for path in expected:
            assert difference(found[path], expected[path]) < ROUNDING, (path, chunk)


@pytest.mark.parametrize("name", CASES)
def test_the_models_in_numpy_are_alive(name: str) -> None:
    """Neurons spike, no gradient is zero, and every traced parameter has a temporal part."""
    steps = CASES[name]().steps()
    whole, same = d_rtrl(steps), same_step(steps)
    assert all(np.abs(value).max() > 0.05 for value in whole.values())
    assert all(np.abs(whole[path] - same[path]).max() > 0.01 for path in steps[0].drives)
    if steps[0].spikes is not None:
        assert 0.05 < np.mean([step.spikes for step in steps]) < 0.95


NOT_CUT_BY_MARKS = {
    "rematerialized": "marks inside a nested function do not come out",
    "nested_jit": "marks inside a nested function do not come out",
    "recurrence_inside_long_scan": "the marks cut the product whose result they mark",
}
WITHOUT_MEMORY = {"elman": "D is zero"}
MARKED = [m.name for m in MODELS.values() if m.is_step_function and m.differentiable and m.name not in NOT_CUT_BY_MARKS]


@few("name", MARKED)
def test_equal_to_the_rule_with_dense_jacobians(name: str) -> None:
    expected, same = dense_d_rtrl(MODELS[name], zoo_program(name)[1])
    assert difference(zoo_gradient(name, ranvier.D_RTRL(), chunk=1), expected) < ROUNDING
    assert (difference(same, expected) > 1e-3) != (name in WITHOUT_MEMORY)


def test_nesting_changes_nothing() -> None:
    def plain(params, state, x):
        v, z = lif(state["v"], x @ params["w"] + jnp.tanh(state["v"]) @ params["u"])
        return {"v": v}, z

    nested, inputs = MODELS["nested_jit"].build(jnp.float64)
    model = observed(ranvier.step_function(plain, nested.params, nested.state))
    expected = gradient(model, ranvier.D_RTRL(), zoo_program("nested_jit")[1], inputs, chunk=1)
    for name in ("nested_jit", "rematerialized"):
        assert difference(zoo_gradient(name, ranvier.D_RTRL(), chunk=1), expected) < ROUNDING


def test_a_recurrent_product_inside_a_loop() -> None:
    """dy/dw is that of the whole loop, D only what stays in place: ``0.98 ** 40``."""
    (info, xs), (model, _) = (f("recurrence_inside_long_scan") for f in (zoo_program, build))
    v, total, trace = jnp.zeros(4), jnp.zeros((4, 4)), jnp.zeros((4, 4, 4))

    def one_step(u, v, x):
        return model.step({"u": u}, {"v": v}, x)[0]["v"]

    by_weight, signal = jax.jit(jax.jacobian(one_step)), jax.grad(lambda v, phase: loss((v, [v]), phase))
    for x, phase in zip(xs, phases()):
        trace = 0.98**40 * trace + by_weight(model.params["u"], v, x)
        v = one_step(model.params["u"], v, x)
        total = total + jnp.tensordot(signal(v, phase), trace, 1)
    assert difference(gradient(info, ranvier.D_RTRL(), xs, chunk=1), {("u",): total}) < 1e-10


@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.ES_D_RTRL(decay=0.5)], ids=lambda rule: rule.name)
def test_products_of_less_precision_than_the_states(rule) -> None:
    def step(params, state, x):
        v = jnp.tanh(0.5 * state["v"] + (x.astype(jnp.float32) @ params["w"]).astype(jnp.float64))
        return {"v": v}, v

    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    model = ranvier.step_function(step, {"w": w}, {"v": jnp.zeros(4)})
    xs = sequence([jnp.ones(3)])
    by_chunk = [gradient(model, rule, xs, (xs[0],), chunk=chunk) for chunk in (1, T)]
    assert by_chunk[0]["w",].dtype == jnp.float32
    assert difference(*by_chunk) < 1e-5


def build(name: str):
    return MODELS[name].build(jnp.float64)


# Batches ----------------------------------------------------------------------------------------------------------

IN_BATCHES = [
    *("dense", "conv", "recurrent_conv2d", "sparse_csr", "sparse_bcoo", "embedding", "grouped_einsum", "encoder"),
    *("layer_norm", "lru", "lstm_packed", "adaptive_threshold", "tied_weights", "rolled_output", "sliced_output"),
    *("small_ring", "broadcast_state", "weights_inside_cond", "weight_inside_long_scan", "ring_buffer_with_counter"),
    *("lif_network", "braintrace_sparse_linear", "braintrace_operators"),
]


@few("name", IN_BATCHES)
def test_a_batch_is_the_sum_of_its_samples(name: str) -> None:
    size, steps = 3, 6
    model, inputs = build(name)
    xs = sequence(inputs, steps, lead=(size,))
    batched = ranvier.compile(observed(model), ranvier.D_RTRL(), *inputs, batch_size=size, chunk=4)
    found, aux = batched.grad(batch_loss, xs, phases(steps))
    single = ranvier.compile(observed(model), ranvier.D_RTRL(), *inputs, chunk=4)
    by_sample, aux_by_sample = jax.vmap(lambda xs: single.grad(loss, xs, phases(steps)), in_axes=1)(xs)
    assert difference(found, jax.tree.map(lambda g: g.sum(0), by_sample)) < ROUNDING
    np.testing.assert_allclose(aux.losses, aux_by_sample.losses.sum(0))
    for outputs, expected in zip(jax.tree.leaves(aux.outputs), jax.tree.leaves(aux_by_sample.outputs)):
        np.testing.assert_allclose(outputs, jnp.moveaxis(expected, 0, 1), rtol=1e-10, atol=1e-12)


def test_a_model_with_a_batch_axis_of_its_own() -> None:
    xs = sequence([jnp.ones((2, 3))])
    found = gradient(build("batched_lif_network")[0], ranvier.D_RTRL(), xs, build("batched_lif_network")[1], chunk=3)
    learner = ranvier.compile(build("lif_network")[0], ranvier.D_RTRL(), jnp.ones(3), batch_size=2, chunk=3)
    expected, _ = learner.grad(loss, xs, phases())
    assert difference(found, expected) < ROUNDING
    assert flat(expected).any()


@pytest.mark.parametrize("name", ["noisy", "delayed_and_noisy"])
def test_samples_have_noise_of_their_own(name: str) -> None:
    model, inputs = build(name)
    learner = ranvier.compile(observed(model), ranvier.D_RTRL(), *inputs, batch_size=3)
    xs = jnp.broadcast_to(sequence(inputs)[:, None], (T, 3, 3))
    _, aux = learner.grad(batch_loss, xs, phases())
    (potential,) = (
        leaf for slot, leaf in zip(learner.info.hidden, aux.state.hidden, strict=True) if slot.path[-1] in ("v", "V")
    )
    assert len({sample.tobytes() for sample in np.asarray(potential)}) == 3
