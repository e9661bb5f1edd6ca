"""Pruned weights stay zero in training, wherever the network goes: models, fit, text, files, NIR, source."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from ranvier.neurons import LIF
from ranvier.operations import Conv, Flatten, Linear

STEPS, BATCH = 6, 4


def network() -> ranvier.SNNGraph:
    """A convolution and three matrices, one of them recurrent."""
    rng = np.random.default_rng(0)
    return ranvier.SNNGraph(
        dt=1e-3,
        inputs=[ranvier.Input("x", (2, 4, 4), 0.0, 1.0)],
        populations=[
            ranvier.Population("image", (3, 3, 3), LIF(tau=3e-3, v_threshold=0.3)),
            ranvier.Population("flattened", (27,), ranvier.neurons.Relay()),
            ranvier.Population("hidden", (8,), LIF(tau=3e-3, v_threshold=0.3)),
        ],
        projections=[
            ranvier.Projection("conv", "x", "image", Conv(rng.normal(0.2, 0.3, (3, 2, 2, 2)))),
            ranvier.Projection("flat", "image", "flattened", Flatten(), trained=False),
            ranvier.Projection("w", "flattened", "hidden", Linear(rng.normal(0.1, 0.4, (8, 27)))),
            ranvier.Projection("loop", "hidden", "hidden", Linear(rng.normal(0, 0.3, (8, 8))), delay=1),
            ranvier.Projection("out", "hidden", "y", Linear(rng.normal(0, 0.5, (3, 8)), np.zeros(3))),
        ],
        outputs=[ranvier.Output("y", (3,))],
    )


WEIGHTS = ("conv", "w", "loop", "out")


def pruned(**options: Any) -> ranvier.SNNGraph:
    text = ",".join(["sparsity=0.5", *(f"{name}={str(value).lower()}" for name, value in options.items())])
    return ranvier.optimize(network(), f"prune{{{text}}}", verify_each=False)[0]


def weights(graph: ranvier.SNNGraph) -> dict[str, np.ndarray]:
    return {name: np.asarray(graph.projections[name].operation.weight) for name in WEIGHTS}


def data(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    xs = (rng.random((STEPS, BATCH, 2, 4, 4)) < 0.6).astype(np.float32)
    return xs, np.full((STEPS, BATCH), seed % 3)


def loss(output: Any, label: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(output, label).mean()


def trained(model: Any, rule: ranvier.Rule) -> Any:
    """Trained with an optimizer that moves every weight it may move, weight decay and all."""
    learner = ranvier.compile(model, rule, jnp.zeros((2, 4, 4)), batch_size=BATCH, reduction="mean")
    result = ranvier.fit(learner, [data(0), data(1)], loss, optax.adamw(0.05, weight_decay=0.1), 2, progress=False)
    return learner, result


def assert_held(before: ranvier.SNNGraph, after: ranvier.SNNGraph) -> None:
    moved = 0
    for name, old in weights(before).items():
        new = weights(after)[name]
        assert np.count_nonzero(old == 0) > 0
        np.testing.assert_array_equal(new[old == 0], 0.0)
        moved += np.count_nonzero(new != old)
    assert moved > 0
    assert after.total_synapses <= before.total_synapses


@pytest.mark.parametrize(
    "rule",
    [
        ranvier.D_RTRL(),
        *(
            pytest.param(r, marks=pytest.mark.slow)
            for r in (ranvier.BPTT(), ranvier.ES_D_RTRL(0.9), ranvier.OTTT(decay=0.7), ranvier.RTRL())
        ),
    ],
    ids=repr,
)
def test_absent_synapses_stay_absent_with_every_rule(rule: ranvier.Rule) -> None:
    graph = pruned()
    _, result = trained(ranvier.lower(graph), rule)
    assert_held(graph, ranvier.with_weights(graph, result.params))


def test_gradients_are_those_of_the_masked_network() -> None:
    """Finite differences of the present weights; zero for the absent ones."""
    graph = pruned()
    model = ranvier.lower(graph)
    learner = ranvier.compile(model, ranvier.BPTT(), jnp.zeros((2, 4, 4)), batch_size=BATCH)
    gradients, _ = learner.grad(loss, *data(0))
    mask = weights(graph)["out"] != 0
    gradient = np.asarray(gradients["out", "weight"])
    np.testing.assert_array_equal(gradient[~mask], 0.0)
    assert np.count_nonzero(gradient[mask]) > 0

    def total(weight: np.ndarray) -> float:
        outputs = ranvier.simulate(
            ranvier.with_weights(graph, {("out", "weight"): weight}), data(0)[0], dtype=np.float64
        )
        return float(sum(loss(jnp.asarray(o), jnp.asarray(y)) for o, y in zip(outputs.output, data(0)[1], strict=True)))

    start, step = weights(graph)["out"], 1e-3
    for place in list(zip(*np.nonzero(mask), strict=True))[:4]:
        apart = np.zeros_like(start)
        apart[place] = step
        expected = (total(start + apart) - total(start - apart)) / (2 * step)
        assert gradient[place] == pytest.approx(expected, rel=0.02, abs=1e-3)


def test_removed_weights_grow_again_where_that_is_asked_for() -> None:
    graph = pruned(regrow=True)
    _, result = trained(ranvier.lower(graph), ranvier.D_RTRL())
    assert ranvier.with_weights(graph, result.params).total_synapses > graph.total_synapses


def test_parameters_count_only_what_is_there() -> None:
    before, graph = network(), pruned()
    stored = sum(w.size for w in weights(before).values()) + 3
    assert before.total_params == stored
    assert graph.total_params == sum(np.count_nonzero(w) for w in weights(graph).values()) + 3


def test_text_and_files_hold_masks(tmp_path: Path) -> None:
    graph = pruned()
    for path in (tmp_path / "g.snn", tmp_path / "g.nir"):
        if path.suffix == ".snn":
            ranvier.save(graph, path)
            back = ranvier.load(path)
        else:
            ranvier.to_nir(graph, path=path)
            back = ranvier.from_nir(path)
        assert sum(p.masked for p in back.projections.values()) == 4
        for name, weight in weights(graph).items():
            np.testing.assert_allclose(weights(back)[name], weight)
            np.testing.assert_array_equal(back.projections[name].mask, graph.projections[name].mask)


def test_source_holds_masks(tmp_path: Path) -> None:
    graph = pruned()
    path = tmp_path / "network.py"
    ranvier.export_source(graph, path)
    spec = importlib.util.spec_from_file_location("network", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arrays = module.load()
    moved = jax.tree.map(lambda x: x + 0.5 if jnp.issubdtype(x.dtype, jnp.floating) else x, arrays)
    state, x = module.initial_state(arrays), data(0)[0][0, 0]
    mask = weights(graph)["conv"] != 0
    cut = {**moved, "conv": {**moved["conv"], "weight": moved["conv"]["weight"] * mask}}
    for a, b in zip(
        jax.tree.leaves(module.step(moved, state, x)), jax.tree.leaves(module.step(cut, state, x)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_a_model_keeps_its_masks_when_it_is_raised_again() -> None:
    """Optimize, train, optimize again: a plain step function all the way."""

    def step(params: Any, state: Any, x: Any) -> Any:
        v = 0.8 * state + x @ params["w"]
        return v, jnp.tanh(v) @ params["u"]

    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(5, 6)).astype(np.float32), "u": rng.normal(size=(6, 3)).astype(np.float32)}
    model = ranvier.step_function(step, params, np.zeros(6, np.float32))
    small, report = ranvier.optimize(model, "prune{sparsity=0.5}", inputs=np.zeros(5, np.float32), verify_each=False)
    learner = ranvier.compile(small, ranvier.D_RTRL(), jnp.zeros(5))
    xs, ys = rng.normal(size=(STEPS, 5)).astype(np.float32), np.zeros(STEPS, int)
    result = ranvier.fit(learner, [(xs, ys)], loss, optax.adam(0.1), 3, progress=False)
    again = ranvier.raise_model(learner.write_back(result.params), jnp.zeros(5)).graph
    assert again.parameters == {}
    assert all(p.masked for p in again.projections.values() if isinstance(p.operation, Linear))
    assert again.total_synapses == report.optimized.total_synapses == 24
    assert again.total_params == 24


def test_a_threshold_on_weights_is_no_mask() -> None:
    """Weights that a threshold sets to zero come back when they grow."""

    def step(params: Any, state: Any, x: Any) -> Any:
        w = jnp.where(jnp.abs(params["w"]) > 0.5, params["w"], 0.0)
        v = 0.8 * state + x @ w
        return v, v

    rng = np.random.default_rng(0)
    model = ranvier.step_function(step, {"w": rng.normal(size=(5, 6)).astype(np.float32)}, np.zeros(6, np.float32))
    graph = ranvier.raise_model(model, jnp.zeros(5)).graph
    assert not any(p.masked for p in graph.projections.values())
    assert list(graph.parameters) == ["w"]
