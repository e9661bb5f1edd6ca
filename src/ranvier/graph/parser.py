"""Reading the text form of a graph; see :mod:`.printer` for what it looks like. Nothing is evaluated."""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NoReturn

import jax
import numpy as np
from scipy import sparse

from ..errors import GraphError, reason_text
from ..program.formula import FUNCTIONS, Formula, Step
from ..util.limits import MemoryBudget, TooLarge
from .elements import Activity, Input, Output, Population, Projection
from .footprint import BYTES_PER_NEURON
from .neurons import NEURONS
from .operations import OPERATIONS
from .shared import ArrayName, ParameterBinding, array_at, numbers_of
from .snn_graph import SNNGraph

TOKEN = re.compile(
    # Possessive, so that a long text needs no memory to go back over it.
    r'(?P<space>[ \t\r\n]++)|(?P<comment>#[^\n]*+)|(?P<string>"(?:[^"\\\n]++|\\.)*+")'
    r"|(?P<number>[-+]?(?:\d++\.?\d*+(?:[eE][-+]?\d++)?|\.\d++(?:[eE][-+]?\d++)?|inf\b|nan\b))"
    r"|(?P<name>[A-Za-z_]\w*+)|(?P<mark>->|[{}()\[\]:=,@])"
)
DTYPES = ("float16", "float32", "float64")
CONSTANTS = (*DTYPES, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""Of arrays within formulas."""
DEEPEST = 8
"""Arrays have no more axes."""
LARGEST_INTEGER = 2**62
"""Larger numbers are read as floats."""
LONGEST_NUMBER = 400
"""Characters; no float64 needs as many."""


@dataclass(frozen=True)
class Token:
    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class BindingText:
    """How the text says that an array is made.

    Attributes:
        token: where it says it.
        parameters, index: as :class:`.shared.ParameterBinding` has them, the index flat.
        formula: of the parameters, or None.
    """

    token: Token
    parameters: tuple[str, ...]
    formula: Formula | None
    index: np.ndarray | None

    def of(self, graph: SNNGraph, array: ArrayName, budget: MemoryBudget) -> ParameterBinding:
        """The use by an array of the graph, whose shape its index gets."""
        value, index, function = array_at(graph, array), self.index, None
        shape = () if value is None else numbers_of(value).shape
        if index is not None and index.size == prod(shape):
            index = index.reshape(shape)
        if self.formula is not None:
            known = [graph.parameters[name] for name in self.parameters if name in graph.parameters]
            avals = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in known]
            try:
                function = self.formula.traced(avals, budget.spend)
            except Exception as error:  # JAX raises errors of many kinds for operands that do not fit
                line = self.token.line
                raise GraphError(f"line {line}: the formula of {'.'.join(array)!r}: {reason_text(error)}.") from error
        return ParameterBinding(self.parameters, function, index)


def from_text(text: str, arrays: Mapping[str, np.ndarray] | None = None) -> SNNGraph:
    """The graph that a text describes; it may still be invalid (:func:`.verifier.check`).

    Args:
        text: as :func:`.printer.to_text` writes it; ``#`` starts a comment.
        arrays: what the text refers to, by name.

    Raises:
        GraphError: the text is no graph, or declares more than a file of its size may
            (:class:`ranvier.types.Limits`); the message names the line.
    """
    arrays = arrays or {}
    return parse(text, arrays, MemoryBudget(len(text) + sum(value.nbytes for value in arrays.values())))


def parse(text: str, arrays: Mapping[str, np.ndarray], budget: MemoryBudget) -> SNNGraph:
    """As :func:`from_text`, where what is declared has to fit a budget."""
    return _Parser(_tokens(text), arrays, budget).graph()


def _tokens(text: str) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise GraphError(f"line {line}: {text[at : at + 20]!r} is no part of a graph's text.")
        kind = str(match.lastgroup)
        if kind not in ("space", "comment"):
            yield Token(kind, match.group(), line)
        line += match.group().count("\n")
        at = match.end()
    yield Token("end", "the end of the text", line)


class _Parser:
    def __init__(self, tokens: Iterator[Token], arrays: Mapping[str, np.ndarray], budget: MemoryBudget) -> None:
        self.tokens, self.arrays, self.budget = tokens, arrays, budget
        self.peek = next(tokens)

    def graph(self) -> SNNGraph:
        self.expect("graph")
        parts: dict[str, Any] = {"name": self.string()}
        for kind in ("inputs", "populations", "outputs", "projections"):
            parts[kind] = []
        parts.update(metadata={}, parameters={}, uses={})
        self.expect("{")
        readers = {
            "dt": lambda: parts.update(dt=self.setting(self.number)),
            "input": lambda: parts["inputs"].append(self.input()),
            "population": lambda: parts["populations"].append(self.population()),
            "output": lambda: parts["outputs"].append(Output(self.string(), self.size())),
            "projection": lambda: parts["projections"].append(self.projection()),
            "parameter": lambda: parts["parameters"].update([(self.string(), self.array())]),
            "use": lambda: parts["uses"].update([self.use()]),
            "metadata": lambda: parts["metadata"].update([(self.string(), self.setting(self.string))]),
        }
        while not self.take("}"):
            token = self.next()
            if token.text not in readers:
                self.fail(token, f"one of {', '.join(readers)}")
            readers[token.text]()
        if self.peek.kind != "end":
            self.fail(self.peek, "nothing more")
        uses: dict[ArrayName, BindingText] = parts.pop("uses")
        graph = SNNGraph(**parts)
        graph.bindings = {array: use.of(graph, array, self.budget) for array, use in uses.items()}
        return graph

    def input(self) -> Input:
        return Input(self.string(), self.size(), **self.options({"low": self.number, "high": self.number}))

    def population(self) -> Population:
        name, shape, token = self.string(), self.size(), self.peek
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

    def use(self) -> tuple[ArrayName, BindingText]:
        """Of which array, and how it is made."""
        token, array = self.peek, (self.string(), self.string())
        names, formula, index = [], None, None
        self.expect("=")
        while self.peek.kind == "string":
            names.append(self.string())
        if self.peek.text == "by":
            self.next()
            formula = self.formula(len(names))
        if self.peek.text == "[":
            index = np.array(self.integers(), np.int64)
        elif self.peek.text == "@":
            self.next()
            index = self.referred(self.peek, self.string())
        return array, BindingText(token, tuple(names), formula, index)

    def formula(self, count: int) -> Formula:
        """The steps between braces, of some operands."""
        constants: dict[str, np.ndarray] = {}
        steps: list[Step] = []
        self.expect("{")
        while not self.take("}"):
            token = self.next()
            if self.take(":"):
                constants[token.text] = self.array(CONSTANTS)
                continue
            if token.text != f"v{count + len(steps)}":
                self.fail(token, f"v{count + len(steps)}")
            self.expect("=")
            steps.append(self.step(count + len(steps), constants))
        if not steps:
            self.fail(self.peek, "a formula with a step before this")
        return Formula(count, tuple(steps))

    def step(self, count: int, constants: Mapping[str, np.ndarray]) -> Step:
        """An operation on constants and the values that are there already."""
        operation, operands, options = self.next(), [], {}
        if operation.text not in FUNCTIONS:
            self.fail(operation, f"one of {', '.join(FUNCTIONS)}")
        known = {**{f"v{number}": number for number in range(count)}, **constants}
        self.expect("(")
        while not self.take(")"):
            token = self.next()
            if self.take("="):
                options[token.text] = self.value()
            elif token.text in known:
                operands.append(known[token.text])
            else:
                self.fail(token, "a value that is there")
            if self.peek.text != ")":
                self.expect(",")
        return Step(operation.text, tuple(operands), options)

    def make(self, token: Token, kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
        try:
            return kind(**fields)
        except TypeError:
            known = list(getattr(kind, "__dataclass_fields__", {}))
            raise GraphError(
                f"line {token.line}: {token.text} has the fields {known}, given are {list(fields)}."
            ) from None
        except (ValueError, ArithmeticError) as error:
            raise GraphError(f"line {token.line}: {token.text}: {reason_text(error)}.") from error

    def call(self, kinds: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        token = self.next()
        if token.text not in kinds:
            self.fail(token, f"one of {', '.join(kinds)}")
        self.expect("(")
        options: dict[str, Any] = {}
        while not self.take(")"):
            key = self.key(options)
            self.expect("=")
            options[key] = self.value()
            if self.peek.text != ")":
                self.expect(",")
        return kinds[token.text], options

    def options(self, readers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.peek.kind == "name" and self.peek.text in readers:
            key = self.key(found)
            found[key] = self.setting(readers[key])
        return found

    def key(self, known: Mapping[str, Any]) -> str:
        """The name of an option, which is given once."""
        token = self.next()
        if token.text in known:
            self.fail(token, f"another option than {token.text}, which is there already,")
        return token.text

    def setting(self, reader: Callable[[], Any]) -> Any:
        self.expect("=")
        return reader()

    def block(self) -> dict[str, Any]:
        """Arrays by label."""
        found: dict[str, Any] = {}
        if not self.take("{"):
            return found
        while not self.take("}"):
            token = self.next()
            label = token.text
            while self.peek.kind == "name":
                label += f" {self.next().text}"
            if label in found:
                self.fail(token, f"another array than {label!r}, which is there already,")
            self.expect(":")
            found[label] = self.array()
        return found

    def array(self, dtypes: tuple[str, ...] = DTYPES) -> Any:
        token = self.next()
        if token.text not in dtypes:
            self.fail(token, f"one of {', '.join(dtypes)}")
        dtype, shape = np.dtype(token.text), self.shape()
        rows = self.take("sparse")
        self.expect("=")
        if self.take("all"):
            self.declare(token, shape, dtype.itemsize)
            return np.broadcast_to(np.array(self.number(), dtype), shape)
        if not self.take("@"):
            return self.inline(token, dtype, shape)
        name = self.string()
        value: Any = self.sparse_rows(token, name, shape) if rows else self.referred(token, name)
        if value.dtype != dtype or value.shape != shape:
            self.fail(token, f"{value.dtype}{list(value.shape)}, as the array {name!r} is,")
        return value

    def size(self) -> tuple[int, ...]:
        """Shape of an input, population or output."""
        token = self.peek
        shape = self.shape()
        self.declare(token, shape, BYTES_PER_NEURON)
        return shape

    def declare(self, token: Token, shape: tuple[int, ...], itemsize: int) -> None:
        """Passes for a shape that an array can have, and that a file of this size may ask for."""
        if min(shape, default=0) < 0:
            self.fail(token, "a shape of numbers that are not negative")
        try:
            self.budget.spend(prod(max(n, 1) for n in shape) * itemsize, f"a shape {list(shape)}")
        except TooLarge as error:
            raise GraphError(f"line {token.line}: {error}.") from error

    def inline(self, token: Token, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        self.declare(token, shape, array("d").itemsize)
        numbers = array("d")
        self.numbers(shape, numbers, f"as many numbers as the shape {list(shape)} says")
        with np.errstate(over="ignore"):  # to infinity, which the verifier names
            return np.array(numbers, dtype).reshape(shape)

    def numbers(self, shape: tuple[int, ...], into: array[float], expected: str) -> None:
        """Reads lists in lists, as long as a shape says."""
        if not shape:
            into.append(self.number())
            return
        self.expect("[")
        for k in range(shape[0]):
            if k and not self.take(","):
                self.fail(self.peek, expected)
            self.numbers(shape[1:], into, expected)
        if not self.take("]"):
            self.fail(self.peek, expected)

    def referred(self, token: Token, name: str) -> np.ndarray:
        if name not in self.arrays:
            self.fail(token, f"an array that is there ({name!r} is not)")
        return self.arrays[name]

    def sparse_rows(self, token: Token, name: str, shape: tuple[int, ...]) -> sparse.csr_array:
        data, indices, indptr = (self.referred(token, f"{name}/{part}") for part in ("data", "indices", "indptr"))
        if not _are_rows(data, indices, indptr, shape):
            self.fail(token, f"sparse rows of shape {list(shape)}, which {name!r} does not hold,")
        return sparse.csr_array((data, indices, indptr), shape=shape)

    def shape(self) -> tuple[int, ...]:
        token = self.peek
        shape = self.integers()
        if len(shape) > DEEPEST:
            self.fail(token, f"a shape of up to {DEEPEST} axes")
        return shape

    def integers(self) -> tuple[int, ...]:
        self.expect("[")
        integers: list[int] = []
        while not self.take("]"):
            integers.append(self.integer())
            if self.peek.text != "]":
                self.expect(",")
        return tuple(integers)

    def value(self, depth: int = 0) -> Any:
        """A string, a number, or lists of these."""
        if self.peek.kind == "string":
            return self.string()
        if self.peek.text != "[":
            return self.number()
        if depth > DEEPEST:
            self.fail(self.peek, "lists that are nested less")
        self.next()
        found = []
        while not self.take("]"):
            found.append(self.value(depth + 1))
            if self.peek.text != "]":
                self.expect(",")
        return tuple(found)

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
        if token.kind != "number" or len(token.text) > LONGEST_NUMBER:
            self.fail(token, "a number")
        try:
            whole = int(token.text)
        except ValueError:
            return float(token.text)
        return whole if abs(whole) <= LARGEST_INTEGER else float(token.text)

    def integer(self) -> int:
        token = self.peek
        number = self.number()
        if not isinstance(number, int):
            self.fail(token, "a whole number")
        return number

    def next(self) -> Token:
        token = self.peek
        self.peek = next(self.tokens, token)
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


def _are_rows(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether arrays are sparse rows. Compiled code writes where they point, and scipy does not check all of it."""
    flat = all(array.ndim == 1 for array in (data, indices, indptr))
    if not flat or len(shape) != 2 or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        return False
    if indptr.size != shape[0] + 1 or indptr[0] != 0 or not indptr[-1] == indices.size == data.size:
        return False
    return bool(np.all(indptr[1:] >= indptr[:-1])) and (
        not indices.size or bool(indices.min() >= 0 and indices.max() < shape[1])
    )
