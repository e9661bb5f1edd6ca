"""NIR graphs and files as SNNGraph.

NIR stores no time step, no reset rule and no delay of recurrent edges. They are asked for, kept in the graph, and never
guessed; what they were is also in the graph's metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text
from ..ir.graph.elements import Input, Output, Population, Projection
from ..ir.graph.neurons import IF, LI, LIF, CubaLI, CubaLIF, Delay, I, Neuron, Relay, Threshold
from ..ir.graph.nir_notes import NOTES, NirNotes
from ..ir.graph.operations import AvgPool, Conv, Flatten, Identity, Linear, Operation, Scale, ShapeError, SumPool
from ..ir.graph.order import strong_components
from ..ir.graph.snn_graph import SNNGraph
from ..ir.graph.verifier import check
from .nir_probe import probe

PRESET = {"integration": "euler", "current": "old", "fires": ">"}
"""Choices as in NIR's equations."""

DEEPEST = 32
"""Graphs are nested no deeper."""

Nodes = dict[str, Any]
Edges = list[tuple[str, str]]
Resets = str | Mapping[str, str] | None


def from_nir(
    source: Any,
    *,
    dt: float | None = None,
    reset: Resets = None,
    recurrent_delay: int | None = None,
    integration: str | None = None,
    current: str | None = None,
    fires: str | None = None,
    name: str | None = None,
) -> SNNGraph:
    """A NIR graph or file as SNNGraph.

    Every NIR primitive is taken: Input, Output, Affine, Linear, Scale, Conv1d, Conv2d, SumPool2d, AvgPool2d, Flatten,
    Delay, Threshold, I, IF, LI, LIF, CubaLI, CubaLIF, and nested graphs, whose nodes are called ``outer.inner``. A file
    that :func:`ranvier.to_nir` wrote says all that is asked for here.

    Args:
        source: path of a ``.nir`` file, or a ``nir.NIRGraph``.
        dt: time step in seconds; of a file that says it itself it may be left out.
        reset: ``"zero"`` or ``"subtract"`` for all spiking populations, or one by node name; needed where there are
            some.
        recurrent_delay: delay in steps of projections that close a cycle, at least 1; needed where there are some.
        integration: see :mod:`ranvier.ir.graph.neurons`. Where these three are left out, forward Euler on the old state
            and spikes above the threshold, as in NIR's equations.
        current: likewise.
        fires: likewise.
        name: of the graph; the file's name where left out.

    Raises:
        GraphError: the file cannot be read, a node or a shape is wrong, or something that NIR does not store was not
            given. The message names the node.
    """
    import nir

    if isinstance(source, nir.NIRGraph):
        graph, preset = source, "nir"
    else:
        graph, preset = _read(Path(source)), Path(source).stem
    nodes, edges = _flattened(graph)
    told = NirNotes.of(graph.metadata or {})
    dt = told.dt if dt is None else dt
    if dt is None:
        raise GraphError(
            "NIR does not store the time step: pass dt= in seconds (--dt), the one the network was trained or "
            "simulated with."
        )
    if not isinstance(dt, Real) or not 0 < dt < float("inf"):
        raise GraphError(f"dt={dt!r} is no time step; a positive number of seconds is expected.")
    if told.dt is not None and abs(float(dt) - told.dt) > 1e-9 * told.dt:
        raise GraphError(
            f"dt={float(dt):g} s was given, and the file says {told.dt:g} s, for which its delays hold; "
            "leave dt out. For another network with that dt, change graph.dt afterwards."
        )
    choices = {"reset": reset, "integration": integration, "current": current, "fires": fires}
    importer = _Importer(nodes, edges, float(dt), _choices(nodes, choices, told.choices), told)
    found = importer.graph(name or preset, recurrent_delay)
    found.metadata.update(_metadata(graph, nodes))
    check(found)
    return found


