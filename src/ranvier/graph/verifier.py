"""The validity of graphs, with all problems at once."""

# An example: a population n [3] with tau = 0 and a projection w from x [2] to n with weights [3, 4]. Both problems are
# reported, one per line: that tau is 0 at least once, and that the Linear of w does not fit the source.

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..errors import GraphError, printable, reason_text
from .elements import Input, Output, Population, Projection
from .network import Node
from .neurons import CHOICES, Delay
from .order import instant_cycle
from .shared import ArrayName, ParameterBinding, array_at, numbers_of, trained_arrays
from .snn_graph import SNNGraph, check_is_graph
from .traced import Traced
from .windows import ShapeError

TIME_CONSTANT = "tau"
"""The beginning of the names of time constants, which are positive."""
LONGEST_DELAY = 10**6
"""Steps; a simulation stores every value that is on its way."""


@dataclass(frozen=True)
class Problem:
    """A problem of a graph.

    Attributes:
        node: name of the input, population, projection or output; empty for the graph itself.
        message: what is wrong and what is expected.
    """

    node: str
    message: str

    def __str__(self) -> str:
        return printable(f"{self.node}: {self.message}" if self.node else self.message)


def problems(graph: SNNGraph) -> list[Problem]:
    """All problems of a graph; none if it is valid."""
    check_is_graph(graph)
    return [*_of_graph(graph), *_of_nodes(graph), *_of_projections(graph), *_of_parameters(graph)]


def check(graph: SNNGraph) -> None:
    """Returns if a graph is valid.

    Raises:
        GraphError: it is not; the message lists all problems, one per line.
    """
    all_problems = problems(graph)
    if all_problems:
        many = f"{len(all_problems)} problems" if len(all_problems) > 1 else "a problem"
        raise GraphError(
            "\n".join([f"the graph {graph.name!r} has {many}:", *(f"  {problem}" for problem in all_problems)])
        )


def _of_graph(graph: SNNGraph) -> Iterator[Problem]:
    if not (np.isfinite(graph.dt) and graph.dt > 0):
        yield Problem("", f"dt is {graph.dt}, expected a positive number of seconds")
    for text in (graph.name, *graph.nodes, *graph.projections, *graph.metadata, *graph.metadata.values()):
        if not _is_text(text):
            expected = "names and metadata must be text without NUL or lone surrogates"
            yield Problem("", f"{text!r:.80} is not text that a file can hold; {expected}")
    names = Counter([*graph.inputs, *graph.populations, *graph.outputs])
    for name in (name for name, count in names.items() if count > 1):
        yield Problem(name, "the name is used more than once among inputs, populations and outputs")
    if not graph.inputs:
        yield Problem(
            "", "there is no input, and the inputs determine how long to run; add one, even if nothing reads it"
        )
    if not graph.outputs:
        yield Problem("", "there is no output, so nothing the graph does can be seen; add one")
    cycle = instant_cycle(graph)
    if cycle:
        yield Problem(
            cycle[0],
            f"projections without delay form a cycle: {' -> '.join(cycle)}; give one of them a delay of one step",
        )


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _of_nodes(graph: SNNGraph) -> Iterator[Problem]:
    for kind in (graph.inputs, graph.populations, graph.outputs):
        for key, node in kind.items():
            if key != node.name:
                yield Problem(node.name, f"is stored under the name {key!r}")
            if not node.shape or not all(isinstance(n, int) and n > 0 for n in node.shape):
                yield Problem(node.name, f"shape {list(node.shape)}, expected one or more positive whole numbers")
            elif isinstance(node, Input):
                yield from _of_input(node)
            elif isinstance(node, Population):
                yield from _of_population(node, graph.dt)


def _of_input(node: Input) -> Iterator[Problem]:
    if any(bound is not None and not np.isfinite(bound) for bound in (node.low, node.high)):
        yield Problem(node.name, f"values from {node.low} to {node.high}; both bounds must be finite, or left out")
    elif node.low is not None and node.high is not None and not node.low <= node.high:
        yield Problem(node.name, f"values from {node.low} to {node.high}; the lower bound must come first")


