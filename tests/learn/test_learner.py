"""The learner's interface: what goes in, what comes out, and what it does with what does not fit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from ranvier.learn.sequences.gradients import GradientFunction
from tests.support.learning import T, difference, flat, gradient, learning, loss, phases, sequence
from tests.support.slow_d_rtrl import CASES
from tests.support.zoo import MODELS

pytestmark = learning

RULES = [ranvier.D_RTRL(), ranvier.BPTT(), ranvier.RTRL(), ranvier.ES_D_RTRL(decay=0.5), ranvier.OTTT(decay=0.5)]
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def network(rule=None, **options):
    """A learner of recurrent neurons with a readout, and its inputs over time."""
    case = CASES["lif_with_synapse"]()
    rule = rule or ranvier.D_RTRL()
    return ranvier.compile(case.model, rule, *case.inputs, **options), jnp.asarray(case.xs)


def squares(output, target):
    return ((output - target) ** 2).sum()


def targets(steps: int = T):
    return jnp.asarray(np.random.default_rng(5).normal(size=(steps, 2)))


# What comes out ---------------------------------------------------------------------------------------------------


@every_rule
def test_losses_and_outputs_are_those_of_the_model(rule) -> None:
    learner, xs = network(rule, chunk=4)
    _, aux = learner.grad(squares, xs, targets())
    model, state, outputs = learner.model, learner.model.state, []
    for x in xs:
        state, output = model.step(model.params, state, x)
        outputs.append(output)
    np.testing.assert_allclose(aux.outputs, jnp.stack(outputs), rtol=1e-12)
    np.testing.assert_allclose(aux.losses, jax.vmap(squares)(jnp.stack(outputs), targets()), rtol=1e-12)
    np.testing.assert_allclose(aux.loss, aux.losses.sum(), rtol=1e-12)
    for found, expected in zip(aux.state.hidden, jax.tree.leaves(state)):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_states_that_are_handed_on() -> None:
    """States that take each other's values, an input's or a number, in a network whose parts need no loop."""

    def step(params, state, x):
        v = 0.8 * state["v"] + jnp.concatenate([x, state["delayed"]]) @ params["w"]
        late = jnp.tanh(state["last"] @ params["late"])
        new = {
            "v": v,
            "delayed": jnp.tanh(state["last"]),
            "last": v,
            "first": state["second"],
            "second": state["first"],
        }
        new |= {"input": x, "older": state["input"], "number": jnp.zeros(2) + 3.0, "r": 0.5 * state["r"] + late}
        return new, new["r"] + state["older"][:1] * state["first"] + state["number"][0] * state["second"]

    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(7, 5)), "late": rng.normal(size=(5, 2))}
    sizes = {"v": 5, "delayed": 5, "last": 5, "first": 2, "second": 2, "input": 2, "older": 2, "number": 2, "r": 2}
    state = {name: jnp.asarray(rng.normal(size=size)) for name, size in sizes.items()}
    model = ranvier.step_function(step, {k: jnp.asarray(v) for k, v in params.items()}, state)
    xs, outputs, state = jnp.asarray(rng.normal(size=(T, 2))), [], model.state
    for x in xs:
        state, output = model.step(model.params, state, x)
        outputs.append(output)
    exact, _ = ranvier.compile(model, ranvier.BPTT(), xs[0]).grad(squares, xs, targets())
    for chunk in (1, 4, None):
        learner = ranvier.compile(model, ranvier.D_RTRL(), xs[0], chunk=chunk)
        found, aux = learner.grad(squares, xs, targets())
        np.testing.assert_allclose(aux.outputs, jnp.stack(outputs), rtol=1e-12)
        for slot, leaf in zip(learner.info.hidden, aux.state.hidden):
            np.testing.assert_allclose(leaf, state[slot.path[0]], rtol=1e-12)
        assert difference(found["late",], exact["late",]) < 1e-12
        assert difference(found["w",], exact["w",]) > 1e-3


@pytest.mark.slow
@every_rule
def test_the_state_is_left_out_on_request(rule) -> None:
    learner, xs = network(rule, chunk=4)
    with_state, aux = learner.grad(squares, xs, targets())
    without, aux_without = learner.grad(squares, xs, targets(), keep_state=False)
    assert aux.state is not None
    assert aux_without.state is None
    assert difference(without, with_state) < 1e-12


def test_gradients_have_the_form_of_the_parameters_units_included() -> None:
    model, inputs = MODELS["trainable_neurons"].build(jnp.float64)
    learner = ranvier.compile(model, ranvier.D_RTRL(), *inputs)
    grads, _ = learner.grad(loss, sequence(inputs), phases())
    assert jax.tree.structure(grads) == jax.tree.structure(learner.params)
    assert [g.shape for g in jax.tree.leaves(grads)] == [p.shape for p in jax.tree.leaves(learner.params)]
    stepped = jax.tree.map(lambda p, g: p - 0.1 * g, learner.params, grads)
    assert stepped["tau",].unit == learner.params["tau",].unit
    assert float(learner.grad(loss, sequence(inputs), phases(), params=stepped)[1].loss) != 0.0


# What goes in -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_rule
def test_mask_weighs_the_steps(rule) -> None:
    """By linearity: the gradients of the steps one by one add up, each times its weight."""
    learner, xs = network(rule, chunk=3)
    weights = jnp.asarray([0.0, 1.0, 0.0, 2.0, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0])
    found, aux = learner.grad(squares, xs, targets(), mask=weights)
    by_step = jax.vmap(lambda mask: learner.grad(squares, xs, targets(), mask=mask)[0])(jnp.eye(T))
    assert difference(found, jax.tree.map(lambda g: jnp.tensordot(weights, g, 1), by_step)) < 1e-12
    unmasked = learner.grad(squares, xs, targets())[1].losses
    np.testing.assert_allclose(aux.losses, weights * unmasked, rtol=1e-12)
    of_booleans, _ = learner.grad(squares, xs, targets(), mask=weights > 0)
    of_numbers, _ = learner.grad(squares, xs, targets(), mask=(weights > 0) * 1.0)
    assert difference(of_booleans, of_numbers) == 0.0


def test_reduction_by_mean() -> None:
    (summed, xs), (mean, _) = network(chunk=3), network(chunk=3, reduction="mean")
    total, aux = summed.grad(squares, xs, targets())
    found, aux_of_mean = mean.grad(squares, xs, targets())
    assert difference(found, jax.tree.map(lambda g: g / T, total)) < 1e-12
    np.testing.assert_allclose(aux_of_mean.loss, aux.loss / T)
    mask = jnp.arange(T) >= 6
    total, _ = summed.grad(squares, xs, targets(), mask=mask)
    found, _ = mean.grad(squares, xs, targets(), mask=mask)
    assert difference(found, jax.tree.map(lambda g: g / 4, total)) < 1e-12


def test_a_loss_without_targets() -> None:
    learner, xs = network(chunk=3)

    def energy(output, target):
        assert target is None
        return (output**2).sum()

    found, _ = learner.grad(energy, xs)
    expected, _ = learner.grad(squares, xs, jnp.zeros((T, 2)))
    assert difference(found, expected) < 1e-12


def test_targets_are_any_pytree() -> None:
    learner, xs = network(chunk=3)
    labels, weight = jnp.asarray(np.random.default_rng(1).integers(0, 2, T)), jnp.linspace(0.0, 1.0, T)

    def cross_entropy(output, target):
        return -target["weight"] * jax.nn.log_softmax(output)[target["label"][0]]

    found, _ = learner.grad(cross_entropy, xs, {"label": (labels,), "weight": weight})
    whole, _ = network(chunk=T)[0].grad(cross_entropy, xs, {"label": (labels,), "weight": weight})
    assert flat(found).any()
    assert difference(found, whole) < 1e-12


@pytest.mark.slow
@every_rule
def test_some_parameters_given(rule) -> None:
    learner, xs = network(rule, chunk=4)
    other = {("w",): 1.3 * learner.params["w",]}
    found, aux = learner.grad(squares, xs, targets(), params=other)
    remade = ranvier.compile(learner.write_back(other), rule, xs[0], chunk=4)
    expected, aux_expected = remade.grad(squares, xs, targets())
    assert difference(found, expected) == 0.0
    assert difference(found, learner.grad(squares, xs, targets())[0]) > 1e-3
    np.testing.assert_array_equal(aux.outputs, aux_expected.outputs)


def test_several_inputs_and_integers() -> None:
    model, inputs = MODELS["braintrace_operators"].build(jnp.float64)
    learner = ranvier.compile(model, ranvier.D_RTRL(), *inputs, chunk=3)
    x, tokens = sequence(inputs)
    found, aux = learner.grad(loss, (x, tokens), phases())
    assert aux.outputs.shape == (T, 4)
    other, _ = learner.grad(loss, (x, (tokens + 1) % 3), phases())
    assert difference(other, found) > 1e-3


# Transformations --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@every_rule
def test_inside_jit(rule) -> None:
    learner, xs = network(rule, chunk=4)
    expected, aux = learner.grad(squares, xs, targets())
    found, aux_of_jit = jax.jit(lambda params, xs, ys: learner.grad(squares, xs, ys, params=params))(
        learner.params, xs, targets()
    )
    assert difference(found, expected) < 1e-12
    assert difference(aux_of_jit, aux) < 1e-12


@pytest.mark.slow
@every_rule
def test_streaming_inside_scan(rule) -> None:
    """Two steps at a time, with the state carried by ``lax.scan``; BPTT goes back over two steps alone."""
    learner, xs = network(rule)

    def go_on(state, given):
        grads, aux = learner.grad(squares, *given, state=state)
        return aux.state, (grads, aux.losses)

    given = jax.tree.map(lambda x: x.reshape(T // 2, 2, *x.shape[1:]), (xs, targets()))
    state, (grads, losses) = jax.lax.scan(go_on, learner.init(), given)
    expected, aux = learner.grad(squares, xs, targets())
    np.testing.assert_allclose(losses.reshape(T), aux.losses)
    summed = jax.tree.map(lambda g: g.sum(0), grads)
    if rule == ranvier.BPTT():
        assert difference(summed, expected) > 1e-3
    else:
        assert difference(summed, expected) < 1e-12
        assert difference(state, aux.state) < 1e-12


def test_steps_of_an_optimizer_reduce_the_loss() -> None:
    learner, xs = network(chunk=5)
    optimizer = optax.sgd(1e-2)

    @jax.jit
    def update(params, state):
        grads, aux = learner.grad(squares, xs, targets(), params=params, keep_state=False)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, aux.loss

    params, state, losses = learner.params, optimizer.init(learner.params), []
    for _ in range(15):
        params, state, value = update(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.7 * losses[0]
    again = ranvier.compile(learner.write_back(params), ranvier.D_RTRL(), xs[0])
    np.testing.assert_allclose(again.grad(squares, xs, targets())[1].loss, update(params, state)[2], rtol=1e-9)


def test_online_updates_reduce_the_loss() -> None:
    """An update after every step, inside ``lax.scan``; the traces go on with the new weights."""
    learner, xs = network()
    repeated, wanted = jnp.tile(xs[:1], (60, 1)), jnp.tile(targets()[:1], (60, 1))

    def turn(carry, given):
        params, state = carry
        x, y = given
        grads, aux = learner.grad(squares, x[None], y[None], state=state, params=params)
        return (jax.tree.map(lambda p, g: p - 3e-3 * g, params, grads), aux.state), aux.loss

    _, losses = jax.lax.scan(turn, (learner.params, learner.init()), (repeated, wanted))
    assert losses[-10:].mean() < 0.7 * losses[5:15].mean()


# Writing back -----------------------------------------------------------------------------------------------------


def test_write_back_makes_a_new_step_function() -> None:
    learner, _ = network()
    before = {name: np.asarray(value) for name, value in learner.model.params.items()}
    model = learner.write_back({("u",): 2 * learner.params["u",]})
    assert isinstance(model, ranvier.types.StepFunction)
    np.testing.assert_array_equal(model.params["u"], 2 * before["u"])
    np.testing.assert_array_equal(model.params["w"], before["w"])
    np.testing.assert_array_equal(learner.model.params["u"], before["u"])


def test_write_back_keeps_nested_parameters() -> None:
    model, inputs = MODELS["nested_parameter_paths"].build(jnp.float64)
    learner = ranvier.compile(model, ranvier.D_RTRL(), *inputs)
    doubled = learner.write_back(jax.tree.map(lambda p: 2 * p, learner.params))
    assert jax.tree.structure(doubled.params) == jax.tree.structure(model.params)
    assert difference(doubled.params, jax.tree.map(lambda p: 2 * p, model.params)) == 0.0


def test_write_back_into_a_brainstate_module() -> None:
    model, inputs = MODELS["trainable_neurons"].build(jnp.float64)
    learner = ranvier.compile(model, ranvier.D_RTRL(), *inputs)
    xs = sequence(inputs)
    doubled = {("tau",): 2 * learner.params["tau",]}
    expected, _ = learner.grad(loss, xs, phases(), params=doubled)
    untouched = model.linear.weight.value
    assert learner.write_back(doubled) is model
    assert model.tau.value.unit == doubled["tau",].unit
    np.testing.assert_array_equal(model.tau.value.mantissa, doubled["tau",].mantissa)
    assert model.linear.weight.value is untouched
    assert difference(gradient(model, ranvier.D_RTRL(), xs, inputs), expected) < 1e-12


def test_a_bare_program_has_nowhere_to_write() -> None:
    learner, xs = network()
    of_program = ranvier.compile(learner.info, ranvier.D_RTRL())
    assert difference(of_program.grad(squares, xs, targets())[0], learner.grad(squares, xs, targets())[0]) < 1e-12
    with pytest.raises(ranvier.ModelError, match="compile it from the brainstate module or the step function"):
        of_program.write_back(of_program.params)


# What does not fit ------------------------------------------------------------------------------------------------

XS, YS = np.ones((T, 3)), np.ones((T, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"xs": np.ones((T, 4))}, r"\[T,3\] .* got \[10,4\]"),
        ({"xs": np.ones(3)}, r"\[T,3\] .* got \[3\]"),
        ({"xs": np.ones((2, T, 3))}, r"\[T,3\] .* got \[2,10,3\]"),
        ({"xs": (XS, XS)}, r"\[T,3\] .* got \[10,3\], \[10,3\]"),
        ({"xs": None}, r"\[T,3\] .* got none"),
        ({"xs": XS[:0], "ys": YS[:0]}, r"at least one, but have xs \[0\]"),
        ({"ys": YS[:4]}, r"xs \[10\]; ys \[4\]"),
        ({"ys": {"a": YS, "b": YS[1:]}}, r"xs \[10\]; ys \[9, 10\]"),
        ({"ys": 0.0}, r"ys \['no time axis'\]"),
        ({"mask": np.ones(4)}, r"xs \[10\]; ys \[10\]; mask \[4\]"),
        ({"mask": np.ones((T, 2))}, r"mask has shape \[10,2\]"),
        ({"mask": 1.0}, "mask .*no time axis"),
        ({"params": {("nonsense",): XS}}, r"nonsense, but the parameters of step are u, w, w_out"),
        ({"params": {"w": XS}}, r"'w', but the parameters of step are u, w, w_out"),
        ({"params": {("w",): np.ones((5, 3))}}, r"w has shape \[5,3\], but the parameter has \[3,5\]"),
        ({"params": {("w",): {"nested": np.ones((3, 5))}}}, r"the value for w"),
        ({"loss": lambda y, target: (y - target) ** 2}, r"returned float64\[2\], but must return one real number"),
        ({"loss": lambda y, target: (y > target).sum()}, r"returned int64\[\], but must return one real number"),
        ({"loss": lambda y, target: (y.sum(), y.sum())}, r"returned float64\[\], float64\[\], but must return one"),
        ({"loss": lambda y, target: None}, "returned nothing, but must return one real number"),
    ],
)
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.BPTT(), ranvier.RTRL()], ids=lambda rule: rule.name)
def test_bad_arguments(rule, arguments: dict, message: str) -> None:
    learner, _ = network(rule)
    given = {"loss": squares, "xs": XS, "ys": YS} | arguments
    with pytest.raises(ranvier.InputError, match=message):
        learner.grad(**given)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda: {"state": "nonsense"},
        lambda: {"state": network(ranvier.BPTT())[0].init()},
        lambda: {"state": network(batch_size=2)[0].init()},
        lambda: {"params": {("w",): np.ones((3, 5), int)}},
        lambda: {"loss": lambda y, target: 1j * y.sum()},
    ],
    ids=["no state", "another rule's state", "a batch's state", "integer parameter", "complex loss"],
)
def test_states_dtypes_and_losses_that_do_not_fit(arguments) -> None:
    learner, _ = network()
    given = {"loss": squares, "xs": XS, "ys": YS} | arguments()
    with pytest.raises(ranvier.InputError):
        learner.grad(**given)


@pytest.mark.parametrize(
    ("xs", "message"),
    [(np.ones((T, 3)), r"\[T,2,3\] .* got \[10,3\]"), (np.ones((T, 4, 3)), r"\[T,2,3\] .* got \[10,4,3\]")],
)
def test_inputs_without_the_batch(xs, message: str) -> None:
    learner, _ = network(batch_size=2)
    with pytest.raises(ranvier.InputError, match=message):
        learner.grad(squares, xs, np.ones((T, 2, 2)))


def test_parameters_that_cannot_be_written_back() -> None:
    learner, _ = network()
    with pytest.raises(ranvier.InputError, match="nonsense, but the parameters of step are"):
        learner.write_back({("nonsense",): 1.0})
    with pytest.raises(ranvier.InputError, match=r"w has shape \[2\], but the parameter has \[3,5\]"):
        learner.write_back({("w",): np.ones(2)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": ranvier.D_RTRL}, r"needs a rule as its second argument, but got <class .*such as ranvier.D_RTRL\(\)"),
        ({"rule": "D_RTRL"}, "needs a rule as its second argument, but got 'D_RTRL'"),
        ({"reduction": "max"}, "reduction='max' is unknown; use 'sum' or 'mean'"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        ({"batch_size": 2.5}, r"batch_size=2\.5 must be a whole number of at least 1"),
        ({"chunk": -1}, "chunk=-1 must be a whole number of at least 1"),
    ],
)
def test_bad_options_of_compile(options: dict, message: str) -> None:
    with pytest.raises(ranvier.RuleError, match=message):
        network(**options)


def test_example_inputs_with_a_batch_and_a_batch_size() -> None:
    with pytest.raises(ranvier.RanvierError, match=r"float64\[2,5\]"):
        ranvier.compile(CASES["lif_with_synapse"]().model, ranvier.D_RTRL(), jnp.ones((2, 3)), batch_size=2)


def test_a_learner_does_not_write_out_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """``jax.jit`` names a callable object by its text, which for a large program takes longer than to compile it."""

    def refuse(self: object) -> str:
        raise AssertionError("the program was written out")

    monkeypatch.setattr(GradientFunction, "__repr__", refuse)
    learner, xs = network()
    gradients, _ = learner.grad(squares, xs, targets())
    assert gradients
