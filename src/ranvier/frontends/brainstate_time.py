"""brainstate's time of a step: the number ``i`` and the time ``t = i dt`` of its environment.

A model reads them with ``brainstate.environ.get``, and the caller sets them anew for every step. Traced like any other
setting they would be constants with the values of the first step. So the number of the step is a state of the program,
which counts up by itself, and the time is computed from it.
"""

# An example: with dt = 0.1 ms and t = 2.05 ms in the environment, the first step has the number 20, the nearest to
# 20.5, and the offset is 0.05 ms. Step 21 is at 21 x 0.1 ms + 0.05 ms = 2.15 ms.

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
        dt: time step, with its unit if it has one; None if brainstate has none.
        offset: time at step 0 if that is not zero. Without dt, the time of all steps, or None.
    """

    start: int
    dt: Any
    offset: Any = None

    @classmethod
    def of_environment(cls) -> Clock:
        """Starts at the ``i`` and ``t`` of brainstate's environment, or at zero if it has none.

        Raises:
            ModelError: they are tracers, or not the number and time of a single step.
        """
        settings = brainstate.environ.all()
        dt, number, time = (settings.get(key) for key in ("dt", "i", "t"))
        _check_concrete(number, time)
        if dt is None or time is None:
            return cls(0 if number is None else int(number), dt, time)
        start = round(float(time / dt)) if number is None else int(number)
        offset = time - start * dt
        # i and t that agree differ by rounding; an offset of that size would only make the time less exact.
        is_rounding = abs(float(offset / dt)) <= 1e-6 * max(1, abs(start))
        return cls(start, dt, None if is_rounding else offset)

    @property
    def first(self) -> jax.Array:
        """Number of the first step, in JAX's default integer dtype."""
        return jnp.asarray(self.start, int)

    def time(self, number: Any) -> Any:
        """The time of a step; None if there is no time."""
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
    """Sets ``i`` of brainstate's environment, and ``t`` if there is a time."""
    return brainstate.environ.context(i=number, **({} if time is None else {"t": time}))


def _check_concrete(number: Any, time: Any) -> None:
    """Raises :class:`ModelError` unless each of ``i`` and ``t`` is a single known number, or not set."""
    for name, value in (("i", number), ("t", time)):
        leaves = jax.tree.leaves(value)
        if any(isinstance(leaf, Tracer) or jnp.size(leaf) != 1 for leaf in leaves):
            raise ModelError(
                f"brainstate.environ has {name}={value!r}, which is not the number or time of one known step; set "
                f"that of the first step with brainstate.environ.context({name}=...), outside of functions that JAX "
                "traces, or leave it out."
            )
