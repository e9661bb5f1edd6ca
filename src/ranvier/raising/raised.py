"""From a model to a graph, step by step.

``v' = 0.9 v + x @ w; z = v' > 1`` becomes the input x, a population with the state v and the output z, and a projection
with w between them. :func:`raise_program` is the whole way; each of its steps is a function in a module of its own, and
returns a frozen result that the next steps read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ..errors import ModelError
from ..frontends.extract import extract_module_info, time_step
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..passes.optimizer_state import Index
from ..program._jax import is_complex
from ..program.analysis.delay_lines import with_delay_lines
from ..program.interpret import evaluate
from ..program.kernels import check_kernels
from ..program.normalize import UNROLL_EQUATIONS, normalize
from ..program.paths import Path, path_text
from ..program.program import ModuleInfo, check_is_program
from ..program.remade import Recipe
from .affine import operation_of
from .affine_maps import find_affine_maps
from .arithmetic import select_arithmetic
from .assemble import assemble
from .clusters import cluster_arithmetic
from .contents import fill_populations
from .correspondence import Correspondence
from .dynamics import trace_dynamics
from .kinds import classify_equations
from .nodes import gather_nodes, make_inputs
from .population_plan import plan_populations
from .populations import make_populations
from .projections import make_projections
from .registers import read_past_registers
from .step import view_step
from .whole_array_blocks import find_blocks

DT = 1e-3
"""dt of a graph where the model has none, in seconds."""


@dataclass(frozen=True, eq=False)
class Raised:
    """A model as a graph.

    Attributes:
        info: the model's program.
        graph: the same network as a graph; :func:`ranvier.lower` makes a model of it that does the same.
    """

    info: ModuleInfo
    graph: SNNGraph
    _correspondence: Correspondence
    _as_raised: SNNGraph

    # Copies share the correspondence. Without these two methods, copy would go through __reduce__ and raise the model
    # again.
    def __copy__(self) -> Raised:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Raised:
        return replace(self, graph=self.graph.copy())

    def __reduce__(self) -> Recipe:
        changed = None if _same_elements(self.graph, self._as_raised) else self.graph
        return _raised_again, (self.info, self._as_raised.dt, changed)

    def parameters(self, params: Mapping[Path, Any] | None = None) -> dict[str, Any]:
        """The parameters of ``lower(graph)`` from those of the model, computed in JAX, so that gradients pass through.

        Args:
            params: by the model's paths; what is left out is as the model has it.
        """
        return self._correspondence.parameters(params or {})

    def states(self, state: Mapping[str, Mapping[str, Any]]) -> dict[Path, Any]:
        """The model's changing states, by path, from those of ``lower(graph)``."""
        return self._correspondence.states(self.graph, state)

    def index(self) -> Index:
        """For each element of the trained arrays, its index in the model's flattened parameters."""
        return self._correspondence.index_of(self.graph)

    @cached_property
    def trained(self) -> dict[str, Any]:
        """The parameters with the model's own values."""
        return jax.tree.map(np.asarray, self.parameters())


def raise_program(info: ModuleInfo, *, dt: float | None = None) -> Raised:
    """Raises a program to a graph of populations and projections.

    Args:
        info: from :func:`ranvier.extract_module_info`.
        dt: time step of the graph in seconds, by default brainstate's where it is set, else a millisecond. Time
            constants of neurons that are recognized depend on it; what is computed does not depend on it.

    Raises:
        ModelError: the program holds what no graph can, such as complex states, or runs on a package that is missing.
    """
    check_is_program(info)
    check_kernels(info)
    info = _with_loops_unrolled(info)
    dt = time_step() or DT if dt is None else dt
    ordered = with_delay_lines(info)
    _check_real(ordered)

    # What every equation is, and every array as a sum of moved sources.
    step = view_step(ordered)
    maps = find_affine_maps(step)
    kinds = read_past_registers(classify_equations(step, maps))

    # Which arithmetic goes together, and into which populations, so that none waits for itself.
    plan = plan_populations(cluster_arithmetic(select_arithmetic(kinds)))
    dynamics = [trace_dynamics(plan, contents) for contents in fill_populations(plan)]

    # The graph: nodes, then projections that bring to each what it reads.
    operations = {result: operation_of(step, affine) for result, affine in maps.by_result.items()}
    inputs = make_inputs(kinds)
    populations = make_populations(plan, dynamics, find_blocks(kinds), operations, taken=inputs)
    nodes = gather_nodes(kinds, inputs, populations)
    projections = make_projections(nodes, kinds, operations)
    graph, correspondence = assemble(info, kinds, nodes, projections, dt=dt)
    check(graph)
    return Raised(info, graph, correspondence, graph.copy())


def raise_model(model: Any, *inputs: Any, dt: float | None = None) -> Raised:
    """Raises a brainstate module or step function to a graph; see :func:`raise_program`.

    Args:
        model: a ``brainstate.nn.Module`` with initialized states, or :func:`ranvier.step_function`.
        *inputs: example inputs of one step.
        dt: as in :func:`raise_program`.
    """
    return raise_program(extract_module_info(model, *inputs), dt=dt)


def _with_loops_unrolled(info: ModuleInfo) -> ModuleInfo:
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


def _check_real(info: ModuleInfo) -> None:
    for slot in (*info.hidden, *info.other, *info.parameters):
        if any(is_complex(leaf.dtype) for leaf in slot.leaves):
            raise ModelError(
                f"{info.name}: {path_text(slot.path)} is complex, but graphs hold only real numbers; keep the real "
                "and imaginary parts as two states."
            )


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
