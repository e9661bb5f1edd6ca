"""brainstate's time of a step: the number ``i`` and the time ``t = i dt`` of its environment.

A model reads them with ``brainstate.environ.get``, and whoever runs it sets them anew for every step. Traced like any
other setting they would stay what they were at the first step. So the number of the step is a state of the program,
which counts up by itself, and the time is computed from it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ..errors import ModelError
from ..program._jax import Tracer
from ..program.paths import Path
from ..program.program import Slot, SlotRole, slot_of

NUMBER: Path = ("brainstate", "i")
"""The state that holds the number of the step."""


@dataclass(frozen=True)
class Clock:
    """The time of steps.

    Attributes:
        start: number of the first step.
        dt: time step, with its unit if it has one; None where brainstate has none, and then there is no time.
        offset: time at step 0 where that is not zero; without dt the only time there is.
    """

    start: int
    dt: Any
    offset: Any = None

    @classmethod
    def of_environment(cls) -> Clock:
        """Starts at the ``i`` and the ``t`` that brainstate's environment has, at zero where it has none.

        Raises:
            ModelError: they are not known yet, inside a function that JAX traces, or are no numbers of one step.
        """
        settings = brainstate.environ.all()
        dt, number, time = (settings.get(key) for key in ("dt", "i", "t"))
        _check_concrete(number, time)
        if dt is None or time is None:
            return cls(0 if number is None else int(number), dt, time)
        start = round(float(time / dt)) if number is None else int(number)
        offset = time - start * dt
        is_rounding = abs(float(offset / dt)) <= 1e-6 * max(1, abs(start))
        return cls(start, dt, None if is_rounding else offset)

    @property
    def first(self) -> jax.Array:
        """Number of the first step, in JAX's own integer dtype."""
        return jnp.asarray(self.start, int)

    def time(self, number: Any) -> Any:
        """The time of a step; None where there is none."""
        if self.dt is None:
            return self.offset
        time = number * self.dt
        return time if self.offset is None else time + self.offset

    def slot(self) -> Slot:
        """The state that counts the steps."""
        first = self.first
        return slot_of(
            NUMBER, SlotRole.OTHER, jax.tree.structure(0), (jax.typeof(first),), (first,), label="step number"
        )


def at_time(number: Any, time: Any) -> AbstractContextManager[Any]:
    """Sets ``i`` and, where there is one, ``t`` of brainstate's environment."""
    return brainstate.environ.context(i=number, **({} if time is None else {"t": time}))


def _check_concrete(number: Any, time: Any) -> None:
    """Raises :class:`ModelError` unless ``i`` and ``t`` are each one known number, or not set."""
    for name, value in (("i", number), ("t", time)):
        leaves = jax.tree.leaves(value)
        if any(isinstance(leaf, Tracer) or jnp.size(leaf) != 1 for leaf in leaves):
            raise ModelError(
                f"brainstate.environ has {name}={value!r}, which is not the number or time of one known step; set "
                f"that of the first step with brainstate.environ.context({name}=...), outside of functions that JAX "
                "traces, or leave it out."
            )
