"""Lowering: from a graph to a JAX step function; the engine that simulates whole sequences is in ``engine.py``.

In ``x -> a (delay 2); a -> y`` of one LI neuron, the step function has the states ``state["a"]["v"]`` and, because the
projection reads x two steps late, ``state["x"]["past"]`` with the last two values of x, newest first. A step reads
``past[1]``, updates a, returns its v, and stores ``[x, past[0]]`` for the steps to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import GraphError
from ..frontends.step_function import StepFunction, step_function
from ..graph.elements import Projection
from ..graph.footprint import check_carried
from ..graph.names import free_name
from ..graph.neurons import IN, OUT, Neuron
from ..graph.operations import Operation
from ..graph.order import Port, delayed_ports, input_ports, update_order
from ..graph.shared import array_at, numbers_of, set_array, trained_arrays, with_numbers
from ..graph.snn_graph import SNNGraph, check_is_graph
from ..graph.traced import Traced
from ..graph.verifier import check
from ..program.inputs import inputs_by_name
from ..program.paths import Path, path_text
from .jax_ops import JAX, applied

Values = dict[str, Any]
PAST = "past"
"""Name of the state that has what delayed projections have still to bring."""


def lower(graph: SNNGraph, *, dtype: Any = jnp.float32) -> StepFunction:
    """A graph as a model for :func:`ranvier.analyse`, :func:`ranvier.compile` and all other entry points.

    A step takes the values of the input, or a dictionary of them by name where there are several, and returns the value
    of the output, or a dictionary. Parameters are the weights and biases, ``params[projection]["weight"]``, of sparse
    rows the values that are stored, and what is trained of neurons, ``params[population][name]``; states are those of
    the populations, ``state[population]["v"]``, and, as ``state[source]["past"]``, what delayed projections have still
    to bring.

    Args:
        graph: a valid graph.
        dtype: of parameters and states.

    Raises:
        GraphError: the graph is not valid, or what it carries from step to step takes more than limits allow.
    """
    check(graph)
    machine = GraphStep(graph, dtype)
    return step_function(machine, machine.params, machine.state, name=graph.name)


class StepResult(NamedTuple):
    """What a step gives.

    Attributes:
        outputs: by name.
        values: of inputs and populations, and states of populations after the step, by name and port.
        summed: what the populations got, by name and port.
        state: as before the next step.
    """

    outputs: Values
    values: dict[Port, Any]
    summed: dict[Port, Any]
    state: dict[str, Any]


class GraphStep:
    """One time step of a graph, for one sample.

    Attributes:
        params: by projection or population, then by name.
        state: before the first step; by population or input, then by name.
    """

    def __init__(self, graph: SNNGraph, dtype: Any) -> None:
        check_carried(graph, 1, jnp.dtype(dtype).itemsize)
        self.graph, self.dtype = graph, dtype
        self.order = update_order(graph)
        self.neurons = {name: _in_dtype(p.neuron, dtype) for name, p in graph.populations.items()}
        self.ports = input_ports(graph)
        self.into: dict[Port, list[Projection]] = {port: [] for port in self.ports}
        for projection in graph.projections.values():
            self.into[projection.target, projection.target_port].append(projection)
        self.delayed = {
            port: Past.of(graph, port, depth) for port, depth in delayed_ports(graph.projections.values()).items()
        }
        self.pasts: dict[str, list[Past]] = {}
        for (name, _), past in self.delayed.items():
            if past.depth:
                self.pasts.setdefault(name, []).append(past)
        trained = trained_arrays(graph)
        self.params: dict[str, Any] = nested({path: np.asarray(value, dtype) for path, value in trained.items()})
        self.fixed = {
            name: {k: v for k, v in numbers_in(p.operation, dtype).items() if not self._is_learned(name, k)}
            for name, p in graph.projections.items()
        }
        # In the step itself, so that no optimizer and no learning rule can bring absent synapses back.
        masks = {name: p.mask for name, p in graph.projections.items() if p.trained}
        self.masks = {name: mask.astype(dtype) for name, mask in masks.items() if mask is not None}
        self.state = {name: own for name in graph.nodes if (own := self._initial(name))}

    def __reduce__(self) -> Any:
        return GraphStep, (self.graph, np.dtype(self.dtype))

    def _is_learned(self, name: str, label: str) -> bool:
        """Whether an array of a projection is a parameter, or is made of some."""
        use = self.graph.bindings.get((name, label))
        return self.graph.projections[name].trained if use is None else bool(use.parameters)

    def _initial(self, name: str) -> dict[str, np.ndarray]:
        state = {}
        if name in self.graph.populations:
            population = self.graph.populations[name]
            neuron = population.neuron
            state = {k: np.array(v, _state_dtype(neuron, k, self.dtype)) for k, v in population.initial_state().items()}
            memory = neuron.memory(population.shape)
            state.update({k: np.zeros(shape, self.dtype) for k, shape in memory.items()})
        for past in self.pasts.get(name, ()):
            state[past.key] = np.array(np.broadcast_to(past.initial, (past.depth, *past.initial.shape)), self.dtype)
        return state

    def __call__(self, params: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        """New states and outputs from parameters, states and inputs."""
        outputs, _, _, state = self.run(params, state, inputs)
        return state, outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(self, params: Any, state: Mapping[str, Any], inputs: Any) -> StepResult:
        """One step, with everything that is known in it."""
        params = self.with_made(params)
        by_input = inputs_by_name(inputs, list(self.graph.inputs), self.graph.name)
        values: dict[Port, Any] = {(name, OUT): jnp.asarray(by_input[name], self.dtype) for name in self.graph.inputs}
        new: dict[str, Any] = {name: dict(own) for name, own in state.items()}
        summed: dict[Port, Any] = {}
        # Inputs first: a population may read them with a delay, and then finds their values among the states.
        for name in self.graph.inputs:
            self._remember(name, state, values, new)
        for name in self.order:
            neuron = self.neurons[name]
            got = {port: self._summed((name, port), params, state, values) for port in neuron.inputs}
            before = self.states_of(name, state.get(name, {}))
            after, out = self.updated(neuron, before, got, params.get(name, {}))
            if after:
                new[name].update(after)
            summed.update({(name, port): x for port, x in got.items()})
            values.update({(name, port): x for port, x in {**after, **out}.items()})
            self._remember(name, state, values, new)
        outputs = {name: self._summed((name, IN), params, state, values) for name in self.graph.outputs}
        return StepResult(outputs, values, summed, new)

    def _remember(self, name: str, state: Mapping[str, Any], values: dict[Port, Any], new: dict[str, Any]) -> None:
        """Keeps what delayed projections of a node will read. Others then read it from there as well, so that to
        learning rules it is a state of its group."""
        for past in self.pasts.get(name, ()):
            newest = state[name][past.port[1]] if past.of_state else values[past.port]
            new[name][past.key] = past.pushed(state[name][past.key], jnp.asarray(newest, self.dtype))
            if not past.of_state:
                values[past.port] = new[name][past.key][0]

    def states_of(self, name: str, state: Mapping[str, Any]) -> Values:
        """Those of the neurons, without what delayed projections have still to bring."""
        past_keys = {past.key for past in self.pasts.get(name, ())}
        return {k: v for k, v in state.items() if k not in past_keys}

    def updated(self, neuron: Any, before: Values, got: Values, params: Values) -> tuple[Values, Values]:
        """New states and outputs of a population, by name."""
        if isinstance(neuron, Traced):
            return neuron(got, before, params, self.dtype)
        after, output = neuron.update(JAX, before, got[IN], self.graph.dt)
        return after, {OUT: output}

    def _summed(self, port: Port, params: Any, state: Mapping[str, Any], values: Mapping[Port, Any]) -> jax.Array:
        """What the projections into a port of a population, or into an output, bring."""
        parts = []
        for projection in self.into[port]:
            source = projection.source, projection.source_port
            x = self._earlier(source, projection.delay, state) if projection.delay else values[source]
            arrays = self.arrays_of(projection, params)
            parts.append(applied(projection.operation, arrays, jnp.asarray(x, self.dtype)))
        return sum(parts[1:], parts[0]) if parts else jnp.zeros(self.ports[port], self.dtype)

    def with_made(self, params: Mapping[str, Any]) -> dict[str, Values]:
        """By projection or population, the arrays that are parameters, and those that are made of parameters."""
        arrays = {name: dict(own) for name, own in params.items() if name not in self.graph.parameters}
        for (name, label), use in self.graph.bindings.items():
            if use.parameters:
                arrays.setdefault(name, {})[label] = use([params[key] for key in use.parameters], self.dtype)
        return arrays

    def arrays_of(self, projection: Projection, params: Mapping[str, Values]) -> Values:
        """The arrays of a projection; a population may have the same name, and parameters of its own."""
        own = {k: v for k, v in params.get(projection.name, {}).items() if k in projection.operation.arrays}
        arrays = {**self.fixed[projection.name], **own}
        if projection.name in self.masks:
            arrays["weight"] = arrays["weight"] * self.masks[projection.name]
        return arrays

    def _earlier(self, port: Port, delay: int, state: Mapping[str, Any]) -> Any:
        past, own = self.delayed[port], state[port[0]]
        return past.read(own.get(port[1]), own.get(past.key), delay)


@dataclass(frozen=True, eq=False)
class Past:
    """What delayed projections read of a port. The state before a step is that after the step before.

    Attributes:
        port: name of a population or input, and of the port.
        key: of the earlier values among the states.
        of_state: whether the port is a state.
        depth: number of earlier values that are stored.
        initial: what is there before the first step.
    """

    port: Port
    key: str
    of_state: bool
    depth: int
    initial: np.ndarray

    @classmethod
    def of(cls, graph: SNNGraph, port: Port, depth: int) -> Past:
        name, of = port
        population = graph.populations.get(name)
        if population is None:
            return cls(port, PAST, False, depth, np.zeros(graph.inputs[name].shape))
        of_state, key = of in population.neuron.states, past_key(population.neuron, of)
        return cls(port, key, of_state, depth - of_state, population.initial_value(of))

    def read(self, state: Any, stored: Any, delay: int) -> Any:
        """The value of some steps ago, from the state that the port is, if it is one, and the stored values."""
        # A state before the step is its own value of the step before, so it is not stored a second time.
        if self.of_state and delay == 1:
            return state
        return stored[delay - 1 - self.of_state]

    def pushed(self, stored: Any, newest: Any) -> Any:
        """The stored values, newest first, as they are a step later."""
        return jnp.concatenate([newest[None], stored[: self.depth - 1]]) if self.depth > 1 else newest[None]


def past_key(neuron: Neuron, port: str) -> str:
    """Name of the state that has the earlier values of a port."""
    return free_name(neuron.states, PAST if port == OUT else f"{PAST}.{port}")


def numbers_in(operation: Operation, dtype: Any) -> dict[str, np.ndarray]:
    """The arrays of an operation in a dtype; of sparse rows their values."""
    return {name: np.asarray(numbers_of(value), dtype) for name, value in operation.arrays.items()}


def _in_dtype(neuron: Neuron, dtype: Any) -> Neuron:
    return neuron if isinstance(neuron, Traced) else neuron.map(lambda x: np.asarray(x, dtype))


def _state_dtype(neuron: Neuron, name: str, dtype: Any) -> Any:
    return neuron.state_dtype(name, dtype) if isinstance(neuron, Traced) else dtype


def with_weights(graph: SNNGraph, params: Mapping[Any, Any]) -> SNNGraph:
    """A graph with other weights, such as those that were learned with :func:`lower`.

    Args:
        graph: the graph that was lowered.
        params: by projection and name as in ``lower(graph).params``, or by a learner's paths, ``(projection, name)``;
            what is left out stays. Arrays that are made of a parameter of the graph follow it. Absent synapses stay
            zero.

    Raises:
        GraphError: there is no such weight, or its shape differs.
    """
    check_is_graph(graph)
    changed = graph.copy()
    known = trained_arrays(graph)
    new_arrays = flat(params)
    unknown = sorted(path_text(path) for path in new_arrays if path not in known and array_at(graph, path) is None)
    if unknown:
        raise GraphError(
            f"params has {', '.join(unknown)}, which {graph.name} does not have; lower(graph).params lists them all."
        )
    for path in new_arrays:
        use = graph.bindings.get(path)
        if use is not None and use.parameters:
            raise GraphError(
                f"{path_text(path)} is computed from {', '.join(map(repr, use.parameters))}; pass a value for that "
                "instead."
            )
    for path, value in new_arrays.items():
        old = graph.parameters[path[0]] if len(path) == 1 else array_at(graph, path)
        new = _replaced(old, value, path_text(path))
        if len(path) == 1:
            changed.set_parameter(path[0], new)
        else:
            set_array(changed, path, new * _present(graph, path))
    return changed


def _present(graph: SNNGraph, array: Path) -> Any:
    """Zero where an array has absent synapses, else one."""
    name, label = array
    mask = graph.projections[name].mask if name in graph.projections and label == "weight" else None
    return 1 if mask is None else mask


def nested(arrays: Mapping[Path, Any]) -> dict[str, Any]:
    """Arrays by path as a dictionary of dictionaries."""
    tree: dict[str, Any] = {}
    for path, value in arrays.items():
        if len(path) == 1:
            tree[path[0]] = value
        else:
            tree.setdefault(path[0], {})[path[1]] = value
    return tree


def flat(params: Mapping[Any, Any]) -> dict[Path, Any]:
    """Arrays by path, from such a dictionary or by path already."""
    by_path: dict[Path, Any] = {}
    for key, value in params.items():
        if isinstance(key, tuple):
            by_path[key] = value
        elif isinstance(value, Mapping):
            by_path.update({(key, label): array for label, array in value.items()})
        else:
            by_path[key,] = value
    return by_path


def _replaced(old: Any, value: Any, name: str) -> Any:
    """An array, or sparse rows with the same places, with other numbers."""
    new, shape = np.asarray(value), numbers_of(old).shape
    if new.shape != shape:
        raise GraphError(f"{name} has shape {list(shape)}, but got {list(new.shape)}.")
    return with_numbers(old, new)
