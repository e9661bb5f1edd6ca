"""Dynamics measured by running them: slopes where nothing fires, and the inputs from which on they fire."""

# An example: v' = 0.75 v + x, a spike if that is above 1, which is then taken off v'. Rest is v = x = 0: small changes
# of v and x add up there, and nothing fires. From the changes come the slopes of v', 0.75 by v and 1 by x, with the
# constant 0. The input doubles from 0.001 until something fires, at 1.024, and bisection between that and the last
# silent value 0.512 gives the onset, 1.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...graph.elements import Population
from ...graph.traced import Traced, run_traced

Values = dict[str, np.ndarray]
"""By port or state, ``[size]``."""
ATTEMPTS = (0.0, None, 1.0, -1.0, 10.0, -10.0, 100.0, -100.0)
"""Values of states at which dynamics may be at rest; None stands for the initial states."""
EXACT = 1e-9
"""Relative difference up to which numbers count as equal."""
SMALLEST_STEP, LARGEST_INPUT = 1e-15, 1e18
"""The smallest change of a variable for a slope, and the largest input for which a spike is sought."""


class Unlike(Exception):
    """The dynamics are not those of a named neuron; the message says why.

    Attributes:
        about: the state or output concerned, if it is a single one.
        remedy: a change of the model that would help.
    """

    def __init__(self, reason: str, *, about: str | None = None, remedy: str = "") -> None:
        super().__init__(reason)
        self.about, self.remedy = about, remedy


class Curved(Unlike):
    """The dynamics are not affine at any of the points tried as rest."""


@dataclass(frozen=True, eq=False)
class Response:
    """New states and outputs at some points, ``[points, size]`` by name."""

    states: Values
    outputs: Values