def _of_population(population: Population, dt: float) -> Iterator[Problem]:
    neuron, name, shape = population.neuron, population.name, population.shape
    for choice, value in neuron.choices.items():
        if value not in CHOICES[choice]:
            allowed = " or ".join(repr(v) for v in CHOICES[choice])
            yield Problem(name, f"{choice} is {value!r}, expected {allowed}")
    for parameter, value in neuron.parameters.items():
        yield from _of_array(name, parameter, value, neuron.shape_of(parameter, shape))
        # Parameters of traced dynamics have the names of the model, which may call anything tau.
        if parameter.startswith(TIME_CONSTANT) and not isinstance(neuron, Traced):
            yield from _of_time_constant(population, parameter, value, dt)
    if isinstance(neuron, Delay) and np.any(
        (neuron.steps < 0) | (neuron.steps % 1 != 0) | (neuron.steps > LONGEST_DELAY)
    ):
        yield Problem(name, f"delays must be whole numbers of steps from 0 to {LONGEST_DELAY}")
    if neuron.choices.get("reset") == "subtract" and np.any(neuron.parameters["v_reset"] != 0):
        yield Problem(name, "reset 'subtract' subtracts v_threshold and does not use v_reset; set v_reset to 0")
    for state, value in population.initial.items():
        if state not in (*neuron.states, *neuron.outputs):
            names = [*neuron.states, *neuron.outputs]
            yield Problem(name, f"initial value for {state!r}, but the states and outputs are {names}")
        else:
            yield from _of_array(name, f"initial {state}", value, neuron.shape_of(state, shape))
    measured = population.activity.arrays if population.activity is not None else {}
    for what, value in measured.items():
        if value.shape not in (shape, ()):
            yield Problem(name, f"{what} of its activity has shape {list(value.shape)}, expected {list(shape)}")


def _of_time_constant(population: Population, parameter: str, value: np.ndarray, dt: float) -> Iterator[Problem]:
    if np.any(value <= 0):
        yield Problem(population.name, f"{parameter} is {np.min(value)} at least once, expected positive seconds")
        return
    # Euler integration multiplies a state by 1 - dt / tau, which is -1 or less here: the state grows or alternates.
    if population.neuron.choices.get("integration") == "euler" and np.any(2 * value <= dt):
        yield Problem(
            population.name,
            f"diverges: a step of dt = {dt:g} s is at least twice {parameter} = {np.min(value):g} s; use the dt that "
            "the network was made for, or integration='exponential' (--integration exponential)",
        )


def _of_array(node: str, label: str, value: np.ndarray, shape: tuple[int, ...]) -> Iterator[Problem]:
    if value.shape not in (shape, ()):
        yield Problem(node, f"{label} has shape {list(value.shape)}, expected {list(shape)} or one number")
    if not np.all(np.isfinite(value)):
        yield Problem(node, f"{label} has values that are not finite")


def _of_projections(graph: SNNGraph) -> Iterator[Problem]:
    nodes = graph.nodes
    for key, projection in graph.projections.items():
        if key != projection.name:
            yield Problem(projection.name, f"is stored under the name {key!r}")
        yield from _of_shared_name(graph, key, projection)
        source, target = nodes.get(projection.source), nodes.get(projection.target)
        if source is None or isinstance(source, Output):
            yield Problem(projection.name, f"source {projection.source!r} is neither an input nor a population")
        if target is None or isinstance(target, Input):
            yield Problem(projection.name, f"target {projection.target!r} is neither a population nor an output")
        unknown_ports = list(_of_ports(projection, source, target))
        yield from unknown_ports
        # Without its ports, the shapes that the operation should have are not known.
        if unknown_ports:
            continue
        if not isinstance(projection.delay, int) or not 0 <= projection.delay <= LONGEST_DELAY:
            expected = f"expected a whole number of steps from 0 to {LONGEST_DELAY}"
            yield Problem(projection.name, f"delay {projection.delay!r}, {expected}")
        yield from _of_operation(graph, projection, source, target)


