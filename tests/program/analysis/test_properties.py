"""Properties that hold for any step: D is what ``jax.jacobian`` says, and no mixing passes as elementwise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ranvier
from ranvier.program._jax import Literal, bind, dtype_of, is_floating
from ranvier.program.analysis.binding_time import binding_times_of
from ranvier.program.analysis.dependence import equation_dependences
from tests.support.examples import examples
from tests.support.random_steps import SIZE, RandomStep, random_steps

pytestmark = pytest.mark.usefixtures("float64")

run = settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def random_values(step: RandomStep, seed: int) -> tuple[dict, jax.Array]:
    rng = np.random.default_rng(seed)
    state = {f"h{k}": jnp.asarray(rng.normal(size=SIZE)) for k in range(step.num_states)}
    return state, jnp.asarray(rng.normal(size=SIZE))


def full_jacobian(step: RandomStep, state: dict, x: jax.Array) -> dict:
    """d new state / d old state with the mixing operations cut, by ``jax.jacobian``."""
    return jax.jacobian(lambda old: step({}, old, x, cut=True)[0])(state)


def check_group(group: ranvier.HiddenGroup, D: np.ndarray, jacobian: dict, whole: bool) -> None:
    names = [path[0] for path in group.hidden_paths]
    flat = D.reshape(-1, *D.shape[-2:])
    for a, row in enumerate(group.positions.components):
        for b, column in enumerate(group.positions.components):
            block = np.asarray(jacobian[names[row.state]][names[column.state]])
            present = (row.elements >= 0) & (column.elements >= 0)
            rows, columns = row.elements[present], column.elements[present]
            np.testing.assert_allclose(flat[present, a, b], block[rows, columns], atol=1e-10)
            assert not flat[~present, a, b].any()
            if whole:
                inside = np.zeros_like(block)
                inside[rows, columns] = block[rows, columns]
                others = np.ix_(row.elements[row.elements >= 0], column.elements[column.elements >= 0])
                np.testing.assert_array_equal(block[others], inside[others])


@pytest.mark.slow
@run
@given(random_steps(), st.integers(0, 1000))
def test_D_is_the_diagonal_blocks_of_the_jacobian(step: RandomStep, seed: int) -> None:
    state, x = random_values(step, seed)
    info = ranvier.extract_module_info(ranvier.step_function(step, {}, state, name="random"), x)
    jacobian = full_jacobian(step, state, x)
    groups, group_of = ranvier.find_hidden_groups_from_minfo(info)
    assert sorted(path for group in groups for path in group.hidden_paths) == sorted(group_of)
    for group in groups:
        check_group(group, np.asarray(group.transition.jacobian(info.values(x))), jacobian, whole=True)
    hidden = [name for name in jacobian if (name,) in group_of]  # the others are returned as they came
    for a in hidden:
        for b in hidden:
            if group_of[a,] is not group_of[b,]:
                assert not np.asarray(jacobian[a][b]).any()


@pytest.mark.slow
@run
@given(random_steps(moving=True), st.integers(0, 1000))
def test_D_is_right_where_positions_move(step: RandomStep, seed: int) -> None:
    state, x = random_values(step, seed)
    analysis = ranvier.analyse(ranvier.step_function(step, {}, state, name="random"), x)
    jacobian = full_jacobian(step, state, x)
    moved = {p for d in analysis.diagnostics if d.kind is ranvier.types.DiagnosticKind.POSITIONS_MOVE for p in d.paths}
    broadcast = any(d.kind is ranvier.types.DiagnosticKind.STATE_BROADCAST for d in analysis.diagnostics)
    for group in analysis.groups:
        whole = not moved & set(group.hidden_paths) and not broadcast
        check_group(group, np.asarray(group.transition.jacobian(analysis.info.values(x))), jacobian, whole)


@pytest.mark.slow
@run
@given(random_steps(moving=True), st.integers(0, 1000))
def test_structural_zeros_and_constants_hold_on_data(step: RandomStep, seed: int) -> None:
    state, x = random_values(step, seed)
    info = ranvier.extract_module_info(ranvier.step_function(step, {}, state, name="random"), x)
    for group in ranvier.analyse(info).groups:
        D = np.asarray(group.transition.jacobian(info.values(x))).reshape(-1, group.num_state, group.num_state)
        for a, row in enumerate(group.transition.entries):
            for b, entry in enumerate(row):
                if entry is None:
                    assert not D[:, a, b].any()
                elif entry.value is not None:
                    np.testing.assert_allclose(D[:, a, b], entry.value, rtol=1e-6, atol=1e-12)
                elif entry.uniform:
                    np.testing.assert_allclose(D[:, a, b], D[0, a, b], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@run
@given(random_steps(moving=True), st.integers(0, 1000))
def test_results_move_only_where_the_analysis_says(step: RandomStep, seed: int) -> None:
    """Perturb one element of one operand; every result element that moves must be in a position map."""
    state, x = random_values(step, seed)
    info = ranvier.extract_module_info(ranvier.step_function(step, {}, state, name="random"), x)
    values, binding_times = info.values(x), binding_times_of(info)
    rng = np.random.default_rng(seed)
    for eqn in info.equations:
        if ranvier.classify(eqn) in (ranvier.Kind.MIXING, ranvier.Kind.OPAQUE):
            continue
        found = equation_dependences(eqn, binding_times.constant_value)
        operands = [atom.val if isinstance(atom, Literal) else values[atom] for atom in eqn.invars]
        before = bind(eqn, operands)
        for k, atom in enumerate(eqn.invars):
            if isinstance(atom, Literal) or not is_floating(dtype_of(atom)) or not np.size(operands[k]):
                continue
            element = int(rng.integers(np.size(operands[k])))
            changed = list(operands)
            changed[k] = jnp.asarray(operands[k]).reshape(-1).at[element].add(0.37).reshape(jnp.shape(operands[k]))
            for number, (old, new) in enumerate(zip(before, bind(eqn, changed), strict=True)):
                moved = set(np.flatnonzero(np.asarray(old).reshape(-1) != np.asarray(new).reshape(-1)))
                assert moved <= predicted(found[number], k, element, np.size(old))


def predicted(found: dict, operand: int, element: int, size: int) -> set[int]:
    expected: set[int] = set()
    for (k, _), maps in found.items():
        if k == operand:
            assert maps is not None
            for position_map in maps:
                expected |= set(np.flatnonzero(position_map.indices(size) == element))
    return expected
