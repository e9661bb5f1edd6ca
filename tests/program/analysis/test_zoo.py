"""The analyses of the zoo: groups, relations and diagnostics as derived by hand, D and f against ``jax.jacobian``."""

from __future__ import annotations

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ranvier
from ranvier.types import DiagnosticKind
from tests.support.examples import few
from tests.support.zoo import FAMILIES, MODELS, Relation, ZooModel, probing

ABOUT_PARAMETERS = {
    DiagnosticKind.UNUSED_PARAMETER,
    DiagnosticKind.READOUT_PARAMETER,
    DiagnosticKind.INDIRECT_PARAMETER,
    DiagnosticKind.GRADIENT_STOPPED,
    DiagnosticKind.OTHER_STATE_PARAMETER,
    DiagnosticKind.OPAQUE_EQUATION,
}
WITHOUT_GRADIENT = {DiagnosticKind.UNUSED_PARAMETER, DiagnosticKind.GRADIENT_STOPPED}
MOVING = {DiagnosticKind.POSITIONS_MOVE, DiagnosticKind.STATE_BROADCAST}

pytestmark = pytest.mark.usefixtures("quick_compilation")
every_model = few("zoo_model", MODELS.values(), ids=list(MODELS), quick=8)


def path_string(path) -> str:
    """The path with dots; a part with spaces in it is a generated key."""
    return ".".join("…" if " " in str(part) else str(part) for part in path)


@functools.cache
def built(name: str):
    """The float32 model, its example inputs and its analysis."""
    model, inputs = MODELS[name].build()
    return model, inputs, ranvier.analyse(model, *inputs)


def analysis_of(zoo_model: ZooModel) -> ranvier.types.Analysis:
    return built(zoo_model.name)[2]


def shape_of_x(x):
    return tuple(sorted(v.aval.shape for v in x)) if isinstance(x, tuple) else x if x is None else x.aval.shape


def facts(relation: ranvier.HiddenParamOpRelation) -> tuple:
    connected = frozenset(map(path_string, relation.connected_hidden_paths))
    y = relation.y.aval.shape
    return path_string(relation.path), relation.kind, shape_of_x(relation.x), y, connected


def expected_facts(relation: Relation) -> tuple:
    x = relation.x
    if x and isinstance(x[0], tuple):
        x = tuple(sorted(x))
    return relation.path, relation.kind, x, relation.y, relation.connected


def test_the_zoo_is_large_enough() -> None:
    assert len(MODELS) >= 26
    assert len(FAMILIES) == 5


@every_model
def test_groups(zoo_model: ZooModel) -> None:
    info = analysis_of(zoo_model).info
    groups, group_of = ranvier.find_hidden_groups_from_minfo(info)
    found = {(frozenset(map(path_string, g.hidden_paths)), g.varshape, g.num_state) for g in groups}
    assert found == {(g.paths, g.shape, g.num_state) for g in zoo_model.expected.groups}
    assert len(groups) == len(zoo_model.expected.groups)
    assert [g.index for g in groups] == list(range(len(groups)))
    assert set(group_of) == set(info.hidden_path_to_invar)
    assert all(path in group.hidden_paths for path, group in group_of.items())


@every_model
def test_relations(zoo_model: ZooModel) -> None:
    info = analysis_of(zoo_model).info
    _, group_of = ranvier.find_hidden_groups_from_minfo(info)
    relations = ranvier.find_hidden_param_op_relations_from_minfo(info, group_of)
    assert Counter(map(facts, relations)) == Counter(map(expected_facts, zoo_model.expected.relations))
    for relation in relations:
        reached = [group_of[path] for path in relation.connected_hidden_paths]
        assert list(relation.hidden_groups) == list(dict.fromkeys(reached))


@every_model
def test_parameters_without_relation_have_a_reason(zoo_model: ZooModel) -> None:
    analysis = analysis_of(zoo_model)
    parameters = {path_string(slot.path) for slot in analysis.info.parameters}
    told = (
        ABOUT_PARAMETERS if not zoo_model.expected.other else ABOUT_PARAMETERS - {DiagnosticKind.OTHER_STATE_PARAMETER}
    )
    found = {(path_string(p), d.kind) for d in analysis.diagnostics if d.kind in told for p in d.paths}
    expected = {(p, k) for p, k in zoo_model.expected.unrelated.items() if k in told}
    assert {(path, kind) for path, kind in found if path in parameters} == expected


NOT_ABOUT_STATES = {DiagnosticKind.OPAQUE_EQUATION, DiagnosticKind.STATE_THROUGH_OTHER}


