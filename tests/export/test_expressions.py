"""Symbolic values: the text means what the arithmetic did."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.export.expressions import Statements, called, leaf
from tests.support.examples import examples

VALUES = {"a": 1.75, "b": -0.6, "c": 3.25}
BINARY = (operator.add, operator.sub, operator.mul, operator.truediv)
COMPARISONS = (operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne)


@st.composite
def pairs(draw: Any, depth: int = 4) -> tuple[Any, float]:
    """A symbolic value and the number that it stands for."""
    kind = draw(
        st.sampled_from(["name", "number"] if depth == 0 else ["binary", "negative", "square", "compare", "name"])
    )
    if kind == "name":
        name = draw(st.sampled_from(sorted(VALUES)))
        return leaf(name), VALUES[name]
    if kind == "number":
        number = draw(st.sampled_from([-2.0, 0.5, 3.0]))
        return leaf("a") * 0 + number, number
    x, x_value = draw(pairs(depth - 1))
    if kind == "negative":
        return -x, -x_value
    if kind == "square":
        return x**2, x_value**2
    y, y_value = draw(pairs(depth - 1))
    if kind == "compare":
        compare = draw(st.sampled_from(COMPARISONS))
        return called("float", compare(x, y)), float(compare(x_value, y_value))
    apply = draw(st.sampled_from(BINARY))
    if apply is operator.truediv and y_value == 0:
        apply = operator.sub
    return apply(x, y), apply(x_value, y_value)


@given(pairs())
@settings(max_examples=examples(200), deadline=None)
def test_the_text_gives_the_number(pair: tuple[Any, float]) -> None:
    symbolic, number = pair
    np.testing.assert_equal(eval(symbolic.text, {**VALUES, "float": float}), number)


@given(pairs())
@settings(max_examples=examples(100), deadline=None)
def test_statements_share_parts_and_give_the_same(pair: tuple[Any, float]) -> None:
    symbolic, number = pair
    statements = Statements("n")
    variables = statements.assign({"z": symbolic * symbolic + 1, "v": symbolic, "again": symbolic})
    known: dict[str, Any] = {**VALUES, "float": float}
    for line in statements.lines:
        exec(line, known)
    assert [eval(variables[k], known) for k in ("z", "v", "again")] == [number * number + 1, number, number]
    assert len(set(statements.lines)) == len(statements.lines)
    assert variables["v"] == variables["again"]


def test_an_example_in_text() -> None:
    v, w = leaf("v"), leaf("w")
    assert ((v + 1) * w - v).text == "(v + 1) * w - v"
    assert (v - (w - v)).text == "v - (w - v)"
    assert ((v > 1) == 1).text == "(v > 1) == 1"
    assert ((-v) ** 2).text == "(-v) ** 2"


def test_what_has_no_value_cannot_decide() -> None:
    v = leaf("v")
    with pytest.raises(TypeError, match=r"write ops\.where"):
        bool(v > 1)


def test_braces_in_a_name_are_text() -> None:
    assert (leaf("arrays['a{}']") + 1).text == "arrays['a{}'] + 1"
