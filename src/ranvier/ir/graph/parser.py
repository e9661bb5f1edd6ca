"""Reading the text form of a graph; see :mod:`.printer` for what it looks like. Nothing is evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import numpy as np
from scipy import sparse

from ...errors import GraphError, reason_text
from .elements import Activity, Input, Output, Population, Projection
from .neurons import NEURONS
from .operations import OPERATIONS
from .snn_graph import SNNGraph

TOKEN = re.compile(
    r'(?P<space>[ \t\r\n]+)|(?P<comment>#[^\n]*)|(?P<string>"(?:[^"\\\n]|\\.)*")'
    r"|(?P<number>[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|inf\b|nan\b))"
    r"|(?P<name>[A-Za-z_]\w*)|(?P<mark>->|[{}()\[\]:=,@])"
)
DTYPES = ("float16", "float32", "float64")
DEEPEST = 8
"""Arrays have no more axes."""
LARGEST = 2**31
"""Nor more numbers."""


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


def from_text(text: str, arrays: Mapping[str, np.ndarray] | None = None) -> SNNGraph:
    """The graph that a text describes; it may still be invalid (:func:`.verifier.check`).

    Args:
        text: as :func:`.printer.to_text` writes it; ``#`` starts a comment.
        arrays: what the text refers to, by name.

    Raises:
        GraphError: the text is no graph; the message names the line.
    """
    return _Parser(_tokens(text), arrays or {}).graph()


def _tokens(text: str) -> list[Token]:
    found, at, line = [], 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise GraphError(f"line {line}: {text[at : at + 20]!r} is no part of a graph's text.")
        kind = str(match.lastgroup)
        if kind not in ("space", "comment"):
            found.append(Token(kind, match.group(), line))
        line += match.group().count("\n")
        at = match.end()
    return [*found, Token("end", "the end of the text", line)]


class _Parser:
    def __init__(self, tokens: list[Token], arrays: Mapping[str, np.ndarray]) -> None:
        self.tokens, self.at, self.arrays = tokens, 0, arrays

    def graph(self) -> SNNGraph:
        self.expect("graph")
        parts: dict[str, Any] = {"name": self.string()}
        for kind in ("inputs", "populations", "outputs", "projections"):
            parts[kind] = []
        parts["metadata"] = {}
        self.expect("{")
        readers = {
            "dt": lambda: parts.update(dt=self.setting(self.number)),
            "input": lambda: parts["inputs"].append(self.input()),
            "population": lambda: parts["populations"].append(self.population()),
            "output": lambda: parts["outputs"].append(Output(self.string(), self.shape())),
            "projection": lambda: parts["projections"].append(self.projection()),
            "metadata": lambda: parts["metadata"].update([(self.string(), self.setting(self.string))]),
        }
        while not self.take("}"):
            token = self.next()
            if token.text not in readers:
                self.fail(token, f"one of {', '.join(readers)}")
            readers[token.text]()
        if self.peek.kind != "end":
            self.fail(self.peek, "nothing more")
        return SNNGraph(**parts)

    def input(self) -> Input:
        return Input(self.string(), self.shape(), **self.options({"low": self.number, "high": self.number}))

    def population(self) -> Population:
        name, shape, token = self.string(), self.shape(), self.peek
        kind, choices = self.call(NEURONS)
        activity = self.options({"steps": self.integer, "data": self.string})
        arrays = self.block()
        initial = {k.removeprefix("initial "): arrays.pop(k) for k in list(arrays) if k.startswith("initial ")}
        measured = {k.removeprefix("activity "): arrays.pop(k) for k in list(arrays) if k.startswith("activity ")}
        neuron = self.make(token, kind, {**choices, **arrays})
        found = self.make(token, Activity, {**measured, **activity}) if measured or activity else None
        return Population(name, shape, neuron, initial, found)

    def projection(self) -> Projection:
        name, source = self.string(), self.string()
        self.expect("->")
        target = self.string()
        readers = {
            "delay": self.integer,
            "source_port": self.string,
            "target_port": self.string,
            "trained": self.integer,
        }
        given, token = self.options(readers), self.peek
        given["trained"] = bool(given.get("trained", 1))
        kind, options = self.call(OPERATIONS)
        return Projection(name, source, target, self.make(token, kind, {**options, **self.block()}), **given)

    def make(self, token: Token, kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
        try:
            return kind(**fields)
        except TypeError:
            known = list(getattr(kind, "__dataclass_fields__", {}))
            raise GraphError(
                f"line {token.line}: {token.text} has the fields {known}, given are {list(fields)}."
            ) from None
        except ValueError as error:
            raise GraphError(f"line {token.line}: {token.text}: {reason_text(error)}.") from error

    def call(self, kinds: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        token = self.next()
        if token.text not in kinds:
            self.fail(token, f"one of {', '.join(kinds)}")
        self.expect("(")
        options: dict[str, Any] = {}
        while not self.take(")"):
            key = self.next().text
            self.expect("=")
            options[key] = self.value()
            if self.peek.text != ")":
                self.expect(",")
        return kinds[token.text], options

    def options(self, readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.peek.kind == "name" and self.peek.text in readers:
            key = self.next().text
            found[key] = self.setting(readers[key])
        return found

    def setting(self, reader: Callable[[], Any]) -> Any:
        self.expect("=")
        return reader()

    def block(self) -> dict[str, Any]:
        """Arrays by label."""
        found: dict[str, Any] = {}
        if not self.take("{"):
            return found
        while not self.take("}"):
            label = self.next().text
            while self.peek.kind == "name":
                label += f" {self.next().text}"
            self.expect(":")
            found[label] = self.array()
        return found

    def array(self) -> Any:
        token = self.next()
        if token.text not in DTYPES:
            self.fail(token, f"one of {', '.join(DTYPES)}")
        dtype, shape = np.dtype(token.text), self.shape()
        rows = self.take("sparse")
        self.expect("=")
        if self.take("all"):
            return np.broadcast_to(np.array(self.number(), dtype), self.possible(token, shape))
        if not self.take("@"):
            return self.inline(token, dtype, shape)
        name = self.string()
        value: Any = self.sparse_rows(token, name, shape) if rows else self.referred(token, name)
        if value.dtype != dtype or value.shape != shape:
            self.fail(token, f"{value.dtype}{list(value.shape)}, as the array {name!r} is,")
        return value

    def possible(self, token: Token, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that an array can have."""
        if len(shape) > DEEPEST or min(shape, default=0) < 0 or prod(shape) > LARGEST:
            self.fail(token, f"a shape of up to {DEEPEST} axes and {LARGEST} numbers")
        return shape

    def inline(self, token: Token, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        numbers = self.numbers(len(shape), 0)
        try:
            value = np.array(numbers, dtype)
        except (ValueError, OverflowError):
            self.fail(token, "lists of equal length")
        if value.shape != shape:
            self.fail(token, f"as many numbers as the shape {list(shape)} says, not {list(value.shape)},")
        return value

    def numbers(self, axes: int, depth: int) -> Any:
        if depth > DEEPEST:
            self.fail(self.peek, "lists that are nested less")
        if depth == axes:
            return self.number()
        self.expect("[")
        found = []
        while not self.take("]"):
            found.append(self.numbers(axes, depth + 1))
            if self.peek.text != "]":
                self.expect(",")
        return found

    def referred(self, token: Token, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.fail(token, f"an array that is there ({name!r} is not)")
        return self.arrays[name]

    def sparse_rows(self, token: Token, name: str, shape: tuple[int, ...]) -> sparse.csr_array:
        parts = tuple(self.referred(token, f"{name}/{part}") for part in ("data", "indices", "indptr"))
        try:
            rows = sparse.csr_array(parts, shape=shape)
            rows.check_format(full_check=True)
        except (ValueError, TypeError, IndexError) as error:
            raise GraphError(
                f"line {token.line}: {name!r} holds no sparse rows of shape {list(shape)}: {error}."
            ) from None
        return rows

    def shape(self) -> tuple[int, ...]:
        self.expect("[")
        found = []
        while not self.take("]"):
            found.append(self.integer())
            if self.peek.text != "]":
                self.expect(",")
        return tuple(found)

    def value(self) -> Any:
        """A string, a number or a flat list of numbers."""
        if self.peek.kind == "string":
            return self.string()
        if self.peek.text != "[":
            return self.number()
        return self.shape()

    def string(self) -> str:
        token = self.next()
        if token.kind != "string":
            self.fail(token, "a text in quotes")
        try:
            return json.loads(token.text)
        except ValueError:
            self.fail(token, "a JSON string")

    def number(self) -> float | int:
        token = self.next()
        if token.kind != "number":
            self.fail(token, "a number")
        try:
            return int(token.text)
        except ValueError:
            return float(token.text)

    def integer(self) -> int:
        token = self.peek
        found = self.number()
        if not isinstance(found, int) or abs(found) > 2**62:
            self.fail(token, "a whole number")
        return found

    @property
    def peek(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token

    def take(self, text: str) -> bool:
        if self.peek.kind in ("mark", "name") and self.peek.text == text:
            self.next()
            return True
        if self.peek.kind == "end":
            self.fail(self.peek, repr(text))
        return False

    def expect(self, text: str) -> None:
        token = self.next()
        if token.kind not in ("mark", "name") or token.text != text:
            self.fail(token, repr(text))

    def fail(self, token: Token, expected: str) -> NoReturn:
        raise GraphError(f"line {token.line}: {expected} is expected, not {token.text[:60]!r}.")
