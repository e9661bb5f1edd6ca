"""Training with pruned and rounded weights: what the network runs with, what moves, and what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.learn.training.test_fit import BATCH, N_IN, batch, batches, class_loss, make, network, same_bits, train

pytestmark = pytest.mark.usefixtures("quick_compilation")
RULES = [
    ranvier.D_RTRL(),
    *(pytest.param(r, marks=pytest.mark.slow) for r in (ranvier.BPTT(), ranvier.EProp(), ranvier.RTRL())),
]


def weights(params: Any) -> dict[Any, np.ndarray]:
    return {path: np.asarray(value) for path, value in params.items()}


def sparsity(params: Any) -> float:
    values = np.concatenate([w.ravel() for w in weights(params).values()])
    return float((values == 0).mean())


# Pruning -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_cubic_schedule_is_followed_with_every_rule(rule: ranvier.Rule) -> None:
    """The weights of every epoch are seen by a metric of the outputs of a network that runs with them."""
    pruning = ranvier.GradualPruning(0.75, end_epoch=3, scope="global")
    result = train(make(rule), epochs=5, compress=[pruning])
    assert sparsity(result.params) == pytest.approx(0.75, abs=0.02)
    assert sparsity(result.uncompressed) == 0.0
    expected = [0.75 * (1 - (1 - t) ** 3) for t in (0.25, 0.5, 0.75, 1.0, 1.0)]
    np.testing.assert_allclose([pruning.part(epoch, 5) for epoch in range(5)], expected)


def test_what_is_pruned_stays_and_is_the_smallest() -> None:
    first = train(epochs=1, compress=[ranvier.GradualPruning(0.5, end_epoch=0)])
    start = weights(make().params)
    for path, w in weights(first.params).items():
        gone = w == 0
        assert gone.sum() == round(0.5 * w.size)
        assert np.abs(start[path])[gone].max() <= np.abs(start[path])[~gone].min()
    longer = train(epochs=3, compress=[ranvier.GradualPruning(0.5, end_epoch=0)])
    for path, w in weights(longer.params).items():
        np.testing.assert_array_equal(w == 0, weights(first.params)[path] == 0)
        assert np.any(w != weights(first.params)[path])


def test_pruned_training_is_plain_training_of_the_masked_network() -> None:
    """An independent reference: the same model with constant masks in its step, and plain fit."""
    result = train(epochs=2, optimizer=optax.sgd(0.1), compress=[ranvier.GradualPruning(0.5, end_epoch=0)])
    masks = {path[0]: jnp.asarray(np.asarray(w) != 0, jnp.float32) for path, w in result.params.items()}
    plain = network()

    def step(params: Any, state: Any, x: Any) -> Any:
        return plain.step({name: w * masks[name] for name, w in params.items()}, state, x)

    model = ranvier.step_function(step, plain.params, plain.state)
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.ones(N_IN), batch_size=BATCH, chunk=5, reduction="mean")
    expected = ranvier.fit(learner, batches, class_loss, optax.sgd(0.1), 2, progress=False)
    for path, w in weights(result.params).items():
        np.testing.assert_allclose(w, weights(expected.params)[path] * masks[path[0]], rtol=1e-5, atol=1e-6)


# Rounding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounded_weights_are_those_that_the_pass_allows(bits: int) -> None:
    result = train(epochs=2, compress=[ranvier.QuantizeAware(bits=bits, axis=0)])
    for w in weights(result.params).values():
        graph = ranvier.SNNGraph(
            dt=1e-3,
            inputs=[ranvier.Input("x", (w.shape[1],))],
            projections=[ranvier.Projection("w", "x", "y", ranvier.operations.Linear(w))],
            outputs=[ranvier.Output("y", (w.shape[0],))],
        )
        made, _ = ranvier.optimize(graph, f"quantize{{format=int{bits}}}", verify_each=False)
        np.testing.assert_allclose(made.projections["w"].operation.weight, w, rtol=1e-5, atol=1e-7)
        assert len(np.unique(np.round(w[0] / np.abs(w[0]).max(), 4))) <= 2**bits - 1


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_gradient_at_the_rounded_weights_moves_those_behind_them(rule: ranvier.Rule) -> None:
    """One step of gradient descent, by hand: round, take the gradient there, and move the full-precision weights."""
    learner = make(rule)
    xs, ys, mask = batch(0)
    result = ranvier.fit(
        learner,
        [(xs, ys, mask)],
        class_loss,
        optax.sgd(0.1),
        1,
        compress=[ranvier.QuantizeAware(bits=3)],
        progress=False,
    )

    def rounded(w: np.ndarray) -> np.ndarray:
        scale = np.abs(w).max() / 3
        return np.round(w / scale) * scale

    start = weights(learner.params)
    grads, _ = learner.grad(
        class_loss, xs, ys, mask=mask, params={k: jnp.asarray(rounded(w)) for k, w in start.items()}
    )
    for path, w in start.items():
        moved = w - 0.1 * np.asarray(grads[path])
        np.testing.assert_allclose(weights(result.uncompressed)[path], moved, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(weights(result.params)[path], rounded(moved), rtol=1e-5, atol=1e-6)
    assert any(np.any(rounded(w) != w) for w in start.values())


# Both, and the rest ------------------------------------------------------------------------------------------------


def test_pruned_and_rounded_and_trained_on() -> None:
    compress = [ranvier.GradualPruning(0.5, end_epoch=0), ranvier.QuantizeAware(bits=4, start_epoch=1)]
    result = train(epochs=3, compress=compress, held_out=[batch(99)], metrics={"accuracy": ranvier.accuracy})
    assert sparsity(result.params) >= 0.5
    loss, _ = make().evaluate(class_loss, batch(99)[0], batch(99)[1], params=result.params, mask=batch(99)[2])
    assert result.history[-1]["eval_loss"] == pytest.approx(float(loss), rel=1e-5)
    again = train(epochs=1, params=result.uncompressed, optimizer_state=result.optimizer_state, compress=compress[:1])
    assert sparsity(again.params) >= 0.45


def test_a_resumed_training_is_the_one_without_interruption(tmp_path: Path) -> None:
    compress = [ranvier.GradualPruning(0.6, end_epoch=2), ranvier.QuantizeAware(bits=5)]
    whole = train(epochs=4, compress=compress, checkpoint=tmp_path / "a")
    train(epochs=2, compress=compress, checkpoint=tmp_path / "b", data=lambda e: batches(e))
    resumed = train(epochs=4, compress=compress, checkpoint=tmp_path / "b")
    other = ranvier.GradualPruning(0.6, end_epoch=2)
    assert [other.part(e, 2) for e in range(2)] == [other.part(e, 4) for e in range(2)]
    same_bits(resumed.params, whole.params)
    same_bits(resumed.uncompressed, whole.uncompressed)


def test_parameters_in_the_models_own_structure() -> None:
    learner = make()
    nested = learner.nested(learner.params)
    result = train(learner, epochs=1, params=nested, compress=[ranvier.GradualPruning(0.5, end_epoch=0)])
    by_path = train(epochs=1, compress=[ranvier.GradualPruning(0.5, end_epoch=0)])
    assert jax.tree.structure(result.params) == jax.tree.structure(nested)
    same_bits(learner.by_path(result.params), dict(by_path.params))


def test_only_some_parameters() -> None:
    result = train(epochs=1, compress=[ranvier.GradualPruning(0.5, end_epoch=0, only=[("w_rec",)])])
    zeros = {path[0]: float((w == 0).mean()) for path, w in weights(result.params).items()}
    assert zeros == {"w_in": 0.0, "w_rec": 0.5, "w_out": 0.0}


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: ranvier.GradualPruning(1.5), "from 0 to below 1"),
        (lambda: ranvier.GradualPruning(0.5, scope="all"), "scope='all' is unknown"),
        (lambda: ranvier.GradualPruning(0.5, start_epoch=3, end_epoch=1), "are no range"),
        (lambda: ranvier.QuantizeAware(bits=1), "from 2 to 16"),
        (lambda: train(epochs=1, compress=["prune"]), "a list is expected"),
        (lambda: train(epochs=1, compress=[ranvier.GradualPruning(only=[("w",)])]), "which is no parameter"),
    ],
)
def test_what_is_wrong_is_an_error(make_it: Any, message: str) -> None:
    with pytest.raises(ranvier.InputError, match=message):
        make_it()
