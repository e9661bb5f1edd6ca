"""The threshold of a traced population, and the effect of a spike."""

# An example: v' = 0.75 v + x. The onset is x = 1, so the threshold is 1. Beyond the onset, at x = 1.25 and 1.5, the
# potential without a reset would be 1.25 and 1.5.
#
#   v' is 0.25 and 0.5     both less by 1: the reset subtracts 1
#   v' is 0 and 0          equal: the reset sets v to 0
#   v' is 1.25 and 1.5     no reset in this step. Steps that start with v above the threshold show it: v = 1.25 and 1.5,
#                          a quarter and half of the threshold above it, are reset before they leak

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .case import Case
from .probe import Unlike, is_close, simple

RESETS = "after a spike, set the potential to v_reset or subtract v_threshold from it"


@dataclass(frozen=True, eq=False)
class Spike:
    """When a population fires, and the effect of a spike. Arrays are ``[size]``.

    Attributes:
        case: the population.
        v: name of the potential.
        main: name of the variable that was moved to make it fire.
        threshold: potential before the reset above which it fires.
        resets_later: whether the reset happens at the beginning of the next step.
        subtract: amount that the reset subtracts; None if it sets the potential.
        reset: value to which the reset sets the potential.
        adaptation: the state that raises the threshold; None if there is none.
    """

    case: Case
    v: str
    main: str
    threshold: np.ndarray
    resets_later: bool
    subtract: np.ndarray | None
    reset: np.ndarray
    adaptation: Adaptation | None = None

    @classmethod
    def of(cls, case: Case, v: str, *, main: str, at: dict[str, np.ndarray] | None = None) -> Spike:
        """Measures it by moving one variable up to the onset and beyond; others are at rest, or as ``at`` says.

        Raises:
            Unlike: it does not fire, or the reset is of no known kind.
        """
        probe, at = case.probe, at or {}
        assert case.spike is not None
        row = case.row(v)
        onset = probe.onset(case.spike, main, np.sign(row[main]), at)

        def before_reset(point: dict[str, np.ndarray]) -> np.ndarray:
            full = {**probe.rest, **at, **point}
            return row[""] + sum((row[k] * full[k] for k in probe.variables if k != ""), np.zeros(probe.size))

        threshold = simple(before_reset({main: onset}))
        # Two points, because one cannot distinguish subtracting from setting. They are near the threshold, since other
        # branches of the dynamics may act far from it.
        margin = np.maximum(np.abs(threshold - before_reset({})), 1e-3) / np.abs(row[main])
        beyond = [{**at, main: onset + np.sign(row[main]) * k * margin} for k in (0.25, 0.5)]
        after = probe(beyond).states[v]
        change = after - np.stack([before_reset(p) for p in beyond])
        scale = np.abs(after) + np.abs(threshold)
        if is_close(change, np.zeros(()), scale):
            return cls._later(case, v, main, threshold, at)
        subtract, reset = _reset_of(after, change, scale)
        return cls(case, v, main, threshold, False, subtract, reset)

    @classmethod
    def _later(cls, case: Case, v: str, main: str, threshold: np.ndarray, at: dict[str, np.ndarray]) -> Spike:
        """Measures a reset that happens in the next step, from steps that start above the threshold."""
        probe, row = case.probe, case.row(v)
        if np.any(row[v] == 0):
            raise Unlike(
                "its potential does not persist, so there is nothing to reset",
                about=v,
                remedy="do not make it a state: a threshold on the input does the same",
            )
        margin = 0.25 * np.maximum(np.abs(threshold), 1e-3)
        starts = [threshold + k * margin for k in (1.0, 2.0)]
        after = probe([{**at, v: start} for start in starts]).states[v]
        rest = sum((row[k] * {**probe.rest, **at}[k] for k in probe.variables if k != v), row[""])
        # The potential from which the leak must have started for the result that it had: the one after the reset.
        began = (after - rest) / row[v]
        change = began - np.stack(starts)
        scale = np.abs(began) + np.abs(threshold)
        if is_close(change, np.zeros(()), scale):
            raise Unlike("a spike does not reset its potential", about=v, remedy=RESETS)
        subtract, reset = _reset_of(began, change, scale)
        return cls(case, v, main, threshold, True, subtract, reset)

    def jump(self, state: str) -> np.ndarray:
        """The amount that a spike adds to another state."""
        probe = self.case.probe
        if self.resets_later:
            margin = 0.25 * np.maximum(np.abs(self.threshold), 1e-3)
            after = probe([{}, {self.v: self.threshold + margin}]).states[state]
        else:
            assert self.case.spike is not None
            direction = np.sign(self.case.row(self.v)[self.main])
            onset = probe.onset(self.case.spike, self.main, direction, {})
            after = probe([{}, {self.main: onset + direction * np.maximum(np.abs(onset), 1e-3)}]).states[state]
        return simple(after[1] - after[0])

    @property
    def shift(self) -> np.ndarray | float:
        """What is taken off the traced potential for the neuron's, whose reset subtracts exactly its threshold.

        A potential with the threshold 1.5 and a reset that subtracts 1 is that of a neuron with the threshold 1, plus
        0.5.
        """
        return 0.0 if self.subtract is None else simple(self.threshold - self.subtract)

    @property
    def is_plain(self) -> bool:
        """Whether the neuron's potential is the traced one."""
        return not self.resets_later and not np.any(self.shift)

    @property
    def fields(self) -> dict[str, Any]:
        """Threshold and reset as arguments of the neuron."""
        threshold = simple(self.threshold - self.shift)
        if self.subtract is None:
            return {"v_threshold": threshold, "v_reset": simple(self.reset), "reset": "zero"}
        return {"v_threshold": threshold, "reset": "subtract"}

    def start(self, v: np.ndarray) -> np.ndarray:
        """The neuron's potential before the first step."""
        v = np.broadcast_to(v, self.threshold.shape)
        if self.resets_later:
            v = self.after(v, self.is_due)
        return v - self.shift

    def after(self, v: np.ndarray, fired: np.ndarray) -> np.ndarray:
        """Potentials, reset where neurons fired."""
        return np.where(fired, self.reset if self.subtract is None else v - self.subtract, v)

    @property
    def is_due(self) -> np.ndarray:
        """Which neurons are reset in the first step, ``[size]``, if resets happen at the beginning of a step."""
        initial = self.case.probe.population.initial_state()
        above = initial[self.v].ravel() - self.threshold
        if self.adaptation is None:
            return above > 0
        return above > self.adaptation.slope / self.adaptation.fade * initial[self.adaptation.state].ravel()


@dataclass(frozen=True, eq=False)
class Adaptation:
    """A state that raises the threshold.

    Attributes:
        state: its name.
        slope: of the threshold by the state before the step.
        jump: amount that a spike adds to the state.
        fade: fraction of the state that is left after a step.
    """

    state: str
    slope: np.ndarray
    jump: np.ndarray
    fade: np.ndarray


def _reset_of(after: np.ndarray, change: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """The amount that a reset subtracts, or None, and the value that it sets; from two potentials and their changes.

    Raises:
        Unlike: neither the changes nor the potentials are equal.
    """
    if is_close(change[0], change[1], scale[0]):
        return simple(-change[0]), np.zeros(after.shape[1:])
    if is_close(after[0], after[1], scale[0]):
        return None, simple(after[0])
    raise Unlike("a spike neither sets its potential nor subtracts a fixed amount from it", remedy=RESETS)
