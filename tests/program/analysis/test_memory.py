"""What each learning rule keeps, against numbers worked out by hand."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

import ranvier


def two_state_layer(batch: tuple[int, ...]) -> ranvier.types.Analysis:
    """3 inputs, 4 neurons with current g and membrane v: weights 12 + 4 + recurrent 16."""

    def step(p, s, x):
        g = 0.8 * s["g"] + x @ p["w"] + s["v"] @ p["r"]
        return {"g": g, "v": 0.9 * s["v"] + g}, s["v"]

    params = {"w": jnp.ones((3, 4)), "r": jnp.ones((4, 4))}
    state = {k: jnp.zeros((*batch, 4)) for k in "gv"}
    return ranvier.analyse(ranvier.step_function(step, params, state), jnp.ones((*batch, 3)))


@pytest.mark.parametrize("batch", [(), (5,)])
def test_elements_of_each_rule_for_one_sample(batch: tuple[int, ...]) -> None:
    elements = {row.rule: row.elements for row in two_state_layer(batch).memory}
    assert elements == {
        "BPTT": 8 + 8,
        "RTRL": 8 * 28,
        "UORO": 8 + 28,
        "SnAp(1)": 28 * 2,
        "D_RTRL": 28 * 2,
        "OSTL": 28 * 2,
        "EProp": 28 * 3,
        "ThreeFactor": 28,
        "ES_D_RTRL": (3 + 4 * 2) + (4 + 4 * 2),
        "OTTT": 3 + 4,
    }


def test_only_bptt_grows_with_time() -> None:
    assert [row.rule for row in two_state_layer(()).memory if row.grows] == ["BPTT"]


def test_states_that_a_projection_cannot_reach_carry_no_trace() -> None:
    def step(p, s, x):
        v = 0.9 * s["v"] + x @ p["w"]
        return {"v": v, "above": 0.5 * s["above"], "v2": 0.1 * s["v2"] + s["above"] + v}, v

    state = {k: jnp.zeros(4) for k in ("v", "above", "v2")}
    analysis = ranvier.analyse(ranvier.step_function(step, {"w": jnp.ones((3, 4))}, state), jnp.ones(3))
    (row,) = [row for row in analysis.memory if row.rule == "D_RTRL"]
    assert analysis.groups[0].num_state == 3
    assert row.elements == 12 * 2


def test_bytes_follow_the_dtype() -> None:
    for row in two_state_layer(()).memory:
        assert row.bytes == 4 * row.elements
