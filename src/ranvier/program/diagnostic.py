"""Diagnostics: what an analysis left out or could not do, and why."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .paths import Path, path_text


class DiagnosticKind(enum.Enum):
    """What a diagnostic is about. Tests and programs match on this, never on the message."""

    OPAQUE_EQUATION = "opaque-equation"
    """An equation whose inside is unknown stands between parameters or states and what they feed."""
    UNUSED_PARAMETER = "unused-parameter"
    """The step never reads the parameter."""
    READOUT_PARAMETER = "readout-parameter"
    """The parameter reaches outputs only, never a hidden state: its same-step gradient is complete."""
    INDIRECT_PARAMETER = "indirect-parameter"
    """Between the parameter and every hidden state stands another mixing operation."""
    MIXED_PATH = "mixed-path"
    """A projection reaches a hidden state directly and also through another mixing operation of the same step;
    f holds only the direct path."""
    GRADIENT_STOPPED = "gradient-stopped"
    """Every path from the parameter ends in stop_gradient, an integer or a comparison."""
    STATE_THROUGH_OTHER = "state-through-other"
    """A hidden state acts on a later step through a state that is not hidden, which no trace follows."""
    OTHER_STATE_PARAMETER = "other-state-parameter"
    """The parameter acts on later steps through a state that is not hidden, which no trace follows."""
    UNKNOWN_PRIMITIVE = "unknown-primitive"
    """A primitive that is not in the table; treated as opaque."""
    POSITIONS_MOVE = "positions-move"
    """A hidden state reaches itself at another position, so D is not block diagonal there."""
    STATE_BROADCAST = "state-broadcast"
    """One position of a hidden state feeds many positions of another."""
    STATE_MIXED = "state-mixed"
    """A hidden state reaches the next step only through mixing operations, so its column of D is zero."""
    HIDDEN_BY_USE = "hidden-by-use"
    """A state that is not hidden by its class counts as hidden, since parameters act on later steps through it."""
    UNCHANGED_STATE = "unchanged-state"
    """A floating-point state leaf that the step returns as it came; carried as other state."""
    NON_FLOATING_STATE = "non-floating-state"
    """A state leaf without derivative (integer, boolean, random key), carried as other state."""


@dataclass(frozen=True)
class Diagnostic:
    """One finding.

    Attributes:
        kind: what it is about.
        message: one or two sentences for a person: what was seen, why it matters, what would help.
        equation: the equation's primitive and source line, where one is to blame.
        paths: the states and parameters concerned.
    """

    kind: DiagnosticKind
    message: str
    equation: str | None = None
    paths: tuple[Path, ...] = ()

    def __str__(self) -> str:
        names = ", ".join(path_text(path) for path in self.paths)
        place = f" [{self.equation}]" if self.equation else ""
        return f"{self.kind.value}: {names + ': ' if names else ''}{self.message}{place}"