class Probe:
    """The dynamics of a traced population, which can be run at any point.

    Attributes:
        inputs, states, outputs: names.
        size: number of neurons.
    """

    def __init__(self, population: Population) -> None:
        neuron = population.neuron
        assert isinstance(neuron, Traced)
        self.population, self.neuron = population, neuron
        self.inputs, self.states, self.outputs = neuron.inputs, neuron.states, neuron.outputs
        self.size = population.size

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of everything that a step reads: inputs and states."""
        return (*self.inputs, *self.states)

    def __call__(self, points: Sequence[Mapping[str, np.ndarray]]) -> Response:
        """The response at points with values for some variables; the others are at rest."""
        full = [{**self.rest, **point} for point in points]
        return self.run(full)

    def run(self, points: Sequence[Mapping[str, np.ndarray]]) -> Response:
        """The response at points with values for all variables."""
        # Every number of points is compiled anew, so it is rounded up to a multiple of eight.
        count = -(-len(points) // 8) * 8
        padded = [*points, *([points[-1]] * (count - len(points)))]
        stacked = {k: np.stack([np.broadcast_to(p[k], (self.size,)) for p in padded]) for k in self.variables}
        states, outputs = run_traced(
            self.neuron,
            self.population.shape,
            {k: stacked[k] for k in self.inputs},
            {k: stacked[k] for k in self.states},
        )
        return Response(*({k: v[: len(points)] for k, v in part.items()} for part in (states, outputs)))

    @cached_property
    def rest(self) -> Values:
        """A point around which the dynamics are affine and nothing fires; if possible, one at which no reset hides a
        state.

        Raises:
            Curved: there is none among the points tried.
        """
        first = None
        initial = {k: np.broadcast_to(v.ravel(), (self.size,)) for k, v in self.population.initial_state().items()}
        zeros = {k: np.zeros(self.size) for k in self.inputs}
        for value in ATTEMPTS:
            states = initial if value is None else {k: np.full(self.size, value) for k in self.states}
            point = {**zeros, **states}
            if not self._is_quiet(point):
                continue
            # A state that decides nothing may be one that is being set by a reset: its slope would be wrong elsewhere.
            steps = self._steps(point)
            if self._is_affine_around(point, steps):
                first = first or point
                if self._lasts(point, steps):
                    return point
        if first is not None:
            return first
        raise Curved(
            "around rest it is not affine: it has products of states or inputs, or a nonlinear function",
            remedy="below the threshold, leak and input must be linear",
        )

    def _is_quiet(self, point: Values) -> bool:
        """Whether nothing fires."""
        outputs = self.run([point]).outputs
        return not any(np.any(outputs[o]) for o in self.neuron.binary)

    def _lasts(self, point: Values, steps: Values) -> bool:
        """Whether the next value of every state depends on its present one."""
        states = self.run([point, *({**point, k: point[k] + steps[k]} for k in self.states)]).states
        return all(np.any(states[k][1 + n] != states[k][0]) for n, k in enumerate(self.states))

    def _steps(self, point: Values) -> Values:
        """Changes of the variables that are so small that nothing fires."""
        steps = {k: 1e-3 * (1 + np.abs(point[k])) for k in self.variables}
        for name, step in steps.items():
            # Twice the step, because :meth:`_is_affine_around` goes that far up.
            while step.max() > SMALLEST_STEP and not self._is_quiet({**point, name: point[name] + 2 * step}):
                step = step / 10
            while step.max() > SMALLEST_STEP and not self._is_quiet({**point, name: point[name] - 2 * step}):
                step = step / 10
            steps[name] = step
        return steps

    def _is_affine_around(self, point: Values, steps: Values) -> bool:
        """Whether small changes add up: opposite changes have opposite effects, twice a change has twice the effect,
        and all changes together have the sum of their effects."""
        moved = [point]
        for name in self.variables:
            moved += [{**point, name: point[name] + k * steps[name]} for k in (-1, 1, 2)]
        moved.append({name: point[name] + steps[name] for name in self.variables})
        response = self.run(moved)
        for values in (*response.states.values(), *response.outputs.values()):
            scale = EXACT * (np.abs(values).max(0) + 1e-6)
            slopes = [values[2 + 3 * k] - values[0] for k in range(len(self.variables))]
            for k, slope in enumerate(slopes):
                down, twice = values[1 + 3 * k] - values[0], values[3 + 3 * k] - values[0]
                if np.any(np.abs(down + slope) > scale) or np.any(np.abs(twice - 2 * slope) > scale):
                    return False
            if np.any(np.abs(values[-1] - values[0] - sum(slopes, np.zeros(self.size))) > scale):
                return False
        return True

    @cached_property
    def affine(self) -> dict[str, dict[str, np.ndarray]]:
        """Around rest: for each new state and output, its slope by every variable, and the constant under ``""``."""
        steps = self._steps(self.rest)
        response = self([{}, *({k: self.rest[k] + steps[k]} for k in self.variables)])
        slopes: dict[str, dict[str, np.ndarray]] = {}
        for name, values in {**response.states, **response.outputs}.items():
            row = {k: (values[1 + n] - values[0]) / steps[k] for n, k in enumerate(self.variables)}
            row = {k: _clean(v) for k, v in row.items()}
            row[""] = _clean(values[0] - sum((row[k] * self.rest[k] for k in self.variables), np.zeros(self.size)))
            slopes[name] = row
        return slopes

    def fires(self, output: str, point: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which neurons fire, boolean ``[size]``."""
        return self([point]).outputs[output][0] != 0

    def onset(self, output: str, variable: str, direction: np.ndarray, at: Mapping[str, np.ndarray]) -> np.ndarray:
        """The value at which an output starts to fire when a variable moves away from rest, ``[size]``.

        Raises:
            Unlike: it does not fire, however far the variable moves.
        """
        start = np.broadcast_to({**self.rest, **at}[variable], (self.size,))
        low, reach = np.zeros(self.size), np.full(self.size, 1e-3)
        while True:
            fired = self.fires(output, {**at, variable: start + direction * reach})
            if fired.all():
                break
            low, reach = np.where(fired, low, reach), np.where(fired, reach, 2 * reach)
            if reach.max() > LARGEST_INPUT:
                remedy = "compare the potential with a threshold that a large input reaches"
                raise Unlike(f"it does not fire, however far {variable!r} drives it up", about=output, remedy=remedy)
        # Until the two bounds are neighboring numbers. For numbers of 64 bits that takes less than 200 halvings.
        high = reach
        for _ in range(200):
            middle = (low + high) / 2
            if np.all((middle == low) | (middle == high)):
                break
            fired = self.fires(output, {**at, variable: start + direction * middle})
            low, high = np.where(fired, low, middle), np.where(fired, middle, high)
        return start + direction * high


def _clean(values: np.ndarray) -> np.ndarray:
    """Slopes in which values that differ from 0 or 1 only by rounding are exact."""
    values = np.where(np.abs(values) < 1e-10, 0.0, values)
    return np.where(np.abs(values - 1) < 1e-10, 1.0, values)


def is_close(a: np.ndarray, b: np.ndarray, scale: float | np.ndarray = 1.0) -> bool:
    """Whether numbers are equal up to rounding."""
    return bool(np.all(np.abs(a - b) <= 1e-8 * np.maximum(np.maximum(np.abs(a), np.abs(b)), scale)))


def simple(values: np.ndarray, tolerance: float = 1e-8) -> np.ndarray:
    """Numbers rounded to six digits where that changes them no more than rounding errors do."""
    rounded = np.array([float(f"{v:.6g}") for v in np.ravel(values)]).reshape(np.shape(values))
    return np.where(np.abs(rounded - values) <= tolerance * np.maximum(np.abs(values), 1e-12), rounded, values)
