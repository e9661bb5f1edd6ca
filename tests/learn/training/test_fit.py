"""``ranvier.fit``: learning, metrics, held-out data, checkpoints, and errors that say what is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.examples import few
from tests.support.learning import observed
from tests.support.zoo import MODELS
from tests.support.zoo.model import normal, spike

pytestmark = pytest.mark.usefixtures("quick_compilation")

STEPS, BATCH, N_IN, N_REC, N_OUT = 10, 4, 3, 6, 2


def network() -> ranvier.types.StepFunction:
    """Recurrent LIF neurons and a leaky readout."""

    def step(params, state, x):
        z = spike(state["v"] - 0.6)
        current = x @ params["w_in"] + z @ params["w_rec"]
        v = 0.8 * state["v"] + current - 0.6 * jax.lax.stop_gradient(z)
        r = 0.8 * state["r"] + spike(v - 0.6) @ params["w_out"]
        return {"v": v, "r": r}, r

    shapes = {"w_in": (N_IN, N_REC), "w_rec": (N_REC, N_REC), "w_out": (N_REC, N_OUT)}
    params = {name: normal(k, *shape, dtype=jnp.float32, scale=0.6) for k, (name, shape) in enumerate(shapes.items())}
    return ranvier.step_function(step, params, {"v": jnp.zeros(N_REC), "r": jnp.zeros(N_OUT)}, name="network")


def class_loss(output, target):
    return -jnp.take_along_axis(jax.nn.log_softmax(output), target[..., None], -1).mean()


def square_loss(output, target):
    return (output**2).sum()


def batch(seed: int, size: int = BATCH) -> tuple:
    """The class is which of the first two inputs is the stronger; asked in the second half."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 2, size)
    xs = rng.uniform(0, 0.5, (STEPS, size, N_IN)) + np.eye(N_IN)[classes]
    return (
        jnp.asarray(xs, jnp.float32),
        jnp.asarray(np.tile(classes, (STEPS, 1))),
        jnp.asarray(np.arange(STEPS) >= STEPS // 2, jnp.float32),
    )


def batches(epoch: int = 0) -> list:
    return [batch(10 * epoch + k) for k in range(4)]


def make(rule=ranvier.D_RTRL(), **options) -> ranvier.types.Learner:  # noqa: B008
    return ranvier.compile(network(), rule, jnp.ones(N_IN), batch_size=BATCH, chunk=5, reduction="mean", **options)


def train(learner=None, data=batches, epochs=2, loss=class_loss, optimizer=None, **options) -> ranvier.types.FitResult:
    optimizer = optax.adam(0.02) if optimizer is None else optimizer
    return ranvier.fit(learner or make(), data, loss, optimizer, epochs, progress=False, **options)


def same_bits(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


# Learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp("random"), ranvier.BPTT()], ids=["D", "E", "B"])
def test_learns(rule) -> None:
    learner = make(rule)
    measured = {"metrics": {"accuracy": ranvier.accuracy}, "held_out": [batch(500, 16)]}
    found = train(learner, epochs=12, optimizer=optax.adam(0.05), **measured)
    assert [entry["epoch"] for entry in found.history] == list(range(12))
    assert set(found.history[0]) == {"epoch", "loss", "accuracy", "eval_loss", "eval_accuracy"}
    assert found.history[-1]["loss"] < 0.6 * found.history[0]["loss"]
    assert found.history[-1]["accuracy"] > 0.75
    assert found.history[-1]["eval_accuracy"] > 0.75
    value, outputs = learner.with_batch_size(16).evaluate(
        class_loss, *batch(500, 16)[:2], mask=batch(500, 16)[2], params=found.params
    )
    np.testing.assert_allclose(found.history[-1]["eval_loss"], value, rtol=1e-5)
    np.testing.assert_allclose(
        found.history[-1]["eval_accuracy"], ranvier.accuracy(outputs, *batch(500, 16)[1:]), rtol=1e-5
    )


@pytest.mark.slow
def test_an_epoch_is_the_updates_one_by_one() -> None:
    learner, optimizer = make(), optax.adam(0.02)
    params = learner.params
    state, losses = optimizer.init(params), []
    for xs, ys, mask in batches():
        grads, aux = learner.grad(class_loss, xs, ys, mask=mask, params=params)
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        losses.append(float(aux.loss))
    found = train(learner, batches(), epochs=1)
    for path in params:
        np.testing.assert_allclose(found.params[path], params[path], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.history[0]["loss"], np.mean(losses), rtol=1e-5)


@pytest.mark.slow
def test_starts_from_parameters_given_and_leaves_the_model_alone() -> None:
    learner = make()
    before = {path: np.array(value) for path, value in learner.params.items()}
    start = {("w_out",): jnp.zeros((N_REC, N_OUT))}
    found = train(learner, epochs=1, params=start, optimizer=optax.sgd(0.0))
    np.testing.assert_array_equal(found.params["w_out",], 0.0)
    np.testing.assert_array_equal(found.params["w_in",], before["w_in",])
    np.testing.assert_allclose(found.history[0]["loss"], np.log(2), rtol=1e-6)
    same_bits(learner.params, before)


@pytest.mark.slow
def test_data_in_all_forms_is_the_same() -> None:
    expected = train(data=batches(), epochs=2)
    objects = [SimpleNamespace(xs=xs, ys=ys, mask=mask) for xs, ys, mask in batches()]
    for data in (objects, lambda epoch: iter(batches())):
        found = train(data=data, epochs=2)
        same_bits(found.params, expected.params)
        assert found.history == expected.history
    unmasked = train(data=[SimpleNamespace(xs=xs, ys=ys) for xs, ys, _ in batches()], epochs=1)
    same_bits(unmasked.params, train(data=[b[:2] for b in batches()], epochs=1).params)
    assert unmasked.history[0] != expected.history[0]


def test_a_function_of_the_epoch_gives_other_batches() -> None:
    seen = []

    def data(epoch):
        seen.append(epoch)
        return batches(epoch)

    train(data=data, epochs=3)
    assert seen == [0, 1, 2]


def test_a_model_without_batch_axis() -> None:
    learner = ranvier.compile(network(), ranvier.D_RTRL(), jnp.ones(N_IN), reduction="mean")
    data = [(xs[:, 0], ys[:, 0], mask) for xs, ys, mask in batches()]
    found = train(learner, data, epochs=1, held_out=data, metrics={"accuracy": ranvier.accuracy})
    assert np.isfinite(found.history[0]["eval_loss"])


@pytest.mark.slow
def test_progress(capsys) -> None:
    ranvier.fit(make(), batches(), class_loss, optax.sgd(0.1), 1, progress=False)
    assert capsys.readouterr() == ("", "")
    ranvier.fit(make(), batches(), class_loss, optax.sgd(0.1), 1, progress=True)
    assert "epoch 1" in capsys.readouterr().out


def test_accuracy() -> None:
    outputs = jnp.asarray([[[2.0, 1.0], [0.0, 1.0]], [[2.0, 1.0], [0.0, 1.0]]])
    classes = jnp.asarray([[0, 1], [1, 0]])
    assert ranvier.accuracy(outputs, classes) == 0.5
    assert ranvier.accuracy(outputs, classes, jnp.asarray([1.0, 0.0])) == 1.0
    assert ranvier.accuracy(outputs, classes, jnp.asarray([1.0, 3.0])) == 0.25


# The learner ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_evaluate_is_the_forward_pass_of_grad(reduction: str) -> None:
    learner = ranvier.compile(network(), ranvier.D_RTRL(), jnp.ones(N_IN), batch_size=BATCH, reduction=reduction)
    xs, ys, mask = batch(0)
    params = {("w_out",): 2 * learner.params["w_out",]}
    value, outputs = learner.evaluate(class_loss, xs, ys, params=params, mask=mask)
    _, aux = learner.grad(class_loss, xs, ys, params=params, mask=mask)
    np.testing.assert_allclose(value, aux.loss, rtol=1e-5)
    np.testing.assert_allclose(outputs, aux.outputs, rtol=1e-5, atol=1e-6)
    assert value != learner.evaluate(class_loss, xs, ys, mask=mask)[0]


@pytest.mark.slow
def test_with_batch_size() -> None:
    learner = make()
    assert learner.with_batch_size(BATCH) is learner
    assert learner.with_batch_size(7).batch_size == 7
    (xs, ys, mask), other = batch(0, 7), learner.with_batch_size(7)
    value, outputs = other.evaluate(class_loss, xs, ys, mask=mask)
    assert outputs.shape == (STEPS, 7, N_OUT)
    by_sample = [learner.with_batch_size(None).evaluate(class_loss, xs[:, b], ys[:, b], mask=mask)[0] for b in range(7)]
    np.testing.assert_allclose(value, np.mean(by_sample), rtol=1e-5)


# What goes on from batch to batch ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.BPTT()], ids=["D_RTRL", "BPTT"])
def test_noise_differs_from_update_to_update(rule) -> None:
    """One batch an epoch, always the same, and a learning rate of zero."""
    model, inputs = MODELS["noisy"].build()
    learner = ranvier.compile(observed(model), rule, *inputs)
    data = [(jnp.ones((STEPS, *inputs[0].shape)), None)]
    options = {"epochs": 4, "loss": potential_loss, "optimizer": optax.sgd(0.0)}
    history = train(learner, data, **options).history
    assert len({entry["loss"] for entry in history}) == 4
    assert train(learner, data, **options).history == history


def potential_loss(output, target):
    spikes, (potential,) = output
    return spikes.sum() + potential.sum()


@pytest.mark.slow
def test_random_signs_differ_from_update_to_update() -> None:
    learner, once = ranvier.compile(network(), ranvier.UORO(), jnp.ones(N_IN)), batch(0)
    data = [(once[0][:, 0], once[1][:, 0], once[2])]
    first = train(learner, data, epochs=1, optimizer=optax.sgd(1e-3)).params
    second = train(learner, data * 2, epochs=1, optimizer=optax.sgd(1e-3)).params
    for path in (("w_in",), ("w_rec",)):
        start = learner.params[path]
        assert not np.allclose(second[path] - first[path], first[path] - start, rtol=1e-2, atol=1e-7)


@pytest.mark.slow
def test_feedback_weights_go_on_from_batch_to_batch() -> None:
    """Two batches with fixed parameters: the second learns by the feedback that the first left behind."""
    rule, xs_ys = ranvier.EProp("adaptive", feedback_rate=0.5), batches()[:2]
    learner = make(rule)
    state, total = learner.init(), jax.tree.map(jnp.zeros_like, learner.params)
    for xs, ys, mask in xs_ys:
        start = learner.restart(None, learner.lasting_of(state), 0)
        np.testing.assert_array_equal(start.hidden[0], 0.0)
        grads, aux = learner.grad(class_loss, xs, ys, mask=mask, state=start)
        state, total = aux.state, jax.tree.map(jnp.add, total, grads)

    def summed(params):
        return jax.tree.map(jnp.zeros_like, params)

    # Parameters stay as they are; the optimizer's state sums the gradients.
    adding = optax.GradientTransformation(
        summed, lambda grads, state, params=None: (summed(grads), jax.tree.map(jnp.add, state, grads))
    )
    found = train(learner, xs_ys, epochs=1, optimizer=adding)
    anew = jax.tree.map(jnp.add, *(learner.grad(class_loss, xs, ys, mask=mask)[0] for xs, ys, mask in xs_ys))
    for path in total:
        np.testing.assert_allclose(found.optimizer_state[path], total[path], rtol=1e-4, atol=1e-6)
    assert not np.allclose(anew["w_in",], total["w_in",], rtol=1e-2)


# Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule", [ranvier.D_RTRL(), ranvier.EProp("adaptive", feedback_rate=0.1)], ids=["D_RTRL", "adaptive"]
)
def test_resuming_is_exact(rule, tmp_path) -> None:
    options = {"metrics": {"accuracy": ranvier.accuracy}, "held_out": [batch(500, 3)]}
    whole = train(make(rule), epochs=4, **options)
    train(make(rule), epochs=2, checkpoint=tmp_path / "run", **options)
    resumed = train(make(rule), epochs=4, checkpoint=tmp_path / "run", **options)
    same_bits(resumed.params, whole.params)
    same_bits(resumed.optimizer_state, whole.optimizer_state)
    assert resumed.history == whole.history
    assert all(isinstance(value, float) for entry in resumed.history for value in entry.values())
    done = train(make(rule), epochs=4, checkpoint=tmp_path / "run", **options)
    same_bits(done.params, whole.params)
    assert done.history == whole.history


@pytest.mark.slow
def test_resuming_a_noisy_model_is_exact(tmp_path) -> None:
    model, inputs = MODELS["noisy"].build()
    data = [(jnp.ones((STEPS, *inputs[0].shape)), None)] * 2
    learner = ranvier.compile(model, ranvier.D_RTRL(), *inputs)
    options = {"loss": square_loss, "optimizer": optax.sgd(0.01)}
    whole = train(learner, data, epochs=3, **options)
    train(learner, data, epochs=1, checkpoint=tmp_path, **options)
    resumed = train(learner, data, epochs=3, checkpoint=tmp_path, **options)
    same_bits(resumed.params, whole.params)
    assert resumed.history == whole.history
    assert len({entry["loss"] for entry in whole.history}) == 3


@pytest.mark.slow
def test_checkpoints_that_do_not_fit(tmp_path) -> None:
    train(epochs=1, checkpoint=tmp_path)
    with pytest.raises(ranvier.InputError, match="resume=True"):
        train(epochs=2, checkpoint=tmp_path, resume=False)
    with pytest.raises(ranvier.InputError, match="EProp"):
        train(make(ranvier.EProp()), epochs=2, checkpoint=tmp_path)
    model, inputs = MODELS["gru"].build()
    other = ranvier.compile(model, ranvier.D_RTRL(), *inputs)
    with pytest.raises(ranvier.InputError, match="w_z"):
        train(other, [(jnp.ones((STEPS, N_IN)), None)], epochs=2, loss=square_loss, checkpoint=tmp_path)
    with pytest.raises(ranvier.InputError, match="optimizer"):
        train(epochs=2, checkpoint=tmp_path, optimizer=optax.sgd(0.1))


@pytest.mark.slow
def test_resume_false_starts_in_an_empty_directory(tmp_path) -> None:
    expected = train(epochs=1)
    same_bits(train(epochs=1, checkpoint=tmp_path / "new", resume=False).params, expected.params)


def test_a_checkpoint_is_a_directory(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ranvier.InputError, match="directory"):
        train(epochs=1, checkpoint=tmp_path / "file")


@pytest.mark.slow
def test_two_trainings_in_one_directory(tmp_path) -> None:
    """The second is refused, in this process and in another, and the first goes on."""
    other = (
        "import sys; from pathlib import Path; from ranvier.util.locks import locked\n"
        f"with locked(Path({str(tmp_path)!r}) / '.training') as free: sys.exit(0 if free else 7)"
    )
    codes = []

    def data(epoch: int) -> list[Any]:
        codes.append(subprocess.run([sys.executable, "-c", other], check=False).returncode)
        with pytest.raises(ranvier.InputError, match="another training run is using the checkpoints in"):
            train(epochs=1, checkpoint=tmp_path)
        return [batch(0)]

    expected = train(data=[batch(0)], epochs=2)
    same_bits(train(data=data, epochs=2, checkpoint=tmp_path).params, expected.params)
    assert codes == [7, 7]
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 0
    train(data=[batch(0)], epochs=3, checkpoint=tmp_path)


@pytest.mark.slow
def test_a_training_that_fails_frees_its_directory(tmp_path) -> None:
    with pytest.raises(ranvier.TrainingError):
        train(epochs=1, checkpoint=tmp_path, loss=lambda y, target: jnp.log(-1.0) * y.sum())
    train(epochs=1, checkpoint=tmp_path)


def _files(folder) -> list[Any]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".training")


