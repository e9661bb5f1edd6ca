"""A graph as a JAX step function, for simulation, analysis and learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse

from ..errors import GraphError
from ..frontends.step_function import StepFunction, step_function
from ..ir.graph.neurons import Delay
from ..ir.graph.order import update_order
from ..ir.graph.snn_graph import SNNGraph
from ..ir.graph.verifier import check
from .neurons import UPDATES
from .operations import function_of, parameters_of

Values = dict[str, Any]


def lower(graph: SNNGraph, *, dtype: Any = jnp.float32) -> StepFunction:
    """A graph as a model for :func:`ranvier.analyse`, :func:`ranvier.compile` and all other entry points.

    A step takes the values of the input, or a dictionary of them by name where there are several, and returns the value
    of the output, or a dictionary. Parameters are the weights and biases, ``params[projection]["weight"]``, of sparse
    rows the values that are stored; states are those of the populations, ``state[population]["v"]``, and, as
    ``state[source]["past"]``, what delayed projections have still to bring.

    Args:
        graph: a valid graph.
        dtype: of parameters and states.

    Raises:
        GraphError: the graph is not valid.
    """
    check(graph)
    machine = GraphStep(graph, dtype)
    return step_function(machine, machine.params, machine.state, name=graph.name)


class StepResult(NamedTuple):
    """What a step gives.

    Attributes:
        outputs: by name.
        values: of inputs and populations, by name.
        summed: what the populations got, by name.
        state: as before the next step.
    """

    outputs: Values
    values: Values
    summed: Values
    state: dict[str, Any]


class GraphStep:
    """One time step of a graph, for one sample.

    Attributes:
        params: by projection, then by name.
        state: before the first step; by population or input, then by name.
    """

    def __init__(self, graph: SNNGraph, dtype: Any) -> None:
        self.graph, self.dtype = graph, dtype
        self.order = update_order(graph)
        self.neurons = {name: p.neuron.map(lambda x: np.asarray(x, dtype)) for name, p in graph.populations.items()}
        self.functions = {name: function_of(p.operation) for name, p in graph.projections.items()}
        self.into = {name: graph.into(name) for name in (*graph.populations, *graph.outputs)}
        self.depth = {name: max((p.delay for p in graph.out_of(name)), default=0) for name in graph.nodes}
        self.params = {n: found for n, p in graph.projections.items() if (found := parameters_of(p.operation, dtype))}
        self.state = {name: found for name in graph.nodes if (found := self._initial(name))}

    def _initial(self, name: str) -> dict[str, np.ndarray]:
        node, found = self.graph.nodes[name], {}
        if name in self.graph.populations:
            population = self.graph.populations[name]
            found = {k: np.array(v, self.dtype) for k, v in population.initial_state().items()}
            if isinstance(population.neuron, Delay) and population.neuron.steps.max() > 0:
                found["queue"] = np.zeros((int(population.neuron.steps.max()), *node.shape), self.dtype)
        if self.depth[name]:
            found["past"] = np.zeros((self.depth[name], *node.shape), self.dtype)
        return found

    def __call__(self, params: Any, state: Any, inputs: Any) -> tuple[Any, Any]:
        """New states and outputs from parameters, states and inputs."""
        outputs, _, _, state = self.run(params, state, inputs)
        return state, outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run(self, params: Any, state: Mapping[str, Any], inputs: Any) -> StepResult:
        """One step, with everything that is known in it."""
        given = inputs if isinstance(inputs, Mapping) else {next(iter(self.graph.inputs)): inputs}
        values: Values = {name: jnp.asarray(given[name], self.dtype) for name in self.graph.inputs}
        new: dict[str, Any] = {name: dict(found) for name, found in state.items()}
        summed: Values = {}
        for name in self.order:
            neuron, summed[name] = self.neurons[name], self._summed(name, params, state, values)
            before = {k: v for k, v in state.get(name, {}).items() if k != "past"}
            after, values[name] = UPDATES[type(neuron)](neuron, before, summed[name], self.graph.dt)
            if after:
                new[name].update(after)
        outputs = {name: self._summed(name, params, state, values) for name in self.graph.outputs}
        for name, depth in self.depth.items():
            if depth:
                new[name]["past"] = jnp.concatenate([values[name][None], state[name]["past"][: depth - 1]])
        return StepResult(outputs, values, summed, new)

    def _summed(self, name: str, params: Any, state: Mapping[str, Any], values: Values) -> jax.Array:
        """What the projections into a population or output bring."""
        parts = []
        for projection in self.into[name]:
            source, delay = projection.source, projection.delay
            x = values[source] if delay == 0 else state[source]["past"][delay - 1]
            parts.append(self.functions[projection.name](params.get(projection.name, {}), x))
        return sum(parts[1:], parts[0]) if parts else jnp.zeros(self.graph.nodes[name].shape, self.dtype)


def with_weights(graph: SNNGraph, params: Mapping[Any, Any]) -> SNNGraph:
    """A graph with other weights, such as those that were learned with :func:`lower`.

    Args:
        graph: the graph that was lowered.
        params: by projection and name as in ``lower(graph).params``, or by a learner's paths, ``(projection, name)``;
            what is left out stays.

    Raises:
        GraphError: there is no such weight, or its shape differs.
    """
    found = graph.copy()
    for name, given in _by_projection(params).items():
        projection = graph.projections.get(name)
        arrays = projection.operation.arrays if projection is not None else {}
        unknown = set(given) - set(arrays)
        if projection is None or unknown:
            what = repr(name) if projection is None else f"{sorted(unknown)} of {name!r}"
            raise GraphError(f"params has {what}, which {graph.name} has not; lower(graph).params has all there are.")
        changed = {key: _replaced(arrays[key], value, f"{name}.{key}") for key, value in given.items()}
        found.projections[name] = projection.replace(operation=projection.operation.replace(**changed))
    return found


def _by_projection(params: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for key, value in params.items():
        if isinstance(key, tuple):
            found.setdefault(key[0], {})[key[1]] = value
        else:
            found.setdefault(key, {}).update(value)
    return found


def _replaced(old: Any, value: Any, name: str) -> Any:
    """An array, or sparse rows with the same places, with other numbers."""
    new = np.asarray(value)
    shape = old.data.shape if sparse.issparse(old) else old.shape
    if new.shape != shape:
        raise GraphError(f"{name} has shape {list(shape)}, but {list(new.shape)} was given.")
    return sparse.csr_array((new, old.indices, old.indptr), shape=old.shape) if sparse.issparse(old) else new
