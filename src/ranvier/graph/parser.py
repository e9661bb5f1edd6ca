"""The parser of the text form of a graph, which :mod:`.printer` describes. Nothing in a text is executed."""

# An example: parameter "v" float64[2, 3] = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]. The parser reads the name, the dtype and
# the shape, and takes 48 bytes from the budget before it reads a number. A text of 60 bytes may declare an array of
# float64[1000000, 1000000] = all 0; it is refused at its shape.

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

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
from .tokens import Token, TokenReader, tokens_of

DTYPES = ("float16", "float32", "float64")
CONSTANTS = (*DTYPES, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
"""Dtypes of arrays within formulas."""


@dataclass(frozen=True)
class BindingText:
    """How an array is computed from parameters, according to a text.

    Attributes:
        token: the place in the text.
        parameters, index: as in :class:`.shared.ParameterBinding`, with a flat index.
        formula: of the parameters; None if there is none.
    """

    token: Token
    parameters: tuple[str, ...]
    formula: Formula | None
    index: np.ndarray | None

    def of(self, graph: SNNGraph, array: ArrayName, budget: MemoryBudget) -> ParameterBinding:
        """The binding of an array of the graph, whose shape the index gets."""
        value, index, function = array_at(graph, array), self.index, None
        shape = () if value is None else numbers_of(value).shape
        if index is not None and index.size == prod(shape):
            index = index.reshape(shape)
        if self.formula is not None:
            operands = [graph.parameters[name] for name in self.parameters if name in graph.parameters]
            avals = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands]
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
        arrays: the arrays that the text refers to, by name.

    Raises:
        GraphError: the text is not that of a graph, or declares more than a file of its size may
            (:class:`ranvier.types.Limits`); the message names the line.
    """
    arrays = arrays or {}
    return parse(text, arrays, MemoryBudget(len(text) + sum(value.nbytes for value in arrays.values())))


def parse(text: str, arrays: Mapping[str, np.ndarray], budget: MemoryBudget) -> SNNGraph:
    """As :func:`from_text`, with a budget for what the text declares."""
    return _Parser(tokens_of(text), arrays, budget).graph()


class _Parser(TokenReader):
    """Reads one graph. Every method reads the part of the text that it is named after."""

    def __init__(self, tokens: Iterator[Token], arrays: Mapping[str, np.ndarray], budget: MemoryBudget) -> None:
        super().__init__(tokens)
        self.arrays, self.budget = arrays, budget

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
            self.fail(self.peek, "the end of the text")
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
        measurement = self.make(token, Activity, {**measured, **activity}) if measured or activity else None
        return Population(name, shape, neuron, initial, measurement)

    def projection(self) -> Projection:
        name, source = self.string(), self.string()
        self.expect("->")
        target = self.string()
        readers = {
            "delay": self.integer,
            "source_port": self.string,
            "target_port": self.string,
            "trained": self.integer,
            "masked": self.integer,
        }
        settings, token = self.options(readers), self.peek
        settings |= {"trained": bool(settings.get("trained", 1)), "masked": bool(settings.get("masked", 0))}
        kind, options = self.call(OPERATIONS)
        return Projection(name, source, target, self.make(token, kind, {**options, **self.block()}), **settings)

    def use(self) -> tuple[ArrayName, BindingText]:
        """The name of an array, and how it is computed."""
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
        """The steps of a formula between braces, for some number of operands."""
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
            self.fail(self.peek, "a formula with at least one step")
        return Formula(count, tuple(steps))

    def step(self, count: int, constants: Mapping[str, np.ndarray]) -> Step:
        """An operation on constants and the first ``count`` values."""
        operation, operands, options = self.next(), [], {}
        if operation.text not in FUNCTIONS:
            self.fail(operation, f"one of {', '.join(FUNCTIONS)}")
        operand_of = {**{f"v{number}": number for number in range(count)}, **constants}
        self.expect("(")
        while not self.take(")"):
            token = self.next()
            if self.take("="):
                options[token.text] = self.value()
            elif token.text in operand_of:
                operands.append(operand_of[token.text])
            else:
                self.fail(token, "an existing value")
            if self.peek.text != ")":
                self.expect(",")
        return Step(operation.text, tuple(operands), options)

    def make(self, token: Token, kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
        """An object from the fields in the text; its own errors get the number of the line."""
        try:
            return kind(**fields)
        except TypeError:
            known = list(getattr(kind, "__dataclass_fields__", {}))
            raise GraphError(
                f"line {token.line}: {token.text} has the fields {known}, but got {list(fields)}."
            ) from None
        except (ValueError, ArithmeticError) as error:
            raise GraphError(f"line {token.line}: {token.text}: {reason_text(error)}.") from error

    def call(self, kinds: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A kind and its options, as in ``LIF(reset="zero")``."""
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

    def block(self) -> dict[str, Any]:
        """Arrays between braces by their labels; none if there are no braces."""
        arrays: dict[str, Any] = {}
        if not self.take("{"):
            return arrays
        while not self.take("}"):
            token = self.next()
            label = token.text
            while self.peek.kind == "name":
                label += f" {self.next().text}"
            if label in arrays:
                self.fail(token, f"an array other than {label!r}, which is already set")
            self.expect(":")
            arrays[label] = self.array()
        return arrays

    def array(self, dtypes: tuple[str, ...] = DTYPES) -> Any:
        token = self.next()
        if token.text not in dtypes:
            self.fail(token, f"one of {', '.join(dtypes)}")
        dtype, shape = np.dtype(token.text), self.shape()
        rows = self.take("sparse")
        self.expect("=")
        # One number in place of many: a broadcast view takes no memory, but copies of it will, so it counts in full.
        if self.take("all"):
            self.declare(token, shape, dtype.itemsize)
            return np.broadcast_to(np.array(self.number(), dtype), shape)
        if not self.take("@"):
            return self.inline(token, dtype, shape)
        name = self.string()
        value: Any = self.sparse_rows(token, name, shape) if rows else self.referred(token, name)
        if value.dtype != dtype or value.shape != shape:
            self.fail(token, f"{value.dtype}{list(value.shape)}, like the array {name!r}")
        return value

    def size(self) -> tuple[int, ...]:
        """The shape of an input, population or output."""
        token = self.peek
        shape = self.shape()
        self.declare(token, shape, BYTES_PER_NEURON)
        return shape

    def declare(self, token: Token, shape: tuple[int, ...], itemsize: int) -> None:
        """Checks the shape of an array, and takes its bytes from the budget."""
        if min(shape, default=0) < 0:
            self.fail(token, "a shape of nonnegative numbers")
        try:
            self.budget.spend(prod(max(n, 1) for n in shape) * itemsize, f"a shape {list(shape)}")
        except TooLarge as error:
            raise GraphError(f"line {token.line}: {error}.") from error

    def inline(self, token: Token, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """An array whose numbers are written in the text."""
        self.declare(token, shape, array("d").itemsize)
        numbers = array("d")
        self.numbers(shape, numbers, f"as many numbers as the shape {list(shape)} has")
        with np.errstate(over="ignore"):  # to infinity, which the verifier names
            return np.array(numbers, dtype).reshape(shape)

    def numbers(self, shape: tuple[int, ...], into: array[float], expected: str) -> None:
        """Reads nested lists with the lengths of a shape into a flat array."""
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
        """An array that the text refers to."""
        if name not in self.arrays:
            self.fail(token, f"the name of an existing array ({name!r} does not exist)")
        return self.arrays[name]

    def sparse_rows(self, token: Token, name: str, shape: tuple[int, ...]) -> sparse.csr_array:
        data, indices, indptr = (self.referred(token, f"{name}/{part}") for part in ("data", "indices", "indptr"))
        if not _are_rows(data, indices, indptr, shape):
            self.fail(token, f"an array of sparse rows of shape {list(shape)}")
        return sparse.csr_array((data, indices, indptr), shape=shape)


def _are_rows(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether arrays form valid sparse rows. Compiled code would read or write outside of memory with wrong indices,
    and scipy does not check all of them."""
    flat = all(array.ndim == 1 for array in (data, indices, indptr))
    if not flat or len(shape) != 2 or indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        return False
    if indptr.size != shape[0] + 1 or indptr[0] != 0 or not indptr[-1] == indices.size == data.size:
        return False
    return bool(np.all(indptr[1:] >= indptr[:-1])) and (
        not indices.size or bool(indices.min() >= 0 and indices.max() < shape[1])
    )
