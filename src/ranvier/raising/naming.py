"""Names for the parts of a graph, from the paths and variables of its program."""

from __future__ import annotations

import re
from collections.abc import Container, Hashable, Iterable
from typing import Any, TypeVar

from ..graph.names import free_name
from ..program._jax import Var
from ..program.paths import Path, path_text
from .references import OldState
from .step import StepView

Key = TypeVar("Key", bound=Hashable)


def free(taken: Container[str], wanted: str) -> str:
    """A name without spaces that is not taken yet."""
    return free_name(taken, re.sub(r"\s+", "_", wanted) or "value")


class LocalNames:
    """Names within a population: no two are the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, wanted: Iterable[tuple[Key, str]]) -> dict[Key, str]:
        """Names for some keys, as close as possible to the ones that are wanted."""
        names = {}
        for key, name in wanted:
            names[key] = free(self._taken, name)
            self._taken.add(names[key])
        return names


def path_of_state(step: StepView, part: OldState) -> Path:
    return step.info.state_slots[part.state].path


def name_of_module(step: StepView, part: OldState) -> str:
    """The name of the module that has a state, or of the state itself if it is in no module."""
    path = path_of_state(step, part)
    return path_text(path[:-1]) if len(path) > 1 else path_text(path)


def name_of_state(step: StepView, part: OldState) -> str:
    """The last part of a state's path, with a number where the state holds several numbers of each neuron."""
    suffix = f".{part.component}" if step.parts[part] is not None else ""
    return f"{path_of_state(step, part)[-1]}{suffix}"


def name_of_variable(step: StepView, var: Var) -> str:
    """The name of a variable in the model's code, or a letter."""
    return step.info.variable_names.get(var, "value").strip("'")


def name_of_parameter(step: StepView, var: Var) -> str:
    """The path of a parameter, or the variable's name for a value that is computed from parameters."""
    path: Any = step.info.invar_to_weight_path.get(var)
    return path_text(path) if path is not None else name_of_variable(step, var)
