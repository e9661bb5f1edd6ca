"""Graphs over a whole sequence: what feeds nobody back runs layer by layer over time, only loops run step by step.

Populations that reach one another are a part; parts run one after the other. Within a stretch of time, what a part gets
from others is known for all steps, so those projections are one product over all steps and samples. What is left for
the loop over time are the neurons, and in a part with a loop the projections among its own populations.

For 100 steps of ``x -> hidden -> readout`` with a batch of 32, the first projection is one product of 3,200 rows
instead of 100 products of 32; then hidden's neurons run 100 steps; then one product of 3,200 rows leads into readout. A
recurrent projection of hidden stays in the loop, since its input of step t is made in step t - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..graph.elements import Projection
from ..graph.neurons import IN, OUT
from ..graph.order import Port, delayed_ports
from ..graph.recording import SUMMED, Recording
from ..graph.snn_graph import SNNGraph
from .lower import GraphStep, Past, numbers_in
from .parts import Ensemble, Part, parts_of
from .products import Arrays, Layout, layout_of

Apply = Callable[[Any], Any]
"""From the values of the source, ``[samples, *shape]``, to what a projection brings."""
Values = dict[Port, Any]
"""By name and port, ``[steps, samples, *shape]``."""
BYTES = 2**21
"""Values of all ports of a stretch of time that are kept at once, about: as many as fit a core's cache."""
SHORTEST = 1
"""Steps of a stretch at least."""


class PartState(NamedTuple):
    """What a part keeps from step to step.

    Attributes:
        states: by ensemble and name.
        pasts: by port, its earlier values, newest first.
    """

    states: dict[str, dict[str, Any]]
    pasts: dict[Port, Any]