class _Importer:
    """Builds the graph: neurons become populations, other nodes projections, with relays where these meet or part."""

    def __init__(
        self, nodes: Nodes, edges: Edges, dt: float, choices: dict[str, dict[str, str]], told: NirNotes
    ) -> None:
        self.nodes, self.dt, self.choices, self.told = nodes, dt, choices, told
        self.before: dict[str, list[str]] = {name: [] for name in nodes}
        self.after: dict[str, list[str]] = {name: [] for name in nodes}
        for a, b in edges:
            self.after[a].append(b)
            self.before[b].append(a)
        self.shapes: dict[str, tuple[int, ...] | None] = {}
        self.split = self._split_delays()
        found = {name: self._operation(name) for name in nodes}
        self.operations = {name: operation for name, operation in found.items() if operation is not None}

    def graph(self, name: str, recurrent_delay: int | None) -> SNNGraph:
        ranges = self.told.ranges
        inputs = [
            Input(k, self._shape(k), *ranges.get(k, ())) for k, node in self.nodes.items() if _kind(node) == "Input"
        ]
        outputs = [Output(k, self._shape(k)) for k, node in self.nodes.items() if _kind(node) == "Output"]
        populations, projections = [], []
        for k, node in self.nodes.items():
            if k in self.operations:
                populations += self._relays(k)
            elif _kind(node) in NEURONS:
                populations.append(Population(k, self._shape(k), self._neuron(k), self.told.initial.get(k, {})))
        for k in self.nodes:
            projections += self._projections_into(k)
        graph = SNNGraph(name=name, dt=self.dt, inputs=inputs, outputs=outputs, populations=populations)
        delays = self.told.delays if recurrent_delay is None else {}
        fixed = set(self.told.fixed)
        graph.projections = {
            p.name: p.replace(delay=delays.get(p.name, p.delay), trained=p.name not in fixed) for p in projections
        }
        _delay_recurrence(graph, recurrent_delay)
        return graph

    def _is_between_two(self, name: str) -> bool:
        """Whether an operation needs no relay: one node before it, and one after it that is no operation."""
        (one, other) = (self.before[name], self.after[name])
        return len(one) == 1 and len(other) == 1 and other[0] not in self.operations

    def _relays(self, name: str) -> list[Population]:
        if self._is_between_two(name):
            return []
        found = [Population(name, self._shape(name), Relay())]
        return (
            [Population(f"{name}.sum", self._incoming(name), Relay()), *found] if len(self.before[name]) > 1 else found
        )

    def _projections_into(self, name: str) -> list[Projection]:
        before = self.before[name]
        if name not in self.operations:
            told = [a for a in before if not (a in self.operations and self._is_between_two(a))]
            if name in self.split:
                return [projection for a in told for projection in self._by_delay(a, name)]
            return [Projection(f"{a}->{name}", a, name, Identity()) for a in told]
        operation, delay = self.operations[name]
        if self._is_between_two(name):
            return [Projection(name, before[0], self.after[name][0], operation, delay)]
        if len(before) == 1:
            return [Projection(name, before[0], name, operation, delay)]
        if not before:
            raise GraphError(f"node {name!r}: no edge leads to it; an operation needs a source.")
        summed = f"{name}.sum"
        parts = [Projection(f"{a}->{summed}", a, summed, Identity()) for a in before]
        return [*parts, Projection(name, summed, name, operation, delay)]

    def _split_delays(self) -> set[str]:
        """Delay nodes within a cycle whose elements wait for different times.

        A delay that a loop runs through has to be on projections, here one for every time. Files of ours tell which
        projections of a loop have delays.
        """
        if self.told.dt is not None:
            return set()
        component = strong_components(self.nodes, ((a, b) for a in self.nodes for b in self.after[a]))
        sizes = Counter(component.values())
        delays = [n for n, node in self.nodes.items() if _kind(node) == "Delay" and sizes[component[n]] > 1]
        return {name for name in delays if np.unique(self._steps(name)).size > 1}

    def _by_delay(self, source: str, name: str) -> list[Projection]:
        steps = np.broadcast_to(self._steps(name), self._shape(name))
        return [
            Projection(f"{source}->{name}.{int(d)}", source, name, Scale((steps == d).astype(np.float64)), int(d))
            for d in np.unique(steps)
        ]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of what a node gives."""
        if name in self.shapes:
            found = self.shapes[name]
            if found is None:
                raise GraphError(f"node {name!r}: is in a cycle without neurons, so no shape is known.")
            return found
        self.shapes[name] = None
        self.shapes[name] = found = self._find_shape(name)
        return found

    def _find_shape(self, name: str) -> tuple[int, ...]:
        node = self.nodes[name]
        kind = _kind(node)
        if name in self.operations:
            try:
                return self.operations[name][0].target_shape(self._incoming(name))
            except ShapeError as error:
                raise GraphError(f"node {name!r} ({kind}) after {self.before[name][0]!r}: {error}.") from error
        if kind in ("Input", "Output"):
            declared = node.input_type["input"] if kind == "Input" else node.output_type["output"]
            if declared is not None:
                return tuple(int(n) for n in np.ravel(declared))
        else:
            shapes = {np.shape(getattr(node, parameter)) for parameter in NEURONS[kind][1]} - {()}
            if len(shapes) > 1:
                raise GraphError(f"node {name!r} ({kind}): parameters have the shapes {sorted(map(list, shapes))}.")
            if shapes:
                return shapes.pop()
        return self._incoming(name)

    def _incoming(self, name: str) -> tuple[int, ...]:
        if not self.before[name]:
            raise GraphError(f"node {name!r}: no edge leads to it and it says no shape.")
        return self._shape(self.before[name][0])

    def _neuron(self, name: str) -> Neuron:
        node = self.nodes[name]
        kind, parameters = NEURONS[_kind(node)]
        values = {parameter: np.asarray(getattr(node, parameter)) for parameter in parameters}
        if name in self.split:
            return Relay()
        if kind is Delay:
            return Delay(steps=self._steps(name))
        try:
            return kind(**values, **self.choices[name])
        except (TypeError, ValueError) as error:
            raise GraphError(f"node {name!r} ({_kind(node)}): {reason_text(error)}") from error

    def _steps(self, name: str) -> np.ndarray:
        """Delays in whole steps."""
        delay = np.asarray(self.nodes[name].delay, np.float64)
        steps = np.round(delay / self.dt)
        if np.any(np.abs(delay / self.dt - steps) > 1e-6 * np.maximum(steps, 1)) or np.any(steps < 0):
            raise GraphError(
                f"node {name!r} (Delay): {np.unique(delay)} s are no whole numbers of steps of dt = {self.dt:g} s; "
                "choose a dt that divides them."
            )
        return steps

    def _operation(self, name: str) -> tuple[Operation, int] | None:
        """A node as an operation and a delay, where it is that."""
        node = self.nodes[name]
        if _kind(node) == "Delay":
            steps = np.unique(self._steps(name))
            return (Identity(), int(steps[0])) if steps.size == 1 and steps[0] > 0 else None
        if _kind(node) not in OPERATIONS:
            return None
        try:
            return OPERATIONS[_kind(node)](node), 0
        except (ValueError, TypeError) as error:
            raise GraphError(f"node {name!r} ({_kind(node)}): {reason_text(error)}") from error


def _kind(node: Any) -> str:
    return type(node).__name__


def _by_axis(value: Any, axes: int) -> tuple[int, ...]:
    found = np.ravel(value)
    return tuple(int(n) for n in (np.repeat(found, axes) if found.size == 1 else found))


def _conv(node: Any) -> Operation:
    axes = np.ndim(node.weight) - 2
    padding = node.padding if isinstance(node.padding, str) else _by_axis(node.padding, axes)
    return Conv(
        weight=node.weight,
        bias=node.bias,
        stride=_by_axis(node.stride, axes),
        padding=padding,
        dilation=_by_axis(node.dilation, axes),
        groups=int(node.groups),
    )


def _pool(kind: type[SumPool]) -> Callable[[Any], Operation]:
    return lambda node: kind(*(_by_axis(value, 2) for value in (node.kernel_size, node.stride, node.padding)))


OPERATIONS: dict[str, Callable[[Any], Operation]] = {
    "Affine": lambda node: Linear(node.weight, node.bias),
    "Linear": lambda node: Linear(node.weight),
    "Scale": lambda node: Scale(node.scale),
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool(SumPool),
    "AvgPool2d": _pool(AvgPool),
    "Flatten": lambda node: Flatten(int(node.start_dim), int(node.end_dim)),
}
KINDS: tuple[type[Neuron], ...] = (Threshold, I, IF, LI, LIF, CubaLI, CubaLIF)
NEURONS: dict[str, tuple[type[Neuron], tuple[str, ...]]] = {
    "Delay": (Delay, ("delay",)),
    **{kind.__name__: (kind, kind.parameter_names()) for kind in KINDS},
}


def _read(path: Path) -> Any:
    import nir

    if not path.is_file():
        raise GraphError(f"there is no file {str(path)!r}.")
    try:
        probe(path)
        graph = nir.read(path, type_check=False)
    except Exception as error:  # a damaged file raises errors of many kinds
        raise GraphError(f"{str(path)!r} cannot be read as NIR: {reason_text(error)}") from error
    if not isinstance(graph, nir.NIRGraph):
        raise GraphError(f"{str(path)!r} holds a {_kind(graph)}; a NIRGraph is expected.")
    return graph


def _flattened(graph: Any) -> tuple[Nodes, Edges]:
    """Nodes and edges, with the nodes of nested graphs in place of these."""
    nodes, edges, ports = _with_ports(graph, "")
    for port in ports:
        before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
        edges = [edge for edge in edges if port not in edge] + [(a, b) for a in before for b in after]
        del nodes[port]
    for (a, b), count in Counter(edges).items():
        if count > 1:
            raise GraphError(
                f"the edge {a!r} -> {b!r} is there {count} times; put a Scale of {count} between the nodes."
            )
    return nodes, edges


def _with_ports(graph: Any, prefix: str) -> tuple[Nodes, Edges, list[str]]:
    """Nodes and edges by their full names, with the inputs and outputs of nested graphs, and the names of these."""
    nodes: Nodes = {}
    edges: Edges = []
    ports: list[str] = []
    entry, leave = {}, {}
    if prefix.count(".") > DEEPEST:
        raise GraphError(f"graphs are nested deeper than {DEEPEST} times, or in themselves, at {prefix[:60]!r}.")
    for key, node in graph.nodes.items():
        name = f"{prefix}{key}"
        if _kind(node) not in ("NIRGraph", "Input", "Output", *OPERATIONS, *NEURONS):
            known = ", ".join(("Input", "Output", *OPERATIONS, *NEURONS, "NIRGraph"))
            raise GraphError(
                f"node {name!r} is {_kind(node)}, which is no NIR primitive known here; there are {known}."
            )
        if _kind(node) != "NIRGraph":
            nodes[name] = node
            continue
        inner_nodes, inner_edges, inner_ports = _with_ports(node, f"{name}.")
        nodes.update(inner_nodes)
        edges += inner_edges
        own = {kind: [f"{name}.{k}" for k, n in node.nodes.items() if _kind(n) == kind] for kind in ("Input", "Output")}
        ports += [*inner_ports, *own["Input"], *own["Output"]]
        entry[name], leave[name] = own["Input"], own["Output"]
    for edge in graph.edges:
        if len(edge) != 2:
            raise GraphError(f"the edge {edge!r} has {len(edge)} ends; two names are expected.")
        a, b = edge
        ends = []
        for key, table, kind in ((a, leave, "Output"), (b, entry, "Input")):
            name = f"{prefix}{key}"
            found = table.get(name, [name] if name in nodes else [])
            if len(found) != 1:
                raise GraphError(
                    f"the edge {a!r} -> {b!r}: {name!r} is a graph with {len(found)} {kind} nodes, one is expected."
                    if name in table
                    else f"the edge {a!r} -> {b!r}: there is no node {name!r}."
                )
            ends += found
        edges.append((ends[0], ends[1]))
    return nodes, edges, ports


def _choices(
    nodes: Nodes, given: Mapping[str, Resets], told: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Every choice of every node: as given, else as the file tells, else what NIR's equations say."""
    kinds = {name: NEURONS[_kind(node)][0] for name, node in nodes.items() if _kind(node) in NEURONS}
    found: dict[str, dict[str, str]] = {name: {} for name in kinds}
    for choice, value in given.items():
        concerned = [name for name, kind in kinds.items() if choice in kind.choice_names()]
        by_name = dict(value) if isinstance(value, Mapping) else dict.fromkeys(concerned, value)
        if unknown := [name for name in by_name if name not in concerned]:
            raise GraphError(f"{choice} is given for {unknown}, but the nodes that have one are {concerned}.")
        for name in concerned:
            picked = by_name.get(name) or told.get(name, {}).get(choice) or PRESET.get(choice)
            if picked is not None:
                found[name][choice] = str(picked)
    if missing := [n for n, kind in kinds.items() if "reset" in kind.choice_names() and "reset" not in found[n]]:
        raise GraphError(
            f"NIR does not store how a neuron is reset, and no reset is given for {missing}: pass reset='zero' "
            "(--reset zero; v becomes v_reset) or reset='subtract' (v loses v_threshold), as the network was trained, "
            "or a mapping by node name."
        )
    return found


