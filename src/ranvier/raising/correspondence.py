"""How to convert parameters of a program into those of its graph, and states of the graph into those of the program.

In the example of ``step.py``, with w the numbers 0 to 9 in 5 rows, the graph has the parameters ``w.weight`` [[0, 2,
4], [1, 3, 5]] and ``w.2.weight`` [[6, 8], [7, 9]], the transposes of rows 0 to 2 and of rows 3 and 4. The program's v
is the state v of the population v. Its z is what that population gave one step ago, which a lowered graph holds in
``past`` for the delayed projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..graph.shared import ArrayName, trained_arrays
from ..graph.snn_graph import SNNGraph
from ..passes.optimizer_state import Index
from ..program._jax import is_key
from ..program.analysis.delay_lines import delay_lines_of
from ..program.paths import Path
from ..program.program import ModuleInfo
from ..simulation.lower import nested
from .affine_operation import Derived
from .state_locations import StateLocation, read_location
from .step import StepView


@dataclass(frozen=True, eq=False)
class Correspondence:
    """Which parts of a graph come from which parts of its program.

    Attributes:
        info: the program as it was raised, its loops unrolled.
        step: of the program that the graph was made from, which is ``info`` with ring buffers in the order of their
            counters.
        derived: by array how the trained arrays of the graph are made of what does not change, those aside that are
            made of parameters of the graph.
        leaves: by parameter of the graph, which of the leaves of the program's parameters it is.
        index: of every number of an array the number of the program's parameter it is, leaves in a row.
        locations: by number of the program's state the places of its parts.
    """

    info: ModuleInfo
    step: StepView
    derived: Mapping[ArrayName, Derived]
    leaves: Mapping[str, int]
    index: Mapping[ArrayName, np.ndarray]
    locations: Mapping[int, tuple[StateLocation, ...]]

    def parameters(self, params: Mapping[Path, Any]) -> dict[str, Any]:
        """Parameters of the lowered graph from those of the program; those left out keep the program's values."""
        leaves = [
            leaf
            for slot in self.info.parameters
            for leaf in (jax.tree.leaves(params[slot.path]) if slot.path in params else slot.initial)
        ]
        static = self.step.static_values(leaves)
        own = {array: derived(static) for array, derived in self.derived.items()}
        shared = {(name,): jnp.asarray(leaves[leaf]) for name, leaf in self.leaves.items()}
        return nested({**own, **shared})

    def index_of(self, graph: SNNGraph) -> Index:
        """For each element of a graph's trained arrays, its index in the program's flattened parameters."""
        sizes = [int(np.prod(leaf.shape)) for slot in self.info.parameters for leaf in slot.leaves]
        starts = np.cumsum([0, *sizes])
        index: Index = {array: self.index[array] for array in self.derived}
        for name, leaf in self.leaves.items():
            shape = graph.parameters[name].shape
            index[name,] = starts[leaf] + np.arange(sizes[leaf]).reshape(shape)
        return {path: index[path] for path in trained_arrays(graph)}

    def states(self, graph: SNNGraph, state: Mapping[str, Mapping[str, Any]]) -> dict[Path, Any]:
        """States of the program from those of the lowered graph, without states that the graph has only in part."""
        states: dict[Path, Any] = {}
        for number, locations in self.locations.items():
            slot = self.info.state_slots[number]
            parts = [read_location(graph, state, location) for location in locations]
            if all(part is not None for part in parts):
                states[slot.path] = _whole(slot.leaves, locations, parts)
        return self._with_ring_buffers(states)

    def _with_ring_buffers(self, states: dict[Path, Any]) -> dict[Path, Any]:
        """States whose ring buffers have their slots where the program has them; what has no counter is left out."""
        counters = [slot.path for slot in self.info.other for _ in slot.leaves]
        for line in delay_lines_of(self.info) if self.step.info is not self.info else ():
            path, counter = self.info.hidden[line.state].path, states.get(counters[line.counter])
            if path not in states:
                continue
            # Without its counter nobody knows which slot is the newest.
            if counter is None:
                del states[path]
            else:
                states[path] = jnp.roll(states[path], jnp.reshape(counter, ()).astype(jnp.int32), line.axis)
        return states


def _whole(leaves: Any, locations: tuple[StateLocation, ...], parts: list[Any]) -> Any:
    """A state from all its parts."""
    if is_key(leaves[0].dtype):
        return jax.random.wrap_key_data(parts[0])
    values = [jnp.asarray(part).reshape(-1) for part in parts]
    whole = values[0]
    if locations[0].elements is not None:
        whole = jnp.zeros(sum(int(np.prod(leaf.shape)) for leaf in leaves), values[0].dtype)
        for location, value in zip(locations, values, strict=True):
            whole = whole.at[location.elements].set(value)
    return whole.reshape(leaves[0].shape) if len(leaves) == 1 else whole