@every_model
def test_states(zoo_model: ZooModel) -> None:
    analysis = analysis_of(zoo_model)
    expected = zoo_model.expected
    other = {path_string(slot.path) for slot in analysis.info.other}
    assert other == expected.other
    found = {(path_string(p), d.kind) for d in analysis.diagnostics for p in d.paths}
    states = other | {path for g in expected.groups for path in g.paths}
    assert {(path, kind) for path, kind in found if path in states and kind not in NOT_ABOUT_STATES} == set(
        expected.remarks.items()
    )


@every_model
def test_text_of_the_analysis(zoo_model: ZooModel) -> None:
    analysis = analysis_of(zoo_model)
    explained = analysis.explain()
    assert all(path_string(slot.path) in explained for slot in analysis.info.parameters)
    for part in (analysis.info, *analysis.groups, *analysis.relations, analysis.perturbation):
        assert "Var(" not in str(part)


def test_reference_model_as_in_the_design() -> None:
    info = analysis_of(MODELS["reference"]).info
    assert len(info.hidden_path_to_invar) == 5
    assert len(info.compiled_model_states) == 6
    (group,), group_of = ranvier.find_hidden_groups_from_minfo(info)
    assert group.num_state == 5
    (relation,) = ranvier.find_hidden_param_op_relations_from_minfo(info, group_of)
    assert relation.path == ("syn", "comm", "weight")
    assert (relation.x.aval.shape, relation.y.aval.shape) == ((7,), (4,))
    assert {path[-1] for path in relation.connected_hidden_paths} == {"g", "V"}
    assert relation.hidden_groups == (group,)
    assert len(ranvier.add_hidden_perturbation_from_minfo(info).perturb_vars) == 5


# The program computes what the model computes -------------------------------------------------------------------


def random_like(rng: np.random.Generator, value):
    """Uniform numbers for a float array, small integers for an integer one."""
    value = jnp.asarray(value)
    if jnp.issubdtype(value.dtype, jnp.integer):
        return jnp.asarray(rng.integers(0, 3, value.shape), value.dtype)
    return jnp.asarray(rng.uniform(0.0, 2.0, value.shape), value.dtype)


def rollout(info: ranvier.ModuleInfo, params, inputs):
    """Outputs of the steps over time-major inputs from the initial state."""
    hidden_paths, other_paths = ([slot.path for slot in slots] for slots in (info.hidden, info.other))

    def turn(states, x):
        hidden, other = (dict(zip(p, s)) for p, s in zip((hidden_paths, other_paths), states))
        output, hidden, other = info.step(*x, params=params, hidden=hidden, other=other)
        return ([hidden[p] for p in hidden_paths], [other[p] for p in other_paths]), output

    start = [[slot.value for slot in slots] for slots in (info.hidden, info.other)]
    return jax.lax.scan(turn, tuple(start), inputs)[1]


@every_model
def test_alive(zoo_model: ZooModel) -> None:
    """Driven by random inputs, outputs move, neurons spike and every parameter that can have a gradient has one."""
    _, inputs, analysis = built(zoo_model.name)
    info = analysis.info
    rng = np.random.default_rng(0)
    xs = tuple(jnp.stack([random_like(rng, x) for _ in range(12)]) for x in inputs)
    paths = [slot.path for slot in info.parameters]

    def loss(values):
        output = rollout(info, dict(zip(paths, values)), xs)
        weights = [positive_weights(leaf) for leaf in jax.tree.leaves(output)]
        total = sum((leaf * w).sum() for leaf, w in zip(jax.tree.leaves(output), weights))
        return total, output

    values = [slot.value for slot in info.parameters]
    run = jax.grad(loss, has_aux=True) if zoo_model.differentiable else lambda v: (None, loss(v)[1])
    grads, output = jax.jit(run)(values)
    flat = np.concatenate([np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(output)])
    assert np.isfinite(flat).all()
    assert flat.any()
    if zoo_model.spiking:
        assert set(np.unique(flat)) <= {0.0, 1.0}
        assert 0.02 < flat.mean() < 0.98
    if grads is None:
        return
    for path, grad in zip(paths, grads):
        largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grad))
        assert np.isfinite(largest), path
        dead = zoo_model.expected.unrelated.get(path_string(path)) in WITHOUT_GRADIENT
        assert (largest == 0.0) if dead else (largest > 1e-8), path


def positive_weights(leaf):
    return jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, leaf.shape), leaf.dtype)


# D and f ----------------------------------------------------------------------------------------------------------


def random_hidden(info: ranvier.ModuleInfo) -> dict:
    """Hidden states near the initial ones, spread enough to be on both sides of a threshold."""
    rng = np.random.default_rng(2)
    return {s.path: s.initial[0] + jnp.asarray(rng.normal(0.0, 0.7, s.shape), s.dtype) for s in info.hidden}


