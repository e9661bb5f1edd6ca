"""From the nodes and edges of a NIR graph to populations and projections.

Neurons become populations. An operation between two nodes becomes a projection; where operations meet, part or follow
one another, relays stand between them, so that all that lies on a way between two neurons stays on it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text
from ..graph.elements import Input, Output, Population, Projection
from ..graph.names import free_name
from ..graph.neurons import Delay, Neuron, Relay
from ..graph.operations import Identity, Operation, ShapeError
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import check
from .delays import Delays
from .loops import closing_projections, start_from_silence
from .notes import NirNotes
from .vocabulary import NEURONS, OPERATIONS, Edges, Nodes, kind_of, operation_of

NO_SHAPE = "no edge leads to it, and it says no shape"
UNKNOWN_DT = 1.0
"""Of a graph whose time step is yet to be asked for."""


class NirBuilder:
    """Builds a graph.

    Attributes:
        closing: the projections that close loops which the file's own delays leave open; of them the delay is asked.
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
        self.delays = Delays.of(nodes, edges, dt, loops_are_told=notes.dt is not None)
        self.operations: dict[str, tuple[Operation, int]] = {
            **{k: (operation_of(k, node), 0) for k, node in nodes.items() if kind_of(node) in OPERATIONS},
            **{k: (Identity(), steps) for k, steps in self.delays.shared.items()},
        }
        self.shapes = self._find_shapes()
        taken = set(nodes)
        self.sums = {k: _taken(taken, f"{k}.sum") for k in self.operations if len(self.before[k]) > 1}
        self.taken = set(nodes)
        self.unfinished = self._graph()
        self.closing = closing_projections(self.unfinished, self.undelayed)

    def graph(self, name: str, recurrent_delay: int | None, *, is_complete: bool) -> SNNGraph:
        """The graph; without ``recurrent_delay`` what closes a loop takes one step.

        Args:
            name: its name.
            recurrent_delay: delay in steps of all that closes a loop.
            is_complete: whether nothing is missing, so that the graph must be valid.

        Raises:
            GraphError: the graph is not valid.
        """
        graph = self.unfinished.copy()
        graph.name = name
        closing = [projection.name for projection in self.closing]
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
        """The graph with the delays that the file says."""
        ranges, fixed = self.notes.ranges, set(self.notes.fixed)
        inputs = [
            Input(k, self.shapes[k], *ranges.get(k, ())) for k, node in self.nodes.items() if kind_of(node) == "Input"
        ]
        outputs = [Output(k, self.shapes[k]) for k, node in self.nodes.items() if kind_of(node) == "Output"]
        populations, projections = [], []
        for k, node in self.nodes.items():
            if k in self.operations:
                populations += self._relays(k)
            elif kind_of(node) in NEURONS:
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
                p.replace(delay=self.notes.delays.get(p.name, p.delay), trained=p.name not in fixed)
                for p in projections
            ),
        )

    def _population(self, name: str, shape: tuple[int, ...], neuron: Neuron) -> Population:
        return Population(name, shape, neuron, self.notes.initial.get(name, {}))

    # Operations and what stands between them ---------------------------------------------------------------------

    def _is_between_two(self, name: str) -> bool:
        """Whether an operation needs no relay: one node before it, and one after it that reads it as it is."""
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
        return Projection(_taken(self.taken, f"{source}->{target}"), source, target, Identity())

    def _waiting(self, source: str, name: str) -> list[Projection]:
        """Into a delay within a loop."""
        parts = self.delays.in_loops[name].parts
        if len(parts) == 1:
            return [self._passing(source, name).replace(delay=parts[0][1])]
        made = [
            Projection(_taken(self.taken, f"{source}->{name}.{delay}"), source, name, operation, delay)
            for operation, delay in parts
        ]
        self.undelayed |= {projection.name for projection in made if projection.delay == 0}
        return made

    # Shapes and neurons -------------------------------------------------------------------------------------------

    def _find_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of what every node gives: as it says itself, else as it follows from a node before it."""
        shapes = {k: shape for k in self.nodes if (shape := self._own_shape(k)) is not None}
        order = deque(shapes)
        while order:
            source = order.popleft()
            for name in self.after[source]:
                if name not in shapes:
                    shapes[name] = self._shape_after(name, source, shapes[source])
                    order.append(name)
        if unknown := [name for name in self.nodes if name not in shapes]:
            name = next((k for k in unknown if not self.before[k]), unknown[0])
            why = "is in a cycle without neurons, so no shape is known" if self.before[name] else NO_SHAPE
            raise GraphError(f"node {name!r}: {why}.")
        shapes.update({k: self._output_shape(k, shapes) for k, n in self.nodes.items() if kind_of(n) == "Output"})
        return shapes

    def _output_shape(self, name: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
        """As it says, without axes of an exporter's batch of one where what leads to it has none."""
        found = {shapes[k] for k in self.before[name]}
        (given, *others) = found or {shapes[name]}
        return given if not others and given in _without_batch_axes(shapes[name]) else shapes[name]

    def _input_shape(self, name: str, declared: tuple[int, ...]) -> tuple[int, ...]:
        """As it says, without axes of an exporter's batch of one where no node after it takes them."""
        fitting = (s for s in _without_batch_axes(declared) if all(self._takes(k, s) for k in self.after[name]))
        return next(fitting, declared)

    def _takes(self, name: str, shape: tuple[int, ...]) -> bool:
        if name not in self.operations:
            return kind_of(self.nodes[name]) == "Output" or self._own_shape(name) in (shape, None)
        try:
            self.operations[name][0].target_shape(shape)
        except ShapeError:
            return False
        return True

    def _own_shape(self, name: str) -> tuple[int, ...] | None:
        node = self.nodes[name]
        kind = kind_of(node)
        if name in self.operations:
            return None
        if kind in ("Input", "Output"):
            declared = node.input_type.get("input") if kind == "Input" else node.output_type.get("output")
            shape = None if declared is None else tuple(int(n) for n in np.ravel(declared))
            return self._input_shape(name, shape) if shape is not None and kind == "Input" else shape
        shapes = {np.shape(getattr(node, parameter)) for parameter in NEURONS[kind][1]} - {()}
        if len(shapes) > 1:
            raise GraphError(f"node {name!r} ({kind}): parameters have the shapes {sorted(map(list, shapes))}.")
        return shapes.pop() if shapes else None

    def _shape_after(self, name: str, source: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if name not in self.operations:
            return shape
        kind = kind_of(self.nodes[name])
        delays = np.shape(self.nodes[name].delay) if kind == "Delay" else ()
        if delays not in ((), (1,), shape):
            raise GraphError(f"node {name!r} (Delay): delays have shape {list(delays)}, {list(shape)} is expected.")
        try:
            return self.operations[name][0].target_shape(shape)
        except ShapeError as error:
            raise GraphError(f"node {name!r} ({kind}) after {source!r}: {error}.") from error

    def _neuron(self, name: str) -> Neuron:
        node = self.nodes[name]
        kind, parameters = NEURONS[kind_of(node)]
        if name in self.delays.in_loops:
            return self.delays.in_loops[name].rest
        if kind is Delay:
            return Delay(steps=self.delays.steps[name])
        values: dict[str, Any] = {parameter: np.asarray(getattr(node, parameter)) for parameter in parameters}
        try:
            return kind(**values, **self.choices[name])
        except (TypeError, ValueError) as error:
            raise GraphError(f"node {name!r} ({kind_of(node)}): {reason_text(error)}") from error


def _without_batch_axes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """A shape, then with fewer and fewer of the axes of length one that it begins with."""
    ones = next((k for k, n in enumerate(shape) if n != 1), len(shape) - 1)
    return [shape[k:] for k in range(max(ones, 0) + 1)]


def _taken(names: set[str], wanted: str) -> str:
    """A free name, which is taken from now on."""
    name = free_name(names, wanted)
    names.add(name)
    return name
