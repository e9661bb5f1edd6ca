"""Notes on what NIR has no place for: JSON under one key of the metadata of graphs that Ranvier writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..errors import GraphError, reason_text

NOTES = "ranvier"
"""The key of the metadata."""


@dataclass(frozen=True)
class NirNotes:
    """Notes on what NIR has no place for.

    Attributes:
        dt: time step in seconds.
        choices: how neurons are computed, by population and name of the choice.
        delays: in steps, by projection.
        initial: states before the first step, by population and state.
        ranges: lowest and highest value, by input.
        fixed: names of the projections whose arrays are not trained.
        masked: names of the projections whose zeros are absent synapses.
        untied: by parameter from which several arrays were computed, or one by a function, the projections and
            populations with these arrays; in NIR each has numbers of its own.
    """

    dt: float | None = None
    choices: dict[str, dict[str, str]] = field(default_factory=dict)
    delays: dict[str, int] = field(default_factory=dict)
    initial: dict[str, dict[str, Any]] = field(default_factory=dict)
    ranges: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    untied: dict[str, list[str]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """What a reader of the file should know; empty if there is nothing."""
        by_parameter = "; ".join(f"{name!r} in {', '.join(map(repr, uses))}" for name, uses in self.untied.items())
        return f"NIR cannot tie weights, so each use has its own numbers: {by_parameter}" if by_parameter else ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> NirNotes:
        """The notes in a graph's metadata; missing ones have their defaults.

        Raises:
            GraphError: the notes are damaged.
        """
        try:
            notes = json.loads(metadata.get(NOTES, "{}"))
        except (TypeError, ValueError, RecursionError) as error:
            raise GraphError(f"the metadata {NOTES!r} is not JSON: {reason_text(error)}") from error
        if not isinstance(notes, dict):
            raise GraphError(f"the metadata {NOTES!r} is {type(notes).__name__}, expected an object.")
        for name, fits in FORMS.items():
            if name in notes and not fits(notes[name]):
                raise GraphError(
                    f"the metadata {NOTES!r}: {name} is {notes[name]!r:.80}, which Ranvier does not write."
                )
        return cls(**{name: notes[name] for name in FORMS if name in notes})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_array(value: Any) -> bool:
    try:
        return bool(np.issubdtype(np.asarray(value).dtype, np.number))
    except ValueError:
        return False


def _by_name(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(fits(one) for one in value.values())


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(x is None or _is_number(x) for x in value)


FORMS: dict[str, Callable[[Any], bool]] = {
    "dt": _is_number,
    "choices": _by_name(_by_name(lambda value: isinstance(value, str))),
    "delays": _by_name(lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "initial": _by_name(_by_name(_is_array)),
    "ranges": _by_name(_is_range),
    "fixed": _are_names,
    "masked": _are_names,
    "untied": _by_name(_are_names),
}
"""By name of a note, whether a value has the form in which the note is written."""