class LoopState(NamedTuple):
    """What a stretch of time hands on to the next.

    Attributes:
        states, pasts: of all parts, as in :class:`PartState`.
        tails: by port, the last values that delayed projections into other parts have still to bring, oldest first.
    """

    states: dict[str, dict[str, Any]]
    pasts: dict[Port, Any]
    tails: dict[Port, Any]


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
        """In an order in which each comes after what feeds it."""
        timed = [name for name in self.step.order if self._own_states(name)]
        return parts_of(self.graph, self.step.order, self.step.neurons, timed, self.samples)

    @cached_property
    def _in_loops(self) -> set[str]:
        """Names of projections within parts."""
        return {p.name for part in self.parts for into in part.inner.values() for p in into}

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
        carry = self._start()
        stretch = self._stretch(length)
        # Equal stretches run in one compiled loop; what is left over at the end is shorter, and runs by itself.
        whole = length // stretch * stretch
        first = {k: x[:whole].reshape(whole // stretch, stretch, *x.shape[1:]) for k, x in inputs.items()}
        carry, results = jax.lax.scan(lambda c, x: self._run_stretch(apply, c, x), carry, first)
        results = jax.tree.map(lambda x: x.reshape(whole, *x.shape[2:]), results)
        if whole < length:
            _, rest = self._run_stretch(apply, carry, {k: x[whole:] for k, x in inputs.items()})
            results = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), results, rest)
        return results

    def _stretch(self, length: int) -> int:
        """Steps that are run part by part: as many as there is room for their values, of equal length if possible."""
        # Longer stretches mean larger products, but values of all ports must stay in cache from one part to the next. A
        # divisor of the length avoids compiling the rest, so one is preferred if it is at least half as long.
        nodes = self.graph.nodes.values()
        size = self.samples * sum(node.size for node in nodes) * jnp.dtype(self.dtype).itemsize
        most = int(min(length, max(SHORTEST, BYTES // max(size, 1))))
        return max((n for n in range(max(1, most // 2), most + 1) if length % n == 0), default=most)

    def _layout(self, name: str) -> Layout:
        projection = self.graph.projections[name]
        arrays = numbers_in(projection.operation, self.dtype)
        source = self.graph.populations.get(projection.source)
        measured = None if source is None or projection.source_port != OUT else source.activity
        rate = None if measured is None or source is None or not source.neuron.spikes else float(measured.rates.mean())
        image = self.graph.source_shape(projection)
        return layout_of(projection, arrays, image, self.samples, rate, in_loop=name in self._in_loops)

    # What was before a stretch

    def _start(self) -> LoopState:
        states = {}
        for ensemble in (ensemble for part in self.parts for ensemble in part.ensembles):
            own = [self._first_states(name) for name in ensemble.names]
            states[ensemble.name] = {key: ensemble.join([values[key] for values in own]) for key in own[0]}
        pasts = {port: self._before(port, past.depth) for port, past in self._inner_pasts.items() if past.depth}
        return LoopState(states, pasts, {port: self._before(port, depth) for port, depth in self._outer_delays.items()})

    def _first_states(self, name: str) -> dict[str, Any]:
        """Of the neurons, ``[samples, *shape]``."""
        return {k: jnp.broadcast_to(x, (self.samples, *x.shape)) for k, x in self._own_states(name).items()}

    def _own_states(self, name: str) -> dict[str, Any]:
        return self.step.states_of(name, self.step.state.get(name, {}))

    def _before(self, port: Port, steps: int) -> Any:
        """What a port gave before the first step, ``[steps, samples, *shape]``."""
        initial = jnp.asarray(Past.of(self.graph, port, steps).initial, self.dtype)
        return jnp.broadcast_to(initial, (steps, self.samples, *initial.shape))

    @cached_property
    def _outer_delays(self) -> dict[Port, int]:
        """The longest delay of projections into other parts and outputs, by the port they read."""
        outer = [p for part in self.parts for into in part.outer.values() for p in into]
        outer += [p for name in self.graph.outputs for p in self.step.into[name, IN]]
        return delayed_ports(outer)

    @cached_property
    def _inner_pasts(self) -> dict[Port, Past]:
        """What delayed projections within a part read."""
        inner = [p for part in self.parts for into in part.inner.values() for p in into]
        return {port: Past.of(self.graph, port, depth) for port, depth in delayed_ports(inner).items()}

    # A stretch of time

    def _run_stretch(self, apply: Mapping[str, Apply], carry: LoopState, inputs: Mapping[str, Any]) -> Any:
        values: Values = {(name, OUT): jnp.asarray(x, self.dtype) for name, x in inputs.items()}
        summed: Values = {}
        states, pasts, tails = dict(carry.states), dict(carry.pasts), carry.tails
        steps = len(next(iter(inputs.values())))
        # In the order of parts, all that feeds a part from outside is known for the whole stretch when its turn comes.
        for part in self.parts:
            drives = {port: self._brought(apply, into, values, tails) for port, into in part.outer.items()}
            part_state = PartState(
                {e.name: states[e.name] for e in part.ensembles}, {p: x for p, x in pasts.items() if p[0] in part.names}
            )
            part_state, part_results = self._run_part(apply, part, part_state, drives, steps)
            states.update(part_state.states)
            pasts.update(part_state.pasts)
            values.update(part_results[0])
            summed.update(part_results[1])
        outputs = {}
        for name in self.graph.outputs:
            into = self.step.into[name, IN]
            shape = self.step.ports[name, IN]
            zeros = jnp.zeros((steps, self.samples, *shape), self.dtype)
            outputs[name] = self._brought(apply, into, values, tails) if into else zeros
        later = {port: self._with_tail(tail, port, values)[-len(tail) :] for port, tail in tails.items()}
        return LoopState(states, pasts, later), (outputs, self.wanted.pick(values, summed))

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
                start = len(tails[port]) - projection.delay
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
        self, apply: Mapping[str, Apply], part: Part, state: PartState, drives: Mapping[Port, Any], steps: int
    ) -> tuple[PartState, tuple[Values, Values]]:
        """Runs a part over a stretch: what it is then, what is read of it and what it got, as far as asked for."""

        def one(state: PartState, driven: Any) -> Any:
            after, values, summed = self._step_part(apply, part, state, driven)
            return after, (_picked(values, self._read), _picked(summed, self._heard))

        # Neurons without states (relays, thresholds) and without a loop need no loop over time: steps are samples to
        # them.
        if drives and not part.inner and not any(state.states.values()):
            flat = {port: x.reshape(-1, *x.shape[2:]) for port, x in drives.items()}
            _, results = one(state, flat)
            return state, jax.tree.map(lambda x: x.reshape(steps, self.samples, *x.shape[1:]), results)
        return jax.lax.scan(one, state, dict(drives), length=steps)

    @cached_property
    def _read(self) -> set[Port]:
        """The ports and states of populations that other parts read or that are recorded."""
        read = {(p.source, p.source_port) for p in self.graph.projections.values() if p.name not in self._in_loops}
        return read | {port for port in self.wanted.wanted.values() if port[1] != SUMMED}

    @cached_property
    def _heard(self) -> set[Port]:
        """The inputs of populations that are recorded."""
        return {(name, IN) for name, port in self.wanted.wanted.values() if port == SUMMED}

    def _step_part(
        self, apply: Mapping[str, Apply], part: Part, state: PartState, drives: Mapping[Port, Any]
    ) -> tuple[PartState, Values, Values]:
        """One step of a part, for all samples: what it is then, the values of its ports, and what they got."""
        before = _by_port(part.ensembles, state.states)
        values: Values = {}
        summed: Values = {}

        def brought(projection: Projection) -> Any:
            port, delay = (projection.source, projection.source_port), projection.delay
            x = self._inner_pasts[port].read(before.get(port), state.pasts.get(port), delay) if delay else values[port]
            return apply[projection.name](jnp.asarray(x, self.dtype))

        states = {}
        for ensemble in part.ensembles:
            neuron = ensemble.neuron
            for port in [(name, port) for name in ensemble.names for port in neuron.inputs]:
                own = [drives[port]] if port in drives else []
                summed[port] = self._total(port, [*own, *map(brought, part.inner.get(port, ()))], drives)
            got = {port: ensemble.join([summed[name, port] for name in ensemble.names]) for port in neuron.inputs}
            update = partial(self.step.updated, neuron, params={})
            after, out = jax.vmap(update)(state.states[ensemble.name], got)
            states[ensemble.name] = after
            values.update(_by_port([ensemble], {ensemble.name: {**after, **out}}))
        newest = {p: (before if self._inner_pasts[p].of_state else values)[p] for p in state.pasts}
        pasts = {p: self._inner_pasts[p].pushed(x, jnp.asarray(newest[p], self.dtype)) for p, x in state.pasts.items()}
        return PartState(states, pasts), values, summed

    def _total(self, port: Port, parts: Sequence[Any], drives: Mapping[Port, Any]) -> Any:
        """What a port gets in a step: zeros where nothing leads to it."""
        if parts:
            return sum(parts[1:], parts[0])
        count = next((x.shape[0] for x in drives.values()), self.samples)
        return jnp.zeros((count, *self.step.ports[port]), self.dtype)


def _by_port(ensembles: Iterable[Ensemble], values: Mapping[str, Mapping[str, Any]]) -> Values:
    """By population and port, from values by ensemble and port."""
    by_port: Values = {}
    for ensemble in ensembles:
        for port, value in values[ensemble.name].items():
            by_port.update({(name, port): own for name, own in ensemble.part(value).items()})
    return by_port


def _picked(values: Values, ports: Collection[Port]) -> Values:
    return {port: value for port, value in values.items() if port in ports}
