"""What a NIR file does not say, as one value that goes from the command line to the reader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Resets = str | Mapping[str, str] | None


@dataclass(frozen=True)
class NirOptions:
    """Keywords of :func:`ranvier.from_nir`, which describes them; None for what the file says itself."""

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
        """What is given, in words."""
        return [name.replace("_", " ") for name, value in vars(self).items() if value is not None]
