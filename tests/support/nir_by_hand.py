"""A NIR graph simulated node by node, from the equations of NIR and nothing of Ranvier.

What a node gives at a step is asked of the nodes before it, back to the inputs. A ``Delay`` looks back in time element
by element and finds zero before the first step. An edge of ``closing`` brings what its source gave some steps before,
when neurons were silent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import nir

Edge = tuple[str, str]


def by_hand(
    graph: nir.NIRGraph,
    inputs: Mapping[str, np.ndarray],
    dt: float,
    *,
    output: str = "output",
    closing: Iterable[Edge] = (),
    closing_delay: int = 1,
    reset: str = "zero",
) -> np.ndarray:
    """Values of an output node ``[T, *shape]``; inputs ``[T, *shape]`` by name."""
    hand = _Hand(graph, inputs, dt, dict.fromkeys(closing, closing_delay), reset)
    length = len(next(iter(inputs.values())))
    return np.stack([hand.value(output, t) for t in range(length)])


class _Hand:
    def __init__(
        self,
        graph: nir.NIRGraph,
        inputs: Mapping[str, np.ndarray],
        dt: float,
        closing: dict[Edge, int],
        reset: str,
    ) -> None:
        self.nodes: dict[str, Any] = graph.nodes
        self.before = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
        self.inputs, self.dt, self.closing, self.reset = inputs, dt, closing, reset
        self.values: dict[tuple[str, int], np.ndarray] = {}
        self.states: dict[tuple[str, int], dict[str, Any]] = {}

    def value(self, name: str, t: int) -> np.ndarray:
        if (name, t) not in self.values:
            self.values[name, t] = np.asarray(self._value(name, t), float)
        return self.values[name, t]

    def _value(self, name: str, t: int) -> Any:
        node = self.nodes[name]
        if isinstance(node, nir.Input):
            given = self.inputs[name]
            return given[t] if t >= 0 else np.zeros_like(given[0])
        if isinstance(node, nir.Delay):
            return self._delayed(name, node, t)
        if type(node) in NEURONS:
            return self._fired(name, node, t)
        return OPERATIONS[type(node)](node, self._summed(name, t))

    def _summed(self, name: str, t: int) -> np.ndarray:
        return sum((self._brought(a, name, t) for a in self.before[name]), np.zeros(()))

    def _brought(self, a: str, name: str, t: int) -> np.ndarray:
        return self.value(a, t - self.closing.get((a, name), 0))

    def _delayed(self, name: str, node: nir.Delay, t: int) -> np.ndarray:
        steps = np.round(node.delay / self.dt).astype(int)
        if steps.size == 1:
            return self._summed(name, t - steps.item()) if t >= steps.item() else np.zeros(())
        result = np.zeros(steps.shape)
        for index in np.ndindex(steps.shape):
            if t >= steps[index]:
                result[index] = self._summed(name, t - int(steps[index]))[index]
        return result

    def _fired(self, name: str, node: Any, t: int) -> np.ndarray:
        if t < 0:
            return np.zeros(node.input_type["input"])
        state = self.states.get((name, t - 1), {"v": 0.0, "i": 0.0})
        state, value = NEURONS[type(node)](node, state, self._summed(name, t), self.dt, self.reset)
        self.states[name, t] = state
        return value


def _spike(node: Any, v: Any, reset: str) -> tuple[Any, Any]:
    z = np.asarray(v > node.v_threshold, float)
    return z, np.where(z > 0, node.v_reset, v) if reset == "zero" else v - z * node.v_threshold


def _lif(node: Any, state: Any, summed: Any, dt: float, reset: str) -> Any:
    z, v = _spike(node, state["v"] + dt / node.tau * (node.v_leak - state["v"] + node.r * summed), reset)
    return {"v": v}, z


def _if(node: Any, state: Any, summed: Any, dt: float, reset: str) -> Any:
    z, v = _spike(node, state["v"] + dt * node.r * summed, reset)
    return {"v": v}, z


def _li(node: Any, state: Any, summed: Any, dt: float, reset: str) -> Any:
    v = state["v"] + dt / node.tau * (node.v_leak - state["v"] + node.r * summed)
    return {"v": v}, v


def _cuba_lif(node: Any, state: Any, summed: Any, dt: float, reset: str) -> Any:
    i, v = state["i"], state["v"]
    z, v = _spike(node, v + dt / node.tau_mem * (node.v_leak - v + node.r * i), reset)
    return {"i": i + dt / node.tau_syn * (node.w_in * summed - i), "v": v}, z


def _threshold(node: Any, state: Any, summed: Any, dt: float, reset: str) -> Any:
    return {}, np.asarray(summed > node.threshold, float)


def _conv(node: Any, x: np.ndarray) -> np.ndarray:
    """Stride 1, no groups, padding by numbers."""
    (up, left), (height, width) = node.padding, node.weight.shape[2:]
    padded = np.pad(x, ((0, 0), (up, up), (left, left)))
    rows, columns = padded.shape[1] - height + 1, padded.shape[2] - width + 1
    result = np.empty((len(node.weight), rows, columns))
    for i, j in np.ndindex(rows, columns):
        result[:, i, j] = np.sum(node.weight * padded[:, i : i + height, j : j + width], axis=(1, 2, 3)) + node.bias
    return result


def _pool(node: Any, x: np.ndarray) -> np.ndarray:
    """Windows side by side, no padding."""
    height, width = node.kernel_size
    windows = x.reshape(len(x), x.shape[1] // height, height, x.shape[2] // width, width)
    return windows.sum((2, 4)) if isinstance(node, nir.SumPool2d) else windows.mean((2, 4))


NEURONS: dict[type, Any] = {
    nir.LIF: _lif,
    nir.IF: _if,
    nir.LI: _li,
    nir.CubaLIF: _cuba_lif,
    nir.Threshold: _threshold,
}
OPERATIONS: dict[type, Any] = {
    nir.Output: lambda node, x: x,
    nir.Linear: lambda node, x: node.weight @ x,
    nir.Affine: lambda node, x: node.weight @ x + node.bias,
    nir.Scale: lambda node, x: node.scale * x,
    nir.Flatten: lambda node, x: x.reshape(-1),
    nir.Conv2d: _conv,
    nir.SumPool2d: _pool,
    nir.AvgPool2d: _pool,
}
