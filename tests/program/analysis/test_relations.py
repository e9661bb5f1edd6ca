"""Relations beyond the zoo: the operation, its transform, f, and paths that f leaves out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.types import DiagnosticKind

N = 4


def analyse(step, params: dict, state: dict | None = None, n_in: int = 3) -> ranvier.types.Analysis:
    model = ranvier.step_function(step, params, state or {"h": jnp.full(N, 0.3)})
    return ranvier.analyse(model, jnp.linspace(0.5, 1.0, n_in))


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def result_from_parts(analysis: ranvier.types.Analysis, relation: ranvier.HiddenParamOpRelation) -> tuple:
    """y of the relation from its operation and transform, and y as the step computes it."""
    values = analysis.info.values(jnp.linspace(0.5, 1.0, 3))
    operands = relation.operation.transform([values[var] for var in analysis.info.weight_invars])
    xs = [values[x] for x in relation.operation.xs]
    return relation.operation(xs, operands), values[relation.y]


@pytest.mark.slow
@pytest.mark.parametrize(
    "weight",
    [
        lambda p: p["w"],
        lambda p: jnp.asarray([[1.0], [0.0], [1.0]]) * p["w"],
        lambda p: jax.nn.softplus(p["w"]),
        lambda p: p["w"] / jnp.linalg.norm(p["w"], axis=0),
        lambda p: p["a"] @ p["b"],
    ],
)
def test_transform_and_operation_make_y(weight) -> None:
    params = {"w": normal(3, N), "a": normal(3, 2), "b": normal(2, N, seed=1)}
    analysis = analyse(lambda p, s, x: ({"h": 0.9 * s["h"] + x @ weight(p)}, s["h"]), params)
    for relation in analysis.relations:
        assert relation.kind == "affine"
        assert relation.x.aval.shape == (3,)
        np.testing.assert_allclose(*result_from_parts(analysis, relation), rtol=1e-6)


def test_one_parameter_with_weights_and_bias_is_one_relation() -> None:
    class Gate:
        def __call__(self, p, s, x):
            y = x @ p["wi"] + s["h"] @ p["wh"] + p["b"]
            return {"h": 0.9 * s["h"] + jnp.tanh(y)}, y

    import brainstate

    class Cell(brainstate.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = brainstate.HiddenState(jnp.ones(N))
            self.p = brainstate.ParamState({"wi": normal(3, N), "wh": normal(N, N), "b": jnp.zeros(N)})

        def update(self, x):
            new, y = Gate()(self.p.value, {"h": self.h.value}, x)
            self.h.value = new["h"]
            return y

    analysis = ranvier.analyse(Cell(), jnp.linspace(0.5, 1.0, 3))
    (relation,) = analysis.relations
    assert [x.aval.shape for x in relation.x] == [(3,), (N,)]
    assert len(relation.leaves) == 3
    np.testing.assert_allclose(*result_from_parts(analysis, relation), rtol=1e-6)


def test_a_weight_used_twice_is_two_relations_even_where_they_are_added() -> None:
    def step(p, s, x):
        return {"h": 0.9 * s["h"] + x @ p["w"] + (x**2) @ p["w"]}, s["h"]

    assert [r.path for r in analyse(step, {"w": normal(3, N)}).relations] == [("w",), ("w",)]


def test_products_in_a_row_are_one_low_rank_product() -> None:
    def step(p, s, x):
        return {"h": 0.9 * s["h"] + (x @ p["a"]) @ p["b"]}, s["h"]

    analysis = analyse(step, {"a": normal(3, 2), "b": normal(2, N)})
    assert [(r.path, r.kind, r.x.aval.shape) for r in analysis.relations] == [
        (("a",), "affine", (3,)),
        (("b",), "affine", (3,)),
    ]
    np.testing.assert_allclose(*result_from_parts(analysis, analysis.relations[0]), rtol=1e-6)


def test_lanes_carry_f_through_a_roll_and_a_slice() -> None:
    def step(p, s, x):
        y = x @ p["w"]
        return {"h": 0.9 * s["h"] + jnp.tanh(jnp.roll(y, 1))[:N]}, s["h"]

    analysis = analyse(step, {"w": normal(3, N + 2)})
    (connection,) = analysis.relations[0].connections
    assert connection.y_index.tolist() == [0, 1, 2, 5]
    assert connection.position.tolist() == [1, 2, 3, 0]
    values = analysis.info.values(jnp.linspace(0.5, 1.0, 3))
    y = values[analysis.relations[0].y]
    np.testing.assert_allclose(connection.f(values)[:, 0], 1 - jnp.tanh(y[connection.y_index]) ** 2, rtol=1e-5)


def test_several_elements_of_y_at_one_position() -> None:
    def step(p, s, x):
        gate, value = jnp.split(x @ p["w"], 2)
        return {"h": jax.nn.sigmoid(gate) * s["h"] + jnp.tanh(value)}, s["h"]

    analysis = analyse(step, {"w": normal(3, 2 * N)})
    (connection,) = analysis.relations[0].connections
    values = analysis.info.values(jnp.linspace(0.5, 1.0, 3))
    gate, value = jnp.split(values[analysis.relations[0].y], 2)
    slope = jax.nn.sigmoid(gate) * (1 - jax.nn.sigmoid(gate)) * 0.3
    expected = jnp.concatenate([slope, 1 - jnp.tanh(value) ** 2])
    np.testing.assert_allclose(connection.f(values)[:, 0], expected, rtol=1e-5)


def test_a_path_through_the_mean_is_left_out_of_f_and_said() -> None:
    def step(p, s, x):
        y = x @ p["w"]
        return {"h": 0.9 * s["h"] + y - y.mean()}, s["h"]

    analysis = analyse(step, {"w": normal(3, N)})
    (note,) = [d for d in analysis.diagnostics if d.kind is DiagnosticKind.MIXED_PATH]
    assert note.paths == (("w",),)
    assert "reduce_sum" in note.equation
    (connection,) = analysis.relations[0].connections
    np.testing.assert_allclose(connection.f(analysis.info.values(jnp.ones(3))), 1.0)


def test_paths_through_a_state_that_is_not_hidden_are_said() -> None:
    """A delay buffer: the state and the weight act on a later step where no trace follows."""

    def step(p, s, x):
        h = 0.9 * s["h"] + x @ p["w"] + s["buffer"][0]
        direct = x @ p["direct"]
        return {"h": h, "buffer": jnp.stack([s["buffer"][1], jnp.tanh(h) + direct])}, h + direct

    params = {"w": normal(3, N), "direct": normal(3, N)}
    state = {"h": jnp.full(N, 0.3), "buffer": jnp.zeros((2, N))}
    analysis = ranvier.analyse(ranvier.step_function(step, params, state, other=["buffer"]), jnp.ones(3))
    found = {(d.kind, d.paths[0]) for d in analysis.diagnostics}
    assert found == {
        (DiagnosticKind.STATE_THROUGH_OTHER, ("h",)),
        (DiagnosticKind.OTHER_STATE_PARAMETER, ("direct",)),
    }


def test_running_statistics_that_nothing_reads_are_no_finding() -> None:
    def step(p, s, x):
        h = 0.9 * s["h"] + x @ p["w"]
        return {"h": h, "mean": 0.99 * s["mean"] + 0.01 * h}, h

    state = {"h": jnp.full(N, 0.3), "mean": jnp.zeros(N)}
    analysis = ranvier.analyse(ranvier.step_function(step, {"w": normal(3, N)}, state, other=["mean"]), jnp.ones(3))
    assert analysis.diagnostics == []


def test_a_weight_that_mixes_in_a_long_loop_has_no_trace() -> None:
    def step(p, s, x):
        y = jax.lax.fori_loop(0, 60, lambda _, c: jnp.tanh(c @ p["l"]), x @ p["w"])
        return {"h": 0.9 * s["h"] + y}, s["h"]

    analysis = analyse(step, {"w": normal(3, N), "l": normal(N, N)})
    kinds = {r.path[0]: r.kind for r in analysis.relations}
    assert kinds == {"w": "weight-to-weight", "l": "loop"}


@pytest.mark.parametrize("declare", ["jvp", "vjp"])
def test_a_declared_derivative_that_mixes_ends_the_population(declare: str) -> None:
    if declare == "vjp":
        function = jax.custom_vjp(jnp.tanh)
        function.defvjp(lambda v: (jnp.tanh(v), None), lambda _, g: (jnp.cumsum(g),))
    else:
        function = jax.custom_jvp(jnp.tanh)
        function.defjvp(lambda v, t: (jnp.tanh(v[0]), jnp.cumsum(t[0])))

    analysis = analyse(lambda p, s, x: ({"h": 0.9 * s["h"] + function(s["h"])}, x), {})
    D = analysis.groups[0].transition.jacobian(analysis.info.values(jnp.linspace(0.5, 1.0, 3)))
    np.testing.assert_allclose(D[:, 0, 0], 0.9, rtol=1e-6)


def test_an_unknown_primitive_inside_a_branch_is_named() -> None:
    import jax.extend.core

    primitive = jax.extend.core.Primitive("ranvier_test_hidden_away")
    primitive.def_abstract_eval(lambda v: v)

    def step(p, s, x):
        y = jax.lax.cond(x[0] > 0, lambda v: primitive.bind(v), lambda v: v, x @ p["w"])
        return {"h": 0.9 * s["h"] + y}, s["h"]

    kinds = {d.kind: d for d in analyse(step, {"w": normal(3, N)}).diagnostics}
    assert "ranvier_test_hidden_away" in kinds[DiagnosticKind.UNKNOWN_PRIMITIVE].message


def test_opaque_equations_are_named_with_their_line_and_what_they_hide() -> None:
    def step(p, s, x):
        y = jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((N,), jnp.float32), s["h"] + x @ p["w"])
        return {"h": y}, y

    analysis = analyse(step, {"w": jnp.ones((3, N))})
    by_equation = [d for d in analysis.diagnostics if d.kind is DiagnosticKind.OPAQUE_EQUATION and d.equation]
    (note,) = by_equation
    assert note.equation.startswith("pure_callback at ")
    assert "test_relations.py" in note.equation
    assert set(note.paths) == {("h",), ("w",)}
    assert analysis.relations == []


def test_explanations_name_every_parameter_and_group() -> None:
    def step(p, s, x):
        r = jax.nn.sigmoid(x @ p["reset"])
        h = 0.9 * s["h"] + jnp.tanh((r * s["h"]) @ p["w"])
        return {"h": h}, h @ p["out"]

    params = {"reset": normal(3, N), "w": normal(N, N), "out": normal(N, 2), "spare": jnp.ones(2)}
    text = analyse(step, params).explain()
    assert "related: affine" in text
    assert "no trace: a mixing operation, dot_general at " in text
    for path, kind in (
        ("reset", "indirect-parameter"), ("out", "readout-parameter"), ("spare", "unused-parameter")
    ):  # fmt: skip
        section = text[text.index(f"\n{path} ") :].split("\n\n")[0]
        assert kind in section


def test_user_registered_primitive_opens_an_opaque_equation() -> None:
    import jax.extend.core
    from jax.interpreters import mlir

    primitive = jax.extend.core.Primitive("ranvier_test_gain")
    primitive.def_impl(lambda v: 2.0 * v)
    primitive.def_abstract_eval(lambda v: v)
    mlir.register_lowering(primitive, mlir.lower_fun(lambda v: 2.0 * v, multiple_results=False))
    jax.interpreters.ad.deflinear2(primitive, lambda ct, v: [2.0 * ct])

    def step(p, s, x):
        return {"h": 0.9 * s["h"] + primitive.bind(x @ p["w"])}, s["h"]

    before = analyse(step, {"w": normal(3, N)})
    assert DiagnosticKind.UNKNOWN_PRIMITIVE in {d.kind for d in before.diagnostics}
    assert before.relations == []
    ranvier.register_primitive("ranvier_test_gain", "elementwise")
    after = analyse(step, {"w": normal(3, N)})
    (connection,) = after.relations[0].connections
    np.testing.assert_allclose(connection.f(after.info.values(jnp.ones(3))), 2.0)
