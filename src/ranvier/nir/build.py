"""Populations and projections from the nodes and edges of a NIR graph.

Neurons become populations. An operation between two nodes becomes a projection. Where operations join, branch or follow
one another, relays stand between them, so that every path between two neurons has the same operations as in the file.
"""

# An example: the edges x -> scale -> dense -> lif, lif -> dense and lif -> y.
#
#   lif     a neuron: a population
#   scale   an operation that another one follows: a projection from x to the relay "scale"
#   dense   an operation with two nodes before it: they meet at the relay "dense.sum", through the projections
#           "scale->dense.sum" and "lif->dense.sum". The projection "dense" leads from there to the relay "dense", and
#           "dense->lif" passes the result on to lif
#   lif->y  an edge without an operation: a projection that passes values on
#
# One of the projections from dense.sum over lif back to dense.sum needs a delay; it is the one that closes the loop,
# "lif->dense.sum".

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text
from ..graph.elements import Input, Output, Population, Projection
from ..graph.names import free_name
from ..graph.neurons import Delay, Neuron, Relay
from ..graph.operations import Identity, Linear, Operation
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from ..graph.windows import ShapeError
from .delays import Delays
from .loops import closing_projections, start_from_silence
from .notes import NirNotes
from .vocabulary import KINDS, OPERATIONS, PARAMETERS, Edges, Nodes, kind_of, operation_of

NO_SHAPE = "no edge leads to it, and it does not state a shape"
UNKNOWN_DT = 1.0
"""Seconds, as a placeholder until the time step is known."""


