"""The main paths under JAX's own settings: gradients are those of the defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ranvier
from tests.support.learning import difference

SETTINGS = {
    "no jit": ("jax_disable_jit", True),
    "ranks": ("jax_numpy_rank_promotion", "raise"),
    "dtypes": ("jax_numpy_dtype_promotion", "strict"),
    "leaks": ("jax_check_tracer_leaks", True),
    "nans": ("jax_debug_nans", True),
    "double precision": ("jax_enable_x64", True),
}
F32 = jnp.float32


@pytest.fixture(params=SETTINGS)
def setting(request: pytest.FixtureRequest) -> Iterator[str]:
    name, value = SETTINGS[request.param]
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    yield request.param
    jax.config.update(name, before)


def step(params: Any, state: Any, x: Any) -> Any:
    """A product in branches that data choose between, and another weight after it."""
    current = jax.lax.cond(x[0] > 0, lambda x: x @ params["w"], lambda x: -(x @ params["w"]), x)
    v = state["v"] * F32(0.9) + current @ params["u"]
    return {"v": v}, jnp.tanh(v) @ params["out"]


RNG = np.random.default_rng(0)
PARAMS = {name: RNG.normal(size=shape) for name, shape in (("w", (3, 4)), ("u", (4, 4)), ("out", (4, 2)))}
XS = RNG.normal(size=(5, 3))


def model() -> ranvier.types.StepFunction:
    return ranvier.step_function(
        step, {name: jnp.asarray(value, F32) for name, value in PARAMS.items()}, {"v": jnp.zeros(4, F32)}
    )


def loss(output: Any, target: Any) -> Any:
    return ((output - target) ** 2).sum()


def learned(rule: ranvier.Rule, **options: Any) -> Any:
    learner = ranvier.compile(model(), rule, jnp.zeros(3, F32), **options)
    return learner.grad(loss, jnp.asarray(XS, F32), jnp.zeros((5, 2), F32))[0]


def by_jax() -> Any:
    def total(params: Any) -> Any:
        def one(state: Any, x: Any) -> Any:
            state, output = step(params, state, x)
            return state, loss(output, jnp.zeros(2, F32))

        return jax.lax.scan(one, model().state, jnp.asarray(XS, F32))[1].sum()

    return {(name,): value for name, value in jax.grad(total)(model().params).items()}


@pytest.mark.slow
def test_branches_with_a_weight_after_them_learn_in_chunks() -> None:
    expected = by_jax()
    for rule, options in ((ranvier.BPTT(), {}), (ranvier.RTRL(), {}), (ranvier.D_RTRL(), {"chunk": 2})):
        found = learned(rule, **options)
        for name in ("u", "out"):
            assert difference({(name,): found[name,]}, {(name,): expected[name,]}) < 1e-5
    for rule in (ranvier.EProp(), ranvier.ES_D_RTRL(decay=0.9), ranvier.OTTT(decay=0.9), ranvier.ThreeFactor()):
        whole, by_step = learned(rule), learned(rule, chunk=1)
        assert difference(whole, by_step) < 1e-5, rule.name


@pytest.mark.slow
def test_learning_under_the_settings_of_jax(setting: str) -> None:
    expected = by_jax()
    ranvier.analyse(model(), jnp.zeros(3, F32)).explain()
    for rule in (ranvier.RTRL(), ranvier.BPTT()):
        assert difference(learned(rule), expected) < 1e-5, rule.name
    found = learned(ranvier.D_RTRL(), chunk=2)
    assert difference({("u",): found["u",]}, {("u",): expected["u",]}) < 1e-5


@jax.custom_jvp
def spike(v: Any) -> Any:
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (v,), (moved,) = primals, tangents
    return spike(v), moved / (F32(1) + jnp.abs(v))


def spiking(params: Any, state: Any, x: Any) -> Any:
    v = state["v"] * F32(0.9) + x @ params["w"] + state["s"] @ params["u"]
    s = spike(v - F32(1))
    return {"v": v - s, "s": s}, s @ params["out"]


def network() -> ranvier.types.StepFunction:
    params = {name: jnp.asarray(value, F32) for name, value in PARAMS.items()}
    return ranvier.step_function(spiking, params, {"v": jnp.zeros(4, F32), "s": jnp.zeros(4, F32)})


def by_hand() -> np.ndarray:
    """The outputs in numpy, ``[T, 2]``."""
    v = s = np.zeros(4)
    outputs = []
    for x in XS:
        v = 0.9 * v + x @ PARAMS["w"] + s @ PARAMS["u"]
        s = (v > 1) * 1.0
        v = v - s
        outputs.append(s @ PARAMS["out"])
    return np.stack(outputs)


@pytest.mark.slow
@pytest.mark.usefixtures("setting")
def test_graphs_under_the_settings_of_jax(tmp_path: Path) -> None:
    graph = ranvier.raise_model(network(), jnp.zeros(3, F32)).graph
    inputs = {name: np.asarray(XS[:, None], np.float32) for name in graph.inputs}
    # Every trace under "leaks" walks through all objects there are, so the checks of passes would take minutes.
    checked = not jax.config.jax_check_tracer_leaks
    optimized, _ = ranvier.optimize(graph, level="O2", calibration=inputs, verify_each=checked)
    for one in (graph, optimized):
        np.testing.assert_allclose(ranvier.simulate(one, inputs).output[:, 0], by_hand(), atol=1e-5)
    artifact = ranvier.load_artifact(ranvier.export_artifact(graph, tmp_path / "network.rva"))
    assert artifact.run(inputs)
    ranvier.export_source(graph, tmp_path / "network.py")


@pytest.mark.slow
@pytest.mark.usefixtures("setting")
def test_training_under_the_settings_of_jax() -> None:
    batch = np.asarray(XS[:, None], np.float32), np.zeros((5, 1, 2), np.float32)
    learner = ranvier.compile(network(), ranvier.EProp(), jnp.zeros(3, F32), batch_size=1)
    trained = ranvier.fit(learner, [batch], loss, optax.sgd(F32(0.1)), 1, progress=False)
    np.testing.assert_allclose(trained.history[0]["loss"], (by_hand() ** 2).sum(), rtol=1e-4)
