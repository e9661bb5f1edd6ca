"""The primitive table, checked by numbers: what is called elementwise really is."""

from __future__ import annotations

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import ranvier
from ranvier.program.primitives import _TABLE, Kind, rule_of
from tests.support.examples import few

N = 6


def equations(function, *args):
    return jax.make_jaxpr(function)(*args).eqns


def probe(eqn, operand: int) -> set[tuple[int, int]]:
    """(element of the operand, element of a result) pairs that move together."""
    rng = np.random.default_rng(3)
    given = [np.asarray(rng.uniform(0.2, 0.8, atom.aval.shape)).astype(atom.aval.dtype) for atom in eqn.invars]
    params = eqn.primitive.get_bind_params(eqn.params)

    def run(values):
        results = eqn.primitive.bind(*map(jnp.asarray, values), **params)
        return [np.asarray(r).reshape(-1) for r in (results if eqn.primitive.multiple_results else [results])]

    before, pairs = run(given), set()
    for element in range(given[operand].size):
        changed = [value.copy() for value in given]
        flat = changed[operand].reshape(-1)
        flat[element] = flat[element] * 3 + 1
        for old, new in zip(before, run(changed), strict=True):
            pairs |= {(element, int(k)) for k in np.flatnonzero((old != new) & ~(np.isnan(old) & np.isnan(new)))}
    return pairs


UNARY = [
    lax.neg, lax.exp, lax.exp2, lax.expm1, lax.log, lax.log1p, lax.tanh, lax.tan, lax.sin, lax.cos, lax.sinh, lax.cosh,
    lax.asin, lax.acos, lax.atan, lax.asinh, lax.acosh, lax.atanh, lax.erf, lax.erfc, lax.erf_inv, lax.lgamma,
    lax.digamma, lax.abs, lax.sign, lax.floor, lax.ceil, lax.round, lax.sqrt, lax.rsqrt, lax.cbrt, lax.logistic,
    lax.square, lax.is_finite, lax.stop_gradient, lax.bessel_i0e, lax.bessel_i1e, lambda a: lax.integer_pow(a, 3),
    lambda a: lax.convert_element_type(a, jnp.int32), lambda a: lax.reduce_precision(a, 5, 10),
    lambda a: lax.clamp(0.1, a, 0.9), jax.nn.relu, jax.nn.softplus, jax.nn.gelu,
]  # fmt: skip
BINARY = [
    lax.add, lax.sub, lax.mul, lax.div, lax.pow, lax.max, lax.min, lax.rem, lax.atan2, lax.nextafter, lax.eq, lax.ne,
    lax.lt, lax.le, lax.gt, lax.ge, lax.igamma, lax.igammac, lambda a, b: lax.select(a > b, a, b), lax.complex,
    lambda a, b: lax.cond(True, lambda: a * b, lambda: a - b), jnp.logaddexp, jnp.hypot,
]  # fmt: skip
MIXING = [
    lambda a: a @ jnp.ones((N, N)), jnp.cumsum, jnp.cumprod, lax.cumlogsumexp, lambda a: lax.cummax(a), jnp.sort,
    lambda a: lax.reduce_max(a, (0,)), jnp.sum, lambda a: jnp.convolve(a, jnp.ones(3), mode="same"), jnp.fft.fft,
    lambda a: lax.reduce_window(a, 0.0, lax.add, (3,), (1,), "SAME"), lambda a: lax.top_k(a, 2)[0], jnp.argmax,
    lambda a: jnp.zeros(N).at[jnp.zeros(N, int)].add(a),
    lambda a: lax.while_loop(lambda c: c[0] < 2, lambda c: c * 2, a),
]  # fmt: skip


@few("function", UNARY)
def test_unary_equations_are_elementwise(function) -> None:
    for eqn in equations(function, jnp.full(N, 0.3)):
        assert ranvier.classify(eqn) is Kind.ELEMENTWISE
        for operand, atom in enumerate(eqn.invars):
            if atom.aval.shape == (N,):
                assert all(a == b for a, b in probe(eqn, operand))


