"""NIR graphs and files as SNNGraph.

NIR stores no time step, no reset rule and no delay of recurrent edges. The caller is asked for them; they are never
guessed. A file that Ranvier wrote has them in its metadata.
"""

# An example: a file with x -> block and block -> y, where block is a nested graph of the nodes in, lif and out. Its
# nodes become block.in, block.lif and block.out, and since block.in and block.out do nothing, the edges become
# x -> block.lif and block.lif -> y. If no dt and no reset are passed, the error asks for both at once.

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text
from ..graph.elements import Projection
from ..graph.footprint import check_declared
from ..graph.snn_graph import SNNGraph
from ..graph.verifier import LONGEST_DELAY
from ..util.limits import MemoryBudget, TooLarge
from .build import NirBuilder
from .notes import NOTES, NirNotes
from .options import NirOptions, Resets
from .probe import probe
from .vocabulary import KINDS, OPERATIONS, PARAMETERS, Edges, Nodes, check_values, kind_of

PRESET = {"integration": "euler", "current": "old", "fires": ">"}
"""Defaults that follow NIR's equations."""

DEEPEST = 32
"""The largest nesting of graphs."""


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

    Every NIR primitive is supported: Input, Output, Affine, Linear, Scale, Conv1d, Conv2d, SumPool2d, AvgPool2d,
    Flatten, Delay, Threshold, I, IF, LI, LIF, CubaLI, CubaLIF, and nested graphs, whose nodes are called
    ``outer.inner``. A file that :func:`ranvier.to_nir` wrote needs no further arguments.

    Args:
        source: path of a ``.nir`` file, or a ``nir.NIRGraph``.
        dt: time step in seconds; may be left out if the file says it.
        reset: ``"zero"`` or ``"subtract"`` for all spiking populations, or one of them by node name; needed if there
            are spiking populations.
        recurrent_delay: delay in steps, at least 1, of projections that close a cycle; needed if a cycle has no delay
            in the file. Delays in the file are not changed.
        integration: see :mod:`ranvier.graph.neurons`. The defaults of this and the next two are forward Euler, the old
            current, and spikes above the threshold, as in NIR's equations.
        current: likewise.
        fires: likewise.
        name: of the graph; by default the file's name.

    Raises:
        GraphError: the file cannot be read, a node or a shape is wrong, or something is missing that NIR does not
            store: all of it in one message, which names the nodes.
    """
    return read_nir(source, NirOptions(dt, reset, recurrent_delay, integration, current, fires), name)


def read_nir(source: Any, options: NirOptions, name: str | None = None) -> SNNGraph:
    """:func:`from_nir` with the options as one value."""
    graph, unsaid = _graph(source, options, name)
    if unsaid.questions:
        raise GraphError(str(unsaid))
    return graph


def nir_structure(source: Any, options: NirOptions) -> tuple[SNNGraph, list[str]]:
    """The structure of a NIR graph or file, and what is missing for running it.

    Args:
        source: as for :func:`from_nir`.
        options: placeholders stand for what is left out: a dt of 1 s, a delay of one step.

    Returns:
        The graph, which cannot be run if something is missing, and a sentence for each thing that is missing.

    Raises:
        GraphError: the file cannot be read, or a node or a shape is wrong.
    """
    graph, unsaid = _graph(source, options, None)
    return graph, unsaid.questions


def _graph(source: Any, options: NirOptions, name: str | None) -> tuple[SNNGraph, Unsaid]:
    """The graph, with placeholders for what is missing, and what that is."""
    contents = NirContents.of(source)
    dt = _time_step(options.dt, contents.notes)
    recurrent_delay = _whole_steps(options.recurrent_delay)
    choices, without_reset = _choices(contents.nodes, options.choices, contents.notes.choices)
    builder = NirBuilder(contents.nodes, contents.edges, dt, choices, contents.notes)
    # A short file can declare tensors of any size; they are refused before one is made.
    if contents.size is not None:
        check_declared(builder.unfinished, MemoryBudget(contents.size), repr(str(source)))
    unsaid = Unsaid(dt is None, without_reset, builder.closing if recurrent_delay is None else [])
    graph = builder.graph(name or contents.name, recurrent_delay, is_complete=not unsaid.questions)
    graph.metadata.update(contents.metadata)
    return graph, unsaid


@dataclass(frozen=True, eq=False)
class NirContents:
    """The contents of a NIR graph, with nested graphs flattened.

    Attributes:
        name: of the file.
        nodes, edges: of the graph.
        notes: what a file that Ranvier wrote says beyond NIR.
        metadata: all other metadata, by key.
        size: of the file in bytes; None if there is no file.
    """

    name: str
    nodes: Nodes
    edges: Edges
    notes: NirNotes
    metadata: dict[str, str]
    size: int | None

    @classmethod
    def of(cls, source: Any) -> NirContents:
        """From the path of a ``.nir`` file, or a ``nir.NIRGraph``.

        Raises:
            GraphError: the file cannot be read, or its nodes and edges do not form a graph.
        """
        import nir

        is_graph = isinstance(source, nir.NIRGraph)
        graph, name = (source, "nir") if is_graph else (_read(Path(source)), Path(source).stem)
        nodes, edges = _flattened(graph)
        size = None if is_graph else Path(source).stat().st_size
        return cls(name, nodes, edges, NirNotes.of(graph.metadata or {}), _metadata(graph, nodes), size)


@dataclass(frozen=True, eq=False)
class Unsaid:
    """What running a network needs, but NIR does not store.

    Attributes:
        dt: whether the time step is missing.
        resets: names of the nodes whose reset is missing.
        closing: projections whose delay is missing.
    """

    dt: bool
    resets: list[str]
    closing: list[Projection]

    @property
    def questions(self) -> list[str]:
        """A sentence for each thing that is missing, with the argument and the option that supply it."""
        questions = []
        if self.dt:
            questions.append(
                "the time step: pass dt= in seconds (--dt), the one the network was trained or simulated with."
            )
        if self.resets:
            questions.append(
                f"how a neuron is reset, and there is no reset for {self.resets}: pass reset='zero' (--reset zero; v "
                "becomes v_reset) or reset='subtract' (v loses v_threshold), as the network was trained, or a "
                "mapping by node name."
            )
        if self.closing:
            names = ", ".join(f"{p.name!r} ({p.source} -> {p.target})" for p in self.closing)
            questions.append(
                f"the delay of projections that close a cycle: {names}; pass recurrent_delay=1 (--recurrent-delay 1) "
                "if they bring the spikes of the step before, as in most simulators, or the number of steps."
            )
        return questions

    def __str__(self) -> str:
        if len(self.questions) == 1:
            return f"NIR does not store {self.questions[0]}"
        return "\n".join(["NIR does not store, and this network needs:", *(f"  {q}" for q in self.questions)])


def _time_step(dt: Any, notes: NirNotes) -> float | None:
    """dt from the caller or from the file.

    Raises:
        GraphError: it is not a positive number, or the two differ.
    """
    if dt is None:
        dt = notes.dt
    if dt is None:
        return None
    if not isinstance(dt, Real) or not 0 < float(dt) < float("inf"):
        raise GraphError(f"dt={dt!r} is not a time step; expected a positive number of seconds.")
    if notes.dt is not None and abs(float(dt) - notes.dt) > 1e-9 * notes.dt:
        raise GraphError(
            f"dt={float(dt):g} s contradicts the file, which says {notes.dt:g} s and whose delays depend on it; leave "
            "out dt. To run the network with another dt, change graph.dt afterward."
        )
    return float(dt)


def _whole_steps(recurrent_delay: Any) -> int | None:
    """A recurrent delay that is a valid number of steps.

    Raises:
        GraphError: it is not.
    """
    if recurrent_delay is None:
        return None
    is_number = isinstance(recurrent_delay, Integral) and not isinstance(recurrent_delay, bool)
    if not is_number or not 1 <= int(recurrent_delay) <= LONGEST_DELAY:
        raise GraphError(
            f"recurrent_delay={recurrent_delay!r} is not a delay for a loop; expected a number of steps from 1 to "
            f"{LONGEST_DELAY}."
        )
    return int(recurrent_delay)


def _read(path: Path) -> Any:
    """The ``nir.NIRGraph`` in a file, once the file is known to be safe to read."""
    import nir

    if not path.is_file():
        raise GraphError(f"there is no file {str(path)!r}.")
    try:
        probe(path)
        graph = nir.read(path, type_check=False)
    except TooLarge as error:
        raise GraphError(f"{str(path)!r}: {error}.") from error
    except Exception as error:  # a damaged file raises errors of many kinds
        raise GraphError(f"{str(path)!r} cannot be read as NIR: {reason_text(error)}") from error
    if not isinstance(graph, nir.NIRGraph):
        raise GraphError(f"{str(path)!r} holds a {kind_of(graph)}; expected a NIRGraph.")
    return graph


def _flattened(graph: Any) -> tuple[Nodes, Edges]:
    """Nodes and edges, with nested graphs replaced by their nodes."""
    nodes, edges, ports = _with_ports(graph, "")
    # A port does nothing, so it is left out: every node before it leads to every node after it.
    for port in ports:
        before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
        if port in before:
            raise GraphError(f"node {port!r}: is in a cycle of inputs and outputs of nested graphs without neurons.")
        edges = [edge for edge in edges if port not in edge] + [(a, b) for a in before for b in after]
        del nodes[port]
    for (a, b), count in Counter(edges).items():
        if count > 1:
            raise GraphError(
                f"the edge {a!r} -> {b!r} appears {count} times; put a Scale of {count} between the nodes."
            )
    return nodes, edges


def _with_ports(graph: Any, prefix: str) -> tuple[Nodes, Edges, list[str]]:
    """Nodes and edges by their full names, and the names of the inputs and outputs of nested graphs among them."""
    nodes: Nodes = {}
    edges: Edges = []
    ports: list[str] = []
    entry, leave = {}, {}
    if prefix.count(".") > DEEPEST:
        raise GraphError(
            f"graphs are nested more than {DEEPEST} levels deep, or contain themselves, at {prefix[:60]!r}."
        )
    for key, node in graph.nodes.items():
        name = f"{prefix}{key}"
        _check_kind(name, node)
        if name in nodes:
            raise GraphError(f"two nodes are called {name!r}, one of them within a nested graph; rename one.")
        if kind_of(node) != "NIRGraph":
            check_values(name, node)
            nodes[name] = node
            continue
        inner_nodes, inner_edges, inner_ports = _with_ports(node, f"{name}.")
        if both := sorted(nodes.keys() & inner_nodes.keys()):
            raise GraphError(f"two nodes are called {both[0]!r}, one of them within the graph {name!r}; rename one.")
        nodes.update(inner_nodes)
        edges += inner_edges
        entry[name], leave[name] = (
            [f"{name}.{k}" for k, n in node.nodes.items() if kind_of(n) == kind] for kind in ("Input", "Output")
        )
        ports += [*inner_ports, *entry[name], *leave[name]]
    edges += [_full_edge(edge, prefix, nodes, entry, leave) for edge in graph.edges]
    return nodes, edges, ports


def _check_kind(name: str, node: Any) -> None:
    """Raises :class:`GraphError` unless a node is a NIR primitive."""
    primitives = ("Input", "Output", *OPERATIONS, *PARAMETERS, "NIRGraph")
    if kind_of(node) not in primitives:
        raise GraphError(
            f"node {name!r} is {kind_of(node)}, which is not a NIR primitive that Ranvier knows; it knows "
            f"{', '.join(primitives)}."
        )


def _full_edge(
    edge: Any, prefix: str, nodes: Nodes, entry: Mapping[str, list[str]], leave: Mapping[str, list[str]]
) -> tuple[str, str]:
    """An edge by the full names of its ends; a nested graph is entered by its input and left by its output.

    Args:
        edge: names within one graph.
        prefix: of the full names of nodes of this graph.
        nodes: by full name.
        entry, leave: full names of the inputs and outputs of every nested graph.

    Raises:
        GraphError: there is no such node, or the nested graph does not have exactly one input or output.
    """
    if len(edge) != 2:
        raise GraphError(f"the edge {edge!r} has {len(edge)} ends; expected two names.")
    a, b = edge
    ends = []
    for key, table, kind in ((a, leave, "Output"), (b, entry, "Input")):
        name = f"{prefix}{key}"
        candidates = table.get(name, [name] if name in nodes else [])
        if len(candidates) != 1:
            raise GraphError(
                f"the edge {a!r} -> {b!r}: {name!r} is a graph with {len(candidates)} {kind} nodes, expected one."
                if name in table
                else f"the edge {a!r} -> {b!r}: there is no node {name!r}."
            )
        ends += candidates
    return ends[0], ends[1]


def _choices(
    nodes: Nodes, wanted: Mapping[str, Resets], notes: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The choices of every node, from the caller, else from the file, else as in NIR's equations; and the nodes whose
    reset is missing.
    """
    kinds = {name: KINDS[kind_of(node)] for name, node in nodes.items() if kind_of(node) in KINDS}
    picked: dict[str, dict[str, str]] = {name: {} for name in kinds}
    for choice, values in wanted.items():
        concerned = [name for name, kind in kinds.items() if choice in kind.choice_names()]
        by_name = dict(values) if isinstance(values, Mapping) else dict.fromkeys(concerned, values)
        if unknown := [name for name in by_name if name not in concerned]:
            raise GraphError(f"{choice} names {unknown}, but only these nodes have one: {concerned}.")
        for name in concerned:
            value = by_name.get(name) or notes.get(name, {}).get(choice) or PRESET.get(choice)
            if value is not None:
                picked[name][choice] = str(value)
    unknown = [n for n, kind in kinds.items() if "reset" in kind.choice_names() and "reset" not in picked[n]]
    return picked, unknown


def _metadata(graph: Any, nodes: Nodes) -> dict[str, str]:
    """Metadata of the graph by key and of its nodes by ``node/key``, as text."""
    metadata = {key: _text(value) for key, value in (graph.metadata or {}).items() if key != NOTES}
    for name, node in nodes.items():
        metadata.update({f"{name}/{key}": _text(value) for key, value in (node.metadata or {}).items()})
    return metadata


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=lambda x: np.asarray(x).tolist())