class NirBuilder:
    """Builds a graph.

    Attributes:
        nodes: by name.
        dt: time step in seconds; None if not known yet.
        choices: how neurons are computed, by node and name of the choice.
        notes: what a file that Ranvier wrote says beyond NIR.
        before, after: names of the nodes before and after every node.
        undelayed: names of the projections for the elements of a delay that do not wait.
        delays: the ``Delay`` nodes.
        operations: operation and delay in steps of every node that becomes a projection.
        shapes: shape of what every node emits.
        sums: names of the relays where several nodes before an operation meet.
        taken: names of nodes and of the projections that pass values on.
        unfinished: the graph without the delays that close loops.
        closing: the projections that close loops in which the file has no delay; their delay has to be asked for.
    """

    def __init__(
        self, nodes: Nodes, edges: Edges, dt: float | None, choices: dict[str, dict[str, str]], notes: NirNotes
    ) -> None:
        self.nodes, self.dt, self.choices, self.notes = nodes, dt, choices, notes
        self.before: dict[str, list[str]] = {name: [] for name in nodes}
        self.after: dict[str, list[str]] = {name: [] for name in nodes}
        for a, b in edges:
            self.after[a].append(b)
            self.before[b].append(a)
        self.undelayed: set[str] = set()
        self.delays = Delays.of(nodes, edges, dt, loops_are_known=notes.dt is not None)
        self.operations: dict[str, tuple[Operation, int]] = {
            **{k: (operation_of(k, node), 0) for k, node in nodes.items() if kind_of(node) in OPERATIONS},
            **{k: (Identity(), steps) for k, steps in self.delays.shared.items()},
        }
        self.shapes = self._find_shapes()
        taken_by_sums = set(nodes)
        self.sums = {k: _take_name(taken_by_sums, f"{k}.sum") for k in self.operations if len(self.before[k]) > 1}
        self.taken = set(nodes)
        self.unfinished = self._graph()
        self.closing = closing_projections(self.unfinished, self.undelayed)

    def graph(self, name: str, recurrent_delay: int | None, *, is_complete: bool) -> SNNGraph:
        """The graph; without ``recurrent_delay``, projections that close a loop have a delay of one step.

        Args:
            name: name of the graph.
            recurrent_delay: delay in steps of the projections that close a loop.
            is_complete: whether nothing is left to be asked for, so that the graph must be valid.

        Raises:
            GraphError: the graph is not valid.
        """
        graph = self.unfinished.copy()
        graph.name = name
        closing = [projection.name for projection in self.closing]
        # A file of Ranvier's notes its implied delays; a caller's recurrent_delay replaces them as well.
        delayed = list(closing)
        if recurrent_delay is not None:
            delayed += self.notes.delays.keys() & graph.projections.keys()
        for key in delayed:
            graph.projections[key] = graph.projections[key].replace(delay=recurrent_delay or 1)
        if is_complete:
            check(graph)
        start_from_silence(graph, closing)
        return graph

    def _graph(self) -> SNNGraph:
        """The graph with the delays that are in the file."""
        ranges, fixed, masked = self.notes.ranges, set(self.notes.fixed), set(self.notes.masked)
        inputs = [
            Input(k, self.shapes[k], *ranges.get(k, ())) for k, node in self.nodes.items() if kind_of(node) == "Input"
        ]
        outputs = [Output(k, self.shapes[k]) for k, node in self.nodes.items() if kind_of(node) == "Output"]
        populations, projections = [], []
        for k, node in self.nodes.items():
            if k in self.operations:
                populations += self._relays(k)
            elif kind_of(node) in PARAMETERS:
                populations.append(self._population(k, self.shapes[k], self._neuron(k)))
        for k in self.nodes:
            projections += self._projections_into(k)
        dt = UNKNOWN_DT if self.dt is None else self.dt
        return SNNGraph(
            dt=dt,
            inputs=inputs,
            outputs=outputs,
            populations=populations,
            projections=(
                p.replace(
                    delay=self.notes.delays.get(p.name, p.delay), trained=p.name not in fixed, masked=p.name in masked
                )
                for p in projections
            ),
        )

    def _population(self, name: str, shape: tuple[int, ...], neuron: Neuron) -> Population:
        return Population(name, shape, neuron, self.notes.initial.get(name, {}))

    # Operations and what stands between them ---------------------------------------------------------------------

    def _is_between_two(self, name: str) -> bool:
        """Whether an operation needs no relay: one node before it, and one after it that reads its result as it is."""
        if len(self.before[name]) != 1 or len(self.after[name]) != 1:
            return False
        return self.after[name][0] not in self.operations and self.after[name][0] not in self.delays.in_loops

    def _relays(self, name: str) -> list[Population]:
        if self._is_between_two(name):
            return []
        relays = [self._population(name, self.shapes[name], Relay())]
        if name in self.sums:
            relays.insert(0, self._population(self.sums[name], self.shapes[self.before[name][0]], Relay()))
        return relays

    def _projections_into(self, name: str) -> list[Projection]:
        """The projections for the edges to a node, and for the node itself if it is an operation."""
        before = self.before[name]
        if name in self.delays.in_loops:
            return [projection for a in before for projection in self._waiting(a, name)]
        if name not in self.operations:
            direct = [a for a in before if not (a in self.operations and self._is_between_two(a))]
            return [self._passing(a, name) for a in direct]
        operation, delay = self.operations[name]
        source = self.sums.get(name, before[0])
        target = self.after[name][0] if self._is_between_two(name) else name
        into_sum = [self._passing(a, source) for a in before] if name in self.sums else []
        return [*into_sum, Projection(name, source, target, operation, delay)]

    def _passing(self, source: str, target: str) -> Projection:
        """A projection that passes values on as they are."""
        return Projection(_take_name(self.taken, f"{source}->{target}"), source, target, Identity())

    def _waiting(self, source: str, name: str) -> list[Projection]:
        """The projections from a node to a delay within a loop: one for each part, see :class:`LoopDelay`."""
        parts = self.delays.in_loops[name].parts
        if len(parts) == 1:
            return [self._passing(source, name).replace(delay=parts[0][1])]
        projections = [
            Projection(_take_name(self.taken, f"{source}->{name}.{delay}"), source, name, operation, delay)
            for operation, delay in parts
        ]
        self.undelayed |= {projection.name for projection in projections if projection.delay == 0}
        return projections

    # Shapes and neurons -------------------------------------------------------------------------------------------

    def _find_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of what every node emits: the one that it declares, or the one that follows from a node before it.

        Raises:
            GraphError: shapes do not fit, or one is not known.
        """
        shapes = {k: shape for k in self.nodes if (shape := self._declared_shape(k)) is not None}
        # Shapes spread along the edges from the nodes that declare one.
        order = deque(shapes)
        while order:
            source = order.popleft()
            for name in self.after[source]:
                if name not in shapes:
                    shapes[name] = self._shape_after(name, source, shapes[source])
                    order.append(name)
        if unknown := [name for name in self.nodes if name not in shapes]:
            name = next((k for k in unknown if not self.before[k]), unknown[0])
            why = "is in a cycle without neurons, so its shape is unknown" if self.before[name] else NO_SHAPE
            raise GraphError(f"node {name!r}: {why}.")
        # Only now, when the shapes of all nodes before the outputs are known.
        shapes.update({k: self._output_shape(k, shapes) for k, n in self.nodes.items() if kind_of(n) == "Output"})
        return shapes

    def _output_shape(self, name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """The declared shape, without an exporter's batch axes of length one if the nodes before the output have none.

        A declared shape of 1 x 1 x 10 is read as 10 if what leads to the output has the shape 10.
        """
        (arriving, *others) = {shapes[k] for k in self.before[name]} or {shapes[name]}
        return arriving if not others and arriving in _without_batch_axes(shapes[name]) else shapes[name]

    def _input_shape(self, name: str, declared: tuple[int, ...]) -> tuple[int, ...]:
        """The declared shape, without an exporter's batch axes of length one if no node after the input takes them."""
        fitting = (s for s in _without_batch_axes(declared) if all(self._takes(k, s) for k in self.after[name]))
        return next(fitting, declared)

    def _takes(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether a node can read values of a shape."""
        if name not in self.operations:
            return kind_of(self.nodes[name]) == "Output" or self._declared_shape(name) in (shape, None)
        try:
            self._emitted_shape(name, shape)
        except ShapeError:
            return False
        return True

    def _declared_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape that a node declares, itself or by its parameters; None if it follows from the node before it."""
        node = self.nodes[name]
        kind = kind_of(node)
        if name in self.operations:
            return None
        if kind in ("Input", "Output"):
            declared = node.input_type.get("input") if kind == "Input" else node.output_type.get("output")
            shape = None if declared is None else tuple(int(n) for n in np.ravel(declared))
            return self._input_shape(name, shape) if shape is not None and kind == "Input" else shape
        shapes = {np.shape(getattr(node, parameter)) for parameter in PARAMETERS[kind]} - {()}
        if len(shapes) > 1:
            raise GraphError(
                f"node {name!r} ({kind}): its parameters have different shapes: {sorted(map(list, shapes))}."
            )
        return shapes.pop() if shapes else None

    def _shape_after(self, name: str, source: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if name not in self.operations:
            return shape
        kind = kind_of(self.nodes[name])
        delays = np.shape(self.nodes[name].delay) if kind == "Delay" else ()
        if delays not in ((), (1,), shape):
            raise GraphError(f"node {name!r} (Delay): delays have shape {list(delays)}, expected {list(shape)}.")
        try:
            return self._emitted_shape(name, shape)
        except ShapeError as error:
            raise GraphError(f"node {name!r} ({kind}) after {source!r}: {error}.") from error

    def _emitted_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what an operation emits.

        Raises:
            ShapeError: it cannot read values of this shape.
        """
        operation = self.operations[name][0]
        # NIR's matrices apply to the last axis: one that is as large as a whole image belongs after a Flatten.
        if isinstance(operation, Linear) and len(shape) != 1:
            inner = operation.weight.shape[1:]
            raise ShapeError(
                f"weight {list(operation.weight.shape)} needs a source of shape {list(inner)}, not {list(shape)}"
            )
        return operation.target_shape(shape)

    def _neuron(self, name: str) -> Neuron:
        node = self.nodes[name]
        if name in self.delays.in_loops:
            return self.delays.in_loops[name].rest
        kind = kind_of(node)
        if kind == "Delay":
            return Delay(steps=self.delays.steps[name])
        values: dict[str, Any] = {label: np.asarray(getattr(node, label)) for label in PARAMETERS[kind]}
        try:
            return KINDS[kind](**values, **self.choices[name])
        except (TypeError, ValueError) as error:
            raise GraphError(f"node {name!r} ({kind}): {reason_text(error)}") from error


def _without_batch_axes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """A shape, then with fewer and fewer of its leading axes of length one: 1 x 1 x 10, 1 x 10, 10."""
    ones = next((k for k, n in enumerate(shape) if n != 1), len(shape) - 1)
    return [shape[k:] for k in range(max(ones, 0) + 1)]


def _take_name(names: set[str], wanted: str) -> str:
    """A free name, which is added to the names."""
    name = free_name(names, wanted)
    names.add(name)
    return name
