"""Graphs over a whole sequence: what feeds nobody back runs layer by layer over time, only loops run step by step.

Populations that reach one another are a part; parts run one after the other. Within a stretch of time, what a part gets
from others is known for all steps, so those projections are one product over all steps and samples. What is left for
the loop over time are the neurons, and in a part with a loop the projections among its own populations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from graphlib import TopologicalSorter
from typing import Any

import jax
import jax.numpy as jnp

from ..ir.graph.elements import Projection
from ..ir.graph.neurons import IN, OUT
from ..ir.graph.order import Port, strong_components
from ..ir.graph.recording import SUMMED, Recording
from ..ir.graph.snn_graph import SNNGraph
from .lower import PAST, GraphStep, Past
from .products import Arrays, Layout, layout_of

Apply = Callable[[Any], Any]
"""From the values of the source, ``[samples, *shape]``, to what a projection brings."""
Values = dict[Port, Any]
"""By name and port, ``[steps, samples, *shape]``."""
BYTES = 2**21
"""Values of all ports of a stretch of time that are kept at once, about: as many as fit a core's cache."""
SHORTEST = 1
"""Steps of a stretch at least."""


@dataclass(frozen=True, eq=False)
class Part:
    """Populations that reach one another, or one alone.

    Attributes:
        names: in the order of a step.
        inner: projections among them, by the port they lead to.
        outer: projections from elsewhere, likewise.
    """

    names: tuple[str, ...]
    inner: Mapping[Port, Sequence[Projection]]
    outer: Mapping[Port, Sequence[Projection]]


