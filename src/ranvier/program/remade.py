"""Results of analyses as values: a copy of one is itself, and a pickled one is the call that makes it again.

A jaxpr holds functions and tracebacks that no pickle can hold, so what is pickled is the model a result came from.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

Recipe = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments."""


class Remade:
    """A value that never changes, which a function makes from other values."""

    def recipe(self) -> Recipe:
        """The function and the arguments that make an equal value; they are what is pickled."""
        raise NotImplementedError

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce__(self) -> Recipe:
        return self.recipe()


def check_pickles(model: Any, what: str) -> None:
    """Raises :class:`pickle.PicklingError` for a model that cannot be pickled, with which ``what`` cannot."""
    try:
        pickle.dumps(model)
    except Exception as error:
        raise pickle.PicklingError(
            f"{what} is pickled together with its model, which cannot be pickled: {error}. Define the step and the "
            "functions it calls at the top level of a module."
        ) from error
