"""Kernels that come from other packages: what is missing is named before work begins."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.program import kernels
from tests.support.learning import difference

DENSE = np.array([[0.5, 0, 0], [0, -1, 2], [0.25, 0, 0]], np.float32)
ROWS = brainevent.CSR.fromdense(jnp.asarray(DENSE))


def model(inside: str = "step", backend: str | None = None) -> ranvier.types.StepFunction:
    def product(x: Any, w: Any) -> Any:
        return x @ brainevent.CSR((w, ROWS.indices, ROWS.indptr), shape=DENSE.shape, backend=backend)

    def step(params: Any, state: Any, x: Any) -> Any:
        if inside == "cond":
            current = jax.lax.cond(x[0] > 0, product, lambda x, w: x, x, params["w"])
        elif inside == "scan":
            current, _ = jax.lax.scan(lambda v, _: (jnp.tanh(product(v, params["w"])), None), x, length=100)
        else:
            current = product(x, params["w"])
        v = 0.9 * state["v"] + current
        return {"v": v}, v

    return ranvier.step_function(step, {"w": ROWS.data}, {"v": jnp.zeros(3)})


@pytest.fixture
def _without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)


@pytest.fixture
def _plain_kernels() -> Iterator[None]:
    brainevent.config.set_backend("cpu", "jax_raw")
    yield
    brainevent.config.set_backend("cpu", None)


MISSING = (
    r"cannot run here: csrmv needs numba, which is not installed; run `pip install '\.\[sparse\]'` in a clone of "
    r"Ranvier, or `pip install numba`, or .*config\.set_backend\('cpu', 'jax_raw'\)\.$"
)


@pytest.mark.usefixtures("_without_numba")
@pytest.mark.parametrize("inside", ["step", "cond", "scan"])
def test_a_missing_package_is_named_before_work_begins(inside: str, tmp_path: Path) -> None:
    x = jnp.zeros(3)
    assert "w" in str(ranvier.analyse(model(inside), x).info)  # reads the step, and runs nothing
    with pytest.raises(ranvier.ModelError, match=MISSING):
        ranvier.compile(model(inside), ranvier.D_RTRL(), x)
    with pytest.raises(ranvier.ModelError, match=MISSING):
        ranvier.raise_model(model(inside), x)
    with pytest.raises(ranvier.ModelError, match=MISSING):
        ranvier.export_artifact(model(inside), tmp_path / "model.rva", x)


def gradient(model: ranvier.types.StepFunction) -> Any:
    learner = ranvier.compile(model, ranvier.D_RTRL(), jnp.zeros(3))
    return learner.grad(lambda output, target: (output**2).sum(), jnp.ones((3, 3)), jnp.zeros(3))[0]


def by_hand() -> Any:
    """v_t = s_t w summed over rows, with s_t = 1 + 0.9 + ...: d/dw of the sum of v_t squared, at the non-zeros."""
    sums = np.cumsum(0.9 ** np.arange(3))
    dense = 2 * (sums**2).sum() * np.broadcast_to(DENSE.sum(0), DENSE.shape)
    return {("w",): dense[DENSE != 0]}


@pytest.mark.slow
@pytest.mark.usefixtures("_without_numba", "_plain_kernels")
def test_kernels_in_plain_jax_need_no_package() -> None:
    assert difference(gradient(model()), by_hand()) < 1e-5


@pytest.mark.usefixtures("_without_numba")
def test_a_kernel_chosen_in_the_model_needs_no_package() -> None:
    assert difference(gradient(model(backend="jax_raw")), by_hand()) < 1e-5


def test_equal_equations_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lowered: list[Any] = []
    monkeypatch.setattr(kernels, "_missing_package", lambda eqn: lowered.append(eqn))

    def step(params: Any, state: Any, x: Any) -> Any:
        other = brainevent.CSR((params["w"][:2], ROWS.indices[:2], np.array([0, 1, 2])), shape=(2, 3))
        v = 0.9 * state["v"] + x @ ROWS + (x + 1) @ ROWS + x[:2] @ other
        return {"v": v}, v

    kernels.check_kernels(
        ranvier.analyse(ranvier.step_function(step, {"w": ROWS.data}, {"v": jnp.zeros(3)}), jnp.zeros(3)).info
    )
    assert len(lowered) == 2  # products with three rows, of which there are two, and one with two rows
