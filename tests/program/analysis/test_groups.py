"""Hidden groups: which states belong together, their positions, and the facts about D."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.types import DiagnosticKind

N = 4


def analyse(step, state: dict, params: dict | None = None, x: jax.Array | None = None) -> ranvier.types.Analysis:
    model = ranvier.step_function(step, params or {}, state)
    return ranvier.analyse(model, jnp.ones(N) if x is None else x)


def names(group: ranvier.HiddenGroup) -> list[str]:
    return [".".join(map(str, path)) for path in group.hidden_paths]


def entry_texts(group: ranvier.HiddenGroup) -> list[list[str]]:
    return [["0" if e is None else str(e) for e in row] for row in group.transition.entries]


def test_states_joined_by_this_step_s_value() -> None:
    def step(p, s, x):
        v = 0.9 * s["v"] + x
        return {"v": v, "low": 0.5 * s["low"] + v, "apart": 0.1 * s["apart"] + x}, v

    analysis = analyse(step, {"v": jnp.ones(N), "low": jnp.ones(N), "apart": jnp.ones(N)})
    assert [names(group) for group in analysis.groups] == [["apart"], ["low", "v"]]
    assert entry_texts(analysis.groups[1]) == [["0.5", "0.9"], ["0", "0.9"]]


def test_a_state_without_memory_belongs_to_the_population_that_makes_it() -> None:
    def step(p, s, x):
        v = 0.9 * s["v"] + x + p["w"] @ s["spike"]
        return {"v": v, "spike": jax.nn.sigmoid(v)}, v

    (group,) = analyse(step, {"v": jnp.ones(N), "spike": jnp.zeros(N)}, {"w": jnp.ones((N, N))}).groups
    assert names(group) == ["spike", "v"]
    assert entry_texts(group) == [["0", "varies"], ["0", "0.9"]]


def test_facts_about_D() -> None:
    tau = jnp.linspace(5.0, 10.0, N)

    def step(p, s, x):
        return {
            "constant": jnp.exp(-1 / 20.0) * s["constant"],
            "spread": jnp.exp(-1 / tau) * s["spread"],
            "learned": jax.nn.sigmoid(p["leak"]) * s["learned"],
            "learned_each": p["leaks"] * s["learned_each"],
            "data": x * s["data"],
            "shared": x[0] * s["shared"],
        }, x

    state = {k: jnp.ones(N) for k in ("constant", "spread", "learned", "learned_each", "data", "shared")}
    groups = analyse(step, state, {"leak": jnp.asarray(1.0), "leaks": jnp.ones(N)}).groups
    texts = {names(g)[0]: entry_texts(g)[0][0] for g in groups}
    assert float(texts.pop("constant")) == pytest.approx(np.exp(-1 / 20), rel=1e-5)
    assert texts == {
        "spread": "const",
        "learned": "param (uniform)",
        "learned_each": "param",
        "data": "varies",
        "shared": "varies (uniform)",
    }


def test_detached_reset_leaves_a_uniform_decay() -> None:
    def spike(v):
        return jax.lax.stop_gradient((v > 1).astype(v.dtype))

    (group,) = analyse(lambda p, s, x: ({"v": 0.9 * s["v"] - spike(s["v"]) + x}, x), {"v": jnp.ones(N)}).groups
    assert entry_texts(group) == [["0.9"]]


def test_packed_halves_are_two_components() -> None:
    def step(p, s, x):
        c, h = s["ch"][:N], s["ch"][N:]
        c = 0.5 * c + jnp.tanh(h)
        return {"ch": jnp.concatenate([c, jnp.tanh(c)])}, h

    analysis = analyse(step, {"ch": jnp.arange(2.0 * N)})
    (group,) = analysis.groups
    assert (group.num_state, group.varshape, group.component_names) == (2, (N,), ("ch[0]", "ch[1]"))
    D = group.transition.jacobian(analysis.info.values(jnp.ones(N)))
    full = jax.jacobian(lambda ch: step({}, {"ch": ch}, jnp.ones(N))[0]["ch"])(jnp.arange(2.0 * N))
    for a in range(2):
        for b in range(2):
            block = full[a * N : (a + 1) * N, b * N : (b + 1) * N]
            np.testing.assert_allclose(D[:, a, b], np.diag(block), rtol=1e-6)
            np.testing.assert_allclose(block, np.diag(np.diag(block)))


def test_states_on_the_last_axis_are_components() -> None:
    def step(p, s, x):
        v, a = s["va"][..., 0], s["va"][..., 1]
        return {"va": jnp.stack([0.9 * v - a + x, 0.99 * a + v], axis=-1)}, v

    (group,) = analyse(step, {"va": jnp.ones((N, 2))}).groups
    assert (group.num_state, group.varshape) == (2, (N,))
    assert entry_texts(group) == [["0.9", "-1"], ["1", "0.99"]]


def test_shapes_may_differ_by_a_reshape() -> None:
    def step(p, s, x):
        image = 0.5 * s["image"] + x.reshape(2, 2)
        return {"image": image, "flat": 0.1 * s["flat"] + image.reshape(-1)}, x

    (group,) = analyse(step, {"image": jnp.ones((2, 2)), "flat": jnp.ones(N)}).groups
    assert group.num_state == 2
    assert group.transition.entries[0][1] is not None


def test_a_transposed_partner_keeps_its_positions() -> None:
    def step(p, s, x):
        a = 0.5 * s["a"] + x[0]
        return {"a": a, "b": 0.1 * s["b"] + a.T * s["b"]}, x

    state = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(6.0).reshape(3, 2) + 1}
    analysis = analyse(step, state)
    (group,) = analysis.groups
    assert (group.num_state, group.varshape) == (2, (2, 3))
    D = group.transition.jacobian(analysis.info.values(jnp.ones(N)))
    np.testing.assert_allclose(D[..., 1, 0], 0.5 * state["b"].T, rtol=1e-6)


def test_a_delay_line_is_a_stack_of_states() -> None:
    def step(p, s, x):
        v = 0.9 * s["v"] + x - s["line"][-1]
        return {"v": v, "line": jnp.concatenate([v[None], s["line"][:-1]])}, v

    (group,) = analyse(step, {"v": jnp.ones(N), "line": jnp.ones((3, N))}).groups
    assert (group.num_state, group.varshape) == (4, (N,))


def test_a_rolled_state_has_no_block_and_says_so() -> None:
    analysis = analyse(lambda p, s, x: ({"v": 0.9 * s["v"] + 0.3 * jnp.roll(s["v"], 1)}, x), {"v": jnp.ones(100)})
    (note,) = analysis.diagnostics
    assert note.kind is DiagnosticKind.POSITIONS_MOVE
    assert note.paths == (("v",),)
    D = analysis.groups[0].transition.jacobian(analysis.info.values(jnp.ones(N)))
    np.testing.assert_allclose(D, np.full((100, 1, 1), 0.9), rtol=1e-6)


def test_a_broadcast_state_is_its_own_group_and_says_so() -> None:
    def step(p, s, x):
        return {"level": 0.9 * s["level"], "v": s["level"] * s["v"] + x}, x

    analysis = analyse(step, {"level": jnp.ones(()), "v": jnp.ones(N)})
    assert [d.kind for d in analysis.diagnostics] == [DiagnosticKind.STATE_BROADCAST]
    assert [names(group) for group in analysis.groups] == [["level"], ["v"]]


def test_mixing_ends_a_population() -> None:
    def step(p, s, x):
        first = jnp.tanh(s["first"] + x)
        return {"first": first, "second": 0.5 * s["second"] + p["w"] @ first, "mean": first.mean() * s["mean"]}, x

    analysis = analyse(step, {k: jnp.ones(N) for k in ("first", "second", "mean")}, {"w": jnp.ones((N, N))})
    assert [names(group) for group in analysis.groups] == [["first"], ["mean"], ["second"]]


def test_transition_is_the_step_of_its_states() -> None:
    def step(p, s, x):
        v = 0.9 * s["v"] + p["w"] @ x
        return {"v": v, "a": 0.5 * s["a"] + jnp.tanh(v)}, v

    info = analyse(step, {"v": jnp.ones(N), "a": jnp.ones(N)}, {"w": jnp.eye(N)}).info
    (group,) = ranvier.find_hidden_groups_from_minfo(info)[0]
    values = info.values(jnp.ones(N))
    residuals = group.transition.path.residuals_from(values)
    new = group.transition([jnp.full(N, 3.0), jnp.full(N, 2.0)], residuals)
    expected = step({"w": jnp.eye(N)}, {"a": jnp.full(N, 3.0), "v": jnp.full(N, 2.0)}, jnp.ones(N))[0]
    np.testing.assert_allclose(new[0], expected["a"], rtol=1e-6)
    np.testing.assert_allclose(new[1], expected["v"], rtol=1e-6)


def test_no_dense_jacobian_is_formed() -> None:
    """A million positions would need 4 TB as a dense Jacobian."""
    size = 1_000_000
    analysis = analyse(lambda p, s, x: ({"v": jnp.tanh(s["v"])}, x), {"v": jnp.ones(size)})
    D = analysis.groups[0].transition.jacobian(analysis.info.values(jnp.ones(N)))
    assert D.shape == (size, 1, 1)


def surrogate_by_vjp():
    @jax.custom_vjp
    def spike(v):
        return (v > 0).astype(v.dtype)

    spike.defvjp(lambda v: (spike(v), v), lambda v, g: (g * jnp.exp(-(v**2)),))
    return spike


def surrogate_by_jvp():
    @jax.custom_jvp
    def spike(v):
        return (v > 0).astype(v.dtype)

    spike.defjvp(lambda primals, tangents: (spike(*primals), tangents[0] * jnp.exp(-(primals[0] ** 2))))
    return spike


@pytest.mark.parametrize("make", [surrogate_by_vjp, surrogate_by_jvp])
@pytest.mark.parametrize("inside_cond", [False, True])
def test_surrogate_gradients_are_kept(make, inside_cond: bool) -> None:
    spike = make()

    def step(p, s, x):
        reset = jax.lax.cond(x[0] > 0, spike, jnp.zeros_like, s["v"]) if inside_cond else spike(s["v"])
        return {"v": 0.9 * s["v"] - reset}, x

    analysis = analyse(step, {"v": jnp.linspace(-1, 1, N)})
    D = analysis.groups[0].transition.jacobian(analysis.info.values(jnp.ones(N)))
    np.testing.assert_allclose(D[:, 0, 0], 0.9 - jnp.exp(-(jnp.linspace(-1, 1, N) ** 2)), rtol=1e-5)


def test_mixing_inside_cond_and_loop_passes_no_derivative() -> None:
    w = jnp.full((N, N), 0.3)

    def step(p, s, x):
        v = jax.lax.cond(x[0] > 0, lambda v: 0.9 * v + w @ v, lambda v: 0.5 * v, s["v"])
        u = jax.lax.fori_loop(0, 50, lambda _, u: 0.99 * u + 0.01 * w @ u, s["u"])
        return {"v": v, "u": u}, x

    analysis = analyse(step, {"v": jnp.ones(N), "u": jnp.ones(N)})
    D = {names(g)[0]: g.transition.jacobian(analysis.info.values(jnp.ones(N))) for g in analysis.groups}
    np.testing.assert_allclose(D["v"][:, 0, 0], 0.9, rtol=1e-6)
    np.testing.assert_allclose(D["u"][:, 0, 0], 0.99**50, rtol=1e-5)
