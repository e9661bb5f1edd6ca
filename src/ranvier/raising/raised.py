"""Models as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..frontends.extract import extract_module_info, time_step
from ..graph.shared import trained_arrays
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..passes.optimizer_state import Index
from ..program._jax import is_key
from ..program.analysis.delay_lines import delay_lines_of, with_delay_lines
from ..program.interpret import evaluate
from ..program.kernels import check_kernels
from ..program.normalize import UNROLL_EQUATIONS, normalize
from ..program.paths import Path
from ..program.program import ModuleInfo, check_is_program
from ..program.remade import Recipe
from ..simulation.lower import PAST, nested, past_key
from .build import Build, StateLocation


def _read(graph: SNNGraph, state: Mapping[str, Mapping[str, Any]], part: StateLocation) -> Any:
    """A part of a state among those of the populations; None where it is not there."""
    own = state.get(part.population, {})
    if not part.past:
        return own.get(part.state)
    population = graph.populations.get(part.population)
    of_state = population is not None and part.state in population.neuron.states
    if of_state and part.past == 1:
        value = own.get(part.state)
    else:
        kept = own.get(PAST if population is None else past_key(population.neuron, part.state))
        number = part.past - 1 - of_state
        value = None if kept is None or len(kept) <= number else kept[number]
    return value if value is None or part.taken is None else value.reshape(-1)[part.taken]


DT = 1e-3
"""dt of a graph where the model does not tell it, in seconds."""


@dataclass(frozen=True, eq=False)
class Raised:
    """A model as a graph.

    Attributes:
        info: the model's program.
        graph: what it is as a graph; :func:`ranvier.lower` makes a model of it that does the same.
    """

    info: ModuleInfo
    graph: SNNGraph
    _build: Build
    _as_raised: SNNGraph

    def __copy__(self) -> Raised:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Raised:
        return replace(self, graph=self.graph.copy())

    def __reduce__(self) -> Recipe:
        changed = None if _same_elements(self.graph, self._as_raised) else self.graph
        return _raised_again, (self.info, self._build.dt, changed)

    def parameters(self, params: Mapping[Path, Any] | None = None) -> dict[str, Any]:
        """The parameters of ``lower(graph)`` from those of the model, in JAX: gradients go back through it.

        Args:
            params: by the model's paths; what is left out is as the model has it.
        """
        given = params or {}
        leaves = [
            x for s in self.info.parameters for x in (jax.tree.leaves(given[s.path]) if s.path in given else s.initial)
        ]
        static = self._build.roles.static_values(leaves)
        own = {array: derived(static) for array, derived in self._build.derived.items()}
        shared = {(name,): jnp.asarray(leaves[leaf]) for name, leaf in self._build.leaves.items()}
        return nested({**own, **shared})

    def states(self, state: Mapping[str, Mapping[str, Any]]) -> dict[Path, Any]:
        """The model's states from those of ``lower(graph)``; of states that change, by the model's paths."""
        found: dict[Path, Any] = {}
        for number, parts in self._build.held.items():
            slot = self.info.state_slots[number]
            read = [_read(self.graph, state, part) for part in parts]
            if any(value is None for value in read):
                continue
            dtype = slot.leaves[0].dtype
            if is_key(dtype):
                found[slot.path] = jax.random.wrap_key_data(read[0])
                continue
            values = [jnp.asarray(value).reshape(-1) for value in read]
            whole = values[0]
            if parts[0].elements is not None:
                whole = jnp.zeros(sum(int(np.prod(leaf.shape)) for leaf in slot.leaves), values[0].dtype)
                for part, value in zip(parts, values, strict=True):
                    whole = whole.at[part.elements].set(value)
            found[slot.path] = whole.reshape(slot.leaves[0].shape) if len(slot.leaves) == 1 else whole
        return self._with_ring_buffers(found)

    def _with_ring_buffers(self, found: dict[Path, Any]) -> dict[Path, Any]:
        """States whose ring buffers have their slots where the model has them; what has no counter is left out."""
        others = [slot.path for slot in self.info.other for _ in slot.leaves]
        for line in delay_lines_of(self.info) if self._build.info is not self.info else ():
            path, counter = self.info.hidden[line.state].path, found.get(others[line.counter])
            if path not in found:
                continue
            if counter is None:
                del found[path]
            else:
                found[path] = jnp.roll(found[path], jnp.reshape(counter, ()).astype(jnp.int32), line.axis)
        return found

    def index(self) -> Index:
        """Of every number of the trained arrays the number of the model's parameter it is, leaves in a row."""
        sizes = [int(np.prod(leaf.shape)) for slot in self.info.parameters for leaf in slot.leaves]
        starts = np.cumsum([0, *sizes])
        found: Index = {array: self._build.index[array] for array in self._build.derived}
        for name, leaf in self._build.leaves.items():
            shape = self.graph.parameters[name].shape
            found[name,] = starts[leaf] + np.arange(sizes[leaf]).reshape(shape)
        return {path: found[path] for path in trained_arrays(self.graph)}

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The parameters with the model's own values."""
        return jax.tree.map(np.asarray, self.parameters())


def raise_program(info: ModuleInfo, *, dt: float | None = None) -> Raised:
    """A program as a graph of populations and projections.

    Args:
        info: from :func:`ranvier.extract_module_info`.
        dt: time step of the graph in seconds, by default brainstate's where it is set, else a millisecond. Time
            constants of neurons that are recognised depend on it; what is computed does not depend on it.

    Raises:
        ModelError: the program holds what no graph can, such as complex states, or runs on a package that is missing.
    """
    check_is_program(info)
    check_kernels(info)
    info = _written_out(info)
    build = Build(with_delay_lines(info), time_step() or DT if dt is None else dt)
    check(build.graph)
    return Raised(info, build.graph, build, build.graph.copy())


def _raised_again(info: ModuleInfo, dt: float, changed: SNNGraph | None) -> Raised:
    raised = raise_program(info, dt=dt)
    return raised if changed is None else replace(raised, graph=changed)


def _same_elements(graph: SNNGraph, other: SNNGraph) -> bool:
    """Whether two graphs hold the very same elements in the same order."""
    return _elements(graph) == _elements(other)


def _elements(graph: SNNGraph) -> list[Any]:
    parts = (graph.inputs, graph.populations, graph.projections, graph.outputs, graph.parameters, graph.bindings)
    return [
        graph.name,
        graph.dt,
        graph.metadata,
        *([(key, id(value)) for key, value in part.items()] for part in parts),
    ]


def _written_out(info: ModuleInfo) -> ModuleInfo:
    """The program with all short loops unrolled: a graph has no loops within a step."""
    if not any(eqn.primitive.name == "scan" for eqn in info.equations):
        return info
    first = len(info.output_outvars)
    new_states = slice(first, first + len(info.hidden))
    avals = [var.aval for var in info.jaxpr.invars]
    closed = normalize(
        lambda *operands: evaluate(info.closed_jaxpr, operands), avals, new_states, arithmetic=UNROLL_EQUATIONS
    )
    return replace(info, closed_jaxpr=closed)


def raise_model(model: Any, *inputs: Any, dt: float | None = None) -> Raised:
    """A brainstate module or step function as a graph; see :func:`raise_program`.

    Args:
        model: a ``brainstate.nn.Module`` with initialised states, or :func:`ranvier.step_function`.
        *inputs: example inputs of one step.
        dt: as there.
    """
    return raise_program(extract_module_info(model, *inputs), dt=dt)