class Engine:
    """A graph ready to be run over sequences of a batch of samples.

    Attributes:
        step: one time step of the graph, with parameters and states.
        samples: in the batch.
        wanted: what is recorded.
    """

    def __init__(self, graph: SNNGraph, dtype: Any, samples: int, wanted: Recording) -> None:
        self.graph, self.dtype, self.samples, self.wanted = graph, dtype, samples, wanted
        self.step = GraphStep(graph, dtype)

    @cached_property
    def parts(self) -> list[Part]:
        """In an order in which each comes after what feeds it, delayed or not."""
        names, edges = list(self.graph.populations), []
        for projection in self.graph.projections.values():
            if projection.source in self.graph.populations and projection.target in self.graph.populations:
                edges.append((projection.source, projection.target))
        component = strong_components(names, edges)
        groups: dict[int, list[str]] = {}
        for name in self.step.order:
            groups.setdefault(component[name], []).append(name)
        return [self._part(groups[k]) for k in _in_order(groups, component, edges)]

    def _part(self, names: list[str]) -> Part:
        inner: dict[Port, list[Projection]] = {}
        outer: dict[Port, list[Projection]] = {}
        for name in names:
            for port in self.graph.populations[name].neuron.inputs:
                for projection in self.step.into[name, port]:
                    side = inner if projection.source in names else outer
                    side.setdefault((name, port), []).append(projection)
        return Part(tuple(names), inner, outer)

    @cached_property
    def _layouts(self) -> dict[str, Layout]:
        return {name: self._layout(name) for name in self.graph.projections}

    @cached_property
    def arrays(self) -> dict[str, Arrays]:
        """What :meth:`run` takes: the graph's own arrays, by projection, in the layout in which they are read."""
        return {name: layout.arrays for name, layout in self._layouts.items() if layout.arrays}

    def run(self, arrays: Mapping[str, Arrays], inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Outputs and what is recorded, ``[T, samples, *shape]``, for inputs of that shape."""
        length = len(next(iter(inputs.values())))
        apply = {name: partial(x.apply, arrays.get(name, {})) for name, x in self._layouts.items()}
        state = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.samples, *x.shape)), self._states())
        tails = {port: self._tail(port, depth) for port, depth in self._outer_pasts.items()}
        stretch = self._stretch(length)
        whole = length // stretch * stretch
        first = {k: x[:whole].reshape(whole // stretch, stretch, *x.shape[1:]) for k, x in inputs.items()}
        carry, found = jax.lax.scan(lambda c, x: self._run_stretch(apply, c, x), (state, tails), first)
        found = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), found)
        if whole < length:
            _, rest = self._run_stretch(apply, carry, {k: x[whole:] for k, x in inputs.items()})
            found = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found, rest)
        return found

    def _stretch(self, length: int) -> int:
        """Steps that are run part by part: as many as there is room for their values, of equal length if possible."""
        nodes = self.graph.nodes.values()
        size = self.samples * sum(node.size for node in nodes) * jnp.dtype(self.dtype).itemsize
        most = int(min(length, max(SHORTEST, BYTES // max(size, 1))))
        return max((n for n in range(max(1, most // 2), most + 1) if length % n == 0), default=most)

    def _layout(self, name: str) -> Layout:
        projection = self.graph.projections[name]
        arrays = self.step.fixed.get(name) or self.step.params.get(name, {})
        source = self.graph.populations.get(projection.source)
        measured = None if source is None or projection.source_port != OUT else source.activity
        rate = None if measured is None or source is None or not source.neuron.spikes else float(measured.rates.mean())
        in_loop = any(projection in into for part in self.parts for into in part.inner.values())
        image = self.graph.source_shape(projection)
        return layout_of(projection, arrays, image, self.samples, rate, in_loop=in_loop)

    # What was before a stretch

    @cached_property
    def _outer_pasts(self) -> dict[Port, int]:
        """The longest delay of projections into other parts, by the port they read."""
        found: dict[Port, int] = {}
        outer = [p for part in self.parts for into in part.outer.values() for p in into]
        outer += [p for name in self.graph.outputs for p in self.step.into[name, IN]]
        for projection in outer:
            if projection.delay:
                port = projection.source, projection.source_port
                found[port] = max(found.get(port, 0), projection.delay)
        return found

    @cached_property
    def _inner_pasts(self) -> dict[Port, Past]:
        """What delayed projections within a part read."""
        inner = [p for part in self.parts for into in part.inner.values() for p in into if p.delay]
        depths: dict[Port, int] = {}
        for projection in inner:
            port = projection.source, projection.source_port
            depths[port] = max(depths.get(port, 0), projection.delay)
        return {port: Past.of(self.graph, port, depth) for port, depth in depths.items()}

    def _states(self) -> dict[str, dict[str, Any]]:
        """Of the neurons, and what delayed projections within parts have still to bring."""
        found: dict[str, dict[str, Any]] = {}
        for name in self.graph.populations:
            own = {k: v for k, v in self.step.state.get(name, {}).items() if not k.startswith(PAST)}
            pasts = {past.key for port, past in self._inner_pasts.items() if port[0] == name and past.kept}
            kept = {k: self._kept(name, k) for k in pasts}
            found[name] = {**own, **kept}
        return found

    def _kept(self, name: str, key: str) -> Any:
        past = next(p for port, p in self._inner_pasts.items() if port[0] == name and p.key == key)
        return jnp.broadcast_to(jnp.asarray(past.initial, self.dtype), (past.kept, *past.initial.shape))

    def _tail(self, port: Port, depth: int) -> Any:
        """What a port gave before the first step, ``[depth, samples, *shape]``."""
        initial = Past.of(self.graph, port, depth).initial
        return jnp.broadcast_to(jnp.asarray(initial, self.dtype), (depth, self.samples, *initial.shape))

    # A stretch of time

    def _run_stretch(self, apply: Mapping[str, Apply], carry: Any, inputs: Mapping[str, Any]) -> Any:
        state, tails = carry
        values: Values = {(name, OUT): jnp.asarray(x, self.dtype) for name, x in inputs.items()}
        summed: Values = {}
        state = dict(state)
        steps = len(next(iter(inputs.values())))
        for part in self.parts:
            drives = {port: self._brought(apply, into, values, tails) for port, into in part.outer.items()}
            state.update(self._run_part(apply, part, state, drives, steps, values, summed))
        outputs = {}
        for name in self.graph.outputs:
            into = self.step.into[name, IN]
            shape = self.step.ports[name, IN]
            zeros = jnp.zeros((steps, self.samples, *shape), self.dtype)
            outputs[name] = self._brought(apply, into, values, tails) if into else zeros
        later = {port: self._with_tail(tail, port, values)[-_length(tail) :] for port, tail in tails.items()}
        return (state, later), (outputs, self.wanted.pick(values, summed))

    def _brought(
        self, apply: Mapping[str, Apply], into: Sequence[Projection], values: Values, tails: Mapping[Port, Any]
    ) -> Any:
        """What projections bring in all steps: one product over steps and samples for each."""
        total = None
        for projection in into:
            port = projection.source, projection.source_port
            x = values[port]
            if projection.delay:
                before = self._with_tail(tails[port], port, values)
                start = _length(tails[port]) - projection.delay
                x = before[start : start + len(x)]
            flat = jnp.asarray(x, self.dtype).reshape(-1, *x.shape[2:])
            y = apply[projection.name](flat)
            y = y.reshape(*x.shape[:2], *y.shape[1:])
            total = y if total is None else total + y
        return total

    def _with_tail(self, tail: Any, port: Port, values: Values) -> Any:
        """The values of a port in this stretch with those before it."""
        return jnp.concatenate([tail, jnp.asarray(values[port], self.dtype)])

    def _run_part(
        self,
        apply: Mapping[str, Apply],
        part: Part,
        state: Mapping[str, Any],
        drives: Mapping[Port, Any],
        steps: int,
        values: Values,
        summed: Values,
    ) -> dict[str, Any]:
        """Runs a part over a stretch; writes what is read of it, gives its states."""
        read, heard = self._read_of(part)
        stateless = not part.inner and not any(state[name] for name in part.names)

        def one(held: Any, given: Any) -> Any:
            return self._step_part(apply, part, held, given, read, heard)

        held = {name: state[name] for name in part.names}
        if stateless and drives:
            flat = {port: x.reshape(-1, *x.shape[2:]) for port, x in drives.items()}
            _, found = one(held, flat)
            found = jax.tree.map(lambda x: x.reshape(steps, self.samples, *x.shape[1:]), found)
        else:
            held, found = jax.lax.scan(one, held, dict(drives), length=steps)
        values.update(found[0])
        summed.update(found[1])
        return held

    def _read_of(self, part: Part) -> tuple[list[Port], list[Port]]:
        """The ports of a part that others read or that are recorded, and the inputs that are recorded."""
        found: dict[Port, None] = {}
        for projection in self.graph.projections.values():
            if projection.source in part.names and projection.target not in part.names:
                found[projection.source, projection.source_port] = None
        heard = []
        for name, port in self.wanted.wanted.values():
            if name in part.names and port == SUMMED:
                heard.append((name, IN))
            elif name in part.names:
                found[name, port] = None
        return list(found), heard

    def _step_part(
        self,
        apply: Mapping[str, Apply],
        part: Part,
        held: Mapping[str, Any],
        drives: Mapping[Port, Any],
        read: Sequence[Port],
        heard: Sequence[Port],
    ) -> Any:
        """One step of a part, for all samples."""
        values: Values = {}
        got_all: Values = {}
        new = {name: dict(found) for name, found in held.items()}
        for name in part.names:
            neuron = self.step.neurons[name]
            got = {port: self._got(apply, part, (name, port), held, values, drives) for port in neuron.inputs}
            before = {k: v for k, v in held[name].items() if not k.startswith(PAST)}
            update = partial(self.step.updated, neuron, params={})
            after, out = jax.vmap(lambda b, g, update=update: update(b, g))(before, got)
            new[name].update(after)
            values.update({(name, port): x for port, x in {**after, **out}.items()})
            got_all.update({(name, port): x for port, x in got.items()})
        for port, past in self._inner_pasts.items():
            if port[0] in part.names and past.kept:
                newest = held[port[0]][port[1]] if past.of_state else values[port]
                kept = held[port[0]][past.key][:, : past.kept - 1]
                new[port[0]][past.key] = jnp.concatenate([jnp.asarray(newest, self.dtype)[:, None], kept], axis=1)
        return new, ({port: values[port] for port in read}, {port: got_all[port] for port in heard})

    def _got(
        self,
        apply: Mapping[str, Apply],
        part: Part,
        port: Port,
        held: Mapping[str, Any],
        values: Values,
        drives: Mapping[Port, Any],
    ) -> Any:
        """What a port gets in a step: from other parts, and from this one."""
        total = drives.get(port)
        for projection in part.inner.get(port, ()):
            source = projection.source, projection.source_port
            x = self._inner_pasts[source].of_batch(held, projection.delay) if projection.delay else values[source]
            y = apply[projection.name](jnp.asarray(x, self.dtype))
            total = y if total is None else total + y
        if total is None:
            count = next((x.shape[0] for x in drives.values()), self.samples)
            return jnp.zeros((count, *self.step.ports[port]), self.dtype)
        return total


def _length(tail: Any) -> int:
    return tail.shape[0]


def _in_order(groups: Mapping[int, Sequence[str]], component: Mapping[str, int], edges: Sequence[Any]) -> list[int]:
    """Components in an order in which each comes after those that feed it."""
    sorter: TopologicalSorter[int] = TopologicalSorter(dict.fromkeys(groups, ()))
    for source, target in edges:
        if component[source] != component[target]:
            sorter.add(component[target], component[source])
    return list(sorter.static_order())