def measured(analysis: ranvier.types.Analysis, inputs, params, hidden):
    """D of every group and f of every connection for one step, compiled together."""

    @jax.jit
    def run(inputs, params, hidden):
        given = (
            dict(zip([slot.path for slot in slots], v))
            for slots, v in ((info.parameters, params), (info.hidden, hidden))
        )
        values = info.values(*inputs, params=next(given), hidden=next(given))
        transitions = [group.transition.jacobian(values) for group in analysis.groups]
        return transitions, [[c.f(values) for c in relation.connections] for relation in analysis.relations]

    info = analysis.info
    transitions, drives = run(inputs, [params[s.path] for s in info.parameters], [hidden[s.path] for s in info.hidden])
    by_pair = {
        pair: d for g, found in zip(analysis.groups, transitions) for pair, d in dense_transition(g, found).items()
    }
    return by_pair, [dense_drive(relation, found) for relation, found in zip(analysis.relations, drives)]


def dense_transition(group: ranvier.HiddenGroup, jacobian) -> dict:
    """D written out: (new state, old state) to a matrix over their elements."""
    count = group.num_state
    assert jacobian.shape == (*group.varshape, count, count)
    blocks = np.asarray(jacobian).reshape(-1, count, count)
    sizes = [int(np.prod(state.shape)) for state in group.hidden_states]
    dense = {(a, b): np.zeros((m, n)) for a, m in enumerate(sizes) for b, n in enumerate(sizes)}
    for a, row in enumerate(group.positions.components):
        for b, column in enumerate(group.positions.components):
            dense[row.state, column.state][row.elements, column.elements] += blocks[:, a, b]
    return {(group.hidden_paths[a], group.hidden_paths[b]): matrix for (a, b), matrix in dense.items()}


def dense_drive(relation: ranvier.HiddenParamOpRelation, drives) -> dict:
    """f written out: hidden state to a matrix over its elements and those of y."""
    found = {}
    y_size = int(np.prod(relation.y.aval.shape))
    for connection, f in zip(relation.connections, map(np.asarray, drives)):
        group = connection.group
        assert f.shape == (connection.y_index.size, group.num_state)
        for state, slot in enumerate(group.hidden_states):
            found[group.hidden_paths[state]] = np.zeros((int(np.prod(slot.shape)), y_size))
        for a, component in enumerate(group.positions.components):
            matrix = found[group.hidden_paths[component.state]]
            np.add.at(matrix, (component.elements[connection.position], connection.y_index), f[:, a])
    return found


def flat_state(path) -> str:
    (name,) = path
    return name


def marked_jacobians(zoo_model: ZooModel, model, inputs, hidden):
    """Jacobians of the step with its marked mixing results held: by old states, and by the marked results."""
    names = {flat_state(path): value for path, value in hidden.items()}
    dtype = next(iter(names.values())).dtype
    probes = {r.probe: jnp.zeros(r.y, dtype) for r in zoo_model.expected.relations if r.connected}

    def new_states(old, probes):
        with probing(probes):
            state, _ = model.step(model.params, model.state | old, *inputs)
        return {name: state[name] for name in names}

    return jax.jit(jax.jacrev(new_states, argnums=(0, 1)))(names, probes)


def matrix(jacobian, rows: int) -> np.ndarray:
    return np.asarray(jacobian).reshape(rows, -1)


step_functions = [m for m in MODELS.values() if m.is_step_function]
modules = [m for m in MODELS.values() if not m.is_step_function]
on_step_functions = few("zoo_model", step_functions, ids=lambda m: m.name)
on_modules = few("zoo_model", modules, ids=lambda m: m.name)


@on_step_functions
def test_transition_and_drive_of_step_functions(zoo_model: ZooModel, float64) -> None:
    """D and f equal the Jacobians of the same step with its mixing operations behind ``stop_gradient``."""
    model, inputs = zoo_model.build(jnp.float64)
    rng = np.random.default_rng(3)
    inputs = tuple(random_like(rng, x) for x in inputs)
    analysis = ranvier.analyse(model, *inputs)
    check_float64(zoo_model, analysis)
    info, hidden = analysis.info, random_hidden(analysis.info)
    transitions, drives = measured(analysis, inputs, {s.path: s.value for s in info.parameters}, hidden)
    jacobians = marked_jacobians(zoo_model, model, inputs, hidden)
    check_transition(zoo_model, info, transitions, {name: row[0] for name, row in jacobians.items()})
    check_drive(zoo_model, analysis, drives, {name: row[1] for name, row in jacobians.items()})


def check_float64(zoo_model: ZooModel, analysis) -> None:
    """Double precision everywhere, and the same relations."""
    info = analysis.info
    assert {slot.dtype for slot in info.hidden} == {jnp.dtype(jnp.float64)}
    assert {leaf.dtype for slot in info.parameters for leaf in slot.leaves} == {jnp.dtype(jnp.float64)}
    assert Counter(map(facts, analysis.relations)) == Counter(map(expected_facts, zoo_model.expected.relations))