@few("function", BINARY)
def test_binary_equations_are_elementwise(function) -> None:
    for eqn in equations(function, jnp.full(N, 0.3), jnp.full(N, 0.6)):
        if ranvier.classify(eqn) is Kind.STRUCTURAL:
            continue
        assert ranvier.classify(eqn) is Kind.ELEMENTWISE
        for operand, atom in enumerate(eqn.invars):
            if atom.aval.shape == (N,) and atom.aval.dtype == jnp.float32:
                assert all(a == b for a, b in probe(eqn, operand))


@pytest.mark.parametrize("function", MIXING)
def test_mixing_is_never_called_elementwise(function) -> None:
    kinds = {ranvier.classify(eqn) for eqn in equations(function, jnp.full(N, 0.3))}
    assert kinds & {Kind.MIXING, Kind.OPAQUE, Kind.STRUCTURAL}
    for eqn in equations(function, jnp.full(N, 0.3)):
        moved = [pair for k, atom in enumerate(eqn.invars) if atom.aval.shape == (N,) for pair in probe(eqn, k)]
        if any(a != b for a, b in moved):
            assert ranvier.classify(eqn) is not Kind.ELEMENTWISE


def test_every_elementwise_primitive_with_a_jax_function_was_probed() -> None:
    probed = {eqn.primitive.name for f in UNARY for eqn in equations(f, jnp.full(N, 0.3))}
    probed |= {eqn.primitive.name for f in BINARY for eqn in equations(f, jnp.full(N, 0.3), jnp.full(N, 0.6))}
    elementwise = {name for name, rule in _TABLE.items() if rule.kind is Kind.ELEMENTWISE and hasattr(lax, name)}
    bitwise = {"population_count", "clz", "bitcast_convert_type", "shift_left", "shift_right_arithmetic"}
    others = {"shift_right_logical", "random_gamma_grad", "polygamma", "zeta", "igamma_grad_a", "real", "imag", "conj"}
    rest = {"optimization_barrier", "mulhi", "log2", "one_minus_square"}
    assert elementwise - probed <= bitwise | others | rest


def test_unknown_primitives_are_opaque_until_registered() -> None:
    primitive = jax.extend.core.Primitive("ranvier_test_primitive")
    primitive.def_abstract_eval(lambda a: a)
    (eqn,) = equations(primitive.bind, jnp.ones(N))
    assert ranvier.classify(eqn) is Kind.OPAQUE
    ranvier.register_primitive("ranvier_test_primitive", "elementwise")
    assert ranvier.classify(eqn) is Kind.ELEMENTWISE


def test_a_family_answers_for_a_prefix() -> None:
    primitive = jax.extend.core.Primitive("ranvier_family_member")
    primitive.def_abstract_eval(lambda a: a)
    (eqn,) = equations(primitive.bind, jnp.ones(N))
    ranvier.register_family("ranvier_family_", lambda _: rule_of(jax.extend.core.primitives.dot_general_p))
    assert ranvier.classify(eqn) is Kind.MIXING


def test_nested_equations_have_the_kind_of_their_body() -> None:
    spike = jax.custom_jvp(lambda v: (v > 0).astype(v.dtype))
    spike.defjvp(lambda primals, tangents: (spike(*primals), tangents[0]))
    mixer = jax.custom_jvp(lambda v: v @ jnp.ones((N, N)))
    mixer.defjvp(lambda primals, tangents: (mixer(*primals), mixer(*tangents)))
    (elementwise,) = equations(spike, jnp.ones(N))
    (mixing,) = equations(mixer, jnp.ones(N))
    assert ranvier.classify(elementwise) is Kind.ELEMENTWISE
    assert ranvier.classify(mixing) is Kind.MIXING