@pytest.mark.slow
def test_damaged_checkpoints_are_errors(tmp_path) -> None:
    """Every file of a checkpoint cut, emptied, filled with junk, changed in one byte, and removed."""
    learner = make()
    good = train(learner, [batch(0)], epochs=1, checkpoint=tmp_path / "good")
    generator, refused = np.random.default_rng(0), 0
    for number, file in enumerate(_files(tmp_path / "good")):
        content = file.read_bytes()
        flipped = bytearray(content)
        if content:
            flipped[generator.integers(len(content))] ^= 1 << generator.integers(8)
        for k, bad in enumerate((content[: len(content) // 2], b"", b"{" * 5000, bytes(flipped), None)):
            folder = tmp_path / f"bad{number}.{k}"
            shutil.copytree(tmp_path / "good", folder)
            copy = folder / file.relative_to(tmp_path / "good")
            copy.unlink() if bad is None else copy.write_bytes(bad)
            try:
                again = train(learner, [batch(0)], epochs=1, checkpoint=folder)
                same_bits(again.params, good.params)
                assert again.history == good.history
            except ranvier.InputError as error:
                assert str(folder) in str(error)  # noqa: PT017
                refused += 1
    assert refused > 8


@pytest.mark.slow
def test_a_checkpoint_whose_text_is_too_long_is_refused(tmp_path) -> None:
    learner, data = make(), [batch(0)]
    train(learner, data, epochs=1, checkpoint=tmp_path)
    (text,) = (tmp_path / "0" / "about").glob("metadata")
    text.write_text(text.read_text() + " " * 4000)
    with ranvier.limits(text_bytes=3000), pytest.raises(ranvier.InputError, match=r"about/metadata.*text_bytes=\d+"):
        train(learner, data, epochs=2, checkpoint=tmp_path)
    train(learner, data, epochs=2, checkpoint=tmp_path)


@pytest.mark.slow
def test_the_epoch_before_a_damaged_one_can_be_gone_on_from(tmp_path) -> None:
    learner, data = make(), [batch(0)]
    train(learner, data, epochs=2, checkpoint=tmp_path)
    for file in _files(tmp_path / "1"):
        file.write_bytes(b"junk")
    with pytest.raises(ranvier.InputError, match="remove its folder 1 to continue from epoch 1"):
        train(learner, data, epochs=2, checkpoint=tmp_path)
    shutil.rmtree(tmp_path / "1")
    same_bits(train(learner, data, epochs=2, checkpoint=tmp_path).params, train(learner, data, epochs=2).params)


@pytest.mark.slow
def test_a_checkpoint_that_was_changed_is_not_gone_on_from(tmp_path) -> None:
    """Arrays of the right shapes from another training, where nothing but the content tells them."""
    learner = make()
    train(learner, [batch(0)], epochs=1, checkpoint=tmp_path / "one")
    train(learner, [batch(1)], epochs=1, checkpoint=tmp_path / "two")
    shutil.rmtree(tmp_path / "one" / "0" / "state")
    shutil.copytree(tmp_path / "two" / "0" / "state", tmp_path / "one" / "0" / "state")
    with pytest.raises(ranvier.InputError, match="its content is not what was written"):
        train(learner, [batch(0)], epochs=2, checkpoint=tmp_path / "one")


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bad_inputs_name_the_state_and_the_step() -> None:
    good, (xs, ys, mask) = batches()[0], batch(1)
    bad = (xs.at[3, 2, 1].set(jnp.nan), ys, mask)
    with pytest.raises(ranvier.TrainingError, match=r"epoch 1, update 2: hidden state v .*step 3"):
        train(data=[good, bad])


def test_a_bad_gradient_names_the_parameter() -> None:
    """All states and the loss are fine, but one parameter has no finite gradient."""

    def step(params, state, x):
        v = 0.8 * state["v"] + x @ params["w"]
        return {"v": v}, v * jnp.sqrt(params["scale"])

    model = ranvier.step_function(step, {"w": jnp.ones((N_IN, 2)), "scale": jnp.zeros(2)}, {"v": jnp.zeros(2)})
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(N_IN))
    data = [(jnp.ones((STEPS, N_IN)), None)]
    with pytest.raises(ranvier.TrainingError, match="gradient of scale is not finite"):
        train(learner, data, loss=lambda output, target: output.sum())


def test_a_bad_optimizer_step_names_the_parameter() -> None:
    bad = optax.chain(optax.sgd(1.0), optax.scale(float("inf")))
    with pytest.raises(ranvier.TrainingError, match="optimizer made w_in not finite"):
        train(optimizer=bad)


def test_a_bad_loss() -> None:
    with pytest.raises(ranvier.TrainingError, match="the loss is not finite"):
        train(loss=lambda output, target: class_loss(output, target) + jnp.inf)


@pytest.mark.slow
def test_data_that_can_be_read_once() -> None:
    train(data=iter(batches()), epochs=1)
    with pytest.raises(ranvier.InputError, match=r"only once.*2 epochs"):
        train(data=iter(batches()), epochs=2)
    with pytest.raises(ranvier.InputError, match=r"held_out.*only once"):
        train(epochs=1, held_out=iter(batches()))


@few(
    ("options", "what"),
    [
        ({"data": []}, "no batch"),
        ({"data": lambda epoch: iter(())}, "no batches for epoch 1"),
        ({"held_out": []}, "held_out has no batches"),
        ({"data": [jnp.ones(3)]}, "a batch is of type ArrayImpl"),
        ({"optimizer": optax.adam}, "optax gradient transformation"),
        ({"epochs": 0}, "at least 1"),
        ({"epochs": 2.0}, "at least 1"),
        ({"params": {("nothing",): 1.0}}, "nothing"),
        ({"params": {("w_in",): jnp.zeros(3)}}, "w_in"),
    ],
)
def test_bad_arguments(options, what: str) -> None:
    with pytest.raises(ranvier.InputError, match=what):
        train(**options)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [ranvier.D_RTRL(), ranvier.EProp("adaptive", feedback_rate=0.1)], ids=repr)
def test_a_last_batch_with_fewer_samples(rule) -> None:
    """Updates one by one, by a learner compiled for the size of each batch."""
    data, optimizer = [batch(0), batch(1, BATCH - 1)], optax.sgd(0.1)
    found = train(make(rule), data, epochs=1, optimizer=optimizer)
    params, lasting, state = make(rule).params, None, None
    for number, (xs, ys, mask) in enumerate(data):
        learner = ranvier.compile(network(), rule, jnp.ones(N_IN), batch_size=xs.shape[1], reduction="mean")
        lasting = learner.lasting() if lasting is None else lasting
        start = learner.restart(params, lasting, number)
        grads, aux = learner.grad(class_loss, xs, ys, mask=mask, params=params, state=start)
        lasting = learner.lasting_of(aux.state)
        updates, state = optimizer.update(grads, optimizer.init(params) if state is None else state)
        params = optax.apply_updates(params, updates)
    for path, value in params.items():
        np.testing.assert_allclose(found.params[path], value, rtol=1e-4, atol=1e-6)
        assert not np.allclose(value, make(rule).params[path], rtol=1e-3, atol=1e-4)


def test_batches_of_another_size_elsewhere() -> None:
    learner = make()
    with pytest.raises(ranvier.InputError, match=rf"learner\.with_batch_size\({BATCH + 1}\)"):
        learner.grad(class_loss, *batch(0, BATCH + 1)[:2])
    one, state = network(), {"v": jnp.zeros((BATCH, N_REC)), "r": jnp.zeros((BATCH, N_OUT))}
    whole = ranvier.compile(
        ranvier.step_function(one.step, one.params, state), ranvier.D_RTRL(), jnp.ones((BATCH, N_IN))
    )
    with pytest.raises(ranvier.InputError, match="batch_size="):
        train(whole, [batch(0), batch(0, BATCH - 1)])
