"""Bounds of what inputs, neurons and outputs can give, for all times and all inputs in the declared ranges.

A neuron may fire if its potential can reach the threshold while everything that drives it stays within its own bounds.
The analysis starts from no neuron firing and adds those that may, until nothing changes. That is sound: a spike has
causes in earlier steps or earlier in the same step, so the first neuron to fire against the analysis would need
another one to have done so before.

Take two inputs in [0, 1] that lead into neuron 0 with weights 0.4 and 0.5 and into neuron 1 with 30, LIF with r = 1
and threshold 1. The input of neuron 0 lies in [0, 0.9]. A leaky potential moves toward its input from wherever it is,
so it stays between v_reset = 0 and 0.9 < 1: neuron 0 never fires. Neuron 1 may: its output is in [0, 1]. If neuron 1
then drives neuron 0 with weight 0.2, the input of neuron 0 reaches 1.1, and it may fire as well; the first round alone
would have missed that, hence the fixpoint.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from scipy import sparse

from ..arrays import as_rows
from ..elements import Input, Population, Projection
from ..neurons import ALIF, IF, LI, LIF, OUT, CubaLI, CubaLIF, Delay, I, Neuron, Relay, Threshold
from ..order import update_order
from ..snn_graph import SNNGraph
from ..traced import Traced

SLACK = 1e-5
"""Part of a bound's size that is added to it, far above what rounding in single precision can add up to."""
ROUNDS = 100
"""Bounds of a population that have changed so often and still grow are taken as unbounded."""


@dataclass(frozen=True, eq=False)
class Interval:
    """Bounds by element, in float64.

    Attributes:
        low, high: ``[size]``; infinite where nothing is known.
    """

    low: np.ndarray
    high: np.ndarray

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def scaled(self, factor: Any) -> Interval:
        """Times a known number by element."""
        a, b = _times(self.low, factor), _times(self.high, factor)
        return Interval(np.minimum(a, b), np.maximum(a, b))

    def joined(self, *values: Any) -> Interval:
        """With further values in the bounds."""
        low, high = self.low, self.high
        for value in values:
            low, high = np.minimum(low, value), np.maximum(high, value)
        return Interval(low, high)

    def loosened(self) -> Interval:
        """With the slack for rounding."""
        size = np.maximum(np.abs(self.low), np.abs(self.high))
        slack = np.where(np.isfinite(size), SLACK * size, 0.0)
        return Interval(self.low - slack, self.high + slack)

    def within(self, other: Interval) -> bool:
        return bool(np.all(self.low >= other.low) and np.all(self.high <= other.high))


def _times(a: np.ndarray, factor: Any) -> np.ndarray:
    """A product in which zero times infinity is zero."""
    with np.errstate(invalid="ignore"):
        return np.where(np.broadcast_to(factor, a.shape) == 0, 0.0, a * factor)


@dataclass(frozen=True, eq=False)
class Bounds:
    """The result of :func:`bounds`.

    Attributes:
        values: of every input and population what it can give.
        silent: by spiking population the neurons that never fire.
        constant: by spiking population the neurons that fire at every step.
    """

    values: dict[str, Interval]
    silent: dict[str, np.ndarray]
    constant: dict[str, np.ndarray]


def bounds(graph: SNNGraph) -> Bounds:
    """Bounds for a valid graph; an input without a declared range can take any value."""
    machine = _FixedPoint(graph)
    machine.widen()
    machine.narrow()
    spiking = [name for name, p in graph.populations.items() if p.neuron.spikes]
    return Bounds(
        machine.values,
        {name: machine.values[name].high == 0 for name in spiking},
        {name: machine.values[name].low == 1 for name in spiking},
    )


def source_bounds(known: Bounds, graph: SNNGraph, projection: Projection) -> Interval:
    """Bounds of what a projection reads."""
    if projection.source_port == OUT and _is_followed(graph, projection.source):
        values = known.values[projection.source]
        return values if not projection.delay else values.joined(_start(graph, projection))
    return _unbounded(prod(graph.source_shape(projection)))


