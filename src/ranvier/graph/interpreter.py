"""The meaning of a graph: a simulation step by step in float64, written to be read.

Sums are in a fixed order: projections in the order of the graph, within a projection the sources in order. So a synapse
of weight zero changes no bit of any result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from .elements import Population, Projection
from .footprint import check_carried, check_recorded
from .neurons import IN, OUT, Neuron
from .ops import REFERENCE
from .order import Port, delayed_ports, input_ports, update_order
from .ordered_product import DenseColumns, SparseRows, ordered_product
from .recording import Recording, Simulation, batched_inputs
from .snn_graph import SNNGraph
from .traced import Traced, run_traced
from .verifier import check

States = dict[str, np.ndarray]


@dataclass(frozen=True)
class Nudge:
    """A threshold that is moved for one neuron, sample and step, so that a spike comes or does not come.

    Attributes:
        population, neuron: whose; the number is flat.
        step, sample: when.
        amount: added to the threshold.
    """

    population: str
    neuron: int
    step: int
    sample: int
    amount: float


def interpret(
    graph: SNNGraph, inputs: Any, *, record: tuple[str, ...] | list[str] = (), nudges: Sequence[Nudge] = ()
) -> Simulation:
    """Simulates a graph.

    Args:
        graph: a valid graph.
        inputs: values of the input ``[T, *shape]`` or ``[T, samples, *shape]``, or a mapping by name where there are
            several inputs.
        record: populations whose output is wanted, states as ``"population.state"``, as they are after the step, and
            what a population gets in the step as ``"population.input"``.

        nudges: thresholds that are moved for a step.

    Returns:
        Outputs and what was recorded, ``[T, *shape]`` or ``[T, samples, *shape]``, in float64.

    Raises:
        GraphError: the graph is not valid, or something to be recorded is not there.
        InputError: the inputs do not fit.
    """
    return Interpreter(graph).run(inputs, record=record, nudges=nudges)


class Interpreter:
    """A graph made ready to be simulated more than once.

    Raises:
        GraphError: the graph is not valid.
    """

    def __init__(self, graph: SNNGraph) -> None:
        check(graph)
        self.graph = graph
        self.order = update_order(graph)
        self.neurons = {name: _flat(p) for name, p in graph.populations.items()}
        ports = input_ports(graph)
        self.port_sizes = {port: prod(shape) for port, shape in ports.items()}
        self.into: dict[Port, list[_Connection]] = {port: [] for port in ports}
        for projection in graph.projections.values():
            self.into[projection.target, projection.target_port].append(_Connection.of(graph, projection))

    def run(self, inputs: Any, *, record: tuple[str, ...] | list[str] = (), nudges: Sequence[Nudge] = ()) -> Simulation:
        """Simulates the graph: see :func:`interpret`."""
        wanted = Recording.of(self.graph, record)
        by_input, samples = batched_inputs(self.graph, inputs)
        length = len(next(iter(by_input.values())))
        check_carried(self.graph, samples or 1, np.dtype(np.float64).itemsize)
        check_recorded(self.graph, wanted, length, samples or 1, np.dtype(np.float64).itemsize)
        machine = _Run(self, 1 if samples is None else samples, nudges)
        steps = [machine.step(t, {name: values[t] for name, values in by_input.items()}, wanted) for t in range(length)]
        outputs, recorded = ({k: np.stack([step[n][k] for step in steps]) for k in steps[0][n]} for n in (0, 1))
        return wanted.simulation(self.graph, outputs, recorded, samples)


@dataclass
class _Connection:
    """A projection ready to run: the product with its matrix, and its constant in float64; a number for none."""

    projection: Projection
    product: SparseRows | DenseColumns
    offset: np.ndarray | float

    @classmethod
    def of(cls, graph: SNNGraph, projection: Projection) -> _Connection:
        matrix = projection.operation.matrix(graph.source_shape(projection))
        return cls(projection, ordered_product(matrix), graph.offset_of(projection))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        product = self.product(values)
        return product if isinstance(self.offset, float) else product + self.offset


class _Run:
    """States, and the values of the steps before that delayed projections bring."""

    def __init__(self, ready: Interpreter, samples: int, nudges: Sequence[Nudge]) -> None:
        graph = ready.graph
        self.ready = ready
        self.nudges = nudges
        self.sizes = {name: node.size for name, node in graph.nodes.items()}
        self.samples = samples
        self.states = {name: self._initial(p) for name, p in graph.populations.items()}
        self.before = {
            port: self._past(port, depth) for port, depth in delayed_ports(graph.projections.values()).items()
        }

    def _past(self, port: Port, depth: int) -> deque[np.ndarray]:
        """What a port gave before the first step."""
        name, of = port
        population = self.ready.graph.populations.get(name)
        value = np.zeros(self.sizes[name]) if population is None else population.initial_value(of).ravel()
        return deque([self._repeated(value)] * depth, maxlen=depth)

    def _repeated(self, value: np.ndarray) -> np.ndarray:
        """A flat value for every sample."""
        return np.broadcast_to(value, (self.samples, value.size)).astype(np.float64)

    def _initial(self, population: Population) -> States:
        states = {k: self._repeated(v.ravel()) for k, v in population.initial_state().items()}
        for name, (length, *_) in population.neuron.memory(population.shape).items():
            states[name] = np.zeros((length, self.samples, population.size))
        return states

    def step(self, number: int, inputs: Mapping[str, np.ndarray], wanted: Recording) -> tuple[States, States]:
        """One time step; outputs and what is to be recorded by name, ``[samples, size]``."""
        graph = self.ready.graph
        values: dict[Port, np.ndarray] = {
            (name, OUT): x.reshape(self.samples, -1).astype(np.float64) for name, x in inputs.items()
        }
        summed: dict[Port, np.ndarray] = {}
        for name in self.ready.order:
            neuron = self._neurons(name, number)
            got = {port: self._summed(name, port, values) for port in neuron.inputs}
            self.states[name], outputs_of = self._updated(name, neuron, got)
            summed.update({(name, port): value for port, value in got.items()})
            values.update({(name, port): value for port, value in {**self.states[name], **outputs_of}.items()})
        outputs = {name: self._summed(name, IN, values) for name in graph.outputs}
        for port, past in self.before.items():
            past.append(values[port])
        return outputs, wanted.pick(values, summed)

    def _updated(self, name: str, neuron: Neuron, got: States) -> tuple[States, States]:
        """New states and outputs of a population, by name."""
        if isinstance(neuron, Traced):
            return run_traced(neuron, self.ready.graph.populations[name].shape, got, self.states[name])
        states, output = neuron.update(REFERENCE, self.states[name], got[IN], self.ready.graph.dt)
        return states, {OUT: output}

    def _neurons(self, name: str, step: int) -> Neuron:
        """The neurons of a population, with the thresholds that are moved in this step."""
        neuron = self.ready.neurons[name]
        moved = [nudge for nudge in self.nudges if (nudge.population, nudge.step) == (name, step)]
        if not moved:
            return neuron
        threshold = np.broadcast_to(
            neuron.parameters[neuron.threshold_parameter], (self.samples, self.sizes[name])
        ).copy()
        for nudge in moved:
            threshold[nudge.sample, nudge.neuron] += nudge.amount
        return neuron.replace(**{neuron.threshold_parameter: threshold})

    def _summed(self, name: str, port: str, values: Mapping[Port, np.ndarray]) -> np.ndarray:
        """What the projections into a port of a population, or into an output, bring."""
        total = np.zeros((self.samples, self.ready.port_sizes[name, port]))
        for connection in self.ready.into[name, port]:
            source = connection.projection.source, connection.projection.source_port
            delay = connection.projection.delay
            total = total + connection(values[source] if delay == 0 else self.before[source][-delay])
        return total


def _flat(population: Population) -> Neuron:
    """The neurons with parameters ``[size]`` or one number, in float64."""
    if isinstance(population.neuron, Traced):
        return population.neuron
    return population.neuron.map(lambda value: value.astype(np.float64).ravel() if value.ndim else value.astype(float))
