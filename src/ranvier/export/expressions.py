"""Symbolic values: arithmetic on them builds the text of a Python expression.

With ``v = leaf("v")`` and ``w = leaf("w")``, ``(v + 1) * w - v`` is the expression ``(v + 1) * w - v``: a
tree whose leaves are texts and numbers. :class:`Statements` writes such trees as assignments. What is used twice gets a
variable, so that ``y = v * w; y + y`` becomes ``n_1 = v * w`` and ``n_1 + n_1``, and not ``v * w + v * w``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

ATOM, POWER, PRODUCT, SUM, COMPARISON = range(5)
"""Operator precedence, the tightest first; an operand that binds less tightly than its place allows gets
parentheses."""


@dataclass(frozen=True, eq=False)
class Expression:
    """The text of an expression, with its operands between the pieces.

    Attributes:
        pieces: text before, between and after the operands: one more than there are operands.
        operands: expressions.
        precedence: how tightly the text binds.
        limits: by operand, the loosest precedence that needs no parentheses.
        shape: of the value, where it is needed.
    """

    pieces: tuple[str, ...]
    operands: tuple[Expression, ...] = ()
    precedence: int = ATOM
    limits: tuple[int, ...] = ()
    shape: tuple[int, ...] | None = None

    def __add__(self, other: Any) -> Expression:
        return _binary("+", SUM, self, other)

    def __radd__(self, other: Any) -> Expression:
        return _binary("+", SUM, other, self)

    def __sub__(self, other: Any) -> Expression:
        return _binary("-", SUM, self, other)

    def __rsub__(self, other: Any) -> Expression:
        return _binary("-", SUM, other, self)

    def __mul__(self, other: Any) -> Expression:
        return _binary("*", PRODUCT, self, other)

    def __rmul__(self, other: Any) -> Expression:
        return _binary("*", PRODUCT, other, self)

    def __truediv__(self, other: Any) -> Expression:
        return _binary("/", PRODUCT, self, other)

    def __rtruediv__(self, other: Any) -> Expression:
        return _binary("/", PRODUCT, other, self)

    def __matmul__(self, other: Any) -> Expression:
        return _binary("@", PRODUCT, self, other)

    def __neg__(self) -> Expression:
        return Expression(("-", ""), (self,), PRODUCT, (POWER,))

    def __pow__(self, exponent: Any) -> Expression:
        # Powers bind to the right: a ** b ** c is a ** (b ** c), so the base is the one that needs parentheses.
        return Expression(("", " ** ", ""), (self, expression(exponent)), POWER, (ATOM, POWER))

    def __gt__(self, other: Any) -> Expression:
        return _binary(">", COMPARISON, self, other)

    def __ge__(self, other: Any) -> Expression:
        return _binary(">=", COMPARISON, self, other)

    def __lt__(self, other: Any) -> Expression:
        return _binary("<", COMPARISON, self, other)

    def __le__(self, other: Any) -> Expression:
        return _binary("<=", COMPARISON, self, other)

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self.text} has no value while source is written, so 'if', 'and' and 'or' cannot decide by it; write "
            "ops.where(condition, x, y)."
        )

    def __ne__(self, other: Any) -> Expression:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _binary("!=", COMPARISON, self, other)

    def __eq__(self, other: Any) -> Expression:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _binary("==", COMPARISON, self, other)

    __hash__ = object.__hash__

    @property
    def text(self) -> str:
        first, *rest = self.pieces
        texts = [
            f"({x.text})" if x.precedence > limit else x.text
            for x, limit in zip(self.operands, self.limits, strict=True)
        ]
        return first + "".join(text + piece for text, piece in zip(texts, rest, strict=True))

    @property
    def is_name(self) -> bool:
        return not self.operands and self.text.isidentifier()

    @property
    def number(self) -> float | None:
        """The number that is written here, if it is one."""
        is_number = not self.operands and re.fullmatch(r"\(?-?[\d.]+(e[-+]?\d+)?\)?", self.pieces[0])
        return float(self.pieces[0].strip("()")) if is_number else None


def leaf(text: str, shape: tuple[int, ...] | None = None) -> Expression:
    """A text without operands, such as a variable."""
    return Expression((text,), shape=shape)


def expression(value: Any) -> Expression:
    """A value as an expression: a number is written out."""
    if isinstance(value, Expression):
        return value
    number = np.asarray(value).item()
    return leaf(repr(number) if number >= 0 else f"({number!r})")


def called(function: str, *operands: Any) -> Expression:
    """``function(operands)``."""
    return filled((f"{function}(", *(", " for _ in operands[1:]), ")"), *operands)


def filled(pieces: tuple[str, ...], *operands: Any) -> Expression:
    """Operands between brackets and commas, where none needs parentheses."""
    return Expression(pieces, tuple(map(expression, operands)), ATOM, tuple(COMPARISON for _ in operands))


def followed(x: Any, text: str) -> Expression:
    """An operand with an index or a method after it, as in ``x[0]`` and ``x.reshape(-1)``."""
    return Expression(("", text), (expression(x),), ATOM, (ATOM,))


def _binary(sign: str, precedence: int, left: Any, right: Any) -> Expression:
    # Python reads a - b - c as (a - b) - c. The right operand has parentheses where it binds as tightly, also in sums
    # and products, since floats depend on their order. Comparisons chain, so both of their operands have them.
    limits = precedence - (precedence == COMPARISON), precedence - 1
    return Expression(("", f" {sign} ", ""), (expression(left), expression(right)), precedence, limits)


class Statements:
    """Assignments for expressions that share parts.

    Attributes:
        lines: the assignments so far.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.lines: list[str] = []
        self._variables: dict[int, Expression] = {}

    def assign(self, results: Mapping[str, Expression]) -> dict[str, str]:
        """Assigns expressions to variables, called after the prefix and their labels.

        Returns:
            The variable of each result; a result that is a variable already is not assigned again.
        """
        parts = _innermost_first(results.values())
        uses = Counter(id(operand) for x in parts for operand in x.operands)
        labels: dict[int, str] = {}
        for label, result in results.items():
            labels.setdefault(id(result), label)
        for x in parts:
            label = labels.get(id(x))
            if label is None and x.operands and uses[id(x)] > 1:
                self._number(x)
            elif label is not None and not x.is_name:
                self._set(x, f"{self.prefix}_{label}")
        return {label: self._written(result).text for label, result in results.items()}

    def _number(self, x: Expression) -> None:
        self._set(x, f"{self.prefix}_{len(self.lines) + 1}")

    def _set(self, x: Expression, variable: str) -> None:
        self.lines.append(f"{variable} = {self._written(x).text}")
        self._variables[id(x)] = leaf(variable)

    def _written(self, x: Expression) -> Expression:
        """The expression with variables for the parts that have one."""
        if id(x) in self._variables:
            return self._variables[id(x)]
        return replace(x, operands=tuple(map(self._written, x.operands)))


def _innermost_first(results: Iterable[Expression]) -> list[Expression]:
    """All parts of expressions, each once and after its own parts."""
    order: dict[int, Expression] = {}

    def visit(x: Expression) -> None:
        if id(x) not in order:
            for operand in x.operands:
                visit(operand)
            order[id(x)] = x

    for result in results:
        visit(result)
    return list(order.values())