def _is_followed(graph: SNNGraph, name: str) -> bool:
    """Whether the values of a node have bounds by element."""
    return name not in graph.populations or graph.populations[name].neuron.by_position


def _unbounded(size: int) -> Interval:
    return Interval(np.full(size, -np.inf), np.full(size, np.inf))


def _start(graph: SNNGraph, projection: Projection) -> np.ndarray | float:
    """What a delayed projection reads before the first step."""
    population = graph.populations.get(projection.source)
    return 0.0 if population is None else population.initial_value(projection.source_port).ravel().astype(np.float64)


class _FixedPoint:
    def __init__(self, graph: SNNGraph) -> None:
        self.graph = graph
        self.order = update_order(graph)
        self.values = {name: _declared(node) for name, node in graph.inputs.items()}
        self.values |= {name: _point(np.zeros(p.size)) for name, p in graph.populations.items()}
        self.into: dict[str, list[_Inflow]] = {name: [] for name in graph.populations}
        self.readers: dict[str, set[str]] = {name: set() for name in self.values}
        for projection in graph.projections.values():
            target = graph.populations.get(projection.target)
            if target is not None and not isinstance(target.neuron, Traced):
                self.into[projection.target].append(_Inflow.of(graph, projection))
                self.readers[projection.source].add(projection.target)
        self.last: dict[_Inflow, tuple[Interval, _Brought]] = {}

    def widen(self) -> None:
        """Bounds from below, until no more values are added."""

        def wider(name: str, turn: int) -> Interval | None:
            old = self.values[name]
            new = self._bounds_of(name).joined(old.low, old.high)
            if new.within(old):
                return None
            return new if turn <= ROUNDS else self._without_limit(name, old, new)

        self._settle(wider)

    def narrow(self) -> None:
        """Bounds from what is now known, as long as they get tighter."""

        def tighter(name: str, turn: int) -> Interval | None:
            old, new = self.values[name], self._bounds_of(name)
            new = Interval(np.maximum(old.low, new.low), np.minimum(old.high, new.high))
            return None if old.within(new) or turn > ROUNDS else new

        self._settle(tighter)

    def _settle(self, change: Callable[[str, int], Interval | None]) -> None:
        """Changes the bounds of populations, in the order of a step, until what each reads has stood since."""
        rank = {name: k for k, name in enumerate(self.order)}
        # A population is visited again only after something that it reads has changed, and earlier ones first: a chain
        # settles in one pass, where sweeps over all populations would take as many passes as it is long.
        waiting, listed, turns = list(range(len(rank))), set(self.order), dict.fromkeys(self.order, 0)
        while waiting:
            name = self.order[heapq.heappop(waiting)]
            listed.discard(name)
            turns[name] += 1
            changed = change(name, turns[name])
            if changed is None:
                continue
            self.values[name] = changed
            for reader in self.readers[name] - listed:
                heapq.heappush(waiting, rank[reader])
                listed.add(reader)

    def _without_limit(self, name: str, old: Interval, new: Interval) -> Interval:
        """Bounds that have grown for too long, at the end of where they can go."""
        # An integrator in a loop grows a little in every round and would never settle; its limit is infinity. A spike's
        # is 1.
        if self.graph.populations[name].neuron.spikes:
            return new.joined(0.0, 1.0)
        return Interval(np.where(new.low < old.low, -np.inf, old.low), np.where(new.high > old.high, np.inf, old.high))

    def _bounds_of(self, name: str) -> Interval:
        population = self.graph.populations[name]
        transfer = TRANSFERS.get(type(population.neuron))
        if transfer is None:
            return _of_any(population)
        brought = [self._brought(part) for part in self.into[name]]
        highest = _Sum.of(population.size, [part.highest for part in brought])
        lowest = _Sum.of(population.size, [part.lowest for part in brought])
        summed = Interval(-lowest.most(), highest.most())
        return transfer(_flat(population), summed, self.graph.dt)

    def _brought(self, part: _Inflow) -> _Brought:
        """What a projection brings; not computed again while its source's bounds stand."""
        source, last = part.unknown or self.values[part.source], self.last.get(part)
        if last is None or last[0] is not source:
            self.last[part] = source, part(source)
        return self.last[part][1]


