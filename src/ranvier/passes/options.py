"""How passes are run and checked: one value that goes from the command line through ``ranvier.optimize`` to the pass
manager."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PassError

BUDGET = 0.01
"""Of O3 by default: one percent of accuracy, or of the outputs' root mean square."""
CONFIDENCE = 0.95

OnProgress = Callable[[str], None]


def silent(text: str) -> None:
    """Where nobody wants to know what is done next."""


@dataclass(frozen=True)
class OptimizeOptions:
    """Keywords of :func:`ranvier.optimize`, which describes them.

    Attributes:
        on_progress: its ``watch``: called with what is done next.
    """

    budget: float | None = None
    confidence: float = CONFIDENCE
    verify_each: bool = True
    counterexample: str | os.PathLike[str] | None = None
    fixpoint: bool = True
    print_after_all: bool = False
    bisect_limit: int | None = None
    on_progress: OnProgress = silent

    @property
    def limit(self) -> float:
        """The budget."""
        return BUDGET if self.budget is None else self.budget

    def checked(self) -> OptimizeOptions:
        """Itself.

        Raises:
            PassError: a number is out of its range.
        """
        budget, limit = self.budget, self.bisect_limit
        if budget is not None and not (isinstance(budget, (int, float)) and 0 <= budget < math.inf):
            raise PassError(f"budget={budget!r}: expected a fraction, at least 0; 0.01 is one percent.")
        if not (isinstance(self.confidence, (int, float)) and 0.5 <= self.confidence < 1):
            raise PassError(f"confidence={self.confidence!r}: expected a number from 0.5 to below 1, such as 0.95.")
        if limit is not None and not (isinstance(limit, int) and limit >= 0):
            raise PassError(f"bisect_limit={limit!r}: expected a number of passes, at least 0.")
        return self
