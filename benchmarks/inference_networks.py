"""Networks for the benchmark of inference, as weights, and as they are written in every library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import ranvier
from ranvier.graph.neurons import LI, LIF, Relay
from ranvier.graph.operations import Conv, Flatten, Identity, Linear, SumPool

DT, TAU = 1e-3, 20e-3
GAIN = DT / TAU
"""A step goes this part of the way to the rest."""


@dataclass(frozen=True)
class Case:
    """A network and its input.

    Attributes:
        name: for the table.
        kind: ``"forward"``, ``"recurrent"``, ``"conv"`` or ``"sparse"``.
        make: gives the weights by name.
        shape: of one step of input.
        rate: part of the inputs that are one in a step.
        steps: of a sequence.
        level: what an input that is one adds.
    """

    name: str
    kind: str
    make: Callable[[], dict[str, np.ndarray]]
    shape: tuple[int, ...]
    rate: float
    steps: int = 100
    level: float = 1.0

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """By name."""
        return self.make()

    def inputs(self, samples: int) -> np.ndarray:
        generator = np.random.default_rng(1)
        drawn = generator.random((self.steps, samples, *self.shape), np.float32) < self.rate
        return drawn.astype(np.float32) * np.float32(self.level)


def _normal(*shape: int, scale: float) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(shape, np.float32) * scale).astype(np.float32)


def _forward() -> dict[str, np.ndarray]:
    return {"w1": _normal(1024, 784, scale=0.8), "w2": _normal(10, 1024, scale=0.1)}


def _recurrent() -> dict[str, np.ndarray]:
    return {
        "w1": _normal(512, 700, scale=1.2),
        "u": _normal(512, 512, scale=0.2),
        "w2": _normal(20, 512, scale=0.1),
    }


def _conv() -> dict[str, np.ndarray]:
    return {
        "k1": _normal(12, 2, 5, 5, scale=3.0),
        "k2": _normal(32, 12, 5, 5, scale=0.6),
        "w": _normal(10, 800, scale=0.1),
    }


def _large() -> dict[str, np.ndarray]:
    return {"u": _normal(8192, 8192, scale=0.005)}


def cases() -> list[Case]:
    """All networks."""
    found = [
        Case("784-1024-10", "forward", _forward, (784,), 0.1),
        Case("700-512-20 recurrent", "recurrent", _recurrent, (700,), 0.05),
        Case("convolutions on 34x34x2", "conv", _conv, (2, 34, 34), 0.05),
    ]
    for rate in (0.01, 0.05, 0.2):
        name = f"8,192 recurrent, {rate:.0%} active"
        found.append(Case(name, "sparse", _large, (8192,), rate, steps=20, level=1.5 / GAIN))
    return found


def graph_of(case: Case) -> ranvier.SNNGraph:
    """A case as a graph."""
    w, lif, li = case.weights, LIF(tau=TAU), LI(tau=TAU)

    def population(name: str, *shape: int, neuron: Any = lif) -> ranvier.Population:
        return ranvier.Population(name, shape, neuron)

    def link(name: str, source: str, target: str, operation: Any, delay: int = 0) -> ranvier.Projection:
        return ranvier.Projection(name, source, target, operation, delay)

    populations, projections, out = {
        "forward": lambda: (
            [population("h", 1024), population("o", 10, neuron=li)],
            [
                link("w1", "x", "h", Linear(w["w1"])),
                link("w2", "h", "o", Linear(w["w2"])),
                link("y", "o", "y", Identity()),
            ],
            (10,),
        ),
        "recurrent": lambda: (
            [population("h", 512), population("o", 20, neuron=li)],
            [
                link("w1", "x", "h", Linear(w["w1"])),
                link("u", "h", "h", Linear(w["u"]), 1),
                link("w2", "h", "o", Linear(w["w2"])),
                link("y", "o", "y", Identity()),
            ],
            (20,),
        ),
        "conv": lambda: (
            [
                population("a", 12, 30, 30),
                population("pa", 12, 15, 15, neuron=Relay()),
                population("b", 32, 11, 11),
                population("pb", 32, 5, 5, neuron=Relay()),
                population("f", 800, neuron=Relay()),
                population("o", 10, neuron=li),
            ],
            [
                link("k1", "x", "a", Conv(w["k1"])),
                link("p1", "a", "pa", SumPool()),
                link("k2", "pa", "b", Conv(w["k2"])),
                link("p2", "b", "pb", SumPool()),
                link("flat", "pb", "f", Flatten()),
                link("w", "f", "o", Linear(w["w"])),
                link("y", "o", "y", Identity()),
            ],
            (10,),
        ),
        "sparse": lambda: (
            [population("h", 8192)],
            [
                link("x", "x", "h", Identity()),
                link("u", "h", "h", Linear(w["u"]), 1),
                link("y", "h", "y", Identity()),
            ],
            (8192,),
        ),
    }[case.kind]()
    return ranvier.SNNGraph(
        name=case.name,
        dt=DT,
        inputs=[ranvier.Input("x", case.shape)],
        populations=populations,
        projections=projections,
        outputs=[ranvier.Output("y", out)],
    )