def check_transition(zoo_model: ZooModel, info, transitions, by_state) -> None:
    moving = MOVING & set(zoo_model.expected.remarks.values())
    for new in info.hidden:
        for old in info.hidden:
            expected = matrix(by_state[flat_state(new.path)][flat_state(old.path)], int(np.prod(new.shape)))
            d = transitions.get((new.path, old.path), np.zeros_like(expected))
            if moving:
                kept = (new.path, old.path) in transitions
                expected = np.diag(np.diag(expected)) if kept else np.zeros_like(expected)
            assert_same(d, expected, f"{new.path} by {old.path}")


def check_drive(zoo_model: ZooModel, analysis, drives, by_probe) -> None:
    """Relations with equal facts are taken in program order, as the zoo lists them."""
    expected = [r for r in zoo_model.expected.relations if r.connected]
    for relation, drive in zip(analysis.relations, drives):
        if not relation.connections:
            continue
        match = next(r for r in expected if expected_facts(r) == facts(relation))
        expected.remove(match)
        for slot in analysis.info.hidden:
            reference = matrix(by_probe[flat_state(slot.path)][match.probe], int(np.prod(slot.shape)))
            assert_same(drive.get(slot.path, np.zeros_like(reference)), reference, f"{slot.path} by {match.probe}")
    assert not expected


def assert_same(found, expected, what: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=what)


def is_matrix(leaf) -> bool:
    return len(leaf.shape) >= 2 or leaf.size > 8


def silenced(slot: ranvier.types.Slot):
    """The parameter with zero matrices, so that nothing passes from position to position; the rest random."""
    rng = np.random.default_rng(4)
    keep = slot.initial if not any(map(is_matrix, slot.leaves)) else None

    def leaf_value(leaf):
        if keep is not None or not is_matrix(leaf):
            return leaf + jnp.asarray(rng.uniform(0.0, 0.3, leaf.shape), leaf.dtype)
        return jnp.zeros_like(leaf)

    return jax.tree.unflatten(slot.treedef, [leaf_value(leaf) for leaf in slot.initial])


@on_modules
def test_transition_and_drive_of_modules(zoo_model: ZooModel, float64) -> None:
    """With all matrices zero no mixing passes a derivative: D is the whole Jacobian of a step, and f, because a
    bias is added to y, that by the bias."""
    model, inputs = zoo_model.build(jnp.float64)
    analysis = ranvier.analyse(model, *inputs)
    check_float64(zoo_model, analysis)
    info = analysis.info
    plain = random_hidden(info)
    hidden = {slot.path: jax.tree.unflatten(slot.treedef, [plain[slot.path]]) for slot in info.hidden}
    params = {slot.path: silenced(slot) for slot in info.parameters}
    transitions, drives = measured(analysis, inputs, params, hidden)
    jacobian = jacobian_by_states_and_parameters(info, inputs, params, hidden)
    for new, (by_state, by_parameter) in zip(info.hidden, jacobian):
        rows = int(np.prod(new.shape))
        for old, derivative in zip(info.hidden, by_state):
            expected = matrix(derivative, rows)
            d = transitions.get((new.path, old.path), np.zeros_like(expected))
            assert_same(d, expected, f"{new.path} by {old.path}")
        for relation, drive in zip(analysis.relations, drives):
            slot = info.slots[relation.path]
            leaf = bias_leaf(slot, relation.y.aval.shape)
            if leaf is not None and relation.connections:
                expected = matrix(by_parameter[info.parameters.index(slot)][leaf], rows)
                assert_same(drive.get(new.path, np.zeros_like(expected)), expected, f"{new.path} by {relation.path}")


def bias_leaf(slot: ranvier.types.Slot, y_shape) -> int | None:
    """Number of the leaf that is added to y position by position."""
    found = [k for k, leaf in enumerate(slot.leaves) if leaf.shape == y_shape and len(slot.leaves) > 1]
    return found[0] if found else None


def jacobian_by_states_and_parameters(info, inputs, params, hidden):
    def leaves(values, slots):
        return [jax.tree.leaves(values[slot.path]) for slot in slots]

    def named(leaves, slots):
        return {slot.path: jax.tree.unflatten(slot.treedef, part) for slot, part in zip(slots, leaves)}

    def new_states(old, parameters):
        given = {"hidden": named([[x] for x in old], info.hidden), "params": named(parameters, info.parameters)}
        _, new, _ = info.step(*inputs, **given)
        return [part[0] for part in leaves(new, info.hidden)]

    old = [part[0] for part in leaves(hidden, info.hidden)]
    return jax.jit(jax.jacrev(new_states, argnums=(0, 1)))(old, leaves(params, info.parameters))
