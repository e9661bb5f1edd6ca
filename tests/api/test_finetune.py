"""Fine-tuning as a part of compression: stages, masks, training in between, and the judgement at the end."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from ranvier.neurons import LIF
from ranvier.operations import Linear

STEPS, CLASSES, INPUTS, NEURONS = 12, 3, 9, 20


def graph(seed: int = 0) -> ranvier.SNNGraph:
    rng = np.random.default_rng(seed)
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (INPUTS,))],
        populations=[ranvier.Population("n", (NEURONS,), LIF(tau=5e-3, v_threshold=0.5))],
        projections=[
            ranvier.Projection("w", "x", "n", Linear(rng.normal(0.2, 0.4, (NEURONS, INPUTS)))),
            ranvier.Projection("out", "n", "y", Linear(rng.normal(0, 0.3, (CLASSES, NEURONS)))),
        ],
        outputs=[ranvier.Output("y", (CLASSES,))],
    )


def samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A third of the inputs fires more often than the rest: which one is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    rates = 0.15 + 0.5 * (np.arange(INPUTS) // 3 == labels[:, None])
    return (rng.random((STEPS, count, INPUTS)) < rates).astype(np.float32), labels


def batches(seed: int, size: int = 16, count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = [samples(size, 100 * seed + k) for k in range(count)]
    return [(xs, np.broadcast_to(labels, (STEPS, size))) for xs, labels in drawn]


def loss(output: Any, label: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, label).mean()


def finetune(**options: Any) -> ranvier.Finetune:
    return ranvier.Finetune(**{"data": batches, "loss": loss, "optimizer": optax.adam(0.02), **options})


def trained() -> ranvier.SNNGraph:
    learner = ranvier.compile(ranvier.lower(graph()), ranvier.D_RTRL(), jnp.zeros(INPUTS), batch_size=16)
    result = ranvier.fit(learner, batches, loss, optax.adam(0.02), 6, progress=False)
    return ranvier.with_weights(graph(), result.params)


@pytest.fixture(scope="module")
def network() -> ranvier.SNNGraph:
    return trained()


def weights(of: ranvier.SNNGraph) -> np.ndarray:
    return np.concatenate([np.ravel(p.operation.weight) for p in of.projections.values()])


def accuracy(of: ranvier.SNNGraph, seed: int = 77) -> float:
    xs, labels = samples(400, seed)
    return float((ranvier.simulate(of, xs).output.sum(0).argmax(1) == labels).mean())


@pytest.mark.parametrize(("schedule", "stages"), [("cubic", 4), ("one shot", 1)])
def test_pruned_in_stages_and_trained_in_between(network: ranvier.SNNGraph, schedule: str, stages: int) -> None:
    seen: list[int] = []

    def data(epoch: int) -> list[Any]:
        seen.append(epoch)
        return batches(epoch)

    made, report = ranvier.optimize(
        network, "prune{sparsity=0.8}", finetune=finetune(data=data, schedule=schedule, stages=4, epochs=2)
    )
    pruned = [r for r in report.remarks if "weights pruned by magnitude" in r.message]
    tuned = [r for r in report.remarks if r.message.startswith("trained for 2 epochs: mean loss")]
    assert len(tuned) == stages
    assert len(pruned) == 2 * stages
    # The first batch is looked at for its shape; then every training continues where the last one ended.
    assert seen == [0, *range(2 * stages)]
    size = weights(network).size
    assert np.count_nonzero(weights(made)) == size - round(0.8 * size)
    assert report.promise is ranvier.Promise.APPROXIMATE
    assert all(p.masked for p in made.projections.values())


def cross_entropy(of: ranvier.SNNGraph) -> float:
    """On batches that nobody trained on."""
    losses = [
        float(loss(jnp.asarray(ranvier.simulate(of, xs).output), jnp.asarray(labels))) for xs, labels in batches(999)
    ]
    return float(np.mean(losses))


@pytest.mark.parametrize("sparsity", [0.7, 0.85])
def test_training_makes_up_for_what_is_lost(network: ranvier.SNNGraph, sparsity: float) -> None:
    passes = f"prune{{sparsity={sparsity}}}"
    plain, _ = ranvier.optimize(network, passes)
    tuned, _ = ranvier.optimize(network, passes, finetune=finetune(epochs=2))
    assert plain.total_synapses == tuned.total_synapses
    assert cross_entropy(tuned) < cross_entropy(plain) - 0.03
    assert accuracy(tuned) > 0.95


def test_the_largest_sparsity_within_the_budget(network: ranvier.SNNGraph) -> None:
    xs, labels = samples(600, seed=5)

    def score(outputs: Any, targets: Any, mask: Any) -> Any:
        return -loss(outputs, jnp.broadcast_to(targets, outputs.shape[:-1]))

    options: dict[str, Any] = {"calibration": xs, "labels": labels, "metric": score, "budget": 0.1}
    plain, _ = ranvier.optimize(network, "prune{sparsity=auto}", **options)
    tuned, report = ranvier.optimize(network, "prune{sparsity=auto}", finetune=finetune(), **options)
    assert tuned.total_synapses < plain.total_synapses < network.total_synapses
    assert report.judgement is not None
    assert report.judgement.bound <= 0.1
    (remark,) = (r.message for r in report.remarks if r.message.startswith("searched sparsity"))
    assert "costs too much" in remark
    assert "holds" in remark
    assert cross_entropy(tuned) <= cross_entropy(network) + 0.1


@pytest.mark.slow
def test_one_shot_finds_the_largest_sparsity_too(network: ranvier.SNNGraph) -> None:
    xs, labels = samples(300, seed=5)
    made, report = ranvier.optimize(
        network,
        "prune{sparsity=auto}",
        calibration=xs,
        labels=labels,
        budget=0.1,
        finetune=finetune(schedule="one shot"),
        verify_each=False,
    )
    assert made.total_synapses < 0.5 * network.total_synapses
    (remark,) = (r.message for r in report.remarks if r.message.startswith("searched sparsity"))
    assert remark.startswith("searched sparsity within a budget of 0.1 on 150 validation samples")
    assert any(r.message.startswith("trained for 1 epoch") for r in report.remarks)


@pytest.mark.slow
def test_whole_neurons_go_in_stages(network: ranvier.SNNGraph) -> None:
    made, report = ranvier.optimize(
        network, "prune{sparsity=0.5,structured=true}", finetune=finetune(stages=3), verify_each=False
    )
    assert made.populations["n"].size == NEURONS // 2
    places = report.origins.places["n"].numbers
    np.testing.assert_array_equal(np.sort(places[places >= 0]), np.arange(NEURONS // 2))
    assert (places < 0).sum() == NEURONS // 2


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [optax.sgd(0.05), optax.sgd(0.05, momentum=0.9), optax.adamw(0.01)])
@pytest.mark.parametrize("rule", [ranvier.BPTT(), ranvier.EProp()])
def test_any_rule_and_any_optimizer(network: ranvier.SNNGraph, optimizer: Any, rule: ranvier.Rule) -> None:
    made, _ = ranvier.optimize(
        network, "prune{sparsity=0.5}", finetune=finetune(optimizer=optimizer, rule=rule, stages=2), verify_each=False
    )
    assert np.count_nonzero(weights(made)) == weights(network).size - round(0.5 * weights(network).size)


def test_a_model_is_trained_with_its_own_inputs_and_outputs() -> None:
    def step(params: Any, state: Any, inputs: Any) -> Any:
        v = 0.8 * state + inputs["left"] @ params["w"] + inputs["right"] @ params["u"]
        return v, {"v": v}

    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("w", "u")}
    model = ranvier.step_function(step, params, np.zeros(3, np.float32))
    xs = {name: rng.normal(size=(STEPS, 8, 4)).astype(np.float32) for name in ("left", "right")}
    tuning = ranvier.Finetune(
        data=[(xs, np.zeros((STEPS, 8)))],
        loss=lambda output, target: (output["v"] ** 2).mean() + 0 * target.mean(),
        optimizer=optax.adam(0.01),
        stages=2,
    )
    example = {name: x[0, 0] for name, x in xs.items()}
    small, report = ranvier.optimize(model, "prune{sparsity=0.5}", inputs=(example,), finetune=tuning)
    assert report.optimized.total_synapses == 12
    assert sum(np.count_nonzero(p["weight"]) for p in small.params.values()) == 12


def test_what_fits_nowhere_is_an_error(network: ranvier.SNNGraph) -> None:
    for make_it, message in (
        (lambda: ranvier.optimize(network, "dead-code", finetune=finetune()), "these passes have none"),
        (lambda: ranvier.optimize(network, finetune=3), "pass ranvier.Finetune"),
        (lambda: finetune(schedule="linear"), "'linear' is unknown"),
        (lambda: finetune(epochs=0), "at least 1"),
        (lambda: finetune(optimizer=0.1), "optax gradient transformation"),
        (lambda: finetune(rule="D_RTRL"), "pass a learning rule"),
        (lambda: finetune(data=3), "Finetune: data"),
        (
            lambda: ranvier.optimize(
                network, "prune{sparsity=0.5}", finetune=finetune(data=[(np.zeros((3, 2)), np.zeros(3))])
            ),
            r"inputs of the shapes \[\[3, 2\]\]|shape",
        ),
    ):
        with pytest.raises(ranvier.RanvierError, match=message):
            make_it()