def _delay_recurrence(graph: SNNGraph, steps: int | None) -> None:
    """Gives every projection that closes a cycle its delay."""
    closing = _closing(graph)
    if not closing:
        return
    if steps is None or steps < 1:
        names = [f"{p.name!r} ({p.source} -> {p.target})" for p in closing]
        raise GraphError(
            f"projections close a cycle: {', '.join(names)}. NIR does not store their delay: pass recurrent_delay=1 "
            "(--recurrent-delay 1) if they bring the spikes of the step before, as most simulators do, or the number "
            "of steps."
        )
    for projection in closing:
        graph.projections[projection.name] = projection.replace(delay=steps)


def _closing(graph: SNNGraph) -> list[Projection]:
    """Projections without delay that lead back to a population on the way to them, depth first from the inputs."""
    found, done, active = [], set(), set()
    for start in (*graph.inputs, *graph.populations):
        stack = [(start, iter(graph.out_of(start)))] if start not in done else []
        active.update(name for name, _ in stack)
        while stack:
            name, rest = stack[-1]
            projection = next(rest, None)
            if projection is None:
                stack.pop()
                active.discard(name)
                done.add(name)
            elif projection.delay == 0 and projection.target in active:
                found.append(projection)
            elif projection.delay == 0 and projection.target not in done and projection.target in graph.populations:
                active.add(projection.target)
                stack.append((projection.target, iter(graph.out_of(projection.target))))
    return found


def _metadata(graph: Any, nodes: Nodes) -> dict[str, str]:
    """Metadata of the graph by key, that of its nodes by ``node/key``, as text."""
    found = {key: _text(value) for key, value in (graph.metadata or {}).items() if key != NOTES}
    for name, node in nodes.items():
        found.update({f"{name}/{key}": _text(value) for key, value in (node.metadata or {}).items()})
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=lambda x: np.asarray(x).tolist())
