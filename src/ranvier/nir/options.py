"""What a NIR file does not say, as one value that is passed from the command line to the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Resets = str | Mapping[str, str] | None


@dataclass(frozen=True)
class NirOptions:
    """The keywords of :func:`ranvier.from_nir`, see there; None stands for what the file says itself."""

    dt: float | None = None
    reset: Resets = None
    recurrent_delay: int | None = None
    integration: str | None = None
    current: str | None = None
    fires: str | None = None

    @property
    def choices(self) -> dict[str, Resets]:
        """How neurons are computed, by the name of the choice."""
        return {"reset": self.reset, "integration": self.integration, "current": self.current, "fires": self.fires}

    @property
    def names(self) -> list[str]:
        """The options that are set, in words."""
        return [name.replace("_", " ") for name, value in vars(self).items() if value is not None]