BLOCK = 2**16
"""Weights of a dense matrix that are looked at together, so that they stay in the cache."""


@dataclass(frozen=True, eq=False)
class _Inflow:
    """What a projection brings.

    Attributes:
        source: where from.
        delayed: what comes in before the first step; None where nothing does.
        unknown: bounds of a source that are not followed.
        matrix: A, dense or sparse rows in float64.
        offset: b.
    """

    source: str
    delayed: np.ndarray | float | None
    unknown: Interval | None
    matrix: Any
    offset: np.ndarray | float

    @classmethod
    def of(cls, graph: SNNGraph, projection: Projection) -> _Inflow:
        source, delayed = graph.source_shape(projection), _start(graph, projection) if projection.delay else None
        followed = projection.source_port == OUT and _is_followed(graph, projection.source)
        unknown = None if followed else _unbounded(prod(source))
        matrix, offset = projection.operation.matrix(source), projection.operation.offset(source)
        if sparse.issparse(matrix):
            return cls(projection.source, delayed, unknown, *graph.affine_map(projection))
        bias = 0.0 if offset is None else np.broadcast_to(offset, matrix.shape[:1])
        return cls(projection.source, delayed, unknown, matrix, np.asarray(bias, np.float64))

    def __call__(self, source: Interval) -> _Brought:
        source = source if self.delayed is None else source.joined(self.delayed)
        high, low = source.high, source.low
        above, below = self._signed(np.maximum(high, 0)), self._signed(np.minimum(low, 0))
        # Where bounds have one sign, the other end of the interval brings something too.
        least_above, least_below = self._signed(np.maximum(low, 0)), self._signed(np.minimum(high, 0))
        highest = _Sum(
            above.positive + below.negative + np.maximum(self.offset, 0),
            least_below.positive + least_above.negative + np.minimum(self.offset, 0),
        )
        lowest = _Sum(
            -above.negative - below.positive + np.maximum(-self.offset, 0),
            -least_below.negative - least_above.positive + np.minimum(-self.offset, 0),
        )
        return _Brought(highest, lowest)

    def _signed(self, values: np.ndarray) -> _Signed:
        """Products of the positive and of the negative weights with values."""
        size = self.matrix.shape[0]
        if not values.any():
            return _Signed(np.zeros(size), np.zeros(size))
        if sparse.issparse(self.matrix):
            return _Signed(self._sparse[0] @ values, self._sparse[1] @ values)
        if np.isinf(values).all() and np.all(values == values[0]):
            ends = [np.where(has, sign * values[0], 0.0) for has, sign in zip(self._has_signs, (1, -1), strict=True)]
            return _Signed(*ends)
        rows = max(1, BLOCK // values.size)
        parts = [_dense_signed(self.matrix[k : k + rows], values) for k in range(0, size, rows)]
        return _Signed(np.concatenate([p.positive for p in parts]), np.concatenate([p.negative for p in parts]))

    @cached_property
    def _has_signs(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of a dense matrix that have a positive weight, and those that have a negative one."""
        return self.matrix.max(axis=1, initial=0) > 0, self.matrix.min(axis=1, initial=0) < 0

    @cached_property
    def _sparse(self) -> tuple[Any, Any]:
        """The positive and the negative weights as sparse rows."""
        return as_rows(self.matrix.maximum(0)), as_rows(self.matrix.minimum(0))


@dataclass(frozen=True, eq=False)
class _Signed:
    """Products of positive and of negative weights with one vector."""

    positive: np.ndarray
    negative: np.ndarray


def _dense_signed(weight: np.ndarray, values: np.ndarray) -> _Signed:
    """Products of some rows; infinite values count where the weight is not zero."""
    finite = np.isfinite(values)
    positive, negative = (part(weight, 0, dtype=np.float64) for part in (np.maximum, np.minimum))
    usable = np.where(finite, values, 0.0)
    products = [positive @ usable, negative @ usable]
    for sign in (1.0, -1.0):
        infinite = ~finite & (np.sign(values) == sign)
        if infinite.any():
            for k, part in enumerate((positive, negative)):
                touched = (part[:, infinite] != 0).any(axis=1)
                products[k] = np.where(touched, sign * (1 - 2 * k) * np.inf, products[k])
    return _Signed(*products)


@dataclass(frozen=True, eq=False)
class _Sum:
    """The positive and the negative terms of a sum at its highest."""

    up: np.ndarray
    down: np.ndarray

    @classmethod
    def of(cls, size: int, parts: Sequence[_Sum]) -> _Sum:
        zeros = np.zeros(size)
        return cls(sum((p.up for p in parts), zeros), sum((p.down for p in parts), zeros))

    def most(self) -> np.ndarray:
        """The sum, with slack for rounding; without positive terms, rounding makes no positive sum."""
        with np.errstate(invalid="ignore"):
            total = self.up + self.down + SLACK * (self.up - self.down)
        total = np.where(self.down == -np.inf, -np.inf, total)
        total = np.where(self.up == np.inf, np.inf, total)
        return np.where(self.up == 0, np.minimum(total, 0.0), total)


@dataclass(frozen=True, eq=False)
class _Brought:
    """What a projection brings at the highest, and minus what it brings at the lowest."""

    highest: _Sum
    lowest: _Sum


@dataclass(frozen=True, eq=False)
class _Neurons:
    """Parameters and initial states of a population, ``[size]`` in float64."""

    neuron: Any
    initial: dict[str, np.ndarray]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.neuron, name)


def _flat(population: Population) -> _Neurons:
    def flat(value: np.ndarray) -> np.ndarray:
        return np.broadcast_to(value, population.shape).ravel().astype(np.float64)

    initial = {name: flat(value) for name, value in population.initial_state().items()}
    return _Neurons(population.neuron.map(flat), initial)


def _of_any(population: Population) -> Interval:
    """Spikes are zero or one; nothing is known of other values."""
    size = population.size
    return Interval(np.zeros(size), np.ones(size)) if population.neuron.spikes else _unbounded(size)


def _point(value: np.ndarray) -> Interval:
    return Interval(value, value)


def _declared(node: Input) -> Interval:
    low, high = (-np.inf if node.low is None else node.low), (np.inf if node.high is None else node.high)
    return Interval(np.full(node.size, float(low)), np.full(node.size, float(high)))


def _gain(neurons: _Neurons, tau: np.ndarray, dt: float) -> np.ndarray:
    """The part of the way to its rest that a state goes in a step."""
    return dt / tau if neurons.integration == "euler" else -np.expm1(-dt / tau)


def _settling(start: Interval, rest: Interval, gain: np.ndarray) -> Interval:
    """Where ``x + gain (rest - x)`` can be from ``start`` on, for gains below two."""
    hull = rest.joined(start.low, start.high)
    with np.errstate(invalid="ignore"):
        middle, radius = (rest.low + rest.high) / 2, (rest.high - rest.low) / 2
        reach = np.maximum(
            np.maximum(np.abs(start.low - middle), np.abs(start.high - middle)), gain * radius / (2 - gain)
        )
        low, high = middle - reach, middle + reach
    swings = gain > 1
    low, high = np.where(swings, low, hull.low), np.where(swings, high, hull.high)
    return Interval(np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)).loosened()


def _drifting(start: np.ndarray, step: Interval) -> Interval:
    """Where a sum of steps can be."""
    return Interval(np.where(step.low < 0, -np.inf, start), np.where(step.high > 0, np.inf, start))


def _stepped(start: Interval, rest: Interval, gain: np.ndarray) -> Interval:
    """One step of ``x + gain (rest - x)``."""
    return start.scaled(1 - gain) + rest.scaled(gain)


def _fired(neurons: Any, highest: np.ndarray, lowest: np.ndarray, least: Any, most: Any) -> Interval:
    """Spikes, where potentials from ``lowest`` to ``highest`` meet thresholds from ``least`` to ``most``."""
    may = highest > least if neurons.fires == ">" else highest >= least
    must = lowest > most if neurons.fires == ">" else lowest >= most
    return Interval(must.astype(float), may.astype(float))


def _after_reset(neurons: _Neurons) -> Interval:
    """Potentials from which a step of a neuron that fires at every step can start."""
    after = np.zeros_like(neurons.v_threshold) if neurons.reset == "subtract" else neurons.v_reset
    return _point(neurons.initial["v"]).joined(after)


def _leaky_spikes(neurons: _Neurons, rest: Interval, tau: np.ndarray, dt: float, least: Any, most: Any) -> Interval:
    """Spikes of leaky neurons that are driven toward ``rest``."""
    gain = _gain(neurons, tau, dt)
    highest = _settling(_point(neurons.initial["v"]), rest, gain).high
    steady = (gain <= 1) & (neurons.v_threshold >= 0)
    lowest = np.where(steady, _stepped(_after_reset(neurons), rest, gain).loosened().low, -np.inf)
    return _fired(neurons, highest, lowest, least, most)


def _relay(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    return summed


def _delay(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    return summed.joined(0.0)


def _threshold(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    return _fired(neurons, summed.high, summed.low, neurons.threshold, neurons.threshold)


def _i(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    return _drifting(neurons.initial["v"], summed.scaled(dt * neurons.r))


def _if(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    step = summed.scaled(dt * neurons.r)
    highest = _drifting(neurons.initial["v"], step).high
    steady = neurons.v_threshold >= 0
    lowest = np.where(steady, (_after_reset(neurons) + step).loosened().low, -np.inf)
    return _fired(neurons, highest, lowest, neurons.v_threshold, neurons.v_threshold)


def _li(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    rest = summed.scaled(neurons.r) + _point(neurons.v_leak)
    return _settling(_point(neurons.initial["v"]), rest, _gain(neurons, neurons.tau, dt))


def _lif(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    rest = summed.scaled(neurons.r) + _point(neurons.v_leak)
    return _leaky_spikes(neurons, rest, neurons.tau, dt, neurons.v_threshold, neurons.v_threshold)


def _alif(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    rest = summed.scaled(neurons.r) + _point(neurons.v_leak)
    gain = _gain(neurons, neurons.tau_a, dt)
    without = _settling(_point(neurons.initial["a"]), _point(np.zeros_like(gain)), gain)
    always = np.where(gain <= 1, np.maximum(neurons.initial["a"], 1 / gain) + 1, np.inf)
    least = neurons.v_threshold + without.scaled(neurons.beta).low
    most = neurons.v_threshold + Interval(without.low, always).scaled(neurons.beta).high
    return _leaky_spikes(neurons, rest, neurons.tau, dt, least, most)


def _cuba_rest(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    """Where the synaptic current drives the potential."""
    start = _point(neurons.initial["i"])
    current = _settling(start, summed.scaled(neurons.w_in), _gain(neurons, neurons.tau_syn, dt))
    return current.scaled(neurons.r) + _point(neurons.v_leak)


def _cuba_li(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    rest = _cuba_rest(neurons, summed, dt)
    return _settling(_point(neurons.initial["v"]), rest, _gain(neurons, neurons.tau_mem, dt))


def _cuba_lif(neurons: _Neurons, summed: Interval, dt: float) -> Interval:
    rest = _cuba_rest(neurons, summed, dt)
    return _leaky_spikes(neurons, rest, neurons.tau_mem, dt, neurons.v_threshold, neurons.v_threshold)


TRANSFERS: dict[type[Neuron], Callable[[Any, Interval, float], Interval]] = {
    Relay: _relay,
    Delay: _delay,
    Threshold: _threshold,
    I: _i,
    IF: _if,
    LI: _li,
    LIF: _lif,
    ALIF: _alif,
    CubaLI: _cuba_li,
    CubaLIF: _cuba_lif,
}
"""By kind, its output's bounds from those of its summed input; a kind without an entry can give anything."""