def _of_ports(projection: Projection, source: Node | None, target: Node | None) -> Iterator[Problem]:
    if isinstance(source, Population):
        ports = [*source.neuron.outputs, *source.neuron.states]
        if projection.source_port not in ports:
            yield Problem(projection.name, f"{source.name!r} has the ports {ports}, but no {projection.source_port!r}")
    if isinstance(target, Population) and projection.target_port not in target.neuron.inputs:
        ports = list(target.neuron.inputs)
        yield Problem(projection.name, f"{target.name!r} has the inputs {ports}, but no {projection.target_port!r}")


def _of_parameters(graph: SNNGraph) -> Iterator[Problem]:
    elements = {path[0] for path in trained_arrays(graph) if len(path) == 2}
    for name, value in graph.parameters.items():
        if name in graph.nodes or name in elements:
            yield Problem(name, "a parameter of the graph and another element have this name; give one another name")
        if not np.all(np.isfinite(value)):
            yield Problem(name, "the parameter has values that are not finite")
    for array, use in graph.bindings.items():
        message = _of_use(graph, array, use)
        if message is not None:
            yield Problem(".".join(array), message)


def _of_use(graph: SNNGraph, array: ArrayName, use: ParameterBinding) -> str | None:
    """What is wrong with the binding of an array to parameters; None if it is right."""
    value = array_at(graph, array)
    unknown = [repr(parameter) for parameter in use.parameters if parameter not in graph.parameters]
    if value is None or unknown:
        return f"it is computed from {list(use.parameters)}, but there is no {unknown[0] if unknown else 'such array'}"
    if not use.parameters:
        return None
    stored = numbers_of(value)
    try:
        computed = use.array(graph.parameters, stored.dtype)
    except (TypeError, ValueError, IndexError) as error:
        return f"it cannot be computed from {list(use.parameters)}: {reason_text(error)}"
    origin = f"from {', '.join(map(repr, use.parameters))}; write graph.set_parameter(name, value) to change both"
    if computed.shape != stored.shape:
        return f"it has shape {list(stored.shape)}, but {list(computed.shape)} is computed {origin}"
    scale = float(np.abs(stored).max(initial=0))
    if not np.allclose(computed, stored, rtol=1e-5, atol=1e-6 * scale):
        return f"its numbers are not those computed {origin}"
    return None


def _of_shared_name(graph: SNNGraph, key: str, projection: Projection) -> Iterator[Problem]:
    """A population and a projection of one name may not have arrays of one name, which bindings could not
    distinguish."""
    same = graph.populations.get(key)
    both = sorted(set(same.neuron.parameters) & set(projection.operation.arrays)) if same is not None else []
    if both:
        yield Problem(key, f"a population and a projection of this name both have {both}; give one another name")


def _of_operation(
    graph: SNNGraph, projection: Projection, source: Node | None, target: Node | None
) -> Iterator[Problem]:
    kind = type(projection.operation).__name__
    for label, value in projection.operation.arrays.items():
        if not np.all(np.isfinite(value.data if sparse.issparse(value) else value)):
            yield Problem(projection.name, f"{label} has values that are not finite")
    if source is None:
        return
    if isinstance(source, Output) or isinstance(target, Input):
        return
    read = graph.source_shape(projection)
    # Options of operations come from files and callers, and can be wrong in many ways.
    try:
        shape = projection.operation.target_shape(read)
    except ShapeError as error:
        yield Problem(projection.name, f"{kind} from {source.name!r}: {error}")
        return
    except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
        yield Problem(projection.name, f"{kind}{projection.operation.options}: {reason_text(error)}")
        return
    if target is not None and shape != graph.target_shape(projection):
        yield Problem(
            projection.name,
            f"{kind} from {source.name!r} {list(read)} gives {list(shape)}, but {target.name!r} has shape "
            f"{list(graph.target_shape(projection))}",
        )
