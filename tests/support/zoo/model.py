"""What a zoo model is, and what is expected of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ranvier

N_IN, N_REC = 3, 4

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """A hidden group: paths of its states, shape of the population, components per position."""

    paths: frozenset[str]
    shape: Shape
    num_state: int


@dataclass(frozen=True)
class Relation:
    """A relation of one parameter.

    Attributes:
        path: the parameter.
        kind: ``"affine"``, ``"weight-to-weight"``, ...
        x: shape of the data operand, None for an elementwise parameter, a tuple of shapes for several.
        y: shape of the result.
        connected: hidden states reached without mixing in between.
        probe: name under which the step marks y.
    """

    path: str
    kind: str
    x: Any
    y: Shape
    connected: frozenset[str]
    probe: str


@dataclass(frozen=True)
class Expected:
    """Groups, relations, why parameters have no direct relation, and remarks about states."""

    groups: tuple[Group, ...]
    relations: tuple[Relation, ...]
    unrelated: Mapping[str, ranvier.types.DiagnosticKind] = field(default_factory=dict)
    remarks: Mapping[str, ranvier.types.DiagnosticKind] = field(default_factory=dict)
    other: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ZooModel:
    """A small model with its hand-derived analysis.

    Attributes:
        name: its name.
        build: ``build(dtype)`` gives the model and a tuple of example inputs; the same arrays every time.
        expected: what the analyses have to find.
        spiking: whether the output is a spike train.
        differentiable: whether reverse-mode differentiation passes through the step.
    """

    name: str
    build: Callable[..., tuple[Any, tuple[Any, ...]]]
    expected: Expected
    spiking: bool = False
    differentiable: bool = True

    @property
    def is_step_function(self) -> bool:
        """Whether it is a plain JAX step function, with marks; otherwise it is a brainstate module."""
        return self.build.__module__.rpartition(".")[2] in ("recurrent", "operators", "structure")


MODELS: dict[str, ZooModel] = {}


def zoo_model(
    *groups: Group,
    relations: tuple[Relation, ...] = (),
    unrelated: Mapping[str, ranvier.types.DiagnosticKind] | None = None,
    remarks: Mapping[str, ranvier.types.DiagnosticKind] | None = None,
    other: str = "",
    spiking: bool = False,
    differentiable: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Puts a build function into ``MODELS`` with what is expected of its model."""
    expected = Expected(groups, relations, unrelated or {}, remarks or {}, frozenset(other.split()))

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        name = build.__name__.strip("_")
        assert name not in MODELS
        MODELS[name] = ZooModel(name, build, expected, spiking, differentiable)
        return build

    return register


def group(paths: str, shape: Shape = (N_REC,), num_state: int | None = None) -> Group:
    """A group of the states in a space-separated list."""
    found = frozenset(paths.split())
    return Group(found, shape, num_state or len(found))


def relation(path: str, kind: str, x: Any, y: Shape, connected: str = "", *, probe: str | None = None) -> Relation:
    return Relation(path, kind, x, y, frozenset(connected.split()), probe or path)


def elementwise(path: str, connected: str, y: Shape = (N_REC,), *, probe: str | None = None) -> Relation:
    return relation(path, "elementwise", None, y, connected, probe=probe)


def indirect(path: str, x: Any, y: Shape = (N_REC,), *, probe: str | None = None) -> Relation:
    return relation(path, "weight-to-weight", x, y, probe=probe)


_probes: dict[str, Any] | None = None
_results: dict[str, Any] = {}


@contextmanager
def probing(probes: Mapping[str, Any], results: dict[str, Any] | None = None) -> Iterator[None]:
    """Inside, :func:`mixed` stops derivatives, and both marks add the probe of their name to the value.

    The marked values, with their derivatives, are put into ``results`` by name.
    """
    global _probes, _results
    before = _probes, _results
    _probes, _results = dict(probes), {} if results is None else results
    try:
        yield
    finally:
        _probes, _results = before


def is_probing() -> bool:
    return _probes is not None


def mixed(name: str, value: jax.Array) -> jax.Array:
    """Marks the result of a mixing operation; the value itself outside :func:`probing`."""
    return value if _probes is None else _marked(name, value, jax.lax.stop_gradient(value))


def probed(name: str, value: jax.Array) -> jax.Array:
    """Marks y of a relation; the value itself outside :func:`probing`."""
    return value if _probes is None else _marked(name, value, value)


def _marked(name: str, value: jax.Array, going_on: jax.Array) -> jax.Array:
    assert _probes is not None
    _results[name] = value
    return going_on + _probes[name] if name in _probes else going_on


def normal(seed: int, *shape: int, dtype: Any, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(0.0, scale, shape), dtype)


def uniform(seed: int, *shape: int, dtype: Any, low: float = 0.0, high: float = 1.0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape), dtype)


@jax.custom_jvp
def spike(v: jax.Array) -> jax.Array:
    """Heaviside step with the derivative of a fast sigmoid."""
    return (v >= 0).astype(v.dtype)


@spike.defjvp
def _spike_derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (v,), (tangent,) = primals, tangents
    return spike(v), tangent / (1 + 2 * jnp.abs(v)) ** 2


def lif(v: jax.Array, current: jax.Array, decay: Any = 0.8, threshold: Any = 1.0) -> tuple[jax.Array, jax.Array]:
    """Leaky integration, spike, reset by subtraction: the new potential and the spikes."""
    v = decay * v + current
    z = spike(v - threshold)
    return v - threshold * z, z


def zeros(dtype: Any, **shapes: Shape) -> dict[str, jax.Array]:
    return {name: jnp.zeros(shape, dtype) for name, shape in shapes.items()}
