"""The text form of a graph.

    graph "net" {
      dt = 0.001
      input "x" [2] low=0.0 high=1.0
      population "a" [3] LIF(reset="zero", integration="euler", fires=">") {
        tau: float64[3] = all 0.02
        v_threshold: float32[3] = [1.0, 1.0, 0.5]
      }
      projection "w" "x" -> "a" delay=0 Linear() {
        weight: float32[3, 2] = @"w/weight"
      }
      output "y" [3]
      projection "read" "a" -> "y" delay=0 Identity()
      parameter "v" float32[2, 2] = [[0.0, 1.0], [2.0, 3.0]]
      use "w" "weight" = "v" [0, 2, 1, 3, 0, 2]
      metadata "source" = "by hand"
    }

A use says which elements of a parameter an array has: without numbers, all of them in order, and without a parameter,
the array is not trained. If the array is a function of parameters, the steps of the function come in between (``v0`` is
the first parameter):

      use "w" "weight" = "v" by {
        c0: float32[] = 2.0
        v1 = mul(v0, c0)
        v2 = transpose(v1, permutation=[1, 0])
      } [0, 1, 2, 3, 0, 1]

Small arrays are written out. For others there is a reference, and the array comes with the text. Names and texts are
JSON strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from ..program.formula import Formula, NoFormula, formula_of
from .arrays import Matrix
from .elements import Activity, Input, Population, Projection
from .neurons import IN, OUT
from .shared import ArrayName, ParameterBinding
from .snn_graph import SNNGraph, check_is_graph

INLINE = 16
"""The largest number of elements of an array that is written out."""


def to_text(graph: SNNGraph, *, inline: int = INLINE) -> tuple[str, dict[str, np.ndarray]]:
    """The text of a graph and the arrays that it refers to, by name.

    Args:
        graph: any graph, even one that is not valid.
        inline: the largest number of elements of an array that is written out.
    """
    check_is_graph(graph)
    printer = _Printer(inline)
    return "\n".join(printer.lines(graph)) + "\n", printer.arrays


class _Printer:
    """Prints one graph.

    Attributes:
        inline: the largest number of elements of an array that is written out.
        arrays: the arrays that the text refers to, by name.
    """

    def __init__(self, inline: int) -> None:
        self.inline = inline
        self.arrays: dict[str, np.ndarray] = {}

    def lines(self, graph: SNNGraph) -> Iterator[str]:
        yield f"graph {_quoted(graph.name)} {{"
        yield f"  dt = {graph.dt!r}"
        for node in graph.inputs.values():
            yield f"  input {_quoted(node.name)} {_shape(node.shape)}{_range(node)}"
        for population in graph.populations.values():
            yield from self._population(population)
        for node in graph.outputs.values():
            yield f"  output {_quoted(node.name)} {_shape(node.shape)}"
        for projection in graph.projections.values():
            yield from self._projection(projection)
        for name, value in graph.parameters.items():
            yield f"  parameter {_quoted(name)} {self._array(f'parameter {name}', value)}"
        for array, use in graph.bindings.items():
            yield from self._use(array, use)
        for key, value in graph.metadata.items():
            yield f"  metadata {_quoted(key)} = {_quoted(value)}"
        yield "}"

    def _population(self, population: Population) -> Iterator[str]:
        neuron, name = population.neuron, population.name
        head = f"  population {_quoted(name)} {_shape(population.shape)} {_call(neuron, neuron.options)}"
        arrays = dict(neuron.parameters)
        arrays.update({f"initial {state}": value for state, value in population.initial.items()})
        options = ""
        if population.activity is not None:
            arrays.update(_activity_arrays(population.activity))
            options = "".join(f" {k}={_value(v)}" for k, v in _activity_options(population.activity).items())
        yield from self._block(head + options, name, arrays)

    def _projection(self, projection: Projection) -> Iterator[str]:
        operation, name = projection.operation, projection.name
        ends = f"{_quoted(projection.source)} -> {_quoted(projection.target)} delay={projection.delay}"
        ports = {"source_port": (projection.source_port, OUT), "target_port": (projection.target_port, IN)}
        ends += "".join(f" {key}={_quoted(port)}" for key, (port, usual) in ports.items() if port != usual)
        ends += "" if projection.trained else " trained=0"
        ends += " masked=1" if projection.masked else ""
        head = f"  projection {_quoted(name)} {ends} {_call(operation, operation.options)}"
        yield from self._block(head, name, operation.arrays)

    def _use(self, array: ArrayName, use: ParameterBinding) -> Iterator[str]:
        head = f"  use {' '.join(map(_quoted, array))} ={''.join(f' {_quoted(name)}' for name in use.parameters)}"
        index = "" if use.index is None else f" {self._index('/'.join(array), use.index)}"
        if use.function is None:
            yield f"{head}{index}"
            return
        # A function without a formula cannot be read again, but a person who looks at the text learns why.
        try:
            formula = formula_of(use.function)
        except NoFormula as error:
            yield f"{head} by {{ # {error}"
        else:
            yield f"{head} by {{"
            yield from self._formula("/".join(array), formula)
        yield f"  }}{index}"

    def _formula(self, name: str, formula: Formula) -> Iterator[str]:
        for number, value in enumerate(formula.constants):
            yield f"    c{number}: {self._array(f'{name}/c{number}', value)}"
        constants = iter(range(len(formula.constants)))
        for number, step in enumerate(formula.steps, formula.count):
            operands = [f"v{x}" if isinstance(x, int) else f"c{next(constants)}" for x in step.operands]
            options = [f"{key}={_value(option)}" for key, option in step.options.items()]
            yield f"    v{number} = {step.operation}({', '.join([*operands, *options])})"

    def _index(self, name: str, index: np.ndarray) -> str:
        if index.size <= self.inline:
            return _value(index.ravel())
        self.arrays[f"{name}/index"] = index
        return f"@{_quoted(f'{name}/index')}"

    def _block(self, head: str, name: str, arrays: dict[str, Any]) -> Iterator[str]:
        if not arrays:
            yield head
            return
        yield f"{head} {{"
        for label, value in arrays.items():
            yield f"    {label}: {self._array(f'{name}/{label}', value)}"
        yield "  }"

    def _array(self, name: str, value: Matrix) -> str:
        kind = f"{value.dtype}{_shape(value.shape)}"
        if sparse.issparse(value):
            parts = {part: getattr(value, part) for part in ("data", "indices", "indptr")}
            self.arrays.update({f"{name}/{part}": array for part, array in parts.items()})
            return f"{kind} sparse = @{_quoted(name)}"
        if value.size > 1 and np.all(value == value.flat[0]):
            return f"{kind} = all {_numbers(value.flat[0])}"
        if value.size <= self.inline:
            return f"{kind} = {_numbers(value)}"
        self.arrays[name] = value
        return f"{kind} = @{_quoted(name)}"


def _call(element: Any, options: dict[str, Any]) -> str:
    return f"{type(element).__name__}({', '.join(f'{k}={_value(v)}' for k, v in options.items())})"


def _activity_arrays(activity: Activity) -> dict[str, np.ndarray]:
    return {f"activity {name}": value for name, value in activity.arrays.items()}


def _activity_options(activity: Activity) -> dict[str, Any]:
    options = {"steps": activity.steps, "data": activity.data}
    return {name: value for name, value in options.items() if value is not None}


def _range(node: Input) -> str:
    bounds = {"low": node.low, "high": node.high}
    return "".join(f" {k}={float(v)!r}" for k, v in bounds.items() if v is not None)


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(str(n) for n in shape)}]"


def _quoted(text: str) -> str:
    """A JSON string in which only characters that do not print are escaped."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(text, ensure_ascii=False))


def _value(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return _value(tuple(value.tolist()))
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_value(v) for v in value)}]"
    if isinstance(value, str):
        return _quoted(value)
    return repr(int(value) if isinstance(value, bool) else value)


def _numbers(value: Any) -> str:
    if np.ndim(value):
        return f"[{', '.join(_numbers(part) for part in value)}]"
    if value.dtype == np.bool_ or np.issubdtype(value.dtype, np.integer):
        return str(int(value))
    # numpy's text is the shortest one, and is used if it reads as the same number.
    short = str(value)
    return short if value.dtype.type(float(short)) == value else repr(float(value))
