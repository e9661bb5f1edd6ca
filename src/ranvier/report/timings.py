"""How long a network takes to simulate before and after an optimization."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..util.counting import counted
from ..util.table import table


@dataclass(frozen=True)
class Timing:
    """The time of one simulation, compiled before.

    Attributes:
        samples: simulated together.
        steps: of each sample.
        before, after: seconds, the median of several runs.
    """

    samples: int
    steps: int
    before: float
    after: float

    @property
    def speedup(self) -> float:
        """How many times as fast the network is after the optimization."""
        return self.before / self.after


@dataclass(frozen=True)
class Timings:
    """Times at several batch sizes; ``print(timings)`` shows a table.

    Attributes:
        rows: by batch size, in the order of the request.
        repeats: number of runs that each median is taken of.
    """

    rows: tuple[Timing, ...]
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as dictionaries, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        rows = [
            (row.samples, row.steps, f"{row.before * 1e3:.3g} ms", f"{row.after * 1e3:.3g} ms", f"{row.speedup:.2f}")
            for row in self.rows
        ]
        header = ("samples", "steps", "before", "after", "times as fast")
        return "\n".join([f"simulation, median of {counted(self.repeats, 'run')}", *table(header, rows)])
