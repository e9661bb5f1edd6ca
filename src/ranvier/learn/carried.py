"""What a rule carries from step to step: the part of the past that its plan does not list as left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .linearization.dynamics import TraceDynamics
from .uses.alignment import Alignment
from .uses.traced_uses import TracedUse


class EligibilityTrace(Protocol):
    """One use of a parameter, followed through the states of one group."""

    @property
    def use(self) -> TracedUse: ...

    @property
    def lanes(self) -> Alignment: ...

    @property
    def dynamics(self) -> TraceDynamics: ...


@dataclass(frozen=True, eq=False)
class Traces:
    """Eligibility traces, which follow states position by position.

    Attributes:
        traces: one for every use of a parameter and group that it is followed into.
        readouts: ``id`` of the mixing equations past which a filtered output follows the states of a readout in time.
    """

    traces: Sequence[EligibilityTrace] = ()
    readouts: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Influence:
    """Sensitivities of elements of the state, through the step's whole Jacobian.

    Attributes:
        rows: int64 ``[weights, rows]``: the elements of the flat state that are followed for every element of the flat
            weights, -1 where there are fewer (see :class:`ranvier.learn.sensitivity.stepwise.StepFunctions`).
        within: bool ``[size, size]``: entries of the Jacobian that are used; None for all.
    """

    rows: np.ndarray
    within: np.ndarray | None = None


@dataclass(frozen=True)
class Everything:
    """Every effect of parameters on later steps, through the whole Jacobian of the step."""


Carried = Traces | Influence | Everything
